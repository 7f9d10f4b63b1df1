use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use parallax_connect::{ConnectorError, EntityRef, StepContext, ValueRef, relationship};
use procfs::process::Process;
use procfs::{ProcError, ProcResult};
use rustix::fs::OFlags;

use crate::emit::emit;
use crate::processes::{Running, own_uid};
use crate::root::{Entry, Root, entries};
use crate::sockets::Socket;

/// The longest name that a scope may have, in bytes.
const SCOPE_BYTES: usize = 256;

/// The processes of a user.
#[derive(Default)]
struct User<'a> {
    listeners: Vec<Listener<'a>>,
    /// The names of those whose open files cannot be seen.
    closed: BTreeSet<&'a str>,
}

/// A process, and the sockets that it has open.
struct Listener<'a> {
    process: EntityRef<'a>,
    name: &'a str,
    sockets: BTreeSet<&'a str>,
}

/// Emits which process listens on which socket.
///
/// What a process has open is only for its own user to see, and for root, and not always for these.
/// So each user's processes are a scope, of which those that cannot be seen through are no part:
/// its name says so. What is stored of them, in whichever scope they were seen, is kept, and the
/// step is not incomplete for what the reader may never see.
pub(crate) fn listeners(root: &Root, ctx: &StepContext) -> Result<(), ConnectorError> {
    let Some(sockets) = Socket::all(root, ctx)? else {
        return Ok(());
    };
    let sockets: HashMap<u64, String> = sockets.iter().map(|s| (s.inode, s.key())).collect();
    let own_uid = own_uid(root)?.map(i64::from);

    // The reader may be all that is left of its user's processes: the others are gone then.
    let own = own_uid.map(|uid| (uid, User::default()));
    let mut users: BTreeMap<i64, User<'_>> = own.into_iter().collect();
    for process in ctx.prior().entities("host_process") {
        let number = |name| process.property(name).and_then(ValueRef::as_int);
        let name = process.property("name").and_then(ValueRef::as_str);
        let (Some(pid), Some(uid), Some(name)) = (number("pid"), number("uid"), name) else {
            continue;
        };
        let user = users.entry(uid).or_default();
        match open_sockets(root.path(&format!("proc/{pid}")), process.key()) {
            Ok(open) => {
                let keys = open.iter().filter_map(|inode| sockets.get(inode));
                user.listeners.push(Listener {
                    process,
                    name,
                    sockets: keys.map(String::as_str).collect(),
                });
            }
            Err(_) => {
                user.closed.insert(name);
            }
        }
    }

    if users.values().all(|user| user.closed.is_empty()) {
        ctx.all_scopes_listed();
    }
    for (uid, user) in users {
        if Some(uid) == own_uid || !user.listeners.is_empty() {
            user.emit(uid, ctx)?;
        }
    }
    Ok(())
}

impl User<'_> {
    fn emit(&self, uid: i64, ctx: &StepContext) -> Result<(), ConnectorError> {
        let mut scope = format!("uid:{uid}");
        if !self.closed.is_empty() {
            // By name, which is the same after each log-in and each boot. Only one that takes the
            // user and name of these after it was seen is taken for one that listens no more.
            let closed: Vec<String> = self.closed.iter().map(|name| format!("{name:?}")).collect();
            scope += &format!(" without {}", closed.join(", "));
        }
        if scope.len() > SCOPE_BYTES {
            return Ok(());
        }
        let ctx = ctx.scope(scope);
        for listener in &self.listeners {
            if self.closed.contains(listener.name) {
                continue;
            }
            for &socket in &listener.sockets {
                let (from, to) = (listener.process, ("host_socket", socket));
                emit(&ctx, relationship(from, "LISTENS_ON", to))?;
            }
        }
        ctx.complete();
        Ok(())
    }
}

/// Returns the inodes of the sockets that a process has open; of one that is gone, none.
fn open_sockets(directory: PathBuf, key: &str) -> ProcResult<BTreeSet<u64>> {
    let running = |process: &Process| match Running::read(process) {
        Ok(running) => Ok(running.filter(|running| running.is(key))),
        Err(ProcError::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    };
    let process = match Process::new_with_root(directory) {
        Err(ProcError::NotFound(_)) => return Ok(BTreeSet::new()),
        process => process?,
    };
    let Some(found) = running(&process)? else {
        return Ok(BTreeSet::new());
    };
    let read = match found.first_thread_has_ended {
        true => sockets_of_threads(&process),
        false => sockets_in(&process, "fd"),
    };
    match read {
        // As soon as it ends, it is no longer its user's to read.
        Err(_) if running(&process)?.is_none() => Ok(BTreeSet::new()),
        read => read,
    }
}

/// Returns what the threads that still run have open, because the first of them has nothing.
fn sockets_of_threads(process: &Process) -> ProcResult<BTreeSet<u64>> {
    let mut sockets = BTreeSet::new();
    for thread in list(process, "task")? {
        match sockets_in(process, &format!("task/{}/fd", thread.name.display())) {
            Ok(open) => sockets.extend(open),
            Err(ProcError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sockets)
}

/// Reads a directory of open files. Not [`Process::fd`]: it leaves out what cannot be read.
fn sockets_in(process: &Process, directory: &str) -> ProcResult<BTreeSet<u64>> {
    let open = list(process, directory)?.into_iter();
    Ok(open.filter_map(|file| socket(&file)).collect())
}

fn list(process: &Process, directory: &str) -> ProcResult<Vec<Entry>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = process.open_relative_flags(directory, flags)?;
    Ok(entries(&directory)?)
}

fn socket(open: &Entry) -> Option<u64> {
    let link = open.link.as_ref()?.to_str()?;
    let inode = link.strip_prefix("socket:[")?.strip_suffix(']')?;
    inode.parse().ok()
}

#[cfg(test)]
mod tests {
    use crate::testing::{Fake, Machine};

    const ABOUT: [&str; 2] = ["step listeners", "LISTENS_ON"];

    fn machine() -> Machine {
        Machine::new()
            .file("etc/passwd", "root:x:0:0::/root:/bin/sh\n")
            .file(
                "proc/sys/kernel/random/boot_id",
                "b0075e55-0000-4000-8000-000000000000\n",
            )
            .sockets(
                "tcp",
                &[
                    ("0100007F:0050", "0A", 0, 80),
                    ("0100007F:0050", "0A", 0, 81),
                    ("0100007F:01BB", "0A", 33, 443),
                ],
            )
            .sockets("udp", &[("00000000:0035", "07", 53, 53)])
    }

    #[test]
    fn process_listens_on_what_it_has_open() {
        let machine = machine()
            .process(&Fake {
                sockets: Some(&[80, 81, 4711, 53]),
                ..Fake::default()
            })
            .process(&Fake {
                pid: 8,
                uid: 33,
                sockets: Some(&[80, 443]),
                ..Fake::default()
            })
            .process(&Fake {
                pid: 9,
                uid: 1000,
                ..Fake::default()
            });
        insta::assert_snapshot!(machine.about(&ABOUT), @r#"
        host_process "b0075e55-0000-4000-8000-000000000000:7:700" LISTENS_ON host_socket "tcp:127.0.0.1:80"
        host_process "b0075e55-0000-4000-8000-000000000000:7:700" LISTENS_ON host_socket "udp:0.0.0.0:53"
        host_process "b0075e55-0000-4000-8000-000000000000:8:800" LISTENS_ON host_socket "tcp:127.0.0.1:443"
        host_process "b0075e55-0000-4000-8000-000000000000:8:800" LISTENS_ON host_socket "tcp:127.0.0.1:80"
        step listeners completed; uid:0 complete; uid:33 complete; uid:1000 complete; no other scopes
        "#);
    }

    #[test]
    fn process_that_cannot_be_seen_through_is_left_out_with_those_of_its_name() {
        let machine = machine()
            .process(&Fake {
                sockets: Some(&[80]),
                ..Fake::default()
            })
            .process(&Fake {
                pid: 8,
                comm: b"\"agent\x1b",
                sockets: None,
                ..Fake::default()
            })
            .process(&Fake {
                pid: 9,
                comm: b"\"agent\x1b",
                sockets: Some(&[80]),
                ..Fake::default()
            })
            .process(&Fake {
                pid: 10,
                comm: b"(sd-pam)",
                sockets: None,
                ..Fake::default()
            })
            .process(&Fake {
                pid: 11,
                uid: 33,
                sockets: Some(&[443]),
                ..Fake::default()
            });
        insta::assert_snapshot!(machine.about(&ABOUT), @r#"
        host_process "b0075e55-0000-4000-8000-000000000000:11:1100" LISTENS_ON host_socket "tcp:127.0.0.1:443"
        host_process "b0075e55-0000-4000-8000-000000000000:7:700" LISTENS_ON host_socket "tcp:127.0.0.1:80"
        step listeners completed; uid:0 without "\"agent\u{1b}", "(sd-pam)" complete; uid:33 complete
        "#);
    }

    #[test]
    fn users_of_whom_nothing_can_be_seen_are_left_as_they_were() {
        let machine = (10..30).fold(machine(), |machine, pid| {
            machine
                .process(&Fake {
                    pid,
                    comm: format!("secretive-{pid}").as_bytes(),
                    sockets: None,
                    ..Fake::default()
                })
                .process(&Fake {
                    pid: pid + 100,
                    uid: 33,
                    sockets: None,
                    ..Fake::default()
                })
        });
        // Some of user 0, but not all those who are left out can be named.
        let machine = machine.process(&Fake {
            sockets: Some(&[80]),
            ..Fake::default()
        });
        insta::assert_snapshot!(machine.about(&ABOUT), @"step listeners completed");
    }

    #[test]
    fn reader_whose_user_has_no_other_process_knows_that() {
        let reader = |uid| {
            format!(
                "Name:\tsync\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\nGid:\t0\t0\t0\t0\n\
                 Groups:\t\nCapEff:\t0000000000000000\n"
            )
        };
        let machine = machine().process(&Fake {
            sockets: None,
            ..Fake::default()
        });
        let machine = machine.file("proc/self/status", &reader(1000));
        insta::assert_snapshot!(machine.about(&ABOUT), @"step listeners completed; uid:1000 complete");
        let machine = machine.file("proc/self/status", &reader(0));
        insta::assert_snapshot!(machine.about(&ABOUT), @r#"step listeners completed; uid:0 without "sleep" complete"#);
    }

    #[test]
    fn process_whose_first_thread_has_ended_listens_through_the_others() {
        let machine = machine()
            .process(&Fake {
                state: 'Z',
                threads: 3,
                ..Fake::default()
            })
            .directory(b"proc/7/task/7/fd")
            .link("proc/7/task/70/fd/3", "socket:[80]")
            .link("proc/7/task/71/fd/3", "socket:[53]")
            .directory(b"proc/7/task/72");
        insta::assert_snapshot!(machine.about(&ABOUT), @r#"
        host_process "b0075e55-0000-4000-8000-000000000000:7:700" LISTENS_ON host_socket "tcp:127.0.0.1:80"
        host_process "b0075e55-0000-4000-8000-000000000000:7:700" LISTENS_ON host_socket "udp:0.0.0.0:53"
        step listeners completed; uid:0 complete; no other scopes
        "#);
    }

    #[test]
    fn disk_without_procfs_makes_the_step_incomplete() {
        let machine = Machine::new().file("etc/passwd", "root:x:0:0::/root:/bin/sh\n");
        insta::assert_snapshot!(machine.about(&ABOUT), @"step listeners incomplete; /proc/1/net/tcp does not exist: no procfs is mounted there, or only a part of it");
    }
}
