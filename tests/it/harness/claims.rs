//! The tests that documents cite, such as `a_drain_repeats_no…`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The citations, as `document: name`, that no function begins with.
pub fn missing() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let functions: BTreeSet<String> =
        ["src", "tests"].iter().flat_map(|at| files(&root.join(at), "rs")).flat_map(|path| names(&path)).collect();
    let mut missing = Vec::new();
    for path in files(&root.join("docs"), "md") {
        let text = fs::read_to_string(&path).expect("a document can be read");
        for cited in text.split('`').skip(1).step_by(2).filter_map(|code| code.strip_suffix('…')) {
            // A name is cut between words, so `whsec_…` is none.
            let is_name = cited.contains('_')
                && !cited.ends_with('_')
                && cited.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if is_name && !functions.iter().any(|name| name.starts_with(cited)) {
                missing.push(format!("{}: {cited}", path.display()));
            }
        }
    }
    missing
}

fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("the directory can be read") {
        let path = entry.expect("the directory can be read").path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|own| own == extension) {
            found.push(path);
        }
    }
    found
}

fn names(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).expect("a source file can be read");
    let name = |line: &str| {
        let after = line.trim_start().trim_start_matches("async ").strip_prefix("fn ")?;
        Some(after.split('(').next()?.to_owned())
    };
    text.lines().filter_map(name).collect()
}
