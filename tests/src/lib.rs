//! What the whole-system tests share: real servers, the real binary, and waiting for what they do.
//!
//! Everything started here listens on loopback, keeps its files in a temporary folder, and is ended by its pid when the
//! value that stands for it is dropped. Nothing here knows what a job is; the tests in `tests/system` do.

mod bad_disk;
mod binary;
pub mod chaos;
mod clock_shift;
mod collector;
pub mod faults;
mod foreign_programs;
pub mod fuzz;
mod lines;
mod nats_server;
mod power_cut;
mod preload;
mod programs;
mod raw_nats;
mod settings;
mod terminal;
mod wait;

pub use bad_disk::{BadDisk, DiskFault};
pub use binary::{Finished, NaqBinary, NaqProcess};
pub use clock_shift::ClockShift;
pub use collector::{Collector, Seen};
pub use foreign_programs::{lock_file, write_foreign_rows};
pub use lines::whole_lines;
pub use nats_server::{NatsOptions, NatsServer, ServerVersion, free_port};
pub use power_cut::PowerCut;
pub use programs::{naq_program, nats_program, python_modules, temp_folder};
pub use raw_nats::RawNats;
pub use rustix::process::Signal;
pub use settings::{LEASE, short_times};
pub use terminal::Terminal;
pub use wait::eventually;
