//! The symbols to which an object inside a kernel may refer.

/// The reason why a symbol has no place in a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Offence {
    /// A path to a panic, or to unwinding.
    Panic,
    /// Heap memory.
    Allocator,
    /// Arithmetic on floats by the compiler's runtime, or their formatting.
    FloatingPoint,
    /// A symbol that neither these objects define nor every kernel has.
    Unknown,
}

impl Offence {
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Panic => "a path to a panic",
            Self::Allocator => "an allocator",
            Self::FloatingPoint => "floating point",
            Self::Unknown => "a symbol that no kernel has to have",
        }
    }
}

/// Parts of names that lead to a panic. `core`'s panics for indices, slices and `unwrap` all go through one
/// of them.
const PANICS: [&str; 14] = [
    "panicking",
    "panic_",
    "rust_panic",
    "rust_begin_unwind",
    "rust_eh_personality",
    "_Unwind_",
    "unwrap_failed",
    "expect_failed",
    "assert_failed",
    "_index_fail",
    "_len_fail",
    "_order_fail",
    "len_mismatch_fail",
    "slice_error_fail",
];

const ALLOCATORS: [&str; 8] = [
    "__rust_alloc",
    "__rust_dealloc",
    "__rust_realloc",
    "__rdl_",
    "__rg_",
    "alloc::",
    "malloc",
    "handle_alloc_error",
];

/// The suffixes of the compiler runtime's helpers, which name types: `__addsf3`, `__floatundidf`,
/// `__extendhfsf2`.
const FLOATS: [&str; 10] = ["sf2", "df2", "tf2", "hf2", "sf3", "df3", "tf3", "__float", "__fix", "f64>::"];

/// The names that the objects may leave undefined: memory functions that rustc expects of every target, and
/// the formatting machinery of `core`, which `Display` needs and no entry point calls.
const MEMORY: [&str; 5] = ["memcpy", "memmove", "memset", "memcmp", "bcmp"];

/// The functions of Linux's side of the kernel half: `kernel/linux/seawall.c`.
const ACCESSORS: [&str; 3] = ["seawall_load", "seawall_store", "seawall_walk_level"];

/// The offence of a name, defined in the objects or not.
pub(crate) fn offence(name: &str) -> Option<Offence> {
    let has = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    let runtime_float = name.starts_with("__") && has(&FLOATS);
    if has(&PANICS) {
        Some(Offence::Panic)
    } else if has(&ALLOCATORS) {
        Some(Offence::Allocator)
    } else if runtime_float || name.contains("<f32 as") || name.contains("<f64 as") {
        Some(Offence::FloatingPoint)
    } else {
        None
    }
}

/// The offence of a name that no object defines.
pub(crate) fn external_offence(name: &str) -> Option<Offence> {
    if let Some(offence) = offence(name) {
        return Some(offence);
    }
    let allowed = MEMORY.contains(&name) || ACCESSORS.contains(&name) || is_formatting(name);
    if allowed { None } else { Some(Offence::Unknown) }
}

/// `core::fmt`: its functions, and its implementations for the primitive types.
pub(crate) fn is_formatting(name: &str) -> bool {
    name.starts_with("core::fmt::") || name.starts_with("<core::fmt::") || name.contains(" as core::fmt::")
}
