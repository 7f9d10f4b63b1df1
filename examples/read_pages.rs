//! Reads an API that answers in pages, no faster than it allows, and notices when it goes round in
//! circles.
#![allow(clippy::print_stdout, reason = "what the example is for")]

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parallax_connect::{
    Connector, ConnectorError, Page, Pager, RateLimiter, RunError, Step, StepContext, entity,
    run_connector, step,
};

/// A made-up API: it gives two items at a time, and the token of the next page.
#[derive(Default)]
struct Api {
    requests: AtomicU32,
}

enum Answer {
    Items {
        items: Vec<u64>,
        next_token: Option<String>,
    },
    /// "Too many requests", with the time to wait.
    SlowDown(Duration),
}

impl Api {
    async fn list(&self, what: &str, token: Option<&str>) -> Answer {
        if self.requests.fetch_add(1, Ordering::Relaxed) == 3 {
            return Answer::SlowDown(Duration::from_millis(50));
        }
        let page: u64 = token.and_then(|token| token.parse().ok()).unwrap_or(0);
        let next_token = match (what, page) {
            // A defect of the API: its third page leads back to the second.
            ("shelves", 2) => Some("1".to_owned()),
            (_, 3) => None,
            _ => Some((page + 1).to_string()),
        };
        Answer::Items {
            items: vec![2 * page, 2 * page + 1],
            next_token,
        }
    }
}

struct Warehouse {
    api: Api,
    limiter: RateLimiter,
}

impl Connector for Warehouse {
    fn name(&self) -> &str {
        "warehouse"
    }

    fn steps(&self) -> Vec<Step<'_>> {
        vec![
            step("crates", "Collect crates", |ctx| {
                self.collect(ctx, "crates", "warehouse_crate")
            }),
            step("shelves", "Collect shelves", |ctx| {
                self.collect(ctx, "shelves", "warehouse_shelf")
            }),
        ]
    }
}

impl Warehouse {
    async fn collect(
        &self,
        ctx: StepContext,
        what: &str,
        entity_type: &'static str,
    ) -> Result<(), ConnectorError> {
        let ctx = &ctx;
        let mut pages = Pager::by_token(ctx, |token| self.page(ctx, what, token));
        while let Some(numbers) = pages.next().await? {
            for number in numbers {
                ctx.emit(entity(entity_type, number))?;
            }
        }
        Ok(())
    }

    async fn page(
        &self,
        ctx: &StepContext,
        what: &str,
        token: Option<String>,
    ) -> Result<Page<u64>, ConnectorError> {
        loop {
            self.limiter.until_ready(ctx, "warehouse").await?;
            match self.api.list(what, token.as_deref()).await {
                Answer::Items { items, next_token } => {
                    return Ok(Page::new(items, |number| number).next_token(next_token));
                }
                // Also for the other step, and then the same page is asked for again.
                Answer::SlowDown(pause) => self.limiter.pause("warehouse", pause),
            }
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), RunError> {
    let warehouse = Warehouse {
        api: Api::default(),
        limiter: RateLimiter::new(100, Duration::from_secs(1)),
    };
    let output = run_connector(&warehouse, "harbour", "monday", None).await?;
    for step in output.report().steps() {
        println!(
            "{}: {}, {} entities, held up for {} ms{}",
            step.step_id,
            step.status.as_str(),
            step.entities,
            step.throttled.as_millis(),
            step.reason()
                .map_or_else(String::new, |reason| format!(" ({reason})")),
        );
    }
    Ok(())
}
