//! The promises of Parallax, one module each, in one binary.

// A test fails by panicking, also in the helpers that several tests share.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod atomic;
mod books;
mod contract;
mod crash;
mod deletes;
mod disk_full;
mod isolation;
mod plan;
mod scheduler;
mod store_files;
mod support;
mod views;
