//! A program's scenarios: those that are asked for, and the list of all.

use std::fmt::Write as _;

use clap::ValueEnum;

/// The requested scenarios in the table's order: all, if none is named.
pub(super) fn requested<S: ValueEnum + Copy + PartialEq + 'static>(only: &[S]) -> impl Iterator<Item = S> {
    S::value_variants().iter().copied().filter(|scenario| only.is_empty() || only.contains(scenario))
}

/// The output of `--list`: a line for each scenario.
pub(super) fn list<S: ValueEnum + 'static>() -> String {
    let values = S::value_variants().iter().filter_map(ValueEnum::to_possible_value);
    values.fold(String::new(), |mut list, value| {
        let about = value.get_help().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(list, "{:<14} {about}", value.get_name());
        list
    })
}
