use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::iter::successors;
use std::path::Path;

use parallax_connect::{ConnectorError, Entity, StepContext, Value, entity};
use procfs::process::MountInfo;

use crate::emit::emit_of_host;
use crate::root::Root;

/// Emits what is mounted where.
pub(crate) fn mounts(root: &Root, ctx: &StepContext) -> Result<(), ConnectorError> {
    let file = root.of_machine("mountinfo");
    let Some(content) = root.read_if_there(&file)? else {
        ctx.incomplete(format_args!(
            "{} does not exist: no procfs is mounted there, or only a part of it",
            root.path(&file).display()
        ));
        return Ok(());
    };
    let mut mounts = Vec::new();
    let mut unnamed = HashSet::new();
    for (line, number) in content.split_inclusive(|byte| *byte == b'\n').zip(1..) {
        let text = String::from_utf8_lossy(line);
        match MountInfo::from_line(text.trim_end_matches('\n')) {
            Ok(mount) => {
                // Two names may be the same in the text. It still says what covers what.
                if str::from_utf8(line).is_err() {
                    unnamed.insert(mount.mnt_id);
                    ctx.incomplete(format_args!(
                        "{} is no UTF-8 at line {number}",
                        root.path(&file).display()
                    ));
                }
                mounts.push(mount);
            }
            Err(_) => ctx.incomplete(format_args!(
                "{} is malformed at line {number}",
                root.path(&file).display()
            )),
        }
    }
    if mounts.is_empty() {
        ctx.incomplete(format_args!(
            "{} holds no mount",
            root.path(&file).display()
        ));
    }
    let mounts = lasting(&mounts).into_iter();
    for (mount_point, mount) in mounts.filter(|(_, mount)| !unnamed.contains(&mount.mnt_id)) {
        emit_of_host(ctx, describe(mount_point, mount))?;
    }
    Ok(())
}

/// Returns the mounts that last and can be seen, by mount point.
fn lasting(mounts: &[MountInfo]) -> BTreeMap<&Path, &MountInfo> {
    let by_id: HashMap<i32, &MountInfo> = mounts.iter().map(|m| (m.mnt_id, m)).collect();
    // That is what `pid` stands for here.
    let parent = |mount: &&MountInfo| by_id.get(&mount.pid).copied();
    let is_on_demand = |mount: &&MountInfo| {
        // As many at most, because a root may be its own parent.
        let mut above = successors(parent(mount), parent).take(mounts.len());
        above.any(|mount| mount.fs_type == "autofs")
    };
    let lasting: Vec<&MountInfo> = mounts
        .iter()
        .filter(|mount| !is_of_a_session(mount) && !is_on_demand(mount))
        .collect();
    let covered: HashSet<(i32, &Path)> = lasting
        .iter()
        .filter(|mount| mount.pid != mount.mnt_id)
        .map(|mount| (mount.pid, mount.mount_point.as_path()))
        .collect();
    lasting
        .into_iter()
        .map(|mount| (mount.mount_point.as_path(), mount))
        .filter(|(mount_point, mount)| !covered.contains(&(mount.mnt_id, mount_point)))
        .collect()
}

/// Tells whether a mount comes and goes with a log-in, a run of a service or a container, without
/// anybody mounting a file system.
fn is_of_a_session(mount: &MountInfo) -> bool {
    let mount_point = &mount.mount_point;
    (mount_point.starts_with("/run/user") && mount_point != Path::new("/run/user"))
        || mount_point.starts_with("/run/credentials")
        // Holds a namespace, not files.
        || mount.fs_type == "nsfs"
}

fn describe(mount_point: &Path, mount: &MountInfo) -> Entity {
    let mount_point = unescape(&mount_point.to_string_lossy());
    // Those of the mount, not of the file system: these may hold secrets, and numbers that are
    // others after each boot.
    let options: BTreeSet<&str> = mount.mount_options.keys().map(String::as_str).collect();
    let is_read_only = options.contains("ro") || mount.super_options.contains_key("ro");
    let source = mount.mount_source.as_deref().map(unescape);
    entity("host_mount", &mount_point)
        .class("Mount")
        .property("mount_point", mount_point)
        .property("filesystem", unescape(&mount.fs_type))
        .property("source", source.map(without_credentials))
        .property("read_only", is_read_only)
        .property(
            "options",
            options
                .into_iter()
                .filter(|option| !matches!(*option, "ro" | "rw"))
                .collect::<Value>(),
        )
}

/// Replaces what the kernel writes for white space and backslashes: three octal digits.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let escape = part.split_at_checked(3);
        let byte = escape.and_then(|(digits, _)| u8::from_str_radix(digits, 8).ok());
        match (byte, escape) {
            (Some(byte), Some((_, rest))) => {
                plain.push(byte.into());
                plain.push_str(rest);
            }
            _ => {
                plain.push('\\');
                plain.push_str(part);
            }
        }
    }
    plain
}

/// Leaves out who logs in to a URL, and with which password.
fn without_credentials(source: String) -> String {
    let Some((scheme, rest)) = source.split_once("://") else {
        return source;
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://{host}{path}"),
        None => source,
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Machine;

    const ABOUT: [&str; 2] = ["step mounts", "host_mount"];

    fn mounts(mountinfo: &str) -> String {
        Machine::new()
            .file("proc/1/mountinfo", mountinfo)
            .about(&ABOUT)
    }

    #[test]
    fn mount_has_the_options_of_the_mount_alone() {
        insta::assert_snapshot!(mounts(
            "27 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,discard,errors=remount-ro\n\
             30 27 0:25 / /mnt/share rw,nosuid,nodev shared:7 master:2 - cifs //nas/share ro,username=ann\n\
             31 27 8:1 /home /srv/home ro,noexec - xfs /dev/sda1 rw\n\
             32 27 0:26 / /sys rw - sysfs none rw\n"
        ), @r#"
        host "acme" HAS host_mount "/"
        host "acme" HAS host_mount "/mnt/share"
        host "acme" HAS host_mount "/srv/home"
        host "acme" HAS host_mount "/sys"
        host_mount "/" "Mount" "-" filesystem="ext4" mount_point="/" options=["relatime"] read_only=false source="/dev/vda1"
        host_mount "/mnt/share" "Mount" "-" filesystem="cifs" mount_point="/mnt/share" options=["nodev", "nosuid"] read_only=true source="//nas/share"
        host_mount "/srv/home" "Mount" "-" filesystem="xfs" mount_point="/srv/home" options=["noexec"] read_only=true source="/dev/sda1"
        host_mount "/sys" "Mount" "-" filesystem="sysfs" mount_point="/sys" options=[] read_only=false source=null
        step mounts completed
        "#);
    }

    #[test]
    fn last_mount_on_a_mount_point_hides_those_below() {
        insta::assert_snapshot!(mounts(
            "27 27 254:1 / / rw - ext4 /dev/vda1 rw\n\
             26 25 0:3 / /mnt rw - tmpfs top rw\n\
             24 27 0:1 / /mnt rw - tmpfs bottom rw\n\
             25 24 0:2 / /mnt rw - tmpfs middle rw\n"
        ), @r#"
        host "acme" HAS host_mount "/"
        host "acme" HAS host_mount "/mnt"
        host_mount "/" "Mount" "-" filesystem="ext4" mount_point="/" options=[] read_only=false source="/dev/vda1"
        host_mount "/mnt" "Mount" "-" filesystem="tmpfs" mount_point="/mnt" options=[] read_only=false source="top"
        step mounts completed
        "#);
    }

    #[test]
    fn what_comes_and_goes_with_use_is_left_out_and_its_trigger_shown() {
        insta::assert_snapshot!(mounts(
            "27 1 254:1 / / rw - ext4 /dev/vda1 rw\n\
             30 27 0:31 / /net rw - autofs /etc/auto.net rw,fd=7,pgrp=812,timeout=300,indirect\n\
             31 30 0:32 / /net/nas rw - nfs4 nas:/ rw\n\
             32 31 0:33 / /net/nas/home rw - autofs /etc/auto.net rw,fd=7,offset\n\
             33 27 0:34 / /boot rw - autofs systemd-1 rw,fd=60,pgrp=1,direct,pipe_ino=4711\n\
             34 33 8:1 / /boot rw - vfat /dev/sda1 rw\n\
             35 27 0:35 / /run rw - tmpfs tmpfs rw\n\
             36 35 0:36 / /run/user rw - tmpfs tmpfs rw\n\
             37 36 0:37 / /run/user/1000 rw - tmpfs tmpfs rw,uid=1000\n\
             38 37 0:38 / /run/user/1000/doc rw - fuse.portal portal rw,user_id=1000\n\
             39 35 0:39 / /run/credentials/systemd-sysctl.service ro - ramfs ramfs rw\n\
             40 35 0:4 net:[4026532220] /run/netns/blue rw - nsfs nsfs rw\n"
        ), @r#"
        host "acme" HAS host_mount "/"
        host "acme" HAS host_mount "/boot"
        host "acme" HAS host_mount "/net"
        host "acme" HAS host_mount "/run"
        host "acme" HAS host_mount "/run/user"
        host_mount "/" "Mount" "-" filesystem="ext4" mount_point="/" options=[] read_only=false source="/dev/vda1"
        host_mount "/boot" "Mount" "-" filesystem="autofs" mount_point="/boot" options=[] read_only=false source="systemd-1"
        host_mount "/net" "Mount" "-" filesystem="autofs" mount_point="/net" options=[] read_only=false source="/etc/auto.net"
        host_mount "/run" "Mount" "-" filesystem="tmpfs" mount_point="/run" options=[] read_only=false source="tmpfs"
        host_mount "/run/user" "Mount" "-" filesystem="tmpfs" mount_point="/run/user" options=[] read_only=false source="tmpfs"
        step mounts completed
        "#);
    }

    #[test]
    fn source_shows_no_credentials() {
        insta::assert_snapshot!(mounts(
            "27 1 0:1 / /a rw - fuse curlftpfs#ftp://ann:p@ss@host/dir@1 rw\n\
             28 1 0:2 / /b rw - fuse https://host/@home rw\n\
             29 1 0:3 / /c rw - fuse.sshfs ann@host: rw\n"
        ), @r#"
        host "acme" HAS host_mount "/a"
        host "acme" HAS host_mount "/b"
        host "acme" HAS host_mount "/c"
        host_mount "/a" "Mount" "-" filesystem="fuse" mount_point="/a" options=[] read_only=false source="curlftpfs#ftp://host/dir@1"
        host_mount "/b" "Mount" "-" filesystem="fuse" mount_point="/b" options=[] read_only=false source="https://host/@home"
        host_mount "/c" "Mount" "-" filesystem="fuse.sshfs" mount_point="/c" options=[] read_only=false source="ann@host:"
        step mounts completed
        "#);
    }

    #[test]
    fn hostile_mount_points_cost_only_their_own_record() {
        let machine = Machine::new().bytes(
            "proc/1/mountinfo",
            b"27 1 0:1 / /a\\040b\\134c\\9\\ rw - tmpfs x\\040y rw\n\
              28 1 0:2 / /new\\012line rw - tmpfs - rw\n\
              29 1 0:3 / /j\xfcrgen rw - tmpfs none rw\n",
        );
        insta::assert_snapshot!(machine.about(&ABOUT), @r#"
        host "acme" HAS host_mount "/a b\\c\\9\\"
        host_mount "/a b\\c\\9\\" "Mount" "-" filesystem="tmpfs" mount_point="/a b\\c\\9\\" options=[] read_only=false source="x y"
        step mounts incomplete; 2 rejected; /proc/1/mountinfo is no UTF-8 at line 3; rejected host_mount "/new\nline": key "/new\nline" holds a control character; rejected host "acme" HAS host_mount "/new\nline": key "/new\nline" holds a control character
        "#);
    }

    /// Both were `/mnt/a�`, of which one was stored, and the other deleted.
    #[test]
    fn mount_whose_name_is_no_text_is_left_out_and_covers_what_it_covers() {
        let machine = Machine::new().bytes(
            "proc/1/mountinfo",
            b"27 1 0:1 / / rw - tmpfs none rw\n\
              28 27 0:2 / /mnt/a\xff rw - tmpfs none rw\n\
              29 27 0:3 / /mnt/a\xfe rw - tmpfs none rw\n\
              30 27 0:4 / /srv rw - tmpfs bottom rw\n\
              31 30 0:5 / /srv rw - cifs //nas/j\xfcrgen rw\n",
        );
        insta::assert_snapshot!(machine.about(&ABOUT), @r#"
        host "acme" HAS host_mount "/"
        host_mount "/" "Mount" "-" filesystem="tmpfs" mount_point="/" options=[] read_only=false source=null
        step mounts incomplete; /proc/1/mountinfo is no UTF-8 at line 2; /proc/1/mountinfo is no UTF-8 at line 3; /proc/1/mountinfo is no UTF-8 at line 5
        "#);
    }

    #[test]
    fn malformed_lines_are_left_out_and_named_by_number() {
        insta::assert_snapshot!(mounts(
            "27 1 0:1 / / rw - tmpfs tmpfs rw\nnonsense\n28 1 0:2 / /cut rw -"
        ), @r#"
        host "acme" HAS host_mount "/"
        host_mount "/" "Mount" "-" filesystem="tmpfs" mount_point="/" options=[] read_only=false source="tmpfs"
        step mounts incomplete; /proc/1/mountinfo is malformed at line 2; /proc/1/mountinfo is malformed at line 3
        "#);
    }

    #[test]
    fn empty_file_is_not_believed() {
        insta::assert_snapshot!(mounts(""), @"step mounts incomplete; /proc/1/mountinfo holds no mount");
    }

    #[test]
    fn disk_without_procfs_makes_the_step_incomplete() {
        insta::assert_snapshot!(Machine::new().about(&ABOUT), @"step mounts incomplete; /proc/1/mountinfo does not exist: no procfs is mounted there, or only a part of it");
    }
}
