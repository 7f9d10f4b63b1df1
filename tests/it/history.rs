//! What happened to a record can be told from the store.

use parallax_connect::{
    Connector, ConnectorError, Step, StepContext, entity, relationship, run_connector, step,
};
use parallax_store::{EventKind, History, RecordName, Store, Subject};

use crate::support::{lines, memory};

/// Emits one user and its group, with what it is told about them.
struct Team(Option<User>);

struct User {
    class: Option<&'static str>,
    name: Option<&'static str>,
    properties: &'static [(&'static str, f64)],
    role: &'static str,
}

impl Connector for Team {
    fn name(&self) -> &str {
        "team"
    }

    fn steps(&self) -> Vec<Step<'_>> {
        vec![step("users", "Users", |ctx| self.users(ctx))]
    }
}

impl Team {
    async fn users(&self, ctx: StepContext) -> Result<(), ConnectorError> {
        ctx.emit(entity("team_group", "staff"))?;
        if let Some(told) = &self.0 {
            let mut user = entity("team_user", "a:n/n");
            if let Some(class) = told.class {
                user = user.class(class);
            }
            if let Some(name) = told.name {
                user = user.display_name(name);
            }
            for (name, value) in told.properties {
                user = user.property(*name, *value);
            }
            let member = relationship(&user, "MEMBER_OF", ("team_group", "staff"));
            ctx.emit(member.property("role", told.role))?;
            ctx.emit(user)?;
        }
        Ok(())
    }
}

async fn sync(store: &Store, account: &str, sync_id: &str, user: Option<User>) {
    let team = Team(user);
    let output = run_connector(&team, account, sync_id, None).await.unwrap();
    store.commit_sync(&output).await.unwrap();
}

const ANN: User = User {
    class: None,
    name: Some("Ann"),
    properties: &[("age", 41.0), ("big", 1e300), ("ratio", 0.1)],
    role: "lead",
};

async fn history(store: &Store, subject: &str, limit: u32) -> Vec<History> {
    let subject: Subject = subject.parse().unwrap();
    store.history(&subject, limit).await.unwrap()
}

fn words(history: &History) -> String {
    let events = history.events.iter().map(|event| {
        let sync = event.sync.as_ref().map_or("?", |sync| &sync.sync_id);
        let what = match &event.kind {
            EventKind::Created => "created".to_owned(),
            EventKind::Updated(changes) => {
                let changes = changes.iter().map(|change| {
                    let text = |value: &Option<String>| value.clone().unwrap_or("-".to_owned());
                    let (before, after) = (text(&change.before), text(&change.after));
                    format!("\n    {}: {before} > {after}", change.name)
                });
                format!("updated{}", changes.collect::<String>())
            }
            EventKind::Deleted(deletion) => {
                let claims = deletion.claims.iter().map(|claim| claim.step_id.as_str());
                format!("deleted by {}", claims.collect::<Vec<_>>().join(" "))
            }
        };
        format!(
            "  {} {} {sync}: {what}",
            event.connector_id, event.account_id
        )
    });
    let name = match &history.record {
        RecordName::Entity(name) => format!("{}:{}", name.entity_type, name.key),
        RecordName::Relationship { verb, .. } => verb.clone(),
    };
    format!("{name}\n{}", events.collect::<Vec<_>>().join("\n"))
}

#[tokio::test]
async fn each_event_of_each_life_is_told() {
    let store = memory().await;
    sync(&store, "1", "s-1", Some(ANN)).await;
    sync(&store, "1", "s-2", Some(ANN)).await;
    let changed = User {
        class: Some("User"),
        name: None,
        properties: &[
            ("ratio", 0.30000000000000004),
            ("big", 1e300),
            ("new", -0.0),
        ],
        role: "lead",
    };
    sync(&store, "1", "s-3", Some(changed)).await;
    sync(&store, "1", "s-4", None).await;
    sync(
        &store,
        "1",
        "s-5",
        Some(User {
            role: "guest",
            ..ANN
        }),
    )
    .await;
    sync(
        &store,
        "1",
        "s-6",
        Some(User {
            role: "boss",
            ..ANN
        }),
    )
    .await;

    let [user] = &history(&store, "team_user:a:n/n", 20).await[..] else {
        panic!("there is one")
    };
    insta::assert_snapshot!(words(user), @r#"
    team_user:a:n/n
      team 1 s-5: created
      team 1 s-4: deleted by users
      team 1 s-3: updated
        age: 41.0 > -
        class: - > "User"
        display_name: "Ann" > -
        new: - > 0.0
        ratio: 0.1 > 0.30000000000000004
      team 1 s-1: created
    "#);
    let id = &lines(&store, "SELECT id FROM parallax_relationship").await[0];
    let [member] = &history(&store, id, 20).await[..] else {
        panic!("there is one")
    };
    insta::assert_snapshot!(words(member), @r#"
    MEMBER_OF
      team 1 s-6: updated
        role: "guest" > "boss"
      team 1 s-5: created
      team 1 s-4: deleted by users
      team 1 s-1: created
    "#);
    for limit in 0..5 {
        let shorter = &history(&store, "team_user:a:n/n", limit).await[0];
        assert_eq!(shorter.events, user.events[..limit as usize]);
    }
    assert_eq!(history(&store, "team_user:ann", 20).await, []);
}

#[tokio::test]
async fn accounts_have_their_own_records_of_one_name() {
    let store = memory().await;
    sync(&store, "1", "s-1", Some(ANN)).await;
    sync(&store, "2", "s-2", Some(ANN)).await;
    sync(&store, "2", "s-3", None).await;
    let histories = history(&store, "team_user:a:n/n", 20).await;
    let mut texts: Vec<_> = histories.iter().map(words).collect();
    texts.sort();
    insta::assert_snapshot!(texts.join("\n"), @"
    team_user:a:n/n
      team 1 s-1: created
    team_user:a:n/n
      team 2 s-3: deleted by users
      team 2 s-2: created
    ");
}
