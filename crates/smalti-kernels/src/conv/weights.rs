//! Weights in the order in which the forward kernel reads them.
//!
//! The kernel's inner dimension runs over *steps*, a step being an input channel and a tap. Input
//! channels are taken in equal groups, so that the steps of one group are few enough for the caches;
//! weights are packed `[group][tile of outputs][step][output]`. Within a group the steps run through
//! a channel's taps first if weights lie that way in memory, as they do in the forward pass, else
//! through a tap's channels.

use rayon::prelude::*;

use crate::Simd;
use crate::gemm::PARALLEL_FROM;
use crate::gemm::dispatch;
use crate::gemm::outer;
use crate::gemm::pack::{self, Pack};

/// Steps between two visits of the output, about.
const DEPTH: usize = 320;

/// Weights as the kernel sees them: output o, input c and tap t (row-major over the windows' taps) is
/// `data[o · out_stride + c · in_stride + taps[t]]`.
pub(super) struct Weights<'a> {
    pub(super) data: &'a [f32],
    pub(super) out_stride: usize,
    pub(super) in_stride: usize,
    pub(super) taps: Vec<usize>,
}

/// The input channels in equal groups, and the order of steps inside a group.
pub(super) struct ChannelGroups {
    simd: Simd,
    channels: usize,
    out_channels: usize,
    pub(super) groups: usize,
    pub(super) taps: usize,
    /// Steps run through a channel's taps first; else through a tap's channels.
    taps_first: bool,
}

impl ChannelGroups {
    /// Groups for `[input, output]` channels.
    pub(super) fn new(simd: Simd, weights: &Weights, [channels, out_channels]: [usize; 2]) -> Self {
        let taps = weights.taps.len();
        let groups = channels.div_ceil((DEPTH / taps).max(1)).max(1);
        // Weights whose taps and channels are contiguous pack by transposing.
        let contiguous = weights.taps.iter().copied().eq(0..taps) && weights.in_stride == taps;
        Self {
            simd,
            channels,
            out_channels,
            groups,
            taps,
            taps_first: contiguous,
        }
    }

    /// Channels of group `g`: from, to.
    pub(super) fn group(&self, g: usize) -> [usize; 2] {
        [g, g + 1].map(|g| g * self.channels / self.groups)
    }

    /// Channel and tap of step k of a group of `channels` channels.
    pub(super) fn step(&self, channels: usize, k: usize) -> (usize, usize) {
        if self.taps_first {
            (k / self.taps, k % self.taps)
        } else {
            (k % channels, k / channels)
        }
    }

    /// Space for one packed tile; tiles stand `max_rows` apart, whatever their height.
    pub(super) fn tile_len(&self) -> usize {
        let steps = self.largest() * self.taps;
        (outer::max_rows(self.simd) * steps + pack::SLACK).next_multiple_of(16)
    }

    /// Space for all packed tiles.
    pub(super) fn packed_len(&self) -> usize {
        let tiles = outer::row_tiles(self.simd, self.out_channels).count();
        self.groups * tiles * self.tile_len()
    }

    /// The most channels in a group.
    pub(super) fn largest(&self) -> usize {
        self.channels.div_ceil(self.groups)
    }

    /// Packs all weights: `[group][tile of outputs][step][output]`.
    pub(super) fn pack(&self, weights: &Weights, to: &mut [f32]) {
        let tiles: Vec<_> = outer::row_tiles(self.simd, self.out_channels).collect();
        let one = |(index, to): (usize, &mut [f32])| {
            let (group, (first, outputs)) =
                (self.group(index / tiles.len()), tiles[index % tiles.len()]);
            self.pack_tile(weights, group, [first, outputs], to);
        };
        if self.out_channels * self.channels * self.taps >= PARALLEL_FROM / 16 {
            to.par_chunks_mut(self.tile_len()).enumerate().for_each(one);
        } else {
            to.chunks_mut(self.tile_len()).enumerate().for_each(one);
        }
    }

    fn pack_tile(&self, weights: &Weights, group: [usize; 2], outputs: [usize; 2], to: &mut [f32]) {
        let (channels, [first, count]) = (group[1] - group[0], outputs);
        let from = &weights.data[first * weights.out_stride + group[0] * weights.in_stride..];
        let run = |from: &[f32], step_stride, depth, to: &mut [f32]| {
            let (from, to) = (from.as_ptr(), to.as_mut_ptr());
            let pack = Pack {
                from,
                item_stride: weights.out_stride,
                step_stride,
                items: count,
                depth,
                to,
                stride: count,
            };
            // SAFETY: the strip holds weights of these outputs, channels and taps; `to` has room for
            // the tile and the slack; the path was checked on entry.
            unsafe { dispatch::run(self.simd, pack) };
        };
        if self.taps_first {
            run(from, 1, channels * self.taps, to);
        } else {
            for (t, tap) in weights.taps.iter().enumerate() {
                run(
                    &from[*tap..],
                    weights.in_stride,
                    channels,
                    &mut to[t * channels * count..],
                );
            }
        }
    }
}
