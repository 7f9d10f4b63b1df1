use parallax_connect::{
    Connector, ConnectorError, Record, Step, StepContext, entity, relationship, step,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// A connector that does as it is told.
#[derive(Clone, Debug)]
pub struct Script {
    /// The connector's name.
    pub name: &'static str,
    /// Its steps; a step depends on earlier ones only.
    pub steps: Vec<ScriptStep>,
}

/// A step that does as it is told.
#[derive(Clone, Debug)]
pub struct ScriptStep {
    /// Its id.
    pub id: &'static str,
    /// The places of the steps that it depends on.
    pub dependencies: Vec<usize>,
    /// What it emits, part by part.
    pub parts: Vec<Part>,
    /// Whether it says that there are no scopes but those it opened.
    pub all_scopes_listed: bool,
    /// Whether what it finds comes and goes.
    pub ephemeral: bool,
    /// How it ends, once everything is emitted.
    pub end: End,
}

/// What a step emits in one scope, or outside of scopes.
#[derive(Clone, Debug)]
pub struct Part {
    /// The scope.
    pub scope: Option<&'static str>,
    /// What is emitted.
    pub records: Vec<Rec>,
    /// Whether the scope is said to be complete.
    pub complete: bool,
}

/// How a step ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum End {
    Ok,
    Incomplete,
    Error,
    Panic,
}

/// A record to emit; numbers stand for keys and contents.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Rec {
    Entity {
        key: u8,
        value: u8,
    },
    Link {
        from: u8,
        to: u8,
        value: u8,
    },
    /// Rejected, and known which entity it is.
    BadEntity {
        key: u8,
    },
    /// Rejected, and known which relationship it is.
    BadLink {
        from: u8,
        to: u8,
    },
    /// Rejected, and not known which entity it is.
    Nameless,
}

impl Rec {
    fn record(self) -> Record {
        match self {
            Self::Entity { key, value } => entity("thing", key).property("value", value).into(),
            Self::Link { from, to, value } => link(from, to).property("value", value).into(),
            Self::BadEntity { key } => entity("thing", key).property("value", f64::NAN).into(),
            Self::BadLink { from, to } => link(from, to).property("value", f64::NAN).into(),
            Self::Nameless => entity("thing", "").into(),
        }
    }
}

fn link(from: u8, to: u8) -> parallax_connect::Relationship {
    relationship(("thing", from), "KNOWS", ("thing", to))
}

impl Connector for Script {
    fn name(&self) -> &str {
        self.name
    }

    fn steps(&self) -> Vec<Step<'_>> {
        let steps = self.steps.iter().map(|script| {
            let dependencies = script
                .dependencies
                .iter()
                .filter_map(|&on| self.steps.get(on));
            let step = step(script.id, script.id, move |ctx| script.run(ctx))
                .depends_on(dependencies.map(|on| on.id));
            if script.ephemeral {
                step.ephemeral()
            } else {
                step
            }
        });
        steps.collect()
    }
}

impl ScriptStep {
    async fn run(&self, ctx: StepContext) -> Result<(), ConnectorError> {
        for part in &self.parts {
            let ctx = part
                .scope
                .map_or_else(|| ctx.clone(), |scope| ctx.scope(scope));
            for record in &part.records {
                // A rejected record is counted; the step goes on.
                ctx.emit(record.record()).ok();
            }
            if part.complete {
                ctx.complete();
            }
        }
        if self.all_scopes_listed {
            ctx.all_scopes_listed();
        }
        tokio::task::yield_now().await;
        match self.end {
            End::Ok => Ok(()),
            End::Incomplete => {
                ctx.incomplete("told to");
                Ok(())
            }
            End::Error => Err(ConnectorError::fatal("told to")),
            #[expect(clippy::panic, reason = "what is tested")]
            End::Panic => panic!("told to"),
        }
    }
}

/// Makes random scripts of one connector: up to four of its steps, few keys, so that records are
/// shared, repeated and contradicted.
pub fn scripts(name: &'static str) -> impl Strategy<Value = Script> {
    let record = prop_oneof![
        8 => (0u8..6, 0u8..2).prop_map(|(key, value)| Rec::Entity { key, value }),
        4 => (0u8..6, 0u8..6, 0u8..2).prop_map(|(from, to, value)| Rec::Link { from, to, value }),
        1 => (0u8..6).prop_map(|key| Rec::BadEntity { key }),
        1 => (0u8..6, 0u8..6).prop_map(|(from, to)| Rec::BadLink { from, to }),
    ];
    // Rare: one makes its whole part incomplete.
    let records = (vec(record, 0..6), prop::bool::weighted(0.05)).prop_map(|(mut records, bad)| {
        if bad {
            records.push(Rec::Nameless);
        }
        records
    });
    let part = (
        prop_oneof![3 => Just(None), 1 => Just(Some("eu")), 1 => Just(Some("us"))],
        records,
        prop::bool::weighted(0.8),
    )
        .prop_map(|(scope, records, complete)| Part {
            scope,
            records,
            complete,
        });
    let end = prop_oneof![
        8 => Just(End::Ok),
        1 => Just(End::Incomplete),
        1 => Just(End::Error),
        1 => Just(End::Panic),
    ];
    let step = (
        prop::bool::weighted(0.93),
        vec(part, 0..3),
        any::<bool>(),
        prop::bool::weighted(0.15),
        end,
        vec(any::<bool>(), 3),
    );
    vec(step, 4).prop_map(move |steps| {
        let mut script = Script {
            name,
            steps: Vec::new(),
        };
        let declared = ["a", "b", "c", "d"].into_iter().zip(steps);
        for (id, (is_declared, parts, all_scopes_listed, ephemeral, end, depends)) in declared {
            if is_declared {
                let earlier = (0..script.steps.len()).zip(depends);
                let dependencies = earlier
                    .filter(|(place, on)| *on && place % 2 == 0)
                    .map(|(place, _)| place);
                let dependencies = dependencies.collect();
                script.steps.push(ScriptStep {
                    id,
                    dependencies,
                    parts,
                    all_scopes_listed,
                    ephemeral,
                    end,
                });
            }
        }
        if script.steps.is_empty() {
            script.steps.push(ScriptStep {
                id: "a",
                dependencies: Vec::new(),
                parts: Vec::new(),
                all_scopes_listed: false,
                ephemeral: false,
                end: End::Ok,
            });
        }
        script
    })
}

/// Keeps the panics of scripts from being printed: they are part of the tests.
pub fn silence_scripted_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.payload().downcast_ref::<&str>() != Some(&"told to") {
                default(info);
            }
        }));
    });
}
