//! The canonical bytes of a record: what is hashed to see a change, and what a batch holds.
//!
//! Equal records have equal bytes: properties are sorted by name, and every value has one form.
//! Different records have different bytes: every part says how long it is.

use crate::value::{ListRef, Timestamp, Value, ValueRef};

/// The first byte of an entity.
pub(crate) const ENTITY: u8 = b'e';
/// The first byte of a relationship.
pub(crate) const RELATIONSHIP: u8 = b'r';

const NULL: u8 = 0;
const FALSE: u8 = 1;
const TRUE: u8 = 2;
const INT: u8 = 3;
const UINT: u8 = 4;
const FLOAT: u8 = 5;
const STRING: u8 = 6;
const TIMESTAMP: u8 = 7;
const BYTES: u8 = 8;
const LIST: u8 = 9;

/// Appends a length: seven bits a byte, lowest first, the high bit set on all but the last.
pub(crate) fn put_length(out: &mut Vec<u8>, mut length: usize) {
    while length > 0x7f {
        out.push(low_bits(length) | 0x80);
        length >>= 7;
    }
    out.push(low_bits(length));
}

#[expect(clippy::cast_possible_truncation, reason = "seven bits")]
fn low_bits(length: usize) -> u8 {
    (length & 0x7f) as u8
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_length(out, bytes.len());
    out.extend_from_slice(bytes);
}

pub(crate) fn put_str(out: &mut Vec<u8>, text: &str) {
    put_bytes(out, text.as_bytes());
}

pub(crate) fn put_option(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => {
            out.push(1);
            put_str(out, text);
        }
        None => out.push(0),
    }
}

pub(crate) fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.push(NULL),
        Value::Bool(false) => out.push(FALSE),
        Value::Bool(true) => out.push(TRUE),
        Value::Int(number) => {
            out.push(INT);
            out.extend_from_slice(&number.to_le_bytes());
        }
        Value::UInt(number) => match i64::try_from(*number) {
            Ok(number) => put_value(out, &Value::Int(number)),
            Err(_) => {
                out.push(UINT);
                out.extend_from_slice(&number.to_le_bytes());
            }
        },
        Value::Float(number) => {
            out.push(FLOAT);
            // -0.0 equals 0.0, so it must not look like a change.
            out.extend_from_slice(&(number + 0.0).to_le_bytes());
        }
        Value::String(text) => {
            out.push(STRING);
            put_str(out, text);
        }
        Value::Timestamp(time) => {
            out.push(TIMESTAMP);
            out.extend_from_slice(&time.as_micros().to_le_bytes());
        }
        Value::Bytes(bytes) => {
            out.push(BYTES);
            put_bytes(out, bytes);
        }
        Value::List(values) => {
            out.push(LIST);
            let mut encoded = Vec::new();
            for value in values {
                put_value(&mut encoded, value);
            }
            put_bytes(out, &encoded);
        }
    }
}

/// Reads canonical bytes from the front; every method returns `None` where they end or are not
/// what was asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*array)
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn length(&mut self) -> Option<usize> {
        let mut length = 0;
        for shift in (0..usize::BITS).step_by(7) {
            let byte = self.byte()?;
            length |= usize::from(byte & 0x7f) << shift;
            if byte <= 0x7f {
                return Some(length);
            }
        }
        None
    }

    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.length()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    pub(crate) fn str(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    /// Reads what [`put_option`] wrote; the outer `None` is the end of the bytes.
    pub(crate) fn option(&mut self) -> Option<Option<&'a str>> {
        match self.byte()? {
            0 => Some(None),
            _ => self.str().map(Some),
        }
    }

    pub(crate) fn value(&mut self) -> Option<ValueRef<'a>> {
        Some(match self.byte()? {
            NULL => ValueRef::Null,
            FALSE => ValueRef::Bool(false),
            TRUE => ValueRef::Bool(true),
            INT => ValueRef::Int(i64::from_le_bytes(self.array()?)),
            UINT => ValueRef::UInt(u64::from_le_bytes(self.array()?)),
            FLOAT => ValueRef::Float(f64::from_le_bytes(self.array()?)),
            STRING => ValueRef::String(self.str()?),
            TIMESTAMP => {
                ValueRef::Timestamp(Timestamp::from_micros(i64::from_le_bytes(self.array()?))?)
            }
            BYTES => ValueRef::Bytes(self.bytes()?),
            LIST => ValueRef::List(ListRef {
                values: Reader(self.bytes()?),
            }),
            _ => return None,
        })
    }
}
