//! Lines of a log of any size, each in bounded memory.

use std::io::{self, BufRead, ErrorKind};

/// The examined bytes of a line; the rest is read and dropped.
pub(super) const LIMIT: usize = 16 << 10;

/// One line, without its line end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// From 1.
    pub(super) number: u64,
    pub(super) bytes: &'a [u8],
    /// True if the line is longer than [`LIMIT`].
    pub(super) is_cut: bool,
}

/// Reads lines from a reader.
pub(super) struct Lines<R> {
    reader: R,
    line: Vec<u8>,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, line: Vec::new(), number: 0 }
    }

    /// The next line; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        self.line.clear();
        let mut is_cut = false;
        let mut is_empty = true;
        loop {
            let chunk = match self.reader.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if chunk.is_empty() {
                break;
            }
            is_empty = false;
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let part = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or_default();
            let kept = part.get(..part.len().min(LIMIT - self.line.len())).unwrap_or_default();
            is_cut |= kept.len() < part.len();
            self.line.extend_from_slice(kept);
            let used = end.map_or(chunk.len(), |end| end + 1);
            self.reader.consume(used);
            if end.is_some() {
                break;
            }
        }
        if is_empty {
            return Ok(None);
        }
        self.number += 1;
        if !is_cut && self.line.last() == Some(&b'\r') {
            self.line.pop();
        }
        Ok(Some(Line { number: self.number, bytes: &self.line, is_cut }))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Read};

    use super::*;

    #[test]
    fn lines_end_with_lf_crlf_or_the_log() {
        let mut lines = Lines::new(&b"one\r\ntwo\n\nfour"[..]);
        let mut all = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            all.push((line.number, String::from_utf8(line.bytes.to_vec()).unwrap(), line.is_cut));
        }
        let line = |number, text: &str| (number, text.to_owned(), false);
        assert_eq!(all, [line(1, "one"), line(2, "two"), line(3, ""), line(4, "four")]);
    }

    #[test]
    fn a_line_of_any_length_takes_as_much_memory_as_the_limit() {
        // A quarter of a gibibyte without a line end, then a line.
        let endless = io::repeat(b'x').take(1 << 28).chain(&b"\nnext\n"[..]);
        let mut lines = Lines::new(BufReader::with_capacity(1 << 16, endless));
        let first = lines.next().unwrap().unwrap();
        assert_eq!((first.number, first.bytes.len(), first.is_cut), (1, LIMIT, true));
        assert!(lines.line.capacity() <= 2 * LIMIT, "{}", lines.line.capacity());
        let next = lines.next().unwrap().unwrap();
        assert_eq!((next.number, next.bytes, next.is_cut), (2, &b"next"[..], false));
    }

    #[test]
    fn a_line_that_is_as_long_as_the_limit_is_whole() {
        let mut log = vec![b'x'; LIMIT];
        log.push(b'\n');
        let mut lines = Lines::new(&log[..]);
        assert!(!lines.next().unwrap().unwrap().is_cut);
        assert_eq!(lines.next().unwrap(), None);
    }
}
