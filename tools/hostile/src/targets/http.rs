//! Any bytes of any number of clients to the endpoint for metrics. No client delays another's scrape, gets
//! more than an answer, or keeps its connection. The time is the runtime's own, which advances only when
//! everything waits for it.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;

#[path = "../../../../crates/cli/src/run/metrics/server.rs"]
mod server;

/// The words for bytes from 0x80 on, by their lower bits; a byte below stands for itself.
const WORDS: [&str; 16] = [
    "GET /metrics HTTP/1.1\r\n",
    "Host: a\r\n",
    "\r\n",
    "POST /metrics HTTP/1.1\r\n",
    "Content-Length: 100000\r\n",
    "Transfer-Encoding: chunked\r\n",
    "5\r\nab",
    "Expect: 100-continue\r\n",
    "Connection: keep-alive\r\n",
    "Upgrade: h2c\r\n",
    "HEAD /metrics HTTP/1.0\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "x: y\r\n",
    "\n",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    " HTTP/9.9\r\n",
];
/// Separates clients.
const NEXT: u8 = 0xff;
/// The largest number of bytes that a client sends.
const LONGEST: usize = 256 << 10;
/// The page.
const PAGE: &str = "seawall_errors_total 1\n";
/// The largest answer in bytes.
const ANSWER: usize = 512;

/// See the module.
pub(super) fn body(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(all(data));
}

async fn all(data: &[u8]) {
    let (connect, mut accepted) = unbounded_channel();
    let server = server::serve(async || next(&mut accepted).await, || PAGE.to_owned());
    tokio::select! {
        () = server => panic!("the server ended"),
        () = clients(data, &connect) => {}
    }
}

async fn clients(data: &[u8], connect: &UnboundedSender<DuplexStream>) {
    let mut clients = Vec::new();
    for client in data.split(|byte| *byte == NEXT).take(2 * server::MOST_CONNECTIONS) {
        let (stream, is_open, bytes) = (connection(connect), client.first(), sent(client));
        let is_open = is_open.is_some_and(|byte| byte & 1 == 0);
        clients.push(tokio::spawn(talk(stream, bytes, is_open)));
        let began = Instant::now();
        let answer = scrape(connection(connect)).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with(PAGE), "{answer}");
        assert_eq!(began.elapsed(), Duration::ZERO, "a scrape waited");
    }
    let began = Instant::now();
    for client in clients {
        let answer = client.await.expect("it does not panic");
        assert!(answer <= ANSWER, "{answer} bytes of answer");
    }
    assert!(began.elapsed() <= server::MOST_TIME, "a connection of {:?}", began.elapsed());
}

async fn next(accepted: &mut UnboundedReceiver<DuplexStream>) -> std::io::Result<DuplexStream> {
    accepted.recv().await.ok_or_else(|| std::io::ErrorKind::NotConnected.into())
}

/// A connection: the client's end.
fn connection(connect: &UnboundedSender<DuplexStream>) -> DuplexStream {
    let (stream, theirs) = tokio::io::duplex(4096);
    connect.send(theirs).expect("the server is there");
    stream
}

/// The bytes that a client sends: its first two bytes select its ending and the number of repetitions of the
/// rest.
fn sent(client: &[u8]) -> Vec<u8> {
    let Some((&[_, times], rest)) = client.split_first_chunk() else { return Vec::new() };
    let mut once = Vec::new();
    for byte in rest {
        match WORDS.get(usize::from(byte & 15)).filter(|_| *byte >= 0x80) {
            Some(word) => once.extend_from_slice(word.as_bytes()),
            None => once.push(*byte),
        }
    }
    let length = (once.len() << (times & 15)).min(LONGEST);
    once.into_iter().cycle().take(length).collect()
}

/// Sends all bytes, as far as they are accepted, and reads until the server ends the connection; returns the
/// number of bytes read. The client ends its side unless it is to stay open.
async fn talk(stream: DuplexStream, bytes: Vec<u8>, is_open: bool) -> usize {
    let (mut from, mut to) = tokio::io::split(stream);
    let send = async {
        let _ = to.write_all(&bytes).await;
        if !is_open {
            let _ = to.shutdown().await;
        }
    };
    let take = async {
        let mut answer = Vec::new();
        let _ = from.read_to_end(&mut answer).await;
        answer.len()
    };
    tokio::join!(send, take).1
}

async fn scrape(mut stream: DuplexStream) -> String {
    let request = b"GET /metrics HTTP/1.1\r\nHost: seawall\r\n\r\n";
    stream.write_all(request).await.expect("it is read");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("text");
    answer
}
