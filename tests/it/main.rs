//! The promises of Parallax, one module each, in one binary.

// A test fails by panicking, also in the helpers that several tests share.
// What it prints is for whoever reads its output.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod atomic;
mod backup;
mod books;
mod browse;
mod contract;
mod crash;
mod deletes;
mod disk_full;
mod explain;
mod held;
mod history;
mod hostile;
mod isolation;
mod journal;
#[cfg(target_os = "linux")]
mod memory;
mod migrate;
mod plan;
mod processes;
mod prometheus;
mod scheduler;
mod store_files;
mod support;
mod verify;
mod views;
