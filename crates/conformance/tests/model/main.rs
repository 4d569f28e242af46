//! The scenarios that need no MMU, on the model of the kernel half (`seawall-events`) alone, including those
//! about AArch32, EASE and guest hypervisors, which the software machine lacks. There is one test for each,
//! and one for each kind of kernel under the injection: stock, and with the extended ABI in either layout.

mod backend;
mod cpu;
mod step;

use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};
use seawall_conformance::{Backend, LIMIT, Verdict, run, scenarios};
use seawall_events::Layout;
use seawall_inject::Way;

/// Groups whose guests leave the MMU off.
const GROUPS: [&str; 10] =
    ["abort", "esr", "serror", "both", "ease", "mmio", "get", "errno", "aarch32", "nested"];

/// The model's own extended ABI, and that of the injector over each kind of kernel.
const WAYS: [(&str, Option<Way>); 4] = [
    ("", None),
    ("assisted::", Some(Way::Assisted)),
    ("native::", Some(Way::Native(Layout::Posted))),
    ("trailing::", Some(Way::Native(Layout::Trailing))),
];

fn main() {
    let all = WAYS.iter().flat_map(|way| scenarios().map(move |scenario| (way, scenario)));
    let trials =
        all.filter(|(_, scenario)| GROUPS.contains(&scenario.group())).map(|((name, way), scenario)| {
            let backend: Arc<dyn Backend> = Arc::new(backend::Model(*way));
            let skipped = scenario.needs().iter().any(|need| backend.offers(*need).is_err());
            Trial::test(format!("{name}{scenario}"), move || match run(&backend, &scenario, LIMIT).verdict {
                Verdict::Passed => Ok(()),
                other => Err(format!("{other:#?}").into()),
            })
            .with_ignored_flag(skipped)
        });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit();
}
