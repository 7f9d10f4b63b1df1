use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use parallax_connect::{ConnectorError, ResultExt};
use rustix::fs::{CWD, Dir, Mode, OFlags, ResolveFlags, openat, openat2, readlinkat};
use rustix::io::Errno;

/// More is not read of a file. What the kernel makes up, such as the sockets of a machine, comes to
/// some hundred bytes for each.
const LONGEST_FILE: u64 = 256 * 1024 * 1024;

/// The directory that a machine's files are below.
#[derive(Clone, Debug)]
pub(crate) struct Root(PathBuf);

/// What a directory holds.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: OsString,
    /// Where it leads, if it is a symbolic link.
    pub(crate) link: Option<PathBuf>,
}

impl Root {
    pub(crate) fn open(path: PathBuf) -> Result<Self, ConnectorError> {
        let root = Self(path);
        root.open_root()
            .fatal(format_args!("open {}", root.0.display()))?;
        Ok(root)
    }

    /// Tells whether this is the root directory of the machine that reads.
    pub(crate) fn is_own(&self) -> bool {
        self.0 == Path::new("/")
    }

    /// Returns the path of a file that is named relative to the root.
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }

    /// Names a file that the kernel shows each process its own way, such as its mounts: as this
    /// machine shows it to the reader, or another one to its first process. There, what `self`
    /// leads to are the reader's own namespaces, if anything.
    pub(crate) fn of_machine(&self, file: &str) -> String {
        let process = if self.is_own() { "self" } else { "1" };
        format!("proc/{process}/{file}")
    }

    /// Reads a file.
    pub(crate) fn read(&self, file: &str) -> Result<Vec<u8>, ConnectorError> {
        self.explain(file, self.try_read(file))
    }

    /// Reads a file, or returns `None` if there is none.
    pub(crate) fn read_if_there(&self, file: &str) -> Result<Option<Vec<u8>>, ConnectorError> {
        self.explain(file, unless_absent(self.try_read(file)))
    }

    /// Tells whether there is such a directory.
    pub(crate) fn has_directory(&self, directory: &str) -> Result<bool, ConnectorError> {
        let opened = self.open_below(directory, OFlags::PATH | OFlags::DIRECTORY);
        Ok(self.explain(directory, unless_absent(opened))?.is_some())
    }

    /// Lists a directory, in the order of names, or returns `None` if there is none.
    pub(crate) fn list(&self, directory: &str) -> Result<Option<Vec<Entry>>, ConnectorError> {
        let listed = self
            .open_below(directory, OFlags::RDONLY | OFlags::DIRECTORY)
            .and_then(|directory| entries(&directory));
        self.explain(directory, unless_absent(listed))
    }

    fn try_read(&self, file: &str) -> io::Result<Vec<u8>> {
        // To open a pipe waits for somebody to write to it.
        let file = self.open_below(file, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(Errno::ISDIR.into());
        }
        // Those of procfs and sysfs are, too. A device may have no end, or do something when it is
        // read.
        if !metadata.is_file() {
            return Err(io::Error::other("is no regular file"));
        }
        let mut bytes = Vec::new();
        // Where it is said to be too long, that is believed: most of it may be holes.
        if metadata.len() <= LONGEST_FILE {
            file.take(LONGEST_FILE + 1).read_to_end(&mut bytes)?;
            if bytes.len() as u64 <= LONGEST_FILE {
                return Ok(bytes);
            }
        }
        Err(io::Error::other(format!(
            "is longer than {LONGEST_FILE} bytes"
        )))
    }

    fn open_below(&self, path: &str, flags: OFlags) -> io::Result<File> {
        let root = self.open_root()?;
        let flags = flags | OFlags::CLOEXEC;
        let file = if self.is_own() {
            openat(&root, path, flags, Mode::empty())?
        } else {
            // A disk's `/var/lib/dbus/machine-id` is often a link to `/etc/machine-id`: followed
            // in the usual way, it would name the machine that reads.
            openat2(&root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)?
        };
        Ok(file.into())
    }

    fn open_root(&self) -> io::Result<File> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(openat(CWD, &self.0, flags, Mode::empty())?.into())
    }

    /// Says which file it was that could not be read.
    fn explain<T>(&self, file: &str, result: io::Result<T>) -> Result<T, ConnectorError> {
        result.or_else(|error| {
            let what = format!("read {}", self.path(file).display());
            match error.kind() {
                ErrorKind::PermissionDenied => Err(error).unauthorized(what),
                _ => Err(error).fatal(what),
            }
        })
    }
}

/// Lists an open directory, in the order of names.
pub(crate) fn entries(directory: &File) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_owned();
        if matches!(name.as_bytes(), b"." | b"..") {
            continue;
        }
        let link = match readlinkat(directory, &name, Vec::new()) {
            Ok(target) => Some(text_of(target).into()),
            Err(Errno::INVAL) => None,
            // Removed meanwhile.
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error.into()),
        };
        let name = text_of(name);
        entries.push(Entry { name, link });
    }
    entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

fn text_of(bytes: CString) -> OsString {
    OsString::from_vec(bytes.into_bytes())
}

fn unless_absent<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(None)
        }
        result => result.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::net::UnixListener;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use crate::Host;
    use crate::testing::Machine;

    /// Opening a pipe waited for ever, and a file of a terabyte filled the memory.
    #[test]
    fn only_a_file_that_has_an_end_is_read() {
        let machine = Machine::new().file("etc/long", "").file("etc/empty", "");
        let root = machine.root();
        let pipe = root.path("etc/pipe");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR, 0).unwrap();
        let _listener = UnixListener::bind(root.path("etc/socket")).unwrap();
        let long = File::options().write(true).open(root.path("etc/long"));
        long.unwrap().set_len(1 << 40).unwrap();

        let told = |file: &str| machine.relative(&root.read(file).unwrap_err().to_string());
        assert_eq!(told("etc/pipe"), "read /etc/pipe: is no regular file");
        assert_eq!(
            told("etc/socket"),
            "read /etc/socket: No such device or address (os error 6)"
        );
        assert_eq!(
            told("etc/long"),
            "read /etc/long: is longer than 268435456 bytes"
        );
        assert_eq!(root.read("etc/empty").unwrap(), b"");
        let own = crate::root::Root::open("/".into()).unwrap();
        let device = own.read("dev/zero").unwrap_err().to_string();
        assert_eq!(device, "read /dev/zero: is no regular file");
        assert!(!own.read("proc/self/status").unwrap().is_empty());
    }

    #[test]
    fn links_of_another_root_stay_in_it() {
        let machine = Machine::new()
            .file("etc/id", "theirs")
            .link("absolute", "/etc/id")
            .link("upwards", "../../../../../../../../etc/id")
            .link("lost", "/etc/passwd");
        let root = machine.root();
        assert_eq!(root.read("absolute").unwrap(), b"theirs");
        assert_eq!(root.read("upwards").unwrap(), b"theirs");
        assert_eq!(root.read_if_there("lost").unwrap(), None);
    }

    #[test]
    fn error_names_the_file_and_the_reason() {
        let machine = Machine::new().file("etc/passwd/is-a-directory", "");
        let error = machine.root().read("etc/passwd").unwrap_err();
        assert_eq!(
            machine.relative(&error.to_string()),
            "read /etc/passwd: Is a directory (os error 21)"
        );
        let error = Host::at(machine.root().path("nowhere")).unwrap_err();
        assert_eq!(
            machine.relative(&error.to_string()),
            "open /nowhere: No such file or directory (os error 2)"
        );
    }
}
