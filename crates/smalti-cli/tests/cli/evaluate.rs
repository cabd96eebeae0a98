//! `smalti evaluate`

use crate::support::{call, folder, picture};

#[test]
fn json_holds_every_measure() {
    let here = folder();
    picture(&here.path().join("photos/a.png"), 40, 32);
    picture(&here.path().join("photos/b.png"), 17, 33);
    let called = call(here.path(), "evaluate --model {tokenizer} photos --json").succeeded();
    let measured: serde_json::Value = serde_json::from_str(called.text()).unwrap();
    assert_eq!(measured["images"], 2);
    assert!(
        measured["psnr_db"]
            .as_f64()
            .is_some_and(|psnr| psnr > 3.0 && psnr < 100.0),
        "{measured}"
    );
    assert!(
        measured["ssim"]
            .as_f64()
            .is_some_and(|ssim| (-1.0..=1.0).contains(&ssim)),
        "{measured}"
    );
    // 10 x 8 and 5 x 9 positions of two codes of four bits.
    let rate = f64::from((10 * 8 + 5 * 9) * 8) / f64::from(40 * 32 + 17 * 33);
    assert!(
        (measured["bits_per_pixel"].as_f64().unwrap() - rate).abs() < 1e-9,
        "{measured}"
    );
    assert!(measured["entropy_bits_per_pixel"].as_f64().unwrap() <= rate);
    assert_eq!(measured["depths"].as_array().unwrap().len(), 2);
}

#[test]
fn the_table_shows_the_same_and_a_single_pixel_has_no_ssim() {
    let here = folder();
    picture(&here.path().join("photos/dot.png"), 1, 1);
    let called = call(here.path(), "evaluate --model {tokenizer} photos").succeeded();
    let names: Vec<&str> = called
        .text()
        .lines()
        .map(|line| line.split("  ").next().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "images",
            "PSNR",
            "rate",
            "entropy",
            "codes used",
            "depth 1",
            "depth 2"
        ]
    );
}

#[test]
fn resizing_changes_the_rate_to_that_of_whole_positions() {
    let here = folder();
    picture(&here.path().join("photos/a.png"), 45, 33);
    let called = call(
        here.path(),
        "evaluate --model {tokenizer} photos --resize 16 --json",
    )
    .succeeded();
    let measured: serde_json::Value = serde_json::from_str(called.text()).unwrap();
    assert_eq!(measured["bits_per_pixel"], 0.5);
}

#[test]
fn broken_images_are_named_or_refused() {
    let here = folder();
    picture(&here.path().join("photos/a.png"), 8, 8);
    std::fs::write(here.path().join("photos/b.png"), "").unwrap();
    let called = call(here.path(), "evaluate --model {tokenizer} photos").succeeded();
    assert!(
        called.stderr.contains("skipped b.png: "),
        "{}",
        called.stderr
    );
    let called = call(here.path(), "evaluate --model {tokenizer} photos --strict");
    insta::assert_snapshot!("evaluate_strict", called.seen(here.path()));
}

#[test]
fn nothing_to_evaluate_is_said_so() {
    let here = folder();
    std::fs::create_dir(here.path().join("empty")).unwrap();
    insta::assert_snapshot!(
        "evaluate_empty",
        call(here.path(), "evaluate --model {tokenizer} empty").seen(here.path())
    );
    insta::assert_snapshot!(
        "evaluate_missing",
        call(here.path(), "evaluate --model {tokenizer} nowhere").seen(here.path())
    );
    picture(&here.path().join("one.png"), 8, 8);
    insta::assert_snapshot!(
        "evaluate_file",
        call(here.path(), "evaluate --model {tokenizer} one.png").seen(here.path())
    );
}
