//! `include/seawall.h` and the static library, as a C program has them.
//!
//! `cc` compiles it (or what CC names); without one the tests are skipped, and say so by their names.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use libtest_mimic::{Arguments, Failed, Trial};

const WARNINGS: [&str; 4] = ["-Wall", "-Wextra", "-Werror", "-pedantic"];
/// What Rust's standard library wants of the system.
const LIBRARIES: [&str; 5] = ["-lpthread", "-ldl", "-lm", "-lrt", "-lutil"];

fn main() -> std::process::ExitCode {
    let arguments = Arguments::from_args();
    let cc = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let cxx = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let trials = vec![
        trial("a_c_program_contains_errors_on_a_stock_vcpu", &cc, run_program),
        trial("the_header_is_clean_c11_by_itself", &cc, |cc| check_header(cc, "c", "c11")),
        trial("the_header_is_clean_cpp11_by_itself", &cxx, |cxx| check_header(cxx, "c++", "c++11")),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// A test with this compiler.
fn trial(name: &str, compiler: &str, test: fn(&str) -> Result<(), Failed>) -> Trial {
    let is_there = Command::new(compiler).arg("--version").output().is_ok_and(|run| run.status.success());
    let compiler = compiler.to_owned();
    if is_there {
        return Trial::test(name, move || test(&compiler));
    }
    println!("skipped: {name}: there is no C compiler `{compiler}` here (package gcc or g++)");
    Trial::test(format!("{name} (skipped: no {compiler})"), || Ok(())).with_ignored_flag(true)
}

fn check_header(compiler: &str, language: &str, standard: &str) -> Result<(), Failed> {
    let mut command = Command::new(compiler);
    command.args(["-x", language, &format!("-std={standard}"), "-fsyntax-only"]).args(WARNINGS);
    ran(command.arg(here().join("include/seawall.h"))).map(drop)
}

fn run_program(cc: &str) -> Result<(), Failed> {
    let scratch = tempfile::tempdir()?;
    let program = scratch.path().join("stock_vcpu");
    let mut compile = Command::new(cc);
    compile.arg("-std=c11").args(WARNINGS).arg("-I").arg(here().join("include")).arg("-o").arg(&program);
    compile.arg(here().join("tests/stock_vcpu.c")).arg(library()?).args(LIBRARIES);
    ran(&mut compile)?;
    let output = ran(Command::new(&program).arg(scratch.path()))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    // A program that left out its checks would end well, too.
    let checks = said.trim_end().strip_suffix(" checks passed").and_then(|checks| checks.parse::<u32>().ok());
    if checks.is_some_and(|checks| checks >= 250) { Ok(()) } else { Err(said.into()) }
}

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Cargo puts it beside this program, under a name with a hash: the newest is the one that was built with it.
fn library() -> Result<PathBuf, Failed> {
    let program = std::env::current_exe()?;
    let folder = program.parent().ok_or("this program is in no folder")?;
    let mut newest = None;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let is_ours = entry.file_name().to_string_lossy().starts_with("libseawall_capi");
        if is_ours && entry.path().extension().is_some_and(|extension| extension == "a") {
            newest = newest.max(Some((entry.metadata()?.modified()?, entry.path())));
        }
    }
    let none = || format!("there is no libseawall_capi*.a in {}", folder.display());
    Ok(newest.ok_or_else(none)?.1)
}

fn ran(command: &mut Command) -> Result<Output, Failed> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(output);
    }
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Err(format!("{command:?}: {}\n{out}{err}", output.status).into())
}
