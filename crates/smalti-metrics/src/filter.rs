//! Separable window means over the interior of a plane ("valid": only windows that lie fully
//! inside).

/// A window of one dimension whose weights sum to one.
#[derive(Debug, Clone)]
pub(crate) enum Window {
    /// All weights alike; costs the same for every width (running sums).
    Uniform(usize),
    /// Any weights.
    Weights(Vec<f64>),
}

impl Window {
    /// A sampled gaussian of `size` taps.
    pub(crate) fn gaussian(size: usize, sigma: f64) -> Self {
        let centre = (size / 2) as f64;
        let mut weights: Vec<f64> = (0..size)
            .map(|i| (-(i as f64 - centre).powi(2) / (2.0 * sigma * sigma)).exp())
            .collect();
        let sum: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|weight| *weight /= sum);
        Self::Weights(weights)
    }

    /// The same gaussian with weights rounded to single precision before and after the division, as
    /// pytorch-msssim has them whatever the type of its images is: they sum to one only to about
    /// 3e-8.
    pub(crate) fn gaussian_single(size: usize, sigma: f64) -> Self {
        let centre = (size / 2) as f64;
        let weights: Vec<f32> = (0..size)
            .map(|i| {
                let exponent = (-(i as f64 - centre).powi(2) / (2.0 * sigma * sigma)) as f32;
                f64::from(exponent).exp() as f32
            })
            .collect();
        let sum = weights.iter().copied().map(f64::from).sum::<f64>() as f32;
        Self::Weights(
            weights
                .iter()
                .map(|weight| f64::from(weight / sum))
                .collect(),
        )
    }

    /// Number of taps.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Uniform(size) => *size,
            Self::Weights(weights) => weights.len(),
        }
    }
}

/// Weighted mean around each interior pixel of a plane `[height, width]`; the result is `size - 1`
/// smaller in both directions.
pub(crate) fn filter_valid(
    plane: &[f64],
    height: usize,
    width: usize,
    window: &Window,
) -> Vec<f64> {
    let (out_height, out_width) = (height + 1 - window.size(), width + 1 - window.size());
    let mut rows = vec![0.0; height * out_width];
    for (source, target) in plane
        .chunks_exact(width)
        .zip(rows.chunks_exact_mut(out_width))
    {
        combine(target, |tap| &source[tap..tap + out_width], window);
    }
    let mut out = vec![0.0; out_height * out_width];
    match window {
        Window::Weights(_) => {
            for (y, target) in out.chunks_exact_mut(out_width).enumerate() {
                combine(
                    target,
                    |tap| &rows[(y + tap) * out_width..][..out_width],
                    window,
                );
            }
        }
        Window::Uniform(_) => {
            // One row sum after another: add the row that enters, take the row that leaves. Values
            // are sums of squares of at most 255, so that the rounding of the running sum stays
            // near 1e-12 of the value.
            running_rows(&rows, &mut out, out_width, window.size());
        }
    }
    out
}

/// `target = sum of weight[tap] * row(tap)`.
fn combine<'a>(target: &mut [f64], row: impl Fn(usize) -> &'a [f64], window: &Window) {
    let weight = |tap: usize| match window {
        Window::Uniform(size) => 1.0 / *size as f64,
        Window::Weights(weights) => weights[tap],
    };
    for tap in 0..window.size() {
        let factor = weight(tap);
        for (out, value) in target.iter_mut().zip(row(tap)) {
            *out += factor * value;
        }
    }
}

fn running_rows(rows: &[f64], out: &mut [f64], width: usize, size: usize) {
    let mut sum = vec![0.0; width];
    for row in rows.chunks_exact(width).take(size) {
        sum.iter_mut()
            .zip(row)
            .for_each(|(total, value)| *total += value);
    }
    for (y, target) in out.chunks_exact_mut(width).enumerate() {
        if y > 0 {
            let (leaving, entering) = (&rows[(y - 1) * width..], &rows[(y - 1 + size) * width..]);
            for (x, total) in sum.iter_mut().enumerate() {
                *total += entering[x] - leaving[x];
            }
        }
        target
            .iter_mut()
            .zip(&sum)
            .for_each(|(value, total)| *value = total / size as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn direct(plane: &[f64], height: usize, width: usize, weights: &[f64]) -> Vec<f64> {
        let size = weights.len();
        let mut out = Vec::new();
        for y in 0..=height - size {
            for x in 0..=width - size {
                let terms = (0..size * size).map(|i| {
                    weights[i / size]
                        * weights[i % size]
                        * plane[(y + i / size) * width + x + i % size]
                });
                out.push(terms.sum());
            }
        }
        out
    }

    #[test]
    fn equals_the_direct_sum() {
        let (height, width) = (9, 13);
        let plane: Vec<f64> = (0..height * width)
            .map(|i| ((i * 37) % 101) as f64)
            .collect();
        let gaussian = Window::gaussian(5, 1.5);
        let Window::Weights(weights) = &gaussian else {
            unreachable!("a gaussian has weights")
        };
        for (window, weights) in [
            (&gaussian, weights.clone()),
            (&Window::Uniform(3), vec![1.0 / 3.0; 3]),
        ] {
            let got = filter_valid(&plane, height, width, window);
            let expected = direct(&plane, height, width, &weights);
            assert_eq!(got.len(), expected.len());
            for (a, b) in got.iter().zip(&expected) {
                assert!((a - b).abs() < 1e-10, "{a} is not {b}");
            }
        }
    }

    #[test]
    fn a_window_as_large_as_the_plane_gives_one_value() {
        let plane: Vec<f64> = (0..9).map(f64::from).collect();
        let got = filter_valid(&plane, 3, 3, &Window::Uniform(3));
        assert_eq!(got.len(), 1);
        assert!((got[0] - 4.0).abs() < 1e-12);
    }
}
