//! Files that are missing, damaged or of something else, and disks without room.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{Called, call, folder, models, names, picture, program};

/// Copies the files of a folder, and those below it.
fn copy(from: &Path, to: &Path) {
    for name in names(from) {
        let target = to.join(&name);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(from.join(&name), target).unwrap();
    }
}

fn tokens(folder: &Path) {
    picture(&folder.join("cat.png"), 16, 16);
    call(folder, "encode --model {tokenizer} cat.png -o cat.tokens").succeeded();
}

#[test]
fn a_folder_that_is_no_model_is_named() {
    let here = folder();
    picture(&here.path().join("cat.png"), 16, 16);
    std::fs::create_dir(here.path().join("empty")).unwrap();
    std::fs::create_dir(here.path().join("begun")).unwrap();
    std::fs::write(here.path().join("begun/config.toml"), "").unwrap();
    for (name, model) in [
        ("missing", "nowhere"),
        ("empty", "empty"),
        ("unfinished", "begun"),
        ("file", "cat.png"),
        ("generator", "{generator}"),
    ] {
        let called = call(
            here.path(),
            &format!("encode --model {model} cat.png -o cat.tokens"),
        );
        insta::assert_snapshot!(format!("model_{name}"), called.seen(here.path()));
    }
    let called = call(here.path(), "generate --model {tokenizer} -o grid.png");
    insta::assert_snapshot!("model_tokenizer_for_generate", called.seen(here.path()));
    assert_eq!(names(here.path()), ["begun/config.toml", "cat.png"]);
}

#[test]
fn one_flipped_bit_of_the_weights_is_noticed() {
    let here = folder();
    tokens(here.path());
    let model = here.path().join("model");
    copy(&models().tokenizer.join("model"), &model);
    let path = model.join("model.safetensors");
    let whole = std::fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() - 100] ^= 1;
    for (name, bytes) in [
        ("flipped", &flipped[..]),
        ("truncated", &whole[..whole.len() / 2]),
        ("zero", &[]),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let called = call(here.path(), "decode --model model cat.tokens -o cat2.png");
        insta::assert_snapshot!(format!("weights_{name}"), called.seen(here.path()));
    }
    std::fs::remove_file(&path).unwrap();
    let called = call(here.path(), "decode --model model cat.tokens -o cat2.png");
    insta::assert_snapshot!("weights_missing", called.seen(here.path()));
    std::fs::write(&path, &whole).unwrap();
    call(here.path(), "decode --model model cat.tokens -o cat2.png").succeeded();
    std::fs::write(model.join("image_tokenizer.json"), "{\"fingerprint\": ").unwrap();
    let called = call(here.path(), "decode --model model cat.tokens -o cat3.png");
    insta::assert_snapshot!("description_truncated", called.seen(here.path()));
}

#[test]
fn a_generator_with_another_tokenizer_in_it_is_refused() {
    let here = folder();
    let model = here.path().join("model");
    copy(&models().generator.join("model"), &model);
    copy(&models().other.join("model"), &model.join("tokenizer"));
    let called = call(
        here.path(),
        "generate --model model --class Flags -o grid.png",
    );
    insta::assert_snapshot!("generator_other_tokenizer", called.seen(here.path()));
}

#[test]
fn tokens_of_another_tokenizer_are_refused() {
    let here = folder();
    tokens(here.path());
    let called = call(here.path(), "decode --model {other} cat.tokens -o out.png");
    insta::assert_snapshot!("tokens_of_another", called.seen(here.path()));
    assert!(!here.path().join("out.png").exists());
}

#[test]
fn damaged_token_files_are_named_and_an_old_picture_stays() {
    let here = folder();
    tokens(here.path());
    std::fs::write(here.path().join("out.png"), "what was there").unwrap();
    let whole = std::fs::read(here.path().join("cat.tokens")).unwrap();
    let mut changed = whole.clone();
    *changed.last_mut().unwrap() = 0x7f;
    let longer = [&whole[..], &[0; 4]].concat();
    let picture = std::fs::read(here.path().join("cat.png")).unwrap();
    let cases: [(&str, &[u8]); 6] = [
        ("truncated", &whole[..whole.len() - 10]),
        ("header", &whole[..20]),
        ("zero", &[]),
        ("out_of_range", &changed),
        ("longer", &longer),
        ("picture", &picture),
    ];
    for (name, bytes) in cases {
        std::fs::write(here.path().join("bad.tokens"), bytes).unwrap();
        let called = call(
            here.path(),
            "decode --model {tokenizer} bad.tokens -o out.png",
        );
        insta::assert_snapshot!(format!("tokens_{name}"), called.seen(here.path()));
    }
    let called = call(
        here.path(),
        "decode --model {tokenizer} nothing.tokens -o out.png",
    );
    insta::assert_snapshot!("tokens_missing", called.seen(here.path()));
    assert_eq!(
        std::fs::read(here.path().join("out.png")).unwrap(),
        b"what was there"
    );
}

/// A file that cannot grow stands for a full disk: it needs no rights, and fails in the middle of a write.
#[cfg(unix)]
#[test]
fn a_disk_without_room_is_an_error_that_keeps_what_was_there() {
    let here = folder();
    tokens(here.path());
    picture(&here.path().join("large.png"), 700, 700);
    let before = std::fs::read(here.path().join("cat.tokens")).unwrap();
    let line = format!(
        "trap '' XFSZ; ulimit -f 8; exec \"$0\" encode --model '{}' large.png -o cat.tokens",
        models().tokenizer.display()
    );
    let output = Command::new("sh")
        .args(["-c", &line, env!("CARGO_BIN_EXE_smalti")])
        .current_dir(here.path())
        .output();
    let called = Called::from(output.expect("there is a shell"));
    insta::assert_snapshot!("no_room", called.seen(here.path()));
    assert_eq!(
        std::fs::read(here.path().join("cat.tokens")).unwrap(),
        before
    );
    assert_eq!(names(here.path()), ["cat.png", "cat.tokens", "large.png"]);
}

/// The same in a training: the run goes on when there is room again.
#[cfg(unix)]
#[test]
fn a_training_without_room_goes_on_when_there_is_room() {
    let here = folder();
    let config = here.path().join("config.toml");
    std::fs::write(&config, crate::support::TOKENIZER).unwrap();
    let line = "trap '' XFSZ; ulimit -f 8; exec \"$0\" train config.toml --out run -q --set training.steps=8";
    let output = Command::new("sh")
        .args(["-c", line, env!("CARGO_BIN_EXE_smalti")])
        .current_dir(here.path())
        .output();
    let called = Called::from(output.expect("there is a shell"));
    insta::assert_snapshot!("no_room_training", called.seen(here.path()));
    assert_eq!(names(&here.path().join("run/checkpoints")), [""; 0]);
    call(here.path(), "train --resume run -q").succeeded();
    assert!(here.path().join("run/model/model.safetensors").is_file());
}

#[cfg(target_os = "linux")]
#[test]
fn data_that_cannot_be_printed_is_a_failure() {
    let here = folder();
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let mut command = program(here.path());
    let output = command
        .args(["inspect"])
        .arg(&models().tokenizer)
        .stdout(full)
        .stderr(Stdio::piped())
        .output();
    let called = Called::from(output.unwrap());
    insta::assert_snapshot!("stdout_full", called.seen(here.path()));
}

#[cfg(unix)]
#[test]
fn a_reader_that_stops_early_is_no_failure() {
    let here = folder();
    let line = "\"$0\" completions bash | head -n 1 >/dev/null; true";
    let output = Command::new("sh")
        .args(["-c", line, env!("CARGO_BIN_EXE_smalti")])
        .current_dir(here.path())
        .output();
    assert_eq!(Called::from(output.unwrap()).stderr, "");
}
