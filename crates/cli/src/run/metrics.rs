//! A run's numbers for Prometheus, by HTTP, as long as the run lasts; and its log.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use seawall::telemetry::{BUCKETS, EXIT_TO_INJECTION, describe};
use tiny_http::{Header, Method, Request, Response, Server};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::{Failure, exit, out};

/// How often what was measured is summed up, if nobody asks.
const UPKEEP: Duration = Duration::from_secs(5);
/// Prometheus' text format.
const TEXT: &str = "Content-Type: text/plain; version=0.0.4; charset=utf-8";

/// Answers `GET /metrics` until it is dropped.
pub(super) struct Endpoint {
    server: Arc<Server>,
    is_over: Arc<AtomicBool>,
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
        let address = listener.local_addr().map_err(|error| failed(&error))?;
        let numbers = recorder().map_err(|error| failed(&error))?;
        let server = Arc::new(Server::from_listener(listener, None).map_err(|error| failed(&error))?);
        let is_over = Arc::new(AtomicBool::new(false));
        let thread = {
            let (server, is_over) = (server.clone(), is_over.clone());
            let serve = move || serve(&server, &is_over, &numbers, refresh);
            std::thread::Builder::new()
                .name("metrics".to_owned())
                .spawn(serve)
                .map_err(|error| failed(&error))?
        };
        out::stderr(crate::style::dim(format!("seawall: metrics are at http://{address}/metrics")));
        Ok(Self { server, is_over, thread: Some(thread) })
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        self.server.unblock();
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

fn serve(server: &Server, is_over: &AtomicBool, numbers: &PrometheusHandle, mut refresh: impl FnMut()) {
    while !is_over.load(Ordering::SeqCst) {
        match server.recv_timeout(UPKEEP) {
            Ok(Some(request)) => answer(request, numbers, &mut refresh),
            Ok(None) => numbers.run_upkeep(),
            // The listener is gone: there is nothing more to answer, and the run is worth more than its numbers.
            Err(_) => return,
        }
    }
}

fn answer(request: Request, numbers: &PrometheusHandle, refresh: &mut impl FnMut()) {
    let (path, _) = request.url().split_once('?').unwrap_or((request.url(), ""));
    let (status, text) = match (request.method(), path) {
        (Method::Get | Method::Head, "/metrics") => {
            refresh();
            (200, numbers.render())
        }
        (Method::Get | Method::Head, _) => (404, "the numbers are at /metrics\n".to_owned()),
        _ => (405, "expected GET or HEAD\n".to_owned()),
    };
    let mut response = Response::from_string(text).with_status_code(status);
    if let Ok(header) = TEXT.parse::<Header>() {
        response.add_header(header);
    }
    // Who asked went away.
    let _ = request.respond(response);
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
