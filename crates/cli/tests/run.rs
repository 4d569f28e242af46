//! `seawall run`: bare-metal guests, their outcomes, and the exit codes.

mod seawall;

use seawall::{
    BRANCH_SELF, File, HELLO, HVC, MOV_W0_8, MOV_W0_9, MOVK_W0_8400, NOP, OFF, RESET, WFI, ends, error,
    image, json, loader, says, seawall, text,
};
use seawall_guest::ECHO;
use serde_json::Value;

#[test]
fn run_gives_the_guest_s_console_on_stdout_and_nothing_else() {
    let image = File::code("hello", &HELLO);
    let output = seawall(&["run", "--kernel", image.path()]);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), "hi"));
    assert!(text(&output.stderr).contains("powered off after 8 instructions"));
    let output = seawall(&["run", "--kernel", image.path(), "--load", "0x40000000", "--json"]);
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
        let args = ["run", "--kernel", image.path(), "--poison", "0x40200000", "--policy", policy, "--json"];
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
    let args = ["run", "--kernel", image.path(), "--poison", "0x40200000+64@4", "--json"];
    let report = json(&seawall(&args));
    assert_eq!(report["errors"].as_array().unwrap().len(), 0);
    let args =
        ["run", "--kernel", image.path(), "--poison", "0x40200000+64@3", "--max-insns", "100", "--json"];
    let report = json(&seawall(&args));
    assert_eq!(report["errors"].as_array().unwrap().len(), 1);
}

#[test]
fn run_stops_a_storm_with_the_reason() {
    let image = File::code("storm", &loader(0xd69f_03e0)); // eret: back to the load
    let report = json(&seawall(&["run", "--kernel", image.path(), "--poison", "0x40200000", "--json"]));
    let last = report["errors"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["decision"], &last["stop_reason"]), (&"stop".into(), &"storm".into()));
    let output = seawall(&["run", "--kernel", image.path(), "--poison", "0x40200000"]);
    assert_eq!(output.status.code(), Some(6));
    let words = text(&output.stderr);
    assert!(words.contains("the guest took the same abort 17 times at PC 0x4008000c"), "{words}");
}

#[test]
fn run_tells_a_guest_that_hangs() {
    let image = File::code("hang", &[BRANCH_SELF]);
    let output = seawall(&["run", "--kernel", image.path(), "--max-insns", "1000"]);
    assert_eq!(output.status.code(), Some(5));
    assert!(text(&output.stderr).contains("did not end in 1000 instructions (PC 0x40080000)"));
    let image = File::code("wfi", &[WFI]);
    let output = seawall(&["run", "--kernel", image.path()]);
    assert_eq!(output.status.code(), Some(5));
    assert!(text(&output.stderr).contains("waits for an interrupt"));
}

/// f2.S: `movz x3, #0x0900, lsl #16; mov w2, #'A'; str w2, [x3], #4`. It has no syndrome, and works as on hardware.
#[test]
fn run_serves_a_post_indexed_store_to_the_uart() {
    let image = File::code("f2", &[0xd2a1_2003, 0x5280_0822, 0xb800_4462, MOV_W0_8, MOVK_W0_8400, HVC]);
    let output = seawall(&["run", "--kernel", image.path()]);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), "A"));
}

/// f3.S: `movz x3, #0x2000, lsl #16; ldr w2, [x3]`. The address is empty: the guest takes an abort, and this
/// one has no vectors.
#[test]
fn run_gives_a_guest_an_abort_where_nobody_answers_and_tells_of_it() {
    let image = File::code("f3", &[0xd2a4_0003, 0xb940_0062, MOV_W0_8, MOVK_W0_8400, HVC]);
    let output = seawall(&["run", "--kernel", image.path()]);
    assert_eq!(output.status.code(), Some(5));
    let words = text(&output.stderr);
    let expected = "seawall: read of 4 bytes at gpa 0x20000000, where there is neither RAM nor a device, at EL1, \
                    PC 0x40080004: data abort, no ESR given; guest at vector 0x200, ESR 0x96000010, FAR 0x20000000";
    assert!(words.contains(expected), "{words}");
    assert!(words.contains("the guest took an exception at its own vector 0x200"), "{words}");

    let events = File::new("f3-events", b"");
    let report = json(&seawall(&["run", "--kernel", image.path(), "--events", events.path(), "--json"]));
    let access = &report["unanswered_accesses"][0];
    assert_eq!((&access["reason"], &access["gpa"]), (&"no-device".into(), &"0x20000000".into()));
    assert_eq!((&report["errors"], &report["bad_pages"]), (&Value::Array(vec![]), &0.into()));
    let line = std::fs::read_to_string(events.path()).unwrap().lines().next().unwrap().to_owned();
    let expected = r#"{"event":"unanswered-access","instructions":1,"schema":1,"time":"2026-01-01T00:00:00.000000Z","guest_time_ns":1,"vcpu":0,"reason":"no-device","access":"load","gpa":"0x20000000","size":4,"exception_level":1,"pc":"0x40080004","decision":"data-abort","decision_text":"data abort, no ESR given","guest":"at-vector","guest_esr":"0x96000010","guest_far":"0x20000000","untold":0,"stop_reason":null,"exit_to_injection_ns":null}"#;
    assert_eq!(line, expected);
}

#[test]
fn run_stops_a_guest_that_does_nothing_but_an_access_that_nobody_answers() {
    // As `loader`, from 0x20000000; eret: back to the load.
    let mut words = loader(0xd69f_03e0);
    words[2] = 0xd2a4_0001; // mov x1, #0x20000000
    let image = File::code("nobody", &words);
    let output = seawall(&["run", "--kernel", image.path()]);
    assert_eq!(output.status.code(), Some(6));
    let words = text(&output.stderr);
    let expected = "the guest's kernel made the same access 4097 times at PC 0x4008000c and did nothing else: address \
                    0x20000000, where there is neither RAM nor a device";
    assert!(words.contains(expected), "{words}");
    // 16 are reported, and the one that ends it.
    assert_eq!(words.matches("read of 8 bytes at gpa 0x20000000").count(), 17, "{words}");
    assert!(
        words.contains("PC 0x4008000c: stopped: the guest's kernel made the same access 4097 times"),
        "{words}"
    );
}

/// f5.S: PSCI AFFINITY_INFO with X1 = 0x80000001, of which bit 31 must be zero; prints "Y" if the answer is
/// INVALID_PARAMETERS.
#[test]
fn run_has_psci_refuse_a_target_with_bits_that_must_be_zero() {
    let image = File::code(
        "f5",
        &[
            0xd280_0080, // movz x0, #4
            0xf2b8_8000, // movk x0, #0xc400, lsl #16
            0xd280_0021, // movz x1, #1
            0xf2b0_0001, // movk x1, #0x8000, lsl #16
            0xd280_0002, // mov x2, #0
            HVC,
            0xd2a1_2003, // movz x3, #0x0900, lsl #16
            0xb100_081f, // cmn x0, #2
            0x5280_09c2, // mov w2, #'N'
            0x5280_0b24, // mov w4, #'Y'
            0x1a82_0082, // csel w2, w4, w2, eq
            0xb900_0062, // str w2, [x3]
            MOV_W0_8,
            MOVK_W0_8400,
            HVC,
        ],
    );
    let output = seawall(&["run", "--kernel", image.path()]);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), "Y"));
}

#[test]
fn run_tells_a_reset_from_a_power_off() {
    let image = File::code("reset", &[MOV_W0_9, MOVK_W0_8400, HVC]);
    let output = seawall(&["run", "--kernel", image.path()]);
    assert_eq!(output.status.code(), Some(8));
}

#[test]
fn run_tells_a_range_outside_memory() {
    let image = File::code("range", &HELLO);
    for poison in ["0x1000", "0x50000000", "0x4fffffff+2"] {
        let output = seawall(&["run", "--kernel", image.path(), "--poison", poison]);
        assert_eq!(output.status.code(), Some(4), "{poison}");
        assert!(text(&output.stderr).contains("expected a range in RAM, 0x40000000..0x50000000"));
    }
    for (memory, size) in [("0", "0"), ("1000", "1000"), ("3M", "3145728")] {
        let output = seawall(&["run", "--kernel", image.path(), "--memory", memory]);
        assert_eq!(
            (output.status.code(), text(&output.stderr)),
            (
                Some(4),
                format!(
                    "error: expected a memory size that is a multiple of 2 MiB and that this host has, got {size} \
                     bytes: it is not such a multiple\n"
                )
            )
        );
    }
    let output = seawall(&["run", "--kernel", image.path(), "--memory", "0x7fffffffe00000"]);
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    assert_eq!(seawall(&["run", "--kernel", image.path(), "--memory", "16E"]).status.code(), Some(2));
}

#[test]
fn a_guest_whose_vectors_abort_is_told_so_at_once() {
    // udf #0 with VBAR_EL1 = 0, where there is no memory.
    let code = File::code("vectors", &[0]);
    let output = seawall(&["run", "--kernel", code.path()]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{stderr}");
    assert!(stderr.contains("an exception at its own vector 0x200, and does so for ever"), "{stderr}");
    assert!(stderr.contains("0x86000010"), "{stderr}");
    assert!(stderr.contains("Set VBAR_EL1"), "{stderr}");
}

#[test]
fn a_panic_is_told_from_a_reset_and_says_the_kernels_words() {
    let panic = "Kernel panic - not syncing: Asynchronous SError Interrupt";
    let guest = File::code("panic", &says(&format!("[    1.0] {panic}\n"), &RESET));
    let (code, words) = ends(&["--kernel", guest.path()]);
    assert_eq!(code, Some(10));
    assert!(
        words.starts_with("seawall: the guest's kernel panicked after ") && words.ends_with(panic),
        "{words}"
    );
    let report = json(&seawall(&["run", "--kernel", guest.path(), "--json"]));
    assert_eq!(report["outcome"], "panic");
}

#[test]
fn files_that_are_no_guest_are_told_from_each_other() {
    let check = |name: &str, bytes: &[u8], message: &str| {
        let file = File::new(name, bytes);
        let expected = error(3, &format!("{}: {message}", file.path()));
        assert_eq!(ends(&["--kernel", file.path()]), expected);
    };
    check("empty", b"", "expected a kernel, got an empty file");
    let mut x86 = vec![0; 0x210];
    x86[0x202..0x206].copy_from_slice(b"HdrS");
    check("x86", &x86, "expected an arm64 kernel, got an x86 bzImage: give one that was built for arm64");
    let mut elf = vec![0; 64];
    elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
    elf[18] = 62;
    let message = "expected a 64-bit little-endian ELF for AArch64, got a 64-bit little-endian one for x86-64: give one \
                   that was built for arm64";
    check("elf", &elf, message);
    check("truncated", &image(0x1000, &[])[..60], "expected a whole Image, got 60 bytes of at least 64");
    let gzip = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1, 2, 3];
    let file = File::new("gzip", &gzip);
    let (code, words) = ends(&["--kernel", file.path()]);
    assert_eq!(code, Some(3));
    assert!(words.contains("the kernel cannot be unpacked by gzip: "), "{words}");
    // Linux, zboot-header.S: payload offset and size at 8, compression at 24.
    let mut zboot = vec![0; 64];
    zboot[..8].copy_from_slice(b"MZ\0\0zimg");
    zboot[8..16].copy_from_slice(&[64, 0, 0, 0, 32, 0, 0, 0]);
    zboot[24..28].copy_from_slice(b"gzip");
    let message = "expected a payload inside the 64 bytes of the EFI zboot image, its header says 0x40..0x60";
    check("zboot", &zboot, message);
    assert_eq!(
        ends(&["--kernel", "/no/such/file"]),
        error(3, "cannot read the kernel /no/such/file: No such file or directory (os error 2)")
    );
}

#[test]
fn what_belongs_to_a_kernel_is_checked_too() {
    let kernel = File::new("image", &image(0x1000, &OFF));
    let run = |args: &[&str]| ends(&[&["--kernel", kernel.path()], args].concat());
    assert_eq!(run(&[]).0, Some(0));
    assert_eq!(
        run(&["--initrd", "/no/such/initrd"]),
        error(3, "cannot read the initramfs /no/such/initrd: No such file or directory (os error 2)")
    );
    let empty = File::new("initrd", b"");
    assert_eq!(run(&["--initrd", empty.path()]), error(3, "expected an initramfs, got an empty file"));
    let message =
        "expected a command line of at most 2047 bytes, got 2048: Linux would cut it off (--append)";
    assert_eq!(run(&["--append", &"x".repeat(2048)]), error(2, message));
    assert_eq!(run(&["--append", &"x".repeat(2047)]).0, Some(0));
    assert_eq!(run(&["--cpus", "0"]), error(2, "expected 1 to 123 vCPUs, got 0 (--cpus)"));
    let message =
        "expected a flat binary to load at 0x40000000, got a kernel that says itself where it goes (--load)";
    assert_eq!(run(&["--load", "0x40000000"]), error(2, message));
    let odd = File::new("disk", &[0; 513]);
    let message =
        format!("--disk {}: expected a size that is a multiple of 512 bytes and not 0, got 513", odd.path());
    assert_eq!(run(&["--disk", odd.path()]), error(3, &message));
}

#[test]
fn too_little_memory_has_an_exit_code_of_its_own_and_says_how_much_is_needed() {
    let kernel = File::new("big", &image(0x260_0000, &OFF));
    let message = "the kernel does not fit: it takes 0x40200000..0x42800000, RAM is 0x40000000..0x41000000; give the \
                   guest more memory (--memory SIZE)";
    assert_eq!(ends(&["--kernel", kernel.path(), "--memory", "16M"]), error(11, message));
    let initrd = File::new("big-initrd", &vec![1; 0x10_0000]);
    let message = "the initramfs does not fit: 1048576 bytes behind 0x42800000, RAM ends at 0x42800000; give the \
                   guest more memory (--memory SIZE)";
    let args = ["--kernel", kernel.path(), "--memory", "40M", "--initrd", initrd.path()];
    assert_eq!(ends(&args), error(11, message));
    let full = File::new("full-ram", &vec![0; 0x18_0000]);
    let (code, words) = ends(&["--kernel", full.path(), "--memory", "2M"]);
    assert_eq!(code, Some(11), "{words}");
    assert!(
        words.ends_with(
            " bytes of RAM 0x40000000..0x40200000 free for the device tree beside kernel and initramfs (--memory SIZE)"
        ),
        "{words}"
    );
}

#[test]
fn a_page_that_the_guest_names_goes_bad_then_and_not_before() {
    // mov x1, #0x40200000; nop; nop; ldr x2, [x1]
    let load = [0xd2a8_0401, NOP, NOP, 0xf940_0022];
    let guest = File::code("page", &says("seawall: page heap 0x40200000\n", &[&load[..], &OFF].concat()));
    let events = File::new("events", b"");
    let run = |poison: &str| {
        let args = ["run", "--kernel", guest.path(), "--json", "--poison", poison, "--events", events.path()];
        (json(&seawall(&args)), std::fs::read_to_string(events.path()).unwrap())
    };
    let (report, lines) = run("page:heap");
    assert_eq!(report["errors"].as_array().unwrap().len(), 1, "{report}");
    assert_eq!((&report["errors"][0]["gpa"], &report["poison_to_come"]), (&"0x40200000".into(), &0.into()));
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<_> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    // VBAR_EL1 is an empty address.
    assert_eq!(names, ["poison", "memory-error", "end"]);
    assert_eq!((&lines[0]["page"], &lines[0]["bytes"]), (&"heap".into(), &64.into()));
    assert_eq!((&lines[1]["exit_esr"], &lines[1]["vcpu"]), (&"0x92000210".into(), &0.into()));
    let time = |line: &Value| line["guest_time_ns"].as_u64().unwrap();
    // The poison comes at the store of the last byte, which is still to complete; the load is 7 steps later: strb, b,
    // ldrb, cbz, mov, nop, nop.
    assert_eq!(time(&lines[1]) - time(&lines[0]), 7);
    assert_eq!(lines[2]["outcome"], "bad-vector");

    let (report, _) = run("page:heap@7");
    assert_eq!(report["errors"].as_array().unwrap().len(), 1, "{report}");
    // The load is past then.
    let (report, _) = run("page:heap@8");
    assert_eq!((report["errors"].as_array().unwrap().len(), &report["outcome"]), (0, &"power-off".into()));
}

#[test]
fn a_page_outside_ram_is_an_error() {
    let guest = File::code("outside", &says("seawall: page heap 0x1000\n", &OFF));
    let (code, words) = ends(&["--kernel", guest.path(), "--poison", "page:heap"]);
    let message =
        "--poison page heap: expected a range inside RAM 0x40000000..0x50000000, got 0x1000..0x1040";
    assert_eq!((code, words), error(4, message));
}

#[test]
fn standard_input_is_typed_if_that_is_asked_for() {
    let guest = File::code("echo", &ECHO);
    let typed = File::new("typed", b"more than sixteen bytes, q");
    let run = || {
        std::process::Command::new(env!("CARGO_BIN_EXE_seawall"))
            .args(["run", "--kernel", guest.path(), "--stdin", "--json"])
            .stdin(std::fs::File::open(typed.path()).unwrap())
            .output()
            .unwrap()
    };
    let first = run();
    assert_eq!(json(&first)["console"], "more than sixteen bytes, q");
    // A file is typed at the same instructions each time.
    assert_eq!(text(&run().stdout), text(&first.stdout));
    let silent = seawall(&["run", "--kernel", guest.path(), "--max-insns", "1000"]);
    assert_eq!(silent.status.code(), Some(5));
}

#[test]
fn a_guest_has_the_time_that_it_is_given() {
    let guest = File::code("slow", &[BRANCH_SELF]);
    let (code, words) = ends(&["--kernel", guest.path(), "--timeout", "1"]);
    assert_eq!(code, Some(5));
    assert_eq!(
        words,
        "seawall: the guest did not end in 1 s (PC 0x40080000): raise --timeout, or see why it hangs"
    );
}

#[test]
fn kvm_is_refused_where_it_cannot_be_and_says_what_to_do() {
    let guest = File::code("kvm", &HELLO);
    let (code, words) = ends(&["--kernel", guest.path(), "--backend", "kvm", "--poison", "0x40200000"]);
    let message = "--backend kvm and --poison: only on the software machine memory goes bad at will; leave one of \
                   them out";
    assert_eq!((code, words), error(2, message));
    if cfg!(target_arch = "x86_64") {
        let (code, words) = ends(&["--kernel", guest.path(), "--backend", "kvm"]);
        let message = "--backend kvm: KVM/arm64 is not available here: expected a program built for aarch64 Linux, \
                       this one is for x86_64 linux; `cargo xtask lab` runs one on real KVM without Arm hardware; \
                       --backend machine runs the guest on any host";
        assert_eq!((code, words), error(9, message));
        assert_eq!(ends(&["--kernel", guest.path(), "--backend", "auto"]).0, Some(0));
    }
}

#[test]
fn a_file_of_events_that_cannot_be_written_is_an_error() {
    let guest = File::code("events-full", &HELLO);
    let (code, words) = ends(&["--kernel", guest.path(), "--events", "/no/such/folder/events"]);
    let message = "--events: cannot write /no/such/folder/events: No such file or directory (os error 2)";
    assert_eq!((code, words), error(3, message));
}

/// Prints "a", "b", "c" and a newline, then powers off.
const LETTERS: [u32; 12] = [
    0xd2a1_2013, // mov x19, #0x9000000
    0x5280_0c20, // mov w0, #'a'
    0xb900_0260, // str w0, [x19]
    0x1100_0400, // add w0, w0, #1
    0x7101_901f, // cmp w0, #'d'
    0x54ff_ffa1, // b.ne . - 12
    0x5280_0140, // mov w0, #10
    0xb900_0260, // str w0, [x19]
    MOV_W0_8,
    MOVK_W0_8400,
    HVC,
    BRANCH_SELF,
];

#[test]
fn run_goes_on_from_a_snapshot_as_it_went_on_behind_it() {
    let image = File::code("letters", &LETTERS);
    let kept = std::env::temp_dir().join(format!("seawall-cli-{}-letters.snap", std::process::id()));
    for (at, rest) in [("@8", "c\n"), ("@0x3", "bc\n"), ("@bc", ""), ("", "")] {
        let snapshot = format!("{}{at}", kept.display());
        let args = ["run", "--kernel", image.path(), "--snapshot", &snapshot, "--memory", "4M", "--json"];
        let whole = json(&seawall(&args));
        assert_eq!((&whole["console"], &whole["instructions"]), (&Value::from("abc\n"), &Value::from(19)));
        let end = if at.is_empty() { ["--max-insns", "19"] } else { ["--policy", "full"] };
        let args = ["run", "--restore", &kept.display().to_string(), "--json"];
        let output = seawall(&[&args[..], &end].concat());
        let report = json(&output);
        assert_eq!(
            (&report["console"], &report["instructions"]),
            (&Value::from(rest), &Value::from(19)),
            "{at}"
        );
    }
    std::fs::remove_file(&kept).unwrap();
}

#[test]
fn run_refuses_what_is_no_snapshot_and_says_why() {
    let image = File::code("no-snapshot", &HELLO);
    let output = seawall(&["run", "--restore", image.path()]);
    assert_eq!(output.status.code(), Some(3));
    let said = text(&output.stderr);
    assert!(
        said.contains("expected a snapshot, which begins with [89, 53, 57, 53, 4e, 0d, 0a, 1a], got"),
        "{said}"
    );

    let output = seawall(&["run", "--restore", "/nonexistent/snap"]);
    assert_eq!(output.status.code(), Some(3));
    let output = seawall(&["run", "--restore", image.path(), "--kernel", image.path()]);
    assert_eq!(output.status.code(), Some(2));
    let output = seawall(&["run", "--kernel", image.path(), "--snapshot", "/nonexistent/snap"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains("--snapshot /nonexistent/snap: No such file"));
    let output = seawall(&["run", "--kernel", image.path(), "--snapshot", "/nonexistent/snap@never said"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stderr).contains("no snapshot is in /nonexistent/snap: the guest ended before"));
}

#[test]
fn machine_is_another_name_of_kernel() {
    let image = File::code("alias", &HELLO);
    assert_eq!(text(&seawall(&["run", "--machine", image.path()]).stdout), "hi");
}
