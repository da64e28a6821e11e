//! The stock `naq` binary.
fn main() {}
