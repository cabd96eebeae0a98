//! Finite scalar quantization: every channel is bounded and rounded to a few levels; the codebook
//! is the product of the levels and is never stored (Mentzer et al., ICLR 2024).
//!
//! With `L` levels and `m = ⌊L/2⌋`, [`Bound::Official`] (section 3.1, appendix A.1):
//! `y = tanh(x + s)·h − o` with `h = (L − 1)(1 + 10⁻³)/2`, `o = ½` for even L and 0 for odd,
//! `s = artanh(o/h)`; the digit is `k = round(y) + m`, rounding halves to even, the value `(k − m)/m`:
//! {−4 … 3}/4 for L = 8. [`Bound::Symmetric`] (Parker et al., 2024, section 3.2):
//! `k = ⌊(L − 1)(tanh x + 1)/2 + ½⌋`, value `2k/(L − 1) − 1`: both ends are ±1. [`Bound::Clamped`] has
//! x clamped to [−1, 1] instead of its tanh, for latents that are bounded already.
//!
//! The gradient is that of the bounded value: straight through the rounding only. There is no loss
//! and no state.
//!
//! Shapes: latents `[batch, depth · n, height, width]` for n levels, codes
//! `[batch, depth, height, width]`; ids see [`digits`](crate::digits).
//!
//! Differences: digits are found in `f64` on the host, whatever the precision and the device, and
//! packed as whole numbers (the common libraries find ids in floating point and lose some in
//! `bf16`); a digit is clamped to its range, which the official bound leaves beyond 1000 levels.
//! Two levels under the official bound are refused: its shift there is 3.8, so that everything
//! rounds to one side.

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use smalti_nn::Noise;
use smalti_nn::state::host_values;

use crate::config::InvalidQuantizer;
use crate::digits::{Radix, Significance, product};
use crate::learning::learn_nothing;
use crate::quantizer::{check_channels, check_codes, check_finite};
use crate::rows::{single, straight_through};
use crate::{CodeSpec, Codes, Learn, QuantizeError, Quantized, Quantizer, UpdateReport};

/// What keeps a channel within its levels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// A shifted tanh: zero is a level of every even number of levels.
    #[default]
    Official,
    /// A tanh onto levels that lie symmetrically about zero.
    Symmetric,
    /// The symmetric levels, of latents cut off at ±1.
    Clamped,
}

/// The shape of a finite scalar quantizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FsqConfig {
    /// Levels of each channel of a code.
    pub levels: Vec<usize>,
    /// Codes at each position, each of its own channels.
    #[serde(default = "one")]
    pub depth: usize,
    /// What keeps a channel within its levels.
    #[serde(default)]
    pub bound: Bound,
    /// What the first channel counts for in an id. The official code's is `lowest`.
    #[serde(default = "lowest")]
    pub first_channel: Significance,
}

fn one() -> usize {
    1
}

fn lowest() -> Significance {
    Significance::Lowest
}

impl FsqConfig {
    /// One code a position, as published.
    pub fn new(levels: &[usize]) -> Self {
        Self {
            levels: levels.to_vec(),
            depth: 1,
            bound: Bound::Official,
            first_channel: Significance::Lowest,
        }
    }

    /// The levels that the paper recommends for about 2^`bits` codes (table 1): 8, 10, 12, 14 or 16
    /// bits.
    pub fn preset(bits: u32) -> Option<Self> {
        let levels: &[usize] = match bits {
            8 => &[8, 6, 5],
            10 => &[8, 5, 5, 5],
            12 => &[7, 5, 5, 5, 5],
            14 => &[8, 8, 8, 6, 5],
            16 => &[8, 8, 8, 5, 5, 5],
            _ => return None,
        };
        Some(Self::new(levels))
    }

    /// Channels of the latents.
    pub fn channels(&self) -> usize {
        self.depth * self.levels.len()
    }

    /// Checks every number.
    ///
    /// # Errors
    /// Lists all problems.
    pub fn validate(&self) -> Result<(), InvalidQuantizer> {
        let mut problems = Vec::new();
        if self.depth == 0 {
            problems.push("depth must be at least 1, got 0".into());
        }
        if self.levels.is_empty() {
            problems.push("levels must list at least one number of levels".into());
        }
        let least = if self.bound == Bound::Official { 3 } else { 2 };
        if let Some(level) = self.levels.iter().find(|level| **level < least) {
            let hint = match (level, self.bound) {
                (2, Bound::Official) => "; two levels need bound = \"symmetric\"",
                _ => "",
            };
            problems.push(format!(
                "levels must each be at least {least} here, got {level}{hint}"
            ));
        }
        problems.extend(
            product(&self.levels)
                .err()
                .map(|problem| format!("levels: {problem}")),
        );
        InvalidQuantizer::unless_empty(problems)
    }

    /// Builds the quantizer. It has no parameters.
    ///
    /// # Errors
    /// When the configuration is invalid.
    pub fn build(&self) -> Result<FsqQuantizer, InvalidQuantizer> {
        self.validate()?;
        Ok(FsqQuantizer {
            config: self.clone(),
        })
    }
}

/// Levels of every channel.
#[derive(Module, Debug)]
pub struct FsqQuantizer {
    #[module(skip)]
    config: FsqConfig,
}

/// The levels of one channel.
struct Levels {
    count: usize,
    bound: Bound,
    /// h, o and s of the official bound.
    half: f64,
    offset: f64,
    shift: f64,
}

impl Levels {
    fn new(count: usize, bound: Bound) -> Self {
        let half = (count as f64 - 1.0) * 1.001 / 2.0;
        let offset = if count.is_multiple_of(2) { 0.5 } else { 0.0 };
        Self {
            count,
            bound,
            half,
            offset,
            shift: (offset / half).atanh(),
        }
    }

    fn middle(&self) -> f64 {
        (self.count / 2) as f64
    }

    fn last(&self) -> f64 {
        (self.count - 1) as f64
    }

    fn digit(&self, latent: f32) -> u32 {
        let x = f64::from(latent);
        let symmetric = |bounded: f64| (self.last() * (bounded + 1.0) / 2.0 + 0.5).floor();
        let digit = match self.bound {
            Bound::Official => {
                let bounded = (x + self.shift).tanh() * self.half - self.offset;
                bounded.round_ties_even() + self.middle()
            }
            Bound::Symmetric => symmetric(x.tanh()),
            Bound::Clamped => symmetric(x.clamp(-1.0, 1.0)),
        };
        digit.clamp(0.0, self.last()) as u32
    }

    fn value(&self, digit: u32) -> f32 {
        let digit = f64::from(digit);
        let value = match self.bound {
            Bound::Official => (digit - self.middle()) / self.middle(),
            Bound::Symmetric | Bound::Clamped => 2.0 * digit / self.last() - 1.0,
        };
        value as f32
    }
}

impl FsqQuantizer {
    /// The configuration it was built from.
    pub fn config(&self) -> &FsqConfig {
        &self.config
    }

    fn radix(&self) -> Radix {
        Radix::new(&self.config.levels, self.config.first_channel)
    }

    fn levels(&self) -> Vec<Levels> {
        let bound = self.config.bound;
        let levels = self.config.levels.iter();
        levels.map(|&count| Levels::new(count, bound)).collect()
    }

    /// Applies `what` to every number of a map of `positions`, with the levels of its channel.
    fn each<A: Copy, B>(
        &self,
        map: &[A],
        positions: usize,
        what: impl Fn(&Levels, A) -> B,
    ) -> Vec<B> {
        let levels = self.levels();
        let channel = |place: usize| &levels[place / positions % levels.len()];
        let places = map.iter().enumerate();
        places.map(|(i, &a)| what(channel(i), a)).collect()
    }

    fn values(&self, digits: &[u32], shape: [usize; 4], device: &Device) -> Tensor<4> {
        let values = self.each(digits, shape[2] * shape[3], Levels::value);
        Tensor::from_data(TensorData::new(values, shape), device)
    }

    fn codes(&self, digits: &[u32], shape: [usize; 4], device: &Device) -> Codes {
        let [batch, _, height, width] = shape;
        let shape = [batch, self.config.depth, height, width];
        Codes::from_values(&self.radix().pack_map(digits, shape), shape, device)
    }

    /// Latents in `f32`, and their digits.
    fn rounded(&self, latents: Tensor<4>) -> Result<(Tensor<4>, Vec<u32>), QuantizeError> {
        check_channels(&latents, self.config.channels())?;
        let latents = single(latents);
        let [_, _, height, width] = latents.dims();
        let values = host_values(latents.clone().inner());
        check_finite(&values)?;
        let digits = self.each(&values, height * width, Levels::digit);
        Ok((latents, digits))
    }

    /// The value before rounding, but for a constant: what has the gradient.
    fn bounded(&self, latents: Tensor<4>) -> Tensor<4> {
        match self.config.bound {
            Bound::Official => {
                let (shape, device) = ([1, latents.dims()[1], 1, 1], latents.device());
                let constant = |of: &dyn Fn(&Levels) -> f64| {
                    let levels = self.levels();
                    let one: Vec<f32> = levels.iter().map(|levels| of(levels) as f32).collect();
                    let all = TensorData::new(one.repeat(self.config.depth), shape);
                    Tensor::<4>::from_data(all, &device)
                };
                let shift = constant(&|levels| levels.shift);
                let scale = constant(&|levels| levels.half / levels.middle());
                (latents + shift).tanh() * scale
            }
            Bound::Symmetric => latents.tanh(),
            Bound::Clamped => latents.clamp(-1.0, 1.0),
        }
    }
}

impl Quantizer for FsqQuantizer {
    fn spec(&self) -> CodeSpec {
        let size = product(&self.config.levels).expect("validated when built");
        CodeSpec {
            codebook_sizes: vec![size; self.config.depth],
            code_dim: self.config.levels.len(),
            fold: 1,
        }
    }

    fn encode(&self, latents: Tensor<4>) -> Result<Codes, QuantizeError> {
        let (latents, digits) = self.rounded(latents)?;
        Ok(self.codes(&digits, latents.dims(), &latents.device()))
    }

    fn decode(&self, codes: &Codes) -> Result<Tensor<4>, QuantizeError> {
        check_codes(codes, &self.spec())?;
        let [batch, _, height, width] = codes.dims();
        let digits = self.radix().unpack_map(&codes.values(), codes.dims());
        let shape = [batch, self.config.channels(), height, width];
        Ok(self.values(&digits, shape, &codes.tensor().device()))
    }

    fn quantize(&self, latents: Tensor<4>, _noise: &mut Noise) -> Result<Quantized, QuantizeError> {
        let (latents, digits) = self.rounded(latents)?;
        let (shape, device) = (latents.dims(), latents.device());
        let values = self.values(&digits, shape, &device);
        Ok(Quantized::new(
            straight_through(self.bounded(latents), values),
            self.codes(&digits, shape, &device),
            Vec::new(),
        ))
    }
}

impl Learn for FsqQuantizer {
    fn quantize_and_update(
        &mut self,
        latents: Tensor<4>,
        noise: &mut Noise,
    ) -> Result<(Quantized, UpdateReport), QuantizeError> {
        learn_nothing(self, latents, noise)
    }
}

#[cfg(test)]
mod tests;
