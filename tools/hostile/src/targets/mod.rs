//! The bodies of the fuzz targets, of the tests with fixed seeds and of `seawall-hostile`.
//!
//! A body takes any bytes, and panics if a result is wrong. It repeats a run with the same bytes exactly.

mod decoder;
mod devices;
mod http;
mod kernel;
mod ledger;
mod migration;
mod snapshot;
mod translation;
mod virtqueue;
mod walk;
mod wire;

/// Code that reads data from outside.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, which is also that of its fuzz target.
    pub name: &'static str,
    /// The test of the bytes.
    pub body: fn(&[u8]),
    /// The largest useful input in bytes.
    pub longest: usize,
    /// The number of inputs that the ordinary tests try.
    pub cases: u64,
}

/// All targets.
pub const ALL: &[Target] = &[
    Target { name: "decoder", body: decoder::body, longest: 2048, cases: 400 },
    Target { name: "devices", body: devices::body, longest: 256, cases: 400 },
    Target { name: "http", body: http::body, longest: 1024, cases: 400 },
    Target { name: "kernel", body: kernel::body, longest: 512, cases: 2000 },
    Target { name: "ledger", body: ledger::body, longest: 1024, cases: 2000 },
    Target { name: "migration", body: migration::body, longest: 512, cases: 2000 },
    Target { name: "snapshot", body: snapshot::body, longest: 256, cases: 200 },
    Target { name: "translation", body: translation::body, longest: 1024, cases: 1000 },
    Target { name: "virtqueue", body: virtqueue::body, longest: 512, cases: 100 },
    Target { name: "walk", body: walk::body, longest: 4096, cases: 400 },
    Target { name: "wire", body: wire::body, longest: 1024, cases: 2000 },
];

/// Runs the body of the target with this name; does nothing if there is none.
pub fn run(name: &str, data: &[u8]) {
    if let Some(target) = ALL.iter().find(|target| target.name == name) {
        (target.body)(data);
    }
}
