//! The largest value under each square window, without padding.
//!
//! `y[n,c,i,j] = max x[n,c,i·s+u,j·s+v]`, `u, v < kernel`. `[batch, channels, height, width]` to
//! `[batch, channels, (height − kernel)/stride + 1, (width − kernel)/stride + 1]`; a rest at the edge is
//! left out. The gradient goes to the first largest value of a window.

use burn::tensor::Tensor;
use burn::tensor::module::max_pool2d as burn_max_pool2d;
use burn::tensor::ops::MaxPoolOptions;
use smalti_kernels::max_pool::MaxPool;

use crate::hook::{self, CpuOp, CpuTensor, cpu_tensor, dims, elements};

/// Pools `input`; see the [module's documentation](self).
///
/// # Panics
/// When the window does not fit the image.
pub fn max_pool2d(input: Tensor<4>, kernel: usize, stride: usize) -> Tensor<4> {
    match hook::call(Pooling { kernel, stride }, [input.into_dispatch()]) {
        Ok(output) => output,
        Err([input]) => composed(Tensor::from_dispatch(input), kernel, stride),
    }
}

/// The same made of burn's own operations.
fn composed(input: Tensor<4>, kernel: usize, stride: usize) -> Tensor<4> {
    let options = MaxPoolOptions::new([kernel; 2]).with_stride([stride; 2]);
    burn_max_pool2d(input, options)
}

/// The pooling of the CPU.
#[derive(Clone, Copy, Debug)]
struct Pooling {
    kernel: usize,
    stride: usize,
}

impl Pooling {
    fn kernel(&self, input: &CpuTensor) -> MaxPool {
        let [_, _, height, width] = dims(input);
        let Self { kernel, stride } = *self;
        MaxPool {
            kernel,
            stride,
            height,
            width,
        }
    }
}

impl CpuOp<1> for Pooling {
    type Saved = ();
    const CHEAP: bool = true;

    fn forward(&self, [input]: &[CpuTensor; 1]) -> (CpuTensor, ()) {
        let [batch, channels, _, _] = dims(input);
        let pool = self.kernel(input);
        let sizes = [batch, channels, pool.out_height(), pool.out_width()];
        let mut output = hook::output(sizes.iter().product());
        pool.forward(elements(input), &mut output);
        (cpu_tensor(output, sizes), ())
    }

    fn backward(
        &self,
        [input]: &[CpuTensor; 1],
        _: (),
        grad: CpuTensor,
        _: [bool; 1],
    ) -> [Option<CpuTensor>; 1] {
        let values = elements(input);
        let mut output = hook::output(values.len());
        self.kernel(input)
            .backward(values, elements(&grad), &mut output);
        [Some(cpu_tensor(output, dims::<4>(input)))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hook::agreement::{assert_agree, assert_slopes};

    #[test]
    fn kernel_and_composition_agree() {
        for (kernel, stride) in [(2, 2), (3, 2), (2, 1), (3, 1)] {
            let shapes: [&[usize]; 1] = [&[2, 3, 7, 6]];
            assert_agree(
                &shapes,
                1e-6,
                |i| max_pool2d(i.get(0), kernel, stride),
                |i| composed(i.get(0), kernel, stride),
            );
            // Few enough numbers that no two of a window change places on the way.
            let shapes: [&[usize]; 1] = [&[1, 1, 3, 4]];
            assert_slopes(&shapes, |i| max_pool2d(i.get(0), kernel, stride));
        }
    }
}
