use parallax_store::Guard;
use toml::de::DeValue;

use super::section::Section;

const KEY: &str = "hold_deletes";

/// Takes which deletes are held: those that the store holds by itself if nothing is said.
///
/// Returns nothing if something is wrong with it; then there is a problem.
pub(super) fn hold_deletes(section: &mut Section<'_, '_>) -> Option<Guard> {
    let default = Guard::default();
    let Some(value) = section.take(KEY) else {
        return Some(default);
    };
    let table = match value.get_ref() {
        DeValue::Boolean(true) => return Some(default),
        DeValue::Boolean(false) => return Some(Guard::OFF),
        DeValue::Table(table) => table,
        _ => {
            let help = format!("write {KEY} = {{ above = 100, share = 0.2 }}, or false");
            return section.wrong_type(KEY, value, "a table or false", help);
        }
    };
    let mut table = Section::new(KEY, table, section.problems);
    let records = above(&mut table, default.records);
    let share = share(&mut table, default.share);
    let known = table.end();
    Some(Guard {
        records: records.filter(|_| known)?,
        share: share?,
        ..default
    })
}

fn above(table: &mut Section<'_, '_>, default: u64) -> Option<u64> {
    let is_said = table.has("above");
    let help = "write how many deletes of a sync are nothing unusual, for example above = 100";
    let records = table.count("above", "records", help);
    if is_said { records } else { Some(default) }
}

fn share(table: &mut Section<'_, '_>, default: f64) -> Option<f64> {
    let Some(value) = table.take("share") else {
        return Some(default);
    };
    let help = "write it as a part of 1, for example share = 0.2 for a fifth";
    let number = match value.get_ref() {
        DeValue::Float(number) => number.as_str(),
        DeValue::Integer(number) if number.radix() == 10 => number.as_str(),
        _ => return table.wrong_type("share", value, "a decimal number", help.to_owned()),
    };
    let share = number
        .parse()
        .ok()
        .filter(|share| (0.0..=1.0).contains(share));
    if share.is_none() {
        let what = format!("share = {number} is not between 0 and 1");
        table.problems.note_at(&value.span(), what, help);
    }
    share
}
