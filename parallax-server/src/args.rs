use std::ffi::OsString;

use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::app::Registration;

/// Longer lines are hard to read.
const MAX_WIDTH: u16 = 100;

/// A command line.
#[derive(Debug, Parser)]
#[command(
    name = "parallax",
    about = "Syncs what connectors read into a store, and answers questions about it",
    version,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// Logs more: -v what happens, -vv details, -vvv everything; RUST_LOG overrules it
    #[arg(short, long, action = ArgAction::Count, global = true, display_order = 100)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs a connector and commits what changed
    Sync(SyncArgs),
    /// Answers one SQL statement that reads
    Query(QueryArgs),
    /// Lists the syncs of a store, newest first
    Syncs(SyncsArgs),
    /// Lists the connectors and their steps
    Connectors(ConnectorsArgs),
}

#[derive(Debug, Args)]
pub(crate) struct SyncArgs {
    /// Connector to run; `parallax connectors` lists them
    pub(crate) connector: String,

    #[command(flatten)]
    pub(crate) store: StoreArgs,

    /// Account to read, if not the connector's own choice
    #[arg(long, value_name = "NAME")]
    pub(crate) account: Option<String>,

    /// Id of this sync: a second sync of the same id and content changes nothing [default: a new
    /// UUID]
    #[arg(long, value_name = "ID")]
    pub(crate) sync_id: Option<String>,

    /// Shows what the sync would change and writes nothing
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Prints one JSON object, whatever happens
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct QueryArgs {
    /// Statement over parallax_entity, parallax_relationship, parallax_source, parallax_sync and
    /// parallax_change
    pub(crate) sql: String,

    #[command(flatten)]
    pub(crate) store: StoreArgs,

    /// Prints a JSON array of objects, one for each row; bytes as hex
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SyncsArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,

    /// Lists the syncs of one connector
    #[arg(long, value_name = "NAME")]
    pub(crate) connector: Option<String>,

    /// Lists the syncs of one account
    #[arg(long, value_name = "NAME")]
    pub(crate) account: Option<String>,

    /// Lists this many at most
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,

    /// Prints a JSON array of objects, one for each sync
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ConnectorsArgs {
    /// Prints a JSON array of objects, one for each connector
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StoreArgs {
    /// Store, as sqlite:PATH
    #[arg(
        id = "store",
        long = "store",
        value_name = "URL",
        env = "PARALLAX_STORE",
        // A URL may hold a password, and help gets pasted.
        hide_env_values = true,
        default_value = "sqlite:parallax.db"
    )]
    pub(crate) url: String,
}

impl CommandLine {
    /// Parses the arguments of a process, the program's name first. Help is wrapped at `width`
    /// columns.
    pub(crate) fn parse(
        args: impl IntoIterator<Item = OsString>,
        connectors: &[Registration],
        width: Option<u16>,
    ) -> Result<Self, clap::Error> {
        let width = usize::from(width.unwrap_or(MAX_WIDTH).min(MAX_WIDTH));
        let mut matches = definition(connectors)
            .term_width(width)
            .try_get_matches_from(args)?;
        Self::from_arg_matches_mut(&mut matches)
    }
}

/// Tells whether `args`, which do not parse, ask for the JSON object of `parallax sync`.
pub(crate) fn want_sync_json(args: &[OsString]) -> bool {
    let mut args = args.iter().skip(1);
    args.any(|arg| arg == "sync") && args.any(|arg| arg == "--json")
}

/// Returns the command line's definition; help leads with examples of `connectors`.
fn definition(connectors: &[Registration]) -> clap::Command {
    let kind = connectors
        .first()
        .map_or("CONNECTOR", |first| first.kind.as_str());
    let sql = "SELECT type, count(*) FROM parallax_entity GROUP BY type";
    let kinds: Vec<String> = connectors
        .iter()
        .map(|connector| format!("  {:<10}  {}", connector.kind, connector.about))
        .collect();
    with_examples(
        CommandLine::command(),
        &[
            (
                &format!("parallax sync {kind}"),
                "read, and commit what changed",
            ),
            (
                &format!("parallax sync {kind} --dry-run"),
                "show what would change",
            ),
            (&format!("parallax query \"{sql}\""), ""),
            ("parallax syncs", "what was synced, and when"),
        ],
    )
    .mut_subcommand("sync", |sync| {
        with_examples(
            sync,
            &[
                (&format!("parallax sync {kind}"), "into ./parallax.db"),
                (
                    &format!("parallax sync {kind} --store sqlite:/srv/parallax.db"),
                    "",
                ),
                (&format!("parallax sync {kind} --dry-run"), "write nothing"),
                (
                    &format!("parallax sync {kind} --json | jq .stats"),
                    "for programs",
                ),
            ],
        )
        .after_help(format!(
            "Connectors:\n{}\n\n\
             Exit codes:\n  \
             0  committed, every step completed\n  \
             1  failed, nothing was committed\n  \
             2  wrong command line, configuration or connector\n  \
             3  committed, but some steps did not complete\n  \
             4  the system cannot be reached or refuses the credentials\n  \
             5  the store cannot be used\n  \
             6  committed, but deletes were held\n  \
             130, 143  cancelled by SIGINT or SIGTERM, nothing was committed",
            kinds.join("\n"),
        ))
    })
    .mut_subcommand("query", |query| {
        with_examples(
            query,
            &[
                (&format!("parallax query \"{sql}\""), ""),
                (
                    "parallax query --json \"SELECT * FROM parallax_relationship\"",
                    "",
                ),
            ],
        )
    })
    .mut_subcommand("syncs", |syncs| {
        with_examples(
            syncs,
            &[
                ("parallax syncs", "the last 20"),
                (
                    &format!("parallax syncs --connector {kind} --limit 1 --json"),
                    "",
                ),
            ],
        )
    })
    .mut_subcommand("connectors", |connectors| {
        with_examples(
            connectors,
            &[
                ("parallax connectors", ""),
                ("parallax connectors --json", ""),
            ],
        )
    })
}

fn with_examples(command: clap::Command, examples: &[(&str, &str)]) -> clap::Command {
    let width = examples
        .iter()
        .filter(|(_, what)| !what.is_empty())
        .map(|(line, _)| line.len())
        .max()
        .unwrap_or(0);
    let lines: Vec<String> = examples
        .iter()
        .map(|(line, what)| format!("  {line:<width$}  {what}").trim_end().to_owned())
        .collect();
    command
        .before_help(format!("Examples:\n{}", lines.join("\n")))
        .help_template("{about}\n\n{before-help}{usage-heading} {usage}\n\n{all-args}{after-help}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definition_is_sound() {
        definition(&[]).debug_assert();
    }

    #[test]
    fn json_is_asked_for_of_sync_only() {
        let line = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert!(want_sync_json(&line("parallax sync --nope --json")));
        assert!(!want_sync_json(&line("parallax sync --nope")));
        assert!(!want_sync_json(&line("parallax query --nope --json")));
    }
}
