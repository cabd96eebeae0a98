//! Resizing of float planes as `torch.nn.functional.interpolate` computes it
//! (`align_corners=False`).
//!
//! All modes are separable: every target position takes a run of source positions with weights, per
//! axis.
//! - without antialiasing the source coordinate is `(i + 1/2) in/out - 1/2`, bilinear clamps it at
//!   0, bicubic (a = -0.75) repeats the border;
//! - with antialiasing the support grows with the reduction and weights are normalised as in
//!   Pillow, with a = -0.5;
//! - `area` is the mean over `floor(i in/out) .. ceil((i+1) in/out)`, `nearest` takes `floor(i
//!   in/out)`.
//!
//! Nothing is clamped to the range of the source: cubic modes overshoot.

use crate::DataError;

/// The mode of [`interpolate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interpolation {
    /// `mode="nearest"`.
    Nearest,
    /// `mode="bilinear"`.
    Bilinear,
    /// `mode="bilinear", antialias=True`.
    BilinearAntialias,
    /// `mode="bicubic"`.
    Bicubic,
    /// `mode="bicubic", antialias=True`.
    BicubicAntialias,
    /// `mode="area"`.
    Area,
}

/// Resizes planes `[n, height, width]` (any number of channels or images) to `to` = `[height,
/// width]`.
pub fn interpolate(
    planes: &[f32],
    from: [usize; 2],
    to: [usize; 2],
    mode: Interpolation,
) -> Result<Vec<f32>, DataError> {
    for [height, width] in [from, to] {
        if height == 0 || width == 0 {
            return Err(DataError::NoPixels { width, height });
        }
    }
    let area = from[0] * from[1];
    if !planes.len().is_multiple_of(area) {
        let expected = planes.len().next_multiple_of(area);
        return Err(DataError::WrongBuffer {
            width: from[1],
            height: from[0],
            what: "values per plane",
            expected,
            got: planes.len(),
        });
    }
    let (columns, rows) = (taps(from[1], to[1], mode), taps(from[0], to[0], mode));
    let mut out = Vec::with_capacity(planes.len() / area * to[0] * to[1]);
    let mut narrow = Vec::with_capacity(from[0] * to[1]);
    let mut sums = vec![0.0; to[1]];
    for plane in planes.chunks_exact(area) {
        narrow.clear();
        for row in plane.chunks_exact(from[1]) {
            narrow.extend(columns.iter().map(|taps| {
                row[taps.start..]
                    .iter()
                    .zip(&taps.weights)
                    .map(|(x, w)| x * w)
                    .sum::<f32>()
            }));
        }
        for taps in &rows {
            sums.fill(0.0);
            for (row, weight) in narrow[taps.start * to[1]..]
                .chunks_exact(to[1])
                .zip(&taps.weights)
            {
                sums.iter_mut()
                    .zip(row)
                    .for_each(|(sum, value)| *sum += value * weight);
            }
            out.extend_from_slice(&sums);
        }
    }
    Ok(out)
}

struct Taps {
    start: usize,
    weights: Vec<f32>,
}

fn taps(from: usize, to: usize, mode: Interpolation) -> Vec<Taps> {
    // The reference computes coordinates in single precision.
    let scale = from as f32 / to as f32;
    let of_target = |target: usize| match mode {
        Interpolation::Nearest => Taps {
            start: ((target as f32 * scale) as usize).min(from - 1),
            weights: vec![1.0],
        },
        Interpolation::Area => {
            let (start, end) = (target * from / to, ((target + 1) * from).div_ceil(to));
            Taps {
                start,
                weights: vec![1.0 / (end - start) as f32; end - start],
            }
        }
        Interpolation::Bilinear => {
            let at = (scale * (target as f32 + 0.5) - 0.5).max(0.0);
            let weight = |distance: f32| (1.0 - distance.abs()).max(0.0);
            border_taps(from, at, 0..2, weight)
        }
        Interpolation::Bicubic => {
            let at = scale * (target as f32 + 0.5) - 0.5;
            border_taps(from, at, -1..3, |distance| cubic(distance, -0.75))
        }
        Interpolation::BilinearAntialias => antialias_taps(from, target, scale, 1.0, |distance| {
            (1.0 - distance.abs()).max(0.0)
        }),
        Interpolation::BicubicAntialias => {
            antialias_taps(from, target, scale, 2.0, |distance| cubic(distance, -0.5))
        }
    };
    (0..to).map(of_target).collect()
}

/// Weights at `floor(at) + reach`; what would lie outside counts for the border pixel.
fn border_taps(
    from: usize,
    at: f32,
    reach: std::ops::Range<i64>,
    weight: impl Fn(f32) -> f32,
) -> Taps {
    let floor = at.floor();
    let clamped = |offset: i64| (floor as i64 + offset).clamp(0, from as i64 - 1) as usize;
    let start = clamped(reach.start);
    let mut weights = vec![0.0; clamped(reach.end - 1) - start + 1];
    for offset in reach {
        weights[clamped(offset) - start] += weight(at - floor - offset as f32);
    }
    Taps { start, weights }
}

fn antialias_taps(
    from: usize,
    target: usize,
    scale: f32,
    radius: f32,
    weight: impl Fn(f32) -> f32,
) -> Taps {
    let stretch = scale.max(1.0);
    let support = radius * stretch;
    let centre = scale * (target as f32 + 0.5);
    let start = ((centre - support + 0.5) as i64).max(0) as usize;
    let end = ((centre + support + 0.5) as i64).min(from as i64) as usize;
    let mut weights: Vec<f32> = (start..end)
        .map(|i| weight((i as f32 - centre + 0.5) / stretch))
        .collect();
    let sum: f32 = weights.iter().sum();
    weights.iter_mut().for_each(|weight| *weight /= sum);
    Taps { start, weights }
}

fn cubic(distance: f32, a: f32) -> f32 {
    let x = distance.abs();
    match x {
        _ if x < 1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
        _ if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * a,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::Golden;

    const MODES: [(&str, Interpolation); 6] = [
        ("nearest", Interpolation::Nearest),
        ("area", Interpolation::Area),
        ("bilinear_noaa", Interpolation::Bilinear),
        ("bilinear_aa", Interpolation::BilinearAntialias),
        ("bicubic", Interpolation::Bicubic),
        ("bicubic_aa", Interpolation::BicubicAntialias),
    ];

    #[test]
    fn golden_modes() {
        let golden = Golden::open("metrics_resize");
        for case in ["rs0", "rs1"] {
            let image = golden.image(&format!("{case}.in"));
            let planes: Vec<f32> = (0..3)
                .flat_map(|channel| {
                    image
                        .pixels()
                        .iter()
                        .skip(channel)
                        .step_by(3)
                        .map(|&v| f32::from(v) / 255.0)
                })
                .collect();
            for (name, mode) in MODES {
                let name = format!("{case}.torch_{name}");
                let &[1, 3, height, width] = golden.view(&name).shape() else {
                    panic!("{name} is no image")
                };
                let got = interpolate(
                    &planes,
                    [image.height(), image.width()],
                    [height, width],
                    mode,
                )
                .unwrap();
                let expected = golden.f32(&name);
                assert_eq!(got.len(), expected.len());
                // The reference sums in another order: a few units of single precision.
                let worst = got
                    .iter()
                    .zip(&expected)
                    .map(|(a, b)| (a - b).abs())
                    .fold(0.0, f32::max);
                assert!(worst <= 2e-6, "{name} is off by {worst}");
            }
        }
    }

    #[test]
    fn constants_stay_and_wrong_sizes_are_errors() {
        for (_, mode) in MODES {
            for to in [[1, 1], [7, 2], [3, 5]] {
                let got = interpolate(&[0.5; 30], [3, 5], to, mode).unwrap();
                assert_eq!(got.len(), 2 * to[0] * to[1]);
                assert!(
                    got.iter().all(|value| (value - 0.5).abs() < 1e-6),
                    "{mode:?} {to:?}"
                );
            }
        }
        assert!(interpolate(&[0.0; 5], [2, 2], [1, 1], Interpolation::Area).is_err());
        assert!(interpolate(&[], [0, 2], [1, 1], Interpolation::Area).is_err());
    }
}
