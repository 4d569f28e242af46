//! What a user does: the command, its output and its exit codes.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

fn seawall(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_seawall")).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: stdout {:?}, stderr {:?}", text(&output.stdout), text(&output.stderr))
    })
}

/// A file of the test's own, gone with it.
struct File(PathBuf);

impl File {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("seawall-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }

    /// A flat image of instruction words.
    fn code(name: &str, words: &[u32]) -> Self {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        Self::new(name, &bytes)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

// mov w0, #PSCI function; hvc #0
const MOV_W0_8: u32 = 0x5280_0100; // mov w0, #8
const MOV_W0_9: u32 = 0x5280_0120; // mov w0, #9
const MOVK_W0_8400: u32 = 0x72b0_8000; // movk w0, #0x8400, lsl #16
const HVC: u32 = 0xd400_0002; // hvc #0
const BRANCH_SELF: u32 = 0x1400_0000; // b .
const WFI: u32 = 0xd503_207f;
const NOP: u32 = 0xd503_201f;

/// Prints `hi` on the UART, then SYSTEM_OFF.
const HELLO: [u32; 8] = [
    0xd2a1_2001, // mov x1, #0x09000000
    0x5280_0d02, // mov w2, #'h'
    0xb900_0022, // str w2, [x1]
    0x5280_0d22, // mov w2, #'i'
    0xb900_0022, // str w2, [x1]
    MOV_W0_8,
    MOVK_W0_8400,
    HVC,
];

/// Loads from 0x40200000 with vectors at +0x800 whose EL1 synchronous one is `handler`.
fn loader(handler: u32) -> Vec<u32> {
    let mut words = vec![
        0x1000_4000, // adr x0, . + 0x800
        0xd518_c000, // msr vbar_el1, x0
        0xd2a8_0401, // mov x1, #0x40200000
        0xf940_0022, // ldr x2, [x1]
        MOV_W0_8,
        MOVK_W0_8400,
        HVC,
    ];
    words.resize(0x800 / 4 + 0x200 / 4, NOP);
    words.push(handler);
    words
}

#[test]
fn demo_comes_to_what_each_policy_must() {
    let output = seawall(&["demo", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let report = json(&output);
    assert_eq!(report["as_expected"], true);
    let survived: Vec<_> = report["runs"].as_array().unwrap().iter().map(|run| &run["survived"]).collect();
    assert_eq!(survived, [0, 2, 3]);
    let full = &report["runs"][2];
    assert_eq!(full["guest_saw"][0]["esr"], "0x82000210");
    assert_eq!(full["errors"][0]["access"], "fetch");
    assert_eq!(full["errors"][0]["guest_far"], full["errors"][0]["gva"]);
    assert_eq!(full["guest_saw"][1]["esr"], "0x92000210");
    // FAR_EL1 says nothing of an SError.
    assert_eq!(report["runs"][0]["errors"][0]["guest_far"], Value::Null);
}

#[test]
fn demo_shows_the_three_policies_side_by_side_without_colours_in_a_pipe() {
    let output = seawall(&["demo"]);
    let screen = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0));
    assert!(!screen.contains('\x1b'), "{screen}");
    let survived = screen.lines().find(|line| line.trim_start().starts_with("survived")).unwrap();
    let words: Vec<_> = survived.split_whitespace().collect();
    assert_eq!(words, ["survived", "0", "of", "4", "2", "of", "4", "3", "of", "4"]);
    assert!(screen.lines().all(|line| line.chars().count() <= 80), "{screen}");
}

#[test]
fn demo_trace_shows_console_exit_and_injection() {
    let trace = text(&seawall(&["demo", "--trace"]).stderr);
    for part in ["--- policy serror", "--- policy full", "goes bad", "KVM_EXIT_ARM_SEA 0x82000210", "[ready]"]
    {
        assert!(trace.contains(part), "{part} in {trace}");
    }
}

#[test]
fn decode_takes_several_values_and_each_kind() {
    let output = seawall(&["decode", "0x92000210", "2449474064"]);
    let words = text(&output.stdout);
    assert!(words.starts_with("0x92000210 data abort from a lower EL"), "{words}");
    assert!(words.contains("\n0x92000210") || words.contains("\n0x9200"), "{words}");
    let spsr = text(&seawall(&["decode", "--spsr", "0x3c5"]).stdout);
    assert!(spsr.starts_with("0x3c5 nzcv DAIF EL1h"), "{spsr}");
    let dfsr = text(&seawall(&["decode", "--dfsr", "0x210"]).stdout);
    assert!(dfsr.starts_with("DFSR 0x210 LPAE, synchronous external abort"), "{dfsr}");
    let ifsr = text(&seawall(&["decode", "--ifsr", "0x8"]).stdout);
    assert!(ifsr.starts_with("IFSR 0x8 short-descriptor, synchronous external abort"), "{ifsr}");
}

#[test]
fn decode_json_has_a_field_for_each_name() {
    let esr = json(&seawall(&["decode", "--json", "0x82000215"]));
    assert_eq!(esr[0]["value"], "0x82000215");
    let fields = esr[0]["fields"].as_array().unwrap();
    let ifsc = fields.iter().find(|field| field["name"] == "IFSC").unwrap();
    assert_eq!(ifsc["bits"], "[5:0]");
    assert_eq!(ifsc["value"], "0x15");
    assert_eq!(ifsc["meaning"], "synchronous external abort on table walk, level 1");
}

#[test]
fn decode_reads_64_bytes_as_each_abi_would() {
    // ext_iabt_pending, ext_abt_has_esr, ext_abt_esr @16 = 0x200, in two arguments.
    let rest = "00".repeat(45);
    let events = json(&seawall(&["decode", "--json", "00000001010000000000000000000000000200", &rest]));
    let readings = events[0]["readings"].as_array().unwrap();
    assert!(readings[0]["events"]["error"].as_str().unwrap().contains("offset 16"));
    assert_eq!(readings[1]["events"]["ext_iabt_pending"], true);
    assert_eq!(readings[1]["events"]["ext_abt_esr"], "0x200");
}

#[test]
fn decode_says_what_it_expected() {
    let output = seawall(&["decode", "0xzz"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("expected a number such as 0x40080000"));
    let output = seawall(&["decode", "--dfsr", "0x1_0000_0000"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("expected a 32-bit DFSR, got 0x100000000"));
}

#[test]
fn run_gives_the_guest_s_console_on_stdout_and_nothing_else() {
    let image = File::code("hello", &HELLO);
    let output = seawall(&["run", "--machine", image.path()]);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), "hi"));
    assert!(text(&output.stderr).contains("powered off after 8 instructions"));
    let output = seawall(&["run", "--machine", image.path(), "--load", "0x40000000", "--json"]);
    let report = json(&output);
    assert_eq!((&report["console"], &report["outcome"]), (&Value::from("hi"), &Value::from("power-off")));
    assert_eq!(report["instructions"], 8);
}

#[test]
fn run_contains_an_error_as_the_policy_says() {
    // The handler skips the load: ELR += 4, then ERET. It needs three words.
    let mut words = loader(0xd538_4020); // mrs x0, elr_el1
    words.extend([0x9100_1000, 0xd518_4020, 0xd69f_03e0]); // add x0, x0, #4; msr elr_el1, x0; eret
    let image = File::code("skip", &words);
    for (policy, esr) in [("full", "0x96000210"), ("mainline", "0x96000010")] {
        let args = ["run", "--machine", image.path(), "--poison", "0x40200000", "--policy", policy, "--json"];
        let output = seawall(&args);
        let report = json(&output);
        assert_eq!(output.status.code(), Some(0), "{report}");
        assert_eq!(report["errors"][0]["guest_esr"], esr);
        assert_eq!(report["errors"][0]["gpa"], "0x40200000");
        assert_eq!(report["errors"].as_array().unwrap().len(), 1);
    }
}

#[test]
fn run_poisons_when_it_is_said() {
    let image = File::code("late", &loader(BRANCH_SELF));
    // After the fourth instruction the load is past.
    let args = ["run", "--machine", image.path(), "--poison", "0x40200000+64@4", "--json"];
    let report = json(&seawall(&args));
    assert_eq!(report["errors"].as_array().unwrap().len(), 0);
    let args =
        ["run", "--machine", image.path(), "--poison", "0x40200000+64@3", "--max-insns", "100", "--json"];
    let report = json(&seawall(&args));
    assert_eq!(report["errors"].as_array().unwrap().len(), 1);
}

#[test]
fn run_stops_a_storm_with_the_reason() {
    let image = File::code("storm", &loader(0xd69f_03e0)); // eret: back to the load
    let output = seawall(&["run", "--machine", image.path(), "--poison", "0x40200000"]);
    assert_eq!(output.status.code(), Some(6));
    let words = text(&output.stderr);
    assert!(words.contains("the guest took the same abort 17 times at PC 0x4008000c"), "{words}");
}

#[test]
fn run_tells_a_guest_that_hangs() {
    let image = File::code("hang", &[BRANCH_SELF]);
    let output = seawall(&["run", "--machine", image.path(), "--max-insns", "1000"]);
    assert_eq!(output.status.code(), Some(5));
    assert!(text(&output.stderr).contains("did not end in 1000 instructions (PC 0x40080000)"));
    let image = File::code("wfi", &[WFI]);
    let output = seawall(&["run", "--machine", image.path()]);
    assert_eq!(output.status.code(), Some(5));
    assert!(text(&output.stderr).contains("waits for an interrupt"));
}

#[test]
fn run_tells_a_guest_that_wants_more_than_there_is() {
    // mov x1, #0x0a000000; ldr w2, [x1]
    let image = File::code("device", &[0xd2a1_4001, 0xb940_0022]);
    let output = seawall(&["run", "--machine", image.path()]);
    assert_eq!(output.status.code(), Some(7));
    let words = text(&output.stderr);
    assert!(words.contains("read 4 bytes at 0xa000000 (PC 0x40080004)"), "{words}");
    // ldp x2, x3, [x1]
    let image = File::code("pair", &[0xd2a1_4001, 0xa940_0c22]);
    let output = seawall(&["run", "--machine", image.path()]);
    assert_eq!(output.status.code(), Some(7));
    assert!(text(&output.stderr).contains("without a valid syndrome"));
}

#[test]
fn run_tells_a_reset_from_a_power_off() {
    let image = File::code("reset", &[MOV_W0_9, MOVK_W0_8400, HVC]);
    let output = seawall(&["run", "--machine", image.path()]);
    assert_eq!(output.status.code(), Some(8));
}

#[test]
fn run_tells_a_file_that_is_no_guest() {
    let output = seawall(&["run", "--machine", "/no/such/file"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains("cannot read /no/such/file"));
    let empty = File::new("empty", b"");
    let output = seawall(&["run", "--machine", empty.path()]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains("got an empty file"));
    // An x86-64 ELF: this test.
    let me = std::env::current_exe().unwrap();
    let output = seawall(&["run", "--machine", me.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(3));
    let words = text(&output.stderr);
    assert!(words.contains("AArch64 ELF") || words.contains("RAM"), "{words}");
    let image = File::code("outside", &HELLO);
    let output = seawall(&["run", "--machine", image.path(), "--load", "0x1000"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains("does not fit"), "{}", text(&output.stderr));
}

#[test]
fn run_tells_a_range_outside_memory() {
    let image = File::code("range", &HELLO);
    for poison in ["0x1000", "0x48000000", "0x47ffffff+2"] {
        let output = seawall(&["run", "--machine", image.path(), "--poison", poison]);
        assert_eq!(output.status.code(), Some(4), "{poison}");
        assert!(text(&output.stderr).contains("expected a range in RAM, 0x40000000..0x48000000"));
    }
    for memory in ["0", "1000", "16E"] {
        let output = seawall(&["run", "--machine", image.path(), "--memory", memory]);
        assert!(matches!(output.status.code(), Some(2 | 4)), "{memory}: {}", text(&output.stderr));
    }
}

#[test]
fn help_teaches_and_wrong_usage_is_2() {
    let help = text(&seawall(&["--help"]).stdout);
    for part in ["seawall demo", "seawall decode 0x92000210", "Exit codes:"] {
        assert!(help.contains(part), "{part}");
    }
    let alone = seawall(&[]);
    assert_eq!(alone.status.code(), Some(0));
    assert!(text(&alone.stdout).contains("Start here:"));
    assert_eq!(seawall(&["run"]).status.code(), Some(2));
    assert_eq!(seawall(&["run", "--machine", "x", "--policy", "none"]).status.code(), Some(2));
    assert_eq!(seawall(&["demo", "--json", "--trace"]).status.code(), Some(2));
}

#[test]
fn a_full_disk_is_an_error_and_no_panic() {
    let code = File::code("full", &HELLO);
    for args in [
        &["demo"][..],
        &["demo", "--json"],
        &["decode", "0x92000210"],
        &[],
        &["run", "--machine", code.path()],
        &["run", "--json", "--machine", code.path()],
    ] {
        let Ok(full) = std::fs::OpenOptions::new().write(true).open("/dev/full") else { return };
        let output = Command::new(env!("CARGO_BIN_EXE_seawall")).args(args).stdout(full).output().unwrap();
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{args:?}: {stderr}");
        assert!(stderr.contains("error: cannot write to stdout: "), "{args:?}: {stderr}");
    }
}

#[test]
fn a_guest_whose_vectors_abort_is_told_so_at_once() {
    // udf #0 with VBAR_EL1 = 0: no memory there.
    let code = File::code("vectors", &[0]);
    let output = seawall(&["run", "--machine", code.path()]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{stderr}");
    assert!(stderr.contains("an exception at its own vector 0x200, and does so for ever"), "{stderr}");
    assert!(stderr.contains("0x86000010"), "{stderr}");
    assert!(stderr.contains("Set VBAR_EL1"), "{stderr}");
}

#[test]
fn poison_that_never_came_due_is_said() {
    let code = File::code("late", &HELLO);
    let output = seawall(&["run", "--machine", code.path(), "--poison", "0x40000000@1000"]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("1 of the --poison ranges did not go bad"), "{stderr}");
    // The guest's `hi` has no line break: what the command says starts a line all the same.
    assert!(stderr.starts_with("\nseawall: ") && !stderr.contains("\n\n"), "{stderr:?}");
}

#[test]
fn decode_reads_a_syndrome_as_a_kernel_prints_it() {
    for value in ["0x96000210", "96000210", "0000000096000210"] {
        let words = text(&seawall(&["decode", value]).stdout);
        assert!(words.starts_with("0x96000210 data abort from the same EL"), "{words}");
    }
}

#[test]
fn decode_shows_the_bits_above_31_of_an_spsr_that_are_set() {
    let words = text(&seawall(&["decode", "--spsr", "0x5000003c5"]).stdout);
    assert!(words.starts_with("0x5000003c5 nzcv DAIF EXLOCK PM EL1h\n"), "{words}");
    assert!(words.contains("EXLOCK  [34]     1"), "{words}");
    let it = text(&seawall(&["decode", "--spsr", "0x0200fc3f"]).stdout);
    assert!(it.contains("IT[1:0]  [26:25]  0x1") && it.contains("IT[7:2]  [15:10]  0x3f"), "{it}");
}
