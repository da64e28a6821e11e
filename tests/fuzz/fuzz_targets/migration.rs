//! libFuzzer on [`naq_fuzz::fuzz::migration`].
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| naq_fuzz::fuzz::migration(data));
