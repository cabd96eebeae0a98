//! `smalti import`

use std::path::Path;

use crate::support::{Called, folder, picture, smalti};

/// A file of `goldens/`.
fn golden(path: &str) -> String {
    format!("{}/../../goldens/{path}", env!("CARGO_MANIFEST_DIR"))
}

/// Calls the program with arguments in one string.
fn call(folder: &Path, line: &str) -> Called {
    smalti(folder, line.split(' '))
}

#[test]
fn a_published_tokenizer_becomes_a_model_that_works() {
    let here = folder();
    let weights = golden("llamagen_vq/model.pt");
    let called = call(
        here.path(),
        &format!("import --layout llamagen {weights} -o model"),
    )
    .succeeded();
    assert_eq!(called.text(), "");
    assert!(called.stderr.contains("licence of the weights: MIT"));
    picture(&here.path().join("cat.png"), 19, 9);
    call(here.path(), "encode --model model cat.png -o cat.tokens").succeeded();
    call(here.path(), "decode --model model cat.tokens -o again.png").succeeded();
    assert!(here.path().join("again.png").is_file());
    let called = call(here.path(), "inspect model").succeeded();
    assert!(called.text().contains("[128]") && called.text().contains("MIT"));
}

#[test]
fn branches_are_depths_of_the_codes() {
    let here = folder();
    let weights = golden("fqgan_triple/model.pt");
    let words = format!("import --layout fqgan {weights} -o model --license mine");
    call(here.path(), &words).succeeded();
    let called = call(here.path(), "inspect model").succeeded();
    assert!(called.text().contains("[80, 80, 80]") && called.text().contains("mine"));
}

#[test]
fn wrong_files_say_what_they_lack() {
    let here = folder();
    let llamagen = golden("llamagen_vq/model.pt");
    for (words, code, part) in [
        (format!("--layout fqgan {llamagen}"), 1, "quantize_sem"),
        (format!("--layout rq-vae {llamagen}"), 1, "config.yaml"),
        ("--layout llamagen nowhere.pt".to_owned(), 1, "nowhere.pt"),
        (
            format!("--layout llamagen {llamagen} --config a.yaml"),
            2,
            "--config",
        ),
        (format!("--layout vqgan {llamagen}"), 2, "llamagen"),
    ] {
        let called = call(here.path(), &format!("import {words} -o model"));
        assert_eq!(called.code, Some(code), "{words}: {}", called.stderr);
        assert!(called.stderr.contains(part), "{words}: {}", called.stderr);
        assert!(!here.path().join("model").exists());
    }
}
