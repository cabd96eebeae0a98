//! The images that come inside the program: emoji to train a first tokenizer on, photographs to
//! look at.
//!
//! Their origin and licences are in the folder `assets` of the repository: Noto Emoji (Apache-2.0),
//! photographs in the public domain or CC0.

use std::path::Path;

use crate::{Atlas, DecodeLimits, Image, MemorySource, Sample, decode};

const EMOJI_PNG: &[u8] = include_bytes!("../../../assets/emoji/emoji.png");
const EMOJI_JSON: &[u8] = include_bytes!("../../../assets/emoji/emoji.json");

const PHOTOGRAPHS: [(&str, &[u8]); 5] = [
    (
        "astronaut",
        include_bytes!("../../../assets/photographs/astronaut.jpg"),
    ),
    (
        "camera",
        include_bytes!("../../../assets/photographs/camera.png"),
    ),
    (
        "chelsea",
        include_bytes!("../../../assets/photographs/chelsea.jpg"),
    ),
    (
        "coffee",
        include_bytes!("../../../assets/photographs/coffee.jpg"),
    ),
    (
        "rocket",
        include_bytes!("../../../assets/photographs/rocket.jpg"),
    ),
];

/// 1,906 emoji of 32 x 32 pixels on white in nine categories, with splits `train` and `validation`.
pub fn emoji() -> Atlas {
    Atlas::from_bytes(Path::new("the bundled emoji"), EMOJI_PNG, EMOJI_JSON)
        .expect("the bundled emoji are whole")
}

/// Five photographs, longest side at most 512 pixels, one of them grey.
pub fn photographs() -> MemorySource {
    let sample = |(name, bytes): (&str, &[u8])| Sample {
        image: photograph(name, bytes),
        label: None,
        name: name.to_owned(),
    };
    MemorySource {
        samples: PHOTOGRAPHS.into_iter().map(sample).collect(),
        ..Default::default()
    }
}

fn photograph(name: &str, bytes: &[u8]) -> Image {
    decode(name, bytes, DecodeLimits::default()).expect("the bundled photographs are whole")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ImageSource;
    use std::collections::{HashMap, HashSet};

    #[test]
    fn emoji_are_complete() {
        let emoji = emoji();
        assert_eq!(
            (emoji.len(), emoji.tile_size(), emoji.classes().len()),
            (1906, 32, 9)
        );
        let white = Image::filled(32, 32, [255; 3]).unwrap();
        for index in 0..emoji.len() {
            assert!(
                emoji.image(index).unwrap() != white,
                "{} is blank",
                emoji.name(index)
            );
            assert!(emoji.label(index).is_some());
        }
        let held_out = (0..emoji.len())
            .filter(|&i| emoji.split(i) == Some("validation"))
            .count();
        assert_eq!(held_out, 97);
        assert!((0..emoji.len()).all(|i| matches!(emoji.split(i), Some("train" | "validation"))));
    }

    #[test]
    fn gendered_variants_never_straddle_the_split() {
        let emoji = emoji();
        let mut splits: HashMap<String, HashSet<&str>> = HashMap::new();
        for tile in emoji.tiles() {
            let code_points = tile
                .code_points
                .as_deref()
                .expect("every emoji has code points");
            let gendered = ["-200D-2640-FE0F", "-200D-2642-FE0F"]
                .into_iter()
                .find_map(|suffix| code_points.strip_suffix(suffix));
            let base = gendered
                .unwrap_or(code_points)
                .trim_end_matches("-FE0F")
                .to_owned();
            splits
                .entry(base)
                .or_default()
                .insert(tile.split.as_deref().expect("every emoji has a split"));
        }
        assert!(splits.values().all(|of_base| of_base.len() == 1));
        assert!(
            splits.len() < emoji.len() - 100,
            "there are gendered variants to test"
        );
    }

    #[test]
    fn photographs_decode() {
        let photographs = photographs();
        assert_eq!(photographs.len(), 5);
        for sample in &photographs.samples {
            let (width, height) = (sample.image.width(), sample.image.height());
            assert!(
                (300..=512).contains(&height) && (450..=512).contains(&width),
                "{}: {width} x {height}",
                sample.name
            );
        }
        let camera = &photographs.samples[1].image;
        assert!(
            camera
                .pixels()
                .chunks_exact(3)
                .all(|pixel| pixel[0] == pixel[1] && pixel[1] == pixel[2])
        );
    }
}
