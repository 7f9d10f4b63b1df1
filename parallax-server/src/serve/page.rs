//! The dashboard: files that are part of the program.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use blake3::Hasher;

use crate::serve::api;

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// What stands in the page for the version of its files.
const VERSION: &str = "{version}";
const INDEX: &str = include_str!("page/index.html");

macro_rules! assets {
    ($($name:literal: $content_type:expr,)*) => {
        /// The other files: name, content type, content.
        const ASSETS: &[(&str, &str, &str)] =
            &[$(($name, $content_type, include_str!(concat!("page/", $name))),)*];
    };
}

assets! {
    "api.js": JAVASCRIPT,
    "app.js": JAVASCRIPT,
    "chart.js": JAVASCRIPT,
    "dom.js": JAVASCRIPT,
    "explore.js": JAVASCRIPT,
    "format.js": JAVASCRIPT,
    "held.js": JAVASCRIPT,
    "icon.svg": "image/svg+xml",
    "live.js": JAVASCRIPT,
    "now.js": JAVASCRIPT,
    "parts.js": JAVASCRIPT,
    "run.js": JAVASCRIPT,
    "sources.js": JAVASCRIPT,
    "style.css": "text/css; charset=utf-8",
    "sync.js": JAVASCRIPT,
    "syncs.js": JAVASCRIPT,
}

/// The page, which names the version of the files that belong to it.
struct Front {
    version: String,
    tag: String,
    html: String,
    /// What is sent of each file.
    assets: Vec<Asset>,
}

struct Asset {
    name: &'static str,
    content_type: &'static str,
    content: String,
}

/// Routes to the page and its files.
///
/// The version of the files is part of their addresses. So browsers keep them for good, and a page
/// of one program never gets a file of another.
pub(super) fn router() -> Router {
    let version = version();
    let front = Front {
        tag: format!("\"{version}\""),
        html: INDEX.replace(VERSION, &version),
        version,
        assets: assets().collect(),
    };
    Router::new()
        .route("/", get(page))
        .route("/assets/{version}/{name}", get(asset))
        .with_state(Arc::new(front))
}

fn assets() -> impl Iterator<Item = Asset> {
    ASSETS.iter().map(|&(name, content_type, content)| Asset {
        name,
        content_type,
        content: match content_type.starts_with("text/css") {
            true => terse_style(content),
            false => terse(content),
        },
    })
}

/// Leaves the spaces out, too, that a style sheet needs for people only.
fn terse_style(file: &str) -> String {
    let pairs = [(": ", ":"), (" {", "{"), (", ", ",")];
    let style = terse(file);
    pairs
        .iter()
        .fold(style, |style, (wide, narrow)| style.replace(wide, narrow))
}

/// Leaves out what is there for people: the comments that have a line of their own, and the
/// indentation. Each line keeps its number. No text in the files spans lines.
fn terse(file: &str) -> String {
    let mut is_comment = false;
    let lines = file.lines().map(|line| {
        let line = line.trim_start();
        let begins = line.starts_with("/*");
        let is_left_out = is_comment || begins || line.starts_with("//");
        is_comment = (is_comment || begins) && !line.ends_with("*/");
        if is_left_out { "" } else { line }
    });
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// Returns a hash of all that is sent.
fn version() -> String {
    let mut hasher = Hasher::new();
    hasher.update(INDEX.as_bytes());
    for Asset { name, content, .. } in assets() {
        hasher.update(name.as_bytes()).update(content.as_bytes());
    }
    hasher.finalize().to_hex().chars().take(16).collect()
}

async fn page(State(front): State<Arc<Front>>, headers: HeaderMap) -> Response {
    let caching = [(CACHE_CONTROL, "no-cache"), (ETAG, &front.tag)];
    let known = headers.get_all(IF_NONE_MATCH).iter();
    if known.into_iter().any(|tag| tag == front.tag.as_str()) {
        return (StatusCode::NOT_MODIFIED, caching).into_response();
    }
    let content_type = [(CONTENT_TYPE, "text/html; charset=utf-8")];
    (caching, content_type, front.html.clone()).into_response()
}

async fn asset(
    State(front): State<Arc<Front>>,
    Path((version, name)): Path<(String, String)>,
) -> Response {
    let found = front.assets.iter().find(|asset| asset.name == name);
    match found.filter(|_| version == front.version) {
        Some(asset) => {
            let headers = [
                (CONTENT_TYPE, asset.content_type),
                (CACHE_CONTROL, "public, max-age=31536000, immutable"),
            ];
            (headers, asset.content.clone()).into_response()
        }
        None => api::no_such_place().await.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Method;

    use super::*;
    use crate::serve::testing::{answer, body, header};

    /// All of it, as it is sent.
    const MOST: usize = 100 << 10;

    #[test]
    fn page_is_small_and_all_of_it_is_served() {
        let size: usize = assets().map(|asset| asset.content.len()).sum();
        assert!(size + INDEX.len() < MOST, "{} bytes", size + INDEX.len());
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/src/serve/page");
        let files = std::fs::read_dir(directory).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name != "index.html").collect();
        names.sort();
        let served: Vec<_> = ASSETS.iter().map(|(name, ..)| *name).collect();
        assert_eq!(names, served);
    }

    #[test]
    fn files_are_sent_without_comments_and_indentation() {
        let script = "// A\nf();\n  /** B\n   * C */\n  g(); // D\n/** E */\n  `h`;\n";
        assert_eq!(terse(script), "\nf();\n\n\ng(); // D\n\n`h`;\n");
        let style = "a:hover, b > c {\n  margin: 0 calc(1px + 2px);\n}\n";
        let terse = "a:hover,b > c{\nmargin:0 calc(1px + 2px);\n}\n";
        assert_eq!(terse_style(style), terse);
        for (name, _, content) in ASSETS {
            for line in content.lines() {
                assert_eq!(line.matches('`').count() % 2, 0, "{name}: {line}");
            }
        }
    }

    #[tokio::test]
    async fn page_is_asked_for_again_and_its_files_are_kept() {
        let router = router();
        let version = version();
        let style = format!("/assets/{version}/style.css");
        let tag = format!("\"{version}\"");
        let mut lines = Vec::new();
        for (path, known) in [
            ("/", "\"other\""),
            ("/", &tag),
            (&style, ""),
            ("/assets/0123456789abcdef/style.css", ""),
            (&format!("/assets/{version}/page.rs"), ""),
        ] {
            let response = answer(&router, Method::GET, path, &[("if-none-match", known)]).await;
            let (content_type, caching, tag) = (
                header(&response, "content-type"),
                header(&response, "cache-control"),
                header(&response, "etag"),
            );
            let status = response.status().as_u16();
            let length = body(response).await.len().min(1);
            let line = format!("{path}: {status} {content_type} {caching} {tag} {length}");
            lines.push(line.replace(&version, "V"));
        }
        insta::assert_snapshot!(lines.join("\n"), @r#"
        /: 200 text/html; charset=utf-8 no-cache "V" 1
        /: 304 - no-cache "V" 0
        /assets/V/style.css: 200 text/css; charset=utf-8 public, max-age=31536000, immutable - 1
        /assets/0123456789abcdef/style.css: 404 application/problem+json - - 1
        /assets/V/page.rs: 404 application/problem+json - - 1
        "#);
    }

    #[test]
    fn page_names_its_files_and_has_no_script_or_style_of_its_own() {
        assert_eq!(INDEX.matches(VERSION).count(), 4);
        assert!(!INDEX.contains("<style") && !INDEX.contains("style="));
        assert_eq!(INDEX.matches("<script").count(), 1);
        assert_eq!(
            INDEX.matches("src=").count(),
            INDEX.matches("src=\"/assets/").count()
        );
    }
}
