use super::*;
use image::{ExtendedColorType, ImageEncoder};

const LIMITS: DecodeLimits = DecodeLimits {
    max_pixels: 1_000_000,
};

/// Small files made with Pillow 12: `tests/fixtures/make.py`.
fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(format!(
        "{}/tests/fixtures/{name}",
        env!("CARGO_MANIFEST_DIR")
    ))
    .expect("the fixture is in the repository")
}

fn png(pixels: &[u8], width: u32, height: u32, colour: ExtendedColorType) -> Vec<u8> {
    let mut bytes = Vec::new();
    image::codecs::png::PngEncoder::new(&mut bytes)
        .write_image(pixels, width, height, colour)
        .unwrap();
    bytes
}

/// Mean and largest distance from what Pillow decodes.
fn distance_from_reference(name: &str) -> (f64, u8) {
    let got = decode(name, &fixture(name), LIMITS).unwrap();
    let stem = name.split('.').next().unwrap();
    let expected = decode(stem, &fixture(&format!("{stem}.expected.png")), LIMITS).unwrap();
    assert_eq!(
        (got.width(), got.height()),
        (expected.width(), expected.height()),
        "{name}"
    );
    let distances: Vec<u8> = got
        .pixels()
        .iter()
        .zip(expected.pixels())
        .map(|(a, b)| a.abs_diff(*b))
        .collect();
    (
        distances.iter().map(|&d| f64::from(d)).sum::<f64>() / distances.len() as f64,
        *distances.iter().max().unwrap(),
    )
}

#[test]
fn lossless_formats_equal_pillow() {
    for name in [
        "palette.png",
        "palette_transparent.png",
        "rgba.png",
        "grey_alpha.png",
        "grey1.png",
        "lossless.webp",
        "exif6.png",
    ] {
        assert_eq!(distance_from_reference(name), (0.0, 0), "{name}");
    }
}

#[test]
fn jpegs_of_every_colour_space_are_close_to_pillow() {
    // Inverse transforms and chroma upsampling differ between decoders by a few levels.
    for name in [
        "rgb.jpg",
        "grey.jpg",
        "cmyk.jpg",
        "ycck.jpg",
        "progressive.jpg",
        "exif6_jpeg.jpg",
    ] {
        let (mean, largest) = distance_from_reference(name);
        assert!(
            mean <= 1.5 && largest <= 12,
            "{name}: mean {mean}, largest {largest}"
        );
    }
}

#[test]
fn sixteen_bits_are_rounded() {
    let values: [u16; 4] = [0, 0x7FFF, 0x8080, 0xFFFF];
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_ne_bytes())
        .collect();
    let image = decode("deep", &png(&bytes, 4, 1, ExtendedColorType::L16), LIMITS).unwrap();
    assert_eq!(
        [0, 1, 2, 3].map(|x| image.pixel(x, 0)[0]),
        [0, 127, 128, 255]
    );
}

#[test]
fn transparency_shows_white() {
    let pixels = [10, 20, 30, 255, 10, 20, 30, 0, 0, 100, 255, 128];
    let image = decode(
        "alpha",
        &png(&pixels, 3, 1, ExtendedColorType::Rgba8),
        LIMITS,
    )
    .unwrap();
    assert_eq!(
        [0, 1, 2].map(|x| image.pixel(x, 0)),
        [[10, 20, 30], [255; 3], [127, 177, 255]]
    );
}

#[test]
fn orientation_turns_the_announced_size_too() {
    let bytes = fixture("exif6.png");
    let image = decode("turned", &bytes, LIMITS).unwrap();
    assert_eq!(
        dimensions("turned", &bytes, LIMITS).unwrap(),
        (image.width(), image.height())
    );
}

#[test]
fn a_single_pixel_is_an_image() {
    let image = decode(
        "dot",
        &png(&[1, 2, 3], 1, 1, ExtendedColorType::Rgb8),
        LIMITS,
    )
    .unwrap();
    assert_eq!(image.pixels(), [1, 2, 3]);
}

#[test]
fn truncation_anywhere_is_an_error() {
    for name in [
        "rgb.jpg",
        "progressive.jpg",
        "cmyk.jpg",
        "rgba.png",
        "palette.png",
        "lossless.webp",
    ] {
        let bytes = fixture(name);
        // Cut in the header, in the data, and near the end. The last bytes of PNG and WebP hold no
        // pixels.
        let near_end = if name.ends_with("jpg") {
            bytes.len() - 2
        } else {
            bytes.len() - 24
        };
        for keep in [1, 2, 16, bytes.len() / 2, near_end] {
            let error = decode(name, &bytes[..keep], LIMITS)
                .expect_err(&format!("{name} cut to {keep} of {} bytes", bytes.len()));
            assert!(error.to_string().contains(name), "{error}");
        }
        let half = decode(name, &bytes[..bytes.len() / 2], LIMITS).unwrap_err();
        assert!(
            matches!(half, DataError::TruncatedImage { .. }),
            "{name}: {half:?}"
        );
    }
}

#[test]
fn flipped_bytes_never_panic() {
    for name in ["rgb.jpg", "rgba.png", "lossless.webp", "exif6.png"] {
        let bytes = fixture(name);
        for at in (0..bytes.len()).step_by(3) {
            let mut broken = bytes.clone();
            broken[at] ^= 0xA5;
            // An error or some picture; the point is that it returns.
            if let Ok(image) = decode(name, &broken, LIMITS) {
                assert_eq!(image.pixels().len(), image.width() * image.height() * 3);
            }
        }
    }
}

#[test]
fn empty_foreign_and_huge_files_are_named() {
    assert!(
        matches!(decode("a.png", &[], LIMITS), Err(DataError::EmptyImage { name }) if name == "a.png")
    );
    let gif = decode("b.gif", b"GIF89a\x01\x00\x01\x00\x00\x00\x00;", LIMITS).unwrap_err();
    assert_eq!(
        gif.to_string(),
        "b.gif is not an image this program reads (PNG, JPEG, WebP), it looks like Gif; convert it first"
    );
    assert!(
        decode("c.txt", b"hello", LIMITS)
            .unwrap_err()
            .to_string()
            .contains("c.txt")
    );
    // A header alone announces 60000 x 60000 pixels.
    let mut bomb = png(&[0], 1, 1, ExtendedColorType::L8);
    bomb[16..24].copy_from_slice(&[0, 0, 0xEA, 0x60, 0, 0, 0xEA, 0x60]);
    let crc = crc32(&bomb[12..29]);
    bomb[29..33].copy_from_slice(&crc.to_be_bytes());
    assert!(matches!(
        decode("bomb.png", &bomb, LIMITS),
        Err(DataError::ImageTooLarge { width: 60000, .. })
    ));
    assert!(matches!(
        dimensions("bomb.png", &bomb, LIMITS),
        Err(DataError::ImageTooLarge { .. })
    ));
    let small = png(&[0; 4], 2, 2, ExtendedColorType::L8);
    assert!(decode("small", &small, DecodeLimits { max_pixels: 4 }).is_ok());
    assert!(decode("small", &small, DecodeLimits { max_pixels: 3 }).is_err());
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}
