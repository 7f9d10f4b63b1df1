use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use futures::FutureExt;
use parallax_core::StepReport;
use proptest::prelude::*;
use proptest::{collection, option};

use super::*;
use crate::scripted::Given;
use crate::{Runner, entity, run_connector, step};

type Answer = Result<Page<u32>, ConnectorError>;

/// How a listing is read.
#[derive(Clone, Copy, Debug, PartialEq)]
enum By {
    Token,
    Number,
    Offset,
}

/// A system that answers one request after the other, and notes what it was asked.
#[derive(Clone, Default)]
struct System {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl System {
    fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
        let this = Self::default();
        this.answers.lock().unwrap().extend(answers);
        this
    }

    fn answer(&self, position: String) -> impl Future<Output = Answer> + Send + use<> {
        self.asked.lock().unwrap().push(position);
        let answer = self.answers.lock().unwrap().pop_front();
        // Whoever asks for more than the test has does not end.
        let answer = answer.unwrap_or_else(|| Err(ConnectorError::fatal("asked too often")));
        async { answer }
    }

    /// Reads the listing in a step. Returns what it read, and the step's report.
    async fn read(&self, by: By, max_pages: u32) -> (Vec<u32>, StepReport) {
        let this = self.clone();
        let read = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&read);
        let given = Given(move || {
            let (this, into) = (this.clone(), Arc::clone(&into));
            vec![step("users", "", move |ctx: StepContext| {
                let (this, into) = (this.clone(), Arc::clone(&into));
                async move {
                    let number = |number: u64| this.answer(number.to_string());
                    let token = |token: Option<String>| {
                        this.answer(token.unwrap_or_else(|| "the first".to_owned()))
                    };
                    match by {
                        By::Token => {
                            drain(Pager::by_token(&ctx, token).max_pages(max_pages), &into).await
                        }
                        By::Number => {
                            drain(
                                Pager::by_number(&ctx, 1, number).max_pages(max_pages),
                                &into,
                            )
                            .await
                        }
                        By::Offset => {
                            drain(Pager::by_offset(&ctx, number).max_pages(max_pages), &into).await
                        }
                    }
                }
            })]
        });
        let output = run_connector(&given, "acme", "sync-001", None)
            .await
            .unwrap();
        let read = read.lock().unwrap().clone();
        (read, output.report().steps()[0].clone())
    }

    /// Tells in words what comes of reading the listing.
    async fn story(&self, by: By) -> String {
        let (read, step) = self.read(by, 10).await;
        let asked = self.asked.lock().unwrap().join(", ");
        let reason = step.reason().map(|reason| format!(": {reason}"));
        let status = step.status.as_str();
        format!(
            "asked for {asked}; read {read:?}; {status}{}",
            reason.unwrap_or_default()
        )
    }
}

async fn drain<F, P: Clone, Fut>(
    mut pages: Pager<F, P>,
    into: &Mutex<Vec<u32>>,
) -> Result<(), ConnectorError>
where
    F: FnMut(P) -> Fut,
    Fut: Future<Output = Answer>,
{
    while let Some(items) = pages.next().await? {
        into.lock().unwrap().extend(items);
    }
    // What has ended stays so.
    assert!(pages.next().await?.is_none());
    Ok(())
}

fn page(items: &[u32]) -> Page<u32> {
    Page::new(items.to_vec(), |item| item)
}

/// What comes of reading these pages.
async fn story(by: By, pages: impl IntoIterator<Item = Page<u32>>) -> String {
    System::new(pages.into_iter().map(Ok)).story(by).await
}

#[tokio::test]
async fn a_listing_is_read_to_its_end() {
    let token = |token: &str| Some(token.to_owned());
    let by_token = [
        page(&[1, 2]).next_token(token("b")),
        // Filtered by the system, which says nothing of what follows.
        page(&[]).next_token(token("c")),
        page(&[3]).next_token(None),
    ];
    insta::assert_snapshot!(
        story(By::Token, by_token).await,
        @"asked for the first, b, c; read [1, 2, 3]; completed"
    );
    let last_has_a_token = [
        page(&[1]).next_token(token("b")).more(true),
        page(&[2]).next_token(token("c")).more(false),
    ];
    insta::assert_snapshot!(
        story(By::Token, last_has_a_token).await,
        @"asked for the first, b; read [1, 2]; completed"
    );
    let empty_token = [page(&[1]).next_token(String::new())];
    insta::assert_snapshot!(
        story(By::Token, empty_token).await,
        @"asked for the first; read [1]; completed"
    );
    let until_an_empty_page = [page(&[1, 2]), page(&[3]), page(&[])];
    insta::assert_snapshot!(
        story(By::Number, until_an_empty_page.clone()).await,
        @"asked for 1, 2, 3; read [1, 2, 3]; completed"
    );
    insta::assert_snapshot!(
        story(By::Offset, until_an_empty_page).await,
        @"asked for 0, 2, 3; read [1, 2, 3]; completed"
    );
    let until_a_missing_page = [page(&[1, 2]), Page::missing()];
    insta::assert_snapshot!(
        story(By::Number, until_a_missing_page).await,
        @"asked for 1, 2; read [1, 2]; completed"
    );
    let until_the_total = [page(&[1, 2]).total(3), page(&[3]).total(None)];
    insta::assert_snapshot!(
        story(By::Offset, until_the_total).await,
        @"asked for 0, 2; read [1, 2, 3]; completed"
    );
    let while_there_is_more = [page(&[1]).more(true), page(&[2]).more(false)];
    insta::assert_snapshot!(
        story(By::Number, while_there_is_more).await,
        @"asked for 1, 2; read [1, 2]; completed"
    );
    insta::assert_snapshot!(
        story(By::Number, [page(&[]).total(0)]).await,
        @"asked for 1; read []; completed"
    );
}

/// Servers that go round in circles, often because a proxy drops a parameter.
#[tokio::test]
async fn what_comes_again_ends_the_listing() {
    let token = |token: &str| Some(token.to_owned());
    // Not only the last one.
    let an_earlier_token = [
        page(&[1]).next_token(token("a")),
        page(&[2]).next_token(token("b")),
        page(&[3]).next_token(token("a")),
    ];
    insta::assert_snapshot!(
        story(By::Token, an_earlier_token).await,
        @"asked for the first, a, b; read [1, 2, 3]; incomplete: page 3 gives the token of page 1 again"
    );
    // Encrypted tokens differ each time.
    let an_earlier_page = [
        page(&[1, 2]).next_token(token("a")),
        page(&[3, 4]).next_token(token("b")),
        page(&[1, 2]).next_token(token("c")),
    ];
    insta::assert_snapshot!(
        story(By::Token, an_earlier_page).await,
        @"asked for the first, a, b; read [1, 2, 3, 4]; incomplete: page 3 has the items of page 1 again"
    );
    // Twice the first page makes up the total.
    let the_first_page_for_ever = [page(&[1, 2]).total(4), page(&[1, 2]).total(4)];
    insta::assert_snapshot!(
        story(By::Number, the_first_page_for_ever).await,
        @"asked for 1, 2; read [1, 2]; incomplete: page 2 has the items of page 1 again"
    );
}

#[tokio::test]
async fn a_page_that_should_be_there_is_missed() {
    let token = |token: &str| Some(token.to_owned());
    for (by, pages, expected) in [
        (
            By::Number,
            vec![page(&[1]).total(3), page(&[]).total(3)],
            "asked for 1, 2; read [1]; incomplete: page 2 is empty, but should be there",
        ),
        (
            By::Offset,
            vec![page(&[1]).more(true), page(&[])],
            "asked for 0, 1; read [1]; incomplete: page 2 is empty, but should be there",
        ),
        (
            By::Offset,
            vec![page(&[1]), page(&[]).more(true)],
            "asked for 0, 1; read [1]; incomplete: page 2 is empty, but should be there",
        ),
        (
            By::Number,
            vec![page(&[1]).total(3), Page::missing()],
            "asked for 1, 2; read [1]; incomplete: page 2 is missing, but should be there",
        ),
        (
            By::Number,
            vec![Page::missing()],
            "asked for 1; read []; incomplete: page 1 is missing, but should be there",
        ),
        (
            By::Token,
            vec![page(&[1]).next_token(token("b")), Page::missing()],
            "asked for the first, b; read [1]; incomplete: page 2 is missing, but should be there",
        ),
        (
            By::Token,
            vec![page(&[1]).more(true)],
            "asked for the first; read [1]; incomplete: page 1 says that there is more, but not \
             where",
        ),
    ] {
        assert_eq!(story(by, pages).await, expected);
    }
}

#[tokio::test]
async fn a_total_that_is_not_reached_or_exceeded_is_told() {
    let short = [page(&[1, 2]).total(3).next_token(None)];
    insta::assert_snapshot!(
        story(By::Token, short).await,
        @"asked for the first; read [1, 2]; incomplete: the system tells of a total of 3, but gave 2"
    );
    let long = [page(&[1, 2]).total(1)];
    insta::assert_snapshot!(
        story(By::Number, long).await,
        @"asked for 1; read [1, 2]; incomplete: the system tells of a total of 1, but gave 2"
    );
    // It has changed while it was read; what was told last counts.
    let changed = [page(&[1, 2]).total(3).more(true), page(&[3, 4]).total(4)];
    insta::assert_snapshot!(
        story(By::Number, changed).await,
        @"asked for 1, 2; read [1, 2, 3, 4]; completed"
    );
}

/// What is deleted or moved while a listing is read shifts the rest of it. The total told last came
/// out all the same, and the item that was on no page was taken for gone.
#[tokio::test]
async fn a_listing_that_moves_is_not_whole() {
    // 1 is deleted after the first page: 3 is now on it.
    let shrinks = [page(&[1, 2]).total(5), page(&[4, 5]).total(4)];
    insta::assert_snapshot!(
        story(By::Offset, shrinks).await,
        @"asked for 0, 2; read [1, 2, 4, 5]; incomplete: the listing moved while it was read: page 2 tells of a total of 4, an earlier one of 5"
    );
    // All of the last page may have moved.
    let ends_shrunk = [page(&[1, 2]).total(3), page(&[]).total(2)];
    insta::assert_snapshot!(
        story(By::Number, ends_shrunk).await,
        @"asked for 1, 2; read [1, 2]; incomplete: the listing moved while it was read: page 2 tells of a total of 2, an earlier one of 3"
    );
    // 5 is changed after the first page, and goes to the front. The rest is still worth reading.
    let moves = || [&[1, 2], &[2, 3], &[4_u32] as &[_]].map(|items| page(items).total(5));
    insta::assert_snapshot!(
        story(By::Offset, moves()).await,
        @"asked for 0, 2, 4; read [1, 2, 2, 3, 4]; incomplete: the listing moved while it was read: page 2 has an item of an earlier page"
    );
    insta::assert_snapshot!(
        story(By::Number, moves()).await,
        @"asked for 1, 2, 3; read [1, 2, 2, 3, 4]; incomplete: the listing moved while it was read: page 2 has an item of an earlier page"
    );
    // Not only of the page before, where a system sorts by what is equal.
    let is_unsorted = [page(&[1, 2]), page(&[3, 4]), page(&[5, 1]), page(&[])];
    insta::assert_snapshot!(
        story(By::Number, is_unsorted).await,
        @"asked for 1, 2, 3, 4; read [1, 2, 3, 4, 5, 1]; incomplete: the listing moved while it was read: page 3 has an item of an earlier page"
    );
    // A token says where the last page ended, whatever was before it.
    let token = |token: &str| Some(token.to_owned());
    let by_token = [
        page(&[1, 2]).total(5).next_token(token("b")),
        page(&[2, 3]).total(4),
    ];
    insta::assert_snapshot!(
        story(By::Token, by_token).await,
        @"asked for the first, b; read [1, 2, 2, 3]; completed"
    );
}

#[tokio::test]
async fn a_listing_without_end_is_cut() {
    let pages = (0..20).map(|n| page(&[n]));
    insta::assert_snapshot!(
        story(By::Number, pages).await,
        @"asked for 1, 2, 3, 4, 5, 6, 7, 8, 9, 10; read [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]; incomplete: the listing does not end within 10 pages"
    );
    // Empty pages, each of which gives another token.
    let empty = (0..20).map(|n| page(&[]).next_token(n.to_string()));
    let told = story(By::Token, empty).await;
    assert!(
        told.ends_with("the listing does not end within 10 pages"),
        "{told}"
    );
}

#[tokio::test]
async fn an_error_of_the_fetch_passes_unchanged() {
    let limited = ConnectorError::RateLimited {
        service: "iam".to_owned(),
        retry_after: std::time::Duration::from_secs(301),
    };
    let system = System::new([Ok(page(&[1]).more(true)), Err(limited)]);
    insta::assert_snapshot!(
        system.story(By::Number).await,
        @"asked for 1, 2; read [1]; failed: iam asked for a pause of 301s"
    );
}

/// Runs a step that does something with a pager over these answers.
async fn run_with<A>(answers: Vec<Answer>, act: A) -> (System, StepReport)
where
    A: Fn(StepContext, System) -> futures::future::BoxFuture<'static, Result<(), ConnectorError>>
        + Clone
        + Send
        + Sync
        + 'static,
{
    let system = System::new(answers);
    let asked = system.clone();
    let given = Given(move || {
        let (system, act) = (system.clone(), act.clone());
        vec![step("users", "", move |ctx| act(ctx, system.clone()))]
    });
    let output = run_connector(&given, "acme", "sync-001", None)
        .await
        .unwrap();
    (asked, output.report().steps()[0].clone())
}

#[tokio::test]
async fn the_same_page_is_tried_again_after_an_error() {
    let reset = || Err(ConnectorError::retryable("connection reset"));
    let answers = vec![Ok(page(&[1]).more(true)), reset(), reset(), Ok(page(&[2]))];
    let (system, step) = run_with(answers, |ctx, system| {
        async move {
            let fetch = |number: u64| system.answer(number.to_string());
            let mut pages = Pager::by_number(&ctx, 1, fetch).max_pages(2);
            let mut read = Vec::new();
            while read.len() < 2 {
                if let Ok(Some(items)) = pages.next().await {
                    read.extend(items);
                }
            }
            assert_eq!(read, [1, 2]);
            Ok(())
        }
        .boxed()
    })
    .await;
    assert_eq!(*system.asked.lock().unwrap(), ["1", "2", "2", "2"]);
    assert_eq!(
        step.incomplete,
        ["the listing does not end within 2 pages"],
        "and not that a page was not read"
    );
}

#[tokio::test]
async fn what_is_not_read_to_its_end_is_incomplete() {
    let answers = || {
        let no = Err(ConnectorError::fatal("no"));
        vec![Ok(page(&[1]).more(true)), no, Ok(page(&[2]).more(true))]
    };
    // Left after the first page, after the error of the second, after the second, before any.
    for (calls, reason) in [
        (1, "page 2 was not read"),
        (2, "page 2 was not read: no"),
        (3, "page 3 was not read"),
        (0, "page 1 was not read"),
    ] {
        let (_, step) = run_with(answers(), move |ctx, system| {
            async move {
                let fetch = |number: u64| system.answer(number.to_string());
                let mut pages = Pager::by_number(&ctx, 1, fetch);
                for _ in 0..calls {
                    let _ = pages.next().await;
                }
                Ok(())
            }
            .boxed()
        })
        .await;
        assert_eq!(step.incomplete, [reason]);
    }
}

#[tokio::test]
async fn only_the_scope_that_is_read_is_incomplete() {
    let answers = vec![
        Ok(page(&[1]).total(2).more(false)),
        Ok(page(&[3]).more(false)),
    ];
    let (_, step) = run_with(answers, |ctx, system| {
        async move {
            for region in ["eu", "us"] {
                let region = ctx.scope(region);
                let fetch = |number: u64| system.answer(number.to_string());
                let mut pages = Pager::by_number(&region, 1, fetch);
                while let Some(hosts) = pages.next().await? {
                    for host in hosts {
                        region.emit(entity("host", host))?;
                    }
                }
                region.complete();
            }
            Ok(())
        }
        .boxed()
    })
    .await;
    assert_eq!((step.entities, step.incomplete.len()), (2, 0));
    let scopes = step
        .scopes
        .iter()
        .map(|scope| (&*scope.name, scope.complete));
    assert!(scopes.eq([("eu", false), ("us", true)]));
    assert_eq!(
        step.reason().unwrap(),
        "eu: the system tells of a total of 2, but gave 1"
    );
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_run_asks_for_no_other_page() {
    let system = System::new((0..10).map(|n| Ok(page(&[n]))));
    let asked = Arc::clone(&system.asked);
    let given = Given(move || {
        let system = system.clone();
        vec![step("users", "", move |ctx: StepContext| {
            let system = system.clone();
            async move {
                let mut pages = Pager::by_number(&ctx, 1, |number| {
                    let answer = system.answer(number.to_string());
                    async {
                        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                        answer.await
                    }
                });
                while pages.next().await?.is_some() {}
                Ok(())
            }
        })]
    });
    let stop = tokio::time::sleep(std::time::Duration::from_millis(2_500));
    let runner = Runner::new(&given)
        .cancel_on(stop)
        .grace(std::time::Duration::from_secs(60));
    let error = runner.run("acme", "sync-001").await.unwrap_err();
    let crate::RunError::Cancelled { report } = error else {
        panic!("{error}");
    };
    assert_eq!(report.steps()[0].status.as_str(), "cancelled");
    assert_eq!(*asked.lock().unwrap(), ["1", "2", "3"]);
}

/// What a page says, before it is hashed.
#[derive(Clone, Debug)]
struct Said {
    items: Vec<u32>,
    missing: bool,
    token: Option<String>,
    more: Option<bool>,
    total: Option<u64>,
}

impl Said {
    fn page(&self) -> Page<u32> {
        let page = match self.missing {
            true => Page::missing(),
            false => page(&self.items),
        };
        page.next_token(self.token.clone())
            .more(self.more)
            .total(self.total)
    }
}

/// What is read of a listing, and whether that can be taken for the whole: pages are compared as
/// they are, and nothing is remembered between two of them but all that was said.
fn model(by: By, max_pages: usize, said: &[Said]) -> (Vec<u32>, bool) {
    let mut read: Vec<u32> = Vec::new();
    for (place, now) in said.iter().enumerate() {
        let (before, so_far) = (&said[..place], &said[..=place]);
        let says_more = |said: &Said| said.more.unwrap_or(said.token.is_some());
        let total = so_far.iter().rev().find_map(|said| said.total);
        let falls_short = total.is_some_and(|total| (read.len() as u64) < total);

        let moved = by != By::Token && (0..=place).any(|later| moved(&said[..later], &said[later]));

        if by == By::Token && now.missing {
            return (read, false);
        }
        if by != By::Token && (now.missing || now.items.is_empty()) {
            let promised = before.last().is_some_and(says_more) || says_more(now);
            let no_first = now.missing && before.is_empty();
            let exact = total.is_none_or(|total| total == read.len() as u64);
            return (
                read,
                !promised && !falls_short && !no_first && exact && !moved,
            );
        }
        if !now.items.is_empty() && before.iter().any(|said| said.items == now.items) {
            return (read, false);
        }
        read.extend(&now.items);
        let exact = total.is_none_or(|total| total == read.len() as u64);
        let reached = total.is_some_and(|total| (read.len() as u64) >= total);
        let is_last = match (now.more, by) {
            (Some(more), _) => !more,
            (None, By::Token) => now.token.is_none(),
            (None, _) => now.token.is_none() && reached,
        };
        if is_last {
            return (read, exact && !moved);
        }
        let repeats = before.iter().any(|said| said.token == now.token);
        if by == By::Token && (now.token.is_none() || repeats) || place + 1 == max_pages {
            return (read, false);
        }
    }
    unreachable!("the listing ends within {max_pages} pages")
}

/// Whether a page shows that the listing has changed since one of those before it.
fn moved(before: &[Said], now: &Said) -> bool {
    before.iter().any(|said| {
        let has_shrunk = now.total.is_some() && now.total < said.total;
        has_shrunk || said.items.iter().any(|item| now.items.contains(item))
    })
}

/// What happens to a listing between two pages.
#[derive(Clone, Copy, Debug)]
enum Change {
    Insert { at: usize },
    Remove { at: usize },
    Move { from: usize, to: usize },
}

impl Change {
    fn apply(self, items: &mut Vec<u32>, next: &mut u32) {
        let len = items.len();
        match self {
            Self::Insert { at } => {
                items.insert(at % (len + 1), *next);
                *next += 1;
            }
            Self::Remove { at } if len > 0 => {
                items.remove(at % len);
            }
            Self::Move { from, to } if len > 0 => {
                let item = items.remove(from % len);
                items.insert(to % len, item);
            }
            Self::Remove { .. } | Self::Move { .. } => {}
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (0..9_usize).prop_map(|at| Change::Insert { at }),
        (0..9_usize).prop_map(|at| Change::Remove { at }),
        (0..9_usize, 0..9_usize).prop_map(|(from, to)| Change::Move { from, to }),
    ]
}

fn by() -> impl Strategy<Value = By> {
    prop_oneof![Just(By::Token), Just(By::Number), Just(By::Offset)]
}

prop_compose! {
    /// Anything that a confused system may say; often enough the same twice.
    fn said()(
        items in collection::vec(0..4_u32, 0..3),
        missing in prop::bool::weighted(0.1),
        token in option::weighted(0.8, "[a-f]"),
        more in option::weighted(0.3, prop::bool::weighted(0.8)),
        total in option::weighted(0.3, 0..8_u64),
    ) -> Said {
        let items = if missing { Vec::new() } else { items };
        Said { items, missing, token, more, total }
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime.unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_listing_is_read_up_to_its_fault_and_told_by_it(
        by in by(), max_pages in 1..9_usize, said in collection::vec(said(), 9),
    ) {
        let system = System::new(said.iter().map(|said| Ok(said.page())));
        let (read, step) = block_on(system.read(by, u32::try_from(max_pages).unwrap()));
        let (expected, is_whole) = model(by, max_pages, &said);
        prop_assert!(step.error.is_none());
        prop_assert_eq!(read, expected);
        prop_assert_eq!(step.incomplete.is_empty(), is_whole, "{:?}", step.incomplete);
    }

    #[test]
    fn an_honest_listing_is_read_whole_however_it_is_cut_and_told(
        by in by(), sizes in collection::vec(0..4_usize, 1..9), tells_total: bool, tells_more: bool,
    ) {
        let mut rest = 0..u32::MAX;
        let pages: Vec<Vec<u32>> = sizes
            .iter()
            .map(|size| rest.by_ref().take(*size).collect())
            // By number only the last page is empty.
            .filter(|items: &Vec<u32>| by == By::Token || !items.is_empty())
            .collect();
        let total = u64::from(rest.start);
        let last = pages.len().saturating_sub(1);
        let answers = pages.iter().enumerate().map(|(place, items)| {
            let page = page(items).total(tells_total.then_some(total));
            let page = match by {
                By::Token => page.next_token((place < last).then(|| place.to_string())),
                _ => page,
            };
            Ok(page.more(tells_more.then_some(place < last)))
        });
        let system = System::new(answers.chain([Ok(page(&[]))]));
        let (read, step) = block_on(system.read(by, 20));
        prop_assert_eq!(step.reason(), None);
        prop_assert!(read.into_iter().eq(0..rest.start));
    }

    /// Items come or go, not both, and go only where each page tells the total: more cannot be known.
    #[test]
    fn a_listing_that_moves_and_is_taken_for_whole_has_shown_what_stayed(
        by in prop_oneof![Just(By::Number), Just(By::Offset)],
        (count, size) in (0..9_u32, 1..4_usize),
        gaps in collection::vec(collection::vec(change(), 0..2), 0..6),
        (tells_total, shrinks) in (any::<bool>(), any::<bool>()),
    ) {
        let mut next = count;
        let mut items: Vec<u32> = (0..count).collect();
        let mut stayed = vec![items.clone()];
        let mut answers = Vec::new();
        let mut given = 0;
        // Pages of one item may run after as many that come.
        for number in 0..30 {
            let start = if by == By::Number { number * size } else { given };
            let items_there = items.iter().skip(start).take(size).copied().collect::<Vec<_>>();
            given += items_there.len();
            let total = tells_total.then_some(items.len() as u64);
            answers.push(Ok(page(&items_there).total(total)));
            for change in gaps.get(number).into_iter().flatten() {
                match change {
                    Change::Insert { .. } if tells_total && shrinks => {}
                    Change::Remove { .. } if !tells_total || !shrinks => {}
                    change => change.apply(&mut items, &mut next),
                }
            }
            let mut still = stayed[number].clone();
            still.retain(|item| items.contains(item));
            stayed.push(still);
        }
        let system = System::new(answers);
        let (read, step) = block_on(system.read(by, 30));
        let pages = system.asked.lock().unwrap().len();
        prop_assert!(step.error.is_none());
        if step.incomplete.is_empty() {
            // Before the last page, not after it.
            let stayed = &stayed[pages - 1];
            prop_assert!(stayed.iter().all(|item| read.contains(item)), "{read:?}, {stayed:?}");
        }
    }
}
