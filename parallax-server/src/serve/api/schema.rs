//! What the rows of the store's views look like as JSON.

use std::borrow::Cow;

use parallax_core::SyncStats;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{
    ArrayBuilder, KnownFormat, Object, ObjectBuilder, Schema, SchemaFormat, SchemaType, ToArray,
    Type,
};
use utoipa::{PartialSchema, ToSchema};

/// What a column holds.
#[derive(Clone, Copy)]
enum Column {
    Text,
    Count,
    Time,
    MaybeText,
    MaybeCount,
    MaybeTime,
}

use Column::{Count, MaybeCount, MaybeText, MaybeTime, Text, Time};

impl Column {
    fn schema(self) -> Object {
        let types = match self {
            Text | Time => vec![Type::String],
            Count => vec![Type::Integer],
            MaybeText | MaybeTime => vec![Type::String, Type::Null],
            MaybeCount => vec![Type::Integer, Type::Null],
        };
        let schema = ObjectBuilder::new().schema_type(SchemaType::from_iter(types));
        let schema = match self {
            Time | MaybeTime => {
                schema.format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            }
            Count | MaybeCount => schema.minimum(Some(0)),
            _ => schema,
        };
        schema.build()
    }
}

fn object<'a>(columns: impl IntoIterator<Item = &'a (&'a str, Column)>) -> ObjectBuilder {
    let object = ObjectBuilder::new();
    columns.into_iter().fold(object, |object, (name, column)| {
        object.property(*name, column.schema()).required(*name)
    })
}

fn with_stats(object: ObjectBuilder) -> ObjectBuilder {
    SyncStats::FIELDS.into_iter().fold(object, |object, name| {
        object.property(name, Count.schema()).required(name)
    })
}

/// Declares a type that stands for the rows of a query in the document.
macro_rules! row {
    ($(#[$doc:meta])* $name:ident, $object:expr) => {
        $(#[$doc])*
        pub(super) struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                RefOr::T(Schema::Object($object.build()))
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                stringify!($name).into()
            }
        }
    };
}

const SYNC: &[(&str, Column)] = &[
    ("connector_id", Text),
    ("account_id", Text),
    ("sync_id", Text),
    ("connector_version", Text),
    ("outcome", Text),
    ("started_at", Time),
    ("duration_ms", Count),
    ("committed_at", Time),
];

/// A step, with what only the journal tells: null where that is not known, or no longer kept.
fn step() -> ObjectBuilder {
    let ids = ArrayBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Array, Type::Null]))
        .items(Text.schema());
    object(&[
        ("step_id", Text),
        ("status", Text),
        ("entities", Count),
        ("relationships", Count),
        ("duration_ms", Count),
        ("reason", MaybeText),
        ("attempts", MaybeCount),
        ("started_after_ms", MaybeCount),
    ])
    .property("depends_on", ids)
    .required("depends_on")
}

row!(
    /// A sync with its counts: a row of `parallax_sync`.
    Sync,
    with_stats(object(SYNC))
);

row!(
    /// What a step of a sync did.
    SyncStep,
    step()
);

row!(
    /// How many records of a type a sync updated and deleted.
    SyncChanges,
    object(&[
        ("kind", Text),
        ("type", Text),
        ("updated", Count),
        ("deleted", Count),
    ])
);

row!(
    /// A changeset: a row of `parallax_changeset`.
    Changeset,
    object(CHANGESET)
);

const CHANGESET: &[(&str, Column)] = &[
    ("changeset", Count),
    ("connector_id", Text),
    ("account_id", Text),
    ("state", Text),
    ("reason", Text),
    ("entities", Count),
    ("relationships", Count),
    ("entities_at_first", Count),
    ("relationships_at_first", Count),
    ("held_by_sync_id", MaybeText),
    ("held_at", MaybeTime),
    ("closed_by_sync_id", MaybeText),
    ("closed_at", MaybeTime),
];

row!(
    /// How many records of a type a changeset holds.
    ChangesetType,
    object(&[("kind", Text), ("name", Text), ("records", Count)])
);

row!(
    /// A record that a changeset holds, or that was deleted by it.
    ChangesetRecord,
    object(&[
        ("kind", Text),
        ("name", Text),
        ("id", Text),
        ("key", MaybeText),
        ("display_name", MaybeText),
    ])
);

/// A sync with its steps, as `parallax syncs ID --json` prints it.
pub(super) struct SyncDetail;

impl PartialSchema for SyncDetail {
    fn schema() -> RefOr<Schema> {
        // One that runs is not committed, and one that waits has not begun.
        let object = with_stats(object(SYNC))
            .property("started_at", MaybeTime.schema())
            .property("committed_at", MaybeTime.schema())
            .property("steps", SyncStep::schema().to_array())
            .required("steps")
            .property("changes", SyncChanges::schema().to_array())
            .required("changes");
        RefOr::T(Schema::Object(object.build()))
    }
}
impl ToSchema for SyncDetail {}

/// A changeset with its first records, as `parallax held N --json` prints it.
pub(super) struct ChangesetDetail;

impl PartialSchema for ChangesetDetail {
    fn schema() -> RefOr<Schema> {
        let object = object(CHANGESET)
            .property("types", ChangesetType::schema().to_array())
            .required("types")
            .property("records", ChangesetRecord::schema().to_array())
            .required("records");
        RefOr::T(Schema::Object(object.build()))
    }
}
impl ToSchema for ChangesetDetail {}
