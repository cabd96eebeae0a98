//! The distance of feature maps whose vectors are scaled to length one, a weight for each channel.
//!
//! `d_n = mean_{i,j} Σ_c w_c·(â[n,c,i,j] − b̂[n,c,i,j])²`, `â = a/(|a| + 1e-10)` with the length over channels;
//! Zhang et al., CVPR 2018, arXiv 1801.03924, section 3. Maps `[batch, channels, height, width]`, weights
//! `[channels]`, distances `[batch]`. Weights are constants: no gradient reaches them.
//!
//! Difference: where a vector is zero its gradient is finite (the limit from `|a| → 0` along no direction);
//! PyTorch's is NaN.

use std::sync::Arc;

use burn::tensor::Tensor;
use smalti_kernels::unit_distance::{EPSILON, Lengths, UnitDistance};

use crate::hook::{self, CpuOp, CpuTensor, cpu_tensor, dims, elements};
use crate::state::host_values;

/// The squared length that a vector is taken to have at least: far below what `EPSILON` lets through, and
/// above zero, where the square root has no slope.
const SMALLEST_SQUARE: f64 = 1e-30;

/// Distances `[batch]` of `a` and `b`; see the [module's documentation](self).
pub fn unit_distance(a: Tensor<4>, b: Tensor<4>, weights: Tensor<1>) -> Tensor<1> {
    assert_eq!(
        a.dims(),
        b.dims(),
        "unit distance: the maps differ in shape"
    );
    if !(hook::is_on_cpu(&a) && hook::is_on_cpu(&b)) {
        return composed(a, b, weights);
    }
    let weights = host_values(weights).into();
    match hook::call(Distance { weights }, [a.into_dispatch(), b.into_dispatch()]) {
        Ok(distances) => distances,
        Err(_) => unreachable!("both are on the CPU"),
    }
}

/// The same made of burn's own operations.
fn composed(a: Tensor<4>, b: Tensor<4>, weights: Tensor<1>) -> Tensor<1> {
    let [batch, channels, _, _] = a.dims();
    let unit = |x: Tensor<4>| {
        let square = x.clone().square().sum_dim(1).clamp_min(SMALLEST_SQUARE);
        x / square.sqrt().add_scalar(EPSILON)
    };
    let weights = weights.detach().reshape([1, channels, 1, 1]);
    let distances = (unit(a) - unit(b)).square() * weights;
    distances
        .sum_dim(1)
        .mean_dim(2)
        .mean_dim(3)
        .reshape([batch])
}

/// The distance of the CPU.
#[derive(Clone, Debug)]
struct Distance {
    weights: Arc<[f32]>,
}

impl Distance {
    fn kernel(&self, maps: &CpuTensor) -> UnitDistance<'_> {
        let [_, channels, height, width] = dims(maps);
        let weights = &self.weights[..];
        assert_eq!(
            channels,
            weights.len(),
            "unit distance: a weight for each channel"
        );
        UnitDistance {
            positions: height * width,
            weights,
        }
    }
}

impl CpuOp<2> for Distance {
    type Saved = Lengths;
    const CHEAP: bool = false;

    fn forward(&self, [a, b]: &[CpuTensor; 2]) -> (CpuTensor, Lengths) {
        let (distances, lengths) = self.kernel(a).forward(elements(a), elements(b));
        let batch = [distances.len()];
        (cpu_tensor(distances, batch), lengths)
    }

    fn backward(
        &self,
        [a, b]: &[CpuTensor; 2],
        lengths: Lengths,
        grad: CpuTensor,
        [of_a, of_b]: [bool; 2],
    ) -> [Option<CpuTensor>; 2] {
        let Lengths {
            a: lengths_a,
            b: lengths_b,
        } = &lengths;
        let gradient = |maps: [&CpuTensor; 2], lengths| {
            let [first, second] = maps.map(elements);
            let mut values = hook::output(first.len());
            self.kernel(maps[0])
                .backward([first, second], lengths, elements(&grad), &mut values);
            cpu_tensor(values, dims::<4>(maps[0]))
        };
        [
            of_a.then(|| gradient([a, b], [lengths_a, lengths_b])),
            of_b.then(|| gradient([b, a], [lengths_b, lengths_a])),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hook::agreement::{Inputs, assert_agree, assert_slopes};
    use burn::tensor::Device;

    fn weights() -> Tensor<1> {
        Tensor::from_data([0.5, 2.0, 0.0], &Device::flex())
    }

    #[test]
    fn kernel_and_composition_agree() {
        let shapes: [&[usize]; 2] = [&[2, 3, 5, 4], &[2, 3, 5, 4]];
        let own = |i: &Inputs| unit_distance(i.get(0), i.get(1), weights());
        assert_agree(&shapes, 1e-5, own, |i| {
            composed(i.get(0), i.get(1), weights())
        });
        assert_slopes(&shapes, own);
    }

    #[test]
    fn zeros_have_finite_gradients() {
        let device = Device::flex().autodiff();
        for distance in [unit_distance, composed] {
            let a = Tensor::<4>::zeros([1, 3, 2, 2], &device).require_grad();
            let b = Tensor::<4>::ones([1, 3, 2, 2], &device);
            let grads = distance(a.clone(), b, weights()).sum().backward();
            let grad = host_values(a.grad(&grads).unwrap());
            assert!(grad.iter().all(|g| g.is_finite()), "{grad:?}");
        }
    }
}
