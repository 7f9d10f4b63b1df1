use std::mem;

use crate::emit::unless_empty;

/// What the files of a systemd service say, as far as it is of use here.
///
/// Own code: the crates for such files do not join lines, refuse a file for one line that has no
/// meaning, or bring a syntax tree.
#[derive(Default)]
pub(crate) struct Unit {
    /// Whether it says that there is to be no such service.
    pub(crate) is_masked: bool,
    pub(crate) description: Option<String>,
    pub(crate) user: Option<String>,
    /// The first program that it runs. Not the arguments: they may hold secrets.
    pub(crate) exec: Option<String>,
}

impl Unit {
    pub(crate) fn masked() -> Self {
        Self {
            is_masked: true,
            ..Self::default()
        }
    }

    /// Reads a further file of the service: its settings replace those that were read before.
    pub(crate) fn read(&mut self, text: &str) {
        let mut section = String::new();
        for line in lines(text) {
            if let Some(name) = line.strip_prefix('[') {
                section = name.trim_end_matches(']').to_owned();
            } else if let Some((setting, value)) = line.split_once('=') {
                self.set(&section, setting.trim_end(), value.trim_start());
            }
        }
    }

    fn set(&mut self, section: &str, setting: &str, value: &str) {
        match (section, setting) {
            ("Unit", "Description") => self.description = unless_empty(value).map(str::to_owned),
            ("Service", "User") => self.user = unless_empty(value).map(str::to_owned),
            // Each line adds a program, and an empty one removes them all.
            ("Service", "ExecStart") if value.is_empty() => self.exec = None,
            ("Service", "ExecStart") if self.exec.is_none() => self.exec = program(value),
            _ => {}
        }
    }
}

/// Returns the lines without comments, each joined with those that it goes on in.
fn lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut joined = String::new();
    // Some editors begin a file so.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for line in text.lines().map(str::trim) {
        // A comment does not end what it stands in.
        if line.starts_with(['#', ';']) {
            continue;
        }
        let backslashes = line.len() - line.trim_end_matches('\\').len();
        match line.strip_suffix('\\') {
            Some(line) if backslashes % 2 == 1 => {
                joined += line;
                joined.push(' ');
            }
            _ => {
                joined += line;
                lines.push(mem::take(&mut joined));
            }
        }
    }
    lines.push(joined);
    lines
}

/// Returns the program of a command line, without the signs that say how it is to be run.
fn program(command: &str) -> Option<String> {
    let command = command.trim_start_matches(['@', '-', ':', '+', '!', '|']);
    let quoted = |quote| Some(command.strip_prefix(quote)?.split_once(quote)?.0);
    quoted('"')
        .or_else(|| quoted('\''))
        .or_else(|| command.split_whitespace().next())
        .and_then(unless_empty)
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(files: &[&str]) -> String {
        let mut unit = Unit::default();
        files.iter().for_each(|file| unit.read(file));
        let Unit {
            description,
            user,
            exec,
            ..
        } = unit;
        format!("{description:?} {user:?} {exec:?}")
    }

    #[test]
    fn settings_count_in_their_own_section() {
        let file = "\u{feff}[Unit]\nDescription = The = shop \nUser=unit\n\
                    [Service]\r\nUser=shop\r\nDescription=no\nExecStartPre=/bin/pre\n\
                    ExecStart=/bin/shop --password secret\nExecStart=/bin/second\nnonsense\n=\n";
        insta::assert_snapshot!(unit(&[file]), @r#"Some("The = shop") Some("shop") Some("/bin/shop")"#);
    }

    #[test]
    fn line_goes_on_after_a_backslash_and_through_comments() {
        let file = "[Unit]\nDescription=One \\\n# not this\n  ; nor this\n  two\\\\\nUser=no\n\
                    [Service]\n#User=no\nUser=\\\nann\nExecStart=\\";
        insta::assert_snapshot!(unit(&[file]), @r#"Some("One  two\\\\") Some("ann") None"#);
    }

    #[test]
    fn later_file_replaces_and_takes_back() {
        let first = "[Unit]\nDescription=first\n[Service]\nUser=ann\nExecStart=/bin/first\n";
        let second = "[Service]\nUser=\nExecStart=\nExecStart=/bin/second\n";
        insta::assert_snapshot!(unit(&[first, second]), @r#"Some("first") None Some("/bin/second")"#);
    }

    #[test]
    fn program_is_shown_without_what_surrounds_it() {
        for (command, expected) in [
            ("/bin/shop", Some("/bin/shop")),
            ("/bin/shop -k secret", Some("/bin/shop")),
            ("shop\t-k", Some("shop")),
            ("-@/bin/shop shopd -k", Some("/bin/shop")),
            ("!!/bin/shop", Some("/bin/shop")),
            ("\"/opt/my shop/bin\" -k secret", Some("/opt/my shop/bin")),
            ("+'/opt/my shop' -k", Some("/opt/my shop")),
            ("\"/opt/unclosed -k secret", Some("\"/opt/unclosed")),
            ("\"\"", None),
            ("-", None),
        ] {
            assert_eq!(program(command).as_deref(), expected, "{command}");
        }
    }
}
