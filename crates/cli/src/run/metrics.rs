//! A run's numbers for Prometheus, by HTTP, as long as the run lasts; and its log.

mod server;

use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use seawall::telemetry::{BUCKETS, EXIT_TO_INJECTION, describe};
use tokio::sync::oneshot;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::{Failure, exit, out};

/// The interval at which measurements are summed up without a request.
const UPKEEP: Duration = Duration::from_secs(5);
/// Answers `GET /metrics` until it is dropped.
pub(super) struct Endpoint {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Endpoint {
    /// Listens, and prints the address.
    ///
    /// # Errors
    /// [`exit::UNAVAILABLE`] if the address is not available.
    pub(super) fn new(address: SocketAddr) -> Result<Self, Failure> {
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
        let page = numbers.clone();
        let thread = std::thread::Builder::new()
            .name("metrics".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = server::serve(async || Ok(listener.accept().await?.0), move || page.render()) => {}
                        () = keep_up(&numbers) => {}
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
    /// The connections end with the runtime, whatever their clients do.
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

/// Sums up measurements forever.
async fn keep_up(numbers: &PrometheusHandle) {
    let mut upkeep = tokio::time::interval(UPKEEP);
    loop {
        upkeep.tick().await;
        numbers.run_upkeep();
    }
}

/// Sends log lines to stderr: those of these targets, or those that `RUST_LOG` selects. Other programs mostly
/// set that variable, so its unknown parts are not errors.
pub(super) fn log(targets: Option<Targets>) {
    let from_environment = || std::env::var("RUST_LOG").ok()?.parse().ok();
    let Some(targets) = targets.or_else(from_environment) else { return };
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    // This program has no other subscriber that could conflict.
    let _ = tracing_subscriber::registry().with(lines).with(targets).try_init();
}
