use super::*;
use crate::noise::noise;

/// Output, then the gradients of input, gamma and beta of Σ output·grad, in f64.
fn reference(x: &[f32], gamma: &[f32], beta: &[f32], grad: &[f32]) -> [Vec<f64>; 4] {
    let width = gamma.len();
    let n = width as f64;
    let mut out = [vec![], vec![], vec![0.0; width], vec![0.0; width]];
    for (x, grad) in x.chunks_exact(width).zip(grad.chunks_exact(width)) {
        let wide = |values: &[f32]| values.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
        let (x, grad, gamma, beta) = (wide(x), wide(grad), wide(gamma), wide(beta));
        let mean = x.iter().sum::<f64>() / n;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        let rstd = 1.0 / (variance + 1e-5).sqrt();
        let normal: Vec<f64> = x.iter().map(|x| (x - mean) * rstd).collect();
        let scaled: Vec<f64> = grad.iter().zip(&gamma).map(|(d, g)| d * g).collect();
        let first = scaled.iter().sum::<f64>() / n;
        let second = scaled.iter().zip(&normal).map(|(d, x)| d * x).sum::<f64>() / n;
        for k in 0..width {
            out[0].push(gamma[k] * normal[k] + beta[k]);
            out[1].push(rstd * (scaled[k] - first - normal[k] * second));
            out[2][k] += grad[k] * normal[k];
            out[3][k] += grad[k];
        }
    }
    out
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
    for (rows, width) in [
        (1, 2),
        (3, 7),
        (5, 16),
        (2, 33),
        (70, 64),
        (1000, 65),
        (3, 768),
        (2, 5000),
    ] {
        let (x, grad) = (noise(rows * width, 1), noise(rows * width, 2));
        let (gamma, beta) = (noise(width, 3), noise(width, 4));
        let norm = LayerNorm {
            eps: 1e-5,
            gamma: &gamma,
            beta: &beta,
        };
        let want = reference(&x, &gamma, &beta, &grad);
        for simd in Simd::available() {
            let name = format!("{simd:?} {rows} rows of {width}");
            let mut y = vec![f32::NAN; x.len()];
            let moments = norm.forward_on(simd, &x, &mut y);
            close(&y, &want[0], 3e-6, &name);
            let mut dx = vec![f32::NAN; x.len()];
            let affine = norm.backward_on(simd, &x, &moments, Some(&grad), &mut dx);
            // Two numbers in a row that lie close together are divided by a small deviation.
            close(
                &dx,
                &want[1],
                if width == 2 { 1e-3 } else { 1e-5 },
                &format!("{name}: input"),
            );
            // Sums of terms of either sign: their error grows with the root of their number.
            let tolerance = 1e-6 * (rows as f64).sqrt().max(10.0);
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
    let (mut x, grad) = (noise(10, 5), noise(10, 6));
    let (gamma, beta) = (noise(5, 7), noise(5, 8));
    let loss = |x: &[f32]| -> f64 {
        let [y, ..] = reference(x, &gamma, &beta, &grad);
        y.iter().zip(&grad).map(|(y, g)| y * f64::from(*g)).sum()
    };
    let want = reference(&x, &gamma, &beta, &grad);
    for i in 0..10 {
        let (middle, step) = (x[i], 1.0 / 1024.0);
        x[i] = middle + step;
        let above = loss(&x);
        x[i] = middle - step;
        let slope = (above - loss(&x)) / (2.0 * f64::from(step));
        x[i] = middle;
        assert!(
            (slope - want[1][i]).abs() < 1e-4,
            "input {i}: {slope} for {}",
            want[1][i]
        );
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let (x, grad) = (noise(3000 * 96, 9), noise(3000 * 96, 10));
    let (gamma, beta) = (noise(96, 11), noise(96, 12));
    let norm = LayerNorm {
        eps: 1e-5,
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
            let mut over = grad.clone();
            norm.backward_in_place(&x, &moments, &mut over);
            (y, dx, over, affine.gamma, affine.beta)
        })
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn a_nan_spoils_its_row_and_no_other() {
    let (gamma, beta) = (vec![1.0; 20], vec![0.0; 20]);
    let norm = LayerNorm {
        eps: 1e-5,
        gamma: &gamma,
        beta: &beta,
    };
    for simd in Simd::available() {
        let mut x = noise(60, 13);
        x[39] = f32::NAN;
        let mut y = vec![0.0; 60];
        norm.forward_on(simd, &x, &mut y);
        let nan: Vec<bool> = y
            .chunks(20)
            .map(|row| row.iter().all(|y| y.is_nan()))
            .collect();
        assert_eq!(nan, [false, true, false], "{simd:?}");
        assert!(
            y[..20].iter().chain(&y[40..]).all(|y| y.is_finite()),
            "{simd:?}"
        );
    }
}
