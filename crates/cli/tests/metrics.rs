//! `seawall run --metrics` and `--log`: reports on a run while it lasts.

mod seawall;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use seawall::{File, NOP, seawall, text};
use seawall_guest::ECHO;

/// An arm64 Linux Image (booting.rst) that loads from 0x44000000, with a handler that continues after the
/// load, and then echoes its console until it reads `q`.
fn image() -> Vec<u8> {
    let mut words = vec![
        0x1400_0010, // b . + 64
        0,
        0,
        0,
        0x1000, // image_size
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0x644d_5241, // "ARM\x64"
        0,
        0x1000_3e00, // adr x0, . + 0x7c0
        0xd518_c000, // msr vbar_el1, x0
        0xd2a8_8001, // mov x1, #0x44000000
        0xf940_0022, // ldr x2, [x1]
        // Input waits for a driver such as Linux's, which sees an empty FIFO and unmasks the receive
        // interrupts.
        0xd2a1_2013, // mov x19, #0x09000000
        0xb940_1a61, // ldr w1, [x19, #0x18]
        0x5280_0a01, // mov w1, #0x50
        0xb900_3a61, // str w1, [x19, #0x38]
    ];
    words.extend(ECHO);
    // The synchronous exception from the same level, with SP_ELx.
    words.resize((0x800 + 0x200) / 4, NOP);
    // mrs x0, elr_el1; add x0, x0, #4; msr elr_el1, x0; eret
    words.extend([0xd538_4020, 0x9100_1000, 0xd518_4020, 0xd69f_03e0]);
    words.iter().flat_map(|word: &u32| word.to_le_bytes()).collect()
}

/// The command, running.
struct Running {
    child: Child,
    stderr: BufReader<ChildStderr>,
}

impl Running {
    fn new(args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_seawall"))
            .args(args)
            .env_remove("RUST_LOG")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Self { child, stderr }
    }

    /// The next line of stderr that contains this.
    fn line(&mut self, with: &str) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.stderr.read_line(&mut line).unwrap(), 0, "no line with {with}");
            if line.contains(with) {
                return line.trim_end().to_owned();
            }
        }
    }

    /// Ends the guest by its console: exit code, stdout.
    fn quit(mut self) -> (Option<i32>, String) {
        self.child.stdin.take().unwrap().write_all(b"q").unwrap();
        let output = self.child.wait_with_output().unwrap();
        (output.status.code(), text(&output.stdout))
    }
}

fn ask(address: SocketAddr, request: &str) -> String {
    let mut connection = TcpStream::connect(address).unwrap();
    write!(connection, "{request} HTTP/1.1\r\nHost: seawall\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_run_s_numbers_can_be_asked_for_while_it_lasts_and_no_longer() {
    let kernel = File::new("metrics", &image());
    let mut run = Running::new(&[
        "run",
        "--kernel",
        kernel.path(),
        "--acpi",
        "--poison",
        "0x44000000",
        "--stdin",
        "--timeout",
        "120",
        "--backend",
        "machine",
        "--metrics",
        "0",
        "--log",
        "warn",
    ]);
    let line = run.line("metrics are at");
    let address =
        line.strip_prefix("seawall: metrics are at http://").and_then(|url| url.strip_suffix("/metrics"));
    let address: SocketAddr = address.expect(&line).parse().unwrap();
    assert!(address.ip().is_loopback() && address.port() != 0);
    let event = run.line(" WARN seawall: ");
    let words = "WARN seawall: load at EL1, PC 0x4020004c, gpa 0x44000000: data abort, ISS 0x210 vcpu=0 source=\"sea\" \
                 access=\"load\" exit_esr=0x92000210 gva=0x44000000";
    assert!(event.contains(words), "{event}");

    // The gauges follow within a slice of the run.
    let began = Instant::now();
    let answer = loop {
        let answer = ask(address, "GET /metrics");
        if answer.contains("seawall_records_outstanding") || began.elapsed() > Duration::from_secs(60) {
            break answer;
        }
    };
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{answer}");
    for line in [
        "# HELP seawall_errors_total Memory errors that a guest consumed and that were handled.",
        "# TYPE seawall_errors_total counter",
        r#"seawall_errors_total{source="sea",access="load",level="EL1"} 1"#,
        r#"seawall_decisions_total{decision="data-abort"} 1"#,
        "seawall_evacuation_advice_total 0",
        r#"seawall_records_total{state="written"} 1"#,
        "# TYPE seawall_records_outstanding gauge",
        r#"seawall_records_outstanding{kind="sea"} 1"#,
        r#"seawall_records_outstanding{kind="polled"} 0"#,
        r#"seawall_records_outstanding{kind="queued"} 0"#,
    ] {
        assert!(answer.lines().any(|found| found == line), "{line}: {answer}");
    }
    // The software machine does not read the host's clock.
    assert!(!answer.contains("seawall_exit_to_injection_seconds_count 1"), "{answer}");
    assert!(ask(address, "GET /").starts_with("HTTP/1.1 404 "));
    assert!(ask(address, "POST /metrics").starts_with("HTTP/1.1 405 "));

    assert_eq!(run.quit(), (Some(0), "q".to_owned()));
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn an_address_that_cannot_be_had_is_an_error_that_says_what_to_do() {
    let kernel = File::new("metrics-taken", &image());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = seawall(&["run", "--kernel", kernel.path(), "--backend", "machine", "--metrics", &address]);
    let message = format!(
        "error: --metrics {address}: Address already in use (os error 98); give an address of this host with a port \
         that is free, or port 0 to get one\n"
    );
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(9), message));
    for (option, wrong, words) in [
        ("--metrics", "localhost", "expected a port up to 65535, which is one of 127.0.0.1, or an address"),
        ("--log", "lout", "expected error, warn, info, debug, trace or off, or TARGET=LEVEL"),
    ] {
        let output = seawall(&["run", "--kernel", kernel.path(), option, wrong]);
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains(words), "{}", text(&output.stderr));
    }
}

#[test]
fn a_run_that_is_not_asked_for_numbers_or_a_log_tells_none() {
    let kernel = File::new("metrics-none", &image());
    let mut run = Running::new(&[
        "run",
        "--kernel",
        kernel.path(),
        "--poison",
        "0x44000000",
        "--stdin",
        "--timeout",
        "120",
        "--backend",
        "machine",
    ]);
    run.child.stdin.as_mut().unwrap().write_all(b"q").unwrap();
    let mut stderr = String::new();
    run.stderr.read_to_string(&mut stderr).unwrap();
    assert_eq!(run.child.wait().unwrap().code(), Some(0));
    assert!(!stderr.contains("metrics") && !stderr.contains("WARN"), "{stderr}");
    assert_eq!(stderr.matches("load at EL1").count(), 1, "{stderr}");
}
