use futures::FutureExt;
use futures::future::{BoxFuture, join_all, try_join_all};
use parallax_core::{StepReport, SyncReport};
use proptest::prelude::*;
use tokio::time::{sleep, timeout};

use super::*;
use crate::scripted::Given;
use crate::{Retries, RunError, Runner, Step, step};

/// A system with a limit, and who was let through when.
struct Shop {
    limiter: RateLimiter,
    opened: Instant,
    passed: Mutex<Vec<String>>,
}

impl Shop {
    fn new(limiter: RateLimiter) -> Arc<Self> {
        Arc::new(Self {
            limiter,
            opened: Instant::now(),
            passed: Mutex::default(),
        })
    }

    async fn pass(&self, ctx: &StepContext, key: &str) -> Result<(), ConnectorError> {
        self.limiter.until_ready(ctx, key).await?;
        let millis = self.opened.elapsed().as_millis();
        let line = format!("{} {millis}", ctx.step_id());
        self.passed.lock().unwrap().push(line);
        Ok(())
    }

    fn passed(&self) -> String {
        self.passed.lock().unwrap().join(", ")
    }
}

type Act = fn(Arc<Shop>, StepContext) -> BoxFuture<'static, Result<(), ConnectorError>>;

/// Steps that each do something with the shop.
fn steps<const N: usize>(
    shop: &Arc<Shop>,
    acts: [(&'static str, Act); N],
) -> Given<impl Fn() -> Vec<Step<'static>> + Send + Sync + use<N>> {
    let shop = Arc::clone(shop);
    Given(move || {
        let steps = acts.map(|(id, act)| {
            let shop = Arc::clone(&shop);
            step(id, "", move |ctx| act(Arc::clone(&shop), ctx))
                .retries(Retries::up_to(1).first_pause(Duration::ZERO))
        });
        steps.into()
    })
}

async fn run<const N: usize>(shop: &Arc<Shop>, acts: [(&'static str, Act); N]) -> SyncReport {
    let given = steps(shop, acts);
    let output = Runner::new(&given).run("acme", "sync-001").await.unwrap();
    output.report().clone()
}

/// Tells of each step how it ended and how long it was held up.
fn told(report: &SyncReport) -> String {
    let steps = report.steps().iter().map(|step| {
        let StepReport {
            step_id,
            throttled,
            duration,
            ..
        } = step;
        let error = step.error.as_ref().map(|error| format!(" ({error})"));
        format!(
            "{step_id}: {}{}, throttled {throttled:?} of {duration:?}",
            step.status.as_str(),
            error.unwrap_or_default()
        )
    });
    steps.collect::<Vec<_>>().join("\n")
}

fn per_second(requests: u32) -> RateLimiter {
    RateLimiter::new(requests, Duration::from_secs(1))
}

const THREE: Act = |shop, ctx| {
    async move {
        for _ in 0..3 {
            shop.pass(&ctx, "api").await?;
        }
        Ok(())
    }
    .boxed()
};

#[tokio::test(start_paused = true)]
async fn steps_share_the_rate_of_a_key_and_go_in_turn() {
    let shop = Shop::new(per_second(10));
    let elsewhere: Act = |shop, ctx| async move { shop.pass(&ctx, "other").await }.boxed();
    let report = run(&shop, [("a", THREE), ("b", THREE), ("c", elsewhere)]).await;
    assert_eq!(shop.passed(), "a 0, c 0, a 100, b 200, a 300, b 400, b 500");
    insta::assert_snapshot!(told(&report), @"
    a: completed, throttled 300ms of 300ms
    b: completed, throttled 500ms of 500ms
    c: completed, throttled 0ns of 0ns
    ");
}

#[tokio::test(start_paused = true)]
async fn after_a_rest_a_burst_may_pass_at_once() {
    let shop = Shop::new(per_second(10).burst(3));
    let act: Act = |shop, ctx| {
        async move {
            for _ in 0..4 {
                shop.pass(&ctx, "api").await?;
            }
            sleep(Duration::from_millis(250)).await;
            for _ in 0..4 {
                shop.pass(&ctx, "api").await?;
            }
            Ok(())
        }
        .boxed()
    };
    run(&shop, [("a", act)]).await;
    // A quarter of a second has made room for two and a half.
    assert_eq!(
        shop.passed(),
        "a 0, a 0, a 0, a 100, a 350, a 350, a 400, a 500"
    );
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_one_step_is_asked_for_holds_all_of_its_key() {
    let shop = Shop::new(per_second(10));
    let asked: Act = |shop, ctx| {
        async move {
            shop.pass(&ctx, "api").await?;
            sleep(Duration::from_millis(150)).await;
            shop.limiter.pause("api", Duration::from_secs(10));
            // Shortens nothing.
            shop.limiter.pause("api", Duration::from_secs(1));
            shop.pass(&ctx, "api").await
        }
        .boxed()
    };
    let other: Act = |shop, ctx| {
        async move {
            sleep(Duration::from_secs(1)).await;
            shop.pass(&ctx, "other").await
        }
        .boxed()
    };
    let report = run(&shop, [("asked", asked), ("b", THREE), ("c", other)]).await;
    // b was asleep before its second request when the pause began.
    assert_eq!(
        shop.passed(),
        "asked 0, b 100, c 1000, b 10150, asked 10250, b 10350"
    );
    insta::assert_snapshot!(told(&report), @"
    asked: completed, throttled 10.1s of 10.25s
    b: completed, throttled 10.35s of 10.35s
    c: completed, throttled 0ns of 1s
    ");
}

#[tokio::test(start_paused = true)]
async fn a_pause_of_more_than_five_minutes_fails_all_who_would_wait_for_it() {
    let shop = Shop::new(per_second(10));
    let asked: Act = |shop, ctx| {
        async move {
            shop.pass(&ctx, "api").await?;
            shop.limiter.pause("api", Duration::MAX);
            shop.limiter.pause("other", Duration::from_secs(300));
            shop.pass(&ctx, "other").await
        }
        .boxed()
    };
    let report = run(&shop, [("asked", asked), ("b", THREE), ("c", THREE)]).await;
    assert_eq!(shop.passed(), "asked 0, asked 300000");
    let reasons: Vec<_> = report.steps().iter().map(StepReport::reason).collect();
    let paused = Some("api asked for a pause of 946080000s".to_owned());
    assert_eq!(reasons, [None, paused.clone(), paused]);
    let attempts: Vec<_> = report.steps().iter().map(|step| step.attempts).collect();
    assert_eq!(attempts, [1, 1, 1], "nobody comes back for more");
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_waiting_takes_no_turn() {
    let shop = Shop::new(per_second(10));
    let act: Act = |shop, ctx| {
        async move {
            shop.pass(&ctx, "api").await?;
            // The first is at the head of the queue, the second behind it.
            let brief = |millis| timeout(Duration::from_millis(millis), shop.pass(&ctx, "api"));
            let (first, second, third) = tokio::join!(brief(50), brief(60), shop.pass(&ctx, "api"));
            assert!(first.is_err() && second.is_err());
            third
        }
        .boxed()
    };
    let report = run(&shop, [("a", act)]).await;
    assert_eq!(shop.passed(), "a 0, a 100");
    // Three waited, but a step is held up by them once.
    insta::assert_snapshot!(told(&report), @"a: completed, throttled 100ms of 100ms");
}

#[tokio::test(start_paused = true)]
async fn what_failed_attempts_waited_counts() {
    let shop = Shop::new(per_second(1));
    let fails_once: Act = |shop, ctx| {
        async move {
            shop.pass(&ctx, "api").await?;
            shop.pass(&ctx, "api").await?;
            match shop.passed.lock().unwrap().len() {
                2 => Err(ConnectorError::retryable("connection reset")),
                _ => Ok(()),
            }
        }
        .boxed()
    };
    let report = run(&shop, [("a", fails_once)]).await;
    assert_eq!(shop.passed(), "a 0, a 1000, a 2000, a 3000");
    insta::assert_snapshot!(told(&report), @"a: completed, throttled 3s of 3s");

    // The attempts end while they wait.
    let shop = Shop::new(per_second(1));
    let given = steps(&shop, [("a", THREE)]);
    let runner = Runner::new(&given).timeout(Duration::from_millis(500));
    let output = runner.run("acme", "sync-001").await.unwrap();
    assert_eq!(shop.passed(), "a 0, a 1000");
    insta::assert_snapshot!(told(output.report()), @"a: failed (timed out after 500ms), throttled 1s of 1s");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_still_waits_holds_up_its_step_to_its_end_only() {
    let shop = Shop::new(per_second(1));
    let act: Act = |shop, ctx| {
        async move {
            shop.pass(&ctx, "api").await?;
            let left = ctx.clone();
            tokio::spawn(async move { shop.limiter.until_ready(&left, "api").await });
            sleep(Duration::from_millis(10)).await;
            Ok(())
        }
        .boxed()
    };
    let after: Act = |_, _| sleep(Duration::from_secs(60)).map(Ok).boxed();
    let report = run(&shop, [("a", act), ("b", after)]).await;
    insta::assert_snapshot!(told(&report), @"
    a: completed, throttled 10ms of 10ms
    b: completed, throttled 0ns of 60s
    ");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_run_waits_for_no_turn() {
    let shop = Shop::new(per_second(1));
    let given = steps(&shop, [("a", THREE), ("b", THREE)]);
    let stop = sleep(Duration::from_millis(1_500));
    let runner = Runner::new(&given)
        .cancel_on(stop)
        .grace(Duration::from_secs(60));
    let error = runner.run("acme", "sync-001").await.unwrap_err();
    assert!(matches!(error, RunError::Cancelled { .. }), "{error}");
    assert_eq!(shop.opened.elapsed(), Duration::from_millis(1_500));
    assert_eq!(shop.passed(), "a 0, a 1000");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_run_makes_no_other_request() {
    let shop = Shop::new(per_second(1));
    let polite: Act = |shop, ctx| {
        async move {
            ctx.cancelled().await;
            shop.pass(&ctx, "api").await
        }
        .boxed()
    };
    let given = steps(&shop, [("a", polite)]);
    let stop = sleep(Duration::from_secs(1));
    let runner = Runner::new(&given)
        .cancel_on(stop)
        .grace(Duration::from_secs(60));
    runner.run("acme", "sync-001").await.unwrap_err();
    assert_eq!(shop.passed(), "");
}

#[tokio::test(start_paused = true)]
async fn no_rate_is_too_odd() {
    for (limiter, expected) in [
        (per_second(0).burst(0), "a 0, a 1000, a 2000"),
        (RateLimiter::new(7, Duration::ZERO), "a 0, a 0, a 0"),
        (
            RateLimiter::new(1, Duration::MAX).burst(u32::MAX),
            "a 0, a 0, a 0",
        ),
    ] {
        let shop = Shop::new(limiter);
        run(&shop, [("a", THREE)]).await;
        assert_eq!(shop.passed(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_rate_beyond_the_timer_is_reached() {
    let shop = Shop::new(per_second(10_000));
    let act: Act = |shop, ctx| {
        async move {
            for _ in 0..100 {
                shop.limiter.until_ready(&ctx, "api").await?;
            }
            Ok(())
        }
        .boxed()
    };
    run(&shop, [("a", act)]).await;
    // Twenty at once, then ten in each millisecond.
    assert_eq!(shop.opened.elapsed(), Duration::from_millis(8));
}

#[tokio::test(start_paused = true)]
async fn a_key_at_rest_takes_no_memory() {
    let shop = Shop::new(per_second(1_000));
    shop.limiter.pause("paused", Duration::from_secs(60));
    let act: Act = |shop, ctx| {
        async move {
            for n in 0..10_000 {
                shop.limiter.until_ready(&ctx, &n.to_string()).await?;
                if n % 100 == 0 {
                    sleep(Duration::from_millis(1)).await;
                }
            }
            Ok(())
        }
        .boxed()
    };
    run(&shop, [("a", act)]).await;
    let lanes = shop.limiter.lanes();
    assert!(lanes.by_key.len() < 1_000, "{}", lanes.by_key.len());
    assert!(lanes.by_key.contains_key("paused"));
}

#[tokio::test(start_paused = true)]
async fn a_key_rests_once_nobody_waits_and_nothing_is_owed() {
    let now = Instant::now();
    let later = now + Duration::from_secs(1);
    assert!(Lane::new().is_at_rest(now));
    let busy = Lane {
        busy_until: later,
        ..Lane::new()
    };
    let paused = Lane {
        paused_until: later,
        ..Lane::new()
    };
    let awaited = Lane::new();
    let _waits = Arc::clone(&awaited.queue);
    for lane in [busy, paused, awaited] {
        assert!(!lane.is_at_rest(now));
    }
}

/// When each request of one key may pass: at the earliest so that no `burst + 1` of them are within
/// `burst` intervals.
fn model(arrivals: &[u64], interval: u64, burst: usize) -> Vec<u64> {
    let mut credit = burst as u64 * interval;
    let mut now = 0;
    let mut passed = Vec::new();
    for arrival in arrivals {
        let next = now.max(*arrival);
        credit = (credit + next - now).min(burst as u64 * interval);
        let wait = interval.saturating_sub(credit);
        credit = credit + wait - interval;
        now = next + wait;
        passed.push(now);
    }
    passed
}

proptest! {
    #[test]
    fn requests_pass_in_order_and_as_soon_as_the_rate_allows(
        gaps in prop::collection::vec((0..200_u64, 0..2_usize), 1..40),
        interval in 2..100_u64,
        burst in 1..5_usize,
    ) {
        let mut arrivals = [Vec::new(), Vec::new()];
        let mut now = 0;
        for (gap, key) in gaps {
            // Two at one time have no order.
            now += gap + 1;
            arrivals[key].push(now);
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let passed = runtime.block_on(async {
            let limiter = RateLimiter::new(1, Duration::from_millis(interval));
            let limiter = Arc::new(limiter.burst(u32::try_from(burst).unwrap()));
            let passed: Arc<Mutex<[Vec<u64>; 2]>> = Arc::default();
            let (arrivals, noted) = (arrivals.clone(), Arc::clone(&passed));
            let given = Given(move || {
                let (limiter, noted) = (Arc::clone(&limiter), Arc::clone(&noted));
                let arrivals = arrivals.clone();
                vec![step("a", "", move |ctx: StepContext| {
                    let (limiter, noted) = (Arc::clone(&limiter), Arc::clone(&noted));
                    let arrivals = arrivals.clone();
                    async move {
                        let start = Instant::now();
                        let (ctx, limiter, noted) = (&ctx, &limiter, &noted);
                        let requests = (0..2).map(|key| {
                            let requests = arrivals[key].iter().map(move |arrival| async move {
                                sleep(Duration::from_millis(*arrival)).await;
                                limiter.until_ready(ctx, ["x", "y"][key]).await?;
                                let at = u64::try_from(start.elapsed().as_millis()).unwrap();
                                noted.lock().unwrap()[key].push(at);
                                Ok(())
                            });
                            try_join_all(requests)
                        });
                        let ends: Result<Vec<_>, ConnectorError> =
                            join_all(requests).await.into_iter().collect();
                        ends.map(drop)
                    }
                })]
            });
            let output = Runner::new(&given).run("acme", "sync-001").await.unwrap();
            assert!(output.report().is_complete());
            passed.lock().unwrap().clone()
        });
        for (arrivals, passed) in arrivals.iter().zip(&passed) {
            prop_assert_eq!(passed, &model(arrivals, interval, burst));
        }
    }
}
