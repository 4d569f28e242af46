//! The place of an edit's text in a file.

use std::ops::Range;

use crate::{ANCHOR_LIMIT, Edit, Place, Problem};

/// The bytes of the file that a text replaces: none, unless the edit replaces.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) range: Range<usize>,
    pub(crate) text: String,
}

/// Finds the place of an edit.
pub(crate) fn find(edit: &Edit<'_>, source: &str) -> Result<Change, Problem> {
    let scope = block(edit, source)?;
    let offset = scope.start;
    let start = offset + once(edit, edit.anchor, &source[scope], edit.within)?;
    let end = start + edit.anchor.len();
    let change = |at: Range<usize>, text: String| Change { range: at, text };
    Ok(match edit.place {
        Place::Before => change(start..start, edit.text.into()),
        Place::After => change(end..end, edit.text.into()),
        Place::Replace => change(start..end, edit.text.into()),
        Place::LineBefore => {
            let line = source[..start].rfind('\n').map_or(0, |at| at + 1);
            change(line..line, format!("{}\n", edit.text))
        }
        Place::LineAfter => match source[end..].find('\n') {
            Some(length) => change(end + length + 1..end + length + 1, format!("{}\n", edit.text)),
            // The last line of the file has no line end.
            None => change(source.len()..source.len(), format!("\n{}", edit.text)),
        },
    })
}

/// The block that the edit names, or the whole file.
fn block(edit: &Edit<'_>, source: &str) -> Result<Range<usize>, Problem> {
    let Some(within) = edit.within else { return Ok(0..source.len()) };
    let start = once(edit, within, source, None)?;
    let Some(end) = source[start..].find("\n}").map(|at| start + at + 1) else {
        return Err(Problem::NoEnd { file: edit.file.into(), within: within.into() });
    };
    let rest = source[end..].find('\n').map_or(source.len(), |at| end + at);
    Ok(start..rest)
}

/// The position of the text, if it occurs exactly once.
fn once(edit: &Edit<'_>, text: &str, source: &str, within: Option<&str>) -> Result<usize, Problem> {
    let file = || edit.file.to_owned();
    if text.is_empty() || text.len() > ANCHOR_LIMIT || text.contains('\n') {
        return Err(Problem::BadAnchor { file: file(), anchor: text.into() });
    }
    let not_once = |found| Problem::NotOnce {
        file: file(),
        within: within.map(str::to_owned),
        text: text.into(),
        found,
    };
    let mut places = source.match_indices(text).map(|(at, _)| at);
    match (places.next(), places.count()) {
        (None, _) => Err(not_once(0)),
        (Some(at), 0) => Ok(at),
        (Some(_), more) => Err(not_once(1 + more)),
    }
}
