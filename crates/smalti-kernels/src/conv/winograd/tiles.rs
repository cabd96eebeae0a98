//! The tiles of all images, cut into blocks.

use crate::Simd;
use crate::gemm::dispatch;

/// Side of a tile of outputs.
pub(super) const SIDE: usize = 4;

/// How the tiles are cut into blocks.
///
/// The rows of tiles of all images are numbered through. A block has some rows of tiles (a band) and
/// of these some columns, all of them where it has several rows.
pub(super) struct Tiling {
    /// Tiles across an image, rows of tiles down an image, rows of tiles in all images.
    columns: usize,
    rows: usize,
    all_rows: usize,
    /// Rows of tiles in a band, tiles across a block.
    band_rows: usize,
    block_columns: usize,
    /// Blocks across a band.
    across: usize,
    /// Number of blocks.
    pub(super) blocks: usize,
    /// Tiles of a block, rounded up to whole vectors, two at a time.
    pub(super) lanes: usize,
}

/// The tiles of one block.
#[derive(Clone, Copy)]
pub(super) struct Block {
    /// First row of tiles and how many.
    pub(super) row: usize,
    pub(super) rows: usize,
    /// First column of tiles and how many.
    pub(super) column: usize,
    pub(super) columns: usize,
}

impl Tiling {
    /// Tiles of `batch` images of `[height, width]` outputs, about `wanted` of them in a block.
    pub(super) fn new(
        simd: Simd,
        batch: usize,
        [height, width]: [usize; 2],
        wanted: usize,
    ) -> Self {
        let (columns, rows) = (width.div_ceil(SIDE), height.div_ceil(SIDE));
        let pair = 2 * dispatch::lanes(simd);
        let wanted = wanted.max(pair);
        let block_columns = columns.min(wanted);
        let all_rows = batch * rows;
        let band_rows = match block_columns < columns {
            true => 1,
            false => (wanted / columns).clamp(1, all_rows.max(1)),
        };
        let across = columns.div_ceil(block_columns);
        Self {
            columns,
            rows,
            all_rows,
            band_rows,
            block_columns,
            across,
            blocks: across * all_rows.div_ceil(band_rows),
            lanes: (band_rows * block_columns).next_multiple_of(pair),
        }
    }

    /// The block of that number.
    pub(super) fn block(&self, index: usize) -> Block {
        let (row, column) = (
            index / self.across * self.band_rows,
            index % self.across * self.block_columns,
        );
        Block {
            row,
            rows: self.band_rows.min(self.all_rows - row),
            column,
            columns: self.block_columns.min(self.columns - column),
        }
    }

    /// Image and first output line of a row of tiles.
    pub(super) fn place(&self, row: usize) -> (usize, usize) {
        (row / self.rows, row % self.rows * SIDE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tile_is_in_one_block() {
        for (batch, size, wanted) in [(3, [16, 16], 64), (1, [9, 700], 64), (2, [70, 33], 40)] {
            let tiling = Tiling::new(Simd::Portable, batch, size, wanted);
            let columns = size[1].div_ceil(SIDE);
            let mut seen = vec![0; batch * size[0].div_ceil(SIDE) * columns];
            for index in 0..tiling.blocks {
                let block = tiling.block(index);
                assert!(block.rows * block.columns <= tiling.lanes);
                for row in block.row..block.row + block.rows {
                    for column in block.column..block.column + block.columns {
                        seen[row * columns + column] += 1;
                    }
                }
            }
            assert!(seen.iter().all(|&count| count == 1));
            assert_eq!(tiling.place(tiling.rows + 1), (1, SIDE));
        }
    }
}
