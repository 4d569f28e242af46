//! `seawall decode --log`: logs of kernels, firmware, hypervisors and emulators. Each finding is a literal.

mod seawall;

use std::io::Write as _;
use std::process::{Command, Stdio};

use seawall::{File, lines_of_json, seawall, text};
use serde_json::Value;

fn log(name: &str) -> String {
    format!("{}/tests/logs/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn findings(path: &str) -> Vec<Value> {
    let output = seawall(&["decode", "--json", "--log", path]);
    assert_eq!(output.status.code(), Some(0), "{path}: {}", text(&output.stderr));
    lines_of_json(&output)
}

/// Each finding as `line found_as text`, or `line-last_line ...`.
#[track_caller]
fn check(name: &str, expected: &[&str]) {
    let found: Vec<String> = findings(&log(name))
        .iter()
        .map(|finding| {
            let (line, last) = (&finding["line"], &finding["last_line"]);
            let lines = if line == last { line.to_string() } else { format!("{line}-{last}") };
            let string = |name: &str| finding[name].as_str().unwrap().to_owned();
            format!("{lines} {} {}", string("found_as"), string("text"))
        })
        .collect();
    assert_eq!(found, expected, "{name}");
}

#[test]
fn linux_on_64_bits() {
    check(
        "linux-arm64.log",
        &[
            "4 esr 0x96000004 data abort from the same EL, IL, DFSC 0x04 translation fault, level 0",
            "13 oops 0x96000004 data abort from the same EL, IL, DFSC 0x04 translation fault, level 0",
            "16 oops 0x96000210 data abort from the same EL, IL, SET=UER EA DFSC 0x10 synchronous external abort",
            "17 serror-code 0xbe000011 SError, IL, AET=UC DFSC 0x11 asynchronous SError",
            "19 esr 0x92000010 data abort from a lower EL, IL, SET=UER DFSC 0x10 synchronous external abort",
            "21 esr 0x92000046 data abort from a lower EL, IL, WnR DFSC 0x06 translation fault, level 2",
            "22 esr 0x02000000 unknown reason, IL",
            "23 esr 0x92000030 data abort from a lower EL, IL, DFSC 0x30 TLB conflict abort",
            "25 esr 0xf2000800 BRK in AArch64 state, IL, Comment=0x800",
        ],
    );
}

#[test]
fn linux_of_2016_on_64_bits() {
    check(
        "linux-arm64-4.4.log",
        &[
            "1 unhandled-fault 0x96000010 data abort from the same EL, IL, SET=UER DFSC 0x10 synchronous external abort",
            "2 oops 0x96000010 data abort from the same EL, IL, SET=UER DFSC 0x10 synchronous external abort",
            "3 serror-code 0xbf000002 SError, IL, IDS implementation defined syndrome 0x2",
            "4 serror-code 0x8600000f instruction abort from the same EL, IL, IFSC 0x0f permission fault, level 3",
            "5 unhandled-fault 0x96000015 data abort from the same EL, IL, DFSC 0x15 synchronous external abort on table walk, level 1",
        ],
    );
}

#[test]
fn linux_on_32_bits() {
    check(
        "linux-arm32.log",
        &[
            "3 fsr DFSR 0x1c06 short-descriptor ExT WnR, asynchronous SError",
            "4 unhandled-fault DFSR 0x1008 short-descriptor ExT, synchronous external abort",
            "7 oops DFSR 0x1008 short-descriptor ExT, synchronous external abort",
            "8 unhandled-fault DFSR 0x1406 short-descriptor ExT, asynchronous SError",
            "9 unhandled-fault DFSR 0x1211 LPAE ExT, asynchronous SError",
            "13 oops DFSR 0x817 short-descriptor WnR domain=1, translation fault, level 2",
            "14 oops IFSR 0x5 short-descriptor, translation fault, level 1",
            "16 unhandled-fault IFSR 0x222 LPAE, debug exception",
            "17 page-fault-code DFSR 0x805 short-descriptor WnR, translation fault, level 1",
            "18 fsr DFSR 0x811 short-descriptor WnR domain=1, alignment fault",
        ],
    );
}

#[test]
fn records_of_the_firmware_as_linux_prints_them() {
    check(
        "linux-ghes.log",
        &[
            "35 mc-event memory error, uncorrected: 0x40210040, multi-bit ECC, unit `unknown memory`",
            "38-40 ghes memory error, fatal: 0x80001000",
            "4-9 ghes memory error, recoverable: 0x40210000..0x40211000, multi-bit ECC, unit `seawall 17`, 2026-11-21 13:14:15",
            "15-34 ghes memory error, corrected: 0xe53218400, single-bit ECC, 2026-11-21 13:14:23",
            "18-32 ghes Arm processor error, recoverable: 0x40210040, cache error",
            "41-42 ghes unknown, 12345678-1234-1234-1234-123456789abc, fatal",
        ],
    );
}

#[test]
fn u_boot() {
    check(
        "u-boot.log",
        &[
            "6 esr 0x96000010 data abort from the same EL, IL, SET=UER DFSC 0x10 synchronous external abort",
            "14 esr 0xbf000002 SError, IL, IDS implementation defined syndrome 0x2",
            "16 esr 0x02000000 unknown reason, IL",
        ],
    );
}

#[test]
fn freebsd_on_64_bits() {
    check(
        "freebsd-arm64.log",
        &[
            "9 esr 0x96000010 data abort from the same EL, IL, SET=UER DFSC 0x10 synchronous external abort",
            "14 esr 0x96000010 data abort from the same EL, IL, SET=UER DFSC 0x10 synchronous external abort",
            "19 esr 0x02000000 unknown reason, IL",
            "21 esr 0x92000046 data abort from a lower EL, IL, WnR DFSC 0x06 translation fault, level 2",
        ],
    );
}

#[test]
fn freebsd_on_32_bits() {
    check(
        "freebsd-armv7.log",
        &[
            "3 fsr DFSR 0x1008 short-descriptor ExT, synchronous external abort",
            "7 fsr IFSR 0x5 short-descriptor, translation fault, level 1",
        ],
    );
}

#[test]
fn qemu_with_d_int() {
    check(
        "qemu-int.log",
        &[
            "4 esr 0x96000010 data abort from the same EL, IL, SET=UER DFSC 0x10 synchronous external abort",
            "11 esr 0x82000010 instruction abort from a lower EL, IL, SET=UER IFSC 0x10 synchronous external abort",
            "17 esr 0x02000000 unknown reason, IL",
            "19 fsr DFSR 0x808 short-descriptor WnR, synchronous external abort",
            "21 fsr IFSR 0x5 short-descriptor, translation fault, level 1",
            "23 esr 0xbe000c11 SError, IL, AET=UER DFSC 0x11 asynchronous SError",
        ],
    );
}

#[test]
fn edk2_on_64_bits() {
    check(
        "edk2-aarch64.log",
        &[
            "6 esr 0x96000010 data abort from the same EL, IL, SET=UER DFSC 0x10 synchronous external abort",
            "16 esr 0xbf000002 SError, IL, IDS implementation defined syndrome 0x2",
        ],
    );
}

#[test]
fn edk2_on_32_bits() {
    check(
        "edk2-arm.log",
        &[
            "4 fsr DFSR 0x8 short-descriptor, synchronous external abort",
            "8 fsr DFSR 0x8 short-descriptor, synchronous external abort",
            "8 fsr IFSR 0x5 short-descriptor, translation fault, level 1",
        ],
    );
}

#[test]
fn tf_a() {
    check(
        "tf-a.log",
        &[
            "3 ea-syndrome 0xbf000002 SError, IL, IDS implementation defined syndrome 0x2",
            "11 esr 0x92000210 data abort from a lower EL, IL, SET=UER EA DFSC 0x10 synchronous external abort",
            "15 esr 0x56000000 SVC in AArch64 state, IL, imm16=0x0",
            "17 ea-syndrome 0x82000010 instruction abort from a lower EL, IL, SET=UER IFSC 0x10 synchronous external abort",
        ],
    );
}

#[test]
fn xen() {
    check(
        "xen.log",
        &[
            "1 esr 0x93820006 data abort from a lower EL, IL, ISV 4 bytes of w2 DFSC 0x06 translation fault, level 2",
            "2 esr 0xbe000011 SError, IL, AET=UC DFSC 0x11 asynchronous SError",
            "8 esr 0x96000004 data abort from the same EL, IL, DFSC 0x04 translation fault, level 0",
            "11 esr 0x56000000 SVC in AArch64 state, IL, imm16=0x0",
            "13 esr 0x94000006 data abort from the same EL, DFSC 0x06 translation fault, level 2",
            "14 fsr DFSR 0x808 short-descriptor WnR, synchronous external abort",
        ],
    );
}

#[test]
fn op_tee() {
    check(
        "op-tee.log",
        &[
            "2 esr 0x96000044 data abort from the same EL, IL, WnR DFSC 0x04 translation fault, level 0",
            "5 fsr DFSR 0x1808 short-descriptor ExT WnR, synchronous external abort",
            "7 fsr IFSR 0x5 short-descriptor, translation fault, level 1",
        ],
    );
}

#[test]
fn rasdaemon() {
    check(
        "rasdaemon.log",
        &[
            "3 mc-event memory error, uncorrected: 0xe53218400, multi-bit ECC, unit `unknown memory`, 2026-11-28 13:28:48 +0800",
            "4 mc-event memory error, corrected: 0x40210040, single-bit ECC, unit `DIMM_A1`, 2026-11-28 13:30:00 +0000",
            "5 arm-event Arm processor error: unit `MPIDR 0x81080000`, 2026-11-28 13:31:00 +0000",
        ],
    );
}

#[test]
fn sea_exits_of_vmms() {
    check(
        "vmm.log",
        &[
            "1 sea-exit SEA exit: 0x92000210 data abort from a lower EL, IL, SET=UER EA DFSC 0x10 synchronous external abort; gva 0x401040, gpa 0x40210000",
            "2-6 sea-exit SEA exit: 0x82000215 instruction abort from a lower EL, IL, EA IFSC 0x15 synchronous external abort on table walk, level 1; gva 0xffff800008012340, no gpa",
            "8 sea-exit SEA exit: 0x92000610 data abort from a lower EL, IL, SET=UER FnV EA DFSC 0x10 synchronous external abort; no gva, gpa 0x40210000",
            "9 esr 0x93830046 data abort from a lower EL, IL, ISV 4 bytes of w3 WnR DFSC 0x06 translation fault, level 2",
            "10 serror-iss 0xbe100c11 SError, IL, rest=0x100000 AET=UER DFSC 0x11 asynchronous SError",
            "11 esr 0x92000010 data abort from a lower EL, IL, SET=UER DFSC 0x10 synchronous external abort",
            "11 sea-exit SEA exit: 0x92000210 data abort from a lower EL, IL, SET=UER EA DFSC 0x10 synchronous external abort; gva 0x500123, gpa 0x40210000",
        ],
    );
}

/// docs/decode.md: names and types of all fields, which never change.
#[test]
fn a_finding_is_an_object_on_a_line() {
    let file = File::new("one.log", b"first\n\"Synchronous Abort\" handler, esr 0x2000000\r\n");
    let output = seawall(&["decode", "--json", "--log", file.path()]);
    assert_eq!(
        text(&output.stdout),
        concat!(
            r#"{"line":2,"last_line":2,"found_as":"esr","source":"\"Synchronous Abort\" handler, esr 0x2000000","#,
            r#""cut":false,"kind":"esr","value":"0x2000000","text":"0x02000000 unknown reason, IL","fields":["#,
            r#"{"name":"EC","bits":"[31:26]","value":"0x0","meaning":"unknown reason"},"#,
            r#"{"name":"IL","bits":"[25]","value":"1","meaning":"32-bit instruction, or no instruction"}]}"#,
            "\n"
        )
    );
}

#[test]
fn people_get_the_line_and_below_it_what_it_means() {
    let file = File::new("two.log", b"x\nprog: esr 0x2000000\n[1.0] Internal error: : 1008 [#1] SMP ARM\n");
    let output = seawall(&["decode", "--log", file.path()]);
    assert_eq!(
        text(&output.stdout),
        "2: prog: esr 0x2000000\n  ESR 0x02000000 unknown reason, IL\n\
         3: [1.0] Internal error: : 1008 [#1] SMP ARM\n  \
         DFSR 0x1008 short-descriptor ExT, synchronous external abort\n"
    );
    let output = seawall(&["decode", "--fields", "--log", file.path()]);
    assert_eq!(
        text(&output.stdout),
        "2: prog: esr 0x2000000\n  ESR 0x02000000 unknown reason, IL\n  \
         EC  [31:26]  0x0  unknown reason\n  IL  [25]     1    32-bit instruction, or no instruction\n\
         3: [1.0] Internal error: : 1008 [#1] SMP ARM\n  \
         DFSR 0x1008 short-descriptor ExT, synchronous external abort\n  \
         FnV     [16]      0    DFAR is valid\n  \
         AET     [15:14]   0x0\n  \
         CM      [13]      0\n  \
         ExT     [12]      1\n  \
         WnR     [11]      0    read\n  \
         LPAE    [9]       0    short descriptors\n  \
         FS      [10,3:0]  0x8  synchronous external abort\n  \
         Domain  [7:4]     0x0\n"
    );
}

/// Writes to the command's stdin, and returns its output.
fn piped(args: &[&str], log: &[u8]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
    let command = command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // The command may have read enough, and have ended.
    let _ = child.stdin.take().unwrap().write_all(log);
    let output = child.wait_with_output().unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_log_may_come_by_a_pipe() {
    for args in [&["decode"][..], &["decode", "--log"], &["decode", "--log", "-"]] {
        let (code, stdout, stderr) = piped(args, b"esr 0x96000010\n");
        assert_eq!(code, Some(0), "{args:?} {stderr}");
        assert!(stdout.starts_with("1: esr 0x96000010\n  ESR 0x96000010 data abort"), "{args:?} {stdout}");
    }
}

#[test]
fn what_is_found_is_written_before_the_log_ends() {
    use std::io::{BufRead, BufReader};
    let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
    let command = command.args(["decode", "--log", "--json"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"esr 0x96000010\n").unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    // The log is still open: this would wait forever for output that is held back.
    stdout.read_line(&mut line).unwrap();
    assert!(line.starts_with(r#"{"line":1,"#), "{line}");
    drop(stdin);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_log_without_anything_to_explain_is_exit_code_1() {
    let (code, stdout, stderr) = piped(&["decode", "--log"], b"Linux version 7.2\nall is well\n");
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    assert!(
        stderr.starts_with("error: nothing to explain in the 2 lines of stdin: expected a line such as"),
        "{stderr}"
    );
    let (code, _, stderr) = piped(&["decode"], b"");
    assert_eq!(code, Some(1), "{stderr}");
    let output = seawall(&["decode", "--log", "/nonexistent.log"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains("cannot read /nonexistent.log: No such file"));
}

#[test]
fn a_line_without_end_is_cut_and_said() {
    let mut log = b"esr 0x96000010 ".to_vec();
    log.resize(3 << 20, b'x');
    log.extend(b" esr 0x92000010\nesr 0x82000010\n");
    let (code, stdout, stderr) = piped(&["decode", "--log", "--json"], &log);
    assert_eq!(code, Some(0));
    assert_eq!(stderr, "note: line 1 is longer than 16384 bytes; the rest of it was not looked at\n");
    let found: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let short: Vec<_> = found.iter().map(|one| (&one["line"], &one["value"], &one["cut"])).collect();
    assert_eq!(
        short,
        [
            (&Value::from(1), &Value::from("0x96000010"), &Value::from(true)),
            (&Value::from(2), &Value::from("0x82000010"), &Value::from(false))
        ]
    );
}

#[test]
fn a_number_that_the_cut_goes_through_is_not_taken_for_a_shorter_one() {
    // 16384 bytes end in the middle of the number.
    let mut log = vec![b'x'; 16384 - 10];
    log.extend(b" esr 0x9600001000000000\n");
    let (code, stdout, _) = piped(&["decode", "--log"], &log);
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
}

#[test]
fn colours_of_a_log_are_dropped_and_it_cannot_command_a_terminal() {
    let log = b"\x1b[31mesr\x1b[0m 0x96000010 \x1b]0;title\x07 after\n\x08esr 0x96000010 \xff\n";
    let (_, stdout, _) = piped(&["decode", "--log"], log);
    let lines: Vec<_> = stdout.lines().collect();
    assert_eq!(lines[0], "1: esr 0x96000010  after");
    assert!(lines[1].starts_with("  ESR 0x96000010 data abort"));
    assert_eq!(lines[2], "2: \\u{8}esr 0x96000010 \u{fffd}");
}

#[test]
fn a_reader_of_stdout_that_goes_away_ends_the_command() {
    // More than a pipe holds, and a reader that has gone: the command ends although the log goes on.
    let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
    let command = command.args(["decode", "--log"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let mut stdin = child.stdin.take().unwrap();
    while stdin.write_all(b"esr 0x96000010\n").is_ok() {}
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// `linux-ghes-N.hex` is the status block that record N of `linux-ghes.log` prints: the record has each field
/// that Linux prints, with the same value.
#[test]
fn linux_prints_of_any_record_what_the_record_says() {
    let printed = findings(&log("linux-ghes.log"));
    for (block, line, text) in [
        ("linux-ghes-2.hex", 15, "memory error, corrected: 0xe53218400, single-bit ECC, 2026-11-21 13:14:23"),
        (
            "linux-ghes-3.hex",
            18,
            "Arm processor error, recoverable: 0x40210040, cache; before UEFI 2.9A: bus",
        ),
    ] {
        let record = &seawall::json(&seawall(&["decode", "--json", "--cper", &log(block)]))[0];
        assert_eq!(record["text"], format!("GHES status block: {text}"));
        let parts = record["parts"].as_array().unwrap();
        let fields: Vec<&Value> = parts.iter().flat_map(|part| part["fields"].as_array().unwrap()).collect();
        let finding = printed.iter().find(|finding| finding["line"] == line).unwrap();
        for field in finding["fields"].as_array().unwrap() {
            let same = |other: &&&Value| {
                other["name"] == field["name"] && other["valid"] != false && other["value"] == field["value"]
            };
            assert!(fields.iter().find(same).is_some(), "{block}: {field}");
        }
        assert!(finding["fields"].as_array().unwrap().len() >= 8);
    }
}

/// Debian's Linux 7.3.4 printed this for the first record of `seawall run --acpi --poison page:code`.
const PRINTED: &str = "\
[    0.916695] {1}[Hardware Error]: Hardware error from APEI Generic Hardware Error Source: 0\r
[    0.916699] {1}[Hardware Error]: event severity: recoverable\r
[    0.916703] {1}[Hardware Error]:  precise tstamp: 2026-01-01 00:00:01\r
[    0.916712] {1}[Hardware Error]:  Error 0, type: recoverable\r
[    0.916716] {1}[Hardware Error]:  fru_text: seawall 1\r
[    0.916720] {1}[Hardware Error]:   section_type: memory error\r
[    0.916724] {1}[Hardware Error]:   physical_address: 0x0000000047f60000\r
[    0.916728] {1}[Hardware Error]:   physical_address_mask: 0xfffffffffffff000\r
[    0.916732] {1}[Hardware Error]:   error_type: 3, multi-bit ECC\r
";

#[test]
fn linux_prints_of_our_record_what_the_record_says() {
    use ::seawall::apei::cper::{MemoryErrorRecord, Severity};
    let record = MemoryErrorRecord {
        address: 0x47f6_0000,
        range: 0x47f6_0000..0x47f6_1000,
        severity: Severity::Recoverable,
        // 2026-01-01 00:00:01 UTC.
        time: std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_767_225_601),
        serial: 1,
    };
    let hex = seawall::hex(&record.to_bytes());
    let of_bytes = &seawall::json(&seawall(&["decode", "--json", "--cper", &hex]))[0];
    let file = File::new("printed.log", PRINTED.as_bytes());
    let of_log = &findings(file.path())[0];

    let said = "memory error, recoverable: 0x47f60000..0x47f61000, multi-bit ECC, unit `seawall 1`, 2026-01-01 00:00:01";
    assert_eq!(of_log["text"], said);
    assert_eq!(of_bytes["text"], format!("GHES status block: {said}"));
    assert_eq!((&of_log["line"], &of_log["last_line"]), (&Value::from(4), &Value::from(9)));
    // Each field that Linux printed is a valid one of the record, with the same value and meaning, and vice
    // versa.
    let triple = |field: &Value| {
        let string = |name: &str| field[name].as_str().unwrap().to_owned();
        (string("name"), string("value"), string("meaning"))
    };
    let mut printed: Vec<_> = of_log["fields"].as_array().unwrap().iter().map(triple).collect();
    let parts = of_bytes["parts"].as_array().unwrap();
    let fields = parts.iter().flat_map(|part| part["fields"].as_array().unwrap());
    // The time is on a line of its own, and in the text above.
    let is_printed = |field: &&Value| field["valid"] == true && field["name"] != "timestamp";
    let mut valid: Vec<_> = fields.filter(is_printed).map(triple).collect();
    printed.sort();
    valid.sort();
    assert_eq!(printed, valid);
}
