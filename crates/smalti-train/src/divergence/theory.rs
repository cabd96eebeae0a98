//! What the theory promises about the error of quantizing a Gaussian posterior with random codes.
//!
//! A posterior N(μ, σ²) is quantized to the nearest of K codes that are drawn from N(0, 1); the error is
//! *large* where |ẑ − μ| ≥ σ. Whether that happens depends on K and on the divergence
//! R = KL(N(μ, σ²) ‖ N(0, 1)) = ½ (μ² + σ² − 1 − ln σ²) alone, up to small constants: with P the probability
//! that one code falls within σ of the mean, Pr{large} = (1 − P)ᴷ, and P is e^(−R) up to these constants.
//!
//! **Scalars** (Xu et al., "Training-Free Vector Quantization via Gaussian VAEs", arXiv 2512.06609, section 3).
//! With |μσ| ≤ c₁ and |μ| + σ ≤ c₂:
//!
//! - Theorem 3.1, ln K = R + t: Pr{large} ≤ exp(−eᵗ · √(2/π) · e^(−c₁ − ½)),
//!   from P ≥ 2σφ(|μ| + σ) = √(2/π) · e^(−R − |μσ| − ½);
//! - Theorem 3.2, ln K = R − t: Pr{large} ≥ 1 − e^(−t) · √(2/π) · e^(½c₂² − ½),
//!   from P ≤ √(2/π) σ = √(2/π) · e^(−R + (μ² + σ²)/2 − ½) and (1 − P)ᴷ ≥ 1 − KP.
//!
//! **Groups.** The paper carries this over to m dimensions by adding up their divergences, without constants.
//! The event is here that the mean of the squared normalised errors, Σ((ẑ − μ)/σ)² / m, is at least 1, which for
//! m = 1 is the one above, and the constants are derived in the same two steps. B is the ellipsoid of codes
//! with a smaller error, Q the posterior's share in it (that of a χ² of m degrees below m) and ρ the mean of
//! e² = ((z − μ)/σ)² there (the χ² distribution function at m of m + 2 degrees, over Q):
//!
//! - ln P = ln Q + ln E\[p/q | B\] ≥ ln Q + E\[ln p/q | B\] (Jensen) = ln Q − R − ½(1 − ρ) Σ(1 − σ²);
//! - P ≤ e^(m/2) E\[e^(−Σe²/2)\] (Chernoff, exponent ½), which is
//!   e^(−R) · exp(½ Σ[μ²σ²/(1 + σ²) + σ² − ln(1 + σ²)]);
//! - P ≤ volume of B · (2π)^(−m/2) = (m/2)^(m/2) / Γ(m/2 + 1) · e^(−R + ½Σ(μ² + σ² − 1)), the paper's own step
//!   (for m = 1 the factor is √(2/π)); the smaller of the two upper bounds counts.
//!
//! Everything here is about codes that are independent and about the code nearest in units of σ. A quantizer
//! that weighs by the prior (`beta` = 1) may choose a code farther away, so for it only the lower bounds on
//! Pr{large} are certain; scrambled Sobol codes are more even than independent ones.

use std::f64::consts::{FRAC_2_PI, LN_2, PI};

/// KL(N(μ, σ²) ‖ N(0, 1)) in bits, σ² given as its logarithm.
pub fn divergence_bits(mean: f64, log_variance: f64) -> f64 {
    0.5 * (mean * mean + log_variance.exp() - 1.0 - log_variance) / LN_2
}

/// One scalar posterior.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scalar {
    /// μ
    pub mean: f64,
    /// σ
    pub deviation: f64,
}

impl Scalar {
    /// R in bits.
    pub fn bits(&self) -> f64 {
        divergence_bits(self.mean, 2.0 * self.deviation.ln())
    }

    /// |μσ|, the least c₁ of Theorem 3.1.
    pub fn c1(&self) -> f64 {
        (self.mean * self.deviation).abs()
    }

    /// |μ| + σ, the least c₂ of Theorem 3.2.
    pub fn c2(&self) -> f64 {
        self.mean.abs() + self.deviation
    }

    /// P: how likely one standard normal code lies within σ of the mean.
    ///
    /// Φ(μ + σ) − Φ(μ − σ) would cancel; the density is integrated instead.
    pub fn hit(&self) -> f64 {
        let (mut middle, mut half_width) = (self.mean, self.deviation);
        if half_width > 1.0 {
            // Beyond 40 the density is 0 in f64.
            let low = (middle - half_width).clamp(-40.0, 40.0);
            let high = (middle + half_width).clamp(-40.0, 40.0);
            (middle, half_width) = (0.5 * (low + high), 0.5 * (high - low));
        }
        integral(middle, half_width, |z| (-0.5 * z * z).exp()) / (2.0 * PI).sqrt()
    }

    /// Pr{large error} with `2^codebook_bits` codes, without any constant.
    pub fn large_error(&self, codebook_bits: f64) -> f64 {
        all_miss(self.hit(), codebook_bits)
    }
}

/// Theorem 3.1: no more than this is Pr{large error} where log2 K exceeds R by `excess_bits`.
pub fn at_most(excess_bits: f64, c1: f64) -> f64 {
    (-(excess_bits * LN_2).exp() * FRAC_2_PI.sqrt() * (-c1 - 0.5).exp()).exp()
}

/// Theorem 3.2: no less than this is Pr{large error} where log2 K exceeds R by `excess_bits`, which it does
/// negatively where the theorem says something.
pub fn at_least(excess_bits: f64, c2: f64) -> f64 {
    let exponent = excess_bits * LN_2 + 0.5 * c2 * c2 - 0.5;
    (1.0 - FRAC_2_PI.sqrt() * exponent.exp()).max(0.0)
}

/// (1 − P)ᴷ, also where P is tiny and K huge.
fn all_miss(hit: f64, codebook_bits: f64) -> f64 {
    match hit < 1.0 {
        true => (codebook_bits.exp2() * (-hit).ln_1p()).exp(),
        false => 0.0,
    }
}

/// The bounds for groups of one size.
#[derive(Clone, Copy, Debug)]
pub struct GroupBounds {
    /// ln Q
    log_share: f64,
    /// ½(1 − ρ)
    inside: f64,
    /// ln of (m/2)^(m/2) / Γ(m/2 + 1)
    log_volume: f64,
}

impl GroupBounds {
    /// For groups of `size` scalars.
    ///
    /// # Panics
    /// When there are none.
    pub fn new(size: usize) -> Self {
        assert!(size > 0, "a group holds at least one scalar");
        let half = size as f64 / 2.0;
        let log_volume = half * half.ln() - log_gamma_half(size + 2);
        // P(a + 1, x) = P(a, x) − x^a e^(−x) / Γ(a + 1), here at a = x = m/2.
        let share = gamma_share(size);
        let wider = share - (log_volume - half).exp();
        Self {
            log_share: share.ln(),
            inside: 0.5 * (1.0 - wider / share),
            log_volume,
        }
    }

    /// No less and no more than these is Pr{mean squared normalised error ≥ 1} with `2^codebook_bits` codes.
    pub fn large_error(&self, group: &[Scalar], codebook_bits: f64) -> (f64, f64) {
        let nats = group.iter().map(Scalar::bits).sum::<f64>() * LN_2;
        let mut surplus = 0.0;
        let mut chernoff = 0.0;
        let mut volume = self.log_volume;
        for Scalar { mean, deviation } in group {
            let (square, variance) = (mean * mean, deviation * deviation);
            surplus += 1.0 - variance;
            chernoff += 0.5 * (square * variance / (1.0 + variance) + variance - variance.ln_1p());
            volume += 0.5 * (square + variance - 1.0);
        }
        let fewest = (self.log_share - nats - self.inside * surplus).min(0.0);
        let most = (chernoff.min(volume) - nats).min(0.0);
        (
            all_miss(most.exp(), codebook_bits),
            all_miss(fewest.exp(), codebook_bits),
        )
    }
}

/// ln Γ(n/2) for n ≥ 1.
fn log_gamma_half(n: usize) -> f64 {
    let (mut value, mut argument) = match n.is_multiple_of(2) {
        true => (0.0, 1.0),
        false => (0.5 * PI.ln(), 0.5),
    };
    while argument < n as f64 / 2.0 - 0.25 {
        value += f64::ln(argument);
        argument += 1.0;
    }
    value
}

/// The share of a χ² distribution of m degrees below m: the regularised incomplete gamma function P(m/2, m/2),
/// by its power series, all of whose terms are positive.
fn gamma_share(m: usize) -> f64 {
    let a = m as f64 / 2.0;
    let mut term = (a * a.ln() - a - log_gamma_half(m + 2)).exp();
    let mut sum = 0.0;
    let mut n = 1.0;
    while term > 1e-17 * sum {
        sum += term;
        term *= a / (a + n);
        n += 1.0;
    }
    sum
}

/// Gauss-Legendre with eight points on panels no wider than ½: to the last digits for the normal density.
fn integral(middle: f64, half_width: f64, function: impl Fn(f64) -> f64) -> f64 {
    const NODES: [(f64, f64); 4] = [
        (0.183_434_642_495_649_8, 0.362_683_783_378_362),
        (0.525_532_409_916_329, 0.313_706_645_877_887_3),
        (0.796_666_477_413_626_7, 0.222_381_034_453_374_48),
        (0.960_289_856_497_536_3, 0.101_228_536_290_376_26),
    ];
    let panels = (half_width * 4.0).ceil().max(1.0);
    let half = half_width / panels;
    let panel = |index: usize| {
        let centre = middle + half * ((2 * index + 1) as f64 - panels);
        let pairs = NODES.map(|(node, weight)| {
            weight * (function(centre - half * node) + function(centre + half * node))
        });
        pairs.iter().sum::<f64>() * half
    };
    (0..panels as usize).map(panel).sum()
}

#[cfg(test)]
#[path = "theory_tests.rs"]
mod tests;
