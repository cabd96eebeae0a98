use super::*;
use crate::noise::noise;

struct Case {
    batch: usize,
    channels: usize,
    groups: usize,
    spatial: usize,
    silu: bool,
}

/// Batch, channels, groups and spatial size: register tails, one position, one group, long channels.
fn cases() -> Vec<Case> {
    let shapes = [
        (1, 1, 1, 1),
        (2, 4, 2, 1),
        (3, 6, 3, 4),
        (2, 32, 32, 16),
        (2, 32, 32, 64),
        (1, 8, 2, 35),
        (2, 6, 1, 49),
        (1, 4, 2, 5003),
        (5, 12, 4, 17),
    ];
    let case = |(batch, channels, groups, spatial), silu| Case {
        batch,
        channels,
        groups,
        spatial,
        silu,
    };
    shapes
        .into_iter()
        .flat_map(|shape| [case(shape, false), case(shape, true)])
        .collect()
}

impl Case {
    fn name(&self, simd: Simd) -> String {
        let Self {
            batch,
            channels,
            groups,
            spatial,
            silu,
        } = self;
        format!("{simd:?} [{batch}, {channels}, {spatial}] in {groups} groups, silu {silu}")
    }

    fn norm<'a>(&self, gamma: &'a [f32], beta: &'a [f32]) -> GroupNorm<'a> {
        let &Case {
            groups,
            spatial,
            silu,
            ..
        } = self;
        GroupNorm {
            groups,
            spatial,
            eps: 1e-5,
            silu,
            gamma,
            beta,
        }
    }

    /// Output, then the gradients of input, gamma and beta of Σ output·grad, in f64.
    fn reference(&self, x: &[f32], gamma: &[f32], beta: &[f32], grad: &[f32]) -> [Vec<f64>; 4] {
        let width = self.channels / self.groups;
        let length = width * self.spatial;
        let mut out = [vec![0.0; x.len()], vec![0.0; x.len()], vec![], vec![]];
        (out[2], out[3]) = (vec![0.0; self.channels], vec![0.0; self.channels]);
        for group in 0..self.batch * self.groups {
            let value = |i: usize| f64::from(x[group * length + i]);
            let n = length as f64;
            let mean = (0..length).map(value).sum::<f64>() / n;
            let variance = (0..length).map(|i| (value(i) - mean).powi(2)).sum::<f64>() / n;
            let rstd = 1.0 / (variance + 1e-5).sqrt();
            let (mut terms, mut means) = (Vec::new(), [0.0; 2]);
            for i in 0..length {
                let channel = group % self.groups * width + i / self.spatial;
                let (g, b) = (f64::from(gamma[channel]), f64::from(beta[channel]));
                let normal = (value(i) - mean) * rstd;
                let z = g * normal + b;
                let sigma = 1.0 / (1.0 + (-z).exp());
                let (y, slope) = if self.silu {
                    (z * sigma, sigma * (1.0 + z * (1.0 - sigma)))
                } else {
                    (z, 1.0)
                };
                out[0][group * length + i] = y;
                let dz = f64::from(grad[group * length + i]) * slope;
                out[2][channel] += dz * normal;
                out[3][channel] += dz;
                terms.push((dz * g, normal));
                means[0] += dz * g / n;
                means[1] += dz * g * normal / n;
            }
            for (i, (dn, normal)) in terms.iter().enumerate() {
                out[1][group * length + i] = rstd * (dn - means[0] - normal * means[1]);
            }
        }
        out
    }
}

fn close(got: &[f32], want: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!(
            (f64::from(*g) - w).abs() <= tolerance * w.abs().max(1.0),
            "{what} at {i}: {g} for {w}"
        );
    }
}

#[test]
fn agrees_with_f64_on_every_path() {
    for case in cases() {
        let count = case.batch * case.channels * case.spatial;
        let (x, grad) = (noise(count, 1), noise(count, 2));
        let (gamma, beta) = (noise(case.channels, 3), noise(case.channels, 4));
        let norm = case.norm(&gamma, &beta);
        let want = case.reference(&x, &gamma, &beta, &grad);
        for simd in Simd::available() {
            let name = case.name(simd);
            let mut y = vec![f32::NAN; count];
            let moments = norm.forward_on(simd, &x, &mut y);
            close(&y, &want[0], 2e-6, &name);
            // A group of one number has variance zero: its gradient is a difference of large numbers.
            let tolerance = if case.channels / case.groups * case.spatial == 1 {
                1e-3
            } else {
                1e-5
            };
            let mut dx = vec![f32::NAN; count];
            let affine = norm.backward_on(simd, &x, &moments, Some(&grad), &mut dx);
            close(&dx, &want[1], tolerance, &format!("{name}: input"));
            // Sums of terms of either sign: their error grows with the root of their number.
            let tolerance = 1e-6 * ((case.batch * case.spatial) as f64).sqrt().max(10.0);
            close(
                &affine.gamma,
                &want[2],
                tolerance,
                &format!("{name}: gamma"),
            );
            close(&affine.beta, &want[3], tolerance, &format!("{name}: beta"));
            let mut over = grad.clone();
            assert_eq!(
                norm.backward_on(simd, &x, &moments, None, &mut over),
                affine,
                "{name}"
            );
            assert_eq!(over, dx, "{name}: in place");
        }
    }
}

/// The f64 form above is itself held against differences.
#[test]
fn the_reference_gradient_is_the_slope_of_the_output() {
    let case = Case {
        batch: 2,
        channels: 4,
        groups: 2,
        spatial: 3,
        silu: true,
    };
    let (mut x, grad) = (noise(24, 5), noise(24, 6));
    let (gamma, beta) = (noise(4, 7), noise(4, 8));
    let loss = |x: &[f32], gamma: &[f32]| -> f64 {
        let [y, ..] = case.reference(x, gamma, &beta, &grad);
        y.iter().zip(&grad).map(|(y, g)| y * f64::from(*g)).sum()
    };
    let want = case.reference(&x, &gamma, &beta, &grad);
    let step = 1.0 / 1024.0;
    for i in 0..24 {
        let middle = x[i];
        x[i] = middle + step;
        let above = loss(&x, &gamma);
        x[i] = middle - step;
        let slope = (above - loss(&x, &gamma)) / (2.0 * f64::from(step));
        x[i] = middle;
        assert!(
            (slope - want[1][i]).abs() < 1e-4,
            "input {i}: {slope} for {}",
            want[1][i]
        );
    }
    for i in 0..4 {
        let (mut above, mut below) = (gamma.clone(), gamma.clone());
        above[i] += step;
        below[i] -= step;
        let slope = (loss(&x, &above) - loss(&x, &below)) / (2.0 * f64::from(step));
        assert!(
            (slope - want[2][i]).abs() < 1e-4,
            "gamma {i}: {slope} for {}",
            want[2][i]
        );
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let (x, grad) = (noise(7 * 24 * 1000, 9), noise(7 * 24 * 1000, 10));
    let (gamma, beta) = (noise(24, 11), noise(24, 12));
    let norm = GroupNorm {
        groups: 8,
        spatial: 1000,
        eps: 1e-6,
        silu: true,
        gamma: &gamma,
        beta: &beta,
    };
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let (mut y, mut dx) = (vec![0.0; x.len()], vec![0.0; x.len()]);
            let moments = norm.forward(&x, &mut y);
            let affine = norm.backward(&x, &moments, &grad, &mut dx);
            (y, dx, affine.gamma, affine.beta)
        })
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn a_nan_spoils_its_group_and_no_other() {
    let (gamma, beta) = (vec![1.0; 4], vec![0.0; 4]);
    for simd in Simd::available() {
        let mut x = noise(4 * 20, 13);
        x[23] = f32::NAN;
        let mut y = vec![0.0; 80];
        let norm = GroupNorm {
            groups: 2,
            spatial: 20,
            eps: 1e-6,
            silu: true,
            gamma: &gamma,
            beta: &beta,
        };
        norm.forward_on(simd, &x, &mut y);
        assert!(
            y[..40].iter().all(|y| y.is_nan()) && y[40..].iter().all(|y| y.is_finite()),
            "{simd:?}"
        );
    }
}

#[test]
#[should_panic(expected = "5 channels do not divide into 2 groups")]
fn channels_must_divide() {
    let ones = [1.0; 5];
    let norm = GroupNorm {
        groups: 2,
        spatial: 1,
        eps: 1e-6,
        silu: false,
        gamma: &ones,
        beta: &ones,
    };
    norm.forward(&[0.0; 5], &mut [0.0; 5]);
}
