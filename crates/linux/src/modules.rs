//! Selection of kernel modules: the wanted ones, their dependencies, and the loading order.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lzma_rust2::XzReader;
use object::{Object as _, ObjectSection as _};

use crate::error::{Error, Result};
use crate::files;

/// Ciphers that use the CPU's vector and cryptographic instructions, and modes built on them; the kernel
/// tests each as it loads. A kernel that has one built in, or lacks it, has no such module.
pub(crate) const CIPHERS: [&str; 16] = [
    "aes-ce-blk",
    "aes-ce-ccm",
    "aes-neon-blk",
    "aes-neon-bs",
    "ghash-ce",
    "sha1-ce",
    "sha2-ce",
    "sha3-ce",
    "sha512-ce",
    "ctr",
    "gcm",
    "ccm",
    "cmac",
    "xcbc",
    "adiantum",
    "chacha20poly1305",
];

/// A virtio disk and a file system on it.
pub(crate) const STORAGE: [&str; 3] = ["virtio-mmio", "virtio-blk", "ext4"];

/// The reason why a module cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("module {}: {reason}", path.display())]
pub struct ModuleError {
    path: PathBuf,
    reason: String,
}

/// A module, unpacked.
pub(crate) type Module = (String, Vec<u8>);

/// The wanted modules below a folder, after those that they need: names with their extension, and contents.
pub(crate) fn select(folder: &Path, wanted: &[&str]) -> Result<Vec<Module>> {
    let paths: BTreeMap<String, PathBuf> =
        files::tree(folder)?.into_iter().filter_map(|path| Some((name(&path)?, path))).collect();
    let mut chosen = Vec::new();
    for wanted in wanted {
        choose(wanted, &paths, &mut chosen)?;
    }
    Ok(chosen)
}

fn choose(name: &str, paths: &BTreeMap<String, PathBuf>, chosen: &mut Vec<Module>) -> Result<()> {
    let name = name.replace('-', "_");
    let file = format!("{name}.ko");
    let Some(path) = paths.get(&name).filter(|_| chosen.iter().all(|(known, _)| *known != file)) else {
        return Ok(());
    };
    let content = unpack(path, files::read(path)?).map_err(|reason| failed(path, reason))?;
    // A module does not depend on itself, even indirectly: it would never load.
    let mut rest = paths.clone();
    rest.remove(&name);
    for needed in needs(&content).map_err(|reason| failed(path, reason))? {
        choose(&needed, &rest, chosen)?;
    }
    chosen.push((file, content));
    Ok(())
}

fn failed(path: &Path, reason: String) -> Error {
    ModuleError { path: path.to_owned(), reason }.into()
}

/// The kernel's name for a module's file, in which `-` and `_` are the same. `None` for other files.
fn name(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let (name, _) = file.split_once(".ko").filter(|(_, packed)| ["", ".xz"].contains(packed))?;
    Some(name.replace('-', "_"))
}

fn unpack(path: &Path, content: Vec<u8>) -> std::result::Result<Vec<u8>, String> {
    if path.extension().is_none_or(|extension| extension != "xz") {
        return Ok(content);
    }
    let reader = XzReader::new(content.as_slice(), true);
    seawall_files::read_within(reader, files::LARGEST).map_err(|error| error.to_string())
}

/// The dependencies of a module, from the line `depends=` of its section `.modinfo`: NUL-terminated
/// `KEY=VALUE`.
fn needs(module: &[u8]) -> std::result::Result<Vec<String>, String> {
    let file = object::File::parse(module).map_err(|error| error.to_string())?;
    let section = file.section_by_name(".modinfo").ok_or("expected a section .modinfo")?;
    let data = section.data().map_err(|error| error.to_string())?;
    let lines = data.split(|&byte| byte == 0).filter_map(|line| std::str::from_utf8(line).ok());
    let names = lines.filter_map(|line| line.strip_prefix("depends=")).flat_map(|names| names.split(','));
    Ok(names.filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_known_by_its_files_name_with_underscores() {
        for (path, expected) in [
            ("kernel/arch/arm64/crypto/aes-ce-blk.ko.xz", Some("aes_ce_blk")),
            ("kernel/crypto/ctr.ko", Some("ctr")),
            ("kernel/crypto/ctr.ko.zst", None),
            ("modules.dep", None),
        ] {
            assert_eq!(name(Path::new(path)).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn a_file_that_is_no_module_is_an_error_and_a_folder_without_modules_is_empty() {
        let folder = std::env::temp_dir().join(format!("seawall-modules-{}", std::process::id()));
        assert!(select(&folder, &CIPHERS).is_ok_and(|modules| modules.is_empty()));
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join("ctr.ko"), "no ELF").expect("a file");
        let error = select(&folder, &CIPHERS).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.starts_with(&format!("module {}: ", folder.join("ctr.ko").display())), "{error}");
        std::fs::write(folder.join("ctr.ko.xz"), "no xz").expect("a file");
        std::fs::remove_file(folder.join("ctr.ko")).expect("it is there");
        assert!(select(&folder, &CIPHERS).is_err());
        let _ = std::fs::remove_dir_all(&folder);
    }
}
