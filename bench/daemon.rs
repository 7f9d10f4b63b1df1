//! A daemon that a bench starts: its own program, with `serve`.

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::{env, fs};

use serde_json::Value;
use tempfile::TempDir;

pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

/// Killed when it is dropped.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) address: String,
    token: String,
    _directory: TempDir,
}

/// In megabytes.
pub(crate) struct Memory {
    pub(crate) now: f64,
    pub(crate) peak: f64,
}

impl Daemon {
    pub(crate) fn start(directory: TempDir, config: &str) -> Outcome<Self> {
        fs::write(directory.path().join("parallax.toml"), config)?;
        let mut child = Command::new(env::current_exe()?)
            .arg("serve")
            .current_dir(directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut line = String::new();
        let stdout = child.stdout.take().ok_or("no standard output")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let address = line.trim_end().strip_prefix("listening on http://");
        let address = address.ok_or("the daemon did not start")?.to_owned();
        let token = token(directory.path())?;
        Ok(Self {
            child,
            address,
            token,
            _directory: directory,
        })
    }

    pub(crate) fn ask(&self, method: &str, path: &str) -> Outcome<Value> {
        Ok(serde_json::from_str(&self.answer(method, path)?)?)
    }

    /// Returns the body of an answer, whatever its status.
    pub(crate) fn answer(&self, method: &str, path: &str) -> Outcome<String> {
        let mut stream = TcpStream::connect(&self.address)?;
        let (address, token) = (&self.address, &self.token);
        // The older version, in which no body comes in pieces.
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").ok_or("half an answer")?;
        Ok(body.to_owned())
    }

    pub(crate) fn memory(&self) -> Outcome<Memory> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let megabytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            let kibibytes: f64 = line.split_whitespace().next()?.parse().ok()?;
            Some(kibibytes * 1_024.0 / 1e6)
        };
        Ok(Memory {
            now: megabytes("VmRSS:").ok_or("no VmRSS")?,
            peak: megabytes("VmHWM:").ok_or("no VmHWM")?,
        })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn token(directory: &Path) -> Outcome<String> {
    let tokens = fs::read_to_string(directory.join("parallax.db.tokens"))?;
    let admin = tokens.lines().find_map(|line| line.strip_prefix("admin "));
    Ok(admin.ok_or("no admin token")?.to_owned())
}

pub(crate) fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or_default()
}
