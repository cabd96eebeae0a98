//! One training forward of the published code, replayed with its recorded random draws, then one
//! evaluation.
//!
//! Codes must be equal wherever the nearest code is nearer than the next by more than the rounding
//! error of the reference, which takes distances as ‖x‖² + ‖c‖² − 2·x·c in f32.

use std::collections::VecDeque;

use safetensors::{Dtype, SafeTensors};
use smalti_nn::state::host_values;

use super::*;
use crate::learning::Draws;
use crate::{Revival, Start, UpdateOrder};

const FILE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../goldens/rqvae_ema/tensors.safetensors"
);

/// A difference of squared distances that rounding in f32 cannot undo, at the sizes of this case.
const SAFE_MARGIN: f32 = 1e-5;

struct Variant {
    name: &'static str,
    config: ResidualConfig,
}

fn variant(
    name: &'static str,
    shared: bool,
    size: [usize; 3],
    restart: bool,
    decay: f32,
) -> Variant {
    let [codebook_size, code_dim, depth] = size;
    let revival = if restart {
        Revival::BelowOne {}
    } else {
        Revival::Off {}
    };
    let learning = Learning {
        decay,
        revival,
        order: UpdateOrder::PerDepth,
        start: Start::Normal {},
        ..Learning::default()
    };
    let config = ResidualConfig {
        shared,
        learning,
        ..ResidualConfig::new(codebook_size, code_dim, depth)
    };
    Variant { name, config }
}

/// The tensors of one variant.
struct Record<'a> {
    file: SafeTensors<'a>,
    variant: &'static str,
}

impl Record<'_> {
    fn floats(&self, name: &str) -> Vec<f32> {
        let view = self
            .file
            .tensor(&format!("{}.{name}", self.variant))
            .expect(name);
        assert_eq!(view.dtype(), Dtype::F32, "{name}");
        view.data()
            .as_chunks::<4>()
            .0
            .iter()
            .map(|&bytes| f32::from_le_bytes(bytes))
            .collect()
    }

    fn integers(&self, name: &str) -> Vec<u32> {
        let view = self
            .file
            .tensor(&format!("{}.{name}", self.variant))
            .expect(name);
        assert_eq!(view.dtype(), Dtype::I64, "{name}");
        let values = view
            .data()
            .as_chunks::<8>()
            .0
            .iter()
            .map(|&bytes| i64::from_le_bytes(bytes));
        values
            .map(|value| u32::try_from(value).expect("an id"))
            .collect()
    }

    fn has(&self, name: &str) -> bool {
        self.file
            .tensor(&format!("{}.{name}", self.variant))
            .is_ok()
    }

    /// `[batch, height, width, channels]` as a map `[batch, channels, height, width]`.
    fn latents(&self) -> Tensor<4> {
        let shape = self
            .file
            .tensor(&format!("{}.x", self.variant))
            .expect("latents")
            .shape()
            .to_vec();
        let data = TensorData::new(self.floats("x"), shape);
        Tensor::<4>::from_data(data, &Device::flex()).permute([0, 3, 1, 2])
    }

    /// The state named `before` or `after` of one codebook, without the padding row.
    fn state(&self, when: &str, book: usize) -> [Vec<f32>; 3] {
        let sizes = self.floats(&format!("{when}.cluster_size_ema.{book}"));
        let sums = self.floats(&format!("{when}.embed_ema.{book}"));
        let mut table = self.floats(&format!("{when}.weight.{book}"));
        table.truncate(sums.len());
        [table, sizes, sums]
    }
}

/// Draws that were recorded, in their order.
struct Recorded {
    permutations: VecDeque<Vec<usize>>,
    noise: VecDeque<Vec<f32>>,
}

impl Recorded {
    fn of(record: &Record, depth: usize) -> Self {
        let named = |kind: &str| -> Vec<String> {
            (0..depth)
                .map(|d| format!("{kind}.{d}"))
                .filter(|name| record.has(name))
                .collect()
        };
        let permutation =
            |name: &String| record.integers(name).iter().map(|&i| i as usize).collect();
        Self {
            permutations: named("restart_perm").iter().map(permutation).collect(),
            noise: named("restart_noise")
                .iter()
                .map(|name| record.floats(name))
                .collect(),
        }
    }
}

impl Draws for Recorded {
    fn permutation(&mut self, available: usize, count: usize) -> Vec<usize> {
        let order = self
            .permutations
            .pop_front()
            .expect("a recorded permutation");
        assert!(order.len() == count && order.iter().all(|&i| i < available));
        order
    }

    fn uniform(&mut self, count: usize) -> Vec<f32> {
        let noise = self.noise.pop_front().expect("recorded noise");
        assert_eq!(noise.len(), count);
        noise
    }
}

/// Ids `[batch, depth, height, width]` in the reference's order, the depth fastest.
fn depth_last(codes: &Codes) -> Vec<u32> {
    let [batch, depth, height, width] = codes.dims();
    let (ids, positions) = (codes.values(), height * width);
    let at = |b: usize, p: usize, d: usize| ids[(b * depth + d) * positions + p];
    (0..batch * positions * depth)
        .map(|i| at(i / depth / positions, i / depth % positions, i % depth))
        .collect()
}

fn check(variant: &Variant) {
    let bytes = std::fs::read(FILE).expect("the golden file");
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let record = Record {
        file,
        variant: variant.name,
    };
    let config = &variant.config;
    let books = if config.shared { 1 } else { config.depth };
    let before: Vec<[Vec<f32>; 3]> = (0..books)
        .map(|book| record.state("before", book))
        .collect();
    let before: Vec<[&[f32]; 3]> = before.iter().map(|s| [&s[0][..], &s[1], &s[2]]).collect();
    let mut quantizer = with_state(config, &Device::flex(), &before);

    let mut draws = Recorded::of(&record, config.depth);
    assert_eq!(
        draws.permutations.is_empty(),
        config.learning.revival == (Revival::Off {})
    );
    let mut noise = Noise::from_seed(0);
    let (seen, _) = quantizer
        .train_with(record.latents(), &mut noise, &mut draws)
        .expect("finite latents");
    assert!(
        draws.permutations.is_empty() && draws.noise.is_empty(),
        "every recorded draw was used"
    );

    let safe = record
        .floats("margin")
        .into_iter()
        .map(|margin| margin > SAFE_MARGIN);
    let both = depth_last(&seen.codes)
        .into_iter()
        .zip(record.integers("codes"));
    for (i, ((got, expected), safe)) in both.zip(safe).enumerate() {
        assert!(
            got == expected || !safe,
            "{}: code {i}: expected {expected}, got {got}",
            variant.name
        );
    }
    let what = |name: &str| format!("{} {name}", variant.name);
    let quantized = host_values(seen.quantized.permute([0, 2, 3, 1]));
    assert_close(&quantized, &record.floats("z_q"), 1e-4, 1e-5, &what("z_q"));
    let commitment = host_values(seen.losses[0].1.clone());
    assert_close(
        &commitment,
        &record.floats("commit"),
        1e-4,
        1e-5,
        &what("commit"),
    );
    for book in 0..books {
        let after = record.state("after", book);
        for (field, expected) in ["weight", "cluster_size_ema", "embed_ema"]
            .iter()
            .zip(&after)
        {
            let got = state(&quantizer, &format!("codebooks.{book}.{field}"));
            assert_close(&got, expected, 1e-4, 1e-5, &what(field));
        }
    }
    let evaluated = quantizer
        .quantize(record.latents(), &mut noise)
        .expect("finite latents");
    assert_eq!(
        depth_last(&evaluated.codes),
        record.integers("eval_codes_after"),
        "{}",
        variant.name
    );
    let commitment = host_values(evaluated.losses[0].1.clone());
    assert_close(
        &commitment,
        &record.floats("eval_commit_after"),
        1e-4,
        1e-5,
        &what("eval_commit"),
    );
}

#[test]
fn averages_of_a_shared_codebook() {
    check(&variant("shared_norestart", true, [40, 8, 3], false, 0.99));
}

#[test]
fn revival_of_a_shared_codebook() {
    check(&variant("shared_restart", true, [32, 8, 3], true, 0.99));
}

#[test]
fn revival_with_fewer_vectors_than_codes() {
    check(&variant(
        "shared_restart_tile",
        true,
        [100, 6, 2],
        true,
        0.95,
    ));
}

#[test]
fn averages_of_separate_codebooks() {
    check(&variant(
        "nonshared_norestart",
        false,
        [24, 5, 2],
        false,
        0.9,
    ));
}

#[test]
fn averages_that_start_at_zero() {
    check(&variant("zeroinit", true, [16, 4, 2], false, 0.99));
}
