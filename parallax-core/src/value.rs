use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use crate::encode::Reader;

/// A property's value.
///
/// There are no nested objects: flatten them into several properties, or keep them as JSON text.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// Known to have no value.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A whole number above [`i64::MAX`]. Smaller ones equal [`Value::Int`] once emitted.
    UInt(u64),
    /// A number; only finite ones can be emitted.
    Float(f64),
    /// A text.
    String(String),
    /// A point in time.
    Timestamp(Timestamp),
    /// Raw bytes; hexadecimal where they are shown as JSON.
    Bytes(Vec<u8>),
    /// A list of scalars; a list inside a list is rejected.
    List(Vec<Value>),
}

impl Value {
    /// Returns what counts towards the size limits: bytes of text, eight for a number or a time.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Null | Self::Bool(_) => 1,
            Self::Int(_) | Self::UInt(_) | Self::Float(_) | Self::Timestamp(_) => 8,
            Self::String(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            // At least one each: no list is free.
            Self::List(values) => values.iter().map(|value| value.size().max(1)).sum(),
        }
    }
}

/// A point in time, UTC, to the microsecond.
///
/// Displayed and parsed as RFC 3339: `2026-11-22T11:15:42Z`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(jiff::Timestamp);

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const UNIX_EPOCH: Self = Self(jiff::Timestamp::UNIX_EPOCH);

    /// Makes a timestamp of microseconds since 1970-01-01T00:00:00Z, or `None` outside the years
    /// -9999 to 9999.
    pub fn from_micros(micros: i64) -> Option<Self> {
        jiff::Timestamp::from_microsecond(micros).ok().map(Self)
    }

    /// Returns the microseconds since 1970-01-01T00:00:00Z.
    pub fn as_micros(self) -> i64 {
        self.0.as_microsecond()
    }
}

impl TryFrom<SystemTime> for Timestamp {
    type Error = TimestampError;

    fn try_from(time: SystemTime) -> Result<Self, TimestampError> {
        let time = jiff::Timestamp::try_from(time).map_err(|_| TimestampError)?;
        Self::from_micros(time.as_microsecond()).ok_or(TimestampError)
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        let time: jiff::Timestamp = text.parse().map_err(|_| TimestampError)?;
        Self::from_micros(time.as_microsecond()).ok_or(TimestampError)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Not a point in time between the years -9999 and 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 time between the years -9999 and 9999")]
pub struct TimestampError;

macro_rules! value_from {
    ($($type:ty => $variant:ident),* $(,)?) => {
        $(impl From<$type> for Value {
            fn from(value: $type) -> Self {
                Self::$variant(value.into())
            }
        })*
    };
}

value_from! {
    bool => Bool,
    i8 => Int, i16 => Int, i32 => Int, i64 => Int, u8 => Int, u16 => Int, u32 => Int,
    f32 => Float, f64 => Float,
    &str => String, String => String, &String => String, Cow<'_, str> => String,
    Timestamp => Timestamp,
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        match i64::try_from(value) {
            Ok(value) => Self::Int(value),
            Err(_) => Self::UInt(value),
        }
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        Self::from(value as u64)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl<T: Into<Value>> FromIterator<T> for Value {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        Self::List(values.into_iter().map(Into::into).collect())
    }
}

impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(values: Vec<T>) -> Self {
        values.into_iter().collect()
    }
}

impl<T: Into<Value>, const N: usize> From<[T; N]> for Value {
    fn from(values: [T; N]) -> Self {
        values.into_iter().collect()
    }
}

/// A property's value, read from an emitted record.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum ValueRef<'a> {
    /// Known to have no value.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A whole number above [`i64::MAX`].
    UInt(u64),
    /// A finite number.
    Float(f64),
    /// A text.
    String(&'a str),
    /// A point in time.
    Timestamp(Timestamp),
    /// Raw bytes.
    Bytes(&'a [u8]),
    /// A list of scalars.
    List(ListRef<'a>),
}

impl<'a> ValueRef<'a> {
    /// Returns the text of a [`ValueRef::String`].
    pub fn as_str(self) -> Option<&'a str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the number of a [`ValueRef::Int`].
    pub fn as_int(self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(number),
            _ => None,
        }
    }

    /// Returns the value of a [`ValueRef::Bool`].
    pub fn as_bool(self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(value),
            _ => None,
        }
    }
}

impl From<ValueRef<'_>> for Value {
    fn from(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Null => Self::Null,
            ValueRef::Bool(value) => Self::Bool(value),
            ValueRef::Int(number) => Self::Int(number),
            ValueRef::UInt(number) => Self::UInt(number),
            ValueRef::Float(number) => Self::Float(number),
            ValueRef::String(text) => Self::String(text.to_owned()),
            ValueRef::Timestamp(time) => Self::Timestamp(time),
            ValueRef::Bytes(bytes) => Self::Bytes(bytes.to_owned()),
            ValueRef::List(values) => values.into_iter().collect(),
        }
    }
}

/// The values of a list, in order.
#[derive(Clone, Copy, PartialEq)]
pub struct ListRef<'a> {
    pub(crate) values: Reader<'a>,
}

impl<'a> IntoIterator for ListRef<'a> {
    type Item = ValueRef<'a>;
    type IntoIter = ListIter<'a>;

    fn into_iter(self) -> ListIter<'a> {
        ListIter(self.values)
    }
}

impl fmt::Debug for ListRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(*self).finish()
    }
}

/// Iterates over the values of a [`ListRef`].
#[derive(Clone, Debug)]
pub struct ListIter<'a>(Reader<'a>);

impl<'a> Iterator for ListIter<'a> {
    type Item = ValueRef<'a>;

    fn next(&mut self) -> Option<ValueRef<'a>> {
        self.0.value()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_timestamp_is_rfc_3339_in_utc() {
        let time: Timestamp = "2026-11-22T12:15:42.123456789+01:00".parse().unwrap();
        assert_eq!(time.to_string(), "2026-11-22T11:15:42.123456Z");
        assert_eq!(time.as_micros(), 1_795_346_142_123_456);
        assert_eq!(
            Timestamp::try_from(SystemTime::UNIX_EPOCH)
                .unwrap()
                .to_string(),
            "1970-01-01T00:00:00Z"
        );
        for text in ["", "now", "2026-11-22", "2026-11-22T11:15:42"] {
            assert_eq!(text.parse::<Timestamp>(), Err(TimestampError), "{text}");
        }
        assert_eq!(Timestamp::from_micros(i64::MAX), None);
        assert_eq!(Timestamp::from_micros(i64::MIN), None);
    }

    #[test]
    fn what_rust_has_converts() {
        let tags = Value::List(vec!["a".into(), "b".into()]);
        assert_eq!(Value::from(["a", "b"]), tags);
        assert_eq!(Value::from(vec!["a".to_owned(), "b".to_owned()]), tags);
        assert_eq!(["a", "b"].into_iter().collect::<Value>(), tags);
        assert_eq!(Value::from(String::from_utf8_lossy(b"a")), Value::from("a"));
        assert_eq!(Value::from(None::<bool>), Value::Null);
        assert_eq!(Value::from(Some(7_u8)), Value::Int(7));
        assert_eq!(Value::from(i64::MAX as u64), Value::Int(i64::MAX));
        assert_eq!(Value::from(u64::MAX), Value::UInt(u64::MAX));
    }

    proptest! {
        #[test]
        fn every_timestamp_survives_its_text(micros: i64) {
            // Years -9999 to 9999, roughly.
            if let Some(time) = Timestamp::from_micros(micros % 250_000_000_000_000_000) {
                prop_assert_eq!(time.to_string().parse(), Ok(time));
                prop_assert_eq!(Timestamp::from_micros(time.as_micros()), Some(time));
            }
        }
    }
}
