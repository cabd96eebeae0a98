//! Many small square images in one PNG, with a JSON description beside it.
//!
//! The picture holds tiles of `tile` pixels, `columns` in a row, row after row. The description:
//!
//! ```json
//! {"tile": 32, "columns": 44, "classes": ["Activities", "Flags"],
//!  "tiles": [{"name": "grin", "class": 0, "split": "train", "code_points": "1F601"}]}
//! ```
//!
//! `class`, `split` and `code_points` may be missing. The picture must have room for every tile.

use std::borrow::Cow;
use std::path::Path;

use serde::Deserialize;

use crate::{DataError, DecodeLimits, Image, ImageSource, decode};

/// One tile's description.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tile {
    /// Unique name.
    pub name: String,
    /// Index into the classes.
    #[serde(default)]
    pub class: Option<u32>,
    /// The split it belongs to, such as `train`.
    #[serde(default)]
    pub split: Option<String>,
    /// Unicode code points in hexadecimal, joined by `-`.
    #[serde(default)]
    pub code_points: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    tile: usize,
    columns: usize,
    #[serde(default)]
    classes: Vec<String>,
    tiles: Vec<Tile>,
}

/// A picture full of tiles.
#[derive(Debug)]
pub struct Atlas {
    picture: Image,
    description: Description,
}

impl Atlas {
    /// From the bytes of the PNG and of the JSON; `name` stands for both in errors.
    pub fn from_bytes(name: &Path, png: &[u8], json: &[u8]) -> Result<Self, DataError> {
        let picture = decode(&name.display().to_string(), png, DecodeLimits::default())?;
        let description: Description = serde_json::from_slice(json).map_err(|error| {
            DataError::layout(name, format!("the atlas description is wrong: {error}"))
        })?;
        let atlas = Self {
            picture,
            description,
        };
        match atlas.problem() {
            Some(problem) => Err(DataError::layout(name, problem)),
            None => Ok(atlas),
        }
    }

    /// From `NAME.png` and the description `NAME.json` beside it.
    pub fn open(png: &Path) -> Result<Self, DataError> {
        let json = png.with_extension("json");
        let read = |path: &Path| std::fs::read(path).map_err(DataError::io("read", path));
        Self::from_bytes(png, &read(png)?, &read(&json)?)
    }

    /// Descriptions of all tiles.
    pub fn tiles(&self) -> &[Tile] {
        &self.description.tiles
    }

    /// Side of a tile in pixels.
    pub fn tile_size(&self) -> usize {
        self.description.tile
    }

    fn problem(&self) -> Option<String> {
        let Description {
            tile,
            columns,
            classes,
            tiles,
        } = &self.description;
        let (width, height) = (self.picture.width(), self.picture.height());
        if *tile == 0 || *columns == 0 {
            return Some(format!(
                "tile and columns must be at least 1, got {tile} and {columns}"
            ));
        }
        let rows = tiles.len().div_ceil(*columns);
        let fits = |tiles: usize, side: usize| {
            tiles
                .checked_mul(*tile)
                .is_some_and(|needed| needed <= side)
        };
        if !fits(*columns, width) || !fits(rows, height) {
            return Some(format!(
                "{columns} x {rows} tiles of {tile} pixels do not fit into {width} x {height}"
            ));
        }
        let mut names = std::collections::HashSet::new();
        if let Some(tile) = tiles.iter().find(|tile| !names.insert(&tile.name)) {
            return Some(format!("two tiles are named {:?}", tile.name));
        }
        let wrong = tiles.iter().find(|tile| {
            tile.class
                .is_some_and(|class| class as usize >= classes.len())
        })?;
        Some(format!(
            "the class of tile {:?} is {}, but there are {} classes",
            wrong.name,
            wrong.class?,
            classes.len()
        ))
    }
}

impl ImageSource for Atlas {
    fn len(&self) -> usize {
        self.description.tiles.len()
    }

    fn name(&self, index: usize) -> Cow<'_, str> {
        Cow::Borrowed(&self.description.tiles[index].name)
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.description.tiles[index].class
    }

    fn split(&self, index: usize) -> Option<&str> {
        self.description.tiles[index].split.as_deref()
    }

    fn classes(&self) -> &[String] {
        &self.description.classes
    }

    fn image(&self, index: usize) -> Result<Image, DataError> {
        assert!(index < self.len(), "tile {index} of {}", self.len());
        let Description { tile, columns, .. } = self.description;
        self.picture
            .crop(index % columns * tile, index / columns * tile, tile, tile)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture() -> Vec<u8> {
        let mut image = Image::filled(4, 4, [255; 3]).unwrap();
        for (i, (left, top)) in [(0, 0), (2, 0), (0, 2)].into_iter().enumerate() {
            image.paste(&Image::filled(2, 2, [i as u8; 3]).unwrap(), left, top);
        }
        image.to_png()
    }

    fn open(json: &str) -> Result<Atlas, DataError> {
        Atlas::from_bytes(Path::new("atlas.png"), &picture(), json.as_bytes())
    }

    #[test]
    fn tiles_are_cut_row_after_row() {
        let json = r#"{"tile":2,"columns":2,"classes":["a"],"tiles":[{"name":"x"},{"name":"y","class":0},{"name":"z","split":"validation"}]}"#;
        let atlas = open(json).unwrap();
        for i in 0..3 {
            assert_eq!(
                atlas.image(i).unwrap(),
                Image::filled(2, 2, [i as u8; 3]).unwrap()
            );
        }
        assert_eq!(
            (
                atlas.label(0),
                atlas.label(1),
                atlas.split(1),
                atlas.split(2)
            ),
            (None, Some(0), None, Some("validation"))
        );
    }

    #[test]
    fn wrong_descriptions_are_named() {
        for (json, expected) in [
            ("{", "description is wrong"),
            (
                r#"{"tile":2,"columns":2,"tiles":[{"name":"x","colour":1}]}"#,
                "colour",
            ),
            (r#"{"tile":0,"columns":2,"tiles":[]}"#, "at least 1"),
            (r#"{"tile":3,"columns":2,"tiles":[]}"#, "do not fit"),
            (
                r#"{"tile":2,"columns":1,"tiles":[{"name":"x"},{"name":"y"},{"name":"z"}]}"#,
                "do not fit",
            ),
            (
                r#"{"tile":2,"columns":2,"tiles":[{"name":"x"},{"name":"x"}]}"#,
                "two tiles",
            ),
            (
                r#"{"tile":2,"columns":2,"classes":["a"],"tiles":[{"name":"x","class":1}]}"#,
                "there are 1 classes",
            ),
        ] {
            let error = open(json).unwrap_err().to_string();
            assert!(
                error.contains("atlas.png") && error.contains(expected),
                "{json}: {error}"
            );
        }
    }
}
