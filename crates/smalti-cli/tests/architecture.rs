//! The way imports go, and what libraries leave to the program.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Crates from the bottom up. A crate may depend on crates of lower rows only.
const ROWS: [&[&str]; 7] = [
    &["smalti-kernels"],
    &["smalti-nn"],
    &["smalti-quantize"],
    &["smalti-models", "smalti-metrics", "smalti-data"],
    &["smalti-train"],
    &["smalti"],
    &["smalti-cli"],
];

/// Crates that anyone can use without the engine.
const WITHOUT_ENGINE: [&str; 3] = ["smalti-kernels", "smalti-data", "smalti-metrics"];

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// Every crate of the workspace with what it depends on, tests and build scripts left out.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let packages = metadata["packages"].as_array().unwrap();
    packages
        .iter()
        .map(|package| {
            let all = package["dependencies"].as_array().unwrap().iter();
            let normal = all.filter(|dependency| dependency["kind"].is_null());
            (
                text(&package["name"]),
                normal.map(|dependency| text(&dependency["name"])).collect(),
            )
        })
        .collect()
}

#[test]
fn no_arrow_runs_back_up() {
    let dependencies = dependencies();
    let row = |name: &str| ROWS.iter().position(|row| row.contains(&name));
    for (name, needed) in &dependencies {
        let own = row(name).unwrap_or_else(|| panic!("{name} has no row: say where it stands"));
        for other in needed.iter().filter(|other| other.starts_with("smalti")) {
            assert!(
                row(other).is_some_and(|row| row < own),
                "{name} must not depend on {other}"
            );
        }
    }
    assert_eq!(
        dependencies.len(),
        ROWS.concat().len(),
        "a crate of the rows is gone"
    );
}

#[test]
fn data_metrics_and_kernels_do_without_the_engine() {
    let dependencies = dependencies();
    for name in WITHOUT_ENGINE {
        let engine: Vec<&String> = dependencies[name]
            .iter()
            .filter(|other| other.starts_with("burn"))
            .collect();
        assert!(engine.is_empty(), "{name} depends on {engine:?}");
        let siblings: Vec<&String> = dependencies[name]
            .iter()
            .filter(|other| other.starts_with("smalti"))
            .collect();
        assert!(siblings.is_empty(), "{name} depends on {siblings:?}");
    }
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in
        std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
    {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
    found
}

/// Lines of code that contain `word`; comments and documentation are left out.
fn lines_with(path: &Path, word: &str) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    let code = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim_start().starts_with("//"));
    let found = code.filter(|(_, line)| line.contains(word));
    found
        .map(|(number, line)| format!("{}:{}: {}", path.display(), number + 1, line.trim()))
        .collect()
}

#[test]
fn generators_do_not_know_autoencoders() {
    let folder = root().join("crates/smalti-models/src/generators");
    let mut files = sources(&folder);
    files.push(folder.with_extension("rs"));
    let files: Vec<PathBuf> = files.into_iter().filter(|path| path.is_file()).collect();
    assert!(
        files.len() > 5,
        "the generators moved: {}",
        folder.display()
    );
    let found: Vec<String> = files
        .iter()
        .flat_map(|path| lines_with(path, "autoencoder"))
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn libraries_neither_print_nor_exit_nor_read_the_environment() {
    let words = [
        "println!",
        "eprintln!",
        "print!(",
        "dbg!",
        "std::env::",
        "env::var",
        "process::exit",
        "rand::rng()",
        "thread_rng",
    ];
    let libraries = ROWS
        .iter()
        .copied()
        .flatten()
        .filter(|name| **name != "smalti-cli");
    let files: Vec<PathBuf> = libraries
        .flat_map(|name| sources(&root().join("crates").join(name).join("src")))
        .collect();
    assert!(files.len() > 50, "the crates moved");
    let found: Vec<String> = files
        .iter()
        .flat_map(|path| words.iter().flat_map(|word| lines_with(path, word)))
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}
