//! Unknown options list the known ones.
use naq_macros::job;

#[job(crate = naq_worker, max_retry = 3)]
async fn nearly() {}

#[job(crate = naq_worker, delay = "5s")]
async fn belongs_to_a_job() {}

#[job(crate = naq_worker, whatever)]
async fn nothing_like_it() {}

fn main() {}
