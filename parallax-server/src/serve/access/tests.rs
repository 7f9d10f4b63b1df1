use tempfile::TempDir;

use super::*;
use crate::serve::api::Server;
use crate::serve::pages::Pages;
use crate::serve::router;
use crate::serve::testing::{answer, body, header};

/// Tokens, as they are sent: that for reading, that for everything.
struct Given {
    read: String,
    admin: String,
    _directory: TempDir,
}

fn tokens() -> (Tokens, Given) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokens");
    let tokens = Tokens::read_or_make(&path).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let token = |name| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        format!("Bearer {}", line.unwrap().trim())
    };
    let given = Given {
        read: token("read"),
        admin: token("admin"),
        _directory: directory,
    };
    (tokens, given)
}

fn served(access: Access) -> axum::Router {
    let server = Server::new(Arc::new(Pages::new(|_| String::new())));
    router(&Arc::new(server), access)
}

/// Says in a few words how a request was answered. What has passed finds that nothing is ready yet.
async fn told(
    router: &axum::Router,
    method: &Method,
    path: &str,
    headers: &[(&str, &str)],
) -> String {
    let response = answer(router, method.clone(), path, headers).await;
    let status = response.status().as_u16();
    let challenge = header(&response, "www-authenticate");
    assert_eq!(challenge == "Bearer", status == 401, "{method} {path}");
    let problem: serde_json::Value =
        serde_json::from_str(&body(response).await).unwrap_or_default();
    let (code, field) = (&problem["code"], &problem["field"]);
    match (code.as_str(), field.as_str()) {
        (Some("unavailable"), _) => "ok".to_owned(),
        (Some(code), Some(field)) => format!("{status} {code} ({field})"),
        (Some(code), None) => format!("{status} {code}"),
        _ if status == 200 || status == 503 => "ok".to_owned(),
        // To HEAD nothing more is said.
        _ => status.to_string(),
    }
}

#[test]
fn health_is_told_to_whoever_names_no_host() {
    let access = Access::new(None, false);
    for (path, is_told) in [
        ("/livez", true),
        ("/readyz", true),
        ("/metrics", false),
        ("/api/v1/sources", false),
    ] {
        let request = Request::builder().uri(path).body(Body::empty());
        assert_eq!(access.judge(&request.unwrap()).is_ok(), is_told, "{path}");
    }
}

#[tokio::test]
async fn whoever_has_which_token_may_do_what() {
    let (tokens, given) = tokens();
    let (open_tokens, open_given) = self::tokens();
    let open = (served(Access::new(Some(open_tokens), false)), open_given);
    let protected = (served(Access::new(Some(tokens), true)), given);
    let (get, post) = (Method::GET, Method::POST);
    let requests = [
        (&get, "/livez"),
        (&get, "/metrics"),
        (&get, "/api/v1/sources"),
        (&Method::HEAD, "/api/v1/sources"),
        (&post, "/api/v1/changesets/1/approve"),
        (&Method::DELETE, "/api/v1/sources/team/acme"),
        (&Method::PUT, "/api/v1/sources"),
    ];
    let mut lines = Vec::new();
    for (name, (router, given)) in [("open", &open), ("protected", &protected)] {
        let wrong = format!("Bearer {}", "0".repeat(64));
        let lower = given.admin.replace("Bearer", "bEARER");
        let basic = given.admin.replace("Bearer", "Basic");
        let two = (
            ("authorization", &*given.admin),
            ("authorization", &*given.read),
        );
        let callers: [(&str, &[(&str, &str)]); 8] = [
            ("nobody", &[]),
            ("reader", &[("authorization", &given.read)]),
            ("admin", &[("authorization", &given.admin)]),
            ("admin, bEARER", &[("authorization", &lower)]),
            ("wrong token", &[("authorization", &wrong)]),
            ("no token", &[("authorization", "Bearer")]),
            ("Basic", &[("authorization", &basic)]),
            ("two tokens", &[two.0, two.1]),
        ];
        for (caller, headers) in callers {
            let mut answers = Vec::new();
            for (method, path) in requests {
                let told = told(router, method, path, headers).await;
                answers.push(told.split(' ').next().unwrap_or_default().to_owned());
            }
            lines.push(format!("{name}, {caller}: {}", answers.join(" ")));
        }
    }
    insta::assert_snapshot!(lines.join("\n"), @"
    open, nobody: ok ok ok ok 401 401 401
    open, reader: ok ok ok ok 403 403 403
    open, admin: ok ok ok ok ok ok 405
    open, admin, bEARER: ok ok ok ok ok ok 405
    open, wrong token: 401 401 401 401 401 401 401
    open, no token: 401 401 401 401 401 401 401
    open, Basic: 401 401 401 401 401 401 401
    open, two tokens: 401 401 401 401 401 401 401
    protected, nobody: ok 401 401 401 401 401 401
    protected, reader: ok ok ok ok 403 403 403
    protected, admin: ok ok ok ok ok ok 405
    protected, admin, bEARER: ok ok ok ok ok ok 405
    protected, wrong token: 401 401 401 401 401 401 401
    protected, no token: 401 401 401 401 401 401 401
    protected, Basic: 401 401 401 401 401 401 401
    protected, two tokens: 401 401 401 401 401 401 401
    ");
}

#[tokio::test]
async fn page_of_another_name_or_origin_is_refused() {
    let (tokens, given) = tokens();
    let router = served(Access::new(Some(tokens), false));
    let (get, post) = (Method::GET, Method::POST);
    let admin = ("authorization", &*given.admin);
    let mut lines = Vec::new();
    for host in [
        "127.0.0.1:7700",
        "localhost",
        "LOCALHOST:7700",
        "[::1]:7700",
        "[::1]",
        "192.168.1.7:7700",
        "evil.example",
        "evil.example:7700",
        "127.0.0.1.evil.example",
        "localhost.evil.example:7700",
        "[::1].evil.example",
        "2130706433",
        "0x7f.1",
        "127.0.0.1:77:00",
        "",
    ] {
        let told = told(&router, &get, "/api/v1/sources", &[("host", host)]).await;
        lines.push(format!("{host:?}: {told}"));
    }
    let doubled = [("host", "127.0.0.1"), ("host", "evil.example")];
    lines.push(format!(
        "two: {}",
        told(&router, &get, "/metrics", &doubled).await
    ));
    let named = [("host", "parallax.example"), admin];
    lines.push(format!(
        "named, with a token: {}",
        told(&router, &get, "/metrics", &named).await
    ));
    for path in ["/", "/livez", "/assets/page.js", "/assets"] {
        let told = told(&router, &get, path, &[named[0]]).await;
        lines.push(format!("named, without: {path}: {told}"));
    }
    let post = |origin: &'static str| {
        let headers = [("host", "127.0.0.1:7700"), admin, ("origin", origin)];
        let (router, post) = (router.clone(), post.clone());
        async move { told(&router, &post, "/api/v1/changesets/1/reject", &headers).await }
    };
    for origin in [
        "http://127.0.0.1:7700",
        "https://127.0.0.1:7700",
        "http://127.0.0.1:7701",
        "http://localhost:7700",
        "http://evil.example",
        "http://127.0.0.1:7700.evil.example",
        "http://evil.example/http://127.0.0.1:7700",
        "null",
        "127.0.0.1:7700",
        "",
    ] {
        lines.push(format!("from {origin:?}: {}", post(origin).await));
    }
    insta::assert_snapshot!(lines.join("\n"), @r#"
    "127.0.0.1:7700": ok
    "localhost": ok
    "LOCALHOST:7700": ok
    "[::1]:7700": ok
    "[::1]": ok
    "192.168.1.7:7700": ok
    "evil.example": 421 wrong_host (Host)
    "evil.example:7700": 421 wrong_host (Host)
    "127.0.0.1.evil.example": 421 wrong_host (Host)
    "localhost.evil.example:7700": 421 wrong_host (Host)
    "[::1].evil.example": 421 wrong_host (Host)
    "2130706433": 421 wrong_host (Host)
    "0x7f.1": 421 wrong_host (Host)
    "127.0.0.1:77:00": 421 wrong_host (Host)
    "": 421 wrong_host (Host)
    two: 400 wrong_host (Host)
    named, with a token: ok
    named, without: /: ok
    named, without: /livez: ok
    named, without: /assets/page.js: 404 no_such_place
    named, without: /assets: 421 wrong_host (Host)
    from "http://127.0.0.1:7700": ok
    from "https://127.0.0.1:7700": ok
    from "http://127.0.0.1:7701": 403 wrong_origin (Origin)
    from "http://localhost:7700": 403 wrong_origin (Origin)
    from "http://evil.example": 403 wrong_origin (Origin)
    from "http://127.0.0.1:7700.evil.example": 403 wrong_origin (Origin)
    from "http://evil.example/http://127.0.0.1:7700": 403 wrong_origin (Origin)
    from "null": 403 wrong_origin (Origin)
    from "127.0.0.1:7700": 403 wrong_origin (Origin)
    from "": 403 wrong_origin (Origin)
    "#);
}

#[tokio::test]
async fn over_tls_a_page_that_came_in_the_clear_is_of_another_origin() {
    let (tokens, given) = tokens();
    let router = served(Access::new(Some(tokens), true).over_tls(true));
    let headers = |origin| {
        [
            ("authorization", &*given.admin),
            ("host", "parallax.example:7700"),
            ("origin", origin),
        ]
    };
    let path = "/api/v1/changesets/1/approve";
    for (origin, expected) in [
        ("https://parallax.example:7700", "ok"),
        ("http://parallax.example:7700", "403 wrong_origin (Origin)"),
        ("https://parallax.example", "403 wrong_origin (Origin)"),
    ] {
        let told = told(&router, &Method::POST, path, &headers(origin)).await;
        assert_eq!(told, expected, "{origin}");
    }
}

#[tokio::test]
async fn bodies_are_refused_by_their_headers() {
    let (tokens, given) = tokens();
    let router = served(Access::new(Some(tokens), false));
    let admin = ("authorization", &*given.admin);
    let mut lines = Vec::new();
    for body in [
        ("content-length", "0"),
        ("content-length", "1048576"),
        ("content-length", "1048577"),
        ("content-length", "99999999999999999999999999"),
        ("content-encoding", "gzip"),
        ("content-encoding", "identity"),
    ] {
        let path = "/api/v1/changesets/1/reject";
        let told = told(&router, &Method::POST, path, &[admin, body]).await;
        lines.push(format!("{}: {}: {told}", body.0, body.1));
    }
    insta::assert_snapshot!(lines.join("\n"), @"
    content-length: 0: ok
    content-length: 1048576: ok
    content-length: 1048577: 413 body_too_large (Content-Length)
    content-length: 99999999999999999999999999: 413 body_too_large (Content-Length)
    content-encoding: gzip: 415 compressed_body (Content-Encoding)
    content-encoding: identity: ok
    ");
}

#[tokio::test]
async fn nothing_is_changed_where_there_is_no_token() {
    let router = served(Access::new(None, false));
    let path = "/api/v1/changesets/1/reject";
    let token = format!("Bearer {}", "0".repeat(64));
    let none = told(&router, &Method::POST, path, &[]).await;
    assert_eq!(none, "403 no_tokens");
    let some = told(&router, &Method::POST, path, &[("authorization", &token)]).await;
    assert_eq!(some, "401 unauthorized (Authorization)");
}

#[tokio::test]
async fn every_answer_tells_browsers_what_to_keep_to() {
    let router = served(Access::new(None, false));
    for (path, host) in [
        ("/livez", "localhost"),
        ("/nothing", "localhost"),
        ("/metrics", "evil"),
    ] {
        let response = answer(&router, Method::GET, path, &[("host", host)]).await;
        assert!(header(&response, "content-security-policy").contains("frame-ancestors 'none'"));
        assert_eq!(header(&response, "x-content-type-options"), "nosniff");
        assert_eq!(header(&response, "cache-control"), "no-store");
        assert_eq!(header(&response, "access-control-allow-origin"), "-");
    }
}
