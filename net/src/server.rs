//! The port: HTTP and WebSocket, limits, who is let in, and its end.

mod guard;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, header};
use axum::middleware;
use jsonrpsee::RpcModule;
use jsonrpsee::server::{
    BatchRequestConfig, IdProvider, PingConfig, Server, ServerConfig, ServerHandle, StopHandle,
    serve_with_graceful_shutdown, stop_channel,
};
use jsonrpsee::types::SubscriptionId;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tower::ServiceExt as _;
use tower_http::cors::{AllowOrigin, Any, CorsLayer};

use crate::settings::{Cors, Settings};
use guard::Guard;

/// How long open connections may take to end.
const GRACE: Duration = Duration::from_secs(5);
/// After a failed `accept` (no file descriptors left, say) others are tried again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The port cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's error.
        source: std::io::Error,
    },
    /// No origin of a web page.
    #[error("enable-cors: {0:?} is no origin")]
    Origin(String),
}

/// A port being served.
#[derive(Debug)]
pub struct Serving {
    address: SocketAddr,
    handle: ServerHandle,
    task: JoinHandle<()>,
}

impl Serving {
    /// Listens on the address of `settings` and serves `module` there.
    ///
    /// # Errors
    /// [`ServeError`].
    pub async fn start<C: Send + Sync + 'static>(
        module: RpcModule<C>,
        settings: &Settings,
    ) -> Result<Self, ServeError> {
        let address = SocketAddr::new(settings.bind, settings.rpc_port);
        let failed = |source| ServeError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let (stop, handle) = stop_channel();
        let guard = Guard::new(address.ip(), settings.enable_cors.clone());
        let router = router(module, settings, guard, stop.clone())?;
        let connections = settings.rpc_max_connections as usize;
        let task = tokio::spawn(accept(listener, router, connections, stop));
        Ok(Self {
            address,
            handle,
            task,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections and waits, for some seconds, until open ones have ended.
    pub async fn stop(self) {
        if self.handle.stop().is_err() {
            tracing::debug!("the server had stopped already");
        }
        if tokio::time::timeout(GRACE, self.task).await.is_err() {
            tracing::warn!("some connections did not end in time");
        }
    }
}

fn router<C: Send + Sync + 'static>(
    module: RpcModule<C>,
    settings: &Settings,
    guard: Guard,
    stop: StopHandle,
) -> Result<Router, ServeError> {
    let config = ServerConfig::builder()
        .max_request_body_size(settings.rpc_max_request_bytes)
        .max_response_body_size(settings.rpc_max_response_bytes)
        // Here they are requests under way and WebSockets, which outlive the connection that was accepted.
        .max_connections(settings.rpc_max_connections)
        .max_subscriptions_per_connection(1_024)
        .set_batch_request_config(BatchRequestConfig::Limit(settings.rpc_max_batch))
        .set_id_provider(HexIds)
        // A subscriber that is gone without a word would keep its connection for ever.
        .enable_ws_ping(PingConfig::new())
        .build();
    let rpc = Server::builder()
        .set_config(config)
        .to_service_builder()
        .build(module, stop);
    let rpc = tower::service_fn(move |request: Request<Body>| {
        let rpc = rpc.clone();
        async move {
            let answer = match rpc.oneshot(request).await {
                Ok(answer) => answer.map(Body::new),
                Err(error) => {
                    tracing::debug!(%error, "request failed");
                    let mut answer = Response::new(Body::empty());
                    *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                    answer
                }
            };
            Ok::<_, Infallible>(answer)
        }
    });
    let router = Router::new().fallback_service(rpc);
    let router = match cors(&settings.enable_cors)? {
        Some(layer) => router.layer(layer),
        None => router,
    };
    // Around everything else: upgrades to WebSocket and preflights pass through it too.
    Ok(router.layer(middleware::from_fn_with_state(
        Arc::new(guard),
        guard::check,
    )))
}

fn cors(setting: &Cors) -> Result<Option<CorsLayer>, ServeError> {
    let origins = match setting {
        Cors::All(false) => return Ok(None),
        Cors::All(true) => AllowOrigin::from(Any),
        Cors::Origins(origins) => {
            let origins = origins
                .iter()
                .map(|origin| match HeaderValue::from_str(origin) {
                    Ok(value) if value != "*" => Ok(value),
                    _ => Err(ServeError::Origin(origin.clone())),
                })
                .collect::<Result<Vec<_>, _>>()?;
            AllowOrigin::list(origins)
        }
    };
    let layer = CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::POST, Method::OPTIONS])
        .allow_headers([header::CONTENT_TYPE, header::ACCEPT, header::AUTHORIZATION])
        .max_age(Duration::from_secs(3600));
    Ok(Some(layer))
}

async fn accept(listener: TcpListener, router: Router, connections: usize, stop: StopHandle) {
    let permits = Arc::new(Semaphore::new(connections));
    let mut stopped = std::pin::pin!(stop.clone().shutdown());
    loop {
        let accepted = tokio::select! {
            () = &mut stopped => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Above the bound a connection is closed at once: waiting would only fill the queue of the system.
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            tracing::warn!(connections, "too many connections: one was closed");
            continue;
        };
        // Small answers must not wait for the client's acknowledgement.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
        let service = router.clone();
        let stop = stop.clone();
        tokio::spawn(async move {
            if let Err(error) = serve_with_graceful_shutdown(stream, service, stop.shutdown()).await
            {
                tracing::debug!(%error, "connection ended");
            }
            drop(permit);
        });
    }
    drop(listener);
    drop(stop);
    // All permits back means all connections have ended.
    let all = u32::try_from(connections).unwrap_or(u32::MAX);
    drop(permits.acquire_many(all).await);
}

/// Subscription ids as clients of geth expect them: 0x-hex.
#[derive(Debug)]
struct HexIds;

impl IdProvider for HexIds {
    fn next_id(&self) -> SubscriptionId<'static> {
        // Ids are only meaningful on their connection: they must differ, not be secret.
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        let id = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        SubscriptionId::Str(format!("{id:#034x}").into())
    }
}
