//! `--trace-exits`: the exits of the guest's own guests, as a table or as JSON.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use seawall_arm::{Esr, Syndrome, Vector};
use seawall_vmm::GuestExit;
use serde_json::{Value, json};

use super::machine::Machine;
use crate::{Failure, exit};

const HEADING: &str = "instructions  cpu      guest       EL2  user     time/ns  ESR         FAR                 HPFAR               PC                  reason\n";

/// The file, and its form.
pub(super) struct ExitTable {
    name: String,
    file: BufWriter<File>,
    is_json: bool,
}

impl ExitTable {
    /// Makes the file, and has the machine record exits.
    pub(super) fn new(path: &Path, machine: &mut dyn Machine) -> Result<Self, Failure> {
        machine.trace_exits()?;
        let name = path.display().to_string();
        let is_json = path.extension().is_some_and(|extension| extension == "json");
        let file = File::create(path).map_err(|error| failure(&name, &error))?;
        let mut table = Self { name, file: BufWriter::new(file), is_json };
        if !is_json {
            table.put(HEADING)?;
        }
        Ok(table)
    }

    /// Writes these exits: each slice's, so that a run that is killed has all but its last ones.
    pub(super) fn write(&mut self, exits: &[GuestExit]) -> Result<(), Failure> {
        if exits.is_empty() {
            return Ok(());
        }
        for exit in exits {
            let line = if self.is_json { format!("{}\n", object(exit)) } else { row(exit) };
            self.put(&line)?;
        }
        self.file.flush().map_err(|error| failure(&self.name, &error))
    }

    fn put(&mut self, text: &str) -> Result<(), Failure> {
        self.file.write_all(text.as_bytes()).map_err(|error| failure(&self.name, &error))
    }
}

fn failure(name: &str, error: &std::io::Error) -> Failure {
    Failure::new(exit::FILE, format!("--trace-exits {name}: {error}"))
}

/// The cause of an exit, in words.
fn reason(exit: &GuestExit) -> String {
    match (exit.vector, exit.esr) {
        (Vector::Irq, _) => "IRQ".into(),
        (Vector::Fiq, _) => "FIQ".into(),
        (Vector::SError, _) => "SError".into(),
        (Vector::Synchronous, None) => "synchronous".into(),
        (Vector::Synchronous, Some(esr)) => synchronous(esr),
    }
}

fn synchronous(esr: Esr) -> String {
    match esr.syndrome() {
        Syndrome::DataAbort(abort) => format!("{}: {}", esr.ec(), abort.dfsc),
        Syndrome::InstructionAbort(abort) => format!("{}: {}", esr.ec(), abort.ifsc),
        _ => esr.ec().to_string(),
    }
}

fn row(exit: &GuestExit) -> String {
    let hex = |value: Option<u64>| value.map_or_else(|| "-".into(), |value| format!("{value:#x}"));
    let esr = hex(exit.esr.map(Esr::bits));
    let (far, hpfar, pc) = (hex(exit.far), hex(exit.hpfar), hex(Some(exit.pc)));
    let user = if exit.to_user_space { "yes" } else { "no" };
    format!(
        "{:>12}  {:>3}  {:>9}  {:>8}  {user:<4}  {:>10}  {esr:<10}  {far:<18}  {hpfar:<18}  {pc:<18}  {}\n",
        exit.instructions,
        exit.cpu,
        exit.guest_steps,
        exit.host_steps,
        exit.host_time,
        reason(exit)
    )
}

fn object(exit: &GuestExit) -> Value {
    let hex = |value: Option<u64>| value.map(|value| format!("{value:#x}"));
    json!({
        "instructions": exit.instructions,
        "cpu": exit.cpu,
        "time_ns": exit.time,
        "guest_instructions": exit.guest_steps,
        "el2_instructions": exit.host_steps,
        "el2_time_ns": exit.host_time,
        "to_user_space": exit.to_user_space,
        "reason": reason(exit),
        "esr": hex(exit.esr.map(Esr::bits)),
        "far": hex(exit.far),
        "hpfar": hex(exit.hpfar),
        "pc": hex(Some(exit.pc)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEA: GuestExit = GuestExit {
        cpu: 1,
        instructions: 123_456,
        time: 200_000,
        vector: Vector::Synchronous,
        esr: Some(Esr::from_bits(0x9200_0210)),
        far: Some(0x41_2040),
        hpfar: Some(0x48_1230),
        pc: 0x40_1000,
        guest_steps: 17,
        host_steps: 7400,
        host_time: 7500,
        to_user_space: true,
    };

    #[test]
    fn a_row_has_the_exits_cost_and_syndrome_under_the_heading() {
        let irq = GuestExit { vector: Vector::Irq, esr: None, far: None, hpfar: None, ..SEA };
        let columns = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            columns(&row(&SEA))[..10],
            ["123456", "1", "17", "7400", "yes", "7500", "0x92000210", "0x412040", "0x481230", "0x401000"]
        );
        assert_eq!(columns(&row(&irq))[6..], ["-", "-", "-", "0x401000", "IRQ"]);
        let at = |text: &str, word: &str| text.find(word).map(|at| at + word.len());
        assert_eq!(at(HEADING, "guest"), at(&row(&SEA), "17"));
        assert_eq!(HEADING.find("ESR"), row(&SEA).find("0x92000210"));
        assert_eq!(HEADING.find("PC"), row(&SEA).find("0x401000"));
    }

    #[test]
    fn an_object_has_registers_in_hexadecimal_and_null_for_what_there_is_not() {
        let object = object(&GuestExit { far: None, ..SEA });
        assert_eq!((&object["esr"], &object["far"]), (&json!("0x92000210"), &Value::Null));
        assert_eq!((&object["el2_instructions"], &object["to_user_space"]), (&json!(7400), &json!(true)));
    }
}
