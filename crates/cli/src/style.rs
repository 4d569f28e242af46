//! Colours, only if `anstream` finds a terminal that supports them.

use std::fmt::{self, Display};

use anstyle::{AnsiColor, Style};

/// A text in a style.
pub(crate) struct Styled<T>(T, Style);

impl<T: Display> Display for Styled<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.1.render())?;
        self.0.fmt(f)?;
        write!(f, "{}", self.1.render_reset())
    }
}

/// Success.
pub(crate) fn good<T: Display>(text: T) -> Styled<T> {
    Styled(text, AnsiColor::Green.on_default())
}

/// Loss.
pub(crate) fn bad<T: Display>(text: T) -> Styled<T> {
    Styled(text, AnsiColor::Red.on_default().bold())
}

/// Headings.
pub(crate) fn head<T: Display>(text: T) -> Styled<T> {
    Styled(text, Style::new().bold())
}

/// Secondary text.
pub(crate) fn dim<T: Display>(text: T) -> Styled<T> {
    Styled(text, Style::new().dimmed())
}
