use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Component, Path, PathBuf};

use parallax_connect::{ConnectorError, EntityKey, StepContext, entity, relationship};

use crate::accounts::users_by_uid;
use crate::emit::{emit, emit_of_host};
use crate::root::{Entry, Root};
use crate::unit::Unit;

/// Where systemd looks for units: what an earlier one holds counts.
const DIRECTORIES: [&str; 7] = [
    "etc/systemd/system",
    "run/systemd/system",
    // Made of what else says that there is a service, as a SysV script.
    "run/systemd/generator",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
    "run/systemd/generator.late",
];
/// An alias may lead to another, but not forever.
const NAMES_FOLLOWED: usize = 8;

/// What the directories of systemd hold about services.
#[derive(Default)]
struct Services {
    by_name: BTreeMap<String, Found>,
    /// By directory, such as `ssh.service.d`, and by name: the files, or `None` if masked.
    drop_ins: HashMap<String, BTreeMap<String, Option<String>>>,
    /// The directories of drop-ins that could not be read.
    missed_drop_ins: HashSet<String>,
    /// Which unit wants which service, by directory, such as `multi-user.target.wants`, and by
    /// name: whether it still does, or that is masked.
    wanted: HashMap<(String, String), bool>,
    /// Whether a directory that says so could not be read.
    missed_wanted: bool,
}

/// What a name of a service stands for.
enum Found {
    File(String),
    /// A link to `/dev/null`.
    Mask(String),
    /// Another name.
    Alias(String),
}

/// Emits the services that systemd knows, and which user each runs as.
pub(crate) fn services(root: &Root, ctx: &StepContext) -> Result<(), ConnectorError> {
    let Some(services) = Services::find(root, ctx) else {
        return Ok(());
    };
    let enabled = services.enabled();
    let users = users_by_uid(ctx);
    for (name, found) in &services.by_name {
        let (path, unit) = match found {
            Found::Alias(_) => continue,
            Found::Mask(path) => (path, Ok(Some(Unit::masked()))),
            Found::File(path) => (path, services.read(root, name, path)),
        };
        let unit = match unit {
            Ok(Some(unit)) => unit,
            // A link that leads nowhere, or what is said to be incomplete already.
            Ok(None) => continue,
            Err(error) => {
                ctx.incomplete(error);
                continue;
            }
        };
        let mut service = entity("host_service", name)
            .class("Service")
            .property("description", unit.description)
            .property("masked", unit.is_masked)
            .property("path", format!("/{path}"))
            .property("exec", unit.exec)
            .property("user", unit.user.as_deref());
        if let Some(enabled) = &enabled {
            service = service.property("enabled", enabled.contains(name.as_str()));
        }
        let key = service.key().clone();
        emit_of_host(ctx, service)?;
        if let Some(user) = unit.user.and_then(|user| find_user(ctx, &users, &user)) {
            emit(ctx, relationship(key, "RUNS_AS", user))?;
        }
    }
    Ok(())
}

/// Returns the user of a name or a number.
fn find_user(ctx: &StepContext, by_uid: &HashMap<i64, EntityKey>, user: &str) -> Option<EntityKey> {
    match user.parse() {
        Ok(uid) => by_uid.get(&uid).cloned(),
        Err(_) => ctx.prior().entity(("host_user", user)).map(EntityKey::from),
    }
}

impl Services {
    /// Finds them, or returns `None` if one of systemd's directories cannot be read: it may hold what
    /// counts for more than all that is found, and drop-ins of any of it.
    fn find(root: &Root, ctx: &StepContext) -> Option<Self> {
        let mut services = Self::default();
        for directory in DIRECTORIES {
            for Entry { name, link } in list(root, ctx, directory)? {
                // Of no other name does systemd make a unit.
                let Some(name) = name.to_str() else {
                    continue;
                };
                let path = format!("{directory}/{name}");
                let kind = name.rsplit_once('.').map(|(_, kind)| kind);
                match kind {
                    Some("service") if is_service(name) => {
                        let found = services.by_name.entry(name.to_owned());
                        found.or_insert_with(|| Found::new(directory, name, link.as_deref()));
                    }
                    Some("d") => services.find_drop_ins(root, ctx, name, &path),
                    Some("wants" | "requires" | "upholds") => {
                        services.find_wanted(root, ctx, name, &path);
                    }
                    _ => {}
                }
            }
        }
        Some(services)
    }

    fn find_drop_ins(&mut self, root: &Root, ctx: &StepContext, directory: &str, path: &str) {
        if directory != "service.d" && !directory.ends_with(".service.d") {
            return;
        }
        let Some(entries) = list(root, ctx, path) else {
            self.missed_drop_ins.insert(directory.to_owned());
            return;
        };
        let known = self.drop_ins.entry(directory.to_owned()).or_default();
        for Entry { name, link } in entries {
            if let Some(name) = name.to_str().filter(|name| name.ends_with(".conf")) {
                let file = (!is_mask(link.as_deref())).then(|| format!("{path}/{name}"));
                known.entry(name.to_owned()).or_insert(file);
            }
        }
    }

    fn find_wanted(&mut self, root: &Root, ctx: &StepContext, directory: &str, path: &str) {
        let Some(entries) = list(root, ctx, path) else {
            self.missed_wanted = true;
            return;
        };
        for Entry { name, link } in entries {
            if let Some(name) = name.to_str().filter(|name| is_service(name)) {
                let place = (directory.to_owned(), name.to_owned());
                let is_wanted = !is_mask(link.as_deref());
                self.wanted.entry(place).or_insert(is_wanted);
            }
        }
    }

    /// Returns the services that another unit wants, each by its own name, if that is known.
    fn enabled(&self) -> Option<HashSet<&str>> {
        if self.missed_wanted {
            return None;
        }
        let wanted = self.wanted.iter().filter(|(_, is_wanted)| **is_wanted);
        let enabled = wanted.filter_map(|((_, service), _)| self.own_name(service));
        Some(enabled.collect())
    }

    /// Returns the name of the file that a service is made of: its own, that which it is another
    /// name of, or that of its template.
    fn own_name<'a>(&'a self, mut name: &'a str) -> Option<&'a str> {
        for _ in 0..NAMES_FOLLOWED {
            let found = self.by_name.get_key_value(name).or_else(|| {
                let (template, _) = name.split_once('@')?;
                self.by_name.get_key_value(&format!("{template}@.service"))
            });
            match found? {
                (_, Found::Alias(other)) => name = other,
                (own, _) => return Some(own),
            }
        }
        None
    }

    /// Reads a service and its drop-ins, or returns `None` if there is no such file, or there may be
    /// drop-ins that could not be listed.
    fn read(&self, root: &Root, name: &str, path: &str) -> Result<Option<Unit>, ConnectorError> {
        let Some(content) = root.read_if_there(path)? else {
            return Ok(None);
        };
        if content.is_empty() {
            return Ok(Some(Unit::masked()));
        }
        let mut directories = directories_of_drop_ins(name);
        if directories.any(|directory| self.missed_drop_ins.contains(&directory)) {
            return Ok(None);
        }
        let mut unit = Unit::default();
        unit.read(&String::from_utf8_lossy(&content));
        for path in self.drop_ins(name) {
            if let Some(content) = root.read_if_there(path)? {
                unit.read(&String::from_utf8_lossy(&content));
            }
        }
        Ok(Some(unit))
    }

    /// Returns the drop-ins of a service, in the order in which they count.
    fn drop_ins(&self, name: &str) -> impl Iterator<Item = &str> {
        let mut files: BTreeMap<&str, &Option<String>> = BTreeMap::new();
        for directory in directories_of_drop_ins(name) {
            for (name, file) in self.drop_ins.get(&directory).into_iter().flatten() {
                files.entry(name).or_insert(file);
            }
        }
        files.into_values().filter_map(Option::as_deref)
    }
}

impl Found {
    fn new(directory: &str, name: &str, link: Option<&Path>) -> Self {
        let path = format!("{directory}/{name}");
        let target = link
            .map(|link| resolve(directory, link))
            // A link to a file elsewhere is how that is used, whatever its name is.
            .filter(|target| DIRECTORIES.iter().any(|units| target.starts_with(units)));
        let target = target.as_deref().and_then(Path::file_name);
        match target.and_then(|target| target.to_str()) {
            _ if is_mask(link) => Self::Mask(path),
            Some(target) if target != name && is_service(target) => Self::Alias(target.to_owned()),
            _ => Self::File(path),
        }
    }
}

/// Returns where a link in a directory leads, relative to the root, as far as its text says.
fn resolve(directory: &str, link: &Path) -> PathBuf {
    let mut path = PathBuf::new();
    for component in Path::new(directory).join(link).components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::ParentDir => {
                path.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    path
}

/// Returns where the drop-ins of a service may be, the nearest first.
fn directories_of_drop_ins(name: &str) -> impl Iterator<Item = String> {
    let stem = name.strip_suffix(".service").unwrap_or(name);
    // For all services whose name begins so, up to a dash: the longer the nearer.
    let prefixes = stem
        .rmatch_indices('-')
        .filter_map(|(at, _)| stem.get(..=at));
    [format!("{name}.d")]
        .into_iter()
        .chain(prefixes.map(|prefix| format!("{prefix}.service.d")))
        .chain(["service.d".to_owned()])
}

/// Lists a directory, which need not be there, or returns `None` if that fails.
fn list(root: &Root, ctx: &StepContext, directory: &str) -> Option<Vec<Entry>> {
    let listed = root.list(directory).map_err(|error| ctx.incomplete(error));
    listed.ok().map(Option::unwrap_or_default)
}

fn is_mask(link: Option<&Path>) -> bool {
    link == Some(Path::new("/dev/null"))
}

/// Tells whether systemd takes this for the name of a service.
fn is_service(name: &str) -> bool {
    let is_valid = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    let stem = name.strip_suffix(".service");
    stem.is_some_and(|stem| !stem.is_empty() && name.len() < 256 && stem.chars().all(is_valid))
}

#[cfg(test)]
mod tests {
    use crate::testing::Machine;

    const ABOUT: [&str; 2] = ["step services", "host_service"];

    fn machine() -> Machine {
        Machine::new().file(
            "etc/passwd",
            "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/:\nbob:x:1001:1001::/:\n",
        )
    }

    #[test]
    fn service_is_what_its_file_says() {
        let machine = machine()
            .file(
                "usr/lib/systemd/system/shop.service",
                "[Unit]\nDescription=The shop\n\
                 [Service]\nUser=ann\nExecStart=-/usr/bin/shop --token secret\n",
            )
            .file(
                "usr/lib/systemd/system/till.service",
                "[Service]\nUser=1001\n",
            )
            .file(
                "usr/lib/systemd/system/lost.service",
                "[Service]\nUser=nobody\n",
            )
            .file("usr/lib/systemd/system/shop.socket", "[Socket]\n")
            .file("usr/lib/systemd/system/.service", "[Service]\n")
            .file("usr/lib/systemd/system/a b.service", "[Service]\n");
        insta::assert_snapshot!(machine.about(&ABOUT), @r#"
        host "acme" HAS host_service "lost.service"
        host "acme" HAS host_service "shop.service"
        host "acme" HAS host_service "till.service"
        host_service "lost.service" "Service" "-" description=null enabled=false exec=null masked=false path="/usr/lib/systemd/system/lost.service" user="nobody"
        host_service "shop.service" "Service" "-" description="The shop" enabled=false exec="/usr/bin/shop" masked=false path="/usr/lib/systemd/system/shop.service" user="ann"
        host_service "shop.service" RUNS_AS host_user "ann"
        host_service "till.service" "Service" "-" description=null enabled=false exec=null masked=false path="/usr/lib/systemd/system/till.service" user="1001"
        host_service "till.service" RUNS_AS host_user "bob"
        step services completed
        "#);
    }

    #[test]
    fn first_of_the_directories_counts() {
        let unit = |place: &str| format!("[Unit]\nDescription={place}\n");
        let machine = machine()
            .file("lib/systemd/system/a.service", &unit("lib"))
            .file("usr/lib/systemd/system/a.service", &unit("usr"))
            .file("lib/systemd/system/b.service", &unit("lib"))
            .file("usr/lib/systemd/system/b.service", &unit("usr"))
            .file("run/systemd/system/b.service", &unit("run"))
            .file("etc/systemd/system/b.service", &unit("etc"))
            .file("lib/systemd/system/c.service", &unit("lib"))
            .file("run/systemd/generator.late/c.service", &unit("generated"));
        insta::assert_snapshot!(machine.about(&ABOUT), @r#"
        host "acme" HAS host_service "a.service"
        host "acme" HAS host_service "b.service"
        host "acme" HAS host_service "c.service"
        host_service "a.service" "Service" "-" description="usr" enabled=false exec=null masked=false path="/usr/lib/systemd/system/a.service" user=null
        host_service "b.service" "Service" "-" description="etc" enabled=false exec=null masked=false path="/etc/systemd/system/b.service" user=null
        host_service "c.service" "Service" "-" description="lib" enabled=false exec=null masked=false path="/lib/systemd/system/c.service" user=null
        step services completed
        "#);
    }

    #[test]
    fn service_is_masked_by_a_link_to_nothing_or_an_empty_file() {
        let unit = "[Unit]\nDescription=masked\n";
        let machine = machine()
            .file("usr/lib/systemd/system/a.service", unit)
            .link("etc/systemd/system/a.service", "/dev/null")
            .file("usr/lib/systemd/system/a.service.d/x.conf", unit)
            .file("usr/lib/systemd/system/b.service", unit)
            .file("etc/systemd/system/b.service", "")
            .link("etc/systemd/system/c.service", "/nowhere/c.service");
        insta::assert_snapshot!(machine.about(&ABOUT), @r#"
        host "acme" HAS host_service "a.service"
        host "acme" HAS host_service "b.service"
        host_service "a.service" "Service" "-" description=null enabled=false exec=null masked=true path="/etc/systemd/system/a.service" user=null
        host_service "b.service" "Service" "-" description=null enabled=false exec=null masked=true path="/etc/systemd/system/b.service" user=null
        step services completed
        "#);
    }

    #[test]
    fn service_is_enabled_by_a_link_under_any_of_its_names() {
        let unit = "[Unit]\n";
        let machine = machine()
            .file("usr/lib/systemd/system/plain.service", unit)
            .link(
                "etc/systemd/system/multi-user.target.wants/plain.service",
                "/x",
            )
            .file("usr/lib/systemd/system/needed.service", unit)
            .link(
                "etc/systemd/system/plain.service.requires/needed.service",
                "/x",
            )
            .file("usr/lib/systemd/system/ssh.service", unit)
            .link(
                "etc/systemd/system/sshd.service",
                "/lib/systemd/system/ssh.service",
            )
            .link(
                "etc/systemd/system/multi-user.target.wants/sshd.service",
                "/x",
            )
            .file("usr/lib/systemd/system/getty@.service", unit)
            .link("usr/lib/systemd/system/autovt@.service", "getty@.service")
            .link(
                "etc/systemd/system/getty.target.wants/autovt@tty1.service",
                "/x",
            )
            .file("opt/shop/linked.service", unit)
            .link(
                "etc/systemd/system/linked.service",
                "/opt/shop/linked.service",
            )
            .file("usr/lib/systemd/system/revoked.service", unit)
            .link(
                "usr/lib/systemd/system/basic.target.wants/revoked.service",
                "/x",
            )
            .link(
                "etc/systemd/system/basic.target.wants/revoked.service",
                "/dev/null",
            )
            .link(
                "etc/systemd/system/basic.target.wants/missing.service",
                "/x",
            )
            .link(
                "etc/systemd/system/basic.target.wants/missing@x.service",
                "/x",
            )
            .link("etc/systemd/system/circle.service", "round.service")
            .link("etc/systemd/system/round.service", "circle.service")
            .link("etc/systemd/system/basic.target.wants/round.service", "/x");
        insta::assert_snapshot!(machine.about(&ABOUT), @r#"
        host "acme" HAS host_service "getty@.service"
        host "acme" HAS host_service "linked.service"
        host "acme" HAS host_service "needed.service"
        host "acme" HAS host_service "plain.service"
        host "acme" HAS host_service "revoked.service"
        host "acme" HAS host_service "ssh.service"
        host_service "getty@.service" "Service" "-" description=null enabled=true exec=null masked=false path="/usr/lib/systemd/system/getty@.service" user=null
        host_service "linked.service" "Service" "-" description=null enabled=false exec=null masked=false path="/etc/systemd/system/linked.service" user=null
        host_service "needed.service" "Service" "-" description=null enabled=true exec=null masked=false path="/usr/lib/systemd/system/needed.service" user=null
        host_service "plain.service" "Service" "-" description=null enabled=true exec=null masked=false path="/usr/lib/systemd/system/plain.service" user=null
        host_service "revoked.service" "Service" "-" description=null enabled=false exec=null masked=false path="/usr/lib/systemd/system/revoked.service" user=null
        host_service "ssh.service" "Service" "-" description=null enabled=true exec=null masked=false path="/usr/lib/systemd/system/ssh.service" user=null
        step services completed
        "#);
    }

    /// A deployment that put another file behind the link took the service for another name of
    /// something, and it was deleted while it ran.
    #[test]
    fn link_to_a_file_elsewhere_is_a_service_whatever_the_file_is_called() {
        let unit = |place: &str| format!("[Unit]\nDescription={place}\n");
        let machine = machine()
            .file("opt/shop/shop-v2.service", &unit("linked"))
            .link(
                "etc/systemd/system/shop.service",
                "/opt/shop/shop-v2.service",
            )
            .link(
                "etc/systemd/system/till.service",
                "../../../opt/shop/shop-v2.service",
            )
            .link(
                "etc/systemd/system/basic.target.wants/till.service",
                "../till.service",
            )
            .file("usr/lib/systemd/system/ssh.service", &unit("packaged"))
            .link(
                "etc/systemd/system/sshd.service",
                "../../../lib/systemd/system/ssh.service",
            );
        insta::assert_snapshot!(machine.about(&ABOUT), @r#"
        host "acme" HAS host_service "shop.service"
        host "acme" HAS host_service "ssh.service"
        host "acme" HAS host_service "till.service"
        host_service "shop.service" "Service" "-" description="linked" enabled=false exec=null masked=false path="/etc/systemd/system/shop.service" user=null
        host_service "ssh.service" "Service" "-" description="packaged" enabled=false exec=null masked=false path="/usr/lib/systemd/system/ssh.service" user=null
        host_service "till.service" "Service" "-" description="linked" enabled=true exec=null masked=false path="/etc/systemd/system/till.service" user=null
        step services completed
        "#);
    }

    #[test]
    fn drop_ins_count_in_the_order_of_their_names() {
        let description = |text: &str| format!("[Unit]\nDescription={text}\n");
        let user = |text: &str| format!("[Service]\nUser={text}\n");
        let machine = machine()
            .file(
                "usr/lib/systemd/system/shop-web.service",
                "[Unit]\nDescription=first\n[Service]\nUser=root\nExecStart=/bin/web\n",
            )
            .file(
                "usr/lib/systemd/system/shop-web.service.d/20.conf",
                &user("ann"),
            )
            .file(
                "etc/systemd/system/shop-web.service.d/10.conf",
                &user("root"),
            )
            .file(
                "etc/systemd/system/shop-web.service.d/30.txt",
                &user("root"),
            )
            .file(
                "usr/lib/systemd/system/shop-.service.d/30.conf",
                &description("shop"),
            )
            .file("usr/lib/systemd/system/service.d/20.conf", &user("root"))
            .file(
                "usr/lib/systemd/system/service.d/40.conf",
                &description("masked"),
            )
            .link("etc/systemd/system/service.d/40.conf", "/dev/null")
            .file(
                "usr/lib/systemd/system/shop.service.d/50.conf",
                &description("other"),
            );
        insta::assert_snapshot!(machine.about(&ABOUT), @r#"
        host "acme" HAS host_service "shop-web.service"
        host_service "shop-web.service" "Service" "-" description="shop" enabled=false exec="/bin/web" masked=false path="/usr/lib/systemd/system/shop-web.service" user="ann"
        host_service "shop-web.service" RUNS_AS host_user "ann"
        step services completed
        "#);
    }

    #[test]
    fn file_that_cannot_be_read_makes_the_step_incomplete() {
        let machine = machine()
            .file("etc/systemd/system/a.service/is-a-directory", "")
            .bytes(
                "etc/systemd/system/b.service",
                b"[Unit]\nDescription=J\xfcrgen\x07\n",
            )
            .file("etc/systemd/system/b.service.wants", "no directory")
            .file("etc/systemd/system/c.service", "[Service]\n")
            .file("etc/systemd/system/c.service.d/x.conf/is-a-directory", "");
        insta::assert_snapshot!(machine.about(&ABOUT), @r#"
        host "acme" HAS host_service "b.service"
        host_service "b.service" "Service" "-" description="J�rgen\u{7}" enabled=false exec=null masked=false path="/etc/systemd/system/b.service" user=null
        step services incomplete; read /etc/systemd/system/a.service: Is a directory (os error 21); read /etc/systemd/system/c.service.d/x.conf: Is a directory (os error 21)
        "#);
    }

    /// A link in a circle stands for a directory that the reader may not list: what was in it was
    /// taken for nothing, and services were stored with other values than they have.
    fn unreadable(machine: Machine, directory: &str) -> Machine {
        let name = directory.rsplit('/').next().unwrap();
        machine.link(directory, name)
    }

    #[test]
    fn service_whose_drop_ins_cannot_be_listed_is_left_out() {
        let machine = machine()
            .file("usr/lib/systemd/system/shop-web.service", "[Service]\n")
            .file("usr/lib/systemd/system/shop.service", "[Service]\n")
            .file("usr/lib/systemd/system/till.service", "[Service]\n");
        let machine = unreadable(machine, "etc/systemd/system/shop-.service.d");
        let machine = unreadable(machine, "etc/systemd/system/till.service.d");
        insta::assert_snapshot!(machine.about(&ABOUT), @r#"
        host "acme" HAS host_service "shop.service"
        host_service "shop.service" "Service" "-" description=null enabled=false exec=null masked=false path="/usr/lib/systemd/system/shop.service" user=null
        step services incomplete; read /etc/systemd/system/shop-.service.d: Too many levels of symbolic links (os error 40); read /etc/systemd/system/till.service.d: Too many levels of symbolic links (os error 40)
        "#);
    }

    #[test]
    fn nobody_knows_what_is_enabled_if_links_cannot_be_listed() {
        let machine = machine()
            .file("usr/lib/systemd/system/shop.service", "[Service]\n")
            .link("etc/systemd/system/basic.target.wants/shop.service", "/x");
        let machine = unreadable(machine, "etc/systemd/system/multi-user.target.wants");
        insta::assert_snapshot!(machine.about(&ABOUT), @r#"
        host "acme" HAS host_service "shop.service"
        host_service "shop.service" "Service" "-" description=null exec=null masked=false path="/usr/lib/systemd/system/shop.service" user=null
        step services incomplete; read /etc/systemd/system/multi-user.target.wants: Too many levels of symbolic links (os error 40)
        "#);
    }

    #[test]
    fn nothing_is_known_if_a_directory_of_systemd_cannot_be_listed() {
        let machine = machine()
            .file("etc/systemd/system/shop.service", "[Service]\n")
            .file("usr/lib/systemd/system/till.service", "[Service]\n");
        let machine = unreadable(machine, "run/systemd/system");
        insta::assert_snapshot!(machine.about(&ABOUT), @"step services incomplete; read /run/systemd/system: Too many levels of symbolic links (os error 40)");
    }

    #[test]
    fn machine_without_systemd_has_no_services() {
        insta::assert_snapshot!(machine().about(&ABOUT), @"step services completed");
    }
}
