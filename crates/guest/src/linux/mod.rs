//! Programs for Linux, assembled on the host: the processes of a workload that says what it loses to bad memory.
//!
//! Each is a static ELF that needs nothing but a kernel with pages of 4 KiB and, at first, a readable `/proc`. Its
//! arguments are the number of rounds and, optionally, any word: then it handles SIGBUS. A round does the program's
//! work, checks the result, and sleeps 10 ms.
//!
//! | program | what it uses each round |
//! |---|---|
//! | `code` | a function alone in a page of the program's file, which it mapped itself |
//! | `anonymous` | every word of 64 KiB of anonymous memory: loads, checks, and stores anew |
//! | `shared-a`, `shared-b` | a counter of its own and the other's, in a page of `/run/shared` |
//! | `witness` | none of these |
//!
//! # Console
//!
//! Lines on standard output, each one `write` (`N` decimal, `X` lower-case hexadecimal):
//!
//! | line | when |
//! |---|---|
//! | `seawall: page NAME 0xX` | at the start: the physical address of a line that each round loads from or executes, at the base of a page in which nothing else is used; `shared-a` names it for both, as `shared` |
//! | `NAME: alive N` | every tenth round |
//! | `NAME: wrong result` | what it computed or read is not what must be |
//! | `NAME: SIGBUS si_code=N si_addr=0xX` | with a handler |
//! | `NAME: cannot start` | Linux refused a call |
//!
//! Exit codes: 0 all rounds done, 1 a wrong result, 2 it could not start, 3 SIGBUS was handled.
//!
//! A page that its owner's death frees is used again while it is bad, as long as nothing tells the kernel that it is.
//! Those of `code` and `shared` belong to files, and stay. `anonymous` puts its own into the pipe that it has as
//! descriptor 3, if there is one: who has the pipe open keeps the page.

mod elf;
mod programs;
mod runtime;

pub use programs::{PROGRAMS, program};

/// Bytes of a page.
const PAGE: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_is_a_static_elf_of_whole_pages() {
        for name in PROGRAMS {
            let file = program(name).expect(name);
            assert_eq!(file.get(..6), Some(b"\x7fELF\x02\x01".as_slice()), "{name}");
            assert_eq!(file.get(16..20), Some([2, 0, 183, 0].as_slice()), "{name}: EXEC, AArch64");
            assert_eq!(file.len() % 4096, 0, "{name}");
        }
        assert_eq!(program("sh"), None);
    }

    #[test]
    fn the_function_of_code_is_alone_in_the_second_page() {
        let file = program("code").expect("a program");
        assert_eq!(file.len(), 0x2000);
        let words: Vec<u32> = file[0x1000..]
            .chunks_exact(4)
            .map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
            .collect();
        // mov x1, #0; add x1, x1, x0; subs x0, x0, #1; b.ne .-8; mov x0, x1; ret
        assert_eq!(
            words[..6],
            [0xd280_0001, 0x8b00_0021, 0xf100_0400, 0x54ff_ffc1, 0xaa01_03e0, 0xd65f_03c0]
        );
        assert!(words[6..].iter().all(|&word| word == 0), "UDF");
    }
}
