//! A result under another name would be stored as a value.
use naq_macros::job;

type Fallible<T> = Result<T, String>;

#[job(crate = naq_worker)]
async fn hidden_result() -> Fallible<u8> {
    Ok(1)
}

fn main() {}
