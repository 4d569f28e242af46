//! What needs no lab: a program's `--help` and `--list`, and words that it does not know.

use clap::Parser;
use clap::error::ErrorKind;
use seawall_lab::options::{Bench, Contain, Diff, Wrap};

use super::{Arguments, Run};

/// Answers on the host what can be answered there: the exit code; `None` if it takes a lab.
pub(crate) fn without_a_lab(run: &Run) -> Option<u8> {
    let answer = match run {
        Run::Contain(arguments) => match parse::<Contain>("contain", arguments) {
            Ok(options) if options.list => Some((Contain::list(), 0)),
            other => other.err(),
        },
        Run::Wrap(arguments) => match parse::<Wrap>("wrap", arguments) {
            Ok(options) if options.list => Some((Wrap::list(), 0)),
            other => other.err(),
        },
        Run::Bench(arguments) => parse::<Bench>("bench", arguments).err(),
        Run::Diff(arguments) => parse::<Diff>("diff", arguments).err(),
        Run::Check(_) | Run::Tests(_) | Run::Selftests(_) | Run::Compare => None,
    };
    let (text, code) = answer?;
    if code == 0 {
        print!("{text}");
    } else {
        eprint!("{text}");
    }
    Some(code)
}

/// The program's own reading of its words; else what there is to say, with the exit code.
fn parse<T: Parser>(name: &str, arguments: &Arguments) -> Result<T, (String, u8)> {
    let command = T::command().bin_name(format!("cargo xtask lab {name}")).no_binary_name(true);
    let options =
        command.try_get_matches_from(&arguments.arguments).and_then(|matches| T::from_arg_matches(&matches));
    options.map_err(|error| {
        let is_answer = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
        (error.render().to_string(), if is_answer { 0 } else { 2 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(words: &[&str]) -> Arguments {
        Arguments { arguments: words.iter().map(ToString::to_string).collect() }
    }

    #[test]
    fn help_is_the_programs_own_under_the_name_that_was_typed() {
        let (text, code) = parse::<Contain>("contain", &arguments(&["--help"])).expect_err("help");
        assert_eq!(code, 0);
        assert!(text.contains("Usage: cargo xtask lab contain [OPTIONS] [SCENARIO]..."), "{text}");
        assert!(text.contains("--console"), "{text}");
    }

    #[test]
    fn wrong_words_are_an_error_without_a_lab() {
        let (text, code) =
            parse::<Bench>("bench", &arguments(&["--batch", "1"])).expect_err("no such option");
        assert_eq!(code, 2);
        assert!(text.contains("--batches"), "{text}");
        assert_eq!(without_a_lab(&Run::Diff(arguments(&["--seed", "x"]))), Some(2));
    }

    #[test]
    fn what_takes_a_lab_is_not_answered() {
        assert_eq!(without_a_lab(&Run::Contain(arguments(&["data"]))), None);
        assert_eq!(without_a_lab(&Run::Bench(arguments(&["--peer"]))), None);
        assert_eq!(without_a_lab(&Run::Diff(arguments(&["--sequences", "3"]))), None);
        assert_eq!(without_a_lab(&Run::Compare), None);
    }
}
