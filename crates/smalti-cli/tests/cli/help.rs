//! Help, version, completions, and how wrong use ends.

use crate::support::{folder, smalti};

/// Every command but the one that prints completions, in the order of the help.
const COMMANDS: [&str; 12] = [
    "demo",
    "train",
    "compare",
    "encode",
    "decode",
    "evaluate",
    "generate",
    "distance",
    "divergence",
    "convert",
    "import",
    "inspect",
];

#[test]
fn help_of_every_command() {
    let here = folder();
    for command in ["", "completions"].into_iter().chain(COMMANDS) {
        let words = [command, "--help"]
            .into_iter()
            .filter(|word| !word.is_empty());
        let called = smalti(here.path(), words).succeeded();
        assert_eq!(called.stderr, "");
        let name = format!(
            "help_{}",
            if command.is_empty() {
                "smalti"
            } else {
                command
            }
        );
        insta::assert_snapshot!(name, called.text());
    }
}

#[test]
fn the_version_is_the_packages() {
    let called = smalti(folder().path(), ["--version"]).succeeded();
    assert_eq!(
        called.text(),
        format!("smalti {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn completions_name_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let called = smalti(folder().path(), ["completions", shell]).succeeded();
        for command in COMMANDS {
            assert!(
                called.text().contains(command),
                "{shell} does not complete {command}"
            );
        }
    }
}

#[test]
fn wrong_use_ends_with_two_and_leaves_stdout_empty() {
    let here = folder();
    let wrong: [&[&str]; 8] = [
        &[],
        &["paint"],
        &["encode", "a.png"],
        &["train"],
        &["train", "--resume", "x", "--out", "y"],
        &["generate", "--model", "x", "-o", "y.png", "--count", "0"],
        &[
            "generate",
            "--model",
            "x",
            "-o",
            "y.png",
            "--keep-rows",
            "1",
        ],
        &["inspect", "x", "--device", "tpu"],
    ];
    for words in wrong {
        let called = smalti(here.path(), words);
        assert_eq!((called.code, called.text()), (Some(2), ""), "{words:?}");
        assert!(
            called.stderr.contains("Usage:") || called.stderr.contains("--help"),
            "{words:?}: {}",
            called.stderr
        );
    }
    let called = smalti(here.path(), ["inspect", "x", "--device", "tpu"]);
    insta::assert_snapshot!("wrong_device", called.seen(here.path()));
}
