//! A machine with EL2: second UART, poison register, PSCI over SMC, and a snapshot of all of it.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use seawall_events::Reg;
use seawall_inject::Inject as _;
use seawall_vmm::kernel::Kernel;
use seawall_vmm::{Config, End, Guest, Snapshot, SoftwareMachine};

const MEMORY: u64 = 2 << 20;
/// A flat image lies here, and the guest's vectors 0x800 behind it.
const IMAGE: u64 = 0x4008_0000;
/// `movz x0, #8; movk x0, #0x8400, lsl #16; smc #0`: SYSTEM_OFF.
const OFF: [u32; 3] = [0xd280_0100, 0xf2b0_8000, 0xd400_0003];

/// What the second UART wrote.
#[derive(Clone, Default)]
struct Port(Arc<Mutex<Vec<u8>>>);

impl Write for Port {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn config(port: &Port) -> Config {
    let mut config = Config::new(MEMORY);
    config.el2 = true;
    config.second_uart.output = Some(Box::new(port.clone()));
    config
}

/// A guest with this code, and code for exceptions from its own level.
fn guest(code: &[u32], handler: &[u32]) -> Guest {
    let mut image = vec![0; 0xa00];
    let put = |image: &mut Vec<u8>, at: usize, words: &[u32]| {
        image.resize(image.len().max(at + 4 * words.len()), 0);
        for (word, bytes) in words.iter().zip(image[at..].chunks_exact_mut(4)) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
    };
    put(&mut image, 0, code);
    put(&mut image, 0xa00, handler);
    Guest { kernel: Kernel::Flat(image), address: None, initrd: None, command_line: String::new() }
}

fn reg(machine: &mut SoftwareMachine, reg: Reg) -> u64 {
    machine.vm_mut().vcpu(0).unwrap().reg(reg).unwrap()
}

/// adr x4, . + 0x800; msr vbar_el2, x4: first in the image.
const VECTORS: [u32; 2] = [0x1000_4004, 0xd51c_c004];
/// The register page's address in X3, and RAM + 0x100000 in X1.
const ADDRESSES: [u32; 2] = [0xd2a1_6003, 0xd2a8_0201];

#[test]
fn a_line_goes_bad_by_the_register_and_the_guest_takes_the_abort_itself() {
    // str x1, [x3] (poison); ldr x5, [x3] (ranges); ldr x6, [x1]
    let code = [&VECTORS[..], &ADDRESSES, &[0xf900_0061, 0xf940_0065, 0xf940_0026]].concat();
    let mut machine =
        SoftwareMachine::new(config(&Port::default()), &guest(&code, &OFF), Box::new(())).unwrap();
    assert_eq!(machine.run(Some(1000)).unwrap(), Some(End::PowerOff));
    let values = [Reg::X(5), Reg::EsrEl2, Reg::FarEl2].map(|which| reg(&mut machine, which));
    // A data abort from the same level, EA, external.
    assert_eq!(values, [1, 0x9600_0210, 0x4010_0000]);
    assert_eq!(machine.ledger().with(seawall::ledger::Ledger::pages), 0, "it is the guest's own");
}

#[test]
fn an_access_that_no_device_answers_is_the_guests_external_abort() {
    // movz x3, #0x0c00, lsl #16; ldr x6, [x3]
    let code = [&VECTORS[..], &[0xd2a1_8003, 0xf940_0066]].concat();
    let mut machine =
        SoftwareMachine::new(config(&Port::default()), &guest(&code, &OFF), Box::new(())).unwrap();
    assert_eq!(machine.run(Some(1000)).unwrap(), Some(End::PowerOff));
    assert_eq!([Reg::EsrEl2, Reg::FarEl2].map(|which| reg(&mut machine, which)), [0x9600_0010, 0x0c00_0000]);
}

#[test]
fn the_second_uart_writes_where_it_was_told_to() {
    // movz x3, #0x0904, lsl #16; mov w2, #'A'; str w2, [x3]
    let code = [&[0xd2a1_2083, 0x5280_0822, 0xb900_0062][..], &OFF].concat();
    let port = Port::default();
    let mut machine = SoftwareMachine::new(config(&port), &guest(&code, &[]), Box::new(())).unwrap();
    assert_eq!(machine.run(Some(1000)).unwrap(), Some(End::PowerOff));
    assert_eq!(*port.0.lock().unwrap(), b"A");
}

/// movz x3, #0x0904, lsl #16; mov w2, #5; str w2, [x3]: ENQ. Then: ldr w4, [x3, #0x18] (FR); tbnz w4, #4, . - 4 (RXFE);
/// ldr w2, [x3]; str w2, [x3]; b . - 16: what is typed comes back.
const ECHO: [u32; 8] =
    [0xd2a1_2083, 0x5280_00a2, 0xb900_0062, 0xb940_1864, 0x3727_ffe4, 0xb940_0062, 0xb900_0062, 0x17ff_fffc];

#[test]
fn the_second_uart_types_its_input_once_the_guest_asks_for_it_by_enq() {
    let port = Port::default();
    let mut config = config(&port);
    config.second_uart.input = b"forty bytes, more than the FIFO of one..".to_vec();
    let mut machine = SoftwareMachine::new(config, &guest(&ECHO, &[]), Box::new(())).unwrap();
    assert_eq!(machine.run(Some(2)).unwrap(), None);
    assert_eq!(*port.0.lock().unwrap(), b"", "it did not ask yet");
    assert_eq!(machine.run(Some(1000)).unwrap(), None);
    assert_eq!(*port.0.lock().unwrap(), b"forty bytes, more than the FIFO of one..");
}

/// How much of the input was typed is the machine's state; the input is the host's.
#[test]
fn a_snapshot_goes_on_in_the_middle_of_the_input_of_the_second_uart() {
    let with_input = |mut config: Config, text: &[u8]| {
        config.second_uart.input = text.to_vec();
        config
    };
    let mut machine = SoftwareMachine::new(
        with_input(config(&Port::default()), b"first"),
        &guest(&ECHO, &[]),
        Box::new(()),
    )
    .unwrap();
    let before = machine.snapshot().unwrap();
    assert_eq!(machine.run(Some(19)).unwrap(), None);
    let within = machine.snapshot().unwrap();
    for (snapshot, input, wanted) in [(&before, b"other", &b"other"[..]), (&within, b"abcde", b"se")] {
        let port = Port::default();
        let mut config = with_input(snapshot.config(), input);
        config.second_uart.output = Some(Box::new(port.clone()));
        let mut machine = SoftwareMachine::resume(snapshot, config, Box::new(())).unwrap();
        assert_eq!(machine.run(Some(1000)).unwrap(), None);
        assert_eq!(*port.0.lock().unwrap(), wanted);
    }
}

/// The register takes 2^20 ranges, which are more bytes than the rest of a board may have.
#[test]
fn a_snapshot_from_a_file_has_as_many_bad_ranges_as_the_register_takes() {
    // str x1, [x3]; add x1, x1, #64; sub x2, x2, #1; cbnz x2, . - 12
    let code = [&ADDRESSES[..], &[0xd2a0_0202, 0xf900_0061, 0x9101_0021, 0xd100_0442, 0xb5ff_ffa2]].concat();
    let mut config = config(&Port::default());
    config.memory = 128 << 20;
    let code = [&code[..], &OFF].concat();
    let mut machine = SoftwareMachine::new(config, &guest(&code, &[]), Box::new(())).unwrap();
    assert_eq!(machine.run(Some(10_000_000)).unwrap(), Some(End::PowerOff));
    assert_eq!(machine.vm().memory().poisoned_lines(), 1 << 20);
    let mut file = Vec::new();
    machine.snapshot().unwrap().save(&mut file).unwrap();
    let snapshot = Snapshot::load(&*file).unwrap();
    let loaded = SoftwareMachine::resume(&snapshot, snapshot.config(), Box::new(())).unwrap();
    assert_eq!(loaded.state_hash(), machine.state_hash());
}

/// The register's state goes with the machine, and the guest goes on to the bit.
#[test]
fn a_snapshot_from_a_file_goes_on_with_the_register_as_it_was() {
    // str x1, [x3]; add x7, x7, #1; b . - 4
    let code = [&ADDRESSES[..], &[0xf900_0061, 0x9100_04e7, 0x17ff_ffff]].concat();
    let mut machine =
        SoftwareMachine::new(config(&Port::default()), &guest(&code, &[]), Box::new(())).unwrap();
    assert_eq!(machine.run(Some(100)).unwrap(), None);
    let mut file = Vec::new();
    machine.snapshot().unwrap().save(&mut file).unwrap();
    let snapshot = Snapshot::load(&*file).unwrap();
    assert!(snapshot.config().el2);
    let mut loaded = SoftwareMachine::resume(&snapshot, snapshot.config(), Box::new(())).unwrap();
    assert_eq!(loaded.state_hash(), machine.state_hash());
    for machine in [&mut machine, &mut loaded] {
        assert_eq!(machine.run(Some(77)).unwrap(), None);
    }
    assert_eq!(loaded.state_hash(), machine.state_hash());
    let without = SoftwareMachine::resume(&snapshot, Config::new(MEMORY), Box::new(()));
    assert!(without.unwrap_err().to_string().contains("with EL2"));
}

/// IMAGE is where the vectors are counted from.
#[test]
fn the_guest_starts_at_el2() {
    let mut machine =
        SoftwareMachine::new(config(&Port::default()), &guest(&OFF, &[]), Box::new(())).unwrap();
    assert_eq!((reg(&mut machine, Reg::Pc), reg(&mut machine, Reg::Pstate) & 0xf), (IMAGE, 9));
}
