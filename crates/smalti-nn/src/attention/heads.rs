//! Sequences to heads and back.

use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::hook::{self, CpuOp, CpuTensor, cpu_tensor, dims, elements};

/// Numbers that a task should at least move.
const TASK: usize = 16 << 10;

/// `[batch, length, heads · width]` to `[batch, heads, length, width]`.
pub(super) fn split_heads(input: Tensor<3>, heads: usize) -> Tensor<4> {
    let [batch, length, width] = input.dims();
    swap(input.reshape([batch, length, heads, width / heads]))
}

/// `[batch, heads, length, width]` to `[batch, length, heads · width]`.
pub(super) fn merge_heads(input: Tensor<4>) -> Tensor<3> {
    let [batch, heads, length, width] = input.dims();
    swap(input).reshape([batch, length, heads * width])
}

/// `[a, b, c, d]` to `[a, c, b, d]`.
fn swap(input: Tensor<4>) -> Tensor<4> {
    let [a, b, c, d] = input.dims();
    if b == 1 || c == 1 {
        return input.reshape([a, c, b, d]);
    }
    match hook::call(Swap, [input.into_dispatch()]) {
        Ok(output) => output,
        Err([input]) => Tensor::<4>::from_dispatch(input).swap_dims(1, 2),
    }
}

/// The exchange of the CPU, row by row.
#[derive(Clone, Copy, Debug)]
struct Swap;

fn swapped(input: &CpuTensor) -> CpuTensor {
    let [a, b, c, d] = dims(input);
    let values = elements(input);
    let mut output = hook::output(values.len());
    let rows = output
        .par_chunks_mut((b * d).max(1))
        .with_min_len((TASK / (b * d).max(1)).max(1));
    rows.enumerate().for_each(|(i, to)| {
        let (outer, inner) = (i / c, i % c);
        for (place, to) in to.chunks_exact_mut(d).enumerate() {
            to.copy_from_slice(&values[((outer * b + place) * c + inner) * d..][..d]);
        }
    });
    cpu_tensor(output, [a, c, b, d])
}

impl CpuOp<1> for Swap {
    type Saved = ();
    const CHEAP: bool = true;

    fn forward(&self, [input]: &[CpuTensor; 1]) -> (CpuTensor, ()) {
        (swapped(input), ())
    }

    fn backward(
        &self,
        _: &[CpuTensor; 1],
        _: (),
        grad: CpuTensor,
        _: [bool; 1],
    ) -> [Option<CpuTensor>; 1] {
        [Some(swapped(&grad))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hook::agreement::assert_agree;

    #[test]
    fn kernel_and_composition_agree() {
        for shape in [[2, 3, 4, 5], [2, 1, 4, 5], [2, 3, 1, 5], [1, 300, 20, 3]] {
            let shapes: [&[usize]; 1] = [&shape];
            let composed = |x: Tensor<4>| x.swap_dims(1, 2);
            assert_agree(&shapes, 1e-6, |i| swap(i.get(0)), |i| composed(i.get(0)));
        }
    }

    #[test]
    fn merging_undoes_splitting() {
        let input = crate::Noise::from_seed(1).standard_normal([2, 3, 8], &Default::default());
        let heads = split_heads(input.clone(), 4);
        assert_eq!(heads.dims(), [2, 4, 3, 2]);
        let second_head = heads.clone().narrow(1, 1, 1).squeeze_dim::<3>(1);
        assert!(
            second_head
                .equal(input.clone().narrow(2, 2, 2))
                .all()
                .into_scalar::<bool>()
        );
        assert!(merge_heads(heads).equal(input).all().into_scalar::<bool>());
    }
}
