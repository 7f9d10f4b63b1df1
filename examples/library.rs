//! A made-up library: the system that the examples sync.

use std::time::Duration;

use parallax_connect::{Connector, ConnectorError, Step, StepContext, entity, relationship, step};

/// Reads a library's books and who has borrowed them.
pub(crate) struct Library;

const BOOKS: [(&str, &str, Option<&str>); 3] = [
    ("978-0131103627", "The C Programming Language", Some("ann")),
    (
        "978-0262510875",
        "Structure and Interpretation of Computer Programs",
        None,
    ),
    ("978-0201633610", "Design Patterns", Some("bob")),
];

impl Connector for Library {
    fn name(&self) -> &str {
        "library"
    }

    fn steps(&self) -> Vec<Step<'_>> {
        vec![
            step("books", "List books", |ctx| self.books(ctx)),
            step("loans", "List loans", |ctx| self.loans(ctx)).reads(["books"]),
            step("fines", "List fines", |ctx| self.fines(ctx)),
        ]
    }
}

impl Library {
    async fn books(&self, ctx: StepContext) -> Result<(), ConnectorError> {
        for (isbn, title, _) in BOOKS {
            ctx.emit(
                entity("library_book", isbn)
                    .class("Book")
                    .display_name(title),
            )?;
        }
        Ok(())
    }

    async fn loans(&self, ctx: StepContext) -> Result<(), ConnectorError> {
        for (isbn, _, borrower) in BOOKS {
            let (Some(borrower), Some(book)) =
                (borrower, ctx.prior().entity(("library_book", isbn)))
            else {
                continue;
            };
            tracing::debug!(borrower, "Loan found");
            let reader = entity("library_reader", borrower).class("User");
            ctx.emit(relationship(&reader, "BORROWED", book))?;
            ctx.emit(reader)?;
        }
        Ok(())
    }

    /// Fails, at once because the pause is so long: what was stored of the fines is kept, and
    /// everything else is committed.
    async fn fines(&self, _: StepContext) -> Result<(), ConnectorError> {
        Err(ConnectorError::RateLimited {
            service: "the accounting office".to_owned(),
            retry_after: Duration::from_secs(3_600),
        })
    }
}
