use std::ops::Range;
use std::sync::mpsc;
use std::thread;

use parallax_core::RecordKind;

use crate::contents::Contents;
use crate::emissions::{Emissions, Emitted};
use crate::error::StoreError;
use crate::json;

/// How many records are prepared at once.
const PORTION: usize = 256;
/// How many portions wait to be written.
const AHEAD: usize = 4;

/// Prepares the records at some places among the emissions, and has them written in order.
///
/// Many are prepared by a thread of their own, ahead of the one that writes: they are read in
/// another order than they were emitted in, so that most of it is waiting for memory or the file.
pub(super) fn prepare_and_write(
    contents: &Contents,
    kind: RecordKind,
    emissions: &Emissions,
    places: &[u32],
    mut write: impl FnMut(Prepared<'_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut portions = places.chunks(PORTION);
    let prepare = |places| Portion::prepare(contents, kind, emissions, places);
    if portions.len() <= AHEAD {
        return portions.try_for_each(|portion| prepare(portion)?.write(&mut write));
    }
    thread::scope(|scope| {
        let (sender, prepared) = mpsc::sync_channel(AHEAD);
        scope.spawn(move || {
            // Fails once writing has: then nobody waits for more.
            portions.try_for_each(|portion| sender.send(prepare(portion)))
        });
        prepared
            .into_iter()
            .try_for_each(|portion: Result<Portion<'_>, _>| portion?.write(&mut write))
    })
}

/// A record as it is stored, but for the numbers that the store gives.
pub(super) struct Prepared<'a> {
    pub(super) record: &'a Emitted,
    pub(super) class: Option<&'a str>,
    /// An entity has one.
    pub(super) key: Option<&'a str>,
    pub(super) display_name: Option<&'a str>,
    pub(super) properties: &'a str,
    /// The ids of both ends of a relationship.
    pub(super) ends: [[u8; 16]; 2],
}

/// Records one after the other, with their text in one piece.
struct Portion<'a> {
    text: String,
    parts: Vec<Parts<'a>>,
}

/// Where the text of a record is.
struct Parts<'a> {
    record: &'a Emitted,
    class: Option<Range<usize>>,
    key: Option<Range<usize>>,
    display_name: Option<Range<usize>>,
    properties: Range<usize>,
    ends: [[u8; 16]; 2],
}

impl<'a> Portion<'a> {
    fn prepare(
        contents: &Contents,
        kind: RecordKind,
        emissions: &'a Emissions,
        places: &[u32],
    ) -> Result<Self, StoreError> {
        contents.bring_near(kind, emissions.at(places));
        let mut text = String::new();
        let mut parts = Vec::with_capacity(places.len());
        let mut buffer = Vec::new();
        for record in emissions.at(places) {
            parts.push(match kind {
                RecordKind::Entity => {
                    let entity = contents.entity(record, &mut buffer)?;
                    Parts {
                        record,
                        class: entity.class().map(|class| put(&mut text, class)),
                        key: Some(put(&mut text, entity.key())),
                        display_name: entity.display_name().map(|name| put(&mut text, name)),
                        properties: put(&mut text, &json::text(entity.properties())),
                        ends: Default::default(),
                    }
                }
                RecordKind::Relationship => {
                    let relationship = contents.relationship(record, &mut buffer)?;
                    let (from, to) = (relationship.from(), relationship.to());
                    Parts {
                        record,
                        class: None,
                        key: relationship.key().map(|key| put(&mut text, key)),
                        display_name: None,
                        properties: put(&mut text, &json::text(relationship.properties())),
                        ends: [from.id.to_bytes(), to.id.to_bytes()],
                    }
                }
            });
        }
        Ok(Self { text, parts })
    }

    fn write(
        &self,
        write: &mut impl FnMut(Prepared<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let text = |range: &Range<usize>| self.text.get(range.clone()).unwrap_or_default();
        self.parts.iter().try_for_each(|parts| {
            write(Prepared {
                record: parts.record,
                class: parts.class.as_ref().map(text),
                key: parts.key.as_ref().map(text),
                display_name: parts.display_name.as_ref().map(text),
                properties: text(&parts.properties),
                ends: parts.ends,
            })
        })
    }
}

/// Appends text, and returns where it is.
fn put(text: &mut String, part: &str) -> Range<usize> {
    let begin = text.len();
    text.push_str(part);
    begin..text.len()
}
