//! The contents of an object file: its functions' frames and references, and every name.

use std::collections::{BTreeMap, BTreeSet};

use gimli::{
    BaseAddresses, CfaRule, CieOrFde, EhFrame, EndianSlice, LittleEndian, UnwindContext, UnwindSection,
};
use object::read::archive::ArchiveFile;
use object::{
    Object as _, ObjectSection as _, ObjectSymbol as _, Relocation, RelocationKind, RelocationTarget,
    SectionIndex, SectionKind, SymbolIndex, SymbolKind,
};

use crate::frames;

/// A function of an object.
#[derive(Clone, Debug)]
pub(crate) struct Function {
    /// Its demangled name.
    pub(crate) name: String,
    /// The key by which other functions refer to it.
    pub(crate) key: Key,
    /// Its stack frame with the return address, in bytes; `None` if it is not told, or not constant.
    pub(crate) frame: Option<u64>,
    /// The functions that it calls, or takes the address of.
    pub(crate) refers_to: BTreeSet<Key>,
}

/// A function, across objects.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    /// By its mangled name.
    Global(String),
    /// By object and symbol.
    Local(String, usize),
}

/// An object file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Code {
    pub(crate) functions: Vec<Function>,
    /// Every name in the symbol table, demangled, that the object defines.
    pub(crate) defined: BTreeSet<String>,
    /// Every undefined name: mangled, demangled.
    pub(crate) open: BTreeMap<String, String>,
}

/// All objects of an archive (`.rlib`).
pub(crate) fn read_archive(data: &[u8]) -> Result<Vec<Code>, String> {
    let archive = ArchiveFile::parse(data).map_err(|error| error.to_string())?;
    let mut codes = Vec::new();
    for member in archive.members() {
        let member = member.map_err(|error| error.to_string())?;
        let name = String::from_utf8_lossy(member.name()).into_owned();
        if member.name().ends_with(b".o") {
            let data = member.data(data).map_err(|error| error.to_string())?;
            codes.push(read_object(&name, data)?);
        }
    }
    if codes.is_empty() { Err("the archive has no object".into()) } else { Ok(codes) }
}

/// One object; `name` tells its local functions from those of others.
pub(crate) fn read_object(name: &str, data: &[u8]) -> Result<Code, String> {
    let file = object::File::parse(data).map_err(|error| format!("{name}: {error}"))?;
    let reader = Reader { name, functions: functions_by_place(&file), file };
    reader.read()
}

/// Section and offset.
type Place = (usize, u64);

struct Reader<'data> {
    name: &'data str,
    file: object::File<'data>,
    functions: BTreeMap<Place, Vec<SymbolIndex>>,
}

/// The compiler merges functions with the same code, so a place may have several names.
fn functions_by_place(file: &object::File<'_>) -> BTreeMap<Place, Vec<SymbolIndex>> {
    let mut functions: BTreeMap<Place, Vec<SymbolIndex>> = BTreeMap::new();
    for symbol in file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.is_definition())
    {
        if let Some(section) = symbol.section_index() {
            functions.entry((section.0, symbol.address())).or_default().push(symbol.index());
        }
    }
    functions
}

impl Reader<'_> {
    fn read(&self) -> Result<Code, String> {
        let mut code = Code::default();
        for symbol in self
            .file
            .symbols()
            .filter(|symbol| !matches!(symbol.kind(), SymbolKind::File | SymbolKind::Section))
        {
            let mangled = symbol.name().map_err(|error| error.to_string())?;
            if mangled.is_empty() {
                continue;
            }
            if symbol.is_undefined() {
                code.open.insert(mangled.into(), demangle(mangled));
            } else {
                code.defined.insert(demangle(mangled));
            }
        }
        let frames = if self.is_aarch64() { self.frames_of_instructions() } else { self.frames()? };
        for (place, symbol) in
            self.functions.iter().flat_map(|(place, names)| names.iter().map(move |n| (place, n)))
        {
            let symbol = self.file.symbol_by_index(*symbol).map_err(|error| error.to_string())?;
            code.functions.push(Function {
                name: demangle(symbol.name().unwrap_or_default()),
                key: self.key(&symbol),
                frame: frames.get(place).copied().flatten(),
                refers_to: self.refers_to(*place, symbol.size()),
            });
        }
        Ok(code)
    }

    fn key(&self, symbol: &object::Symbol<'_, '_>) -> Key {
        if symbol.is_local() {
            Key::Local(self.name.into(), symbol.index().0)
        } else {
            Key::Global(symbol.name().unwrap_or_default().into())
        }
    }

    /// The references of the code at `place`, directly or by pointers in constants, such as tables of
    /// functions.
    fn refers_to(&self, place: Place, size: u64) -> BTreeSet<Key> {
        let mut found = BTreeSet::new();
        let mut constants = Vec::new();
        let mut seen = BTreeSet::new();
        let Ok(section) = self.file.section_by_index(SectionIndex(place.0)) else { return found };
        for (offset, relocation) in section.relocations() {
            if (place.1..place.1 + size).contains(&offset) {
                self.follow(&relocation, true, &mut found, &mut constants);
            }
        }
        if self.is_aarch64() {
            let code = section.data_range(place.1, size).ok().flatten().unwrap_or_default();
            let others = frames::branches(code, place.1).filter(|to| !(place.1..place.1 + size).contains(to));
            found.extend(others.filter_map(|to| self.function_at((place.0, to))));
        }
        while let Some(index) = constants.pop() {
            let Ok(section) = self.file.section_by_index(index) else { continue };
            if seen.insert(index.0) {
                for (_, relocation) in section.relocations() {
                    self.follow(&relocation, false, &mut found, &mut constants);
                }
            }
        }
        found
    }

    fn follow(
        &self,
        relocation: &Relocation,
        from_code: bool,
        found: &mut BTreeSet<Key>,
        constants: &mut Vec<SectionIndex>,
    ) {
        let RelocationTarget::Symbol(index) = relocation.target() else { return };
        let Ok(symbol) = self.file.symbol_by_index(index) else { return };
        let Some(section) = symbol.section_index() else {
            found.insert(self.key(&symbol));
            return;
        };
        let is_text =
            self.file.section_by_index(section).is_ok_and(|section| section.kind() == SectionKind::Text);
        if !is_text {
            constants.push(section);
            return;
        }
        // A relative entry in a constant belongs to a jump table: it leads into the function that uses it.
        if !from_code && relocation.kind() != RelocationKind::Absolute {
            return;
        }
        let offset = if symbol.kind() == SymbolKind::Section {
            // On x86-64 a relative address counts from the end of its field of four bytes.
            let is_from_end = relocation.kind() != RelocationKind::Absolute
                && self.file.architecture() == object::Architecture::X86_64;
            let bias = if is_from_end { 4 } else { 0 };
            relocation.addend().saturating_add(bias)
        } else {
            symbol.address() as i64
        };
        found.extend(u64::try_from(offset).ok().and_then(|offset| self.function_at((section.0, offset))));
    }

    /// The function that begins there.
    fn function_at(&self, place: Place) -> Option<Key> {
        let symbol = self.file.symbol_by_index(*self.functions.get(&place)?.first()?).ok()?;
        Some(self.key(&symbol))
    }

    fn is_aarch64(&self) -> bool {
        self.file.architecture() == object::Architecture::Aarch64
    }

    /// The frame of each function of aarch64, with the return address in it, as the function itself saves it.
    fn frames_of_instructions(&self) -> BTreeMap<Place, Option<u64>> {
        let frame = |place: &Place, symbol: &SymbolIndex| {
            let size = self.file.symbol_by_index(*symbol).ok()?.size();
            let section = self.file.section_by_index(SectionIndex(place.0)).ok()?;
            frames::of_instructions(section.data_range(place.1, size).ok()??)
        };
        let functions = self.functions.iter();
        functions.filter_map(|(place, names)| Some((*place, frame(place, names.first()?)))).collect()
    }

    /// The frame of each function, by the unwind information: the largest distance of the canonical frame
    /// address (CFA) above the stack pointer. It includes the return address.
    fn frames(&self) -> Result<BTreeMap<Place, Option<u64>>, String> {
        let mut frames = BTreeMap::new();
        let Some(section) = self.file.section_by_name(".eh_frame") else { return Ok(frames) };
        let data = section.data().map_err(|error| error.to_string())?;
        let starts: BTreeMap<u64, Relocation> = section.relocations().collect();
        let unwind = EhFrame::from(EndianSlice::new(data, LittleEndian));
        let bases = BaseAddresses::default().set_eh_frame(0);
        let mut context = UnwindContext::new();
        let mut entries = unwind.entries(&bases);
        while let Some(entry) = entries.next().map_err(|error| error.to_string())? {
            let CieOrFde::Fde(partial) = entry else { continue };
            let fde = partial.parse(EhFrame::cie_from_offset).map_err(|error| error.to_string())?;
            // Length and CIE pointer, four bytes each, come before the function's address.
            let start =
                starts.get(&(fde.offset() as u64 + 8)).and_then(|relocation| self.start_of(relocation));
            let mut rows = fde.rows(&unwind, &bases, &mut context).map_err(|error| error.to_string())?;
            let mut frame = Some(0);
            while let Some(row) = rows.next_row().map_err(|error| error.to_string())? {
                frame = match row.cfa() {
                    CfaRule::RegisterAndOffset { register, offset } if *register == gimli::X86_64::RSP => {
                        frame.max(u64::try_from(*offset).ok())
                    }
                    _ => None,
                };
                if frame.is_none() {
                    break;
                }
            }
            if let Some(start) = start {
                frames.insert(start, frame);
            }
        }
        Ok(frames)
    }

    fn start_of(&self, relocation: &Relocation) -> Option<Place> {
        let RelocationTarget::Symbol(index) = relocation.target() else { return None };
        let symbol = self.file.symbol_by_index(index).ok()?;
        let offset = (symbol.address() as i64).checked_add(relocation.addend())?;
        Some((symbol.section_index()?.0, u64::try_from(offset).ok()?))
    }
}

/// The name without the hash at its end.
pub(crate) fn demangle(mangled: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(mangled))
}
