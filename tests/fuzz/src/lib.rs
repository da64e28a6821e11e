//! [`fuzz`] is `naq_tests::fuzz`, compiled without what the other tests need: a fuzzer builds everything anew, with
//! instructions that count what was reached.

#[path = "../../src/fuzz/mod.rs"]
pub mod fuzz;
