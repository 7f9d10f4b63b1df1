use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::rand::{GetRandomFlags, getrandom};
use subtle::ConstantTimeEq;

use crate::error::Failure;

/// What a token is made of.
const BYTES: usize = 32;

/// The tokens of a daemon: who has one may do what it says.
pub(crate) struct Tokens {
    read: Token,
    admin: Token,
}

/// A secret. It is in no log, error or answer.
struct Token([u8; BYTES]);

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// To read.
    Read,
    /// To change things, too.
    Admin,
}

impl Role {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read token",
            Self::Admin => "admin token",
        }
    }
}

impl Tokens {
    /// Reads the tokens in a file, or makes some if there is none.
    ///
    /// # Errors
    ///
    /// [`Failure::Tokens`] if the file is readable by others, or holds something else.
    pub(crate) fn read_or_make(path: &Path) -> Result<Self, Failure> {
        match Self::read(path) {
            Err(Failure::Tokens {
                reason: Reason::Missing,
                ..
            }) => {}
            read => return read,
        }
        let failed = |error: io::Error| Failure::Tokens {
            path: path.to_owned(),
            reason: Reason::Io(error.to_string()),
        };
        let tokens = Self {
            read: Token::make().map_err(failed)?,
            admin: Token::make().map_err(failed)?,
        };
        let text = format!("read {}\nadmin {}\n", tokens.read.hex(), tokens.admin.hex());
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        let written = file
            .write_all(text.as_bytes())
            .and_then(|()| file.sync_all());
        if let Err(error) = written {
            // Half of it would be refused at the next start.
            fs::remove_file(path).ok();
            return Err(failed(error));
        }
        Ok(tokens)
    }

    /// Reads the tokens in a file.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let failed = |reason| Failure::Tokens {
            path: path.to_owned(),
            reason,
        };
        let text = read_secret(path).map_err(failed)?;
        let mut lines = text.lines();
        let mut token = |name: &str| {
            let digits = lines.next()?.strip_prefix(name)?.strip_prefix(' ')?;
            Token::parse(digits)
        };
        let (read, admin) = (token("read"), token("admin"));
        match (read, admin, lines.next()) {
            (Some(read), Some(admin), None) => Ok(Self { read, admin }),
            _ => Err(failed(Reason::Content)),
        }
    }

    /// Returns the admin token as it is sent.
    pub(crate) fn admin(&self) -> String {
        self.admin.hex()
    }

    /// Returns what a token allows, if it is one of these. Takes as long for any other.
    pub(crate) fn role(&self, token: &str) -> Option<Role> {
        let given = Token::parse(token)?;
        let (is_read, is_admin) = (given.0.ct_eq(&self.read.0), given.0.ct_eq(&self.admin.0));
        if is_admin.into() {
            Some(Role::Admin)
        } else {
            bool::from(is_read).then_some(Role::Read)
        }
    }
}

/// Why a file of tokens cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    Missing,
    /// Others may read or write it.
    Exposed {
        mode: u32,
    },
    /// It is somebody else's.
    Foreign,
    /// It does not hold what it should.
    Content,
    Io(String),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("there is no such file"),
            Self::Exposed { mode } => {
                write!(f, "its mode is {mode:03o}, so that others may use it")
            }
            Self::Foreign => f.write_str("it is no file of the user who runs this"),
            Self::Content => f.write_str("it does not hold a read token and an admin token"),
            Self::Io(error) => f.write_str(error),
        }
    }
}

/// Reads a small file that is nobody else's business.
pub(crate) fn read_secret(path: &Path) -> Result<String, Reason> {
    let io = |error: io::Error| match error.kind() {
        ErrorKind::NotFound => Reason::Missing,
        _ => Reason::Io(error.to_string()),
    };
    let file = File::open(path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    if !metadata.is_file() || metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(Reason::Foreign);
    }
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(Reason::Exposed { mode });
    }
    let mut text = String::new();
    let read = file.take(64 << 10).read_to_string(&mut text);
    match read {
        Ok(_) => Ok(text),
        Err(error) if error.kind() == ErrorKind::InvalidData => Err(Reason::Content),
        Err(error) => Err(io(error)),
    }
}

impl Token {
    fn make() -> io::Result<Self> {
        let mut bytes = [0; BYTES];
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            filled += getrandom(rest, GetRandomFlags::empty())?;
        }
        Ok(Self(bytes))
    }

    fn parse(digits: &str) -> Option<Self> {
        let digits = digits.as_bytes();
        if digits.len() != 2 * BYTES {
            return None;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let mut token = [0; BYTES];
        for (byte, pair) in token.iter_mut().zip(digits.chunks_exact(2)) {
            let &[high, low] = pair else {
                return None;
            };
            *byte = u8::try_from(digit(high)? * 16 + digit(low)?).ok()?;
        }
        Some(Self(token))
    }

    fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn tokens_are_made_once_and_are_their_owners_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("parallax.db.tokens");
        let made = Tokens::read_or_make(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let text = fs::read_to_string(&path).unwrap();
        let (read, admin) = text.split_once('\n').unwrap();
        let (read, admin) = (&read["read ".len()..], admin["admin ".len()..].trim_end());
        assert_ne!(read, admin);
        for tokens in [made, Tokens::read_or_make(&path).unwrap()] {
            assert_eq!(tokens.role(admin), Some(Role::Admin));
            assert_eq!(tokens.role(&read.to_uppercase()), Some(Role::Read));
            for wrong in [
                "",
                "x",
                &read[1..],
                &format!("{}0", &read[1..]),
                &"é".repeat(32),
            ] {
                assert_eq!(tokens.role(wrong), None, "{wrong}");
            }
            assert!(!format!("{tokens:?}").contains(&admin[..8]));
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(Tokens::read_or_make(&path).unwrap().role(admin), None);
    }

    #[test]
    fn file_that_others_may_use_or_that_holds_something_else_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens");
        let reason = |text: &str, mode| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            match Tokens::read_or_make(&path) {
                Err(Failure::Tokens { reason, .. }) => reason,
                other => panic!("{other:?}"),
            }
        };
        let token = "0".repeat(64);
        let good = format!("read {token}\nadmin {token}\n");
        assert_eq!(reason(&good, 0o640), Reason::Exposed { mode: 0o640 });
        for wrong in [
            "",
            "read\n",
            &good.replace("admin", "root"),
            &format!("{good}x"),
        ] {
            assert_eq!(reason(wrong, 0o600), Reason::Content, "{wrong}");
            assert_eq!(fs::read_to_string(&path).unwrap(), wrong);
        }
        match Tokens::read_or_make(directory.path()) {
            Err(Failure::Tokens { reason, .. }) => assert_eq!(reason, Reason::Foreign),
            other => panic!("{other:?}"),
        }
    }
}
