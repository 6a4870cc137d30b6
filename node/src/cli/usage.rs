//! What is said to a command line that cannot be understood, and numbers with a range.

use std::fmt::Display;

/// A parser of whole numbers from `least` to `most`, both included.
pub(crate) fn number<T>(
    least: u64,
    most: u64,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: TryFrom<u64> + Clone + Send + Sync + Display + 'static,
{
    move |text: &str| {
        let given = text.parse::<u64>().ok();
        let number = given.filter(|given| (least..=most).contains(given));
        number
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| format!("it is a number from {least} to {most}"))
    }
}

/// Wrong usage in one line: the field, and what is allowed.
pub(super) fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let told = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"));
    let told = told.collect::<Vec<_>>().join(" ");
    let told = told.strip_prefix("error: ").unwrap_or(&told);
    format!("holdfast: {told}; see --help")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    fn told(arguments: &[&str]) -> String {
        let all = ["holdfast"].iter().chain(arguments);
        one_line(&Cli::try_parse_from(all).err().unwrap())
    }

    #[test]
    fn wrong_usage_is_one_line_that_names_the_field_and_what_is_allowed() {
        for (arguments, wanted) in [
            (
                &[
                    "target",
                    "change",
                    "iqn.2026-11.example:t",
                    "--max-sessions",
                    "many",
                ][..],
                "holdfast: invalid value 'many' for '--max-sessions <N>': it is a number from 0 to 4294967295; see --help",
            ),
            (
                &["extent", "write-cache", "vm1", "maybe"],
                "holdfast: invalid value 'maybe' for '<TO>' [possible values: on, off]; see --help",
            ),
            (
                &["extent", "create", "vm1"],
                "holdfast: the following required arguments were not provided: --size <SIZE>; see --help",
            ),
            (
                &["cluster", "token", "--valid", "7"],
                "holdfast: invalid value '7' for '--valid <SECONDS>': it is a number from 60 to 604800; see --help",
            ),
            (
                &["cluster", "token", "--valid", "-60"],
                "holdfast: unexpected argument '-6' found; see --help",
            ),
        ] {
            assert_eq!(told(arguments), wanted);
        }
        let grow = told(&["extent", "grow", "vm1"]);
        assert!(
            grow.starts_with("holdfast: unrecognized subcommand 'grow'"),
            "{grow}"
        );
    }

    #[test]
    fn a_number_is_within_its_range_and_its_type() {
        let byte = number::<u8>(1, 1000);
        assert_eq!(byte("255"), Ok(255));
        for text in ["0", "256", "1001", "-1", "", "1.5", "99999999999999999999"] {
            assert_eq!(
                byte(text),
                Err("it is a number from 1 to 1000".to_owned()),
                "{text}"
            );
        }
    }
}
