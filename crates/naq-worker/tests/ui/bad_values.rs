//! Values that the running program would refuse are refused here.
use naq_macros::job;

#[job(crate = naq_worker, timeout = "5 parsecs")]
async fn a() {}

#[job(crate = naq_worker, timeout = 0)]
async fn b() {}

#[job(crate = naq_worker, retry_delay = ["1s", "soon"])]
async fn c() {}

#[job(crate = naq_worker, queue = "mail.fast")]
async fn d() {}

#[job(crate = naq_worker, priority = 4)]
async fn e() {}

#[job(crate = naq_worker, retry_strategy = "fibonacci")]
async fn f() {}

#[job(crate = naq_worker, queue = "a", queue = "b")]
async fn g() {}

#[job(crate = naq_worker, max_retries)]
async fn h() {}

#[job(crate = naq_worker, result_ttl = "200years")]
async fn i() {}

#[job(crate = naq_worker, kind = "")]
async fn j() {}

#[job(crate = naq_worker, retry_jitter = 1.5)]
async fn k() {}

#[job(crate = naq_worker, ignore_on = [timeout])]
async fn l() {}

fn main() {}
