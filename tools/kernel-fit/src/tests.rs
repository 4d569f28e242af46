//! The check finds each kind of offence: every source below is compiled like the crates, and read.

use std::path::PathBuf;

use crate::calls::{Calls, Unbounded};
use crate::code::{Code, read_archive};
use crate::{build, names_of, sources};

/// Compiles a crate and reads its object.
fn compiled(name: &str, source: &str) -> Vec<Code> {
    let folder = std::env::temp_dir().join(format!("seawall-kernel-fit-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for temporary files");
    let (input, output) = (folder.join(format!("{name}.rs")), folder.join(format!("lib{name}.rlib")));
    std::fs::write(&input, source).expect("a temporary file");
    build::compile(&input, &output, &[]).expect("the source compiles");
    let codes = read_archive(&std::fs::read(&output).expect("what rustc wrote")).expect("an archive");
    std::fs::remove_dir_all(&folder).expect("it was made above");
    codes
}

fn offences(name: &str, source: &str) -> String {
    names_of(&compiled(name, source)).join("\n")
}

#[test]
fn an_index_out_of_bounds_is_found() {
    let found = offences(
        "bounds",
        "#![no_std]\n#[inline(never)] pub fn f(words: &[u64], n: usize) -> u64 { words[n] }",
    );
    assert!(found.contains("a path to a panic: core::panicking::panic_bounds_check"), "{found}");
}

#[test]
fn a_sum_that_may_overflow_is_found() {
    let found =
        offences("overflow", "#![no_std]\n#[inline(never)] pub fn f(a: u64, b: u64) -> u64 { a + b }");
    assert!(found.contains("panic_const_add_overflow"), "{found}");
}

#[test]
fn an_unwrap_and_an_expect_are_found() {
    let found =
        offences("unwrap", "#![no_std]\n#[inline(never)] pub fn f(a: Option<u64>) -> u64 { a.unwrap() }");
    assert!(found.contains("unwrap_failed"), "{found}");
    let found = offences(
        "expect",
        "#![no_std]\n#[inline(never)] pub fn f(a: Option<u64>) -> u64 { a.expect(\"one\") }",
    );
    assert!(found.contains("expect_failed"), "{found}");
}

#[test]
fn a_slice_that_may_not_fit_is_found() {
    let found =
        offences("slice", "#![no_std]\n#[inline(never)] pub fn f(a: &[u8], n: usize) -> &[u8] { &a[n..] }");
    assert!(found.contains("a path to a panic"), "{found}");
}

#[test]
fn an_allocation_is_found() {
    let found = offences("heap", "#[inline(never)] pub fn f(a: [u64; 9]) -> Box<[u64; 9]> { Box::new(a) }");
    assert!(found.contains("an allocator"), "{found}");
}

#[test]
fn arithmetic_of_the_float_runtime_is_found() {
    let found = offences("float", "#![no_std]\n#[inline(never)] pub fn f(a: f64) -> u128 { a as u128 }");
    assert!(found.contains("floating point: __fix"), "{found}");
}

#[test]
fn a_library_function_is_found() {
    let found = offences(
        "library",
        "unsafe extern \"C\" { fn getpid() -> i32; }\n#[inline(never)] pub fn f() -> i32 { unsafe { getpid() } }",
    );
    assert_eq!(found, "a symbol that no kernel has to have: getpid");
}

#[test]
fn recursion_is_found() {
    let codes = compiled(
        "recursion",
        "#![no_std]
        #[inline(never)] pub fn outer(n: u64) -> u64 { inner(n) ^ 5 }
        #[inline(never)] pub fn inner(n: u64) -> u64 { if n == 0 { 3 } else { outer(n >> 1) ^ n } }",
    );
    let Err(Unbounded::Recursion(circle)) = Calls::new(&codes).deepest("recursion::") else {
        panic!("{codes:?}")
    };
    assert_eq!(circle.len(), 3);
    assert_eq!(circle.first(), circle.last());
}

#[test]
fn recursion_through_a_table_of_functions_is_found() {
    let codes = compiled(
        "table",
        "#![no_std]
        pub trait Step { fn step(&self, n: u64) -> u64; }
        pub struct Half;
        impl Step for Half {
            #[inline(never)] fn step(&self, n: u64) -> u64 { if n == 0 { 1 } else { start(n >> 1) ^ n } }
        }
        #[inline(never)] pub fn call(step: &dyn Step, n: u64) -> u64 { step.step(n) ^ 1 }
        #[inline(never)] pub fn start(n: u64) -> u64 { call(&Half, n) ^ 2 }",
    );
    assert!(matches!(Calls::new(&codes).deepest(""), Err(Unbounded::Recursion(_))), "{codes:?}");
}

#[test]
fn frames_add_up_along_the_deepest_chain() {
    let codes = compiled(
        "frames",
        "#![no_std]
        #[inline(never)] pub fn leaf(out: &mut [u64; 32]) { for (n, o) in out.iter_mut().enumerate() { *o = n as u64; } }
        #[inline(never)] pub fn inner() -> u64 { let mut a = [0; 32]; leaf(core::hint::black_box(&mut a)); a[7] }
        #[inline(never)] pub fn outer() -> u64 { let mut b = [0; 32]; leaf(core::hint::black_box(&mut b)); b[3] ^ inner() }",
    );
    let chain = Calls::new(&codes).deepest("frames::").expect("bounded");
    assert_eq!(chain.names.first().map(String::as_str), Some("frames::outer"));
    // Two arrays of 256 bytes, and three return addresses.
    assert!((536..700).contains(&chain.bytes), "{chain:?}");
}

#[test]
fn a_frame_of_a_size_unknown_is_told_as_such() {
    let codes = compiled(
        "aligned",
        "#![no_std]
        #[repr(align(128))] pub struct Line(pub [u64; 16]);
        #[inline(never)] pub fn fill(line: &mut Line) { line.0 = [core::hint::black_box(1); 16]; }
        #[inline(never)] pub fn realigned() -> u64 { let mut line = Line([0; 16]); fill(core::hint::black_box(&mut line)); line.0[3] }",
    );
    let unbounded = Calls::new(&codes).deepest("aligned::");
    assert_eq!(unbounded, Err(Unbounded::Frame("aligned::realigned".into())));
}

#[test]
fn clean_code_has_no_offence() {
    assert_eq!(
        offences(
            "clean",
            "#![no_std]\n#[inline(never)] pub fn f(a: &[u64], n: usize) -> u64 { a.get(n).copied().unwrap_or(0) }"
        ),
        ""
    );
}

#[test]
fn floats_in_sources_are_found_and_nothing_else() {
    for float in
        ["let a: f32 = b;", "fn f(x: f64)", "1.5", "a = 2.0;", "1_f64", "x as f64", "core::f64::consts::PI"]
    {
        assert_eq!(sources::float_lines(&format!("fn a() {{}}\n{float}\n")), [2], "{float}");
    }
    for other in ["self.0.1", "0..3", "0..=31", "// 1.5 f64", "0x1f32", "elf64", "a.b", "0xf64", "D1.20.2"] {
        assert_eq!(sources::float_lines(other), [0_usize; 0], "{other}");
    }
}

#[test]
fn sources_are_found_in_folders() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let files = sources::rust_files(&root.join("src")).expect("this crate's sources");
    assert!(files.iter().any(|file| file.ends_with("src/tests.rs")));
}
