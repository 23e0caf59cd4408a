//! Emphasis on a terminal: none when the output is not one, NO_COLOR is set or TERM is `dumb`.

use std::env;
use std::io::{IsTerminal, stderr, stdout};

/// Whether and how output is emphasised.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Colour {
    on: bool,
}

impl Colour {
    /// What standard output can bear.
    pub(crate) fn of_stdout() -> Self {
        Self::of(stdout().is_terminal())
    }

    /// What standard error can bear.
    pub(crate) fn of_stderr() -> Self {
        Self::of(stderr().is_terminal())
    }

    /// What a terminal can bear (no-color.org: NO_COLOR set and not empty means no).
    fn of(is_terminal: bool) -> Self {
        let refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self {
            on: is_terminal && !refused && !dumb,
        }
    }

    /// A heading.
    pub(crate) fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    /// Good news.
    pub(crate) fn green(self, text: &str) -> String {
        self.wrap("32", text)
    }

    /// What needs attention.
    pub(crate) fn yellow(self, text: &str) -> String {
        self.wrap("33", text)
    }

    /// What matters less.
    pub(crate) fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.on {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.into()
        }
    }
}
