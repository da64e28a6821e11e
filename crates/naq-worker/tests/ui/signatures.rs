//! Functions that cannot be jobs.
use naq_macros::job;

#[job(crate = naq_worker)]
async fn generic<T: Send>(value: T) {}

#[job(crate = naq_worker)]
async fn hidden_generic(value: impl Send) {}

#[job(crate = naq_worker)]
async fn borrowed(name: &str, list: &[u8]) {}

#[job(crate = naq_worker)]
async fn lifetime<'a>(name: std::borrow::Cow<'a, str>) {}

#[job(crate = naq_worker)]
async fn pattern((a, b): (u8, u8)) {}

#[job(crate = naq_worker)]
async fn unnamed(_: u8) {}

#[job(crate = naq_worker, blocking)]
async fn blocking_async() {}

#[job(crate = naq_worker)]
async fn opaque() -> impl Sized {}

#[job(crate = naq_worker)]
unsafe fn dangerous() {}

#[job(crate = naq_worker)]
struct NotAFunction;

struct Mailer;
impl Mailer {
    #[job(crate = naq_worker)]
    async fn method(&self) {}
}

fn main() {}
