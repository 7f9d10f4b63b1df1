use super::*;

/// Returns what is said about a configuration, and how much of it is usable.
fn said(text: &str) -> String {
    let path = Path::new("parallax.toml");
    let result = Config::parse(path, text, &["host", "okta"]).and_then(|(config, mut problems)| {
        problems.check()?;
        Ok(config)
    });
    match result {
        Ok(config) => format!("{config:#?}"),
        Err(error) => {
            let parts = error.parts();
            let lines = parts.iter().map(|(what, help)| format!("{what}\n  {help}"));
            lines.collect::<Vec<_>>().join("\n")
        }
    }
}

#[test]
fn whole_configuration_is_read() {
    let text = r#"
        [store]
        url = "sqlite:/srv/parallax.db"
        [server]
        listen = "[::1]:0"
        concurrency = 16
        [[connector]]
        kind = "host"
        every = "90s"
        [[connector]]
        kind = "okta"
        name = "okta-eu"
        account = "acme"
        every = "1d"
        hold_deletes = { above = 1_000 }
    "#;
    insta::assert_snapshot!(said(text), @r#"
    Config {
        store: Some(
            (
                "sqlite:/srv/parallax.db",
                3,
            ),
        ),
        names_store: true,
        listen: Some(
            (
                [::1]:0,
                5,
            ),
        ),
        tokens: None,
        tls: None,
        names_tls: false,
        protects_reads: false,
        concurrency: Some(
            16,
        ),
        connectors: [
            ConnectorConfig {
                line: 7,
                kind: "host",
                name: "host",
                account: None,
                schedule: Schedule {
                    every: 90s,
                    jitter: None,
                    overlap: Skip,
                    missed: RunOnce,
                },
                guard: Guard {
                    records: 100,
                    share: 0.2,
                    enabled: true,
                },
            },
            ConnectorConfig {
                line: 10,
                kind: "okta",
                name: "okta-eu",
                account: Some(
                    Written(
                        "acme",
                    ),
                ),
                schedule: Schedule {
                    every: 86400s,
                    jitter: None,
                    overlap: Skip,
                    missed: RunOnce,
                },
                guard: Guard {
                    records: 1000,
                    share: 0.2,
                    enabled: true,
                },
            },
        ],
    }
    "#);
}

#[test]
fn every_problem_has_its_line_and_help() {
    let good = "[[connector]]\nkind = \"host\"\nevery = \"1h\"\n";
    let table = [
        ("syntax", "a = \n[store\nurl = 'x'".to_owned()),
        ("twice", format!("{good}every = '2h'")),
        ("nothing", String::new()),
        ("unknown section", format!("[sever]\n{good}")),
        (
            "unknown keys",
            format!("{good}accont = 'a'\ntoken = 'x'\n[server]\nlsten = ''"),
        ),
        (
            "wrong types",
            "store = 'x'\nserver.listen = 7700\n[[connector]]\nkind = ['host']\nevery = 15\n\
             name = true\naccount = 2026-01-01"
                .to_owned(),
        ),
        ("no list", "[connector]\nkind = 'host'".to_owned()),
        ("list of something", "connector = ['host', 7]".to_owned()),
        (
            "lacking",
            "[[connector]]\n\n[[connector]]\nkind = 'host'".to_owned(),
        ),
        (
            "unknown kind",
            "[[connector]]\nkind = 'hots'\nevery = '1h'\n[[connector]]\nkind = 'salesforce'\n\
             every = '1h'"
                .to_owned(),
        ),
        (
            "bad values",
            "[store]\nurl = ''\n[server]\nlisten = 'localhost'\n[[connector]]\nkind = 'host'\n\
             every = '15'\nname = 'My Host'\naccount = \"a\\u0007\""
                .to_owned(),
        ),
        ("holds by number", format!("{good}hold_deletes = 100")),
        (
            "negative hold",
            format!("{good}hold_deletes = {{ above = -1, share = -0.1 }}"),
        ),
        (
            "hold of another kind",
            format!("{good}hold_deletes = {{ above = 0.5, share = '20%' }}"),
        ),
        (
            "hold in percent",
            format!("{good}[connector.hold_deletes]\nabov = 1\nshare = 20"),
        ),
        (
            "no share",
            format!("{good}hold_deletes = {{ share = nan }}"),
        ),
        ("no syncs", format!("[server]\nconcurrency = 0\n{good}")),
        (
            "half a sync",
            format!("[server]\nconcurrency = 0.5\n{good}"),
        ),
    ];
    let said: Vec<String> = table
        .iter()
        .map(|(name, text)| format!("{name}:\n{}", said(text)))
        .collect();
    insta::assert_snapshot!(said.join("\n\n"), @r#"
    syntax:
    parallax.toml:1: this is not TOML: string values must be quoted, expected literal string
      see https://toml.io for how it is written
    parallax.toml:2: this is not TOML: unclosed table, expected `]`
      see https://toml.io for how it is written

    twice:
    parallax.toml:4: this is not TOML: duplicate key
      see https://toml.io for how it is written

    nothing:
    parallax.toml: there is nothing to run
      add [[connector]] with kind = "host" and every = "15m"

    unknown section:
    parallax.toml:1: there is no section "sever"
      did you mean "server"?

    unknown keys:
    parallax.toml:4: there is no "accont" in [[connector]]
      did you mean "account"?
    parallax.toml:5: there is no "token" in [[connector]]
      there are: kind, every, cron, timezone, overlap, missed, jitter, name, account, hold_deletes
    parallax.toml:7: there is no "lsten" in [server]
      did you mean "listen"?

    wrong types:
    parallax.toml:1: store is a text, not a table
      write [store]
    parallax.toml:2: listen is a number, not a text
      write listen = "..."
    parallax.toml:4: kind is a list, not a text
      write kind = "..."
    parallax.toml:5: every is a number, not a text
      write every = "..."
    parallax.toml:6: name is true or false, not a text
      write name = "..."
    parallax.toml:7: account is a time, not a text
      write account = "..."

    no list:
    parallax.toml:1: connector is a table, not a list of tables
      write [[connector]]

    list of something:
    parallax.toml:1: connector is a text, not a table
      write [[connector]]
    parallax.toml:1: connector is a number, not a table
      write [[connector]]

    lacking:
    parallax.toml:1: this [[connector]] lacks "kind"
      add kind = "host"
    parallax.toml:1: this [[connector]] lacks "every" or "cron"
      add every = "15m", or cron = "30 2 * * *" for a time of the day
    parallax.toml:3: this [[connector]] lacks "every" or "cron"
      add every = "15m", or cron = "30 2 * * *" for a time of the day

    unknown kind:
    parallax.toml:2: there is no connector "hots"
      did you mean "host"?
    parallax.toml:5: there is no connector "salesforce"
      there are: host, okta

    bad values:
    parallax.toml:2: url is empty
      give it a value, or leave it out
    parallax.toml:4: listen = "localhost" is not an address with a port
      write it as IP:PORT, for example "127.0.0.1:7700"
    parallax.toml:7: every = "15" is not an interval: it has no unit
      write a number and s, m, h or d, for example "15m"
    parallax.toml:8: name = "My Host" is not of the form [a-z0-9_.-]{1,64}
      it is the connector_id in the store and in metrics: choose such a name
    parallax.toml:9: account = "a\u{7}" is not 1 to 256 bytes without control characters
      name the account as it shall stand in the store

    holds by number:
    parallax.toml:4: hold_deletes is a number, not a table or false
      write hold_deletes = { above = 100, share = 0.2 }, or false

    negative hold:
    parallax.toml:4: above = -1 is not a count of records
      write how many deletes of a sync are nothing unusual, for example above = 100
    parallax.toml:4: share = -0.1 is not between 0 and 1
      write it as a part of 1, for example share = 0.2 for a fifth

    hold of another kind:
    parallax.toml:4: above is a number, not a whole number
      write how many deletes of a sync are nothing unusual, for example above = 100
    parallax.toml:4: share is a text, not a decimal number
      write it as a part of 1, for example share = 0.2 for a fifth

    hold in percent:
    parallax.toml:5: there is no "abov" in hold_deletes
      did you mean "above"?
    parallax.toml:6: share = 20 is not between 0 and 1
      write it as a part of 1, for example share = 0.2 for a fifth

    no share:
    parallax.toml:4: share = nan is not between 0 and 1
      write it as a part of 1, for example share = 0.2 for a fifth

    no syncs:
    parallax.toml:2: concurrency = 0 is not a count of syncs
      write how many syncs may run at a time, for example concurrency = 16

    half a sync:
    parallax.toml:2: concurrency is a number, not a whole number
      write how many syncs may run at a time, for example concurrency = 16
    "#);
}

#[test]
fn file_that_is_no_text_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), b"[store]\nurl = '\xff'\n").unwrap();
    let error = Config::read(file.path(), &[]).unwrap_err();
    let expected = format!("{}:2: this is not UTF-8", file.path().display());
    assert_eq!(error.to_string(), expected);
    let error = Config::read(Path::new("/nowhere/parallax.toml"), &[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot read /nowhere/parallax.toml: No such file or directory (os error 2)"
    );
}

#[test]
fn example_is_valid() {
    let example = include_str!("../../parallax.example.toml");
    let read = Config::parse(Path::new("parallax.example.toml"), example, &["host"]);
    let (config, mut problems) = read.unwrap();
    problems.check().unwrap();
    assert_eq!(config.connectors.len(), 1);
    let store = config.store.map(|(url, _)| url);
    assert_eq!(
        store.as_deref(),
        Some("sqlite:/var/lib/parallax/parallax.db")
    );
}

#[test]
fn text_may_be_kept_out_of_the_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "acme\n").unwrap();
    let connector = "[[connector]]\nkind = \"host\"\nevery = \"1h\"\naccount = ";
    let account = |from: String| {
        let text = format!("{connector}{from}");
        let (config, problems) = Config::parse(Path::new(""), &text, &["host"]).unwrap();
        assert!(problems.is_empty(), "{problems:?}");
        let account = config.connectors[0].account.clone().unwrap();
        account
            .read()
            .unwrap_or_else(|(what, help)| format!("{what}\n  {help}"))
    };
    assert_eq!(account("\"acme\"".to_owned()), "acme");
    assert_eq!(account(format!("{{ file = {:?} }}", file.path())), "acme");
    // Every test has a PATH.
    let path = std::env::var("PATH").unwrap();
    assert_eq!(account("{ env = \"PATH\" }".to_owned()), path);
    // What is not there may be there later.
    insta::assert_snapshot!(account("{ env = \"PARALLAX_NO_SUCH_SECRET\" }".to_owned()), @r#"
    account is to come from the environment variable "PARALLAX_NO_SUCH_SECRET": environment variable not found
      put it where this user can read it, or write account = "..."
    "#);
    fs::write(file.path(), "\n").unwrap();
    let empty = account(format!("{{ file = {:?} }}", file.path()));
    assert!(empty.contains("it is empty"), "{empty}");

    // Without a store, nothing can be done.
    let text = format!("[store]\nurl = {{ file = \"/nowhere\" }}\n{connector}'acme'");
    insta::assert_snapshot!(said(&text), @r#"
    parallax.toml:2: url is to come from the file "/nowhere": No such file or directory (os error 2)
      put it where this user can read it, or write url = "..."
    "#);
    insta::assert_snapshot!(said(&format!("{connector}{{ vault = \"x\" }}")), @r#"
    parallax.toml:4: account is a table that names no place to read it from
      write account = { env = "NAME" } or { file = "PATH" }
    "#);
}

#[test]
fn deletes_are_held_as_the_file_says() {
    let holds = [
        "",
        "hold_deletes = true",
        "hold_deletes = false",
        "hold_deletes = {}",
        "hold_deletes = { share = 0 }",
        "hold_deletes = { above = 0xff, share = 1 }",
    ];
    let read = holds.map(|line| {
        let text = format!("[[connector]]\nkind = 'host'\nevery = '1h'\n{line}");
        let config = Config::parse(Path::new(""), &text, &["host"]).unwrap().0;
        let Guard {
            records,
            share,
            enabled,
        } = config.connectors[0].guard;
        format!("{line}: {enabled}, above {records}, share {share}")
    });
    insta::assert_snapshot!(read.join("\n"), @"
    : true, above 100, share 0.2
    hold_deletes = true: true, above 100, share 0.2
    hold_deletes = false: false, above 18446744073709551615, share 1
    hold_deletes = {}: true, above 100, share 0.2
    hold_deletes = { share = 0 }: true, above 100, share 0
    hold_deletes = { above = 0xff, share = 1 }: true, above 255, share 1
    ");
}

#[test]
fn schedule_is_an_interval_or_a_pattern() {
    let lines = [
        "every = '1h'",
        "every = '1h'\njitter = '0s'\noverlap = 'queue'\nmissed = 'skip'",
        "cron = '30 2 * * MON-FRI'",
        "cron = '@daily'\ntimezone = 'europe/berlin'\njitter = '10m'\nmissed = 'run-once'",
        "cron = '30 2 * *'",
        "cron = '0 25 * * *'",
        "cron = '0 0 31 2 *'\ntimezone = 'Europe/Berlin'",
        "cron = '0 0 * * *'\ntimezone = 'Berlin'",
        "cron = 5\ntimezone = 7",
        "cron = '0 0 * * *'\nevery = '1h'",
        "every = '1h'\ntimezone = 'UTC'",
        "every = '1h'\njitter = '1h'\noverlap = 'que'\nmissed = 'run_once'",
        "every = '1h'\njitter = 'much'\noverlap = true",
    ];
    let read = lines.map(|lines| {
        let text = format!("[[connector]]\nkind = 'host'\n{lines}");
        let said = match Config::parse(Path::new("F"), &text, &["host"]) {
            Ok((config, problems)) if problems.is_empty() => {
                format!("{:?}", config.connectors[0].schedule)
            }
            _ => said(&text),
        };
        format!("{}:\n{said}", lines.replace('\n', ", "))
    });
    insta::assert_snapshot!(read.join("\n"), @r#"
    every = '1h':
    Schedule { every: 3600s, jitter: None, overlap: Skip, missed: RunOnce }
    every = '1h', jitter = '0s', overlap = 'queue', missed = 'skip':
    Schedule { every: 3600s, jitter: Some(0ns), overlap: Queue, missed: Skip }
    cron = '30 2 * * MON-FRI':
    Schedule { cron: 30 2 * * MON-FRI (UTC), jitter: None, overlap: Skip, missed: RunOnce }
    cron = '@daily', timezone = 'europe/berlin', jitter = '10m', missed = 'run-once':
    Schedule { cron: @daily (Europe/Berlin), jitter: Some(600s), overlap: Skip, missed: RunOnce }
    cron = '30 2 * *':
    parallax.toml:3: "30 2 * *" is not a cron pattern: it does not have five fields
      write minute, hour, day of the month, month and day of the week, for example "30 2 * * MON-FRI"
    cron = '0 25 * * *':
    parallax.toml:3: "0 25 * * *" is not a cron pattern: number out of bounds, in the hour
      write minute, hour, day of the month, month and day of the week, for example "30 2 * * MON-FRI"
    cron = '0 0 31 2 *', timezone = 'Europe/Berlin':
    parallax.toml:3: the time of "0 0 31 2 *" never comes
      check the day and the month
    cron = '0 0 * * *', timezone = 'Berlin':
    parallax.toml:4: there is no time zone "Berlin"
      write its IANA name, for example "Europe/Berlin"; UTC if you leave it out
    cron = 5, timezone = 7:
    parallax.toml:3: cron is a number, not a text
      write cron = "..."
    parallax.toml:4: timezone is a number, not a text
      write timezone = "..."
    cron = '0 0 * * *', every = '1h':
    parallax.toml:3: both every and cron are given
      keep one of them
    every = '1h', timezone = 'UTC':
    parallax.toml:4: timezone is there without cron
      remove it, or write cron = "30 2 * * *" in place of every
    every = '1h', jitter = '1h', overlap = 'que', missed = 'run_once':
    parallax.toml:4: jitter = "1h" is not how late a sync may be: it is not shorter than the interval
      write a number and s, m, h or d, for example "30s"; "0s" for none
    parallax.toml:5: overlap = "que" is none of its words
      did you mean "queue"?
    parallax.toml:6: missed = "run_once" is none of its words
      did you mean "run-once"?
    every = '1h', jitter = 'much', overlap = true:
    parallax.toml:4: jitter = "much" is not how late a sync may be: it is not a whole number with a unit
      write a number and s, m, h or d, for example "30s"; "0s" for none
    parallax.toml:5: overlap is true or false, not a text
      write overlap = "..."
    "#);
}
