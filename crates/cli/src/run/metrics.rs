//! A run's numbers for Prometheus, by HTTP, as long as the run lasts; and its log.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use seawall::telemetry::{BUCKETS, EXIT_TO_INJECTION, describe};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::{Failure, exit, out};

/// How often what was measured is summed up, if nobody asks.
const UPKEEP: Duration = Duration::from_secs(5);
/// Prometheus' text format.
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

// What a client may cost. A request is its head: a body is never read, and a connection is for one request.
/// Bytes of a request's line and headers, the least that `hyper` can do with.
const MOST_BYTES: usize = 8192;
/// Headers of a request.
const MOST_HEADERS: usize = 32;
/// Connections at once: one more, and the oldest is closed.
const MOST_CONNECTIONS: usize = 32;
/// From a connection's beginning to the end of its answer. Prometheus gives up after ten seconds.
const MOST_TIME: Duration = Duration::from_secs(10);
/// After a failed `accept`, as without file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers `GET /metrics` until it is dropped.
pub(super) struct Endpoint {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Endpoint {
    /// Listens, and says where. `refresh` is called before each answer.
    ///
    /// # Errors
    /// [`exit::UNAVAILABLE`] if the address cannot be had.
    pub(super) fn new(address: SocketAddr, refresh: impl FnMut() + Send + 'static) -> Result<Self, Failure> {
        let failed = |error: &dyn std::fmt::Display| {
            let advice = "give an address of this host with a port that is free, or port 0 to get one";
            Failure::new(exit::UNAVAILABLE, format!("--metrics {address}: {error}; {advice}"))
        };
        let listener = TcpListener::bind(address).map_err(|error| failed(&error))?;
        listener.set_nonblocking(true).map_err(|error| failed(&error))?;
        let address = listener.local_addr().map_err(|error| failed(&error))?;
        let numbers = recorder().map_err(|error| failed(&error))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
        let runtime = runtime.map_err(|error| failed(&error))?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener).map_err(|error| failed(&error))?
        };
        let (stop, stopped) = oneshot::channel();
        let source = Arc::new(Source { numbers, refresh: Mutex::new(refresh) });
        let thread = std::thread::Builder::new()
            .name("metrics".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = serve(listener, source) => {}
                        _ = stopped => {}
                    }
                });
            })
            .map_err(|error| failed(&error))?;
        out::stderr(crate::style::dim(format!("seawall: metrics are at http://{address}/metrics")));
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Endpoint {
    /// Connections end with the runtime, whatever their clients do.
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The program's recorder.
fn recorder() -> Result<PrometheusHandle, metrics_exporter_prometheus::BuildError> {
    let time = Matcher::Full(EXIT_TO_INJECTION.to_owned());
    let numbers = PrometheusBuilder::new().set_buckets_for_metric(time, &BUCKETS)?.install_recorder()?;
    describe();
    Ok(numbers)
}

/// Where an answer comes from.
struct Source<F> {
    numbers: PrometheusHandle,
    refresh: Mutex<F>,
}

/// Takes connections, each a task of its own on this thread.
async fn serve<F: FnMut() + Send + 'static>(listener: tokio::net::TcpListener, source: Arc<Source<F>>) {
    let mut upkeep = tokio::time::interval(UPKEEP);
    let mut connections: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        tokio::select! {
            _ = upkeep.tick() => source.numbers.run_upkeep(),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.retain(|connection| !connection.is_finished());
                    if connections.len() >= MOST_CONNECTIONS {
                        connections.pop_front().inspect(AbortHandle::abort);
                    }
                    connections.push_back(tokio::spawn(connection(stream, source.clone())).abort_handle());
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            },
        }
    }
}

/// One request and its answer.
async fn connection<F: FnMut() + Send>(stream: TcpStream, source: Arc<Source<F>>) {
    let answer = service_fn(|request| std::future::ready(Ok::<_, Infallible>(answer(&request, &source))));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(MOST_TIME)
        .max_buf_size(MOST_BYTES)
        .max_headers(MOST_HEADERS)
        .keep_alive(false)
        .half_close(true)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), answer);
    // Who asked went away, said what is no HTTP, or takes too long.
    let _ = tokio::time::timeout(MOST_TIME, served).await;
}

fn answer<B, F: FnMut()>(request: &Request<B>, source: &Source<F>) -> Response<String> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => {
            source.refresh.lock().unwrap_or_else(PoisonError::into_inner)();
            (StatusCode::OK, source.numbers.render())
        }
        (&Method::GET | &Method::HEAD, _) => {
            (StatusCode::NOT_FOUND, "the numbers are at /metrics\n".to_owned())
        }
        _ => (StatusCode::METHOD_NOT_ALLOWED, "expected GET or HEAD\n".to_owned()),
    };
    let mut response = Response::new(text);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, TEXT);
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

/// Log lines go to stderr: of these targets, or as `RUST_LOG` says. That is mostly set for other programs: what of it is
/// not understood here is no error.
pub(super) fn log(targets: Option<Targets>) {
    let from_environment = || std::env::var("RUST_LOG").ok()?.parse().ok();
    let Some(targets) = targets.or_else(from_environment) else { return };
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    // There is no other subscriber in this program that could be in its way.
    let _ = tracing_subscriber::registry().with(lines).with(targets).try_init();
}
