//! `include/seawall.h` and the static library in a C program.
//!
//! `cc`, or the compiler in CC, compiles it; without one the tests are skipped, and their names say so.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use libtest_mimic::{Arguments, Failed, Trial};

const WARNINGS: [&str; 4] = ["-Wall", "-Wextra", "-Werror", "-pedantic"];
/// The system libraries that Rust's standard library needs.
const LIBRARIES: [&str; 5] = ["-lpthread", "-ldl", "-lm", "-lrt", "-lutil"];

fn main() -> std::process::ExitCode {
    let arguments = Arguments::from_args();
    let cc = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let cxx = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let trials = vec![
        trial("a_c_program_contains_errors_on_a_stock_vcpu", &cc, run_program),
        trial_with(
            "a_c_program_is_compiled_by_what_pkg_config_says",
            &[&cc, "pkg-config"],
            run_program_by_pkg_config,
        ),
        trial("the_header_is_clean_c11_by_itself", &cc, |cc| check_header(cc, "c", "c11")),
        trial("the_header_is_clean_cpp11_by_itself", &cxx, |cxx| check_header(cxx, "c++", "c++11")),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// A test with this compiler.
fn trial(name: &str, compiler: &str, test: fn(&str) -> Result<(), Failed>) -> Trial {
    trial_with(name, &[compiler], test)
}

/// A test with a compiler, the first of these tools; skipped if one of them is missing.
fn trial_with(name: &str, tools: &[&str], test: fn(&str) -> Result<(), Failed>) -> Trial {
    let is_there =
        |tool: &&&str| Command::new(tool).arg("--version").output().is_ok_and(|run| run.status.success());
    if let Some(missing) = tools.iter().find(|tool| !is_there(tool)) {
        println!("skipped: {name}: there is no `{missing}` here (package gcc, g++ or pkg-config)");
        return Trial::test(format!("{name} (skipped: no {missing})"), || Ok(())).with_ignored_flag(true);
    }
    let compiler = tools.first().copied().unwrap_or_default().to_owned();
    Trial::test(name, move || test(&compiler))
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
    check_program(&program, scratch.path())
}

/// Installs the three files as the crate's documentation describes.
fn run_program_by_pkg_config(cc: &str) -> Result<(), Failed> {
    let scratch = tempfile::tempdir()?;
    let (prefix, program) = (scratch.path().join("a prefix"), scratch.path().join("stock_vcpu"));
    let install = |from: PathBuf, to: &str| {
        let to = prefix.join(to);
        std::fs::create_dir_all(to.parent().unwrap_or(&prefix))?;
        std::fs::copy(from, to).map(drop)
    };
    install(library()?, "lib/libseawall_capi.a")?;
    install(here().join("include/seawall.h"), "include/seawall.h")?;
    install(here().join("seawall.pc"), "lib/pkgconfig/seawall.pc")?;
    let pkg_config = |option: &str| {
        let mut command = Command::new("pkg-config");
        command.env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig")).args([option, "seawall"]);
        Ok::<_, Failed>(String::from_utf8(ran(&mut command)?.stdout)?)
    };
    let version = pkg_config("--modversion")?;
    if version != "0.1.0\n" {
        return Err(format!("pkg-config --modversion: expected 0.1.0, got {version}").into());
    }
    // The shell, as in a Makefile: pkg-config quotes the blank in the prefix for it.
    let flags = [pkg_config("--cflags")?, pkg_config("--libs")?].map(|flags| flags.trim().to_owned());
    let source = here().join("tests/stock_vcpu.c");
    let line =
        format!("{cc} -std=c11 -o '{}' {} '{}' {}", program.display(), flags[0], source.display(), flags[1]);
    ran(Command::new("sh").args(["-c", &line]))?;
    check_program(&program, scratch.path())
}

fn check_program(program: &Path, scratch: &Path) -> Result<(), Failed> {
    let output = ran(Command::new(program).arg(scratch))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    // A program that left out its checks would end well, too.
    let checks = said.trim_end().strip_suffix(" checks passed").and_then(|checks| checks.parse::<u32>().ok());
    if checks.is_some_and(|checks| checks >= 440) { Ok(()) } else { Err(said.into()) }
}

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Cargo puts the library beside this program, under a name with a hash: the newest one was built with it.
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
