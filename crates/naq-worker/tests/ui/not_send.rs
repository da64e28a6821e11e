//! A handler may be moved between threads while it waits.
use naq_macros::job;

#[job(crate = naq_worker)]
async fn keeps_an_rc() {
    let rc = std::rc::Rc::new(1);
    std::future::ready(()).await;
    drop(rc);
}

fn main() {}
