use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

use parallax_connect::{ConnectorError, EntityKey, StepContext, ValueRef, entity, relationship};

use crate::emit::{display_name, emit, emit_of_host, unless_empty};
use crate::root::Root;

const PASSWD: &str = "etc/passwd";
const GROUP: &str = "etc/group";

/// A line of `/etc/passwd`.
struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    gecos: Cow<'a, str>,
    home: Cow<'a, str>,
    shell: Cow<'a, str>,
}

/// A line of `/etc/group`.
struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: Vec<&'a str>,
}

/// Emits the users of `/etc/passwd`.
pub(crate) fn users(root: &Root, ctx: &StepContext) -> Result<(), ConnectorError> {
    let content = root.read(PASSWD)?;
    for user in records(root, ctx, PASSWD, &content, User::parse) {
        let mut found = entity("host_user", user.name)
            .class("User")
            .property("uid", user.uid)
            .property("gid", user.gid)
            .property("gecos", unless_empty(&user.gecos))
            .property("home", unless_empty(&user.home))
            .property("shell", unless_empty(&user.shell));
        if let Some(name) = unless_empty(user.full_name()) {
            found = found.display_name(display_name(name));
        }
        emit_of_host(ctx, found)?;
    }
    Ok(())
}

/// Emits the groups of `/etc/group`, and who of the users is a member.
pub(crate) fn groups(root: &Root, ctx: &StepContext) -> Result<(), ConnectorError> {
    let content = root.read(GROUP)?;
    let users = ctx.prior().entities("host_user");
    let gids: HashMap<&str, i64> = users
        .filter_map(|user| Some((user.key(), user.property("gid")?.as_int()?)))
        .collect();
    for group in records(root, ctx, GROUP, &content, Group::parse) {
        let gid = i64::from(group.gid);
        emit_of_host(
            ctx,
            entity("host_group", group.name)
                .class("Group")
                .property("gid", gid),
        )?;
        let primary = gids.iter().filter(|(_, primary)| **primary == gid);
        let listed = group.members.iter().filter_map(|m| gids.get_key_value(m));
        let members: BTreeSet<_> = primary.chain(listed).collect();
        for (user, primary) in members {
            // The members themselves are no property: long groups span several lines of the same
            // name, which must be one entity.
            let member = relationship(("host_user", user), "MEMBER_OF", ("host_group", group.name));
            emit(ctx, member.property("primary", *primary == gid))?;
        }
    }
    Ok(())
}

/// Returns the users that the step `users` emitted, by number. Of several with one number, the
/// first of the file counts, as it does for the system.
pub(crate) fn users_by_uid(ctx: &StepContext) -> HashMap<i64, EntityKey> {
    let mut users = HashMap::new();
    for user in ctx.prior().entities("host_user") {
        if let Some(uid) = user.property("uid").and_then(ValueRef::as_int) {
            users.entry(uid).or_insert_with(|| user.into());
        }
    }
    users
}

impl<'a> User<'a> {
    fn parse(fields: &[&'a [u8]]) -> Option<Self> {
        let [name, _password, uid, gid, gecos, home, shell] = fields else {
            return None;
        };
        Some(Self {
            name: name_of(name)?,
            uid: number(uid)?,
            gid: number(gid)?,
            gecos: String::from_utf8_lossy(gecos),
            home: String::from_utf8_lossy(home),
            shell: String::from_utf8_lossy(shell),
        })
    }

    /// Returns the first part of the GECOS field; office and telephone numbers follow.
    fn full_name(&self) -> &str {
        self.gecos.split(',').next().unwrap_or_default().trim()
    }
}

impl<'a> Group<'a> {
    fn parse(fields: &[&'a [u8]]) -> Option<Self> {
        let [name, _password, gid, members] = fields else {
            return None;
        };
        let members = members.split(|&byte| byte == b',');
        Some(Self {
            name: name_of(name)?,
            gid: number(gid)?,
            members: members
                .filter_map(|member| str::from_utf8(member.trim_ascii()).ok())
                .collect(),
        })
    }
}

fn name_of(field: &[u8]) -> Option<&str> {
    unless_empty(str::from_utf8(field).ok()?)
}

fn number(field: &[u8]) -> Option<u32> {
    str::from_utf8(field).ok()?.parse().ok()
}

/// Parses the lines of a file of colon-separated fields, and says which of them are malformed.
fn records<'a, T>(
    root: &Root,
    ctx: &StepContext,
    file: &str,
    content: &'a [u8],
    parse: impl Fn(&[&'a [u8]]) -> Option<T>,
) -> Vec<T> {
    let path = root.path(file);
    let mut records = Vec::new();
    for (line, number) in content.split(|&byte| byte == b'\n').zip(1..) {
        // Comments, as the C library skips them, and the lines that say where NIS adds accounts.
        if line.is_empty()
            || line.starts_with(b"#")
            || line.starts_with(b"+")
            || line.starts_with(b"-")
        {
            continue;
        }
        let fields: Vec<&[u8]> = line.split(|&byte| byte == b':').collect();
        match parse(&fields) {
            Some(record) => records.push(record),
            // Not the line itself: it may hold a password.
            None => ctx.incomplete(format_args!(
                "{} is malformed at line {number}",
                path.display()
            )),
        }
    }
    if records.is_empty() {
        // Every machine has its root: the file was lost, not emptied.
        ctx.incomplete(format_args!("{} holds no account", path.display()));
    }
    records
}

#[cfg(test)]
mod tests {
    use crate::testing::Machine;

    const ROOT: &str = "root:x:0:0:root:/root:/bin/bash\n";

    fn accounts(passwd: &str, group: &str) -> String {
        Machine::new()
            .file("etc/passwd", passwd)
            .file("etc/group", group)
            .about(&["step users", "step groups", "host_user", "host_group"])
    }

    #[test]
    fn user_is_a_member_of_its_primary_group_and_of_those_that_list_it() {
        let passwd = "ann:x:1000:100:Ann Doe,Room 1,,:/home/ann:/bin/zsh\nbob:x:1001:100::/:\n";
        let group = "users:x:100:\nadm:x:4:ann,ann, ,nobody,bob\nstaff:x:50:\n";
        insta::assert_snapshot!(accounts(passwd, group), @r#"
        host "acme" HAS host_group "adm"
        host "acme" HAS host_group "staff"
        host "acme" HAS host_group "users"
        host "acme" HAS host_user "ann"
        host "acme" HAS host_user "bob"
        host_group "adm" "Group" "-" gid=4
        host_group "staff" "Group" "-" gid=50
        host_group "users" "Group" "-" gid=100
        host_user "ann" "User" "Ann Doe" gecos="Ann Doe,Room 1,," gid=100 home="/home/ann" shell="/bin/zsh" uid=1000
        host_user "ann" MEMBER_OF host_group "adm" primary=false
        host_user "ann" MEMBER_OF host_group "users" primary=true
        host_user "bob" "User" "-" gecos=null gid=100 home="/" shell=null uid=1001
        host_user "bob" MEMBER_OF host_group "adm" primary=false
        host_user "bob" MEMBER_OF host_group "users" primary=true
        step users completed
        step groups completed
        "#);
    }

    #[test]
    fn group_of_several_lines_is_one_group() {
        let group = "root:x:0:\nroot:x:0:root\n";
        insta::assert_snapshot!(accounts(ROOT, group), @r#"
        host "acme" HAS host_group "root"
        host "acme" HAS host_group "root"
        host "acme" HAS host_user "root"
        host_group "root" "Group" "-" gid=0
        host_group "root" "Group" "-" gid=0
        host_user "root" "User" "root" gecos="root" gid=0 home="/root" shell="/bin/bash" uid=0
        host_user "root" MEMBER_OF host_group "root" primary=true
        host_user "root" MEMBER_OF host_group "root" primary=true
        step users completed
        step groups completed
        "#);
    }

    #[test]
    fn malformed_lines_are_left_out_and_named_by_number() {
        let passwd = format!(
            "# local\n{ROOT}\nann:x:1000\nbob:x:-1:0::/:\n:x:1:1::/:\n+@admins\n-eve\nzoe:x:7:0::/:\n"
        );
        let group = "root:x:0:\nadm:x:four:\n";
        insta::assert_snapshot!(accounts(&passwd, group), @r#"
        host "acme" HAS host_group "root"
        host "acme" HAS host_user "root"
        host "acme" HAS host_user "zoe"
        host_group "root" "Group" "-" gid=0
        host_user "root" "User" "root" gecos="root" gid=0 home="/root" shell="/bin/bash" uid=0
        host_user "root" MEMBER_OF host_group "root" primary=true
        host_user "zoe" "User" "-" gecos=null gid=0 home="/" shell=null uid=7
        host_user "zoe" MEMBER_OF host_group "root" primary=true
        step users incomplete; /etc/passwd is malformed at line 4; /etc/passwd is malformed at line 5; /etc/passwd is malformed at line 6
        step groups incomplete; /etc/group is malformed at line 2
        "#);
    }

    #[test]
    fn empty_files_are_not_believed() {
        insta::assert_snapshot!(accounts("", "\n\n"), @r"
        step users incomplete; /etc/passwd holds no account
        step groups incomplete; /etc/group holds no account
        ");
    }

    #[test]
    fn unreadable_file_fails_its_step() {
        let machine = Machine::new().file("etc/group/is-a-directory", "");
        let steps = machine.about(&["step users", "step groups"]);
        insta::assert_snapshot!(steps, @"
        step users failed; read /etc/passwd: No such file or directory (os error 2)
        step groups skipped; step users did not complete
        step processes skipped; step users did not complete
        step services skipped; step users did not complete
        ");
        let machine = machine.file("etc/passwd", ROOT);
        let steps = machine.about(&["step users", "step groups"]);
        insta::assert_snapshot!(steps, @r"
        step users completed
        step groups failed; read /etc/group: Is a directory (os error 21)
        ");
    }

    #[test]
    fn hostile_names_cost_only_their_own_record() {
        let passwd = format!(
            "{ROOT}a\u{1b}[31m:x:1:0::/:\n{}:x:2:0::/:\nann:x:3:0:{}:/\u{7}:/bin/sh\r\n",
            "n".repeat(2048),
            "x".repeat(2048),
        );
        let text = accounts(&passwd, "root:x:0:\n").replace(&"x".repeat(2048), "(2048 x)");
        let text = text.replace(&"x".repeat(1024), "(1024 x)");
        insta::assert_snapshot!(text, @r#"
        host "acme" HAS host_group "root"
        host "acme" HAS host_user "ann"
        host "acme" HAS host_user "root"
        host_group "root" "Group" "-" gid=0
        host_user "ann" "User" "(1024 x)" gecos="(2048 x)" gid=0 home="/\u{7}" shell="/bin/sh\r" uid=3
        host_user "ann" MEMBER_OF host_group "root" primary=true
        host_user "root" "User" "root" gecos="root" gid=0 home="/root" shell="/bin/bash" uid=0
        host_user "root" MEMBER_OF host_group "root" primary=true
        step users incomplete; 4 rejected; rejected host_user "a\u{1b}[31m": key "a\u{1b}[31m" holds a control character; rejected host "acme" HAS host_user "a\u{1b}[31m": key "a\u{1b}[31m" holds a control character; rejected host_user "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn…": a key has 2048 bytes, more than 1024
        step groups completed
        "#);
    }

    #[test]
    fn text_that_is_no_utf8_is_kept_as_far_as_it_can_be() {
        let machine = Machine::new()
            .bytes(
                "etc/passwd",
                b"j\xfcrgen:x:1:1::/:\nann:x:2:1:J\xfcrgen:/:\n",
            )
            .file("etc/group", "root:x:0:\n");
        insta::assert_snapshot!(machine.about(&["step users", "host_user"]), @r#"
        host "acme" HAS host_user "ann"
        host_user "ann" "User" "J�rgen" gecos="J�rgen" gid=1 home="/" shell=null uid=2
        step users incomplete; /etc/passwd is malformed at line 1
        "#);
    }
}
