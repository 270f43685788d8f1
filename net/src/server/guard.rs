//! Which requests a browser may pass on: it sends those of any web page, with the page's origin.
//!
//! CORS alone does not keep a page out: it only hides answers, and it does not apply to WebSockets. So the origin is
//! checked before anything is executed. A page whose host name was pointed at the loopback address (DNS rebinding) has an
//! origin of its own choice, but its `Host` gives it away.

use std::net::IpAddr;
use std::str::FromStr as _;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Request, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use crate::settings::Cors;

/// What is let in.
#[derive(Debug)]
pub(super) struct Guard {
    origins: Cors,
    /// Only programs of this machine can reach the port, so other host names than its own are forged.
    loopback: bool,
}

impl Guard {
    /// For a port on `address`, used by web pages of `origins`.
    pub(super) fn new(address: IpAddr, origins: Cors) -> Self {
        Self {
            origins,
            loopback: address.to_canonical().is_loopback(),
        }
    }

    /// Why a request is refused.
    fn refusal(&self, headers: &HeaderMap, authority: Option<&Authority>) -> Option<&'static str> {
        // Where every page may use the node there is nothing left to keep out.
        if self.origins == Cors::All(true) {
            return None;
        }
        if !headers
            .get_all(header::ORIGIN)
            .iter()
            .all(|origin| self.knows(origin.as_bytes()))
        {
            return Some("the node does not serve web pages of this origin (see --enable-cors)\n");
        }
        let named = headers
            .get_all(header::HOST)
            .iter()
            .map(|host| {
                host.to_str()
                    .ok()
                    .and_then(|host| Authority::from_str(host).ok())
            })
            .chain(authority.cloned().map(Some));
        for host in named {
            if self.loopback && !host.is_some_and(|host| is_own_name(host.host())) {
                return Some(
                    "on a loopback address the node is asked for by address or as localhost\n",
                );
            }
        }
        None
    }

    fn knows(&self, origin: &[u8]) -> bool {
        match &self.origins {
            Cors::All(all) => *all,
            Cors::Origins(origins) => origins
                .iter()
                .any(|known| known.as_bytes().eq_ignore_ascii_case(origin)),
        }
    }
}

/// Whether a host is one that no name server can point elsewhere.
fn is_own_name(host: &str) -> bool {
    let inner = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    inner.parse::<IpAddr>().is_ok() || inner.eq_ignore_ascii_case("localhost")
}

/// Answers 403 to what is not let in.
pub(super) async fn check(
    State(guard): State<Arc<Guard>>,
    request: Request<Body>,
    next: Next,
) -> Response {
    if let Some(reason) = guard.refusal(request.headers(), request.uri().authority()) {
        // Not louder: a page could fill the log.
        tracing::debug!(reason = reason.trim_end(), "request refused");
        return (StatusCode::FORBIDDEN, reason).into_response();
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn refused(guard: &Guard, headers: &[(header::HeaderName, &'static str)]) -> bool {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_static(value)))
            .collect();
        guard.refusal(&headers, None).is_some()
    }

    #[test]
    fn only_listed_origins_are_let_in() {
        let local = IpAddr::from([127, 0, 0, 1]);
        let origin = |origin| [(header::ORIGIN, origin)];
        let closed = Guard::new(local, Cors::All(false));
        assert!(!refused(&closed, &[]));
        for page in ["http://page.example", "null", "http://localhost:8545"] {
            assert!(refused(&closed, &origin(page)), "{page}");
        }
        let listed = Guard::new(local, Cors::Origins(vec!["http://page.example".to_owned()]));
        assert!(!refused(&listed, &origin("http://page.example")));
        assert!(refused(
            &listed,
            &origin("http://page.example.evil.example")
        ));
        assert!(refused(
            &listed,
            &[
                (header::ORIGIN, "http://page.example"),
                (header::ORIGIN, "http://evil.example")
            ]
        ));
        assert!(!refused(
            &Guard::new(local, Cors::All(true)),
            &origin("http://evil.example")
        ));
    }

    #[test]
    fn a_loopback_port_is_not_served_under_a_foreign_name() {
        let host = |host| [(header::HOST, host)];
        let local = Guard::new(IpAddr::from([127, 0, 0, 1]), Cors::All(false));
        for own in [
            "127.0.0.1:8545",
            "localhost:8545",
            "LocalHost",
            "[::1]:8545",
        ] {
            assert!(!refused(&local, &host(own)), "{own}");
        }
        for foreign in [
            "evil.example",
            "localhost.evil.example:8545",
            "127.0.0.1.evil.example",
            "@",
        ] {
            assert!(refused(&local, &host(foreign)), "{foreign}");
        }
        let open = Guard::new(IpAddr::from([0, 0, 0, 0]), Cors::All(false));
        assert!(!refused(&open, &host("node.example")));
    }
}
