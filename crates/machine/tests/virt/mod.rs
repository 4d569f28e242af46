//! A guest on this machine with the board of QEMU's `virt` around it, which is `seawall-vmm`'s.

use std::sync::{Arc, Mutex};

use seawall_vmm::kernel::Kernel;
use seawall_vmm::{Config, End, Guest, Observer, SoftwareMachine};

/// What the guest wrote.
#[derive(Clone, Default)]
struct Console(Arc<Mutex<Vec<u8>>>);

impl Observer for Console {
    fn console(&mut self, bytes: &[u8]) {
        self.0.lock().expect("no panic").extend(bytes);
    }
}

/// What `image` (flat or ELF) writes to its console, with 128 MiB, before it powers off, within so many steps.
#[allow(dead_code, reason = "not every test has one")]
#[track_caller]
pub(crate) fn console(image: &[u8], steps: u64) -> String {
    console_of(image, steps, false)
}

/// The same of a guest that starts at EL2.
#[allow(dead_code, reason = "not every test has one")]
#[track_caller]
pub(crate) fn console_at_el2(image: &[u8], steps: u64) -> String {
    console_of(image, steps, true)
}

#[track_caller]
fn console_of(image: &[u8], steps: u64, el2: bool) -> String {
    let kernel = Kernel::parse(image.to_vec(), 128 << 20).expect("a guest");
    let guest = Guest { kernel, address: None, initrd: None, command_line: String::new() };
    let console = Console::default();
    let mut config = Config::new(128 << 20);
    config.el2 = el2;
    let mut machine = SoftwareMachine::new(config, &guest, Box::new(console.clone())).expect("fits");
    assert_eq!(machine.run(Some(steps)).expect("no host error"), Some(End::PowerOff));
    let bytes = std::mem::take(&mut *console.0.lock().expect("no panic"));
    String::from_utf8(bytes).expect("ASCII")
}
