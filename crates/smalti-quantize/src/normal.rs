//! The standard normal distribution in double precision: density and inverse distribution function.

use std::f64::consts::TAU;

/// `φ(x) = exp(−x²/2)/√(2π)`
pub fn density(x: f64) -> f64 {
    (-0.5 * x * x).exp() / TAU.sqrt()
}

/// The number below which a standard normal number lies with the given probability: ±infinity for
/// 1 and 0, NaN outside.
///
/// Wichura's algorithm AS 241 (Applied Statistics 37, 1988), routine PPND16: a relative error of
/// about 1e-16.
pub fn inverse_cdf(probability: f64) -> f64 {
    let q = probability - 0.5;
    if q.abs() <= 0.425 {
        let r = 0.180_625 - q * q;
        return q * ratio(r, &CENTRE);
    }
    let tail = if q < 0.0 {
        probability
    } else {
        1.0 - probability
    };
    if tail == 0.0 {
        return f64::INFINITY.copysign(q);
    }
    let r = (-tail.ln()).sqrt();
    let value = if r <= 5.0 {
        ratio(r - 1.6, &TAIL)
    } else {
        ratio(r - 5.0, &FAR_TAIL)
    };
    value.copysign(q)
}

/// Coefficients of numerator and denominator, constant first.
type Ratio = [[f64; 8]; 2];

fn ratio(x: f64, [above, below]: &Ratio) -> f64 {
    let polynomial = |c: &[f64; 8]| c.iter().rev().fold(0.0, |sum, c| sum * x + c);
    polynomial(above) / polynomial(below)
}

const CENTRE: Ratio = [
    [
        3.387_132_872_796_366_5,
        133.141_667_891_784_38,
        1_971.590_950_306_551_3,
        13_731.693_765_509_46,
        45_921.953_931_549_87,
        67_265.770_927_008_7,
        33_430.575_583_588_13,
        2_509.080_928_730_122_7,
    ],
    [
        1.0,
        42.313_330_701_600_91,
        687.187_007_492_057_9,
        5_394.196_021_424_751,
        21_213.794_301_586_597,
        39_307.895_800_092_71,
        28_729.085_735_721_943,
        5_226.495_278_852_854,
    ],
];

const TAIL: Ratio = [
    [
        1.423_437_110_749_683_5,
        4.630_337_846_156_546,
        5.769_497_221_460_691,
        3.647_848_324_763_204_5,
        1.270_458_252_452_368_4,
        0.241_780_725_177_450_6,
        0.022_723_844_989_269_184,
        0.000_774_545_014_278_341_4,
    ],
    [
        1.0,
        2.053_191_626_637_759,
        1.676_384_830_183_803_8,
        0.689_767_334_985_1,
        0.148_103_976_427_480_08,
        0.015_198_666_563_616_457,
        0.000_547_593_808_499_534_5,
        1.050_750_071_644_416_9e-09,
    ],
];

const FAR_TAIL: Ratio = [
    [
        6.657_904_643_501_103,
        5.463_784_911_164_114,
        1.784_826_539_917_291_3,
        0.296_560_571_828_504_87,
        0.026_532_189_526_576_124,
        0.001_242_660_947_388_078_4,
        2.711_555_568_743_487_6e-05,
        2.010_334_399_292_288_1e-07,
    ],
    [
        1.0,
        0.599_832_206_555_888,
        0.136_929_880_922_735_8,
        0.014_875_361_290_850_615,
        0.000_786_869_131_145_613_3,
        1.846_318_317_510_054_8e-05,
        1.421_511_758_316_446e-07,
        2.044_263_103_389_939_7e-15,
    ],
];

#[cfg(test)]
mod tests {
    use super::*;

    /// `P(X > x)` for x ≥ 0 by Lentz's continued fraction, and by the series around 0 below 2.
    fn upper_tail(x: f64) -> f64 {
        if x < 2.0 {
            let (mut term, mut sum) = (x, x);
            for k in 1..60 {
                term *= x * x / f64::from(2 * k + 1);
                sum += term;
            }
            return 0.5 - density(x) * sum;
        }
        let mut tail = x;
        for k in (1..=400).rev() {
            tail = x + f64::from(k) / tail;
        }
        density(x) / tail
    }

    #[test]
    fn undoes_the_distribution_function() {
        // Every order of magnitude that a 30-bit probability can have, and far beyond.
        for step in 0..2000 {
            let probability = 0.5 * (-f64::from(step) * 0.02).exp();
            let x = inverse_cdf(probability);
            assert!(x <= 0.0);
            let error = upper_tail(-x) / probability - 1.0;
            // The tail amplifies an error of x by x²: 1e-15 of x is about 8e-14 here.
            assert!(error.abs() < 2e-13, "{probability}: {x}, {error}");
            if probability > 1e-6 {
                let mirrored = inverse_cdf(1.0 - probability);
                assert!((mirrored + x).abs() < 1e-9, "{probability}: {mirrored} {x}");
            }
        }
    }

    #[test]
    fn known_numbers() {
        // Upper quantiles from published tables.
        let known = [
            (0.5, 0.0),
            (0.75, 0.674_489_750_196_081_7),
            (0.975, 1.959_963_984_540_054),
            (0.999, 3.090_232_306_167_813_5),
            (1e-10, -6.361_340_902_404_056),
        ];
        for (probability, x) in known {
            let got = inverse_cdf(probability);
            assert!(
                (got - x).abs() <= 1e-14 * x.abs(),
                "{probability}: {got} {x}"
            );
        }
        assert_eq!(inverse_cdf(0.0), f64::NEG_INFINITY);
        assert_eq!(inverse_cdf(1.0), f64::INFINITY);
        assert!(inverse_cdf(-0.1).is_nan() && inverse_cdf(1.1).is_nan());
        assert!((density(0.0) - 0.398_942_280_401_432_7).abs() < 1e-16);
    }
}
