//! `seawall decode`: values as they appear in logs, and error records in hexadecimal.

mod seawall;

use ::seawall::apei::cper::{MemoryErrorRecord, Severity};
use seawall::{File, hex, json, seawall, text};

/// Checks the first line for each value, including the text before the values.
#[track_caller]
fn check(args: &[&str], expected: &str) {
    let output = seawall(&[&["decode"], args].concat());
    let stdout = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", text(&output.stderr));
    assert_eq!(stdout.lines().next().unwrap(), expected, "{args:?}");
}

#[test]
fn an_fsr_is_read_as_a_kernel_prints_it() {
    for (value, expected) in [
        ("1008", "DFSR 0x1008 short-descriptor ExT, synchronous external abort"),
        ("1406", "DFSR 0x1406 short-descriptor ExT, asynchronous SError"),
        ("1211", "DFSR 0x1211 LPAE ExT, asynchronous SError"),
        ("817", "DFSR 0x817 short-descriptor WnR domain=1, translation fault, level 2"),
        ("c06", "DFSR 0xc06 short-descriptor WnR, asynchronous SError"),
        ("(0x1406)", "DFSR 0x1406 short-descriptor ExT, asynchronous SError"),
        (
            "Unhandled fault: external abort on non-linefetch (0x1008) at 0xf0a2c000",
            "DFSR 0x1008 short-descriptor ExT, synchronous external abort",
        ),
    ] {
        check(&["--dfsr", value], expected);
        let output = seawall(&["decode", "--dfsr", value]);
        assert_eq!(text(&output.stderr), "", "{value}");
    }
    check(&["--ifsr", "5"], "IFSR 0x5 short-descriptor, translation fault, level 1");
    check(&["--ifsr", "10"], "IFSR 0x10 short-descriptor, reserved fault status 0x00");
}

#[test]
fn an_esr_of_7_digits_is_hexadecimal_and_both_readings_are_said() {
    let output = seawall(&["decode", "2000000"]);
    assert!(text(&output.stdout).starts_with("0x02000000 unknown reason, IL\n"));
    assert_eq!(
        text(&output.stderr),
        "note: `2000000` is read as hexadecimal: 0x02000000 unknown reason, IL; in decimal it would be 0x001e8480 \
         unknown reason\n"
    );
    // Ten digits too, although they could be a decimal number of 32 bits.
    let output = seawall(&["decode", "2449474064"]);
    assert_eq!(
        text(&output.stderr),
        "note: `2449474064` is read as hexadecimal: 0x2449474064 HVC in AArch32 state, \
         imm16=0x4064, ISS2 0x24; in decimal it would be 0x92000210 data abort from a lower EL, IL, SET=UER EA DFSC 0x10 \
         synchronous external abort\n"
    );
}

#[test]
fn what_stands_around_a_value_is_peeled_off() {
    check(
        &["0x96000004,"],
        "0x96000004 data abort from the same EL, IL, DFSC 0x04 translation fault, level 0",
    );
    let external = "data abort from a lower EL, IL, SET=UER EA DFSC 0x10 synchronous external abort";
    check(&["(0x92000210)"], &format!("0x92000210 {external}"));
    let same = "0x96000210 data abort from the same EL, IL, SET=UER EA DFSC 0x10 synchronous external abort";
    for value in ["0x25/0x96000210", "0x96000210", "96000210", "0000000096000210", "[96000210]:"] {
        check(&[value], same);
    }
}

#[test]
fn a_line_of_a_log_has_its_value_in_it() {
    check(
        &["[    3.1] Internal error: synchronous external abort: 0000000096000210 [#1] SMP"],
        "0x96000210 data abort from the same EL, IL, SET=UER EA DFSC 0x10 synchronous external abort",
    );
    // Without quotes, too.
    check(
        &["SError", "Interrupt", "on", "CPU0,", "code", "0x00000000be000011", "--", "SError"],
        "0xbe000011 SError, IL, AET=UC DFSC 0x11 asynchronous SError",
    );
    check(
        &["Unhandled fault: imprecise external abort (0x1406) at 0x76f3f000"],
        "DFSR 0x1406 short-descriptor ExT, asynchronous SError",
    );
}

#[test]
fn a_value_that_is_none_is_wrong_usage() {
    for (args, expected) in [
        (&["0xzz"][..], "expected a number such as 0x96000210"),
        (&["0x96000210", "nothing"], "expected a number such as 0x96000210"),
        (&["--dfsr", "0x1_0000_0000"], "expected a 32-bit DFSR, got 0x100000000"),
        (&["a 0x92000210 b 0x40080000"], "expected one number, or a line of a log"),
        (&["--cper", "11zz"], "expected hexadecimal digits"),
        (&["--cper", "1122"], "expected a record (it begins with CPER), a status block"),
        (&["--dfsr", "--log"], "cannot be used with"),
    ] {
        let output = seawall(&[&["decode"], args].concat());
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(text(&output.stderr).contains(expected), "{args:?}: {}", text(&output.stderr));
    }
}

fn record() -> Vec<u8> {
    let record = MemoryErrorRecord {
        address: 0x4021_0000,
        range: 0x4021_0000..0x4021_1000,
        severity: Severity::Recoverable,
        // 2026-11-21 13:14:15 UTC.
        time: std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_795_266_855),
        serial: 17,
    };
    record.to_bytes().to_vec()
}

/// ACPI 6.5, 18.3.2.7.1; UEFI 2.10, N.2.5.
#[test]
fn a_status_block_is_explained_field_by_field() {
    let output = seawall(&["decode", "--cper", &hex(&record())]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), include_str!("logs/status-block.txt"));
}

#[test]
fn a_record_may_be_a_file_of_bytes_digits_or_a_dump() {
    let bytes = record();
    let said = "GHES status block: memory error, recoverable: 0x40210000..0x40211000, multi-bit ECC, unit `seawall \
                17`, 2026-11-21 13:14:15";
    let row = |bytes: &[u8], digits: usize| {
        let groups: Vec<String> = bytes.chunks(digits).map(hex).collect();
        groups.join(" ")
    };
    let dump = |colon: &str, digits: usize, bar: &str| -> String {
        let line = |(n, bytes): (usize, &[u8])| {
            format!("{:08x}{colon} {}  {bar}................{bar}\n", n * 16, row(bytes, digits))
        };
        bytes.chunks(16).enumerate().map(line).collect()
    };
    for (name, contents) in [
        ("bytes", bytes.clone()),
        ("digits", hex(&bytes).into_bytes()),
        ("xxd", dump(":", 2, "").into_bytes()),
        ("hexdump", (dump(" ", 1, "|") + "000000ac\n").into_bytes()),
    ] {
        let file = File::new(name, &contents);
        check(&["--cper", file.path()], said);
    }
    // As several arguments, as a shell splits them.
    let words: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let args: Vec<&str> = ["--cper"].into_iter().chain(words.iter().map(String::as_str)).collect();
    check(&args, said);
}

#[test]
fn a_record_as_json_has_parts_and_fields_by_name() {
    let output = seawall(&["decode", "--json", "--cper", &hex(&record())]);
    let all = json(&output);
    let record = &all[0];
    assert_eq!(record["kind"], "cper");
    assert_eq!(record["form"], "status-block");
    assert_eq!(record["unread"], 0);
    assert_eq!(
        record["errors"],
        serde_json::json!([{
            "section": "memory error",
            "severity": "recoverable",
            "address": "0x40210000",
            "mask": "0xfffffffffffff000",
            "error_type": "multi-bit ECC",
            "unit": "seawall 17",
            "time": "2026-11-21 13:14:15",
        }])
    );
    let names: Vec<_> =
        record["parts"].as_array().unwrap().iter().map(|part| part["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["status block", "data entry 0", "memory error"]);
    let part = &record["parts"][2];
    assert_eq!((&part["offset"], &part["size"]), (&92.into(), &80.into()));
    assert_eq!(
        part["fields"][2],
        serde_json::json!({
            "name": "physical_address",
            "offset": 108,
            "size": 8,
            "value": "0x40210000",
            "valid": true,
            "meaning": "",
        })
    );
    assert_eq!(part["fields"][4]["valid"], false);
}

#[test]
fn a_record_that_was_cut_is_explained_up_to_the_cut_with_exit_code_1() {
    let output = seawall(&["decode", "--cper", &hex(&record()[..150])]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stdout)
            .starts_with("GHES status block: memory error, recoverable: 0x40210000..0x40211000")
    );
    assert!(text(&output.stderr).contains("note: at byte 20: expected 152 bytes of data entries, got 130\n"));
}

#[test]
fn help_has_examples_and_exit_codes() {
    let help = text(&seawall(&["decode", "--help"]).stdout);
    for part in ["dmesg | seawall decode --log", "decode --dfsr 1406", "decode --cper", "Exit codes:"] {
        assert!(help.contains(part), "{part} in {help}");
    }
}
