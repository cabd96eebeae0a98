//! Large batches in parts, where nothing is learned.
//!
//! A batch's activations at full resolution are its peak of memory: eight images of 256×256 with 128
//! channels are 268 MB, several times over. Images do not see each other, so on the CPU, where a pass is
//! parallel within an image, they can go through a few at a time and give the same numbers.

use burn::tensor::Tensor;
use smalti_nn::state::on_cpu;

/// Pixels that pass the network together: two images of 256×256. One alone is slower by the time in which
/// threads wait for each other at small maps.
const PIXELS: usize = 2 * 256 * 256;

/// `pass` of all images; `pixels` is the size of one of them.
pub(super) fn in_parts(
    batch: Tensor<4>,
    pixels: usize,
    pass: impl Fn(Tensor<4>) -> Tensor<4>,
) -> Tensor<4> {
    let [images, ..] = batch.dims();
    let together = (PIXELS / pixels.max(1)).max(1);
    if images <= together || !on_cpu(&batch) || batch.device().is_autodiff() {
        return pass(batch);
    }
    let parts = batch.split(together, 0).into_iter().map(pass).collect();
    Tensor::cat(parts, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};
    use std::cell::RefCell;

    #[test]
    fn parts_are_small_enough_and_put_together_in_order() {
        let values: Vec<f32> = (0..7).map(|i| i as f32).collect();
        let batch = Tensor::from_data(
            TensorData::new(values.clone(), [7, 1, 1, 1]),
            &Device::flex(),
        );
        for (pixels, expected) in [
            (PIXELS / 3, vec![3, 3, 1]),
            (10 * PIXELS, vec![1; 7]),
            (1, vec![7]),
        ] {
            let seen = RefCell::new(Vec::new());
            let result = in_parts(batch.clone(), pixels, |part| {
                seen.borrow_mut().push(part.dims()[0]);
                part.mul_scalar(2.0)
            });
            assert_eq!(*seen.borrow(), expected);
            let doubled: Vec<f32> = values.iter().map(|v| 2.0 * v).collect();
            assert_eq!(smalti_nn::state::host_values(result), doubled);
        }
    }
}
