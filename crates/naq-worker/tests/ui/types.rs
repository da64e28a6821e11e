//! Types that cannot travel.
use naq_macros::job;

struct Opaque;

#[job(crate = naq_worker)]
async fn argument(value: Opaque) {
    let _ = value;
}

#[job(crate = naq_worker)]
async fn result() -> Opaque {
    Opaque
}

#[job(crate = naq_worker)]
async fn error() -> Result<(), Opaque> {
    Ok(())
}

fn main() {}
