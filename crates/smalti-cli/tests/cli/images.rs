//! Pictures of every kind, and pictures that are none.

use std::path::{Path, PathBuf};

use image::{DynamicImage, ImageBuffer, Luma, LumaA, Rgb, Rgba};

use crate::support::{call, folder, names, picture, size};

/// Pictures that other tests of this repository read, too.
fn fixture(name: &str) -> PathBuf {
    Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../smalti-data/tests/fixtures"
    ))
    .join(name)
}

#[test]
fn pictures_of_every_kind_simply_work() {
    let here = folder();
    let photos = here.path().join("photos");
    std::fs::create_dir(&photos).unwrap();
    for name in [
        "cmyk.jpg",
        "ycck.jpg",
        "palette.png",
        "palette_transparent.png",
        "grey1.png",
        "exif6.png",
        "lossless.webp",
    ] {
        std::fs::copy(fixture(name), photos.join(name)).unwrap();
    }
    let made: [(&str, DynamicImage); 5] = [
        (
            "rgb16.png",
            ImageBuffer::from_pixel(5, 3, Rgb([1000u16, 20000, 65535])).into(),
        ),
        (
            "rgba16.png",
            ImageBuffer::from_pixel(5, 3, Rgba([1000u16, 20000, 65535, 300])).into(),
        ),
        (
            "grey16.png",
            ImageBuffer::from_pixel(5, 3, Luma([30000u16])).into(),
        ),
        (
            "grey8.png",
            ImageBuffer::from_pixel(5, 3, Luma([200u8])).into(),
        ),
        (
            "greya8.png",
            ImageBuffer::from_pixel(5, 3, LumaA([200u8, 100])).into(),
        ),
    ];
    for (name, image) in &made {
        image.save(photos.join(name)).unwrap();
    }
    let called = call(
        here.path(),
        "encode --model {tokenizer} --strict photos -o tokens",
    )
    .succeeded();
    assert_eq!(
        called.stderr.lines().last(),
        Some("12 of 12 images encoded to tokens")
    );
    call(here.path(), "decode --model {tokenizer} tokens -o pictures").succeeded();
    for (name, image) in &made {
        let decoded = here.path().join(format!("pictures/{name}.png"));
        assert_eq!(size(&decoded), (image.width(), image.height()), "{name}");
    }
    // The orientation in the file is applied: the picture stands upright.
    let (width, height) = size(&photos.join("exif6.png"));
    assert_eq!(
        size(&here.path().join("pictures/exif6.png.png")),
        (height, width)
    );
}

/// A folder with one good picture and every kind of broken one.
fn broken(folder: &Path) {
    let photos = folder.join("photos");
    picture(&photos.join("good.png"), 40, 30);
    picture(&photos.join("whole.jpg"), 40, 30);
    let whole = |name: &str| std::fs::read(photos.join(name)).unwrap();
    for (name, bytes) in [
        ("truncated.png", &whole("good.png")[..60]),
        ("truncated.jpg", &whole("whole.jpg")[..300]),
        ("empty.png", &[]),
        ("text.png", b"<html>404 not found</html>"),
    ] {
        std::fs::write(photos.join(name), bytes).unwrap();
    }
    std::fs::remove_file(photos.join("whole.jpg")).unwrap();
}

#[test]
fn one_broken_image_is_named_and_nothing_is_written() {
    let here = folder();
    broken(here.path());
    for name in [
        "truncated.png",
        "truncated.jpg",
        "empty.png",
        "text.png",
        "missing.png",
    ] {
        let called = call(
            here.path(),
            &format!("encode --model {{tokenizer}} photos/{name} -o out.tokens"),
        );
        insta::assert_snapshot!(
            format!("encode_{}", name.replace('.', "_")),
            called.seen(here.path())
        );
        assert!(!here.path().join("out.tokens").exists());
    }
}

#[test]
fn broken_images_of_a_folder_are_skipped_and_named() {
    let here = folder();
    broken(here.path());
    let called = call(here.path(), "encode --model {tokenizer} photos -o out");
    insta::assert_snapshot!("encode_broken_folder", called.seen(here.path()));
    assert_eq!(names(&here.path().join("out")), ["good.png.tokens"]);
}

#[test]
fn strict_ends_at_the_first_broken_image() {
    let here = folder();
    broken(here.path());
    let called = call(
        here.path(),
        "encode --model {tokenizer} --strict photos -o out",
    );
    insta::assert_snapshot!("encode_broken_folder_strict", called.seen(here.path()));
}
