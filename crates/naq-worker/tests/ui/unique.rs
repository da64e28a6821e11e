//! What cannot make a job unique is refused, at its place.
#![allow(unused_variables, reason = "only the options matter")]
use naq_macros::job;
#[job(crate = naq_worker, unique = "subjekt")]
async fn a(to: String, subject: String) {}

#[job(crate = naq_worker, unique = ["to", "cx"])]
async fn b(to: String, cx: naq_worker::JobContext) {}

#[job(crate = naq_worker, unique = [])]
async fn c(to: String) {}

#[job(crate = naq_worker, unique(args = ["to"], key = "k"))]
async fn d(to: String) {}

#[job(crate = naq_worker, unique(while = "running"))]
async fn e(to: String) {}

#[job(crate = naq_worker, unique(while = "ttl"))]
async fn f(to: String) {}

#[job(crate = naq_worker, unique(while = "active", ttl = "1h"))]
async fn g(to: String) {}

#[job(crate = naq_worker, unique(on_conflict = "ignore"))]
async fn h(to: String) {}

#[job(crate = naq_worker, unique(arg = ["to"]))]
async fn i(to: String) {}

#[job(crate = naq_worker, unique(ttl = 0))]
async fn j(to: String) {}

#[job(crate = naq_worker, unique())]
async fn k(to: String) {}

#[job(crate = naq_worker, unique(key = ""))]
async fn l(to: String) {}

#[job(crate = naq_worker, unique = to)]
async fn m(to: String) {}

#[job(crate = naq_worker, unique, unique = "to")]
async fn n(to: String) {}

fn main() {}
