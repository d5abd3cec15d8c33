//! How the source is laid out: imports point one way, files are short, and cited tests exist.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::claims;

/// The most lines of a source file without its unit tests.
const LINES_MAX: usize = 300;

/// Where a module stands: decisions without I/O, then edges, then the pipeline between them, then what runs it.
const LAYERS: [&[&str]; 4] = [
    &[
        "address",
        "chance",
        "clock",
        "conditions",
        "config",
        "delivery",
        "detail",
        "event",
        "metrics",
        "offsets",
        "operational",
        "payload",
        "position",
        "printable",
        "report",
        "retry_after",
        "schedule",
        "secret",
        "signature",
        "topics",
        "traceparent",
        "webhook",
    ],
    &["dev", "http", "kafka", "record", "redelivery", "replay", "store", "traces"],
    &["pipeline", "trial"],
    &["admin", "cli", "worker"],
];

struct Source {
    path: PathBuf,
    /// The modules from the crate's root to this file.
    module: Vec<String>,
    /// The text without comments and unit tests.
    code: String,
    lines: usize,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut directories = vec![root.clone()];
    let mut sources = Vec::new();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("src can be read") {
            let path = entry.expect("src can be read").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push(source(&root, path));
            }
        }
    }
    sources
}

fn source(root: &Path, path: PathBuf) -> Source {
    let text = fs::read_to_string(&path).expect("a source file can be read");
    let before_tests = text.lines().take_while(|line| !line.ends_with("mod tests {"));
    let lines: Vec<&str> = before_tests.filter(|line| *line != "#[cfg(test)]").collect();
    let code = lines.iter().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let relative = path.strip_prefix(root).expect("it is below src").with_extension("");
    let module = relative.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    Source { module, code, lines: lines.len(), path }
}

/// The paths that a file names from the crate's root.
fn imports(code: &str) -> impl Iterator<Item = Vec<String>> + '_ {
    code.match_indices("crate::").map(|(at, root)| {
        let path = code[at + root.len()..].split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).next();
        path.unwrap_or_default().split("::").map(str::to_owned).collect()
    })
}

/// Whether `from` reaches `to` over the edges.
fn reaches<'a>(edges: &BTreeMap<&'a str, BTreeSet<&'a str>>, from: &'a str, to: &str) -> bool {
    let mut open = vec![from];
    let mut seen = BTreeSet::new();
    while let Some(at) = open.pop() {
        for next in edges.get(at).into_iter().flatten() {
            if *next == to {
                return true;
            }
            if seen.insert(*next) {
                open.push(next);
            }
        }
    }
    false
}

#[test]
fn no_module_imports_one_above_it() {
    let layer = |module: &str| LAYERS.iter().position(|layer| layer.contains(&module));
    for source in sources() {
        let module = source.module[0].as_str();
        if module == "lib" || module == "main" {
            continue;
        }
        let own = layer(module).unwrap_or_else(|| panic!("{module} has no layer"));
        for import in imports(&source.code) {
            let Some(imported) = layer(&import[0]) else { continue };
            assert!(imported <= own, "{}: imports {}", source.path.display(), import.join("::"));
        }
    }
}

#[test]
fn no_modules_import_each_other_in_a_circle() {
    let sources = sources();
    let imported: Vec<(&str, Vec<Vec<String>>)> =
        sources.iter().map(|source| (source.module[0].as_str(), imports(&source.code).collect())).collect();
    let modules: BTreeSet<&str> = imported.iter().map(|(module, _)| *module).collect();
    let mut edges: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (module, paths) in &imported {
        for path in paths {
            if let Some(to) = modules.get(path[0].as_str()).filter(|to| *to != module) {
                edges.entry(module).or_default().insert(to);
            }
        }
    }
    for module in modules {
        assert!(!reaches(&edges, module, module), "{module} is part of a circle: {edges:?}");
    }
}

/// What prints, or shows something on a terminal, and the only files that may name it.
const PRINTING: [(&str, &[&str]); 8] = [
    ("print!(", &[]),
    ("println!(", &[]),
    ("dbg!(", &[]),
    ("stdout()", &["cli/output.rs"]),
    ("stderr()", &["cli/output.rs"]),
    ("io::stderr", &["cli/output.rs", "cli/logging.rs"]),
    ("ProgressBar", &["cli/output.rs"]),
    ("tracing_subscriber", &["cli/logging.rs"]),
];

#[test]
fn text_is_printed_only_where_it_is_escaped() {
    for source in sources() {
        for (printing, allowed) in PRINTING {
            let is_allowed = allowed.iter().any(|file| source.path.ends_with(file));
            assert!(is_allowed || !source.code.contains(printing), "{}: {printing}", source.path.display());
        }
    }
}

#[test]
fn no_source_file_is_long() {
    let long: Vec<String> = sources()
        .iter()
        .filter(|source| source.lines > LINES_MAX)
        .map(|source| format!("{}: {} lines", source.path.display(), source.lines))
        .collect();
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn every_test_that_the_documents_cite_exists() {
    let missing = claims::missing();
    assert!(missing.is_empty(), "{missing:#?}");
}
