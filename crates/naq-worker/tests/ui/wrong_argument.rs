//! A job's builder takes what the function takes.
use naq_macros::job;

#[job(crate = naq_worker)]
async fn send(to: String, copies: u32) {
    let _ = (to, copies);
}

fn main() {
    let _ = send::job("a@b.c", 5);
    let _ = send::job(5, 5);
    let _ = send::job("a@b.c");
}
