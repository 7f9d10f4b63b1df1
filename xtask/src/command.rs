//! Command lines that are printed as they are run.

use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Runs `line` and fails if it fails. What it prints goes to the terminal.
pub(crate) fn run(line: &str) -> Result<()> {
    let status = parse(line)
        .status()
        .with_context(|| format!("cannot start `{line}`"))?;
    // The caller says which line this was: it is what repeats a step.
    ensure!(status.success(), "{status}");
    Ok(())
}

/// Runs `line` silently and returns what it wrote to stdout.
pub(crate) fn output(line: &str) -> Result<String> {
    let output = parse(line)
        .output()
        .with_context(|| format!("cannot start `{line}`"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "`{line}` failed ({}): {stderr}",
        output.status
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// Reads a line as a shell would: `NAME=value` words, then program and
/// arguments. There is no quoting, because no word here needs it.
fn parse(line: &str) -> Command {
    let mut words = line.split_whitespace().peekable();
    let mut variables = Vec::new();
    while let Some(variable) = words.peek().and_then(|word| word.split_once('=')) {
        variables.push(variable);
        words.next();
    }
    let mut command = Command::new(words.next().unwrap_or_default());
    command.envs(variables).args(words);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leading_assignments_are_environment_and_later_ones_are_arguments() {
        let command = parse("A=1 B=-Dwarnings cargo doc --config=x");
        let variables: Vec<_> = command.get_envs().collect();
        assert_eq!(
            variables,
            [
                ("A".as_ref(), Some("1".as_ref())),
                ("B".as_ref(), Some("-Dwarnings".as_ref()))
            ]
        );
        assert_eq!(command.get_program(), "cargo");
        assert_eq!(
            command.get_args().collect::<Vec<_>>(),
            ["doc", "--config=x"]
        );
    }
}
