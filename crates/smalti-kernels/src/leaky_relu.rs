//! The leaky rectifier: `y = x` where `x > 0`, `y = slope·x` elsewhere; with slope 0 the rectifier itself.
//!
//! The slope at 0 is `slope`, as in PyTorch. One pass over memory each way, which is what it costs: the
//! baseline's vector instructions keep up with it.

use rayon::prelude::*;

/// Numbers in a task.
const TASK: usize = 32 << 10;

/// Writes the function of `input` to `output`.
///
/// # Panics
/// When lengths differ.
pub fn leaky_relu(slope: f32, input: &[f32], output: &mut [f32]) {
    assert_eq!(input.len(), output.len(), "leaky_relu: lengths differ");
    output
        .par_chunks_mut(TASK)
        .zip(input.par_chunks(TASK))
        .for_each(|(output, input)| {
            for (y, &x) in output.iter_mut().zip(input) {
                *y = if x > 0.0 { x } else { x * slope };
            }
        });
}

/// Multiplies `grad`, the gradient of the output, by the slope at `input`.
///
/// # Panics
/// When lengths differ.
pub fn leaky_relu_backward(slope: f32, input: &[f32], grad: &mut [f32]) {
    assert_eq!(input.len(), grad.len(), "leaky_relu: lengths differ");
    grad.par_chunks_mut(TASK)
        .zip(input.par_chunks(TASK))
        .for_each(|(grad, input)| {
            for (g, &x) in grad.iter_mut().zip(input) {
                *g *= if x > 0.0 { 1.0 } else { slope };
            }
        });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_slopes_on_both_sides_and_at_zero() {
        let input = [-2.0, -0.0, 0.0, 3.0];
        for (slope, values) in [(0.0, [0.0, 0.0, 0.0, 3.0]), (0.25, [-0.5, 0.0, 0.0, 3.0])] {
            let (mut output, mut grad) = ([f32::NAN; 4], [2.0; 4]);
            leaky_relu(slope, &input, &mut output);
            leaky_relu_backward(slope, &input, &mut grad);
            assert_eq!(output, values);
            assert_eq!(grad, [2.0 * slope, 2.0 * slope, 2.0 * slope, 2.0]);
        }
    }

    #[test]
    fn every_task_is_done() {
        let input: Vec<f32> = (0..2 * TASK + 7).map(|i| i as f32 - TASK as f32).collect();
        let (mut output, mut grad) = (vec![f32::NAN; input.len()], vec![1.0; input.len()]);
        leaky_relu(0.5, &input, &mut output);
        leaky_relu_backward(0.5, &input, &mut grad);
        for ((x, y), g) in input.iter().zip(output).zip(grad) {
            let slope = if *x > 0.0 { 1.0 } else { 0.5 };
            assert_eq!((y, g), (x * slope, slope));
        }
    }
}
