//! A crate of job functions compiles with naq-services alone: no worker, no registration, no unsafe code.
//!
//! What the functions do as handlers is tested in naq-worker.

#![forbid(unsafe_code)]

use naq_models::{JobId, Timestamp};
use naq_services::{JobContext, JobDefaults, NewJob, State};

/// A shared value.
pub struct Mailer;

/// Documented, as `missing_docs` asks of public functions; their jobs are documented by the macro.
#[naq_macros::job(crate = naq_services, queue = "mail")]
pub async fn send_mail(to: String, _mailer: State<Mailer>, _cx: JobContext) -> Result<usize, std::io::Error> {
    Ok(to.len())
}

#[naq_macros::job(crate = naq_services)]
fn never_named_elsewhere(list: Vec<u8>) -> Option<u8> {
    list.into_iter().max()
}

#[test]
fn a_producer_needs_no_worker() {
    let job: NewJob<usize> = send_mail::job("a@b.c");
    let id = JobId::new("j").unwrap();
    let job = job.into_job(id, Timestamp::EPOCH, &JobDefaults::default()).unwrap();
    assert_eq!((job.kind.as_str(), job.queue.as_str(), job.args.get()), (send_mail::KIND, "mail", r#"{"to":"a@b.c"}"#));
}
