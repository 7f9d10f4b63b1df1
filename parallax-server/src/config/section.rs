use std::ops::Range;
use std::path::PathBuf;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::Problems;
use super::secret::Secret;
use super::type_of;

/// A table of the configuration, as it is taken apart: what nobody asks for is a problem.
pub(super) struct Section<'a, 'p> {
    /// As people write it; empty for the whole.
    name: &'static str,
    table: &'a DeTable<'a>,
    asked: Vec<&'static str>,
    pub(super) problems: &'p mut Problems,
}

pub(super) type Value<'a> = &'a Spanned<DeValue<'a>>;

impl<'a, 'p> Section<'a, 'p> {
    pub(super) fn new(
        name: &'static str,
        table: &'a DeTable<'a>,
        problems: &'p mut Problems,
    ) -> Self {
        Self {
            name,
            table,
            asked: Vec::new(),
            problems,
        }
    }

    /// Takes a text and its place.
    pub(super) fn text(&mut self, key: &'static str) -> Option<(&'a str, Range<usize>)> {
        let value = self.take(key)?;
        match value.get_ref().as_str() {
            Some("") => {
                let (what, help) = (
                    format!("{key} is empty"),
                    "give it a value, or leave it out",
                );
                self.problems.note_at(&value.span(), what, help);
                None
            }
            Some(text) => Some((text, value.span())),
            None => {
                let help = format!("write {key} = \"...\"");
                self.wrong_type(key, value, "a text", help)
            }
        }
    }

    /// Takes true or false.
    pub(super) fn flag(&mut self, key: &'static str) -> Option<bool> {
        let value = self.take(key)?;
        match value.get_ref().as_bool() {
            Some(flag) => Some(flag),
            None => self.wrong_type(key, value, "true or false", format!("write {key} = true")),
        }
    }

    /// Takes a count of something; `help` says what to write.
    pub(super) fn count<T: TryFrom<u64>>(
        &mut self,
        key: &'static str,
        of: &str,
        help: &str,
    ) -> Option<T> {
        let value = self.take(key)?;
        let Some(number) = value.get_ref().as_integer() else {
            return self.wrong_type(key, value, "a whole number", help.to_owned());
        };
        let count = u64::from_str_radix(number.as_str(), number.radix()).ok();
        let count = count.and_then(|count| T::try_from(count).ok());
        if count.is_none() {
            let what = format!("{key} = {} is not a count of {of}", number.as_str());
            self.problems.note_at(&value.span(), what, help);
        }
        count
    }

    /// Takes a text that may be kept out of the file: written out, or `{ env = "NAME" }`, or
    /// `{ file = "PATH" }`.
    pub(super) fn secret(&mut self, key: &'static str) -> Option<(Secret, Range<usize>)> {
        let value = self.table.get(key);
        let Some((value, table)) = value.and_then(|v| Some((v, v.get_ref().as_table()?))) else {
            let (text, span) = self.text(key)?;
            return Some((Secret::Written(text.to_owned()), span));
        };
        self.asked.push(key);
        let mut entries = table
            .iter()
            .map(|(name, from)| (&**name.get_ref(), from.get_ref()));
        let secret = match (entries.next(), entries.next()) {
            (Some(("env", DeValue::String(name))), None) => Secret::Env {
                key,
                name: name.to_string(),
            },
            (Some(("file", DeValue::String(path))), None) => Secret::File {
                key,
                path: PathBuf::from(&**path),
            },
            _ => {
                let what = format!("{key} is a table that names no place to read it from");
                let help = format!("write {key} = {{ env = \"NAME\" }} or {{ file = \"PATH\" }}");
                self.problems.note_at(&value.span(), what, help);
                return None;
            }
        };
        Some((secret, value.span()))
    }

    /// Takes a text that must be there; `help` says what to write in a section that lacks it.
    pub(super) fn required(
        &mut self,
        key: &'static str,
        header: &Range<usize>,
        help: impl FnOnce() -> String,
    ) -> Option<(&'a str, Range<usize>)> {
        if self.has(key) {
            return self.text(key);
        }
        self.asked.push(key);
        let what = format!("this {} lacks {key:?}", self.name);
        self.problems.note_at(header, what, help());
        None
    }

    /// Takes a table; `name` is what people write for it.
    pub(super) fn table(
        &mut self,
        key: &'static str,
        name: &'static str,
    ) -> Option<Section<'a, '_>> {
        self.table_at(key, name).map(|(section, _)| section)
    }

    /// Takes a table and its place.
    pub(super) fn table_at(
        &mut self,
        key: &'static str,
        name: &'static str,
    ) -> Option<(Section<'a, '_>, Range<usize>)> {
        let value = self.take(key)?;
        match value.get_ref().as_table() {
            Some(table) => Some((Section::new(name, table, self.problems), value.span())),
            None => self.wrong_type(key, value, "a table", format!("write {name}")),
        }
    }

    /// Tells whether there is such a key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Takes a list of tables, each with its place; none if it is something else.
    pub(super) fn tables(
        &mut self,
        key: &'static str,
    ) -> Option<Vec<(&'a DeTable<'a>, Range<usize>)>> {
        let Some(value) = self.take(key) else {
            return Some(Vec::new());
        };
        let help = || format!("write [[{key}]]");
        let Some(values) = value.get_ref().as_array() else {
            return self.wrong_type(key, value, "a list of tables", help());
        };
        let mut tables = Vec::new();
        let mut good = true;
        for value in values.iter() {
            match value.get_ref().as_table() {
                Some(table) => tables.push((table, value.span())),
                None => {
                    good = false;
                    self.wrong_type::<()>(key, value, "a table", help());
                }
            }
        }
        (good || !tables.is_empty()).then_some(tables)
    }

    /// Notes the keys that nobody asked for, and tells whether there are none.
    pub(super) fn end(&mut self) -> bool {
        let mut known = true;
        for key in self.table.keys() {
            let name: &str = key.get_ref();
            if self.asked.contains(&name) {
                continue;
            }
            known = false;
            let what = match self.name {
                "" => format!("there is no section {name:?}"),
                section => format!("there is no {name:?} in {section}"),
            };
            let help = suggestion(name, &self.asked);
            self.problems.note_at(&key.span(), what, help);
        }
        known
    }

    /// Takes whatever stands there.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Value<'a>> {
        self.asked.push(key);
        self.table.get(key)
    }

    /// Notes that a value is not what was `wanted`.
    pub(super) fn wrong_type<T>(
        &mut self,
        key: &str,
        value: Value<'_>,
        wanted: &str,
        help: String,
    ) -> Option<T> {
        let what = format!("{key} is {}, not {wanted}", type_of(value.get_ref()));
        self.problems.note_at(&value.span(), what, help);
        None
    }
}

/// Says what may have been meant by `name`.
pub(super) fn suggestion(name: &str, known: &[&str]) -> String {
    let distance = |known: &&&str| strsim::damerau_levenshtein(known, name);
    match known.iter().min_by_key(distance) {
        Some(nearest) if distance(&nearest) <= nearest.len().max(2) / 2 => {
            format!("did you mean {nearest:?}?")
        }
        Some(_) => format!("there are: {}", known.join(", ")),
        None => "there are none".to_owned(),
    }
}
