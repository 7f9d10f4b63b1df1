use parallax_core::RecordKind;
use xxhash_rust::xxh3::Xxh3;

/// What a row keeps of a record beside what the comparing index repeats: the part that a checksum
/// guards.
#[derive(Clone, Copy, Debug)]
pub(super) enum Row<'a> {
    Entity {
        id: [u8; 16],
        class: Option<i64>,
        key: &'a str,
        display_name: Option<&'a str>,
        properties: &'a str,
    },
    Relationship {
        id: [u8; 16],
        from: [u8; 16],
        to: [u8; 16],
        key: Option<&'a str>,
        properties: &'a str,
    },
}

impl Row<'_> {
    /// Returns the checksum that the row is stored with.
    pub(super) fn checksum(&self) -> i64 {
        let mut hasher = Xxh3::new();
        let mut put = |part: Option<&[u8]>| {
            // Longer than any part is: what is not there differs from what is empty.
            let length = part.map_or(u64::MAX, |part| part.len() as u64);
            hasher.update(&length.to_le_bytes());
            hasher.update(part.unwrap_or_default());
        };
        match self {
            Self::Entity {
                id,
                class,
                key,
                display_name,
                properties,
            } => {
                put(Some(id));
                put(class
                    .map(i64::to_le_bytes)
                    .as_ref()
                    .map(<[u8; 8]>::as_slice));
                put(Some(key.as_bytes()));
                put(display_name.map(str::as_bytes));
                put(Some(properties.as_bytes()));
            }
            Self::Relationship {
                id,
                from,
                to,
                key,
                properties,
            } => {
                put(Some(id));
                put(Some(from));
                put(Some(to));
                put(key.map(str::as_bytes));
                put(Some(properties.as_bytes()));
            }
        }
        hasher.digest().cast_signed()
    }
}

/// The number that stands for a kind in the store.
pub(super) const fn kind_no(kind: RecordKind) -> i64 {
    match kind {
        RecordKind::Entity => 0,
        RecordKind::Relationship => 1,
    }
}

/// An id as the engine's `lower(hex(id))`, which the index by id is over.
pub(super) fn hex(id: [u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(id))
}
