//! libFuzzer on [`naq_fuzz::fuzz::jsonl`].
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| naq_fuzz::fuzz::jsonl(data));
