//! A machine made of files, and what a sync of it emits, as text.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

use parallax_connect::{ConnectorOutput, EntityRef, RelationshipRef, ValueRef, run_connector};
use tempfile::TempDir;

use crate::Host;
use crate::root::Root;

pub(crate) struct Machine(TempDir);

/// A process of a fixture.
pub(crate) struct Fake<'a> {
    pub(crate) pid: i32,
    pub(crate) comm: &'a [u8],
    pub(crate) state: char,
    pub(crate) flags: u32,
    pub(crate) threads: u32,
    pub(crate) uid: u32,
    pub(crate) exe: Option<&'a str>,
    /// What it has open, by inode; `None` if that cannot be seen.
    pub(crate) sockets: Option<&'a [u64]>,
}

impl Default for Fake<'_> {
    fn default() -> Self {
        Self {
            pid: 7,
            comm: b"sleep",
            state: 'S',
            flags: 0x0040_0000,
            threads: 1,
            uid: 0,
            exe: Some("/usr/bin/sleep"),
            sockets: Some(&[]),
        }
    }
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn root(&self) -> Root {
        Root::open(self.0.path().to_owned()).unwrap()
    }

    pub(crate) fn file(self, path: &str, content: &str) -> Self {
        self.bytes(path, content.as_bytes())
    }

    pub(crate) fn bytes(self, path: &str, content: &[u8]) -> Self {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    pub(crate) fn link(self, path: &str, target: &str) -> Self {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
        self
    }

    /// Makes a directory, whose name may be no UTF-8.
    pub(crate) fn directory(self, path: &[u8]) -> Self {
        fs::create_dir_all(self.0.path().join(OsStr::from_bytes(path))).unwrap();
        self
    }

    pub(crate) fn process(self, process: &Fake<'_>) -> Self {
        let Fake {
            pid,
            comm,
            state,
            flags,
            threads,
            uid,
            exe,
            sockets,
        } = process;
        let rest = format!(
            ") {state} 1 1 1 0 -1 {flags} 0 0 0 0 0 0 0 0 20 0 {threads} 0 {pid}00 0 0 {}\n",
            ["0"; 25].join(" ")
        );
        let stat = [format!("{pid} (").as_bytes(), comm, rest.as_bytes()].concat();
        let ids = format!(
            "\nUid:\t1\t{uid}\t1\t1\nGid:\t1\t{uid}\t1\t1\nGroups:\t \nCapEff:\t0000000000000000\n"
        );
        let status = [b"Name:\t".as_slice(), comm, ids.as_bytes()].concat();
        let mut machine = self
            .bytes(&format!("proc/{pid}/stat"), &stat)
            .bytes(&format!("proc/{pid}/status"), &status);
        if let Some(exe) = exe {
            machine = machine.link(&format!("proc/{pid}/exe"), exe);
        }
        let Some(sockets) = sockets else {
            return machine.file(&format!("proc/{pid}/fd"), "no directory");
        };
        let open = sockets.iter().map(|inode| format!("socket:[{inode}]"));
        let open = ["/dev/null".to_owned()].into_iter().chain(open);
        open.zip(0..).fold(machine, |machine, (target, fd)| {
            machine.link(&format!("proc/{pid}/fd/{fd}"), &target)
        })
    }

    /// Adds a table of sockets, as the kernel writes it: of each its address, state, user, inode.
    pub(crate) fn sockets(self, name: &str, sockets: &[(&str, &str, u32, u64)]) -> Self {
        let mut table = "  sl  local_address rem_address   st tx_queue rx_queue\n".to_owned();
        for (address, state, uid, inode) in sockets {
            table += &format!(
                "   0: {address} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000 \
                 {uid}        0 {inode} 2 0000000000000000 0\n"
            );
        }
        self.file(&format!("proc/1/net/{name}"), &table)
    }

    /// Syncs the machine and returns what was emitted and how each step ended.
    pub(crate) fn sync(&self) -> String {
        self.relative(&text(&sync(&Host::at(self.0.path()).unwrap())))
    }

    /// Returns the lines of [`sync`](Self::sync) that hold one of `words`.
    pub(crate) fn about(&self, words: &[&str]) -> String {
        lines_about(&self.sync(), words)
    }

    /// Replaces the place of the fixture, which is never the same.
    pub(crate) fn relative(&self, text: &str) -> String {
        let root = self.0.path().to_str().unwrap();
        text.replace(&format!("{root}/"), "/")
    }
}

/// Returns the lines that hold one of `words`.
pub(crate) fn lines_about(text: &str, words: &[&str]) -> String {
    let is_about = |line: &&str| words.iter().any(|word| line.contains(word));
    text.lines().filter(is_about).collect::<Vec<_>>().join("\n")
}

pub(crate) fn sync(host: &Host) -> ConnectorOutput {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime
        .block_on(run_connector(host, "acme", "s-1", None))
        .unwrap()
}

/// Shows an output, sorted, one fact a line.
pub(crate) fn text(output: &ConnectorOutput) -> String {
    let mut lines: Vec<String> = output.entities().map(entity_text).collect();
    lines.extend(output.relationships().map(relationship_text));
    lines.sort();
    lines.extend(output.report().steps().iter().map(|step| {
        let mut reasons = step.incomplete.clone();
        reasons.extend(step.error.as_ref().map(ToString::to_string));
        let rejected = step.entities_rejected + step.relationships_rejected;
        if rejected > 0 {
            reasons.insert(0, format!("{rejected} rejected"));
        }
        reasons.insert(0, step.status.as_str().to_owned());
        for scope in &step.scopes {
            let state = match scope.complete {
                true => "complete".to_owned(),
                false => format!("incomplete: {}", scope.incomplete.join("; ")),
            };
            reasons.push(format!("{} {state}", scope.name));
        }
        if step.all_scopes_listed {
            reasons.push("no other scopes".to_owned());
        }
        format!("step {} {}", step.step_id, reasons.join("; "))
    }));
    lines.join("\n")
}

fn entity_text(entity: EntityRef<'_>) -> String {
    let names = [entity.class(), entity.display_name()];
    let names = names.map(|name| format!(" {:?}", name.unwrap_or("-")));
    let properties: String = entity.properties().map(property_text).collect();
    let (entity_type, key) = (entity.entity_type(), entity.key());
    format!("{entity_type} {key:?}{}{properties}", names.concat())
}

fn relationship_text(relationship: RelationshipRef<'_>) -> String {
    let [from, to] = [relationship.from(), relationship.to()]
        .map(|end| format!("{} {:?}", end.entity_type, end.key));
    let properties: String = relationship.properties().map(property_text).collect();
    format!("{from} {} {to}{properties}", relationship.verb())
}

fn property_text((name, value): (&str, ValueRef<'_>)) -> String {
    format!(" {name}={}", value_text(value))
}

fn value_text(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "null".to_owned(),
        ValueRef::Bool(value) => value.to_string(),
        ValueRef::Int(value) => value.to_string(),
        ValueRef::String(text) => format!("{text:?}"),
        ValueRef::List(values) => {
            let values: Vec<String> = values.into_iter().map(value_text).collect();
            format!("[{}]", values.join(", "))
        }
        value => format!("{value:?}"),
    }
}
