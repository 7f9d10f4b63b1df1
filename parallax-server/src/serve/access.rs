use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, HOST,
    ORIGIN, REFERRER_POLICY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use parallax_metrics::record_refused_token;
use tokio::time::Instant;

use crate::serve::api::Problem;
use crate::serve::http::Peer;
use crate::serve::tokens::{Role, Tokens};

/// What a request may bring along. Nothing here needs more.
const BODY: u64 = 1 << 20;
/// How often refused tokens are logged at most.
const COMPLAINT: Duration = Duration::from_secs(1);

/// What every answer says to browsers. Nobody else's script runs in the page, nobody frames it, and
/// what is stored is kept nowhere.
const HEADERS: [(HeaderName, &str); 5] = [
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    (CACHE_CONTROL, "no-store"),
];

/// Who may do what.
pub(super) struct Access {
    tokens: Option<Tokens>,
    /// Whether who reads needs a token, too.
    protects_reads: bool,
    /// Whether pages of this address come by TLS.
    over_tls: bool,
    refused: Mutex<Refused>,
}

/// The tokens that were refused and not yet logged.
#[derive(Default)]
struct Refused {
    since: Option<Instant>,
    more: u64,
}

/// Who sent a request that was let through.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    pub(super) role: Option<Role>,
    pub(super) peer: Option<Peer>,
}

impl Access {
    pub(super) fn new(tokens: Option<Tokens>, protects_reads: bool) -> Self {
        Self {
            tokens,
            protects_reads,
            over_tls: false,
            refused: Mutex::default(),
        }
    }

    /// Says whether requests come by TLS.
    pub(super) fn over_tls(mut self, over_tls: bool) -> Self {
        self.over_tls = over_tls;
        self
    }

    /// Judges a request by its head.
    fn judge(&self, request: &Request) -> Result<Caller, Problem> {
        let headers = request.headers();
        let reads = matches!(
            *request.method(),
            Method::GET | Method::HEAD | Method::OPTIONS
        );
        // Nothing of what is stored.
        let path = request.uri().path();
        let is_open = matches!(path, "/" | "/livez" | "/readyz") || path.starts_with("/assets/");
        let is_open = reads && is_open;
        let host = match is_open && !headers.contains_key(HOST) {
            // Some that look after a process speak HTTP/1.0.
            true => "",
            false => host(headers)?,
        };
        limit(headers)?;
        let peer = request.extensions().get::<Peer>().copied();
        let role = self.role(headers, peer)?;
        let caller = Caller { role, peer };
        if is_open {
            return Ok(caller);
        }
        // A page of another name that came to point here (DNS rebinding) has no token.
        if role.is_none() && !is_here(host) {
            return Err(Problem::new(
                StatusCode::MISDIRECTED_REQUEST,
                "wrong_host",
                "the header Host does not name this address",
                "use an IP address or localhost, or send a token",
            )
            .of("Host"));
        }
        if reads {
            return match role {
                None if self.protects_reads => Err(unauthorized("a token")),
                _ => Ok(caller),
            };
        }
        if headers
            .get_all(ORIGIN)
            .iter()
            .any(|origin| !self.is_from(origin, host))
        {
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                "wrong_origin",
                "the request comes from a page of another origin",
                "send it from a page of this address, or without a browser",
            )
            .of("Origin"));
        }
        match role {
            Some(Role::Admin) => Ok(caller),
            Some(Role::Read) => Err(Problem::new(
                StatusCode::FORBIDDEN,
                "admin_token_needed",
                "the read token is for reading",
                "send the admin token",
            )
            .of("Authorization")),
            None if self.tokens.is_none() => Err(Problem::new(
                StatusCode::FORBIDDEN,
                "no_tokens",
                "there is no admin token, and nothing is changed without",
                "name a file for tokens: [server] tokens = \"PATH\"",
            )),
            None => Err(unauthorized("the admin token")),
        }
    }

    /// Returns what the token of a request allows; a token that is none is refused, whatever it is
    /// for.
    fn role(&self, headers: &HeaderMap, peer: Option<Peer>) -> Result<Option<Role>, Problem> {
        let mut given = headers.get_all(AUTHORIZATION).iter();
        let (first, second) = (given.next(), given.next());
        let Some(first) = first else {
            return Ok(None);
        };
        let token = first.to_str().ok().filter(|_| second.is_none());
        let token = token
            .and_then(|text| text.split_once(' '))
            .filter(|(scheme, _)| {
                // As HTTP says, in upper or lower case.
                scheme.eq_ignore_ascii_case("bearer")
            });
        let role = token
            .zip(self.tokens.as_ref())
            .and_then(|((_, token), tokens)| tokens.role(token));
        if role.is_none() {
            self.complain(peer);
            return Err(unauthorized("one token that is valid"));
        }
        Ok(role)
    }

    /// Tells whether an origin is the host that was asked.
    fn is_from(&self, origin: &HeaderValue, host: &str) -> bool {
        let origin = origin.to_str().unwrap_or_default();
        let Some((scheme, authority)) = origin.split_once("://") else {
            return false;
        };
        // A page that came in the clear may be anybody's. Without TLS here, it may have come through
        // a proxy that has it.
        (scheme == "https" || !self.over_tls) && authority.eq_ignore_ascii_case(host)
    }

    /// Counts a token that was refused, and logs it: now, or with those that follow.
    ///
    /// No address has to wait for it. Nobody guesses 256 bits, however fast; but everybody behind a
    /// proxy would be locked out by one wrong script there.
    fn complain(&self, peer: Option<Peer>) {
        record_refused_token();
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused
            .since
            .is_some_and(|since| since.elapsed() < COMPLAINT)
        {
            refused.more += 1;
            return;
        }
        let more = std::mem::take(&mut refused.more);
        refused.since = Some(Instant::now());
        tracing::warn!(
            target: "parallax::audit",
            peer = peer.map(|peer| tracing::field::display(peer.0)),
            unlogged = more,
            "Token refused"
        );
    }
}

/// Refuses what may not be, and says in each answer what browsers have to keep to.
pub(super) async fn check(
    State(access): State<Arc<Access>>,
    mut request: Request<Body>,
    next: Next,
) -> Response {
    let mut response = match access.judge(&request) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    };
    if response.status() == StatusCode::UNAUTHORIZED {
        let scheme = HeaderValue::from_static("Bearer");
        response.headers_mut().insert(WWW_AUTHENTICATE, scheme);
    }
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    response
}

fn unauthorized(wanted: &str) -> Problem {
    Problem::new(
        StatusCode::UNAUTHORIZED,
        "unauthorized",
        format!("this needs {wanted}"),
        "send Authorization: Bearer TOKEN; the tokens are in the file that the daemon named in its \
         log as it started",
    )
    .of("Authorization")
}

/// Returns the host that a request names, which every request does once.
fn host(headers: &HeaderMap) -> Result<&str, Problem> {
    let mut hosts = headers.get_all(HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    let host = first.filter(|_| second.is_none());
    host.and_then(|host| host.to_str().ok()).ok_or_else(|| {
        Problem::new(
            StatusCode::BAD_REQUEST,
            "wrong_host",
            "the request does not have one header Host",
            "send the host and the port that the address names",
        )
        .of("Host")
    })
}

/// Refuses bodies before any of them is read.
fn limit(headers: &HeaderMap) -> Result<(), Problem> {
    let lengths = headers.get_all(CONTENT_LENGTH).iter();
    let is_long = |length: &HeaderValue| {
        let length = length
            .to_str()
            .ok()
            .and_then(|length| length.parse::<u64>().ok());
        length.is_none_or(|length| length > BODY)
    };
    if lengths.into_iter().any(is_long) {
        return Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            format!("the body is longer than {BODY} bytes"),
            "nothing here takes as much",
        )
        .of("Content-Length"));
    }
    let mut encodings = headers.get_all(CONTENT_ENCODING).iter();
    if encodings.any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "compressed_body",
            "the body is compressed",
            "send it as it is",
        )
        .of("Content-Encoding"));
    }
    Ok(())
}

/// Tells whether a host is an address, or this machine: other names may be anybody's.
fn is_here(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    let is_address = match bare {
        Some(name) => name.parse::<Ipv6Addr>().is_ok(),
        None => name.parse::<Ipv4Addr>().is_ok(),
    };
    is_address || name.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests;
