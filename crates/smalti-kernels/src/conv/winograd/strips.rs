//! Lines of images, laid out so that a lane finds the four columns of its tile side by side.
//!
//! A *strip* holds, for every tile of a block, four neighbouring values of one line: those of lane t
//! at 4t. A tile of four gradients takes one strip a line. A tile of six inputs needs the four columns
//! after them, too, of which two are used: they are four values further on in a strip whose rows of
//! tiles are four values longer, if no vector reaches over the end of a row; else in a second strip.

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

/// How the lines of a block's tiles lie.
#[derive(Clone, Copy)]
pub(super) struct Strips {
    /// Lines of a tile: six or four.
    lines: usize,
    /// Strips a line: one or two.
    halves: usize,
    /// Tiles across the block.
    columns: usize,
    /// Values between two rows of tiles that belong to neither.
    gap: usize,
    /// Values of a strip.
    strip: usize,
}

impl Strips {
    /// Of tiles of six by six inputs, for vectors of `width` lanes.
    pub(super) fn of_input(tiling: &Tiling, block: Block, width: usize) -> Self {
        let single = block.columns.is_multiple_of(width);
        let gap = if single { SIDE } else { 0 };
        Self {
            lines: 6,
            halves: if single { 1 } else { 2 },
            columns: block.columns,
            gap,
            strip: SIDE * tiling.lanes + gap * tiling.lanes.div_ceil(block.columns),
        }
    }

    /// Of tiles of four by four outputs.
    pub(super) fn of_output(tiling: &Tiling, block: Block) -> Self {
        Self {
            lines: 4,
            halves: 1,
            columns: block.columns,
            gap: 0,
            strip: SIDE * tiling.lanes,
        }
    }

    /// Values of all strips.
    pub(super) fn len(&self) -> usize {
        self.lines * self.halves * self.strip
    }

    /// Where the values of a vector that starts with `lane` lie in the strips of a line.
    #[inline(always)]
    pub(super) fn at(&self, line: usize, lane: usize) -> usize {
        self.halves * line * self.strip + SIDE * lane + lane / self.columns * self.gap
    }

    /// How much further on those of the four columns after them lie.
    #[inline(always)]
    pub(super) fn next(&self) -> usize {
        if self.halves == 1 {
            self.gap
        } else {
            self.strip
        }
    }

    /// Copies the lines of a channel, with zeros where the image or the block ends.
    pub(super) fn fill(
        &self,
        (tiling, block): (&Tiling, Block),
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
        let count = SIDE * block.columns + self.gap;
        for row in 0..block.rows {
            let (image, first_line) = tiling.place(block.row + row);
            let plane = &data[(image * channels + channel) * height * width..][..height * width];
            for line in 0..self.lines {
                let y = (first_line + line).checked_sub(top).filter(|&y| y < height);
                let source = y.map(|y| &plane[y * width..][..width]);
                for half in 0..self.halves {
                    let start = (self.halves * line + half) * self.strip + row * count;
                    let column = SIDE * (block.column + half);
                    let to = &mut to[start..start + count];
                    copy_padded(source, column as isize - left as isize, to);
                }
            }
        }
        for strip in to.chunks_exact_mut(self.strip) {
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
