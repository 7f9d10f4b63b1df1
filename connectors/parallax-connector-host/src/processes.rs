use std::fs;
use std::io::Read;
use std::path::Path;

use parallax_connect::{ConnectorError, Entity, ResultExt, StepContext, entity, relationship};
use procfs::process::{MountInfo, Process, StatFlags, all_processes_with_root};
use procfs::{FromRead, ProcError, ProcErrorExt, ProcResult};
use rustix::fs::{major, minor};

use crate::accounts::users_by_uid;
use crate::emit::{display_name, emit, emit_of_host, unless_empty};
use crate::root::Root;

const BOOT_ID: &str = "proc/sys/kernel/random/boot_id";

/// A process, read through one handle of its directory: the kernel never lets that show another
/// process which has come to the same id.
pub(crate) struct Running {
    pid: i32,
    /// Since boot, in ticks. Tells it from an earlier process of the same id.
    start_time: u64,
    /// Whether only other threads than the first still run.
    pub(crate) first_thread_has_ended: bool,
    name: String,
    uid: u32,
    gid: u32,
    exe: Option<Exe>,
}

/// The file that a process runs.
struct Exe {
    path: String,
    /// Whether it is no longer there, because it was removed or replaced.
    is_deleted: bool,
}

/// Emits the processes, and which user each runs as.
pub(crate) fn processes(root: &Root, ctx: &StepContext) -> Result<(), ConnectorError> {
    let Some(boot_id) = root.read_if_there(BOOT_ID)? else {
        ctx.incomplete(format_args!(
            "{} does not exist: no procfs is mounted there, or only a part of it",
            root.path(BOOT_ID).display()
        ));
        return Ok(());
    };
    let boot_id = String::from_utf8_lossy(boot_id.trim_ascii());
    if let Some(reason) = hides_processes(root)? {
        ctx.incomplete(reason);
    }

    let users = users_by_uid(ctx);
    let proc = root.path("proc");
    let own_pid = own_pid(&proc);
    let mut failures = Vec::new();
    for process in all_processes_with_root(&proc).fatal("list the processes")? {
        match process.and_then(|process| Running::read(&process)) {
            Ok(Some(process)) if Some(process.pid) != own_pid => {
                let found = process.describe(&boot_id);
                let key = found.key().clone();
                emit_of_host(ctx, found)?;
                if let Some(user) = users.get(&i64::from(process.uid)) {
                    emit(ctx, relationship(key, "RUNS_AS", user))?;
                }
            }
            // The process that reads, one that is no longer there, or none that counts.
            Ok(_) | Err(ProcError::NotFound(_)) => {}
            Err(error) => failures.push(error),
        }
    }
    if let Some(error) = failures.first() {
        ctx.incomplete(format_args!(
            "{} of the processes cannot be read: {error}",
            failures.len()
        ));
    }
    Ok(())
}

impl Running {
    /// Reads a process, or `None` if it is a kernel thread or about to be gone.
    pub(crate) fn read(process: &Process) -> ProcResult<Option<Self>> {
        let stat = process.stat()?;
        let first_thread_has_ended = matches!(stat.state, 'Z' | 'X' | 'x');
        // A dead first thread is no dead process.
        let has_ended = first_thread_has_ended && stat.num_threads <= 1;
        if stat.flags & StatFlags::PF_KTHREAD.bits() != 0 || has_ended {
            return Ok(None);
        }
        let credentials: ProcResult<Credentials> = process.read("status");
        let credentials = credentials.error_path(Path::new(&format!("{}/status", process.pid)))?;
        let exe = match process.exe() {
            Ok(path) => Some(Exe::parse(&path.to_string_lossy())),
            // Its memory is gone. While other threads of it run, only its first thread is.
            Err(ProcError::NotFound(_)) if process.stat()?.num_threads <= 1 => return Ok(None),
            // Not ours to read.
            Err(_) => None,
        };
        Ok(Some(Self {
            pid: process.pid,
            start_time: stat.starttime,
            first_thread_has_ended,
            name: stat.comm,
            uid: credentials.uid,
            gid: credentials.gid,
            exe,
        }))
    }

    /// Tells whether this is the process that was emitted under a key, and not another one which
    /// has come to its id.
    pub(crate) fn is(&self, key: &str) -> bool {
        key.ends_with(&format!(":{}:{}", self.pid, self.start_time))
    }

    fn describe(&self, boot_id: &str) -> Entity {
        let Self {
            pid, start_time, ..
        } = self;
        let mut process = entity("host_process", format!("{boot_id}:{pid}:{start_time}"))
            .class("Process")
            .property("name", &self.name)
            .property("pid", self.pid)
            .property("uid", self.uid)
            .property("gid", self.gid);
        let exe_name = self.exe.as_ref().and_then(Exe::name);
        if let Some(name) = exe_name.or(unless_empty(&self.name)) {
            process = process.display_name(display_name(name));
        }
        match &self.exe {
            Some(exe) => process
                .property("exe", &exe.path)
                .property("exe_deleted", exe.is_deleted),
            None => process,
        }
    }
}

impl Exe {
    fn parse(link: &str) -> Self {
        let path = link.strip_suffix(" (deleted)");
        Self {
            path: path.unwrap_or(link).to_owned(),
            is_deleted: path.is_some(),
        }
    }

    fn name(&self) -> Option<&str> {
        Path::new(&self.path).file_name()?.to_str()
    }
}

/// Whom a process acts as: the part of `/proc/<pid>/status` that is needed here.
///
/// [`Process::status`] refuses the whole file if the name in it is no UTF-8, and any process may
/// give itself such a name.
struct Credentials {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    capabilities: u64,
}

impl FromRead for Credentials {
    fn from_read<R: Read>(mut reader: R) -> ProcResult<Self> {
        let mut status = Vec::new();
        reader.read_to_end(&mut status)?;
        Self::parse(&String::from_utf8_lossy(&status)).ok_or(ProcError::Incomplete(None))
    }
}

impl Credentials {
    fn parse(status: &str) -> Option<Self> {
        // A name cannot imitate another line: its newlines are escaped.
        let field = |name| status.lines().find_map(|line| line.strip_prefix(name));
        // Real, effective, saved, of file access.
        let effective = |ids: &str| ids.split_whitespace().nth(1)?.parse().ok();
        Some(Self {
            uid: effective(field("Uid:")?)?,
            gid: effective(field("Gid:")?)?,
            groups: field("Groups:")?
                .split_whitespace()
                .filter_map(|group| group.parse().ok())
                .collect(),
            capabilities: u64::from_str_radix(field("CapEff:")?.trim(), 16).ok()?,
        })
    }

    fn may_trace(&self) -> bool {
        const CAP_SYS_PTRACE: u64 = 1 << 19;
        self.capabilities & CAP_SYS_PTRACE != 0
    }
}

/// Says why processes of other users cannot be seen, if that is so: the option `hidepid` of procfs.
fn hides_processes(root: &Root) -> Result<Option<String>, ConnectorError> {
    let proc = root.path("proc");
    let device = rustix::fs::stat(&proc)
        .fatal(format_args!("read {}", proc.display()))?
        .st_dev;
    let device = format!("{}:{}", major(device), minor(device));
    let Some(mounts) = root.read_if_there("proc/self/mountinfo")? else {
        return Ok(None);
    };
    let mounts = String::from_utf8_lossy(&mounts);
    let mount = mounts
        .lines()
        .filter_map(|line| MountInfo::from_line(line).ok())
        .find(|mount| mount.fs_type == "proc" && mount.majmin == device);
    let Some(options) = mount.map(|mount| mount.super_options) else {
        return Ok(None);
    };
    let option = |name| options.get(name).and_then(Option::as_deref);
    let hidepid = match option("hidepid") {
        None | Some("0" | "off") => return Ok(None),
        Some(hidepid) => hidepid,
    };
    let status = root.read("proc/self/status")?;
    if let Some(own) = Credentials::parse(&String::from_utf8_lossy(&status)) {
        // One group is exempt; root's, unless the mount names another.
        let exempt = option("gid").map_or(Some(0), |gid| gid.parse().ok());
        let is_exempt = exempt.is_some_and(|gid| own.gid == gid || own.groups.contains(&gid));
        let heeds_group = !matches!(hidepid, "4" | "ptraceable");
        if own.may_trace() || (heeds_group && is_exempt) {
            return Ok(None);
        }
    }
    Ok(Some(format!(
        "{} is mounted with hidepid={hidepid}: processes of other users cannot be seen",
        proc.display()
    )))
}

/// Returns whom the process that reads acts as, or `None` if this procfs does not know it.
pub(crate) fn own_uid(root: &Root) -> Result<Option<u32>, ConnectorError> {
    let status = root.read_if_there("proc/self/status")?;
    let credentials = status.and_then(|s| Credentials::parse(&String::from_utf8_lossy(&s)));
    Ok(credentials.map(|credentials| credentials.uid))
}

/// Returns the id of the process that reads, as this procfs numbers it.
fn own_pid(proc: &Path) -> Option<i32> {
    let link = fs::read_link(proc.join("self")).ok()?;
    link.to_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::MetadataExt;
    use std::process::{Command, Stdio};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

    use super::*;
    use crate::Host;
    use crate::testing::{Fake, Machine, sync, text};

    const PASSWD: &str = "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/:\nanna:x:1000:1000::/:\n";
    const ABOUT: [&str; 2] = ["step processes", "host_process"];

    fn machine() -> Machine {
        Machine::new()
            .file("etc/passwd", PASSWD)
            .file(BOOT_ID, "b0075e55-0000-4000-8000-000000000000\n")
    }

    #[test]
    fn process_runs_as_its_effective_user() {
        let machine = machine()
            .process(&Fake {
                uid: 1000,
                ..Fake::default()
            })
            .process(&Fake {
                pid: 8,
                uid: 4711,
                exe: Some("/opt/a b/app (deleted)"),
                ..Fake::default()
            });
        insta::assert_snapshot!(machine.about(&ABOUT), @r#"
        host "acme" HAS host_process "b0075e55-0000-4000-8000-000000000000:7:700"
        host "acme" HAS host_process "b0075e55-0000-4000-8000-000000000000:8:800"
        host_process "b0075e55-0000-4000-8000-000000000000:7:700" "Process" "sleep" exe="/usr/bin/sleep" exe_deleted=false gid=1000 name="sleep" pid=7 uid=1000
        host_process "b0075e55-0000-4000-8000-000000000000:7:700" RUNS_AS host_user "ann"
        host_process "b0075e55-0000-4000-8000-000000000000:8:800" "Process" "app" exe="/opt/a b/app" exe_deleted=true gid=4711 name="sleep" pid=8 uid=4711
        step processes completed
        "#);
    }

    #[test]
    fn kernel_threads_zombies_and_the_reader_do_not_count() {
        let kernel_thread = Fake {
            pid: 2,
            flags: 0x0020_8040,
            exe: None,
            ..Fake::default()
        };
        let zombie = Fake {
            pid: 8,
            state: 'Z',
            exe: None,
            ..Fake::default()
        };
        let exiting = Fake {
            pid: 9,
            exe: None,
            ..Fake::default()
        };
        let reader = Fake {
            pid: 10,
            ..Fake::default()
        };
        let machine = machine()
            .process(&kernel_thread)
            .process(&zombie)
            .process(&exiting)
            .process(&reader)
            .link("proc/self", "10");
        insta::assert_snapshot!(machine.about(&ABOUT), @"step processes completed");
    }

    #[test]
    fn process_whose_first_thread_has_ended_is_still_there() {
        let machine = machine().process(&Fake {
            state: 'Z',
            threads: 3,
            exe: None,
            ..Fake::default()
        });
        insta::assert_snapshot!(machine.about(&ABOUT), @r#"
        host "acme" HAS host_process "b0075e55-0000-4000-8000-000000000000:7:700"
        host_process "b0075e55-0000-4000-8000-000000000000:7:700" "Process" "sleep" gid=0 name="sleep" pid=7 uid=0
        host_process "b0075e55-0000-4000-8000-000000000000:7:700" RUNS_AS host_user "root"
        step processes completed
        "#);
    }

    #[test]
    fn process_whose_executable_is_not_ours_to_read_is_shown_by_its_name() {
        let machine = machine()
            .process(&Fake {
                exe: None,
                ..Fake::default()
            })
            .file("proc/7/exe", "not a link");
        insta::assert_snapshot!(machine.about(&ABOUT), @r#"
        host "acme" HAS host_process "b0075e55-0000-4000-8000-000000000000:7:700"
        host_process "b0075e55-0000-4000-8000-000000000000:7:700" "Process" "sleep" gid=0 name="sleep" pid=7 uid=0
        host_process "b0075e55-0000-4000-8000-000000000000:7:700" RUNS_AS host_user "root"
        step processes completed
        "#);
    }

    #[test]
    fn name_may_be_anything() {
        let machine = machine()
            .process(&Fake {
                comm: b") Z \xff\x1b[2J(\tUid:",
                exe: Some("/x\n\u{202e}y"),
                ..Fake::default()
            })
            .process(&Fake {
                pid: 8,
                comm: b"",
                exe: Some("/"),
                ..Fake::default()
            });
        insta::assert_snapshot!(machine.about(&ABOUT), @r#"
        host "acme" HAS host_process "b0075e55-0000-4000-8000-000000000000:7:700"
        host "acme" HAS host_process "b0075e55-0000-4000-8000-000000000000:8:800"
        host_process "b0075e55-0000-4000-8000-000000000000:7:700" "Process" "x\n\u{202e}y" exe="/x\n\u{202e}y" exe_deleted=false gid=0 name=") Z �\u{1b}[2J(\tUid:" pid=7 uid=0
        host_process "b0075e55-0000-4000-8000-000000000000:7:700" RUNS_AS host_user "root"
        host_process "b0075e55-0000-4000-8000-000000000000:8:800" "Process" "-" exe="/" exe_deleted=false gid=0 name="" pid=8 uid=0
        host_process "b0075e55-0000-4000-8000-000000000000:8:800" RUNS_AS host_user "root"
        step processes completed
        "#);
    }

    #[test]
    fn process_that_cannot_be_read_makes_the_step_incomplete() {
        let machine = machine()
            .process(&Fake::default())
            .process(&Fake {
                pid: 8,
                ..Fake::default()
            })
            .file("proc/8/status", "Uid:\n");
        insta::assert_snapshot!(machine.about(&ABOUT), @r#"
        host "acme" HAS host_process "b0075e55-0000-4000-8000-000000000000:7:700"
        host_process "b0075e55-0000-4000-8000-000000000000:7:700" "Process" "sleep" exe="/usr/bin/sleep" exe_deleted=false gid=0 name="sleep" pid=7 uid=0
        host_process "b0075e55-0000-4000-8000-000000000000:7:700" RUNS_AS host_user "root"
        step processes incomplete; 1 of the processes cannot be read: Data incomplete: 8/status
        "#);
    }

    #[test]
    fn process_that_ends_while_it_is_read_is_not_missed() {
        let machine = machine().file("proc/8/cwd", "").process(&Fake::default());
        insta::assert_snapshot!(machine.about(&ABOUT), @r#"
        host "acme" HAS host_process "b0075e55-0000-4000-8000-000000000000:7:700"
        host_process "b0075e55-0000-4000-8000-000000000000:7:700" "Process" "sleep" exe="/usr/bin/sleep" exe_deleted=false gid=0 name="sleep" pid=7 uid=0
        host_process "b0075e55-0000-4000-8000-000000000000:7:700" RUNS_AS host_user "root"
        step processes completed
        "#);
    }

    #[test]
    fn disk_without_procfs_makes_the_step_incomplete() {
        let machine = Machine::new().file("etc/passwd", PASSWD);
        insta::assert_snapshot!(machine.about(&ABOUT), @"step processes incomplete; /proc/sys/kernel/random/boot_id does not exist: no procfs is mounted there, or only a part of it");
    }

    /// Returns what the step says on a procfs that is mounted with `options`, to a reader of group
    /// 1000 and of the capabilities of the mask.
    fn step_of_reader(options: &str, capabilities: &str) -> String {
        let machine = machine();
        let device = fs::metadata(machine.root().path("proc")).unwrap().dev();
        let (major, minor) = (major(device), minor(device));
        let mountinfo = format!(
            "1 0 8:1 / / rw - ext4 /dev/sda rw,hidepid=2\n\
             2 1 {major}:{minor} / /proc rw,nosuid shared:1 - proc proc rw{options}\n"
        );
        let status = format!(
            "Name:\tsync\nUid:\t1000\t1000\t1000\t1000\nGid:\t1000\t1000\t1000\t1000\n\
             Groups:\t4 27\nCapEff:\t{capabilities}\n"
        );
        machine
            .file("proc/self/mountinfo", &mountinfo)
            .file("proc/self/status", &status)
            .about(&["step processes"])
    }

    #[test]
    fn hidden_processes_make_the_step_incomplete() {
        const NONE: &str = "0000000000000000";
        const TRACE: &str = "0000000000080000";
        let complete = "step processes completed";
        assert_eq!(step_of_reader("", NONE), complete);
        assert_eq!(step_of_reader(",hidepid=off", NONE), complete);
        assert_eq!(step_of_reader(",hidepid=2", TRACE), complete);
        assert_eq!(step_of_reader(",gid=27,hidepid=invisible", NONE), complete);
        for options in [
            ",hidepid=1",
            ",hidepid=2",
            ",hidepid=invisible",
            ",hidepid=noaccess,gid=5",
            ",gid=27,hidepid=ptraceable",
        ] {
            let step = step_of_reader(options, NONE);
            assert!(
                step.starts_with("step processes incomplete; /proc is mounted with"),
                "{step}"
            );
        }
    }

    /// Returns the lines about a process of this machine.
    fn lines_of(pid: u32, text: &str) -> Vec<String> {
        let about =
            |line: &&str| line.contains("host_process") && line.contains(&format!(":{pid}:"));
        text.lines().filter(about).map(str::to_owned).collect()
    }

    #[test]
    fn process_looks_the_same_until_it_is_gone() {
        let host = Host::open().unwrap();
        let mut command = Command::new("cat");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // What echoes has come to its own name, which it has not when `spawn` returns.
        child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let (first, second) = (text(&sync(&host)), text(&sync(&host)));
        child.kill().unwrap();
        // A signal has been sent, which is not yet a death.
        let pid = WaitId::Pid(Pid::from_child(&child));
        waitid(pid, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap();
        let zombie = text(&sync(&host));
        child.wait().unwrap();
        let gone = text(&sync(&host));

        let lines = lines_of(child.id(), &first);
        assert!(!lines.is_empty());
        assert_eq!(lines, lines_of(child.id(), &second));
        for text in [&zombie, &gone] {
            assert_eq!(lines_of(child.id(), text), [""; 0]);
        }
        assert_eq!(lines_of(std::process::id(), &first), [""; 0]);
    }

    #[test]
    fn processes_that_come_and_go_meanwhile_are_no_failure() {
        let is_over = AtomicBool::new(false);
        let host = Host::open().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let children: Vec<_> = (0..8)
                        .map(|_| Command::new("true").stdin(Stdio::null()).spawn().unwrap())
                        .collect();
                    for mut child in children {
                        child.wait().unwrap();
                    }
                }
            });
            let reports: Vec<String> = (0..10)
                .map(|_| {
                    let text = text(&sync(&host));
                    let step = text.lines().find(|line| line.starts_with("step processes"));
                    step.unwrap().to_owned()
                })
                .collect();
            is_over.store(true, Ordering::Relaxed);
            assert_eq!(reports, ["step processes completed"; 10]);
        });
    }
}
