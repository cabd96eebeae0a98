//! `smalti generate`

use std::path::Path;

use crate::support::{call, folder, names, picture, size};

const SIDE: u32 = 32;

#[test]
fn the_same_seed_gives_the_same_bytes_however_they_are_computed() {
    let here = folder();
    for (name, more) in [
        ("a", "--seed 7"),
        ("b", "--seed 7 --batch-size 2"),
        ("c", "--seed 8"),
    ] {
        let line =
            format!("generate --model {{generator}} --class flags --count 5 {more} -o {name}.png");
        let called = call(here.path(), &line).succeeded();
        assert_eq!(called.text(), "");
    }
    let read = |name: &str| std::fs::read(here.path().join(name)).unwrap();
    assert!(
        read("a.png") == read("b.png"),
        "the batch size changed the images"
    );
    assert!(read("a.png") != read("c.png"), "the seed changed nothing");
    // Three columns and two rows with a gap of two pixels around each.
    assert_eq!(
        size(&here.path().join("a.png")),
        (2 + 3 * (SIDE + 2), 2 + 2 * (SIDE + 2))
    );
}

#[test]
fn a_name_without_ending_is_a_folder_of_single_images() {
    let here = folder();
    call(
        here.path(),
        "generate --model {generator} --class 2 --count 3 -o some/where",
    )
    .succeeded();
    assert_eq!(
        names(&here.path().join("some/where")),
        ["00000.png", "00001.png", "00002.png"]
    );
    assert_eq!(
        size(&here.path().join("some/where/00001.png")),
        (SIDE, SIDE)
    );
}

#[test]
fn many_images_are_written_in_parts_and_none_twice() {
    let here = folder();
    let line = "generate --model {generator} --class 2 --count 258 -o many";
    call(here.path(), line).succeeded();
    let many = here.path().join("many");
    let found = names(&many);
    assert_eq!((found.len(), found[257].as_str()), (258, "00257.png"));
    let mut images: Vec<Vec<u8>> = found
        .iter()
        .map(|name| std::fs::read(many.join(name)).unwrap())
        .collect();
    images.sort();
    images.dedup();
    // Those of the second part are no copies of the first's; chance may make a few equal.
    assert!(images.len() > 240, "{} different images", images.len());
}

#[test]
fn classes_that_do_not_exist_list_those_that_do() {
    let here = folder();
    for (name, class) in [
        ("unknown", "--class Dragons"),
        ("number", "--class 9"),
        ("none", "--count 2"),
    ] {
        let called = call(
            here.path(),
            &format!("generate --model {{generator}} {class} -o grid.png"),
        );
        insta::assert_snapshot!(format!("class_{name}"), called.seen(here.path()));
    }
    assert_eq!(names(here.path()), [""; 0]);
}

#[test]
fn settings_of_the_draw_are_checked() {
    let here = folder();
    for (name, setting) in [
        ("top_k", "--top-k 1,2,3"),
        ("top_p", "--top-p 1.5"),
        ("temperature", "--temperature 0"),
        ("nan", "--temperature NaN"),
    ] {
        let called = call(
            here.path(),
            &format!("generate --model {{generator}} --class Flags {setting} -o grid.png"),
        );
        insta::assert_snapshot!(format!("draw_{name}"), called.seen(here.path()));
    }
    let sharp = "--count 2 --top-k 1 --class Flags -o";
    call(
        here.path(),
        &format!("generate --model {{generator}} --seed 1 {sharp} a.png"),
    )
    .succeeded();
    call(
        here.path(),
        &format!("generate --model {{generator}} --seed 2 {sharp} b.png"),
    )
    .succeeded();
    let read = |name: &str| std::fs::read(here.path().join(name)).unwrap();
    assert!(
        read("a.png") == read("b.png"),
        "with one code to choose from, the seed must not matter"
    );
}

/// Mean absolute difference of two pictures in rows `from..to`.
fn difference(a: &Path, b: &Path, from: u32, to: u32) -> f64 {
    let (a, b) = (
        image::open(a).unwrap().to_rgb8(),
        image::open(b).unwrap().to_rgb8(),
    );
    let mut sum = 0.0;
    for y in from..to {
        for x in 0..a.width() {
            sum += (0..3)
                .map(|c| f64::from(a.get_pixel(x, y)[c].abs_diff(b.get_pixel(x, y)[c])))
                .sum::<f64>();
        }
    }
    sum / f64::from(3 * a.width() * (to - from))
}

#[test]
fn a_completion_keeps_the_upper_rows() {
    let here = folder();
    let path = |name: &str| here.path().join(name);
    picture(&path("half.png"), SIDE, SIDE);
    call(
        here.path(),
        "encode --model {tokenizer} half.png -o half.tokens",
    )
    .succeeded();
    call(
        here.path(),
        "decode --model {tokenizer} half.tokens -o decoded.png",
    )
    .succeeded();
    let line = "generate --model {generator} --class Flags --count 1 -o";
    call(
        here.path(),
        &format!("{line} whole --complete half.png --keep-rows 6"),
    )
    .succeeded();
    call(here.path(), &format!("{line} free")).succeeded();
    let upper = |name: &str| difference(&path(name), &path("decoded.png"), 0, SIDE / 2);
    // Six of eight rows are kept. Codes below reach a little into the pixels above, through the
    // decoder's norms; without an image to go on from, the same seed gives something else.
    let (kept, free) = (upper("whole/00000.png"), upper("free/00000.png"));
    assert!(
        kept < 0.2 * free,
        "kept rows differ by {kept}, free ones by {free}"
    );
    let (whole, decoded) = (path("whole/00000.png"), path("decoded.png"));
    assert!(
        difference(&whole, &decoded, SIDE - 4, SIDE) > kept,
        "the last rows were not generated"
    );
}

#[test]
fn images_that_cannot_be_completed_are_refused() {
    let here = folder();
    picture(&here.path().join("half.png"), SIDE, SIDE);
    picture(&here.path().join("large.png"), SIDE + 4, SIDE);
    for (name, more) in [
        ("size", "--complete large.png --keep-rows 2"),
        ("rows", "--complete half.png --keep-rows 8"),
        ("missing", "--complete nowhere.png --keep-rows 2"),
    ] {
        let called = call(
            here.path(),
            &format!("generate --model {{generator}} --class Flags {more} -o grid.png"),
        );
        insta::assert_snapshot!(format!("complete_{name}"), called.seen(here.path()));
    }
}
