//! What a device knows of the interrupt controller.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// One interrupt input, level-sensitive. Whoever makes it for a backend sees to it that setting it cannot
/// fail.
pub trait InterruptLine: Send + Sync {
    /// Drives the line.
    fn set(&self, high: bool);
}

impl<T: InterruptLine + ?Sized> InterruptLine for Arc<T> {
    fn set(&self, high: bool) {
        (**self).set(high);
    }
}

/// A line that leads nowhere but can be looked at: for tests, and for machines without an interrupt
/// controller.
#[derive(Debug, Default)]
pub struct Probe(AtomicBool);

impl Probe {
    /// Whether it is high.
    pub fn is_high(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

impl InterruptLine for Probe {
    fn set(&self, high: bool) {
        self.0.store(high, Ordering::SeqCst);
    }
}
