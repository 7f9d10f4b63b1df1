//! What the tests of Parallax's promises share.
//!
//! [`Script`] is a connector that does as it is told; [`Model`] is a commit in a hundred lines,
//! slow and plain, that the store's commit is held to.

mod model;
mod script;

pub use model::{Model, Stored};
pub use script::{End, Part, Rec, Script, ScriptStep, scripts, silence_scripted_panics};

/// The guide: every code block in it is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../docs/src/observability.md")]
pub mod observability {}

/// The guide's page on connectors.
#[cfg(doctest)]
#[doc = include_str!("../../docs/src/writing.md")]
pub mod writing {}

/// The README: its connector is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub mod readme {}
