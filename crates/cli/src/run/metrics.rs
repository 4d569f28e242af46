//! A run's numbers for Prometheus, by HTTP, as long as the run lasts; and its log.

mod server;

use std::net::{SocketAddr, TcpListener};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use seawall::telemetry::{BUCKETS, EXIT_TO_INJECTION, describe};
use tokio::sync::oneshot;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::{Failure, exit, out};

/// How often what was measured is summed up, if nobody asks.
const UPKEEP: Duration = Duration::from_secs(5);
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
        let refresh = Mutex::new(refresh);
        let page = numbers.clone();
        let text = move || {
            refresh.lock().unwrap_or_else(PoisonError::into_inner)();
            page.render()
        };
        let thread = std::thread::Builder::new()
            .name("metrics".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = server::serve(async || Ok(listener.accept().await?.0), text) => {}
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

/// Sums up what was measured, for ever.
async fn keep_up(numbers: &PrometheusHandle) {
    let mut upkeep = tokio::time::interval(UPKEEP);
    loop {
        upkeep.tick().await;
        numbers.run_upkeep();
    }
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
