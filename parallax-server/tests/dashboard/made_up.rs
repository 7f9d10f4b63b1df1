//! Sources for the pictures: a small company, read slowly enough to be watched.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parallax_connect::{
    Connector, ConnectorError, Retries, Step, StepContext, entity, relationship, step,
};
use parallax_server::{App, Opened};

/// What the fleet is scripted to do in a step.
#[derive(Clone, Copy)]
enum Fate {
    Works,
    /// The first attempt of each run is told to pause.
    RateLimited,
    Fails(&'static str),
    /// Finds so few from the second run on.
    Shrinks(u32),
    Incomplete(&'static str),
}

use Fate::{Fails, Incomplete, RateLimited, Shrinks, Works};

struct MadeStep {
    id: &'static str,
    title: &'static str,
    after: &'static [&'static str],
    /// A type, its class, and how many of it.
    finds: (&'static str, &'static str, u32),
    /// A verb, and the type and number of those that it leads to.
    links: Option<(&'static str, &'static str, u32)>,
    millis: u64,
    fate: Fate,
}

struct MadeUp {
    name: &'static str,
    steps: &'static [MadeStep],
    /// Attempts of its step that does not do the same each time.
    attempts: AtomicU32,
    runs: AtomicU32,
}

pub(super) fn register(mut app: App) -> App {
    for (name, steps) in FLEET {
        app = app.register(*name, "Made up", || {
            Ok(Opened::new(MadeUp {
                name,
                steps,
                attempts: AtomicU32::new(0),
                runs: AtomicU32::new(0),
            }))
        });
    }
    app
}

impl Connector for MadeUp {
    fn name(&self) -> &str {
        self.name
    }

    fn version(&self) -> &str {
        "2.4.1"
    }

    fn steps(&self) -> Vec<Step<'_>> {
        let steps = self.steps.iter().map(|made| {
            step(made.id, made.title, move |ctx| self.find(made, ctx))
                .depends_on(made.after.iter().copied())
                .retries(Retries::up_to(3).first_pause(Duration::from_millis(700)))
        });
        steps.collect()
    }
}

impl MadeUp {
    async fn find(&self, made: &MadeStep, ctx: StepContext) -> Result<(), ConnectorError> {
        let (entity_type, class, mut count) = made.finds;
        let is_first = self.steps.first().is_some_and(|first| first.id == made.id);
        let run = self.runs.fetch_add(u32::from(is_first), Ordering::Relaxed);
        match made.fate {
            Fails(why) => {
                tokio::time::sleep(Duration::from_millis(made.millis)).await;
                return Err(ConnectorError::unauthorized(why));
            }
            RateLimited
                if self
                    .attempts
                    .fetch_add(1, Ordering::Relaxed)
                    .is_multiple_of(2) =>
            {
                tokio::time::sleep(Duration::from_millis(made.millis / 2)).await;
                return Err(ConnectorError::RateLimited {
                    service: self.name.to_owned(),
                    retry_after: Duration::from_millis(1_500),
                });
            }
            Shrinks(left) if self.attempts.fetch_add(1, Ordering::Relaxed) > 0 => count = left,
            Incomplete(why) => ctx.incomplete(why),
            Works => count -= run * 5 % 7 * count / 60,
            _ => {}
        }
        for n in 0..count {
            if n % 10 == 0 {
                tokio::time::sleep(Duration::from_millis(made.millis * 10 / u64::from(count)))
                    .await;
            }
            let name = name(entity_type, n);
            let found = entity(entity_type, &name)
                .class(class)
                .display_name(&name)
                .property("number", u64::from(n))
                .property("region", if n % 3 == 0 { "eu-central" } else { "eu-west" })
                .property("enabled", !(n + run).is_multiple_of(17));
            ctx.emit(found)?;
            if let Some((verb, other, others)) = made.links {
                let to = self::name(other, n * 7 % others);
                ctx.emit(relationship((entity_type, name), verb, (other, to)))?;
            }
        }
        Ok(())
    }
}

const FIRST: [&str; 12] = [
    "ada", "ben", "cleo", "dara", "emil", "finn", "gita", "hugo", "ines", "juno", "kai", "lena",
];
const LAST: [&str; 11] = [
    "adler", "brandt", "castro", "dietz", "eriksen", "fontaine", "grau", "hale", "ito", "jansen",
    "kovac",
];

/// Returns the `n`th name of a type: of people what people are called.
fn name(entity_type: &str, n: u32) -> String {
    let pick = |names: &[&str], n: u32| {
        names
            .get(n as usize % names.len())
            .map(|name| (*name).to_owned())
    };
    let (first, last) = (pick(&FIRST, n), pick(&LAST, n));
    let short = entity_type.rsplit('_').next().unwrap_or_default();
    match (short, first, last) {
        ("user" | "member", Some(first), Some(last)) => {
            format!("{first}.{last}{}", n / 132)
        }
        _ => format!("{short}-{n:03}"),
    }
}

const fn made(
    id: &'static str,
    title: &'static str,
    after: &'static [&'static str],
    finds: (&'static str, &'static str, u32),
    links: Option<(&'static str, &'static str, u32)>,
    millis: u64,
    fate: Fate,
) -> MadeStep {
    MadeStep {
        id,
        title,
        after,
        finds,
        links,
        millis,
        fate,
    }
}

const FLEET: &[(&str, &[MadeStep])] = &[
    (
        "okta",
        &[
            made(
                "groups",
                "Collect groups",
                &[],
                ("okta_group", "Group", 36),
                None,
                900,
                Works,
            ),
            made(
                "users",
                "Collect users",
                &["groups"],
                ("okta_user", "User", 480),
                Some(("MEMBER_OF", "okta_group", 36)),
                5_200,
                Works,
            ),
            made(
                "apps",
                "Collect applications",
                &[],
                ("okta_app", "Application", 64),
                Some(("ASSIGNED_TO", "okta_group", 36)),
                2_600,
                RateLimited,
            ),
            made(
                "factors",
                "Collect second factors",
                &["users"],
                ("okta_factor", "Key", 310),
                Some(("OF", "okta_user", 480)),
                3_800,
                Works,
            ),
            made(
                "grants",
                "Collect grants",
                &["users", "apps"],
                ("okta_grant", "Access", 220),
                Some(("ALLOWS", "okta_app", 64)),
                3_000,
                Works,
            ),
            made(
                "policies",
                "Collect policies",
                &["apps"],
                ("okta_policy", "Policy", 18),
                Some(("RULES", "okta_app", 64)),
                1_400,
                Works,
            ),
        ],
    ),
    (
        "github",
        &[
            made(
                "members",
                "Collect members",
                &[],
                ("github_member", "User", 132),
                None,
                1_300,
                Works,
            ),
            made(
                "teams",
                "Collect teams",
                &["members"],
                ("github_team", "Group", 22),
                Some(("HAS", "github_member", 132)),
                900,
                Works,
            ),
            made(
                "repos",
                "Collect repositories",
                &[],
                ("github_repo", "Repository", 260),
                None,
                2_400,
                Works,
            ),
            made(
                "rules",
                "Collect branch rules",
                &["repos"],
                ("github_rule", "Policy", 90),
                Some(("PROTECTS", "github_repo", 260)),
                1_100,
                Works,
            ),
            made(
                "secrets",
                "Collect secrets",
                &["repos"],
                ("github_secret", "Secret", 1),
                None,
                700,
                Fails("list secrets: 403 Resource not accessible by integration"),
            ),
            made(
                "usage",
                "Find who uses secrets",
                &["secrets"],
                ("github_usage", "Access", 1),
                None,
                100,
                Works,
            ),
        ],
    ),
    (
        "aws",
        &[
            made(
                "vpcs",
                "Describe networks",
                &[],
                ("aws_vpc", "Network", 9),
                None,
                500,
                Works,
            ),
            made(
                "instances",
                "Describe instances",
                &["vpcs"],
                ("aws_instance", "Host", 340),
                Some(("IN", "aws_vpc", 9)),
                1_900,
                Shrinks(96),
            ),
            made(
                "buckets",
                "List buckets",
                &[],
                ("aws_bucket", "DataStore", 58),
                None,
                1_200,
                Incomplete("2 of 60 buckets: access denied"),
            ),
            made(
                "roles",
                "List roles",
                &[],
                ("aws_role", "AccessRole", 74),
                None,
                1_000,
                Works,
            ),
        ],
    ),
    (
        "payroll",
        &[made(
            "employees",
            "List employees",
            &[],
            ("payroll_employee", "Person", 1),
            None,
            400,
            Fails("login: 401 the password has expired"),
        )],
    ),
];
