//! The scenarios that need no MMU, on the model of the kernel half (`seawall-events`) alone: also those about
//! AArch32, EASE and guest hypervisors, which the software machine does not have. One test each.

mod backend;
mod cpu;
mod step;

use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};
use seawall_conformance::{Backend, LIMIT, Verdict, run, scenarios};

/// These groups' guests leave the MMU off.
const GROUPS: [&str; 10] =
    ["abort", "esr", "serror", "both", "ease", "mmio", "get", "errno", "aarch32", "nested"];

fn main() {
    let backend: Arc<dyn Backend> = Arc::new(backend::Model);
    let trials = scenarios().filter(|scenario| GROUPS.contains(&scenario.group())).map(|scenario| {
        let backend = Arc::clone(&backend);
        let skipped = scenario.needs().iter().any(|need| backend.offers(*need).is_err());
        Trial::test(scenario.to_string(), move || match run(&backend, &scenario, LIMIT).verdict {
            Verdict::Passed => Ok(()),
            other => Err(format!("{other:#?}").into()),
        })
        .with_ignored_flag(skipped)
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit();
}
