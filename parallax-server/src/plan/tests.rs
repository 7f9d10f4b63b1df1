use std::fs;

use parallax_connect::{ConnectorError, step};

use super::*;
use crate::app::Opened;
use crate::app::tests::{Desk, Scripted};

fn app() -> App {
    let team = |script: &'static str| move || Ok(Opened::new(Scripted(script.to_owned())));
    App::new()
        .register("team", "", || {
            Ok(Opened::new(Scripted("a=1 b<a=1".to_owned())).default_account(Ok("acme")))
        })
        .register("homeless", "", team("a=1"))
        .register("cyclic", "", team("a<b=1 b<a=1"))
        .register("panics", "", || panic!("told to"))
        .register("panics-later", "", || {
            Ok(Opened::new(Panics).default_account(Ok("acme")))
        })
        .register("closed", "", || {
            Err(ConnectorError::unauthorized("no token"))
        })
}

struct Panics;

impl Connector for Panics {
    fn name(&self) -> &str {
        "panics-later"
    }

    fn steps(&self) -> Vec<Step<'_>> {
        panic!("told to, later")
    }
}

/// Runs a command line with a configuration, and returns its exit code and what it says.
fn told(config: &str, args: &str) -> String {
    let mut desk = Desk::new();
    let config = config.replace("STORE", &desk.store());
    let path = desk.path("parallax.toml");
    let directory = path.parent().unwrap().display().to_string();
    fs::write(&path, config.replace("DIR", &directory)).unwrap();
    let code = desk.run_app(&app(), &format!("{args} --config {}", path.display()));
    format!("{code}\n{}{}", desk.out, desk.err).replace(&directory, "DIR")
}

#[test]
fn check_says_what_would_be_done() {
    let config = "
        [store]
        url = 'STORE'
        [[connector]]
        kind = 'team'
        every = '15m'
        [[connector]]
        kind = 'team'
        name = 'team-eu'
        account = 'globex'
        every = '1d'
    ";
    insta::assert_snapshot!(told(config, "check"), @"
    0
    config     DIR/parallax.toml
    listen     http://127.0.0.1:7700
    connector  team, account acme: 2 steps, every 15m
      due      at once
    connector  team-eu, account globex: 2 steps, every 1d
      due      at once
    store      sqlite:DIR/parallax.db, to be created
    tokens     DIR/parallax.db.tokens, to be made
    ");
    insta::assert_snapshot!(told(config, "serve"), @"
    2
    error: serve needs a process of its own
      help: run it with App::main
    ");
}

#[test]
fn connectors_are_part_of_what_is_checked() {
    let config = "
        [store]
        url = 'STORE'
        [[connector]]
        kind = 'team'
        every = '15m'
        [[connector]]
        kind = 'team'
        account = 'acme'
        every = '1h'
        [[connector]]
        kind = 'homeless'
        every = '1h'
        [[connector]]
        kind = 'cyclic'
        account = 'x'
        every = '1h'
        [[connector]]
        kind = 'closed'
        every = '1h'
        nme = 'x'
        [[connector]]
        kind = 'closed'
        every = '1h'
    ";
    insta::assert_snapshot!(told(config, "check"), @r#"
    2
    error: DIR/parallax.toml:7: the connector of line 4 is team in account "acme", too
      help: one source is synced by one connector: give it another name or account, or remove it
    error: DIR/parallax.toml:11: connector homeless cannot tell which account it reads: it has no default account
      help: add account = "NAME"
    error: DIR/parallax.toml:14: connector cyclic cannot run: steps depend on each other: a -> b -> a
      help: this is a defect of the connector: please tell its author
    error: DIR/parallax.toml:21: there is no "nme" in [[connector]]
      help: did you mean "name"?
    error: DIR/parallax.toml:22: connector closed cannot be opened: no token
      help: check the connector's credentials and what they allow
    "#);
}

#[test]
fn source_that_cannot_be_synced_is_told_beside_those_that_can() {
    let config = "
        [store]
        url = 'STORE'
        [[connector]]
        kind = 'team'
        every = '15m'
        [[connector]]
        kind = 'team'
        name = 'team-eu'
        account = { file = 'DIR/account' }
        cron = '@daily'
        [[connector]]
        kind = 'closed'
        every = '1h'
        [[connector]]
        kind = 'panics'
        every = '1h'
        [[connector]]
        kind = 'panics-later'
        every = '1h'
    ";
    insta::assert_snapshot!(told(config, "check"), @r#"
    2
    config     DIR/parallax.toml
    listen     http://127.0.0.1:7700
    connector  team, account acme: 2 steps, every 15m
      due      at once
    store      sqlite:DIR/parallax.db, to be created
    tokens     DIR/parallax.db.tokens, to be made
    error: DIR/parallax.toml:7: account is to come from the file "DIR/account": No such file or directory (os error 2)
      help: put it where this user can read it, or write account = "..."
    error: DIR/parallax.toml:12: connector closed cannot be opened: no token
      help: check the connector's credentials and what they allow
    error: DIR/parallax.toml:15: connector panics cannot be opened: panicked: told to
      help: see to the cause and try again: nothing was read, and nothing was committed
    error: DIR/parallax.toml:18: connector panics-later cannot run: the connector panicked while naming its steps: told to, later
      help: this is a defect of the connector: please tell its author
    "#);
    // The daemon starts nevertheless.
    insta::assert_snapshot!(told(config, "serve"), @"
    2
    error: serve needs a process of its own
      help: run it with App::main
    ");
    // Twice the same, whether it can be synced or not, is wrong in itself.
    let twice = "
        [store]
        url = 'STORE'
        [[connector]]
        kind = 'closed'
        account = 'acme'
        every = '1h'
        [[connector]]
        kind = 'closed'
        account = 'acme'
        every = '1h'
    ";
    insta::assert_snapshot!(told(twice, "serve"), @r#"
    2
    error: DIR/parallax.toml:4: connector closed cannot be opened: no token
      help: check the connector's credentials and what they allow
    error: DIR/parallax.toml:8: the connector of line 4 is closed in account "acme", too
      help: one source is synced by one connector: give it another name or account, or remove it
    "#);
}

#[test]
fn store_is_named_and_can_be_used() {
    let connector = "[[connector]]\nkind = 'team'\nevery = '1h'\n";
    let mut lines = Vec::new();
    for store in [
        "",
        "[store]\nurl = 7\n",
        "[store]\nurl = 'postgres://x'\n",
        "[store]\nurl = 'sqlite::memory:'\n",
        "[store]\nurl = 'sqlite:/nowhere/parallax.db'\n",
        "[store]\nurl = 'sqlite:/'\n",
    ] {
        lines.push(told(&format!("{store}{connector}"), "check"));
    }
    lines.push(told(connector, "check --store sqlite::memory:"));
    insta::assert_snapshot!(lines.join("\n"), @r#"
    2
    error: DIR/parallax.toml: no store is named
      help: add [store] with url = "sqlite:/var/lib/parallax/parallax.db", or give --store

    2
    error: DIR/parallax.toml:2: url is a number, not a text
      help: write url = "..."

    2
    error: DIR/parallax.toml:2: "postgres://x" is not a store URL: it does not begin with sqlite:
      help: name a store as sqlite:PATH, for example sqlite:parallax.db

    0
    config     DIR/parallax.toml
    listen     http://127.0.0.1:7700
    connector  team, account acme: 2 steps, every 1h
      due      at once
    store      sqlite::memory:, gone when the process ends

    5
    config     DIR/parallax.toml
    listen     http://127.0.0.1:7700
    connector  team, account acme: 2 steps, every 1h
      due      at once
    error: there is no directory /nowhere
      help: create the directory, or check the path

    5
    config     DIR/parallax.toml
    listen     http://127.0.0.1:7700
    connector  team, account acme: 2 steps, every 1h
      due      at once
    error: / is a directory, not a store
      help: name a file in the directory, for example sqlite:DIRECTORY/parallax.db

    0
    config     DIR/parallax.toml
    listen     http://127.0.0.1:7700
    connector  team, account acme: 2 steps, every 1h
      due      at once
    store      sqlite::memory:, gone when the process ends
    "#);
}

#[test]
fn tokens_are_looked_at() {
    let config = "[store]\nurl = 'STORE'\n[server]\ntokens = 'TOKENS'\n\
                  [[connector]]\nkind = 'team'\nevery = '1h'\n";
    let checked = |tokens| {
        let told = told(&config.replace("TOKENS", tokens), "check");
        let lines = told.lines().skip_while(|line| !line.starts_with("store"));
        lines.collect::<Vec<_>>().join("\n")
    };
    // The configuration is readable by all, and no file of tokens.
    insta::assert_snapshot!(checked("DIR/parallax.toml"), @"
    store      sqlite:DIR/parallax.db, to be created
    error: cannot use the tokens in DIR/parallax.toml: its mode is 644, so that others may use it
      help: chmod 600 DIR/parallax.toml
    ");
    insta::assert_snapshot!(checked("/nowhere/tokens"), @"
    store      sqlite:DIR/parallax.db, to be created
    error: cannot use the tokens in /nowhere/tokens: No such file or directory (os error 2)
      help: name a file that can be used in [server] tokens
    ");
}

#[test]
fn other_machines_are_served_by_tls_or_not_at_all() {
    let config = |server: &str| {
        format!(
            "[store]\nurl = 'STORE'\n[server]\n{server}\n\
             [[connector]]\nkind = 'team'\nevery = '1h'\n"
        )
    };
    let nowhere = "tls = { certificate = '/nowhere/cert.pem', key = '/nowhere/key.pem' }";
    let mut lines = Vec::new();
    for server in [
        "listen = '0.0.0.0:7700'".to_owned(),
        format!("listen = '0.0.0.0:7700'\n{nowhere}"),
        "listen = '0.0.0.0:7700'\ntls = 'cert.pem'".to_owned(),
        "tls = { certificate = 'cert.pem', kay = 'key.pem' }".to_owned(),
        "[server.tls]\nkey = ''".to_owned(),
    ] {
        lines.push(told(&config(&server), "check"));
    }
    insta::assert_snapshot!(lines.join("\n"), @r#"
    2
    error: DIR/parallax.toml:4: 0.0.0.0:7700 can be reached from other machines, and HTTP is served without TLS
      help: listen on 127.0.0.1 or [::1], add tls = { certificate = "PATH", key = "PATH" } to [server], or allow it with --insecure-http

    2
    error: DIR/parallax.toml:5: /nowhere/cert.pem: there is no such file
      help: name a file that the user who runs this can read

    2
    error: DIR/parallax.toml:5: tls is a text, not a table
      help: write [server.tls]

    2
    error: DIR/parallax.toml:4: this [server.tls] lacks "key"
      help: add key = "PATH", to the key of the certificate
    error: DIR/parallax.toml:4: there is no "kay" in [server.tls]
      help: did you mean "key"?

    2
    error: DIR/parallax.toml:4: this [server.tls] lacks "certificate"
      help: add certificate = "PATH", to the server's certificate and those that sign it
    error: DIR/parallax.toml:5: key is empty
      help: give it a value, or leave it out
    "#);
}

#[test]
fn renamed_connector_is_the_same_but_for_its_name() {
    struct Versioned;
    impl Connector for Versioned {
        fn name(&self) -> &str {
            "versioned"
        }
        fn version(&self) -> &str {
            "7"
        }
        fn steps(&self) -> Vec<Step<'_>> {
            vec![step("a", "Collect a", async |_| Ok(()))]
        }
    }
    let named = Named {
        name: "other".to_owned(),
        connector: Box::new(Versioned),
    };
    assert_eq!(
        (named.name(), named.version(), named.steps().len()),
        ("other", "7", 1)
    );
}
