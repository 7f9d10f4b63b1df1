use proptest::prelude::*;
use proptest::sample::select;

use super::*;

#[test]
fn a_url_shows_what_was_asked_for_and_not_by_whom() {
    for (given, shown) in [
        ("https://api.example/v1/users?page=2&per_page=100", ""),
        ("https://api.example:8443/v1/Orders.json#top", ""),
        ("https://[::1]:8443/@scope/name", ""),
        (
            "/users/550e8400-e29b-41d4-a716-446655440000/keys?since=2026-11-22T17:40:20Z",
            "",
        ),
        ("https://api.example/v1/token:revoke", ""),
        ("", ""),
        (
            "https://ann:pa%24s@api.example/?q=1",
            "https://***@api.example/?q=1",
        ),
        ("https://ghp_1@api.example", "https://***@api.example"),
        ("ftp://ann:a/b?c#d@files.example", "ftp://***@files.example"),
        // What looks like a port, and is the beginning of a password.
        ("postgres://app:12/34@db/x", "postgres://***@db/x"),
        ("https://ann:12#x@h", "https://***@h"),
        ("https://ann:12?x@h/y@z", "https://***@h/y@z"),
        ("https://ann:/x@h", "https://***@h"),
        ("app:12/34@db/x", "***@db/x"),
        ("https://api.example:8443/users/ann@x", ""),
        ("https://api.example:8443/?user=ann@x", ""),
        ("https://api.example:8443/a/b?c=ann@x", ""),
        ("https://api.example/@ann", ""),
        ("https://ann:a@b@c.example/x@y", "https://***@c.example/x@y"),
        ("ann:pass@db.example/main", "***@db.example/main"),
        (
            "https://a.example/?code=1&state=x&CLIENT_SECRET=2&sig=3",
            "https://a.example/?code=***&state=x&CLIENT_SECRET=***&sig=***",
        ),
        (
            "https://a.example/#access_token=1&expires_in=3600",
            "https://a.example/#access_token=***&expires_in=3600",
        ),
        (
            "https://a.example/x?X-Amz-Date=20261122T174020Z&X-Amz-Signature=0&X-Amz-Expires=9",
            "https://a.example/x?X-Amz-Date=20261122T174020Z&X-Amz-Signature=***&X-Amz-Expires=9",
        ),
        (
            "https://a.example/x;jsessionid=12?p=1&q=2",
            "https://a.example/x;jsessionid=***&q=2",
        ),
        (
            "https://a.example/?pass%77ord=1&p=2",
            "https://a.example/?pass%77ord=***&p=2",
        ),
        // A URL in a URL.
        (
            "https://a.example/?next=https%3A%2F%2Fb.example%2F%3Ftoken%3D1&p=2",
            "https://a.example/?next=***&p=2",
        ),
        (
            "https://a.example/?next=https%3A%2F%2Fb.example%2F%3Fpage%3D1&p=2",
            "",
        ),
        (
            "https://a.example/hooks/T024BE7LD/x8Kd92mQpLz71TrWcY0bVnE4/run?x=Ab3/x8Kd92mQpLz71TrWcY0bVnE4/d",
            "https://a.example/hooks/T024BE7LD/***/run?x=***",
        ),
    ] {
        let shown = if shown.is_empty() { given } else { shown };
        assert_eq!(url(given), shown);
    }
}

#[test]
fn what_is_encoded_too_often_or_too_long_is_hidden() {
    let encoded =
        |times: usize| format!("https://a.example/?q=a%{}20b&p=1", "25".repeat(times - 1));
    assert_eq!(url(&encoded(4)), encoded(4));
    assert_eq!(url(&encoded(5)), "https://a.example/?q=***&p=1");
    let long = |words: usize| format!("https://a.example/?q={}&p=1", "a%20".repeat(words));
    assert_eq!(url(&long(100)), long(100));
    assert_eq!(url(&long(3_000)), "https://a.example/?q=***&p=1");
}

#[test]
fn a_body_keeps_what_explains_the_error() {
    for (given, shown) in [
        ("password=…", ""),
        (
            "key=x-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----, b=z",
            "key=*** b=z",
        ),
        (
            "at x-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----, b=z",
            "at x***, b=z",
        ),
        (
            r#"{"error":"invalid_grant","code":"E401","key":"PROJ-1","request":"550e8400-e29b-41d4-a716-446655440000"}"#,
            "",
        ),
        (
            "HTTP 404: no route for GET /v1/projects/p1/zones/us-east1-b",
            "",
        ),
        ("Bearer token has expired; basic authentication is off", ""),
        (
            r#"{"password": "", "token": null, "author": "ann@example.com"}"#,
            "",
        ),
        ("S3BucketPolicyVersion2012 at 2026-11-22T17:40:20.123Z", ""),
        (
            r#"{"a":1,"password":"x\"y\\","b":"z"}"#,
            r#"{"a":1,"password":"***","b":"z"}"#,
        ),
        (
            r#"{"auth":{"user":"ann","p":["}",{}]},"pin": 1234, "b":2}"#,
            r#"{"auth":***,"pin": ***, "b":2}"#,
        ),
        (
            r#"{"log":"{\"secret\":\"x\\\"y\",\"b\":2}","c":3}"#,
            r#"{"log":"{\"secret\":\"***\",\"b\":2}","c":3}"#,
        ),
        (
            "{'api-key': 'it''s', 'b': 2} :token=>\"x y\" rest",
            "{'api-key': '***', 'b': 2} :token=>*** rest",
        ),
        (
            "grant_type=refresh&refresh_token=a%26b&user=ann&code=1",
            "grant_type=refresh&refresh_token=***&user=ann&code=***",
        ),
        (
            "GET / HTTP/1.1\r\nAuthorization: Digest u=\"x\", r=\"y\"\r\n z\nHost: a\nCookie: a=b; c=d\n\nhi",
            "GET / HTTP/1.1\r\nAuthorization: ***\nHost: a\nCookie: ***\n\nhi",
        ),
        (
            r#"sent "Bearer a.b-c_d~e+f/g==" and Basic QTpC, to it"#,
            r#"sent "Bearer ***" and Basic ***, to it"#,
        ),
        (
            "key:\n-----BEGIN RSA PRIVATE KEY-----\nMII/x\n-----END RSA PRIVATE KEY-----\nrest",
            "key:\n***\nrest",
        ),
        ("cut: -----BEGIN PRIVATE KEY-----\nMII", "cut: ***"),
        (
            "<a:Password Type=\"x\">y z</a:Password><b>c</b>",
            "<a:Password>***</a:Password><b>c</b>",
        ),
        (
            "db:\n  password: |\n    a b\n    c\nhost: d\nsecrets:\n- e\nport: 1",
            "db:\n  password: ***\nhost: d\nsecrets:***\nport: 1",
        ),
        ("password = a b\nuser = c", "password = ***\nuser = c"),
        (
            r#"{"url":"https://h/?token=a","x":1,"m":"Invalid token: a b","y":2}"#,
            r#"{"url":"https://h/?token=***","x":1,"m":"Invalid token: ***","y":2}"#,
        ),
        (
            r#"{"q":"token=","x":1} [{"name":"API_KEY","value":"a"},{"name":"x","value":"b"}]"#,
            r#"{"q":"token=","x":1} [{"name":"API_KEY","value":"***"},{"name":"x","value":"b"}]"#,
        ),
        (
            "at postgres://ann:p@db/main, bob:pw@host, ann@example.com",
            "at postgres://***@db/main, bob:***@host, ann@example.com",
        ),
        (
            "at postgres://ann:12#3@db/main and postgres://ann:12?3@db/main",
            "at postgres://***@db/main and postgres://***@db/main",
        ),
        (
            "id AKIAIOSFODNN7EXAMPLE wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            "id AKIAIOSFODNN7EXAMPLE ***",
        ),
        (
            "got eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmN",
            "got ***",
        ),
    ] {
        let shown = if shown.is_empty() { given } else { shown };
        assert_eq!(body(given), shown);
    }
}

#[test]
fn much_is_cut_and_takes_no_time() {
    let word = body(&"harmless ".repeat(1_000_000));
    assert_eq!(word.chars().count(), 496);
    assert!(word.ends_with("harmless …"), "{word}");
    // Each of these is bad for some way of looking for an end, and all of them together take about
    // as long as it takes to make them.
    for bad in [
        "password=",
        "\"password\":{",
        "\\",
        "://a:b",
        "-----BEGIN ",
        "%25",
        "<token ",
        "Bearer ",
        "token:\n ",
        "'",
        "\"",
        "a",
        "/",
        "é",
        "x@",
        "%3A%2F%2F",
    ] {
        let bad = bad.repeat(10_000_000 / bad.len());
        assert!(body(&bad).chars().count() <= CHARS + 1);
        assert!(url(&bad).chars().count() <= CHARS + 1);
    }
    // What is cut off a secret does not make it a harmless word.
    let cut = format!(
        "password={}x8Kd92mQpLz71TrWcY0bVnE4",
        "a".repeat(BYTES - 15)
    );
    assert_eq!(body(&format!("{cut} {cut}")), "password=");
    let cut = format!(
        "password={} x8Kd92mQpLz71TrWcY0bVnE4",
        "a".repeat(BYTES - 15)
    );
    assert_eq!(body(&cut), "password=*** ");
}

/// No part of it may come out.
const CANARY: &str = "Q7X";

/// The name of a secret, as somebody may write it.
fn name() -> impl Strategy<Value = String> {
    let names = &[
        "password",
        "Password",
        "DB_PASSWORD",
        "client_secret",
        "accessToken",
        "x-api-key",
        "X-Amz-Signature",
        "Authorization",
        "Set-Cookie",
        "sig",
        "user.pin",
        "sessionId",
        "PRIVATE-KEY",
        "mySasToken",
        "AccountKey",
        "userPw",
        "otp",
    ];
    select(names.as_slice()).prop_map(str::to_owned)
}

/// What stands around it.
fn noise() -> impl Strategy<Value = String> {
    let noise = &[
        "",
        " ",
        "\n",
        "{",
        "}",
        "\"a\":1,",
        "a=b&",
        "x",
        "don't ",
        "\\n",
        "[",
        "é…",
        "***",
        "<a>",
        "https://h/p?q=r ",
        "\"user\": \"ann\", ",
        "# ",
        "%20",
    ];
    proptest::collection::vec(select(noise.as_slice()), 0..4).prop_map(|noise| noise.concat())
}

fn percent(text: &str) -> String {
    let encoded = text.bytes().map(|b| match b {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(b).to_string(),
        _ => format!("%{b:02X}"),
    });
    encoded.collect()
}

fn quoted(text: &str) -> String {
    let escaped = text
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n");
    format!("\"{escaped}\"")
}

/// Puts a secret where secrets are found, and says whether all of it is a URL.
fn plant(place: u8, name: &str, secret: &str) -> String {
    let token: String = secret.chars().filter(char::is_ascii_alphanumeric).collect();
    let encoded = percent(secret);
    let json = format!("{{{}: {}, \"a\": 1}}", quoted(name), quoted(secret));
    match place {
        0 => json,
        1 => format!("{{\"log\":{}}}", quoted(&json)),
        2 => format!(
            "{{\"log\":{}}}",
            quoted(&format!("{{\"b\":{}}}", quoted(&json)))
        ),
        3 => format!(
            "{{\"{name}\":[{}, {{\"x\": {}}}]}}",
            quoted(secret),
            quoted(secret)
        ),
        4 => format!("a=b&{name}={encoded}&c=d"),
        5 => format!("\n{name}: {}\nHost: x", secret.replace('\n', "")),
        6 => format!("\n{name}:\n  {}\nb: c", secret.replace('\n', "\n  ")),
        7 => format!("Bearer {token}"),
        8 => format!("-----BEGIN PRIVATE KEY-----\n{secret}\n-----END PRIVATE KEY-----"),
        9 => format!(
            "<x:{name} t=\"1\">{}</x:{name}>",
            secret.replace('<', "&lt;")
        ),
        10 => format!("{{\"name\": \"{name}\", \"value\": {}}}", quoted(secret)),
        11 => format!("next={}", percent(&format!("https://h/?{name}={encoded}"))),
        12 => format!(
            "'{name}' => '{}'",
            secret.replace('\\', "").replace('\'', "''")
        ),
        13 => format!("postgres://ann:{encoded}@h/db"),
        14 => format!("{name} = {}", secret.replace('\n', "")),
        _ => format!("{{\"u\":\"https://h/?{name}={encoded}&b=c\"}}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_planted_secret_never_comes_out(
        place in 0..16_u8, name in name(), before in noise(), after in noise(),
        // No blank first or last: where it is not quoted, that is not part of it.
        head in "[!-~]{0,4}", tail in "[ -~\n]{0,6}[!-~]",
    ) {
        let secret = format!("{head}{CANARY}{tail}");
        let text = format!("{before} {}{after}", plant(place, &name, &secret));
        let shown = body(&text);
        prop_assert!(!shown.contains(CANARY), "{text:?} becomes {shown:?}");
    }

    #[test]
    fn a_secret_in_a_url_never_comes_out(
        place in 0..5_u8, name in name(), secret in "[!-~]{0,4}Q7X[ -~]{0,6}", depth in 0..3,
    ) {
        let secret = (0..depth).fold(percent(&secret), |secret, _| percent(&secret));
        let text = match place {
            0 => format!("https://h/p?a=b&{name}={secret}&c=d"),
            1 => format!("https://h/p#{name}={secret}"),
            2 => format!("https://ann:{secret}@h/p?a=b"),
            3 => format!("https://{secret}@h/p"),
            _ => format!("/p?next={}", percent(&format!("https://h/?{name}={secret}"))),
        };
        let shown = url(&text);
        prop_assert!(!shown.contains(CANARY), "{text:?} becomes {shown:?}");
        prop_assert!(shown.contains("/p") || shown.contains("@h"));
    }

    #[test]
    fn what_is_long_and_random_never_comes_out(
        // As random as most, and no less by chance.
        secret in "([0-9][a-f]|[a-f][0-9]){32}|([0-9][a-z]|[A-Z][0-9]|[a-z][A-Z]){22}==\
                   |([0-9][a-z]|[A-Z][0-9]){11}[+/_-]([a-z][0-9]|[a-z][A-Z]){22}",
        before in noise(), after in noise(),
    ) {
        let shown = body(&format!("{before} {secret} {after}"));
        prop_assert!(!shown.contains(&secret[..9]) && !shown.contains(&secret[30..39]), "{shown}");
        let shown = url(&format!("https://h/p?a=b&c={secret}&d=e"));
        prop_assert!(shown.starts_with("https://h/p?a=b&c=***"), "{}", shown);
        prop_assert!(shown.ends_with("&d=e") && shown.len() <= 34, "{}", shown);
    }

    #[test]
    fn to_redact_twice_changes_nothing_more(
        pieces in proptest::collection::vec(select([
            "password", "token", "=", ":", "\"", "'", "\\", "\\\"", "{", "}", "[", "]", "&", "?",
            "#", "://", "@", "Bearer ", "-----BEGIN X-----", "-----END X-----", "%3D", "%25", "%",
            "***", "…", "\n", " ", "<", ">", "abc", "x8Kd92mQpLz71TrWcY0bVnE4", "/", "value",
            "name", ",", "null", "code", "80", "é", "\r", "-", ".", "+", ";",
        ].as_slice()), 0..200),
        other in any::<String>(),
    ) {
        for text in [pieces.concat(), other] {
            for redact in [url, body] {
                let once = redact(&text);
                prop_assert_eq!(redact(&once), once.as_str(), "of {:?}", text);
            }
        }
    }

    #[test]
    fn prose_stays_as_it_is(words in proptest::collection::vec("[a-z]{1,12}|[0-9]{1,6}|[A-Z][a-z]{2,9}", 1..40)) {
        let text = words.join(" ");
        prop_assume!(!text.to_lowercase().contains("basic") && !text.to_lowercase().contains("bearer"));
        let shown = body(&text);
        prop_assert!(text.starts_with(shown.trim_end_matches('…')), "{shown}");
    }
}
