//! `naq::config`: everything of `naq_config`, and the name that NAQ has for the configuration.

#[doc(no_inline)]
pub use naq_config::NaqConfig as NAQConfig;
pub use naq_config::*;
