//! What the scripts around the program may do on the machine of a developer.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The folders of what was built or fetched.
const BUILT: [&str; 2] = ["node_modules", "target"];

/// The lines of the Makefile and of everything under `tests`, `benches` and `src`, without comments, with their files.
fn lines() -> Vec<(PathBuf, String)> {
    let mut open = vec![root().join("Makefile"), root().join("tests"), root().join("benches"), root().join("src")];
    let mut lines = Vec::new();
    while let Some(path) = open.pop() {
        if BUILT.iter().any(|folder| path.ends_with(folder)) {
            continue;
        }
        if path.is_dir() {
            open.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if !path.ends_with(file!())
            && let Ok(text) = fs::read_to_string(&path)
        {
            let is_comment = |line: &&str| line.trim_start().starts_with(['#', '/']);
            lines.extend(text.lines().filter(|line| !is_comment(line)).map(|line| (path.clone(), line.to_owned())));
        }
    }
    lines
}

#[test]
fn npm_runs_no_scripts_of_packages_when_it_installs_them() {
    let installs = ["npm install ", "npm ci ", "npm i "];
    let (mut found, mut bad) = (0, Vec::new());
    for (path, line) in lines().iter().filter(|(_, line)| installs.iter().any(|install| line.contains(install))) {
        found += 1;
        if !line.contains("--ignore-scripts") {
            bad.push(format!("{}: {line}", path.display()));
        }
    }
    assert!(found > 0 && bad.is_empty(), "{bad:#?}");
}

#[test]
fn no_script_uses_a_predictable_name_in_the_folder_for_temporary_files() {
    let mut bad = lines();
    bad.retain(|(_, line)| (line.contains("/tmp") || line.contains("temp_dir()")) && !line.contains("mktemp"));
    assert!(bad.is_empty(), "{bad:#?}");
}

/// Runs `install-missing` as an ordinary user of a machine on which nothing is installed. Returns whether sudo ran, too.
fn install_missing(purpose: &str, variables: &[(&str, &str)]) -> (Output, bool) {
    let folder = tempfile::tempdir().unwrap();
    for program in ["bash", "sed", "env", "cat"] {
        let installed =
            ["/usr/bin", "/bin"].map(|at| Path::new(at).join(program)).into_iter().find(|path| path.exists());
        symlink(installed.unwrap(), folder.path().join(program)).unwrap();
    }
    let called = folder.path().join("called");
    for (program, script) in [
        ("id", "echo 1000".to_owned()),
        ("apt-get", String::new()),
        ("sudo", format!("echo \"$*\" >> {}", called.display())),
    ] {
        let path = folder.path().join(program);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let output = Command::new(folder.path().join("bash"))
        .arg(root().join("tests/services/install-missing"))
        .arg(purpose)
        .env_clear()
        .env("PATH", folder.path())
        .env("HOME", folder.path())
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (output, called.exists())
}

#[test]
fn packages_are_installed_with_sudo_only_after_a_yes() {
    let (output, is_called) = install_missing("demo", &[]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("please run: sudo apt-get install") && text.contains("redis-server"), "{text}");
    assert!(!is_called);
    let (output, is_called) = install_missing("demo", &[("ASSUME_YES", "1")]);
    assert!(is_called, "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_documents_name_every_package_that_the_build_needs() {
    let (output, _) = install_missing("build", &[]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let packages: Vec<&str> = text.trim().rsplit("--no-install-recommends ").next().unwrap().split(' ').collect();
    assert!(packages.contains(&"libssl-dev"), "{text}");
    for document in ["README.md", "docs/deploying.md"] {
        let document = fs::read_to_string(root().join(document)).unwrap();
        let unnamed: Vec<&&str> = packages.iter().filter(|package| !document.contains(**package)).collect();
        assert!(unnamed.is_empty(), "{unnamed:?}");
    }
}
