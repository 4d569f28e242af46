//! A check of the sources for floating point.

use std::path::{Path, PathBuf};

/// The Rust files below a folder.
pub(crate) fn rust_files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = folder.read_dir().map_err(|error| format!("{}: {error}", folder.display()))?;
        for entry in entries {
            let path = entry.map_err(|error| error.to_string())?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// The lines (from 1) that name a float type or write a float.
pub(crate) fn float_lines(source: &str) -> Vec<usize> {
    let lines = source.lines().enumerate();
    lines
        .filter(|(_, line)| has_float(line.split("//").next().unwrap_or_default()))
        .map(|(n, _)| n + 1)
        .collect()
}

fn has_float(code: &str) -> bool {
    let mut words = code.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '.');
    words.any(|word| word.split('.').any(is_float_type) || is_float_literal(word))
}

fn is_float_type(word: &str) -> bool {
    ["f16", "f32", "f64", "f128"].iter().any(|float| {
        // `f64`, and the suffix of `1_f64`.
        word == *float
            || word.strip_suffix(float).is_some_and(|number| {
                number.starts_with(|c: char| c.is_ascii_digit()) && !number.starts_with("0x")
            })
    })
}

/// `1.5`, not `self.0.1` and not `0..3`.
fn is_float_literal(word: &str) -> bool {
    let digits = |part: &str| part.starts_with(|c: char| c.is_ascii_digit());
    let mut parts = word.split('.');
    match (parts.next(), parts.next()) {
        (Some(whole), Some(fraction)) => digits(whole) && digits(fraction),
        _ => false,
    }
}
