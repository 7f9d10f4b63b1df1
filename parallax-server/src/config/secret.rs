use std::path::PathBuf;

use parallax_core::Escaped;

/// A text of the configuration that may be kept out of its file.
#[derive(Clone, Debug)]
pub(crate) enum Secret {
    /// It stands there.
    Written(String),
    /// It is in an environment variable.
    Env {
        /// What it is for.
        key: &'static str,
        name: String,
    },
    /// It is in a file.
    File { key: &'static str, path: PathBuf },
}

impl Secret {
    /// Returns the text, as it is now.
    ///
    /// # Errors
    ///
    /// Why there is none, and what to do.
    pub(crate) fn read(&self) -> Result<String, (String, String)> {
        let (key, read, from) = match self {
            Self::Written(text) => return Ok(text.clone()),
            Self::Env { key, name } => (
                key,
                std::env::var(name).map_err(|error| error.to_string()),
                format!("the environment variable {name:?}"),
            ),
            Self::File { key, path } => (
                key,
                std::fs::read_to_string(path).map_err(|error| error.to_string()),
                format!("the file {:?}", Escaped(path.display()).to_string()),
            ),
        };
        let reason = match read.map(|text| text.trim_end().to_owned()) {
            Ok(text) if !text.is_empty() => return Ok(text),
            Ok(_) => "it is empty".to_owned(),
            Err(error) => error,
        };
        Err((
            format!("{key} is to come from {from}: {reason}"),
            format!("put it where this user can read it, or write {key} = \"...\""),
        ))
    }
}
