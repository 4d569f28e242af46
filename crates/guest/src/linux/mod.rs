//! Programs for Linux, assembled on the host: the processes of a workload that reports its losses to bad
//! memory.
//!
//! Each is a static ELF that needs nothing but a kernel, with pages of 4, 16 or 64 KiB, and, at the start, a
//! readable `/proc`. The kernel gives the page size (`AT_PAGESZ`). The arguments are the number of rounds
//! and, optionally, any word: then the program handles SIGBUS. A round does the program's work, checks the
//! result, and sleeps 10 ms.
//!
//! | program | its memory in each round |
//! |---|---|
//! | `code` | a function alone in a page of the program's file, which it mapped itself |
//! | `anonymous` | every word of 16 pages of anonymous memory: loads, checks, and stores a new value |
//! | `shared-a`, `shared-b` | its own counter and the other's, in a page of `/run/shared` |
//! | `witness` | none of these |
//! | `device` | the RTC's registers, by `/dev/mem`, with accesses that no syndrome describes |
//!
//! # Console
//!
//! Lines on standard output, each one `write` (`N` decimal, `X` lower-case hexadecimal):
//!
//! | line | when |
//! |---|---|
//! | `seawall: page NAME 0xX` | at the start: the physical address of a line that each round loads from or executes, at the base of a page without other uses; `shared-a` names it for both, as `shared` |
//! | `NAME: alive N` | every tenth round |
//! | `device: KIND 0xX…` | at the start: the result of an access of that kind; an address is printed as its distance |
//! | `NAME: wrong result` | a computed or read value is wrong |
//! | `NAME: SIGBUS si_code=N si_addr=0xX` | with a handler |
//! | `NAME: cannot start` | Linux refused a call |
//!
//! Exit codes: 0 all rounds done, 1 a wrong result, 2 it could not start, 3 SIGBUS was handled.
//!
//! A bad page that its owner's death frees is reused as long as nothing tells the kernel that it is bad. The
//! pages of `code` and `shared` belong to files, and stay. `anonymous` puts its own page into the pipe at
//! descriptor 3, if there is one: whoever has the pipe open keeps the page.

mod elf;
mod programs;
mod runtime;

pub use programs::{PROGRAMS, program};

/// The largest page of a kernel for AArch64, in bytes.
const MAX_PAGE: u64 = 0x1_0000;
/// Size in bytes of a program's headers and text, and of the function of `code`.
const TEXT: u64 = 0x1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_is_a_static_elf_that_loads_with_pages_of_up_to_64_kib() {
        for name in PROGRAMS {
            let file = program(name).expect(name);
            assert_eq!(file.get(..6), Some(b"\x7fELF\x02\x01".as_slice()), "{name}");
            assert_eq!(file.get(16..20), Some([2, 0, 183, 0].as_slice()), "{name}: EXEC, AArch64");
            // The one segment: from offset 0 to 0x400000, 4 KiB, aligned to 64 KiB.
            let segment: Vec<u64> = file[72..120]
                .chunks_exact(8)
                .map(|word| u64::from_le_bytes(word.try_into().expect("8 bytes")))
                .collect();
            assert_eq!(segment, [0, 0x40_0000, 0x40_0000, 0x1000, 0x1000, 0x1_0000], "{name}");
            assert_eq!(file.len(), if name == "code" { 0x1_1000 } else { 0x1000 }, "{name}");
        }
        assert_eq!(program("sh"), None);
    }

    #[test]
    fn the_function_of_code_is_alone_in_a_page_of_any_size() {
        let file = program("code").expect("a program");
        assert!(file[0x1000..0x1_0000].iter().all(|&byte| byte == 0));
        let words: Vec<u32> = file[0x1_0000..]
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
