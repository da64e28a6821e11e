//! The whole system at work: real servers, the real binary, real files. One module per behaviour.

mod harness;
