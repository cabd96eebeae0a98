//! Images to tokens and back: names, sizes, folders.

use std::path::Path;

use crate::support::{call, folder, names, picture, size};

#[test]
fn an_image_becomes_tokens_and_an_image_of_its_own_size() {
    let here = folder();
    for (width, height) in [(1, 1), (1, 9), (33, 18), (64, 32)] {
        picture(&here.path().join("in.png"), width, height);
        let called = call(
            here.path(),
            "encode --model {tokenizer} in.png -o in.tokens",
        )
        .succeeded();
        assert_eq!(called.text(), "");
        call(
            here.path(),
            "decode --model {tokenizer} in.tokens -o out.png",
        )
        .succeeded();
        assert_eq!(size(&here.path().join("out.png")), (width, height));
    }
    assert_eq!(names(here.path()), ["in.png", "in.tokens", "out.png"]);
}

#[test]
fn equal_images_give_equal_bytes() {
    let here = folder();
    picture(&here.path().join("in.png"), 20, 30);
    for name in ["a", "b"] {
        call(
            here.path(),
            &format!("encode -q --model {{tokenizer}} in.png -o {name}.tokens"),
        )
        .succeeded();
        call(
            here.path(),
            &format!("decode -q --model {{tokenizer}} {name}.tokens -o {name}.png"),
        )
        .succeeded();
    }
    let read = |name: &str| std::fs::read(here.path().join(name)).unwrap();
    assert_eq!(read("a.tokens"), read("b.tokens"));
    assert_eq!(read("a.png"), read("b.png"));
}

#[test]
fn a_folder_is_mirrored_there_and_back() {
    let here = folder();
    for name in [
        "photos/a.png",
        "photos/a.jpg",
        "photos/deep/er/b.webp",
        "photos/deep/c.PNG",
    ] {
        picture(&here.path().join(name), 12, 8);
    }
    std::fs::write(here.path().join("photos/notes.txt"), "no image").unwrap();
    let called = call(here.path(), "encode --model {tokenizer} photos -o tokens").succeeded();
    insta::assert_snapshot!("encode_folder", called.seen(here.path()));
    let tokens = [
        "a.jpg.tokens",
        "a.png.tokens",
        "deep/c.PNG.tokens",
        "deep/er/b.webp.tokens",
    ];
    assert_eq!(names(&here.path().join("tokens")), tokens);
    let called = call(here.path(), "decode --model {tokenizer} tokens -o pictures").succeeded();
    insta::assert_snapshot!("decode_folder", called.seen(here.path()));
    let pictures = [
        "a.jpg.png",
        "a.png.png",
        "deep/c.PNG.png",
        "deep/er/b.webp.png",
    ];
    assert_eq!(names(&here.path().join("pictures")), pictures);
}

#[test]
fn an_existing_folder_takes_the_result_under_the_inputs_name() {
    let here = folder();
    picture(&here.path().join("cat.png"), 9, 9);
    std::fs::create_dir(here.path().join("out")).unwrap();
    std::fs::write(here.path().join("out/keep.txt"), "mine").unwrap();
    call(here.path(), "encode --model {tokenizer} cat.png -o out").succeeded();
    call(
        here.path(),
        "decode --model {tokenizer} out/cat.png.tokens -o out",
    )
    .succeeded();
    assert_eq!(
        names(&here.path().join("out")),
        ["cat.png.png", "cat.png.tokens", "keep.txt"]
    );
}

#[test]
fn what_would_be_written_over_each_other_is_refused() {
    let here = folder();
    picture(&here.path().join("a/cat.png"), 9, 9);
    picture(&here.path().join("b/cat.png"), 9, 9);
    let called = call(here.path(), "encode --model {tokenizer} a b -o out");
    insta::assert_snapshot!("encode_clash", called.seen(here.path()));
    assert!(!here.path().join("out").exists());
}

#[test]
fn a_folder_without_images_is_said_so() {
    let here = folder();
    std::fs::create_dir(here.path().join("empty")).unwrap();
    insta::assert_snapshot!(
        "encode_nothing",
        call(here.path(), "encode --model {tokenizer} empty -o out").seen(here.path())
    );
}

/// Whether a file below the folder begins with a dot: a temporary file that was left behind.
fn left_behind(folder: &Path) -> bool {
    names(folder).iter().any(|name| {
        name.rsplit('/')
            .next()
            .is_some_and(|name| name.starts_with('.'))
    })
}

#[test]
fn a_failed_write_keeps_what_was_there() {
    let here = folder();
    picture(&here.path().join("in.png"), 9, 9);
    call(
        here.path(),
        "encode --model {tokenizer} in.png -o in.tokens",
    )
    .succeeded();
    let before = std::fs::read(here.path().join("in.tokens")).unwrap();
    let called = call(
        here.path(),
        "encode --model {tokenizer} missing.png -o in.tokens",
    );
    assert_eq!(called.code, Some(1));
    let called = call(
        here.path(),
        "encode --model {tokenizer} in.png -o in.png/below.tokens",
    );
    insta::assert_snapshot!("encode_below_a_file", called.seen(here.path()));
    assert_eq!(
        std::fs::read(here.path().join("in.tokens")).unwrap(),
        before
    );
    assert!(!left_behind(here.path()));
}
