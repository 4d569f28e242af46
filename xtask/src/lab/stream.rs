//! The lab's second serial port: what the command wrote, between two marks, the second of which has its exit code.

/// Where in the stream we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The lab boots.
    Booting,
    /// The command runs.
    Running,
    /// It ended with this code.
    Ended(i32),
}

/// Takes the marks out of the stream. A mark is a word that no command writes by chance, and a newline behind it.
pub(crate) struct Stream {
    begin: Vec<u8>,
    end: Vec<u8>,
    state: State,
    /// What may be the beginning of a mark.
    held: Vec<u8>,
}

impl Stream {
    /// For marks with this word, which differs from run to run: `WORD-begin`, `WORD-end CODE`.
    pub(crate) fn new(word: &str) -> Self {
        let begin = format!("{word}-begin\n").into_bytes();
        let end = format!("{word}-end ").into_bytes();
        Self { begin, end, state: State::Booting, held: Vec::new() }
    }

    /// For a command that runs already.
    pub(crate) fn running(word: &str) -> Self {
        Self { state: State::Running, ..Self::new(word) }
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// Takes bytes as they come, in pieces of any size; gives what the command wrote, as far as it is sure.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(bytes);
        if self.state == State::Booting {
            if let Some(at) = find(&self.held, &self.begin) {
                self.held.drain(..at + self.begin.len());
                self.state = State::Running;
            } else {
                let kept = self.begin.len().min(self.held.len());
                self.held.drain(..self.held.len() - kept);
            }
        }
        if self.state != State::Running {
            return Vec::new();
        }
        match find(&self.held, &self.end) {
            None => {
                let kept = overlap(&self.held, &self.end);
                self.held.drain(..self.held.len() - kept).collect()
            }
            Some(at) => {
                let output: Vec<u8> = self.held.drain(..at).collect();
                let code = &self.held[self.end.len()..];
                if let Some(line) = code.iter().position(|&byte| byte == b'\n') {
                    let code =
                        std::str::from_utf8(&code[..line]).ok().and_then(|code| code.trim().parse().ok());
                    self.state = State::Ended(code.unwrap_or(255));
                }
                output
            }
        }
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// How many bytes at the end of the first are a beginning of the second.
fn overlap(bytes: &[u8], wanted: &[u8]) -> usize {
    let longest = bytes.len().min(wanted.len() - 1);
    (1..=longest).rev().find(|&length| bytes.ends_with(&wanted[..length])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a text in pieces of this size: what came out, and the state at the end.
    fn check(text: &str, size: usize) -> (String, State) {
        let mut stream = Stream::new("m4rk");
        let mut output = Vec::new();
        for piece in text.as_bytes().chunks(size) {
            output.extend(stream.take(piece));
        }
        (String::from_utf8(output).unwrap_or_default(), stream.state())
    }

    #[test]
    fn the_output_is_what_stands_between_the_marks() {
        for size in [1, 2, 3, 7, 1000] {
            assert_eq!(
                check("noise\nm4rk-begin\nhello\nm4rk-end 3\n", size),
                ("hello\n".into(), State::Ended(3)),
                "pieces of {size}"
            );
        }
    }

    #[test]
    fn of_a_command_that_runs_already_all_is_output_up_to_its_end() {
        let mut stream = Stream::running("m4rk");
        assert_eq!(
            (stream.take(b"rest\nm4rk-end 7\n"), stream.state()),
            (b"rest\n".to_vec(), State::Ended(7))
        );
    }

    #[test]
    fn output_without_a_newline_and_no_output_come_as_they_are() {
        assert_eq!(check("m4rk-begin\nno newlinem4rk-end 0\n", 5), ("no newline".into(), State::Ended(0)));
        assert_eq!(check("m4rk-begin\nm4rk-end 255\n", 5), (String::new(), State::Ended(255)));
    }

    #[test]
    fn what_only_looks_like_a_mark_is_output() {
        assert_eq!(check("m4rk-begin\nm4rk-en m4rk-m4", 4), ("m4rk-en m4rk-".into(), State::Running));
        assert_eq!(check("m4rk-begin\nm4rk-en m4rk-m4 x", 4), ("m4rk-en m4rk-m4 x".into(), State::Running));
    }

    #[test]
    fn a_lab_that_never_began_or_never_ended_says_so() {
        assert_eq!(check("[0.0] Booting Linux\n", 4), (String::new(), State::Booting));
        assert_eq!(check("m4rk-begin\npart", 4), ("part".into(), State::Running));
        assert_eq!(check("m4rk-begin\npartm4rk-end 1", 4), ("part".into(), State::Running));
    }

    #[test]
    fn a_code_that_is_no_number_is_a_failure() {
        assert_eq!(check("m4rk-begin\nm4rk-end oops\n", 100).1, State::Ended(255));
    }
}
