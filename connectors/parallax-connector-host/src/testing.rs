//! A machine made of files, and what a sync of it emits, as text.

use std::fs;
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

    pub(crate) fn process(self, process: &Fake<'_>) -> Self {
        let Fake {
            pid,
            comm,
            state,
            flags,
            threads,
            uid,
            exe,
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
        let machine = self
            .bytes(&format!("proc/{pid}/stat"), &stat)
            .bytes(&format!("proc/{pid}/status"), &status);
        match exe {
            Some(exe) => machine.link(&format!("proc/{pid}/exe"), exe),
            None => machine,
        }
    }

    /// Syncs the machine and returns what was emitted and how each step ended.
    pub(crate) fn sync(&self) -> String {
        self.relative(&text(&sync(&Host::at(self.0.path()).unwrap())))
    }

    /// Returns the lines of [`sync`](Self::sync) that hold one of `words`.
    pub(crate) fn about(&self, words: &[&str]) -> String {
        let text = self.sync();
        let lines = text.lines();
        let lines = lines.filter(|line| words.iter().any(|word| line.contains(word)));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Replaces the place of the fixture, which is never the same.
    pub(crate) fn relative(&self, text: &str) -> String {
        let root = self.0.path().to_str().unwrap();
        text.replace(&format!("{root}/"), "/")
    }
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
