//! Affine maps of the last axis: one for all vectors, or one for each place of an axis.
//!
//! [`Linear`]: `y = x·Wᵀ + b` with PyTorch's layout `W [out, in]`, `b [out]`, on inputs
//! `[…, in]` of any rank. [`BatchLinear`]: `y[n,d] = x[n,d]·W[d] + b[d]` on `[rows, places, in]`
//! with `W [places, in, out]` (input-major, the transpose of `Linear`'s), `b [places, out]`.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use crate::Init;

/// An affine map of the last axis.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`
    pub weight: Param<Tensor<2>>,
    /// `[out]`
    pub bias: Option<Param<Tensor<1>>>,
}

impl Linear {
    /// Weights normal with mean 0 and the given deviation, a bias of zeros.
    pub fn normal(inputs: usize, outputs: usize, deviation: f32, init: &mut Init) -> Self {
        Self {
            weight: init.normal([outputs, inputs], deviation),
            bias: Some(init.constant([outputs], 0.0)),
        }
    }

    /// `[…, in]` to `[…, out]`.
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        linear(input, self.weight.val(), self.bias.as_ref().map(Param::val))
    }
}

/// `input · weightᵀ + bias` over the last axis.
pub fn linear<const D: usize>(
    input: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    let [outputs, inputs] = weight.dims();
    let mut shape = input.dims();
    assert_eq!(
        shape[D - 1],
        inputs,
        "linear: the last axis must have the weight's {inputs} inputs"
    );
    let rows = shape[..D - 1].iter().product::<usize>();
    shape[D - 1] = outputs;
    let output = input.reshape([rows, inputs]).matmul(weight.transpose());
    let output = match bias {
        Some(bias) => output + bias.unsqueeze::<2>(),
        None => output,
    };
    output.reshape(shape)
}

/// An affine map of its own for each place of the second axis.
#[derive(Module, Debug)]
pub struct BatchLinear {
    /// `[places, in, out]`
    pub weight: Param<Tensor<3>>,
    /// `[places, out]`
    pub bias: Param<Tensor<2>>,
}

impl BatchLinear {
    /// Weights normal with mean 0 and the given deviation, biases of zeros.
    pub fn normal(
        places: usize,
        inputs: usize,
        outputs: usize,
        deviation: f32,
        init: &mut Init,
    ) -> Self {
        Self {
            weight: init.normal([places, inputs, outputs], deviation),
            bias: init.constant([places, outputs], 0.0),
        }
    }

    /// `[rows, places, in]` to `[rows, places, out]`.
    pub fn forward(&self, input: Tensor<3>) -> Tensor<3> {
        let output = input.swap_dims(0, 1).matmul(self.weight.val());
        (output + self.bias.val().unsqueeze_dim(1)).swap_dims(0, 1)
    }

    /// The map of one place alone: `[rows, in]` to `[rows, out]`.
    pub fn forward_at(&self, place: usize, input: Tensor<2>) -> Tensor<2> {
        let weight = self.weight.val().narrow(0, place, 1).squeeze_dim::<2>(0);
        input.matmul(weight) + self.bias.val().narrow(0, place, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn applies_weight_and_bias_to_the_last_axis_of_any_rank() {
        let device = Device::flex();
        let weight = Tensor::<2>::from_data([[1.0, 2.0, 3.0], [0.0, -1.0, 0.5]], &device);
        let bias = Tensor::<1>::from_data([0.25, -0.5], &device);
        let input = Tensor::<3>::from_data([[[1.0, 0.0, 2.0]], [[0.0, 4.0, -2.0]]], &device);
        let output = linear(input.clone(), weight.clone(), Some(bias));
        assert_eq!(output.dims(), [2, 1, 2]);
        assert_eq!(
            output.try_into_vec_as::<f32>().unwrap(),
            [7.25, 0.5, 2.25, -5.5]
        );
        let plain = linear(input, weight, None)
            .try_into_vec_as::<f32>()
            .unwrap();
        assert_eq!(plain, [7.0, 1.0, 2.0, -5.0]);
    }

    #[test]
    fn batch_linear_uses_each_places_own_map() {
        let mut init = Init::new(&Device::flex(), 3);
        let mut layer = BatchLinear::normal(3, 4, 5, 1.0, &mut init);
        layer.bias = init.normal([3, 5], 1.0);
        let input = init.normal([7, 3, 4], 1.0).val();
        let all = layer.forward(input.clone());
        for place in 0..3 {
            let rows = input.clone().narrow(1, place, 1).squeeze_dim::<2>(1);
            let weight = layer
                .weight
                .val()
                .narrow(0, place, 1)
                .squeeze_dim::<2>(0)
                .transpose();
            let bias = layer.bias.val().narrow(0, place, 1).squeeze_dim::<1>(0);
            let expected = linear(rows.clone(), weight, Some(bias));
            let alone = layer.forward_at(place, rows);
            let slice = all.clone().narrow(1, place, 1).squeeze_dim::<2>(1);
            assert!(slice.all_close(expected.clone(), Some(1e-5), Some(1e-6)));
            assert!(alone.all_close(expected, Some(1e-5), Some(1e-6)));
        }
    }
}
