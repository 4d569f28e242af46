//! `include/seawall.h` is cbindgen's output for this code.

use std::path::Path;

/// The sources in the order in which a reader needs them. Add a new file here; otherwise `each_function...`
/// fails.
const SOURCES: [&str; 9] =
    ["version", "status", "vcpu", "memory", "incident", "containment", "records", "address_map", "ledger"];

#[test]
fn the_header_is_that_of_the_code() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(here.join("cbindgen.toml")).unwrap();
    let mut builder = cbindgen::Builder::new().with_config(config);
    for source in SOURCES {
        builder = builder.with_src(here.join("src").join(source).with_extension("rs"));
    }
    let mut made = Vec::new();
    builder.generate().unwrap().write(&mut made);
    // Rust's "Safety" is the caller's part of a contract.
    let made = String::from_utf8(made).unwrap().replace(" * # Safety\n", " * Contract:\n") + "\n";

    let path = here.join("include/seawall.h");
    if std::env::var_os("SEAWALL_WRITE_HEADER").is_some() {
        std::fs::write(&path, made).unwrap();
        return;
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    assert!(
        committed == made,
        "{} is not up to date: SEAWALL_WRITE_HEADER=1 cargo test -p seawall-capi --test header",
        path.display()
    );
}

#[test]
fn each_function_of_the_code_is_in_the_header() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let header = std::fs::read_to_string(here.join("include/seawall.h")).unwrap();
    let mut functions = 0;
    for entry in std::fs::read_dir(here.join("src")).unwrap() {
        let code = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        for line in code.lines().filter(|line| line.starts_with("pub ")) {
            let Some((_, line)) = line.split_once("extern \"C\" fn ") else { continue };
            let name = line.split('(').next().unwrap();
            assert!(header.contains(&format!("{name}(")), "{name}");
            functions += 1;
        }
    }
    assert_eq!(functions, 39);
}
