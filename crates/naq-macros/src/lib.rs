//! The attribute macro of naq: `#[naq::job]`.
