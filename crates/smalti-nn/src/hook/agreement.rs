//! Test support: an own operation against the same one made of burn's, in value and gradients.
//!
//! Every comparison runs on a device without gradients, one with, and one that recomputes cheap
//! results; with inputs as they lie in memory, permuted, and cut out of larger tensors; with all
//! inputs tracked and with each one tracked alone. The loss is made so that the operation's output
//! is needed again on the way back, and its gradient is shared with another branch.

use burn::tensor::{Device, Tensor};

use crate::Noise;

/// How an input lies in memory.
#[derive(Clone, Copy, Debug)]
enum View {
    Plain,
    Permuted,
    Sliced,
}

/// The inputs of an operation, made from flat leaves.
pub(crate) struct Inputs<'a> {
    leaves: Vec<Tensor<1>>,
    shapes: &'a [&'a [usize]],
    view: View,
}

impl<'a> Inputs<'a> {
    /// Random leaves on `device`, those in `tracked` with gradients.
    fn random(
        shapes: &'a [&'a [usize]],
        view: View,
        device: &Device,
        tracked: impl Fn(usize) -> bool,
    ) -> Self {
        let mut noise = Noise::from_seed(7);
        let leaf = |(i, shape): (usize, &&[usize])| {
            let (last, rest) = shape.split_last().expect("inputs have axes");
            let last = if matches!(view, View::Sliced) {
                last + 2
            } else {
                *last
            };
            let leaf = noise.standard_normal([rest.iter().product::<usize>() * last], device);
            if tracked(i) {
                leaf.require_grad()
            } else {
                leaf
            }
        };
        let leaves = shapes.iter().enumerate().map(leaf).collect();
        Self {
            leaves,
            shapes,
            view,
        }
    }

    /// Input number `i`.
    pub(crate) fn get<const D: usize>(&self, i: usize) -> Tensor<D> {
        let shape: [usize; D] = self.shapes[i].try_into().expect("the input's rank");
        let leaf = self.leaves[i].clone();
        match self.view {
            View::Plain => leaf.reshape(shape),
            View::Permuted => {
                let mut turned = shape;
                turned.reverse();
                leaf.reshape(turned)
                    .permute(std::array::from_fn(|axis| (D - 1 - axis) as isize))
            }
            View::Sliced => {
                let mut wide = shape;
                wide[D - 1] += 2;
                leaf.reshape(wide).narrow(D - 1, 1, shape[D - 1])
            }
        }
    }
}

/// Values and gradients of one run; no gradients for untracked leaves.
type Run = (Vec<f32>, Vec<Option<Vec<f32>>>);

fn run<const D: usize>(inputs: &Inputs, operation: &impl Fn(&Inputs) -> Tensor<D>) -> Run {
    let output = operation(inputs);
    let values = host(output.clone());
    if !output.device().is_autodiff() {
        return (values, Vec::new());
    }
    let mut noise = Noise::from_seed(8);
    let other = noise
        .standard_normal(output.dims(), &output.device())
        .require_grad();
    let weights = noise.standard_normal(output.dims(), &output.device());
    // The sum hands one gradient to both its terms; the square needs the sum again.
    let mut loss = ((output + other.clone()).square() * weights).sum();
    for leaf in inputs.leaves.iter().filter(|leaf| leaf.is_require_grad()) {
        loss = loss + leaf.clone().square().sum();
    }
    let gradients = loss.backward();
    let mut slopes: Vec<_> = inputs
        .leaves
        .iter()
        .map(|leaf| leaf.grad(&gradients).map(host))
        .collect();
    slopes.push(other.grad(&gradients).map(host));
    (values, slopes)
}

fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor
        .try_into_vec_as::<f32>()
        .expect("a tensor of the CPU")
}

fn devices() -> [Device; 3] {
    let plain = Device::flex();
    [
        plain.clone(),
        plain.clone().autodiff(),
        plain.autodiff().gradient_checkpointing(),
    ]
}

/// Asserts that `own` does what `composed` does.
pub(crate) fn assert_agree<const D: usize>(
    shapes: &[&[usize]],
    tolerance: f32,
    own: impl Fn(&Inputs) -> Tensor<D>,
    composed: impl Fn(&Inputs) -> Tensor<D>,
) {
    let alone = (0..shapes.len()).map(Some);
    for (device, only) in devices().iter().flat_map(|d| {
        std::iter::once(None)
            .chain(alone.clone())
            .map(move |o| (d, o))
    }) {
        for view in [View::Plain, View::Permuted, View::Sliced] {
            let tracked = |i| device.is_autodiff() && only.is_none_or(|only| only == i);
            let inputs = || Inputs::random(shapes, view, device, tracked);
            let (values, slopes) = run(&inputs(), &own);
            let (want_values, want_slopes) = run(&inputs(), &composed);
            let place = format!("{device:?}, {view:?}, tracked {only:?}");
            assert_close(
                &values,
                &want_values,
                tolerance,
                &format!("values on {place}"),
            );
            assert_eq!(slopes.len(), want_slopes.len(), "{place}");
            for (i, (slope, want)) in slopes.iter().zip(&want_slopes).enumerate() {
                assert_eq!(slope.is_some(), want.is_some(), "gradient {i} on {place}");
                if let (Some(slope), Some(want)) = (slope, want) {
                    assert_close(slope, want, tolerance, &format!("gradient {i} on {place}"));
                }
            }
        }
    }
}

fn assert_close(got: &[f32], want: &[f32], tolerance: f32, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let scale = want.iter().fold(1.0f32, |scale, x| scale.max(x.abs()));
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let distance = (got - want).abs();
        assert!(
            distance <= tolerance * scale,
            "{what}: element {i} is {got}, expected {want}"
        );
    }
}

/// Asserts that gradients are the slopes of the values, along a random direction of each input.
pub(crate) fn assert_slopes<const D: usize>(
    shapes: &[&[usize]],
    operation: impl Fn(&Inputs) -> Tensor<D>,
) {
    const STEP: f64 = 1.0 / 128.0;
    let device = Device::flex().autodiff();
    let inputs = Inputs::random(shapes, View::Plain, &device, |_| true);
    let output = operation(&inputs);
    let mut noise = Noise::from_seed(9);
    let weights = noise.standard_normal(output.dims(), &device);
    let gradients = (output * weights.clone()).sum().backward();
    let weights = host(weights);
    let loss = |leaves: Vec<Tensor<1>>| -> f64 {
        let values = host(operation(&Inputs {
            leaves,
            shapes,
            view: View::Plain,
        }));
        values
            .iter()
            .zip(&weights)
            .map(|(&v, &w)| f64::from(v) * f64::from(w))
            .sum()
    };
    for (i, leaf) in inputs.leaves.iter().enumerate() {
        let direction = noise.standard_normal(leaf.dims(), &device);
        let moved = |step: f64| {
            let mut leaves = inputs.leaves.clone();
            leaves[i] = leaf.clone() + direction.clone().mul_scalar(step);
            loss(leaves)
        };
        let slope = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
        let gradient = host(leaf.grad(&gradients).expect("a gradient for every input"));
        let length = gradient
            .iter()
            .map(|g| f64::from(*g).powi(2))
            .sum::<f64>()
            .sqrt();
        let along: f64 = gradient
            .iter()
            .zip(host(direction))
            .map(|(&g, d)| f64::from(g) * f64::from(d))
            .sum();
        let distance = (along - slope).abs();
        assert!(
            distance <= 0.01 * length,
            "input {i}: gradient {along}, slope {slope}"
        );
    }
}
