//! Activations of single numbers: SiLU, GELU and its logistic approximation.
//!
//! | | y | dy/dx |
//! |---|---|---|
//! | [`Silu`](Activation::Silu) | x·σ(x) | σ(x)·(1 + x·(1 - σ(x))) |
//! | [`Gelu`](Activation::Gelu) | x·Φ(x), Φ(x) = (1 + erf(x/√2))/2 | Φ(x) + x·φ(x) |
//! | [`QuickGelu`](Activation::QuickGelu) | x·σ(1.702 x) | s·(1 + 1.702 x·(1 - s)), s = σ(1.702 x) |
//!
//! GELU is the exact one (Hendrycks & Gimpel 2016, section 2), not the tanh approximation. Its left
//! tail keeps relative accuracy, which `1 + erf` would lose. The way back needs the input alone.

use crate::Simd;
use crate::lanes::{Kernel, Lanes, dispatch};
use crate::math::{normal, sigmoid};
use rayon::prelude::*;

/// Numbers in a task, a multiple of every register, so that pieces do not change results.
const TASK: usize = 16 << 10;

/// A function of single numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `x·σ(x)`, also called swish.
    Silu,
    /// `x·Φ(x)`, exact.
    Gelu,
    /// `x·σ(1.702 x)`.
    QuickGelu,
}

impl Activation {
    /// Writes the function of `input` to `output`.
    ///
    /// # Panics
    /// When lengths differ.
    pub fn forward(self, input: &[f32], output: &mut [f32]) {
        self.forward_on(Simd::active(), input, output);
    }

    /// [`forward`](Self::forward) with the instructions of `simd`.
    ///
    /// # Panics
    /// When lengths differ.
    pub fn forward_on(self, simd: Simd, input: &[f32], output: &mut [f32]) {
        assert_eq!(input.len(), output.len(), "activation: lengths differ");
        output
            .par_chunks_mut(TASK)
            .zip(input.par_chunks(TASK))
            .for_each(|(output, input)| match self {
                Self::Silu => dispatch(simd, Forward(Sigmoid(1.0), input, output)),
                Self::Gelu => dispatch(simd, Forward(Normal, input, output)),
                Self::QuickGelu => dispatch(simd, Forward(Sigmoid(1.702), input, output)),
            });
    }

    /// Multiplies `grad`, the gradient of the output, by the slope at `input`.
    ///
    /// # Panics
    /// When lengths differ.
    pub fn backward(self, input: &[f32], grad: &mut [f32]) {
        self.backward_on(Simd::active(), input, grad);
    }

    /// [`backward`](Self::backward) with the instructions of `simd`.
    ///
    /// # Panics
    /// When lengths differ.
    pub fn backward_on(self, simd: Simd, input: &[f32], grad: &mut [f32]) {
        assert_eq!(input.len(), grad.len(), "activation: lengths differ");
        grad.par_chunks_mut(TASK)
            .zip(input.par_chunks(TASK))
            .for_each(|(grad, input)| match self {
                Self::Silu => dispatch(simd, Backward(Sigmoid(1.0), input, grad)),
                Self::Gelu => dispatch(simd, Backward(Normal, input, grad)),
                Self::QuickGelu => dispatch(simd, Backward(Sigmoid(1.702), input, grad)),
            });
    }
}

/// A function and its slope on registers.
trait Curve {
    fn value<V: Lanes>(&self, x: V) -> V;
    fn slope<V: Lanes>(&self, x: V) -> V;
}

/// `x·σ(a x)`
struct Sigmoid(f32);

impl Curve for Sigmoid {
    #[inline(always)]
    fn value<V: Lanes>(&self, x: V) -> V {
        x * sigmoid(x * V::splat(self.0))
    }

    #[inline(always)]
    fn slope<V: Lanes>(&self, x: V) -> V {
        let z = x * V::splat(self.0);
        let s = sigmoid(z);
        s * (z - z * s + V::splat(1.0))
    }
}

/// `x·Φ(x)`
struct Normal;

impl Curve for Normal {
    #[inline(always)]
    fn value<V: Lanes>(&self, x: V) -> V {
        x * normal(x).0
    }

    #[inline(always)]
    fn slope<V: Lanes>(&self, x: V) -> V {
        let (distribution, density) = normal(x);
        x.mul_add(density, distribution)
    }
}

struct Forward<'a, C>(C, &'a [f32], &'a mut [f32]);

impl<C: Curve> Kernel for Forward<'_, C> {
    type Output = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let mut from = self.1.chunks_exact(V::N);
        let mut to = self.2.chunks_exact_mut(V::N);
        for (x, y) in (&mut from).zip(&mut to) {
            self.0.value(V::load(x)).store(y);
        }
        if !from.remainder().is_empty() {
            self.0
                .value(V::load_part(from.remainder(), 0.0))
                .store_part(to.into_remainder());
        }
    }
}

struct Backward<'a, C>(C, &'a [f32], &'a mut [f32]);

impl<C: Curve> Kernel for Backward<'_, C> {
    type Output = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let mut from = self.1.chunks_exact(V::N);
        let mut to = self.2.chunks_exact_mut(V::N);
        for (x, grad) in (&mut from).zip(&mut to) {
            (V::load(grad) * self.0.slope(V::load(x))).store(grad);
        }
        if !from.remainder().is_empty() {
            let grad = to.into_remainder();
            let slope = self.0.slope(V::load_part(from.remainder(), 0.0));
            (V::load_part(grad, 0.0) * slope).store_part(grad);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::normal_f64;

    fn truth(activation: Activation, x: f64) -> (f64, f64) {
        let logistic = |a: f64| {
            let s = 1.0 / (1.0 + (-a * x).exp());
            (x * s, s * (1.0 + a * x * (1.0 - s)))
        };
        match activation {
            Activation::Silu => logistic(1.0),
            Activation::QuickGelu => logistic(1.702),
            Activation::Gelu => {
                let (distribution, density) = normal_f64(x);
                (x * distribution, distribution + x * density)
            }
        }
    }

    const ALL: [Activation; 3] = [Activation::Silu, Activation::Gelu, Activation::QuickGelu];

    #[test]
    fn values_and_slopes_agree_with_f64() {
        for count in [1, 15, 16, 1001, TASK + 3] {
            let x: Vec<f32> = (0..count)
                .map(|i| ((i * 7919) % 2003) as f32 / 100.0 - 10.0)
                .collect();
            for activation in ALL {
                for simd in Simd::available() {
                    let (mut y, mut grad) = (vec![f32::NAN; count], vec![2.0; count]);
                    activation.forward_on(simd, &x, &mut y);
                    activation.backward_on(simd, &x, &mut grad);
                    for i in 0..count {
                        let (value, slope) = truth(activation, f64::from(x[i]));
                        let place = format!("{activation:?} {simd:?} at {}", x[i]);
                        let error = (f64::from(y[i]) - value).abs();
                        assert!(error <= 4e-6 * value.abs(), "{place}: {} for {value}", y[i]);
                        let error = (f64::from(grad[i]) - 2.0 * slope).abs();
                        assert!(error <= 4e-6, "{place}: {} for {}", grad[i], 2.0 * slope);
                    }
                }
            }
        }
    }

    /// The f64 slopes above are themselves held against differences.
    #[test]
    fn slopes_are_the_slopes_of_the_values() {
        for activation in ALL {
            for i in -40..40 {
                let (x, h) = (f64::from(i) / 8.0, 1e-5);
                let rise = truth(activation, x + h).0 - truth(activation, x - h).0;
                let slope = truth(activation, x).1;
                assert!(
                    (rise / (2.0 * h) - slope).abs() < 1e-8,
                    "{activation:?} at {x}"
                );
            }
        }
    }

    #[test]
    fn far_out_and_nan() {
        for activation in ALL {
            for simd in Simd::available() {
                let mut y = [0.0; 3];
                activation.forward_on(simd, &[-1e4, 1e4, f32::NAN], &mut y);
                assert!(
                    y[0].abs() < 1e-30 && y[1] == 1e4 && y[2].is_nan(),
                    "{activation:?}: {y:?}"
                );
                let mut grad = [1.0; 3];
                activation.backward_on(simd, &[-1e4, 1e4, f32::NAN], &mut grad);
                assert!(
                    grad[0].abs() < 1e-30 && grad[1] == 1.0 && grad[2].is_nan(),
                    "{grad:?}"
                );
            }
        }
    }

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let x: Vec<f32> = (0..3 * TASK + 9)
            .map(|i| (i % 1000) as f32 * 0.01 - 5.0)
            .collect();
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            let (mut y, mut grad) = (vec![0.0; x.len()], x.clone());
            pool.install(|| {
                Activation::Gelu.forward(&x, &mut y);
                Activation::Gelu.backward(&x, &mut grad);
            });
            (y, grad)
        };
        assert_eq!(run(1), run(3));
    }
}
