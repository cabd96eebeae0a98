//! The two-layer perceptron of a transformer block.
//!
//! `y = W₂·gelu(W₁·x + b₁) + b₂`, width `E` to `4E` and back, on `[batch, length, E]`.
//!
//! A tuple, because its places are the names that published files use: `mlp.0` and `mlp.2` are the
//! linear layers, and the activation between them, `mlp.1`, has no parameters.

use burn::tensor::Tensor;

use crate::gelu::{Activation, Gelu};
use crate::{Init, Linear};

/// Expansion, activation, contraction.
pub type Mlp = (Linear, Activation, Linear);

/// The perceptron of width `width`, hidden width `4·width`, weights of the given deviation.
pub fn new_mlp(width: usize, gelu: Gelu, deviation: f32, init: &mut Init) -> Mlp {
    (
        Linear::normal(width, 4 * width, deviation, init),
        Activation::new(gelu),
        Linear::normal(4 * width, width, deviation, init),
    )
}

/// `[batch, length, width]` to the same shape.
pub fn mlp(layers: &Mlp, input: Tensor<3>) -> Tensor<3> {
    let (expand, activation, contract) = layers;
    contract.forward(activation.forward(expand.forward(input)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::module::{Module, ModuleVisitor, Param};
    use burn::tensor::Device;

    #[derive(Default)]
    struct Names(Vec<String>, Vec<String>);

    impl ModuleVisitor for Names {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.0.push(name.into());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.0.pop();
        }
        fn visit_float<const D: usize>(&mut self, _: &Param<Tensor<D>>) {
            self.1.push(self.0.join("."));
        }
    }

    #[test]
    fn parameters_have_the_published_names_and_the_layers_are_applied_in_order() {
        let mut init = Init::new(&Device::flex(), 1);
        let layers = new_mlp(3, Gelu::Exact, 0.5, &mut init);
        let mut names = Names::default();
        layers.visit(&mut names);
        assert_eq!(names.1, ["0.weight", "0.bias", "2.weight", "2.bias"]);

        let input = init.normal([2, 4, 3], 1.0).val();
        let hidden = Gelu::Exact.forward(layers.0.forward(input.clone()));
        assert_eq!(hidden.dims(), [2, 4, 12]);
        let expected = layers.2.forward(hidden);
        assert!(mlp(&layers, input).all_close(expected, Some(1e-6), Some(1e-7)));
    }
}
