//! A guest of the software machine goes over a socket, with the poison in its memory. On KVM:
//! `cargo xtask lab contain migrate`.

use std::error::Error;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread;

use seawall_guest::{migrant, migrant_page};
use seawall_vmm::kernel::Kernel;
use seawall_vmm::{Config, End, Guest, Observer, Snapshot, SoftwareMachine};

const STEPS: u64 = 200_000;

/// The lines of the console.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Observer for Lines {
    fn line(&mut self, line: &str) {
        self.0.lock().unwrap().push(line.to_owned());
    }
}

impl Lines {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn config() -> Config {
    Config::new(8 << 20)
}

/// What the guest says to this.
fn ask(machine: &mut SoftwareMachine, lines: &Lines, what: &str) -> Result<Vec<String>, Box<dyn Error>> {
    machine.type_in(what.as_bytes());
    assert_eq!(machine.run(Some(STEPS))?, None);
    Ok(lines.take())
}

const ABORT: &str = "migrant: page 1: abort esr=0x96000210 far=0x0000000040410000";

#[test]
fn a_guest_goes_on_where_it_arrives_and_poison_is_still_poison() -> Result<(), Box<dyn Error>> {
    let guest =
        Guest { kernel: Kernel::Flat(migrant()), address: None, initrd: None, command_line: String::new() };
    let lines = Lines::default();
    let mut machine = SoftwareMachine::new(config(), &guest, Box::new(lines.clone()))?;
    for number in 1..=2 {
        machine.poison(migrant_page(number)..migrant_page(number) + 64)?;
    }
    assert_eq!(ask(&mut machine, &lines, "1")?, ["migrant: ready", ABORT]);

    let (here, there) = UnixStream::pair()?;
    let destination = thread::spawn(move || Snapshot::load(&there));
    machine.snapshot()?.save(&here)?;
    here.shutdown(Shutdown::Write)?;
    let arrived = destination.join().unwrap()?;
    let lines = Lines::default();
    let mut other = SoftwareMachine::resume(&arrived, config(), Box::new(lines.clone()))?;
    assert_eq!(other.state_hash(), machine.state_hash());
    drop(machine);

    let said = ask(&mut other, &lines, "1")?;
    assert_eq!(said, [ABORT]);
    // Which nobody touched before.
    let said = ask(&mut other, &lines, "2")?;
    assert_eq!(said, ["migrant: page 2: abort esr=0x96000210 far=0x0000000040420000"]);
    assert_eq!(ask(&mut other, &lines, "3")?, ["migrant: page 3: value 0x0000000000000000"]);
    let said = ask(&mut other, &lines, "v")?;
    assert!(said[0].starts_with("migrant: registers ok, memory ok, clock ok, polls "), "{said:?}");
    other.type_in(b"q");
    assert_eq!(other.run(Some(STEPS))?, Some(End::PowerOff));
    Ok(())
}

#[test]
fn a_guest_whose_connection_breaks_goes_on_where_it_was() -> Result<(), Box<dyn Error>> {
    let guest =
        Guest { kernel: Kernel::Flat(migrant()), address: None, initrd: None, command_line: String::new() };
    let lines = Lines::default();
    let mut machine = SoftwareMachine::new(config(), &guest, Box::new(lines.clone()))?;
    machine.poison(migrant_page(1)..migrant_page(1) + 64)?;
    assert_eq!(machine.run(Some(STEPS))?, None);
    lines.take();

    let (here, there) = UnixStream::pair()?;
    drop(there);
    machine.snapshot()?.save(&here).expect_err("nobody is there");
    assert_eq!(ask(&mut machine, &lines, "1")?, [ABORT]);
    Ok(())
}
