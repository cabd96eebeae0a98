//! Lines of images, laid out so that a lane finds the four columns of its tile side by side.
//!
//! A *strip* holds, for every tile of a block, four neighbouring values of one line: those of lane t
//! at 4t. A tile of six inputs takes two strips a line, the second four columns further on, of which two
//! are used; a tile of four gradients takes one.

use super::tiles::{Block, SIDE, Tiling};

/// Images as they lie in memory, with zeros above and on the left.
#[derive(Clone, Copy)]
pub(super) struct Planes<'a> {
    pub(super) data: &'a [f32],
    pub(super) channels: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) top: usize,
    pub(super) left: usize,
}

/// How many lines a tile has, and how many strips a line.
#[derive(Clone, Copy)]
pub(super) struct Strips {
    pub(super) lines: usize,
    pub(super) halves: usize,
}

impl Strips {
    /// Of tiles of six by six inputs.
    pub(super) const INPUT: Self = Self {
        lines: 6,
        halves: 2,
    };
    /// Of tiles of four by four outputs.
    pub(super) const OUTPUT: Self = Self {
        lines: 4,
        halves: 1,
    };

    /// Values of all strips of a block of `lanes` tiles; each has `4 · lanes`.
    pub(super) fn len(self, lanes: usize) -> usize {
        self.lines * self.halves * SIDE * lanes
    }

    /// Copies the lines of a channel, with zeros where the image or the block ends.
    pub(super) fn fill(
        self,
        tiling: &Tiling,
        block: Block,
        (planes, channel): (Planes, usize),
        to: &mut [f32],
    ) {
        let Planes {
            data,
            channels,
            height,
            width,
            top,
            left,
        } = planes;
        let (strip, count) = (SIDE * tiling.lanes, SIDE * block.columns);
        for row in 0..block.rows {
            let (image, first_line) = tiling.place(block.row + row);
            let plane = &data[(image * channels + channel) * height * width..][..height * width];
            for line in 0..self.lines {
                let y = (first_line + line).checked_sub(top).filter(|&y| y < height);
                let source = y.map(|y| &plane[y * width..][..width]);
                for half in 0..self.halves {
                    let to = &mut to[(self.halves * line + half) * strip + row * count..][..count];
                    let column = SIDE * (block.column + half);
                    copy_padded(source, column as isize - left as isize, to);
                }
            }
        }
        for strip in to.chunks_exact_mut(strip) {
            strip[block.rows * count..].fill(0.0);
        }
    }
}

/// Copies `line` from column `first` on, zeros where there is nothing.
fn copy_padded(line: Option<&[f32]>, first: isize, to: &mut [f32]) {
    let Some(line) = line else {
        to.fill(0.0);
        return;
    };
    let before = (-first).clamp(0, to.len() as isize) as usize;
    let start = first.max(0) as usize;
    let count = line.len().saturating_sub(start).min(to.len() - before);
    to[..before].fill(0.0);
    if count > 0 {
        to[before..before + count].copy_from_slice(&line[start..start + count]);
    }
    to[before + count..].fill(0.0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_padded_on_both_sides() {
        let copied = |first, len| {
            let mut to = vec![9.0; len];
            copy_padded(Some(&[1.0, 2.0, 3.0]), first, &mut to);
            to
        };
        assert_eq!(copied(-2, 4), [0.0, 0.0, 1.0, 2.0]);
        assert_eq!(copied(1, 4), [2.0, 3.0, 0.0, 0.0]);
        assert_eq!(copied(-1, 6), [0.0, 1.0, 2.0, 3.0, 0.0, 0.0]);
        assert_eq!(copied(5, 2), [0.0, 0.0]);
        assert_eq!(copied(-7, 2), [0.0, 0.0]);
    }
}
