//! The part of SVG that the pictures need, in the two themes of a page.

use std::fmt::{Display, Write as _};

/// Colours of a page.
#[derive(Clone, Copy)]
pub(crate) struct Theme {
    /// The suffix of the file's name.
    pub(crate) suffix: &'static str,
    panel: &'static str,
    raised: &'static str,
    border: &'static str,
    text: &'static str,
    muted: &'static str,
    good: Pair,
    bad: Pair,
    accent: Pair,
}

/// A strong colour, and a faint one to write it on.
#[derive(Clone, Copy)]
struct Pair {
    strong: &'static str,
    faint: &'static str,
}

pub(crate) const THEMES: [Theme; 2] = [
    Theme {
        suffix: "",
        panel: "#f6f8fa",
        raised: "#ffffff",
        border: "#d0d7de",
        text: "#1f2328",
        muted: "#59636e",
        good: Pair { strong: "#1a7f37", faint: "#dafbe1" },
        bad: Pair { strong: "#cf222e", faint: "#ffebe9" },
        accent: Pair { strong: "#0969da", faint: "#ddf4ff" },
    },
    Theme {
        suffix: "-dark",
        panel: "#151b23",
        raised: "#0d1117",
        border: "#3d444d",
        text: "#f0f6fc",
        muted: "#9198a1",
        good: Pair { strong: "#3fb950", faint: "#12261e" },
        bad: Pair { strong: "#f85149", faint: "#301b1f" },
        accent: Pair { strong: "#4493f8", faint: "#121d2f" },
    },
];

/// The meaning of an element.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Muted,
    Good,
    Bad,
    Accent,
}

/// The style of a text.
#[derive(Clone, Copy)]
pub(crate) struct Font {
    size: u32,
    is_bold: bool,
    is_mono: bool,
    anchor: &'static str,
}

pub(crate) const fn sans(size: u32) -> Font {
    Font { size, is_bold: false, is_mono: false, anchor: "start" }
}

pub(crate) const fn bold(size: u32) -> Font {
    Font { is_bold: true, ..sans(size) }
}

pub(crate) const fn mono(size: u32) -> Font {
    Font { is_mono: true, ..sans(size) }
}

impl Font {
    /// Ends the text at its place.
    pub(crate) const fn to_the_left(self) -> Self {
        Self { anchor: "end", ..self }
    }

    pub(crate) const fn centred(self) -> Self {
        Self { anchor: "middle", ..self }
    }
}

/// The place of a rectangle.
#[derive(Clone, Copy)]
pub(crate) struct Box {
    pub(crate) x: i32,
    pub(crate) y: i32,
    pub(crate) width: i32,
    pub(crate) height: i32,
}

/// A picture in progress.
pub(crate) struct Svg {
    theme: Theme,
    body: String,
    size: (i32, i32),
    title: &'static str,
}

impl Svg {
    pub(crate) fn new(theme: Theme, size: (i32, i32), title: &'static str) -> Self {
        Self { theme, body: String::new(), size, title }
    }

    fn strong(&self, tone: Tone) -> &'static str {
        match tone {
            Tone::Plain => self.theme.text,
            Tone::Muted => self.theme.muted,
            Tone::Good => self.theme.good.strong,
            Tone::Bad => self.theme.bad.strong,
            Tone::Accent => self.theme.accent.strong,
        }
    }

    /// A box with round corners: its border and its content.
    pub(crate) fn panel(&mut self, place: Box, tone: Tone) {
        let Theme { panel, raised, border, .. } = self.theme;
        let (fill, stroke) = match tone {
            Tone::Plain => (raised, border),
            Tone::Muted => (panel, border),
            Tone::Good => (self.theme.good.faint, self.theme.good.strong),
            Tone::Bad => (self.theme.bad.faint, self.theme.bad.strong),
            Tone::Accent => (self.theme.accent.faint, self.theme.accent.strong),
        };
        let Box { x, y, width, height } = place;
        let _ = writeln!(
            self.body,
            r#"<rect x="{x}.5" y="{y}.5" width="{width}" height="{height}" rx="8" fill="{fill}" stroke="{stroke}"/>"#
        );
    }

    /// A full bar without a border.
    pub(crate) fn bar(&mut self, place: Box, tone: Tone) {
        let Box { x, y, width, height } = place;
        let fill = self.strong(tone);
        let _ = writeln!(
            self.body,
            r#"<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="3" fill="{fill}"/>"#
        );
    }

    /// A text whose baseline is at `y`.
    pub(crate) fn text(&mut self, x: i32, y: i32, font: Font, tone: Tone, text: impl Display) {
        let family = if font.is_mono { " class=\"mono\"" } else { "" };
        let weight = if font.is_bold { " font-weight=\"600\"" } else { "" };
        let anchor =
            if font.anchor == "start" { String::new() } else { format!(" text-anchor=\"{}\"", font.anchor) };
        let text = text.to_string().replace('&', "&amp;").replace('<', "&lt;");
        let _ = writeln!(
            self.body,
            r#"<text x="{x}" y="{y}" font-size="{}" fill="{}"{family}{weight}{anchor}>{text}</text>"#,
            font.size,
            self.strong(tone)
        );
    }

    /// An arrow along these points, with its head at the last.
    pub(crate) fn arrow(&mut self, points: &[(i32, i32)], tone: Tone) {
        let [.., (from_x, from_y), (x, y)] = *points else { return };
        let mut path = String::new();
        for (n, (x, y)) in points.iter().enumerate() {
            let _ = write!(path, "{}{x} {y}", if n == 0 { "M" } else { " L" });
        }
        let (dx, dy) = ((x - from_x).signum(), (y - from_y).signum());
        let (left, right) =
            ((x - 8 * dx - 5 * dy, y - 8 * dy - 5 * dx), (x - 8 * dx + 5 * dy, y - 8 * dy + 5 * dx));
        let stroke = self.strong(tone);
        let _ = writeln!(
            self.body,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{stroke}\" stroke-width=\"2\"/>\n\
             <path d=\"M{x} {y} L{} {} L{} {} Z\" fill=\"{stroke}\"/>",
            left.0, left.1, right.0, right.1
        );
    }

    /// A tick or a cross, 12 high, its upper left corner here.
    pub(crate) fn mark(&mut self, x: i32, y: i32, tone: Tone) {
        let path = if tone == Tone::Good { "l4 5 l8 -10" } else { "l10 10 m0 -10 l-10 10" };
        let y = if tone == Tone::Good { y + 6 } else { y + 1 };
        let stroke = self.strong(tone);
        let _ = writeln!(
            self.body,
            r#"<path d="M{x} {y} {path}" fill="none" stroke="{stroke}" stroke-width="2.5" stroke-linecap="round" stroke-linejoin="round"/>"#
        );
    }

    /// The file's text.
    pub(crate) fn finish(self) -> String {
        let Self { body, size: (width, height), title, .. } = self;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} \
             {height}\" role=\"img\" font-family=\"-apple-system, 'Segoe UI', 'Noto Sans', Helvetica, Arial, \
             'DejaVu Sans', sans-serif\">\n<title>{title}</title>\n<style>.mono {{ font-family: ui-monospace, \
             SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace }}</style>\n{body}</svg>\n"
        )
    }
}
