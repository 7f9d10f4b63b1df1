use std::sync::Arc;

use crate::step::Step;

/// Reads an outside system.
///
/// Usable as `dyn Connector`; references, `Box`es and `Arc`s of connectors are connectors.
pub trait Connector: Send + Sync {
    /// Returns the `connector_id`: `[a-z0-9_.-]{1,64}`, the same for as long as its records shall
    /// be recognised.
    fn name(&self) -> &str;

    /// Returns the version of what it reads and how, for people; empty if there is none.
    fn version(&self) -> &str {
        ""
    }

    /// Returns the steps.
    ///
    /// Called once per run. Step ids are stored with the records: a step that is renamed is a new
    /// step, and what the old one emitted is kept, because nobody looks for it any more.
    fn steps(&self) -> Vec<Step<'_>>;
}

macro_rules! forward {
    ($($pointer:ty),*) => {
        $(impl<C: Connector + ?Sized> Connector for $pointer {
            fn name(&self) -> &str {
                (**self).name()
            }

            fn version(&self) -> &str {
                (**self).version()
            }

            fn steps(&self) -> Vec<Step<'_>> {
                (**self).steps()
            }
        })*
    };
}

forward!(&C, Box<C>, Arc<C>);
