//! An HTTP server for one page of text. A client costs it a bounded amount, whatever it sends: it reads a
//! request's head and never a body, and a connection is for one request.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::AbortHandle;

/// Prometheus' text format.
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Bytes of a request's line and headers, `hyper`'s minimum.
const MOST_BYTES: usize = 8192;
/// Headers of a request.
const MOST_HEADERS: usize = 32;
/// The number of simultaneous connections: one more closes the oldest.
pub(super) const MOST_CONNECTIONS: usize = 32;
/// The time from a connection's start to the end of its answer. Prometheus gives up after ten seconds.
pub(super) const MOST_TIME: Duration = Duration::from_secs(10);
/// The pause after a failed `accept`, such as without file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections, each in its own task on this thread, and answers `GET /metrics` with the result of
/// `text` at that time.
pub(super) async fn serve<S, T>(mut accept: impl AsyncFnMut() -> io::Result<S>, text: T)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: Fn() -> String + Send + Sync + 'static,
{
    let text = Arc::new(text);
    let mut connections: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let Ok(stream) = accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        connections.retain(|connection| !connection.is_finished());
        if connections.len() >= MOST_CONNECTIONS {
            connections.pop_front().inspect(AbortHandle::abort);
        }
        connections.push_back(tokio::spawn(connection(stream, text.clone())).abort_handle());
    }
}

/// One request and its answer.
async fn connection<S, T>(stream: S, text: Arc<T>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    T: Fn() -> String + Send + Sync,
{
    let answer = service_fn(|request| std::future::ready(Ok::<_, Infallible>(answer(&request, &*text))));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(MOST_TIME)
        .max_buf_size(MOST_BYTES)
        .max_headers(MOST_HEADERS)
        .keep_alive(false)
        .half_close(true)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), answer);
    // The client closed its end, did not send HTTP, or takes too long.
    let _ = tokio::time::timeout(MOST_TIME, served).await;
}

fn answer<B>(request: &Request<B>, text: impl Fn() -> String) -> Response<String> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => (StatusCode::OK, text()),
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
