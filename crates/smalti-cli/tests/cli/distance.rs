//! `smalti distance`, and the Fréchet distance of `smalti evaluate`.

use std::path::Path;

use serde_json::Value;

use crate::support::{Called, call, folder, picture};

/// A narrow network that makes vectors of eight numbers or so.
const NETWORK: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../goldens/st_lpips/alex_shift_tolerant_narrow.pth"
);

/// Pictures that differ from each other; `tint` makes two sets differ.
fn pictures(folder: &Path, count: u32, side: u32, tint: u8) {
    std::fs::create_dir_all(folder).unwrap();
    for number in 0..count {
        let wave = |x: u32, y: u32| (x * (number % 7 + 1) + y * (number % 5)) as u8;
        let colour = |x, y| image::Rgb([wave(x, y), wave(y, x).wrapping_mul(3), tint]);
        image::RgbImage::from_fn(side, side, colour)
            .save(folder.join(format!("{number:03}.png")))
            .unwrap();
    }
}

fn distance(here: &Path, line: &str) -> Called {
    let network = format!("--features {NETWORK} --network st-lpips");
    call(here, &format!("distance {network} {line}"))
}

fn json(called: &Called) -> Value {
    serde_json::from_str(called.text()).unwrap()
}

#[test]
fn a_set_is_nearer_to_its_like_than_to_others() {
    let here = folder();
    pictures(&here.path().join("photos"), 60, 40, 10);
    pictures(&here.path().join("more"), 70, 40, 14);
    pictures(&here.path().join("blue"), 60, 40, 250);
    let measure = |set: &str| {
        let called = distance(here.path(), &format!("photos {set} --json")).succeeded();
        assert!(!called.stderr.contains("warning"), "{}", called.stderr);
        json(&called)
    };
    let (same, near, far) = (measure("photos"), measure("more"), measure("blue"));
    let number = |of: &Value, name: &str| of[name].as_f64().unwrap();
    let frechet = [&same, &near, &far].map(|of| number(of, "frechet_distance"));
    assert!(frechet.is_sorted() && frechet[0] < 1e-6, "{frechet:?}");
    let kernel = [&near, &far].map(|of| of["kernel_distance"]["mean"].as_f64().unwrap());
    assert!(kernel.is_sorted(), "{kernel:?}");
    assert_eq!(
        (&same["precision"], &same["recall"]),
        (&1.0.into(), &1.0.into())
    );
    assert!(number(&near, "precision") > number(&far, "precision"));
    assert_eq!(
        (&near["reference"], &near["generated"]),
        (&60.into(), &70.into())
    );
    assert!(same["network"].as_str().unwrap().starts_with("ST-LPIPS"));
}

#[test]
fn the_table_has_the_same_measures_and_few_images_a_warning() {
    let here = folder();
    pictures(&here.path().join("photos"), 5, 32, 10);
    pictures(&here.path().join("made"), 60, 48, 10);
    let called = distance(here.path(), "--resize 32 photos made").succeeded();
    let names: Vec<&str> = called
        .text()
        .lines()
        .map(|line| line.split("  ").next().unwrap())
        .collect();
    let expected = [
        "network",
        "reference",
        "generated",
        "Fréchet distance",
        "kernel distance",
        "precision",
        "recall",
    ];
    assert_eq!(names, expected);
    for part in [
        "warning: photos holds only 5 images",
        "the covariance is singular",
    ] {
        assert!(called.stderr.contains(part), "{}", called.stderr);
    }
    assert!(!called.stderr.contains("made holds"), "{}", called.stderr);
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let here = folder();
    pictures(&here.path().join("photos"), 4, 32, 10);
    pictures(&here.path().join("large"), 4, 40, 10);
    pictures(&here.path().join("three"), 3, 32, 10);
    pictures(&here.path().join("dots"), 4, 2, 10);
    std::fs::create_dir(here.path().join("empty")).unwrap();
    let seen = |called: Called| {
        let network = Path::new(NETWORK).parent().unwrap();
        called
            .seen(here.path())
            .replace(&network.display().to_string(), "[GOLDENS]")
    };
    for (name, line) in [
        ("sizes", "photos large"),
        ("three", "photos three"),
        ("small", "dots photos"),
        ("empty", "photos empty"),
        ("missing", "photos nowhere"),
        ("zero", "photos photos --neighbours 0"),
    ] {
        let name = format!("distance_{name}");
        insta::assert_snapshot!(name, seen(distance(here.path(), line)));
    }
    for (name, kind) in [("kind", "vgg16"), ("word", "inception")] {
        let line = format!("distance --features {NETWORK} --network {kind} photos photos");
        let called = call(here.path(), &line);
        insta::assert_snapshot!(format!("distance_{name}"), seen(called));
    }
}

#[test]
fn reconstructions_are_held_against_all_images() {
    let here = folder();
    pictures(&here.path().join("photos"), 40, 32, 10);
    let line =
        format!("evaluate --model {{tokenizer}} photos --features {NETWORK} --network st-lpips");
    let called = call(here.path(), &format!("{line} --json")).succeeded();
    let frechet = &json(&called)["frechet"];
    assert!(frechet["distance"].as_f64().unwrap() > 1e-6, "{frechet}");
    assert!(frechet["network"].as_str().unwrap().starts_with("ST-LPIPS"));
    let called = call(here.path(), &line).succeeded();
    assert!(
        called.text().contains("Fréchet distance"),
        "{}",
        called.text()
    );

    pictures(&here.path().join("few"), 2, 32, 10);
    let called = call(here.path(), &line.replace("photos", "few")).succeeded();
    let warning = "warning: there are only 2 images, and a vector has";
    assert!(called.stderr.contains(warning), "{}", called.stderr);
    picture(&here.path().join("one/a.png"), 32, 32);
    let called = call(here.path(), &line.replace("photos", "one"));
    insta::assert_snapshot!("evaluate_frechet_of_one", called.seen(here.path()));
}

#[test]
fn a_file_of_features_needs_its_kind() {
    let called = call(
        folder().path(),
        "evaluate --model {tokenizer} photos --features a.pth",
    );
    assert_eq!(called.code, Some(2));
    assert!(
        called.stderr.contains("--network <KIND>"),
        "{}",
        called.stderr
    );
}
