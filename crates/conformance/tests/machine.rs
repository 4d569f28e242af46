//! Every scenario on the software machine, one test each.

use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};
use seawall_conformance::{Backend, LIMIT, Machine, Verdict, run, scenarios};

fn main() {
    let backend: Arc<dyn Backend> = Arc::new(Machine);
    let trials = scenarios().map(|scenario| {
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
