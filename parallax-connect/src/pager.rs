use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::Hash;

use parallax_core::ConnectorError;
use xxhash_rust::xxh3::Xxh3;

use crate::context::StepContext;

/// Reads a listing that comes in pages, and does not take a short one for a whole one.
///
/// A pager asks for one page after the other, through a function that fetches one. What it gives is
/// true; what it cannot know to be all makes the step, or the scope of the context it was given,
/// [incomplete](StepContext::incomplete), with a reason, and ends the listing:
///
/// - a token that an earlier page gave, and a page with the items of an earlier one: the listing
///   goes round in circles;
/// - a page that is empty or missing although the system said that there is more;
/// - a system that says there is more, but not where;
/// - another number of items than the total that the system told last;
/// - more pages than [`max_pages`](Self::max_pages);
/// - a pager that is dropped before its end.
///
/// What was read until then stands. A listing by number or offset also moves under whoever reads
/// it: an item that goes away pulls those behind it onto pages that were read already, and so they
/// are on none. That makes it incomplete too, but it is read on:
///
/// - a total below one that the system told before;
/// - an item that was on an earlier page.
///
/// An item that goes away cannot be known where the system tells no total, or tells one that is
/// made up for by an item which comes at the same time. A listing by token has no such gap in most
/// systems: read by token where there is a choice.
///
/// It needs no more memory than a page, two small hashes for each page that was read, and without
/// tokens one for each item.
///
/// ```
/// use parallax_connect::{ConnectorError, Page, Pager, ResultExt, StepContext, entity};
/// # use std::io;
/// # struct User { id: String }
/// # struct Answer { users: Vec<User>, next_token: Option<String> }
/// # struct Api;
/// # impl Api {
/// #     async fn list(&self, _token: Option<&str>) -> Result<Answer, io::Error> {
/// #         Ok(Answer { users: Vec::new(), next_token: None })
/// #     }
/// # }
/// # struct Directory { api: Api }
///
/// # impl Directory {
/// async fn users(&self, ctx: StepContext) -> Result<(), ConnectorError> {
///     let mut pages = Pager::by_token(&ctx, |token| async move {
///         let answer = self.api.list(token.as_deref()).await.retryable("list users")?;
///         Ok(Page::new(answer.users, |user| &user.id).next_token(answer.next_token))
///     });
///     while let Some(users) = pages.next().await? {
///         for user in users {
///             ctx.emit(entity("directory_user", &user.id))?;
///         }
///     }
///     Ok(())
/// }
/// # }
/// # let _ = |directory: &'static Directory| {
/// #     parallax_connect::step("users", "", |ctx| directory.users(ctx))
/// # };
/// ```
#[must_use = "what a pager does not read to its end makes the step incomplete"]
pub struct Pager<F, P> {
    ctx: StepContext,
    fetch: F,
    /// Where the next page is; `None` once there is none.
    position: Option<P>,
    advance: fn(P, items: u64, token: Option<String>) -> P,
    listing: Listing,
    /// Why the next page could not be fetched so far.
    failure: Option<ConnectorError>,
}

/// One page of a listing, as [`Pager`] reads it.
#[derive(Clone, Debug)]
#[must_use = "a page that is not returned is not read"]
pub struct Page<T> {
    items: Vec<T>,
    facts: Facts,
}

/// What a page says beside its items.
#[derive(Clone, Debug, Default)]
struct Facts {
    /// The hashes of the items' ids.
    items: Vec<u128>,
    missing: bool,
    token: Option<String>,
    more: Option<bool>,
    total: Option<u64>,
}

/// More are taken for a listing that does not end.
const MAX_PAGES: u32 = 10_000;

impl<F> Pager<F, Option<String>> {
    /// Reads a listing in which each page says where the next one is: by a token, a cursor or a
    /// link. `fetch` is given what the page before said, and `None` for the first page.
    ///
    /// It ends with a page without a [token](Page::next_token), or one that says
    /// [there is no more](Page::more).
    pub fn by_token<T, Fut>(ctx: &StepContext, fetch: F) -> Self
    where
        F: FnMut(Option<String>) -> Fut,
        Fut: Future<Output = Result<Page<T>, ConnectorError>>,
    {
        Self::new(ctx, fetch, None, |_, _, token| token, true)
    }
}

impl<F> Pager<F, u64> {
    /// Reads a listing of numbered pages. `fetch` is given the number of the page; `first` is that
    /// of the first one, most often 1 or 0.
    ///
    /// It ends with a page that says [there is no more](Page::more), or as soon as all items of the
    /// [total](Page::total) are read. Where the system tells neither it ends with an empty page: a
    /// short one may just be short.
    pub fn by_number<T, Fut>(ctx: &StepContext, first: u64, fetch: F) -> Self
    where
        F: FnMut(u64) -> Fut,
        Fut: Future<Output = Result<Page<T>, ConnectorError>>,
    {
        let advance = |number: u64, _, _| number.saturating_add(1);
        Self::new(ctx, fetch, first, advance, false)
    }

    /// As [`by_number`](Self::by_number), but `fetch` is given how many items were read before the
    /// page.
    pub fn by_offset<T, Fut>(ctx: &StepContext, fetch: F) -> Self
    where
        F: FnMut(u64) -> Fut,
        Fut: Future<Output = Result<Page<T>, ConnectorError>>,
    {
        let advance = |offset: u64, items, _| offset.saturating_add(items);
        Self::new(ctx, fetch, 0, advance, false)
    }
}

impl<F, P> Pager<F, P> {
    fn new(
        ctx: &StepContext,
        fetch: F,
        first: P,
        advance: fn(P, u64, Option<String>) -> P,
        by_token: bool,
    ) -> Self {
        Self {
            ctx: ctx.clone(),
            fetch,
            position: Some(first),
            advance,
            listing: Listing::new(by_token),
            failure: None,
        }
    }

    /// Sets how many pages are read at most, at least one. Default: 10,000.
    pub fn max_pages(mut self, pages: u32) -> Self {
        self.listing.max_pages = pages.max(1);
        self
    }

    /// Fetches the next page and returns its items, which may be none; `None` after the last page.
    ///
    /// # Errors
    ///
    /// The error of `fetch`, unchanged, and [`ConnectorError::Cancelled`] if the run was cancelled.
    /// Called again after that, it tries the same page again.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing: the next call fetches the same page.
    pub async fn next<T, Fut>(&mut self) -> Result<Option<Vec<T>>, ConnectorError>
    where
        F: FnMut(P) -> Fut,
        Fut: Future<Output = Result<Page<T>, ConnectorError>>,
        P: Clone,
    {
        let Some(position) = self.position.clone() else {
            return Ok(None);
        };
        if self.ctx.is_cancelled() {
            return Err(ConnectorError::Cancelled);
        }
        let fetched = (self.fetch)(position.clone()).await;
        let mut page = fetched.inspect_err(|error| self.failure = Some(error.clone()))?;
        self.failure = None;

        let token = page.facts.token.take();
        match self.listing.read(&page.facts, token.as_deref()) {
            Ok(true) => {
                let items = page.facts.items.len() as u64;
                self.position = Some((self.advance)(position, items, token));
            }
            Ok(false) => self.position = None,
            Err(fault) => {
                self.position = None;
                self.ctx.incomplete(&fault);
                // Those of a repeated page are there already.
                if matches!(fault, Fault::RepeatedPage { .. } | Fault::Missing { .. }) {
                    return Ok(None);
                }
            }
        }
        if let Err(fault) = self.listing.has_stood_still(&page.facts) {
            self.ctx.incomplete(fault);
        }
        Ok(Some(page.items))
    }
}

impl<F, P> Drop for Pager<F, P> {
    fn drop(&mut self) {
        if self.position.is_some() {
            let page = self.listing.pages + 1;
            match &self.failure {
                Some(error) => self
                    .ctx
                    .incomplete(format_args!("page {page} was not read: {error}")),
                None => self
                    .ctx
                    .incomplete(format_args!("page {page} was not read")),
            }
        }
    }
}

impl<F, P> fmt::Debug for Pager<F, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pager")
            .field("ctx", &self.ctx)
            .field("pages", &self.listing.pages)
            .field("items", &self.listing.items)
            .field("has_ended", &self.position.is_none())
            .finish_non_exhaustive()
    }
}

impl<T> Page<T> {
    /// Makes a page of all its items, before any of them is left out: they are counted.
    ///
    /// `id` returns what tells an item from all others of the listing. By the ids of its items a
    /// page is known that comes again, from a system that takes no notice of the page it was asked
    /// for, and an item that comes again, because the listing has moved.
    pub fn new<K: Hash + ?Sized>(items: Vec<T>, id: impl Fn(&T) -> &K) -> Self {
        let hash = |item: &T| {
            let mut hasher = Xxh3::new();
            id(item).hash(&mut hasher);
            hasher.digest128()
        };
        let facts = Facts {
            items: items.iter().map(hash).collect(),
            ..Facts::default()
        };
        Self { items, facts }
    }

    /// Makes a page that the system does not have: what it answers "not found" or "gone" for.
    ///
    /// That is the end of a listing by number or offset, unless the system said that there is more.
    pub fn missing() -> Self {
        let facts = Facts {
            missing: true,
            ..Facts::default()
        };
        Self {
            items: Vec::new(),
            facts,
        }
    }

    /// Sets the token of the next page. None, or an empty one, says that there is no other.
    pub fn next_token(mut self, token: impl Into<Option<String>>) -> Self {
        self.facts.token = token.into().filter(|token| !token.is_empty());
        self
    }

    /// Sets what the system says of whether there is another page, if it does. It counts for more
    /// than the token, which some systems give with the last page, too.
    pub fn more(mut self, more: impl Into<Option<bool>>) -> Self {
        self.facts.more = more.into();
        self
    }

    /// Sets of how many items in all pages the system tells, if it does.
    pub fn total(mut self, total: impl Into<Option<u64>>) -> Self {
        self.facts.total = total.into();
        self
    }
}

/// What is known of a listing after some pages.
struct Listing {
    by_token: bool,
    max_pages: u32,
    pages: u32,
    items: u64,
    /// As the system told last.
    total: Option<u64>,
    /// Whether the last page said that there is another.
    more: bool,
    /// The first page with these items, and the page that gave this token.
    fingerprints: HashMap<u128, u32>,
    tokens: HashMap<u128, u32>,
    /// What a listing without tokens has shown so far, until it has moved.
    shown: Option<Shown>,
}

/// By what a listing that has moved is known.
#[derive(Default)]
struct Shown {
    items: HashSet<u128>,
    /// The highest so far.
    total: u64,
}

/// Why a listing cannot be taken for the whole.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("page {page} has the items of page {earlier} again")]
    RepeatedPage { page: u32, earlier: u32 },
    // Without the token, which may give access to the rest of the listing.
    #[error("page {page} gives the token of page {earlier} again")]
    RepeatedToken { page: u32, earlier: u32 },
    #[error("page {page} is {state}, but should be there")]
    Missing { page: u32, state: &'static str },
    #[error("page {page} says that there is more, but not where")]
    NoToken { page: u32 },
    #[error("the system tells of a total of {total}, but gave {items}")]
    Total { items: u64, total: u64 },
    #[error("the listing does not end within {max_pages} pages")]
    TooManyPages { max_pages: u32 },
    #[error("the listing moved while it was read: page {page} has an item of an earlier page")]
    RepeatedItem { page: u32 },
    #[error(
        "the listing moved while it was read: page {page} tells of a total of {total}, an earlier \
         one of {earlier}"
    )]
    SmallerTotal { page: u32, total: u64, earlier: u64 },
}

impl Listing {
    fn new(by_token: bool) -> Self {
        Self {
            by_token,
            max_pages: MAX_PAGES,
            pages: 0,
            items: 0,
            total: None,
            more: false,
            fingerprints: HashMap::new(),
            tokens: HashMap::new(),
            shown: (!by_token).then(Shown::default),
        }
    }

    /// Takes in the next page. Returns whether there is another, or why it cannot be known that
    /// all is read.
    fn read(&mut self, facts: &Facts, token: Option<&str>) -> Result<bool, Fault> {
        self.pages += 1;
        let page = self.pages;
        self.total = facts.total.or(self.total);
        let more = facts.more.or(token.map(|_| true));
        let expected = std::mem::replace(&mut self.more, more == Some(true));

        if facts.missing || (facts.items.is_empty() && !self.by_token) {
            let falls_short = self.total.is_some_and(|total| self.items < total);
            let first_of_none = facts.missing && page == 1;
            if expected || self.more || falls_short || first_of_none {
                return Err(Fault::Missing {
                    page,
                    state: if facts.missing { "missing" } else { "empty" },
                });
            }
            return self.end();
        }
        // A page may be empty and be followed by others: systems that filter what they have read
        // give such.
        if !facts.items.is_empty()
            && let Some(earlier) = remember(&mut self.fingerprints, facts.fingerprint(), page)
        {
            return Err(Fault::RepeatedPage { page, earlier });
        }
        self.items += facts.items.len() as u64;
        let goes_on = match (self.by_token, more) {
            (_, Some(false)) | (true, None) => false,
            (false, None) => self.total.is_none_or(|total| self.items < total),
            (_, Some(true)) => true,
        };
        if !goes_on {
            return self.end();
        }
        if self.by_token {
            let Some(token) = token else {
                return Err(Fault::NoToken { page });
            };
            let token = xxhash_rust::xxh3::xxh3_128(token.as_bytes());
            if let Some(earlier) = remember(&mut self.tokens, token, page) {
                return Err(Fault::RepeatedToken { page, earlier });
            }
        }
        if page >= self.max_pages {
            let max_pages = self.max_pages;
            return Err(Fault::TooManyPages { max_pages });
        }
        Ok(true)
    }

    /// Takes in the page that was read last. Returns by what it is known that items have changed
    /// their places since the first one, if they have; once, because what follows says no more.
    fn has_stood_still(&mut self, facts: &Facts) -> Result<(), Fault> {
        let Some(shown) = &mut self.shown else {
            return Ok(());
        };
        let page = self.pages;
        let total = facts.total.unwrap_or(shown.total);
        let moved = if total < shown.total {
            Fault::SmallerTotal {
                page,
                total,
                earlier: shown.total,
            }
        } else if facts.items.iter().any(|item| shown.items.contains(item)) {
            Fault::RepeatedItem { page }
        } else {
            shown.total = total;
            // Only now: what has the same id on one page has not moved.
            shown.items.extend(&facts.items);
            return Ok(());
        };
        self.shown = None;
        Err(moved)
    }

    fn end(&self) -> Result<bool, Fault> {
        match self.total {
            Some(total) if total != self.items => Err(Fault::Total {
                items: self.items,
                total,
            }),
            _ => Ok(false),
        }
    }
}

impl Facts {
    /// Returns a hash of all items.
    fn fingerprint(&self) -> u128 {
        let mut hasher = Xxh3::new();
        self.items.hash(&mut hasher);
        hasher.digest128()
    }
}

/// Notes where a hash comes from, or returns where it came from first.
fn remember(hashes: &mut HashMap<u128, u32>, hash: u128, page: u32) -> Option<u32> {
    let first = *hashes.entry(hash).or_insert(page);
    (first != page).then_some(first)
}

#[cfg(test)]
mod tests;
