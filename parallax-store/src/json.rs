use parallax_core::{PropertiesRef, ValueRef};
use serde::ser::{Serialize, SerializeMap, Serializer};

/// Writes properties as the JSON object that users query.
pub(crate) fn text(properties: PropertiesRef<'_>) -> String {
    // Fails only for a key that is no string or a writer that fails; there is neither.
    serde_json::to_string(&Properties(properties)).unwrap_or_default()
}

struct Properties<'a>(PropertiesRef<'a>);

impl Serialize for Properties<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in self.0 {
            map.serialize_entry(name, &Value(value))?;
        }
        map.end()
    }
}

struct Value<'a>(ValueRef<'a>);

impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            ValueRef::Bool(value) => serializer.serialize_bool(value),
            ValueRef::Int(number) => serializer.serialize_i64(number),
            ValueRef::UInt(number) => serializer.serialize_u64(number),
            ValueRef::Float(number) => serializer.serialize_f64(number),
            ValueRef::String(text) => serializer.serialize_str(text),
            ValueRef::Timestamp(time) => serializer.collect_str(&time),
            ValueRef::Bytes(bytes) => {
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                serializer.serialize_str(&hex)
            }
            ValueRef::List(list) => serializer.collect_seq(list.into_iter().map(Value)),
            // `Null`, and whatever a newer core may add.
            _ => serializer.serialize_unit(),
        }
    }
}
