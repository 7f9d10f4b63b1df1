use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures::{Stream, stream};
use parallax_core::{JournalEntry, JournalKind};
use parallax_store::{JournalName, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout, timeout_at};
use utoipa::{IntoParams, ToSchema};

use super::Daemon;
use super::answer::Json;
use super::problem::Problem;
use super::request::{Live, Params, Place};
use crate::serve::hub::{Behind, Follower, News};

/// How many entries go out in one piece.
pub(super) const PIECE: usize = 256;
/// A stream in which nothing happens says so, for whatever is in between not to close it.
const STILL_HERE: Duration = Duration::from_secs(15);
/// How long the last entries of a sync that has ended may take to be stored.
const STORED: Duration = Duration::from_secs(5);
/// How often the store is asked for them.
const RETRY: Duration = Duration::from_millis(250);

/// A part of a journal.
#[derive(Serialize, ToSchema)]
struct JournalPart<'a> {
    /// The entries in their order, as docs/src/journal.schema.json says.
    #[schema(value_type = Vec<Object>)]
    items: Vec<&'a RawValue>,
    /// The number from which to read on.
    next: u64,
    /// The number of the oldest entry that is still kept.
    first_kept: u64,
    /// Whether the sync runs, so that more will come.
    running: bool,
}

/// Of which sync, and from where on.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct JournalParams {
    /// The number of the first entry that is wanted, 1 if nothing is said.
    #[param(minimum = 1)]
    from: Option<u64>,
    /// Of this connector.
    connector_id: Option<String>,
    /// Of this account.
    account_id: Option<String>,
}

/// Tells what happens in a sync, entry by entry, also while it runs.
///
/// With `Accept: text/event-stream` as server-sent events, each with the entry's number as its id:
/// what was, and then what happens. With `Last-Event-ID` it goes on behind that one. The last event
/// is `end`, with the reason.
#[utoipa::path(get, path = "/api/v1/syncs/{sync_id}/journal", tag = "syncs",
    params(("sync_id" = String, Path, description = "Its id, or how that begins"), JournalParams),
    responses(
        (status = OK, content((JournalPart = "application/json"), (String = "text/event-stream"))),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn journal(
    Live(daemon): Live,
    Place(sync_id): Place<String>,
    Params(params): Params<JournalParams>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let name = find(&daemon, &sync_id, &params).await?;
    let from = params.from.unwrap_or(1).max(1);
    if wants_events(&headers) {
        let place = daemon.stream()?;
        let next = match last_event_id(&headers) {
            Some(id) => {
                let seq = id.parse::<u64>().map_err(|_| wrong_last_event_id())?;
                seq.saturating_add(1)
            }
            None => from,
        };
        let follower = daemon.hub.follow();
        let following = Following {
            daemon,
            name,
            next,
            follower,
            has_last: false,
            ended: None,
            is_over: false,
            _place: place,
        };
        return Ok(events(stream::unfold(following, Following::piece)));
    }
    let stored = stored(&daemon, &name, from).await?;
    let mut lines: Vec<Arc<str>> = stored.lines.into_iter().map(Into::into).collect();
    let mut next = stored.next;
    if lines.len() < PIECE {
        // What is not stored yet.
        for (seq, line) in daemon.hub.entries(&name, next, PIECE) {
            lines.push(line);
            next = seq + 1;
        }
    }
    let items = lines
        .iter()
        .filter_map(|line| serde_json::from_str(line).ok());
    let part = JournalPart {
        items: items.collect(),
        next,
        first_kept: stored.first_kept,
        running: daemon.hub.is_running(&name),
    };
    Ok(Json::of(&part).into_response())
}

/// What the store has of a journal.
struct StoredPart {
    lines: Vec<String>,
    next: u64,
    first_kept: u64,
}

async fn stored(daemon: &Daemon, name: &JournalName, from: u64) -> Result<StoredPart, StoreError> {
    match daemon.store.journal(name, from).await {
        Ok(page) => Ok(StoredPart {
            lines: page.lines,
            next: page.next,
            first_kept: page.first_kept,
        }),
        // Of one that has just begun, nothing is stored yet.
        Err(StoreError::NoSuchJournal { .. }) => Ok(StoredPart {
            lines: Vec::new(),
            next: from,
            first_kept: 1,
        }),
        Err(error) => Err(error),
    }
}

/// Finds the one sync that is meant, among those that run and those whose journal is kept.
async fn find(
    daemon: &Daemon,
    sync_id: &str,
    params: &JournalParams,
) -> Result<JournalName, Problem> {
    let is = |wanted: &Option<String>, is: &String| wanted.as_ref().is_none_or(|it| it == is);
    let mut names = daemon.hub.running(sync_id);
    names.extend(daemon.store.journals(sync_id, 1_000).await?);
    names.retain(|name| {
        is(&params.connector_id, &name.connector_id) && is(&params.account_id, &name.account_id)
    });
    if names.iter().any(|name| name.sync_id == sync_id) {
        names.retain(|name| name.sync_id == sync_id);
    }
    let first = names.first().cloned();
    names.retain(|name| Some(name) != first.as_ref());
    match first {
        Some(name) if names.is_empty() => Ok(name),
        Some(_) => Err(Problem::invalid(
            "sync_id",
            format!("{sync_id:?} may be several syncs"),
            "give all of the id, or connector_id and account_id",
        )),
        None => Err(Problem::new(
            StatusCode::NOT_FOUND,
            "no_such_journal",
            format!("there is no journal of sync {sync_id:?}"),
            "/api/v1/syncs lists the syncs; journals are kept for 30 days, and 64 MiB of them",
        )),
    }
}

/// Tells what happens in all syncs, as it happens, as server-sent events.
///
/// Without a name, an event is an entry of a journal; `changed` names a source whose records somebody
/// changed otherwise. Who is away for long, or was cut off, gets `reset` first: what is known of
/// before is to be read again. With `Last-Event-ID` it goes on behind that event, if that is still
/// possible. The last event is `end`, with the reason.
#[utoipa::path(get, path = "/api/v1/events", tag = "syncs",
    responses((status = OK, body = String, content_type = "text/event-stream"),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn all_events(
    Live(daemon): Live,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let place = daemon.stream()?;
    let (epoch, now) = daemon.hub.now();
    let after = match last_event_id(&headers) {
        Some(id) => {
            let (of, number) = id.split_once('-').ok_or_else(wrong_last_event_id)?;
            let of = u64::from_str_radix(of, 16).map_err(|_| wrong_last_event_id())?;
            let number: u64 = number.parse().map_err(|_| wrong_last_event_id())?;
            let next = number.saturating_add(1);
            (of == epoch && next <= now && daemon.hub.news(next, 0).is_ok()).then_some(next)
        }
        None => None,
    };
    let follower = daemon.hub.follow();
    let watching = Watching {
        epoch,
        next: after.unwrap_or(now),
        begins: after.is_none(),
        daemon,
        follower,
        is_over: false,
        _place: place,
    };
    Ok(events(stream::unfold(watching, Watching::piece)))
}

fn wants_events(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/event-stream"))
}

fn last_event_id(headers: &HeaderMap) -> Option<&str> {
    let id = headers.get("last-event-id")?;
    // What is no text is no id either.
    Some(id.to_str().unwrap_or_default())
}

fn wrong_last_event_id() -> Problem {
    Problem::invalid(
        "Last-Event-ID",
        "Last-Event-ID is not the id of an event of this stream",
        "send the last id that came, or none to begin anew",
    )
}

fn events(pieces: impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static) -> Response {
    let mut response = Response::new(Body::from_stream(pieces));
    let content_type = HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    // Buffered by a proxy, it would come late.
    let no = HeaderValue::from_static("no");
    response.headers_mut().insert("x-accel-buffering", no);
    response
}

/// The last event of a stream.
fn end(reason: &str) -> String {
    format!("event: end\ndata: {{\"reason\":\"{reason}\"}}\n\n")
}

type Piece<T> = Option<(Result<Bytes, Infallible>, T)>;

/// A client that follows a sync.
struct Following {
    daemon: Arc<Daemon>,
    name: JournalName,
    /// The number of the entry that it gets next.
    next: u64,
    follower: Follower,
    /// Whether it has got an entry that no other follows.
    has_last: bool,
    /// Since when the sync does not run.
    ended: Option<Instant>,
    is_over: bool,
    _place: OwnedSemaphorePermit,
}

impl Following {
    async fn piece(mut self) -> Piece<Self> {
        if self.is_over {
            return None;
        }
        let text = match self.text().await {
            Ok(text) => text,
            Err(reason) => {
                self.is_over = true;
                end(reason)
            }
        };
        Some((Ok(text.into()), self))
    }

    /// Returns the next entries, or why there are none any more.
    async fn text(&mut self) -> Result<String, &'static str> {
        loop {
            // Asked first: what comes in between is seen, or wakes.
            let runs = self.daemon.hub.is_running(&self.name);
            let at_hand = self.daemon.hub.entries(&self.name, self.next, PIECE);
            if !at_hand.is_empty() {
                return Ok(self.told(at_hand));
            }
            let stored = stored(&self.daemon, &self.name, self.next).await;
            let stored = stored.map_err(|_| "the store cannot be read")?;
            if !stored.lines.is_empty() {
                // Older ones may not be kept any more.
                let first = stored.next.saturating_sub(stored.lines.len() as u64);
                let lines = stored.lines.into_iter().map(Arc::<str>::from);
                return Ok(self.told((first..).zip(lines).collect()));
            }
            if self.follower.is_closed() {
                return Err("the daemon stops");
            }
            if runs {
                self.ended = None;
                match timeout(STILL_HERE, self.follower.wait()).await {
                    Ok(true) => continue,
                    Ok(false) => return Err("the daemon stops"),
                    Err(_) => return Ok(": still here\n\n".to_owned()),
                }
            }
            // What it told last is stored within a second.
            let ended = *self.ended.get_or_insert_with(Instant::now);
            if self.has_last || ended.elapsed() >= STORED {
                return Err("the sync has ended");
            }
            timeout(RETRY, self.follower.wait()).await.ok();
        }
    }

    fn told(&mut self, entries: Vec<(u64, Arc<str>)>) -> String {
        let mut text = String::new();
        for (seq, line) in &entries {
            text += &format!("id: {seq}\ndata: {line}\n\n");
            self.next = seq + 1;
        }
        let last = entries.last();
        self.has_last = last.is_some_and(|(_, line)| is_last(line));
        text
    }
}

/// Tells whether nothing follows an entry. Where something does, as after a commit that holds
/// deletes, it is told together with it.
fn is_last(line: &str) -> bool {
    let entry = JournalEntry::from_json(line);
    entry.is_ok_and(|entry| match entry.kind {
        JournalKind::Completed { .. } => false,
        kind if kind.ends_run() => true,
        JournalKind::Committed { .. }
        | JournalKind::CommitFailed { .. }
        | JournalKind::DeletesHeld { .. }
        | JournalKind::DeletesApproved { .. }
        | JournalKind::DeletesRejected { .. } => true,
        _ => false,
    })
}

/// A client that follows all syncs.
struct Watching {
    daemon: Arc<Daemon>,
    epoch: u64,
    next: u64,
    /// Whether what was before is not told.
    begins: bool,
    follower: Follower,
    is_over: bool,
    _place: OwnedSemaphorePermit,
}

impl Watching {
    async fn piece(mut self) -> Piece<Self> {
        if self.is_over {
            return None;
        }
        let text = self.text().await;
        Some((Ok(text.into()), self))
    }

    async fn text(&mut self) -> String {
        if std::mem::take(&mut self.begins) {
            let before = self.next.wrapping_sub(1);
            return format!(
                "id: {:016x}-{before}\nevent: reset\ndata: {{}}\n\n",
                self.epoch
            );
        }
        let still_here = Instant::now() + STILL_HERE;
        loop {
            let news = match self.daemon.hub.news(self.next, PIECE) {
                Ok(news) => news,
                Err(Behind::Lagged) => {
                    self.is_over = true;
                    return end("too slow: more has happened than is kept for you");
                }
            };
            if !news.is_empty() {
                return self.told(news);
            }
            match timeout_at(still_here, self.follower.wait()).await {
                Ok(true) => {}
                Ok(false) => {
                    self.is_over = true;
                    return end("the daemon stops");
                }
                Err(_) => return ": still here\n\n".to_owned(),
            }
        }
    }

    fn told(&mut self, news: Vec<News>) -> String {
        let mut text = String::new();
        for news in news {
            let (name, data) = match news {
                News::Entry(line) => ("", line),
                News::Changed(line) => ("event: changed\n", line),
            };
            text += &format!(
                "id: {:016x}-{}\n{name}data: {data}\n\n",
                self.epoch, self.next
            );
            self.next += 1;
        }
        text
    }
}
