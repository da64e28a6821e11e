//! Functions that cannot be handlers.
use naq_worker::handler::{blocking, typed};

struct Opaque;

async fn returns_opaque() -> Opaque {
    Opaque
}

async fn takes_opaque(_value: Opaque) {}

async fn fails_opaquely() -> Result<(), Opaque> {
    Ok(())
}

fn is_not_async() {}

fn main() {
    let _ = typed("a", returns_opaque);
    let _ = typed("b", takes_opaque);
    let _ = typed("c", fails_opaquely);
    let _ = typed("d", is_not_async);
    let _ = blocking("e", takes_opaque);
}
