//! The binary as its callers see it: what only a process has, such as signals, pipes and a
//! current directory. What commands say is tested where they are.

// A test fails by panicking, also in the helpers that several tests share.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod commands;
mod desk;
#[cfg(target_os = "linux")]
mod failing_calls;
mod held;
#[cfg(all(unix, feature = "otlp"))]
mod otlp;
#[cfg(unix)]
mod serve;
#[cfg(unix)]
mod signals;
mod traces;
