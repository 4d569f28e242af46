//! A hostile guest or client costs `seawall run` a bounded amount: each of these runs has little more memory
//! than its guest, by `prlimit` (util-linux).

mod seawall;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::Duration;

use seawall::{BRANCH_SELF, File, HELLO, NOP, OFF, json, says, text};

/// Address space of the command in bytes: its own, its guest's 128 MiB, and 384 MiB.
const LIMIT: &str = "--as=1073741824";

fn limited(args: &[&str]) -> Command {
    let mut command = Command::new("prlimit");
    command.arg(LIMIT).arg(env!("CARGO_BIN_EXE_seawall")).args([
        "run",
        "--backend",
        "machine",
        "--memory",
        "128M",
    ]);
    command.args(args).env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    limited(args).output().unwrap()
}

/// A flat image that writes `(register, value)` to a virtio device, and continues with `then`. The image's
/// other parts are put at their offsets.
fn driver(registers: &[(u32, u32)], then: &[u32], parts: &[(usize, Vec<u8>)]) -> Vec<u8> {
    // adr x0, . + 0x100; 1: ldp w1, w2, [x0], #8; cbz w1, 2f; str w2, [x1]; b 1b; 2:
    let mut words = vec![0x1000_0800, 0x28c1_0801, 0x3400_0061, 0xb900_0022, 0x17ff_fffd];
    words.extend(then);
    let mut image: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    image.resize(0x5000, 0);
    for (n, (register, value)) in registers.iter().enumerate() {
        image[0x100 + 8 * n..][..4].copy_from_slice(&(0x0a00_3e00 + register).to_le_bytes());
        image[0x104 + 8 * n..][..4].copy_from_slice(&value.to_le_bytes());
    }
    for (at, bytes) in parts {
        image[*at..at + bytes.len()].copy_from_slice(bytes);
    }
    image
}

/// Queue `index` with these descriptors (address, length, flags), all 64 entries of which are the chain of the first.
fn queue(index: u32, then: &[u32], descriptors: &[(u64, u32, u16)]) -> Vec<u8> {
    let registers = [
        (0x070, 1),
        (0x070, 3),
        (0x024, 1),
        (0x020, 1),
        (0x070, 0xb),
        (0x030, index),
        (0x038, 64),
        (0x080, 0x4008_1000),
        (0x090, 0x4008_2000),
        (0x0a0, 0x4008_3000),
        (0x044, 1),
        (0x070, 0xf),
        (0x050, index),
    ];
    let mut table = Vec::new();
    for (n, (address, length, flags)) in (1_u16..).zip(descriptors) {
        let next = u16::from(usize::from(n) < descriptors.len());
        table.extend(address.to_le_bytes());
        table.extend(length.to_le_bytes());
        table.extend((flags | next).to_le_bytes());
        table.extend(n.to_le_bytes());
    }
    // type OUT, sector 0.
    let header = vec![1, 0, 0, 0];
    driver(&registers, then, &[(0x1000, table), (0x2002, 64_u16.to_le_bytes().to_vec()), (0x4000, header)])
}

/// Found: 4.1 GB resident, and `--timeout` not seen.
#[test]
fn sixty_four_console_chains_of_4_gb_are_streamed_and_the_instructions_end_the_run() {
    let image = queue(1, &[BRANCH_SELF], &[(0x4100_0000, 62 << 20, 0); 64]);
    let kernel = File::new("bounds-console", &image);
    let args = ["--virtio-console", "--json", "--max-insns", "1000000", "--kernel", kernel.path()];
    let report = json(&run(&args));
    assert_eq!(report["outcome"], "instruction-limit", "{report}");
    // 64 KiB at the notice, and every ten microseconds of the guest's time.
    let console = report["console"].as_str().unwrap();
    assert_eq!(
        (console.len() as u64, report["console_left_out"].as_u64()),
        (2 * (1 << 20) + 26, Some(100 * (64 << 10) - (2 << 20)))
    );
    assert!(console.contains("\n[4456448 bytes left out]\n"));
}

/// Found: 821 instructions grew the overlay to 4 GB.
#[test]
fn a_sparse_disk_takes_what_disk_writes_says() {
    let disk = tempfile::NamedTempFile::new().unwrap();
    disk.as_file().set_len(8 << 30).unwrap();
    // 64 requests of 4 MiB; the sector in the header goes on by as much with each: 1: ldr w3, [x4, #8]; add; str; ...
    // is not needed: the limit is smaller than one request.
    let chain = [(0x4008_4000, 16, 0), (0x4100_0000, 4 << 20, 0), (0x4008_4100, 1, 2)];
    // 2: ldrb w3, [x5, #0x100], the status; w5 = 0x40084000; print '0' + status; power off.
    let then = [
        0xd2a8_0105, // mov x5, #0x40080000
        0x9140_10a5, // add x5, x5, #0x4000
        0x3944_00a3, // ldrb w3, [x5, #0x100]
        0x1100_c063, // add w3, w3, #'0'
        0xd2a1_2004, // mov x4, #0x09000000
        0xb900_0083, // str w3, [x4]
        OFF[0],
        OFF[1],
        OFF[2],
    ];
    let kernel = File::new("bounds-disk", &queue(0, &then, &chain));
    let disk = disk.path().to_str().unwrap();
    for (limit, status) in [("4M", "0"), ("4092K", "1"), ("0", "1")] {
        let output = run(&["--kernel", kernel.path(), "--disk", disk, "--disk-writes", limit]);
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), status.to_owned()), "{limit}");
    }
}

/// A guest that loads 1,024 bad lines in turn, forever; its handler continues after the load.
fn reads_bad_lines() -> Vec<u32> {
    let mut words = vec![
        0x1000_4000, // adr x0, . + 0x800
        0xd518_c000, // msr vbar_el1, x0
        0xd2a8_2001, // again: mov x1, #0x41000000
        0xd280_8003, // mov x3, #1024
        0xf940_0022, // 1: ldr x2, [x1]
        0x9101_0021, // add x1, x1, #64
        0xf100_0463, // subs x3, x3, #1
        0x54ff_ffa1, // b.ne 1b
        0x17ff_fffa, // b again
    ];
    words.resize((0x800 + 0x200) / 4, NOP);
    // mrs x4, elr_el1; add x4, x4, #4; msr elr_el1, x4; eret
    words.extend([0xd538_4024, 0x9100_1084, 0xd518_4024, 0xd69f_03e0]);
    words
}

/// Found: 780,000 errors in four seconds did not count as a storm, and took 9.4 GB with `--json`.
#[test]
fn a_thousand_bad_lines_in_turn_are_a_flood_and_the_report_has_the_first_and_the_last_errors() {
    let kernel = File::code("bounds-flood", &reads_bad_lines());
    let events = tempfile::NamedTempFile::new().unwrap();
    let args = [
        "--kernel",
        kernel.path(),
        "--poison",
        "0x41000000+64K",
        "--json",
        "--events",
        events.path().to_str().unwrap(),
        "--events-limit",
        "64K",
    ];
    let output = run(&args);
    assert_eq!(output.status.code(), Some(6));
    let report = json(&output);
    assert_eq!(report["outcome"], "flood");
    let count = report["errors_count"].as_u64().unwrap();
    // 16,384 at once, a few more in the time that they take, and the one that was too many.
    assert!((16_385..16_500).contains(&count), "{count}");
    assert_eq!(report["errors_left_out"], count - 2000);
    let errors = report["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 2000);
    assert_eq!((&errors[0]["gpa"], &errors[1]["gva"]), (&"0x41000000".into(), &"0x41000040".into()));
    assert_eq!(errors[1999]["stop_reason"], "flood");

    let lines = std::fs::read_to_string(events.path()).unwrap();
    assert!((60 << 10..66 << 10).contains(&lines.len()), "{}", lines.len());
    let end: serde_json::Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    let written = lines.lines().filter(|line| line.contains("\"memory-error\"")).count() as u64;
    assert_eq!((&end["event"], &end["events_left_out"]), (&"end".into(), &(count - written).into()));
}

#[test]
fn of_a_console_beyond_its_limit_the_rest_is_dropped_and_that_is_said() {
    let kernel = File::code("bounds-limit", &says("0123456789\n", &OFF));
    let output = run(&["--kernel", kernel.path(), "--console-limit", "4"]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "0123".to_owned()));
    let stderr = text(&output.stderr);
    assert!(
        stderr.contains("the rest of the console is dropped: the limit is 4 bytes (--console-limit)"),
        "{stderr}"
    );
}

/// The console has no reader, so the run never returns to check the time.
#[test]
fn a_console_that_nobody_reads_does_not_outlive_the_timeout() {
    let words = [
        0xd2a1_2001, // mov x1, #0x09000000
        0xb900_0022, // 1: str w2, [x1]
        0x17ff_ffff, // b 1b
    ];
    let kernel = File::code("bounds-unread", &words);
    let mut child = limited(&["--kernel", kernel.path(), "--timeout", "1", "--max-insns", "1000000000000"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let unread = child.stdout.take();
    let output = child.wait_with_output().unwrap();
    drop(unread);
    let message = "error: after 1 s the guest did not end, and nobody reads its console: read it, or send it to a file\n";
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(5), message.to_owned()));
}

/// The last messages have no reader either.
#[test]
fn messages_that_nobody_reads_do_not_outlive_the_timeout() {
    let kernel = File::code("bounds-untold", &reads_bad_lines());
    let args = ["--kernel", kernel.path(), "--poison", "0x41000000+64K", "--timeout", "1"];
    let mut child = limited(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let unread = (child.stdout.take(), child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(5));
    drop(unread);
}

/// A guest whose CPUs do nothing but TLB maintenance for each other: `--max-insns` is reached with all of them.
#[test]
fn a_barrage_of_maintenance_on_123_cpus_ends_by_its_instructions() {
    let words = [
        0xd280_0034, // mov x20, #1
        0x5280_0060, // 1: mov w0, #3, CPU_ON
        0x72b8_8000, // movk w0, #0xc400, lsl #16
        0x9240_0e81, // and x1, x20, #15
        0xd344_fe83, // lsr x3, x20, #4
        0xaa03_2021, // orr x1, x1, x3, lsl #8
        0x1000_00a2, // adr x2, 2f
        0xd400_0002, // hvc #0
        0x9100_0694, // add x20, x20, #1
        0xf101_ee9f, // cmp x20, #123
        0x54ff_fee1, // b.ne 1b
        0xd508_831f, // 2: tlbi vmalle1is
        0x17ff_ffff, // b 2b
    ];
    let kernel = File::code("bounds-tlbi", &words);
    let report =
        json(&run(&["--kernel", kernel.path(), "--cpus", "123", "--json", "--max-insns", "5000000"]));
    assert_eq!(
        (&report["outcome"], &report["instructions"]),
        (&"instruction-limit".into(), &5_000_000.into())
    );
}

/// The command with `--metrics`, running until it is told `q`.
struct Endpoint {
    child: Child,
    stderr: BufReader<ChildStderr>,
    address: SocketAddr,
}

impl Endpoint {
    fn new(name: &str) -> Self {
        let kernel = File::code(name, &seawall_guest::ECHO);
        let mut child = limited(&["--kernel", kernel.path(), "--stdin", "--timeout", "60", "--metrics", "0"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("metrics are at") {
            line.clear();
            assert_ne!(stderr.read_line(&mut line).unwrap(), 0);
        }
        let address = line.split("http://").nth(1).and_then(|url| url.trim().strip_suffix("/metrics"));
        Self { address: address.expect(&line).parse().unwrap(), child, stderr }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    }

    /// A scrape, and its status line.
    fn scrape(&self) -> String {
        let mut stream = self.connect();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: seawall\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("text/plain; version=0.0.4"), "{answer}");
        answer.lines().next().unwrap_or_default().to_owned()
    }

    /// Ends the guest; returns the exit code, and the peak of its address space in KiB.
    fn quit(mut self) -> (Option<i32>, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|text| text.split_whitespace().next()?.parse().ok()).unwrap();
        self.child.stdin.take().unwrap().write_all(b"q").unwrap();
        let mut rest = String::new();
        self.stderr.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), peak)
    }
}

/// Sends these bytes; the answer does not matter, nor if all could be sent. `seawall-hostile` sends others to
/// the same server.
fn send(address: SocketAddr, bytes: &[u8]) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_write_timeout(Some(Duration::from_secs(5))).ok()?;
    let _ = stream.write_all(bytes);
    Some(stream)
}

/// Found: each of these hung the endpoint, took gigabytes, or kept the process from ending.
#[test]
fn no_client_delays_a_scrape_holds_the_process_or_grows_its_memory() {
    let endpoint = Endpoint::new("bounds-http");
    assert_eq!(endpoint.scrape(), "HTTP/1.1 200 OK");
    let pipelined = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n".repeat(200_000);
    let endless_line = vec![b'a'; 32 << 20];
    let endless_headers = [&b"GET /metrics HTTP/1.1\r\n"[..], &b"x: y\r\n".repeat(2_000_000)].concat();
    let mut open = Vec::new();
    for bytes in [
        // A body that never comes, and one that comes slowly.
        &b"GET /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"[..],
        b"POST /metrics HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"POST /metrics HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: a",
        b"",
        &[0; 4096],
        &pipelined,
        &endless_line,
        &endless_headers,
    ] {
        open.extend(send(endpoint.address, bytes));
        assert_eq!(endpoint.scrape(), "HTTP/1.1 200 OK", "behind {} bytes", bytes.len());
    }
    // More than the command has file descriptors for, if it kept them.
    for n in 0..2000 {
        let stream = send(endpoint.address, b"GET /");
        if n % 4 == 0 && open.len() < 600 {
            open.extend(stream);
        }
    }
    assert_eq!(endpoint.scrape(), "HTTP/1.1 200 OK");
    // They are all still open on this side.
    let (code, peak) = endpoint.quit();
    assert_eq!(code, Some(0));
    assert!(peak < 96 << 10, "{peak} KiB");
    drop(open);
}

#[test]
fn what_is_too_long_for_a_request_is_answered_so() {
    let endpoint = Endpoint::new("bounds-long");
    let status = |bytes: &[u8]| {
        let mut stream = endpoint.connect();
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
    };
    let headers = |count: usize| {
        [b"GET /metrics HTTP/1.1\r\n".as_slice(), &b"x: y\r\n".repeat(count), b"\r\n"].concat()
    };
    assert_eq!(status(&headers(32)), "HTTP/1.1 200 OK");
    assert_eq!(status(&headers(33)), "HTTP/1.1 431 Request Header Fields Too Large");
    assert_eq!(status(b"PUT /metrics HTTP/1.1\r\nHost: a\r\n\r\n"), "HTTP/1.1 405 Method Not Allowed");
    assert_eq!(endpoint.quit().0, Some(0));
}

#[test]
fn the_limit_that_these_tests_run_under_is_one() {
    let output = Command::new("prlimit").args([LIMIT, "sh", "-c", "ulimit -v"]).output().unwrap();
    assert_eq!(text(&output.stdout).trim(), "1048576");
    let hello = File::code("bounds-hello", &HELLO);
    let output = run(&["--kernel", hello.path()]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "hi".to_owned()));
}
