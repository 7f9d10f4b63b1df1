use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use parallax_core::escape;
use parallax_store::Subject;

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

    /// Format of the log [default: text; of `serve` without a terminal json]
    #[arg(long, value_name = "FORMAT", global = true, display_order = 101)]
    pub(crate) log_format: Option<LogFormat>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs a connector and commits what changed
    Sync(SyncArgs),
    /// Answers one SQL statement that reads
    Query(QueryArgs),
    /// Lists the syncs of a store, newest first, or shows one
    Syncs(SyncsArgs),
    /// Tells what happened in a sync, entry by entry
    Events(EventsArgs),
    /// Says who claims a record, and why it is there or gone
    Explain(ExplainArgs),
    /// Says what happened to a record, newest first
    History(HistoryArgs),
    /// Checks a store, or copies it
    #[command(subcommand)]
    Store(StoreCommand),
    /// Runs the connectors of a configuration again and again, and serves metrics
    Serve(ServeArgs),
    /// Checks a configuration without running anything
    Check(CheckArgs),
    /// Removes a source and all that it committed
    Forget(ForgetArgs),
    /// Lists the connectors and their steps
    Connectors(ConnectorsArgs),
    /// Runs a connector and shows what a sync would change
    Plan(PlanArgs),
    /// Lists the deletes that are held, or shows one changeset of them
    Held(HeldArgs),
    /// Deletes what a changeset holds
    Approve(ApproveArgs),
    /// Keeps what a changeset holds
    Reject(RejectArgs),
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

    /// Runs only these steps and those that they depend on: ids, with * for any characters and +
    /// for all that depend on them
    #[arg(long, value_name = "STEPS", value_delimiter = ',')]
    pub(crate) select: Vec<String>,

    /// Id of this sync: a second sync of the same id and content changes nothing [default: a new
    /// UUID]
    #[arg(long, value_name = "ID")]
    pub(crate) sync_id: Option<String>,

    /// Shows what the sync would change and writes nothing
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// With --dry-run: shows every record that would change, and how
    #[arg(long, requires = "dry_run")]
    pub(crate) show: bool,

    /// With --dry-run: ends with exit code 7 if a record would change
    #[arg(long, requires = "dry_run")]
    pub(crate) exit_code: bool,

    /// Prints one JSON object, whatever happens
    #[arg(long)]
    pub(crate) json: bool,
}

/// `parallax plan`: a sync that is a dry run.
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// Connector to run; `parallax connectors` lists them
    pub(crate) connector: String,

    #[command(flatten)]
    pub(crate) store: StoreArgs,

    /// Account to read, if not the connector's own choice
    #[arg(long, value_name = "NAME")]
    pub(crate) account: Option<String>,

    /// Runs only these steps and those that they depend on: ids, with * for any characters and +
    /// for all that depend on them
    #[arg(long, value_name = "STEPS", value_delimiter = ',')]
    pub(crate) select: Vec<String>,

    /// Shows every record that would change, and how
    #[arg(long)]
    pub(crate) show: bool,

    /// Ends with exit code 7 if a record would change
    #[arg(long)]
    pub(crate) exit_code: bool,

    /// Prints one JSON object, whatever happens
    #[arg(long)]
    pub(crate) json: bool,
}

impl From<PlanArgs> for SyncArgs {
    fn from(args: PlanArgs) -> Self {
        let PlanArgs {
            connector,
            store,
            account,
            select,
            show,
            exit_code,
            json,
        } = args;
        Self {
            connector,
            store,
            account,
            select,
            sync_id: None,
            dry_run: true,
            show,
            exit_code,
            json,
        }
    }
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
    /// Sync to show, or the beginning of its id
    #[arg(value_name = "ID")]
    pub(crate) sync_id: Option<String>,

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

    /// Prints a JSON array of objects, one for each sync; of one sync, its object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// Record to explain: an entity as TYPE:KEY, or the id of an entity or a relationship
    #[arg(value_name = "TYPE:KEY|ID")]
    pub(crate) subject: Subject,

    #[command(flatten)]
    pub(crate) store: StoreArgs,

    /// Prints a JSON array of objects, one for each record of that name
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// Record to look at: an entity as TYPE:KEY, or the id of an entity or a relationship
    #[arg(value_name = "TYPE:KEY|ID")]
    pub(crate) subject: Subject,

    #[command(flatten)]
    pub(crate) store: StoreArgs,

    /// Shows this many events of a record at most
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,

    /// Prints a JSON array of objects, one for each record of that name
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Reads all of a store and checks that nothing in it is damaged
    Verify(VerifyArgs),
    /// Copies a store into a new file, also while a daemon writes to it
    Backup(BackupArgs),
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,

    /// Prints one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// File to make; one that is there is not replaced
    pub(crate) file: PathBuf,

    #[command(flatten)]
    pub(crate) store: StoreArgs,

    /// Prints one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Sync, or the beginning of its id [default: the one that told something last]
    #[arg(value_name = "ID")]
    pub(crate) sync_id: Option<String>,

    #[command(flatten)]
    pub(crate) store: StoreArgs,

    /// Goes on while the sync does, until it is over
    #[arg(long)]
    pub(crate) follow: bool,

    /// Begins with this entry
    #[arg(long, value_name = "SEQ", default_value_t = 1)]
    pub(crate) from: u64,

    /// Looks at the syncs of one connector
    #[arg(long, value_name = "NAME")]
    pub(crate) connector: Option<String>,

    /// Looks at the syncs of one account
    #[arg(long, value_name = "NAME")]
    pub(crate) account: Option<String>,

    /// Prints each entry as it was told: one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,

    /// Address to serve HTTP on [default: the configuration's, or 127.0.0.1:7700]
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) listen: Option<SocketAddr>,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// Configuration to use
    #[arg(long = "config", value_name = "FILE", default_value = "parallax.toml")]
    pub(crate) file: PathBuf,

    /// Allows to serve HTTP to other machines without TLS
    #[arg(long)]
    pub(crate) insecure_http: bool,

    /// Store, as sqlite:PATH, instead of the configuration's
    #[arg(
        id = "store",
        long = "store",
        value_name = "URL",
        env = "PARALLAX_STORE",
        hide_env_values = true
    )]
    pub(crate) store: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ForgetArgs {
    /// Connector of the source
    pub(crate) connector: String,

    /// Account of the source; `parallax query "SELECT * FROM parallax_source"` lists them
    pub(crate) account: String,

    #[command(flatten)]
    pub(crate) store: StoreArgs,

    /// Removes without asking
    #[arg(long)]
    pub(crate) yes: bool,

    /// Prints one JSON object of what was removed
    #[arg(long)]
    pub(crate) json: bool,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    // One object a line.
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct ConnectorsArgs {
    /// Prints a JSON array of objects, one for each connector
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct HeldArgs {
    /// Changeset to show
    #[arg(value_name = "N")]
    pub(crate) changeset: Option<u64>,

    #[command(flatten)]
    pub(crate) store: StoreArgs,

    /// Lists the closed ones, too
    #[arg(long, conflicts_with = "changeset")]
    pub(crate) all: bool,

    /// Prints a JSON array of objects, one for each changeset; of one changeset, its object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ApproveArgs {
    /// Changeset to approve; `parallax held` lists them
    #[arg(value_name = "N")]
    pub(crate) changeset: u64,

    #[command(flatten)]
    pub(crate) store: StoreArgs,

    /// Deletes without asking
    #[arg(long)]
    pub(crate) yes: bool,

    /// Prints one JSON object of what was deleted
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RejectArgs {
    /// Changeset to reject; `parallax held` lists them
    #[arg(value_name = "N")]
    pub(crate) changeset: u64,

    #[command(flatten)]
    pub(crate) store: StoreArgs,

    /// Prints one JSON object of what is kept
    #[arg(long)]
    pub(crate) json: bool,
}

/// The store of who names none.
const STORE: &str = "sqlite:parallax.db";
const STORE_VARIABLE: &str = "PARALLAX_STORE";

#[derive(Debug, Args)]
pub(crate) struct StoreArgs {
    /// Store, as sqlite:PATH
    #[arg(
        id = "store",
        long = "store",
        value_name = "URL",
        env = STORE_VARIABLE,
        // A URL may hold a password, and help gets pasted.
        hide_env_values = true,
        default_value = STORE
    )]
    pub(crate) url: String,
}

impl StoreArgs {
    /// Returns what names this store on another command line of the same shell: nothing where
    /// nothing has to.
    pub(crate) fn again(&self) -> String {
        let by_itself = std::env::var(STORE_VARIABLE);
        option(&self.url, by_itself.as_deref().unwrap_or(STORE))
    }
}

/// Returns the option that names a store, as a shell reads it, unless it is found `by_itself`.
fn option(url: &str, by_itself: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.,:/@%+=".contains(c);
    if url == by_itself {
        String::new()
    } else if url.chars().all(is_plain) {
        format!(" --store {url}")
    } else {
        format!(" --store '{}'", escape(url).replace('\'', r"'\''"))
    }
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

/// Tells whether `args`, which do not parse, ask for the JSON object of a sync or a plan.
pub(crate) fn want_sync_json(args: &[OsString]) -> bool {
    let mut args = args.iter().skip(1);
    args.any(|arg| arg == "sync" || arg == "plan") && args.any(|arg| arg == "--json")
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
            (
                "parallax serve",
                "sync again and again, as parallax.toml says",
            ),
        ],
    )
    .mut_subcommand("serve", |serve| {
        with_examples(
            serve,
            &[
                ("parallax serve", "with ./parallax.toml"),
                ("parallax serve --config /etc/parallax.toml", ""),
                ("curl http://127.0.0.1:7700/metrics", "what it counts"),
            ],
        )
        .after_help(
            "Exit codes:\n  \
             2  wrong command line or configuration, or the address cannot be listened on\n  \
             5  the store cannot be used, as when another process writes to it\n  \
             130, 143  ended by SIGINT or SIGTERM: runs were cancelled, commits finished",
        )
    })
    .mut_subcommand("check", |check| {
        with_examples(
            check,
            &[
                ("parallax check", "./parallax.toml"),
                ("parallax check --config /etc/parallax.toml", ""),
            ],
        )
    })
    .mut_subcommand("forget", |forget| {
        with_examples(
            forget,
            &[
                (
                    &format!("parallax forget {kind} ACCOUNT"),
                    "shows what would go, and asks",
                ),
                (
                    &format!("parallax forget {kind} ACCOUNT --yes"),
                    "for scripts",
                ),
            ],
        )
    })
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
             7  with --exit-code: a record would change\n  \
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
                ("parallax syncs 01a2032d-aca7", "one, with its steps"),
                (
                    &format!("parallax syncs --connector {kind} --limit 1 --json"),
                    "",
                ),
            ],
        )
    })
    .mut_subcommand("explain", |explain| {
        with_examples(
            explain,
            &[
                (
                    "parallax explain host_package:bash:amd64",
                    "the key may hold colons",
                ),
                (
                    "parallax explain 000d23b4e434bf1cb5215344924e7e27",
                    "any id of the views",
                ),
            ],
        )
        .after_help(RECORD_EXITS)
    })
    .mut_subcommand("history", |history| {
        with_examples(
            history,
            &[
                (
                    "parallax history host_package:bash:amd64",
                    "the last 20 events",
                ),
                (
                    "parallax history 000d23b4e434bf1cb5215344924e7e27 --json",
                    "",
                ),
            ],
        )
        .after_help(RECORD_EXITS)
    })
    .mut_subcommand("store", |store| {
        with_examples(
            store,
            &[
                ("parallax store verify", "is anything damaged?"),
                ("parallax store backup parallax-2026-11-22.db", ""),
            ],
        )
        .mut_subcommand("verify", |verify| {
            with_examples(
                verify,
                &[
                    ("parallax store verify", "./parallax.db"),
                    ("parallax store verify --store sqlite:backup.db", ""),
                ],
            )
            .after_help(
                "Exit codes:\n  \
                 0  nothing is damaged\n  \
                 5  something is, or the store cannot be read",
            )
        })
        .mut_subcommand("backup", |backup| {
            with_examples(
                backup,
                &[
                    ("parallax store backup backup.db", "of ./parallax.db"),
                    ("parallax store backup \"backup-$(date +%F).db\" --json", ""),
                ],
            )
        })
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
    .mut_subcommand("plan", |plan| {
        with_examples(
            plan,
            &[
                (&format!("parallax plan {kind}"), "how much would change"),
                (&format!("parallax plan {kind} --show"), "what, and why"),
                (
                    &format!("parallax plan {kind} --exit-code"),
                    "for scripts: 0 if nothing would change",
                ),
            ],
        )
        .after_help(
            "Nothing is written, and no store is made. Exit codes are those of `parallax sync`; \
             with --exit-code,\n7 if a record would be created, updated or deleted.",
        )
    })
    .mut_subcommand("held", |held| {
        with_examples(
            held,
            &[
                ("parallax held", "which deletes wait, and why"),
                ("parallax held 3", "the records of one changeset"),
                ("parallax held --all", "what became of the others"),
            ],
        )
    })
    .mut_subcommand("approve", |approve| {
        with_examples(
            approve,
            &[
                ("parallax approve 3", "shows what would be deleted, and asks"),
                ("parallax approve 3 --yes", "for scripts"),
            ],
        )
        .after_help(
            "What has come back since the deletes were held stays. What is deleted stays in the \
             history, in\nthe view parallax_change, until it is too old or there is too much of it.",
        )
    })
    .mut_subcommand("reject", |reject| {
        with_examples(reject, &[("parallax reject 3", "nothing is deleted")]).after_help(
            "The records stay, and are not held again until they have been found again.",
        )
    })
}

const RECORD_EXITS: &str = "Exit codes:\n  \
     0  found\n  \
     1  nothing is stored of it, and the history does not know it\n  \
     5  the store cannot be used";

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
    fn store_is_named_again_where_it_has_to_be() {
        let urls = ["sqlite:parallax.db", "sqlite:/srv/p.db", "sqlite:a b'c\n"];
        insta::assert_debug_snapshot!(urls.map(|url| option(url, STORE)), @r#"
        [
            "",
            " --store sqlite:/srv/p.db",
            " --store 'sqlite:a b'\\''c\\n'",
        ]
        "#);
    }

    #[test]
    fn json_is_asked_for_of_sync_only() {
        let line = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert!(want_sync_json(&line("parallax sync --nope --json")));
        assert!(want_sync_json(&line("parallax plan --nope --json")));
        assert!(!want_sync_json(&line("parallax sync --nope")));
        assert!(!want_sync_json(&line("parallax query --nope --json")));
    }
}
