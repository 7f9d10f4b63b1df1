use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::{
    Entity, MAX_ENTITY_BYTES, MAX_VALUE_BYTES, Relationship, Timestamp, Value, entity, relationship,
};

const ACCOUNT: &str = "acme";

fn builder() -> BatchBuilder {
    BatchBuilder::new(ACCOUNT.into())
}

/// Emits one record and hands it to `read` as the batch shows it.
fn emitted<T>(
    record: impl Into<Record>,
    read: impl FnOnce(EmissionRef<'_>) -> T,
) -> Result<T, Rejection> {
    let mut record = record.into();
    let kind = match &record {
        Record::Entity(_) => RecordKind::Entity,
        Record::Relationship(_) => RecordKind::Relationship,
    };
    let mut builder = builder();
    builder
        .push(&mut record, None)
        .map_err(|(rejection, _)| rejection)?;
    let batch = builder.take().unwrap();
    Ok(read(batch.emission(kind, 0).unwrap()))
}

fn bytes(record: impl Into<Record>) -> Vec<u8> {
    emitted(record, |emission| emission.content.unwrap().to_vec()).unwrap()
}

fn rejection(record: impl Into<Record>) -> String {
    match emitted(record, |_| ()) {
        Ok(()) => "accepted".to_owned(),
        Err(rejection) => rejection.to_string(),
    }
}

// What a record says, in one form whichever way it is said.
type Properties = BTreeMap<String, Value>;
type Said = (EntityKey, Option<String>, Option<String>, Properties);

#[derive(Clone, Debug)]
struct Parts {
    key: EntityKey,
    class: Option<String>,
    display_name: Option<String>,
    properties: Vec<(String, Value)>,
}

impl Parts {
    fn build(&self) -> Entity {
        let mut entity = entity(self.key.entity_type.clone(), &self.key.key);
        match &self.key.namespace {
            Namespace::Account => {}
            Namespace::InAccount(account) => entity = entity.in_account(account),
            Namespace::Global => entity = entity.global(),
        }
        if let Some(class) = &self.class {
            entity = entity.class(class.clone());
        }
        if let Some(name) = &self.display_name {
            entity = entity.display_name(name);
        }
        for (name, value) in &self.properties {
            entity = entity.property(name.clone(), value.clone());
        }
        entity
    }

    fn said(&self) -> Said {
        let mut key = self.key.clone();
        if key.namespace == Namespace::InAccount(ACCOUNT.to_owned()) {
            key.namespace = Namespace::Account;
        }
        let properties = self.properties.iter().cloned();
        let properties = properties.map(|(name, value)| (name, in_one_form(value)));
        let (class, display_name) = (self.class.clone(), self.display_name.clone());
        (key, class, display_name, properties.collect())
    }
}

fn in_one_form(value: Value) -> Value {
    match value {
        Value::UInt(number) => number.into(),
        Value::List(values) => values.into_iter().map(in_one_form).collect(),
        other => other,
    }
}

fn shown(entity: EntityRef<'_>) -> Said {
    let owned = |text: &str| text.to_owned();
    (
        entity.into(),
        entity.class().map(owned),
        entity.display_name().map(owned),
        properties(entity.properties()),
    )
}

fn properties(properties: PropertiesRef<'_>) -> Properties {
    properties
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect()
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        select(vec![0, 1, -1, i64::MIN, i64::MAX]).prop_map(Value::Int),
        select(vec![0, 1, i64::MAX as u64, 1 << 63, u64::MAX]).prop_map(Value::UInt),
        select(vec![0.0, -0.0, 1.0, f64::MIN_POSITIVE, f64::MAX]).prop_map(Value::Float),
        select(vec!["", "a", "b", "0", "\0\n\u{202e}"]).prop_map(Value::from),
        ".{0,200}".prop_map(Value::from),
        select(vec![0, 1, -1, 253_402_207_200_000_000])
            .prop_map(|micros| Value::Timestamp(Timestamp::from_micros(micros).unwrap())),
        prop::collection::vec(0..=1_u8, 0..3).prop_map(Value::Bytes),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let list = prop::collection::vec(scalar(), 0..3).prop_map(Value::List);
    prop_oneof![4 => scalar(), 1 => list]
}

fn key() -> impl Strategy<Value = EntityKey> {
    let namespaces = [Namespace::Account, Namespace::Global]
        .into_iter()
        .chain([ACCOUNT, "other"].map(|account| Namespace::InAccount(account.to_owned())));
    (
        select(namespaces.collect::<Vec<_>>()),
        select(vec!["host", "host_2"]),
        prop_oneof!["[ab]", "[^\\pC]{1,300}"],
    )
        .prop_map(|(namespace, entity_type, key)| EntityKey {
            namespace,
            entity_type: entity_type.into(),
            key,
        })
}

fn named_values() -> impl Strategy<Value = Vec<(String, Value)>> {
    prop::collection::vec(("[abc]|é ü", value()), 0..5)
}

fn parts() -> impl Strategy<Value = Parts> {
    (
        key(),
        prop::option::of(select(vec!["Host", "User"]).prop_map(str::to_owned)),
        prop::option::of("[ab]?|.{0,200}"),
        named_values(),
    )
        .prop_map(|(key, class, display_name, properties)| Parts {
            key,
            class,
            display_name,
            properties,
        })
}

/// The same record, said in another order. The last value of a name stays the last.
fn reordered(parts: &Parts) -> Parts {
    let mut other = parts.clone();
    other.properties.sort_by(|(a, _), (b, _)| b.cmp(a));
    other
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn an_entity_shows_what_was_built(parts in parts()) {
        emitted(parts.build(), |emission| {
            let entity = emission.entity().unwrap();
            prop_assert_eq!(shown(entity), parts.said());
            prop_assert_eq!(entity.id(), parts.key.id(ACCOUNT));
            for (name, value) in parts.said().3 {
                prop_assert_eq!(entity.property(&name).map(Value::from), Some(value));
            }
            prop_assert!(entity.property("none").is_none());
            prop_assert!(entity.properties().map(|(name, _)| name).is_sorted());
            prop_assert!(emission.relationship().is_none());
            Ok(())
        })
        .unwrap()?;
    }

    #[test]
    fn a_relationship_shows_what_was_built(
        ends in (key(), key()),
        verb in select(vec!["HAS", "RUNS_ON"]),
        name in prop::option::of("[ab]{1,2}"),
        values in named_values(),
    ) {
        let build = || {
            let mut built = relationship(&ends.0, verb, &ends.1);
            if let Some(name) = &name {
                built = built.key(name);
            }
            for (name, value) in &values {
                built = built.property(name.clone(), value.clone());
            }
            built
        };
        emitted(build(), |emission| {
            let shown = emission.relationship().unwrap();
            let (_, _, id) = build().ids(ACCOUNT, &mut Vec::new());
            prop_assert_eq!((shown.id(), shown.verb()), (id, verb));
            prop_assert_eq!(shown.key(), name.as_deref());
            for (end, key) in [(shown.from(), &ends.0), (shown.to(), &ends.1)] {
                prop_assert_eq!(end.id, key.id(ACCOUNT));
                prop_assert_eq!((end.entity_type, end.key), (key.entity_type(), key.key()));
            }
            let said = values.iter().cloned().map(|(name, value)| (name, in_one_form(value)));
            prop_assert_eq!(properties(shown.properties()), said.collect());
            prop_assert!(emission.entity().is_none());
            Ok(())
        })
        .unwrap()?;
    }

    #[test]
    fn bytes_are_equal_where_records_are(a in parts(), b in parts()) {
        prop_assert_eq!(bytes(a.build()), bytes(reordered(&a).build()));
        prop_assert_eq!(bytes(a.build()) == bytes(b.build()), a.said() == b.said());
        // Two that differ in one thing at most are hardly found by chance.
        for near in [
            Parts { key: b.key.clone(), ..a.clone() },
            Parts { class: b.class.clone(), ..a.clone() },
            Parts { display_name: b.display_name.clone(), ..a.clone() },
            Parts { properties: b.properties.clone(), ..a.clone() },
        ] {
            prop_assert_eq!(bytes(a.build()) == bytes(near.build()), a.said() == near.said());
        }
    }

    #[test]
    fn anything_is_accepted_or_rejected_in_one_short_line(texts in prop::array::uniform6(text())) {
        let [entity_type, key, class, account, name, value] = texts;
        let hostile = entity(entity_type.clone(), &key)
            .class(class)
            .display_name(&value)
            .in_account(account)
            .property(name, value);
        let related = relationship(&hostile, entity_type, ("host", "a")).key(key);
        for record in [Record::from(hostile), related.into()] {
            let message = record.describe() + &rejection(record);
            prop_assert!(message.len() < 2_000, "{} bytes", message.len());
            prop_assert_eq!(crate::escape(&message), message.as_str());
        }
    }
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{0,3}|[A-Z]{0,3}|.{0,80}",
        any::<String>(),
        select(vec!["\0", "a\nb", "\u{1b}[31m", "\u{202e}gpj", "\u{2028}"]).prop_map(str::to_owned),
        select(vec![64, 65, 1_024, 1_025, 2_048]).prop_map(|length| "x".repeat(length)),
    ]
}

#[test]
fn every_rule_has_a_message() {
    fn host() -> Entity {
        entity("host", "web-1")
    }
    fn runs() -> Relationship {
        relationship(("host", "web-1"), "RUNS", ("service", "nginx"))
    }
    let megabytes = "x".repeat(10 << 20);
    let part = &megabytes[..MAX_VALUE_BYTES];
    let nearly = &part[..MAX_VALUE_BYTES - 1];
    let records: Vec<(&str, Record)> = vec![
        ("type", entity("Host", "a").into()),
        ("type, empty", entity("", "a").into()),
        ("type, newline", entity("ho\nst", "a").into()),
        ("type, bidi", entity("ho\u{202e}st", "a").into()),
        ("type, 65 bytes", entity("x".repeat(65), "a").into()),
        ("type, 10 MB", entity(megabytes.clone(), "a").into()),
        ("class", host().class("web host").into()),
        ("class, empty", host().class("").into()),
        ("account, empty", host().in_account("").into()),
        ("account, NUL", host().in_account("a\0").into()),
        ("key, empty", entity("host", "").into()),
        ("key, NUL", entity("host", "a\0b").into()),
        ("key, newline", entity("host", "a\nb").into()),
        ("key, ESC", entity("host", "\u{1b}[31m").into()),
        ("key, C1", entity("host", "\u{9b}31m").into()),
        ("key, bidi", entity("host", "\u{202e}gpj.exe").into()),
        ("key, 1 KiB", entity("host", &megabytes[..1024]).into()),
        ("key, 1 KiB + 1", entity("host", &megabytes[..1025]).into()),
        ("key, 10 MB", entity("host", &megabytes).into()),
        ("name, newline", host().display_name("a\nb").into()),
        ("name, 10 MB", host().display_name(&megabytes).into()),
        ("property name, empty", host().property("", 1).into()),
        ("property name, newline", host().property("a\nb", 1).into()),
        (
            "property name, 65 bytes",
            host().property("x".repeat(65), 1).into(),
        ),
        ("property name, bidi", host().property("\u{202e}", 1).into()),
        ("NaN", host().property("load", f64::NAN).into()),
        (
            "infinite",
            host().property("\u{202e}", f64::NEG_INFINITY).into(),
        ),
        (
            "NaN in a list",
            host().property("load", [0.0, f64::NAN]).into(),
        ),
        (
            "list in a list",
            host().property("tags", [vec!["a"]]).into(),
        ),
        ("value, 1 MiB", host().property("text", part).into()),
        ("value, 10 MB", host().property("text", &megabytes).into()),
        (
            "list, 2 MiB",
            host().property("texts", [nearly, nearly]).into(),
        ),
        (
            "record, 5 MiB",
            ["a", "b", "c", "d", "e"]
                .into_iter()
                .fold(host(), |host, name| host.property(name, part))
                .into(),
        ),
        (
            "one value, set often",
            (0..9)
                .fold(host(), |host, _| host.property("a", part))
                .into(),
        ),
        ("verb", relationship(&host(), "runs", &host()).into()),
        (
            "verb, newline",
            relationship(&host(), "A\nB", &host()).into(),
        ),
        ("relationship key, empty", runs().key("").into()),
        ("relationship key, NUL", runs().key("\0").into()),
        (
            "an end's key, empty",
            relationship(("host", ""), "RUNS", &host()).into(),
        ),
        (
            "an end's type",
            relationship(&host(), "RUNS", ("", "a")).into(),
        ),
    ];
    let lines: Vec<_> = records
        .into_iter()
        .map(|(what, record)| format!("{what}: {}", rejection(record)))
        .collect();
    let lines = lines.join("\n").replace(&megabytes[..64], "x…64…x");
    insta::assert_snapshot!(lines, @r#"
    type: type "Host" is not snake_case of at most 64 bytes
    type, empty: type "" is not snake_case of at most 64 bytes
    type, newline: type "ho\nst" is not snake_case of at most 64 bytes
    type, bidi: type "ho\u{202e}st" is not snake_case of at most 64 bytes
    type, 65 bytes: type "x…64…x…" is not snake_case of at most 64 bytes
    type, 10 MB: type "x…64…x…" is not snake_case of at most 64 bytes
    class: class "web host" is not PascalCase of at most 64 bytes
    class, empty: class "" is not PascalCase of at most 64 bytes
    account, empty: account "" is not 1 to 256 bytes without control characters
    account, NUL: account "a\u{0}" is not 1 to 256 bytes without control characters
    key, empty: a key is empty
    key, NUL: key "a\u{0}b" holds a control character
    key, newline: key "a\nb" holds a control character
    key, ESC: key "\u{1b}[31m" holds a control character
    key, C1: key "\u{9b}31m" holds a control character
    key, bidi: accepted
    key, 1 KiB: accepted
    key, 1 KiB + 1: a key has 1025 bytes, more than 1024
    key, 10 MB: a key has 10485760 bytes, more than 1024
    name, newline: accepted
    name, 10 MB: the display name has 10485760 bytes, more than 1024
    property name, empty: property name "" is not 1 to 64 bytes without control characters
    property name, newline: property name "a\nb" is not 1 to 64 bytes without control characters
    property name, 65 bytes: property name "x…64…x…" is not 1 to 64 bytes without control characters
    property name, bidi: accepted
    NaN: property load is not a finite number
    infinite: property \u{202e} is not a finite number
    NaN in a list: property load is not a finite number
    list in a list: property tags is a list that holds a list
    value, 1 MiB: accepted
    value, 10 MB: property text has 10485760 bytes, more than 1048576
    list, 2 MiB: property texts has 2097150 bytes, more than 1048576
    record, 5 MiB: the record has 5242885 bytes, more than 4194304
    one value, set often: accepted
    verb: verb "runs" is not SCREAMING_SNAKE of at most 64 bytes
    verb, newline: verb "A\nB" is not SCREAMING_SNAKE of at most 64 bytes
    relationship key, empty: a key is empty
    relationship key, NUL: key "\u{0}" holds a control character
    an end's key, empty: a key is empty
    an end's type: type "" is not snake_case of at most 64 bytes
    "#);
}

#[test]
fn a_rejected_record_is_noted_if_its_id_is_known() {
    let mut builder = builder();
    let mut push = |record: Record, scope| {
        let mut record = record;
        builder
            .push(&mut record, scope)
            .map_err(|(_, id_known)| id_known)
    };
    assert_eq!(
        push(
            entity("host", "a").property("load", f64::NAN).into(),
            Some(3)
        ),
        Err(true)
    );
    assert_eq!(push(entity("host", "").into(), Some(3)), Err(false));
    assert_eq!(push(entity("host", "b").into(), None), Ok(()));
    assert_eq!(
        push(
            relationship(("host", ""), "RUNS", ("host", "a")).into(),
            None
        ),
        Err(false)
    );
    let batch = builder.take().unwrap();

    let emissions: Vec<_> = batch
        .emissions(RecordKind::Entity)
        .map(|emission| {
            (
                EntityId::from_bytes(emission.id),
                emission.scope,
                emission.content,
            )
        })
        .map(|(id, scope, content)| (id, scope, content.is_some()))
        .collect();
    let [a, b] = ["a", "b"].map(|key| EntityKey::new("host", key).id(ACCOUNT));
    assert_eq!(emissions, [(a, Some(3), false), (b, None, true)]);
    assert_eq!(
        batch.entities().map(|host| host.key()).collect::<Vec<_>>(),
        ["b"]
    );
    assert_eq!(batch.emissions(RecordKind::Relationship).len(), 0);
    assert!(batch.emission(RecordKind::Entity, 2).is_none());
    assert!(builder.take().is_none());
}

#[test]
fn batches_are_sealed_when_they_are_full() {
    let mut builder = builder();
    let mut batches = Vec::new();
    for n in 0..10_000 {
        let mut record = entity("host", n)
            .property("text", "x".repeat(n % 100))
            .into();
        builder.push(&mut record, None).unwrap();
        batches.extend(builder.take_full());
    }
    assert!(
        batches
            .iter()
            .all(|batch| (256 << 10..257 << 10).contains(&batch.size()))
    );
    batches.extend(builder.take());
    let keys = batches
        .iter()
        .flat_map(|batch| batch.entities().map(|host| host.key()));
    assert!(keys.eq((0..10_000).map(|n| n.to_string())));
}

#[test]
fn the_largest_record_fits() {
    let part = "x".repeat(MAX_VALUE_BYTES);
    let mut large = entity("host", "a");
    for name in ["a", "b", "c"] {
        large = large.property(name, part.as_str());
    }
    large = large.property("d", &part[..MAX_VALUE_BYTES - 4]);
    assert_eq!(rejection(large.clone()), "accepted");
    assert_eq!(
        rejection(large.property("e", "")),
        format!(
            "the record has {} bytes, more than {MAX_ENTITY_BYTES}",
            MAX_ENTITY_BYTES + 1
        )
    );
}
