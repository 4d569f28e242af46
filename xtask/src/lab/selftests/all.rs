//! Linux's other selftests of KVM for arm64, as many as build: each in a lab of its own, which all have the same programs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{Counts, KEY, Linux, OF_LINUX, one};
use crate::lab::cache::Cached;
use crate::lab::error::{Error, Result};
use crate::lab::initramfs::Guest;
use crate::lab::machine::Machine;
use crate::lab::progress::Step;
use crate::lab::{Lab, files, preload};

/// Below `kvm`: where programs are built.
const FOLDERS: [&str; 2] = ["arm64", "."];
/// The first bytes of a program, and where its type is.
const ELF: &[u8; 4] = b"\x7fELF";
const TYPE: std::ops::Range<usize> = 16..18;
/// ET_EXEC and ET_DYN: no object file is one.
const PROGRAMS: [[u8; 2]; 2] = [[2, 0], [3, 0]];

/// Two CPUs: some want as many, and others have two threads that wait for each other without a pause.
const CPUS: u32 = 2;
/// What some are told, as they are made for hosts that are a hundred times as fast: less memory, fewer turns. Each checks the same
/// as without.
const SHORTER: [(&str, &str); 7] = [
    ("access_tracking_perf_test", "-b 16M -v 1"),
    ("demand_paging_test", "-b 16M"),
    ("dirty_log_perf_test", "-b 16M"),
    ("dirty_log_test", "-i 3"),
    ("kvm_page_table_test", "-b 16M"),
    ("memslot_perf_test", "-s 64 -l 1 -t 300"),
    ("mmu_stress_test", "-c 2 -m 1 -s 1"),
];

/// The shell's words before those that would be skipped without.
const PREPARED: [(&str, &str); 2] = [
    (
        "access_tracking_perf_test",
        "mount -t cgroup2 cgroup /sys/fs/cgroup && echo +memory > /sys/fs/cgroup/cgroup.subtree_control && ",
    ),
    ("stage2_block_transitions", "echo 32 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages && "),
];

/// Runs those that are named, or all: `N passed, N failed, N skipped` is the last line.
pub(super) fn run(lab: &Lab, machine: &Machine, timeout: Duration, names: &[String]) -> Result<u8> {
    let libraries = preload::libraries(lab)?;
    let programs = prepare(lab)?;
    if let Some(unknown) = names.iter().find(|name| !programs.iter().any(|program| is_named(program, name))) {
        let known: Vec<_> = programs.iter().map(|program| name(program)).collect();
        return Err(Error::failed(format!("expected one of {}, got {unknown}", known.join(", "))));
    }
    let guest = |program: &PathBuf| Guest { host: program.clone(), lab: format!("bin/{}", name(program)) };
    let guests: Vec<Guest> = libraries.into_iter().chain(programs.iter().map(guest)).collect();
    let wanted =
        |program: &&PathBuf| names.is_empty() || names.iter().any(|wanted| is_named(program, wanted));
    let machine = machine.or_cpus(CPUS);
    let mut counts = Counts::default();
    for program in programs.iter().filter(wanted) {
        let name = name(program);
        one(lab, &machine, timeout, &name, &line(&name), &guests, &mut counts)?;
    }
    println!("{}", counts.line());
    Ok(counts.code())
}

/// What runs a selftest, for the shell.
fn line(name: &str) -> String {
    let of = |table: &[(&str, &'static str)]| {
        table.iter().find(|(of, _)| *of == name).map_or("", |(_, words)| *words)
    };
    format!("{}/bin/{name} {} 2>&1", of(&PREPARED), of(&SHORTER))
}

fn name(program: &Path) -> String {
    program.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn is_named(program: &Path, wanted: &str) -> bool {
    name(program) == wanted
}

/// The programs, built once per kernel.
fn prepare(lab: &Lab) -> Result<Vec<PathBuf>> {
    let tests =
        Cached::new(lab.folders.target.join("selftests-all"), format!("{KEY} {}", lab.kernel.release));
    lab.folders.alone(|| tests.make(|folder| build(folder, lab)))?;
    let mut programs = files::list(&tests.folder)?;
    let is_other = |path: &Path| OF_LINUX.iter().all(|test| test.name != name(path));
    programs.retain(|path| is_program(path) && is_other(path));
    Ok(programs)
}

fn build(folder: &Path, lab: &Lab) -> Result<()> {
    let linux = Linux::unpack(folder, lab)?;
    let step = Step::begin("all of Linux's selftests of KVM");
    // Those that do not build are left out.
    if let Err(error) = linux.make_selftests(&step, &["--keep-going".into(), "all".into()]) {
        eprintln!("lab: {error}");
    }
    let mut count = 0;
    for place in FOLDERS {
        for path in files::list(&linux.selftests().join(place))?.into_iter().filter(|path| is_program(path)) {
            let stripped = folder.join(path.file_name().unwrap_or_default());
            let mut strip = Command::new("aarch64-linux-gnu-strip");
            strip.arg("-o").arg(&stripped).arg(&path);
            step.run(&mut strip, &lab.folders.logs.join("selftests-strip.log"))?;
            count += 1;
        }
    }
    step.done(&format!("{count} programs"));
    if count == 0 {
        return Err(Error::failed(
            "none of Linux's selftests of KVM was built; see target/lab/logs/selftests.log",
        ));
    }
    linux.remove()
}

fn is_program(path: &Path) -> bool {
    let head = files::read(path).unwrap_or_default();
    head.starts_with(ELF) && head.get(TYPE).is_some_and(|kind| PROGRAMS.iter().any(|program| program == kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selftest_that_would_take_long_or_be_skipped_is_told_to_do_less_and_has_what_it_takes() {
        assert_eq!(line("arch_timer"), "/bin/arch_timer  2>&1");
        assert_eq!(line("dirty_log_test"), "/bin/dirty_log_test -i 3 2>&1");
        assert_eq!(
            line("stage2_block_transitions"),
            "echo 32 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages && /bin/stage2_block_transitions  2>&1"
        );
    }

    #[test]
    fn a_program_is_told_from_an_object_file_and_a_script() {
        let folder = std::env::temp_dir().join(format!("seawall-selftests-{}", std::process::id()));
        let check = |kind: u8, magic: &[u8]| {
            let path = folder.join("file");
            let head = [magic, &[2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, kind, 0]].concat();
            files::create_folder(&folder).and_then(|()| files::write(&path, head)).expect("a file");
            is_program(&path)
        };
        assert_eq!(
            [check(1, ELF), check(2, ELF), check(3, ELF), check(2, b"#!/b")],
            [false, true, true, false]
        );
        assert_eq!(files::remove_folder(&folder), Ok(()));
    }
}
