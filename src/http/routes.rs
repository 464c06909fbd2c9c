//! What may be asked over HTTP, by whom, and the answers.
//!
//! A fixed set of paths. Every request passes the same gate first: HTTP/1.1, a path (no absolute
//! or authority form), no body, a `Host` that a page of somebody else cannot have made a browser
//! send (DNS rebinding), no foreign `Origin`. Nothing here changes state.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version};
use axum::response::IntoResponse;
use axum::routing::get;
use futures_util::future::BoxFuture;
use hyper::body::{Body as _, Incoming};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use subtle::ConstantTimeEq;

use crate::actors::health::HealthHandle;
use crate::proto::health::{NodeHealth, SubsystemHealth};
use crate::telemetry;

/// How long the node may think about an API answer: less than a client may take for a request, so
/// that a busy node is told from a slow client.
const API_PATIENCE: Duration = Duration::from_secs(4);

const TEXT: &str = "text/plain; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
const JSON: &str = "application/json";

/// What the API can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiQuery {
    /// The object of `qpc status`.
    Status,
    /// An array of the objects of `qpc peers`.
    Peers,
    /// An array of the objects of `qpc routes`.
    Routes,
    /// The object of `qpc stats`.
    Stats,
}

/// Where the API's answers come from: the node. Called on the arbiter of the HTTP surface.
pub trait ApiSource: Send + Sync + 'static {
    /// The answer, the same as the command's with `--json`. An error becomes 503 with its text.
    /// The future is dropped when it takes too long or the client goes.
    fn get(&self, query: ApiQuery) -> BoxFuture<'static, Result<Value, String>>;
}

/// What is served and to whom.
///
/// | bind     | `/livez` `/readyz` `/healthz` | `/metricsz`           | `/api/v1/…`      |
/// |----------|-------------------------------|-----------------------|------------------|
/// | loopback | with details                  | yes                   | yes              |
/// | other    | without details               | [`Self::public_metrics`] | with [`Self::api_token`] |
///
/// What is not served answers 404, as if it did not exist.
pub struct Surface {
    health: HealthHandle,
    api: Option<Arc<dyn ApiSource>>,
    host_names: Vec<String>,
    public_metrics: bool,
    api_token: Option<String>,
    loopback: bool,
    /// For requests that may use the API and for those that may not.
    with_api: Router,
    without_api: Router,
}

#[derive(Clone)]
struct Context {
    health: HealthHandle,
    api: Option<Arc<dyn ApiSource>>,
    details: bool,
}

impl Surface {
    /// Health, readiness, liveness and metrics.
    pub fn new(health: HealthHandle) -> Self {
        Self {
            health,
            api: None,
            host_names: Vec::new(),
            public_metrics: false,
            api_token: None,
            loopback: false,
            with_api: Router::new(),
            without_api: Router::new(),
        }
    }

    /// Serves `/api/v1/…` too.
    pub fn api(mut self, source: Arc<dyn ApiSource>) -> Self {
        self.api = Some(source);
        self
    }

    /// A name, besides `localhost` and IP literals, under which clients may reach the port.
    pub fn host_name(mut self, name: impl Into<String>) -> Self {
        self.host_names.push(name.into());
        self
    }

    /// Serves `/metricsz` on a bind other than loopback.
    pub fn public_metrics(mut self) -> Self {
        self.public_metrics = true;
        self
    }

    /// Who sends this as `Authorization: Bearer` may use the API on a bind other than loopback.
    pub fn api_token(mut self, token: impl Into<String>) -> Self {
        self.api_token = Some(token.into());
        self
    }

    pub(super) fn for_bind(mut self, ip: IpAddr) -> Self {
        self.loopback = ip.is_loopback();
        let context = Context { health: self.health.clone(), api: self.api.clone(), details: self.loopback };
        let metrics = self.loopback || self.public_metrics;
        self.with_api = router(context.clone(), metrics, self.api.is_some());
        self.without_api = router(context, metrics, false);
        self
    }

    /// Answers one request.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let mut response = match self.check(&request) {
            Ok(()) => self.route(request).await,
            Err(refusal) => refusal.response(),
        };
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers
            .insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
        let class = match response.status().as_u16() {
            ..400 => "2xx",
            400..500 => "4xx",
            _ => "5xx",
        };
        metrics::counter!(telemetry::HTTP_REQUESTS, "status" => class).increment(1);
        response
    }

    async fn route(&self, request: Request<Incoming>) -> Response<Body> {
        let router = match self.loopback || self.is_authorized(request.headers()) {
            true => self.with_api.clone(),
            false => self.without_api.clone(),
        };
        let request = request.map(|_no_body| Body::empty());
        match TowerToHyperService::new(router).call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    fn check(&self, request: &Request<Incoming>) -> Result<(), Refusal> {
        if request.version() != Version::HTTP_11 {
            return Err(Refusal::Version);
        }
        if !request.body().is_end_stream() {
            return Err(Refusal::Body);
        }
        if request.uri().authority().is_some() || !request.uri().path().starts_with('/') {
            return Err(Refusal::NotHere);
        }
        let host = only(request.headers(), HOST).ok_or(Refusal::NoHost)?;
        if !self.knows_host(host) {
            return Err(Refusal::ForeignHost);
        }
        let foreign = |origin: &HeaderValue| !is_origin_of(origin, host);
        if request.headers().get_all(ORIGIN).iter().any(foreign) {
            return Err(Refusal::ForeignOrigin);
        }
        Ok(())
    }

    /// An attacker's page reaches a loopback port under a name of the attacker's that resolves to
    /// 127.0.0.1; under an IP literal or a name of ours the browser applies the same-origin rule.
    fn knows_host(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<Authority>() else { return false };
        if host.contains('@') {
            return false;
        }
        let name = authority.host();
        let literal = name.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(name);
        literal.parse::<IpAddr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || self.host_names.iter().any(|known| known.eq_ignore_ascii_case(name))
    }

    fn is_authorized(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.api_token else { return false };
        let given = only(headers, AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
        given.is_some_and(|given| given.as_bytes().ct_eq(token.as_bytes()).into())
    }
}

impl fmt::Debug for Surface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (loopback, metrics) = (self.loopback, self.public_metrics);
        f.debug_struct("Surface")
            .field("loopback", &loopback)
            .field("public_metrics", &metrics)
            .finish_non_exhaustive()
    }
}

fn router(context: Context, metrics: bool, api: bool) -> Router {
    let mut router = Router::new()
        .route("/livez", get(async || text(StatusCode::OK, "alive\n")))
        .route("/readyz", get(readyz))
        .route("/healthz", get(healthz));
    if metrics {
        router = router.route(
            "/metricsz",
            get(async || reply(StatusCode::OK, PROMETHEUS, telemetry::prometheus_text())),
        );
    }
    if api {
        for (path, query) in [
            ("/api/v1/status", ApiQuery::Status),
            ("/api/v1/peers", ApiQuery::Peers),
            ("/api/v1/routes", ApiQuery::Routes),
            ("/api/v1/stats", ApiQuery::Stats),
        ] {
            router =
                router.route(path, get(async move |State(context): State<Context>| context.ask(query).await));
        }
    }
    router
        .fallback(async || Refusal::NotHere.response())
        .method_not_allowed_fallback(async || {
            text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here\n")
        })
        .with_state(context)
}

async fn readyz(State(context): State<Context>) -> Response<Body> {
    context.health.asked();
    match context.health.now().not_ready {
        None => text(StatusCode::OK, "ready\n"),
        Some(why) if context.details => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", why.reason)),
    }
}

async fn healthz(State(context): State<Context>) -> Response<Body> {
    context.health.asked();
    let mut health = context.health.now();
    if !context.details {
        without_details(&mut health);
    }
    let status = if health.status.is_serving() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    reply(status, JSON, json!(health).to_string())
}

fn without_details(health: &mut NodeHealth) {
    for SubsystemHealth { detail, .. } in health.subsystems.values_mut() {
        *detail = None;
    }
}

impl Context {
    async fn ask(&self, query: ApiQuery) -> Response<Body> {
        let Some(api) = &self.api else { return Refusal::NotHere.response() };
        let answer = match tokio::time::timeout(API_PATIENCE, api.get(query)).await {
            Ok(answer) => answer,
            Err(_) => Err("the node is busy".to_owned()),
        };
        match answer {
            Ok(value) => reply(StatusCode::OK, JSON, value.to_string()),
            Err(why) => reply(StatusCode::SERVICE_UNAVAILABLE, JSON, json!({ "error": why }).to_string()),
        }
    }
}

/// Why a request is not even looked at. Bodies are fixed: nothing of a request is echoed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Version,
    Body,
    NotHere,
    NoHost,
    ForeignHost,
    ForeignOrigin,
}

impl Refusal {
    fn response(self) -> Response<Body> {
        let (status, words) = match self {
            Self::Version => (StatusCode::HTTP_VERSION_NOT_SUPPORTED, "HTTP/1.1 only\n"),
            Self::Body => (StatusCode::PAYLOAD_TOO_LARGE, "requests have no body here\n"),
            Self::NotHere => (StatusCode::NOT_FOUND, "not found\n"),
            Self::NoHost => (StatusCode::BAD_REQUEST, "exactly one Host header is needed\n"),
            Self::ForeignHost => (StatusCode::FORBIDDEN, "this name is not configured here\n"),
            Self::ForeignOrigin => (StatusCode::FORBIDDEN, "not for other origins\n"),
        };
        let mut response = text(status, words);
        // What follows an unread body would be taken for the next request.
        if matches!(self, Self::Body | Self::Version) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

fn text(status: StatusCode, words: impl Into<Body>) -> Response<Body> {
    reply(status, TEXT, words)
}

fn reply(status: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = (status, body.into()).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// The value of a header that occurs exactly once and is plain text.
fn only(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() { None } else { value.to_str().ok() }
}

/// Whether the page that asks was itself served under `host`.
fn is_origin_of(origin: &HeaderValue, host: &str) -> bool {
    let plain = origin.to_str().ok().and_then(|origin| origin.strip_prefix("http://"));
    plain.is_some_and(|origin| origin.eq_ignore_ascii_case(host))
}
