//! The whole system at work: real servers, the real binary, real files. One module per behaviour.

mod bad_input;
mod burning;
mod cli;
mod clock_jumps;
mod crash_points;
mod deploy;
mod due_at_once;
mod external;
mod foreign;
mod forgotten_acks;
mod gate;
mod harness;
mod idle;
mod leaders;
mod logging;
mod logins;
mod many;
mod migration;
mod poison;
mod python;
mod run_log;
mod server_killed;
mod site;
mod sqlite_killed;
mod traces;
mod worker_killed;
