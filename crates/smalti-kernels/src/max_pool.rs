//! The largest value under each square window of an image, without padding.
//!
//! `y[i, j] = max x[i·s + u, j·s + v]`, `u, v < kernel`; windows that would reach over the edge are left out
//! (PyTorch's `ceil_mode = False`). The gradient goes to the first largest value, row by row, and a NaN
//! under the window comes out, both as in PyTorch.
//!
//! Planes are independent of each other and shared out over the pool. The way back finds the places of
//! the largest values again rather than keeping them.

use rayon::prelude::*;

/// A pooling of planes of `height` × `width` numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxPool {
    /// Side of the window.
    pub kernel: usize,
    /// Numbers from one window to the next, in both directions.
    pub stride: usize,
    /// Height of a plane.
    pub height: usize,
    /// Width of a plane.
    pub width: usize,
}

impl MaxPool {
    /// Height of a pooled plane.
    ///
    /// # Panics
    /// When the window does not fit, or a size is 0.
    pub fn out_height(&self) -> usize {
        self.out(self.height)
    }

    /// Width of a pooled plane.
    ///
    /// # Panics
    /// When the window does not fit, or a size is 0.
    pub fn out_width(&self) -> usize {
        self.out(self.width)
    }

    fn out(&self, side: usize) -> usize {
        let Self { kernel, stride, .. } = *self;
        assert!(
            kernel > 0 && stride > 0 && side >= kernel,
            "max pooling: windows of {kernel}x{kernel} at stride {stride} do not fit {}x{}",
            self.height,
            self.width
        );
        (side - kernel) / stride + 1
    }

    /// Pools every plane of `input` into `output`.
    ///
    /// # Panics
    /// When the window does not fit, or lengths are no equal number of planes.
    pub fn forward(&self, input: &[f32], output: &mut [f32]) {
        let (plane, pooled) = self.planes(input.len(), output.len());
        let width = self.out_width();
        output
            .par_chunks_mut(pooled)
            .zip(input.par_chunks(plane))
            .for_each(|(output, input)| {
                // Rows under the window are joined first: that walks along memory.
                let mut joined = vec![0.0; self.width];
                for (y, output) in output.chunks_exact_mut(width).enumerate() {
                    let rows = &input[y * self.stride * self.width..][..self.kernel * self.width];
                    joined.copy_from_slice(&rows[..self.width]);
                    for row in rows.chunks_exact(self.width).skip(1) {
                        for (most, &x) in joined.iter_mut().zip(row) {
                            *most = larger(*most, x);
                        }
                    }
                    for (x, to) in output.iter_mut().enumerate() {
                        let window = &joined[x * self.stride..][..self.kernel];
                        *to = window[1..]
                            .iter()
                            .fold(window[0], |most, &x| larger(most, x));
                    }
                }
            });
    }

    /// Writes the gradient of the planes to `grad_input`, given that of the pooled ones.
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    pub fn backward(&self, input: &[f32], grad: &[f32], grad_input: &mut [f32]) {
        assert_eq!(input.len(), grad_input.len(), "max pooling: lengths differ");
        let (plane, pooled) = self.planes(input.len(), grad.len());
        let width = self.out_width();
        grad_input
            .par_chunks_mut(plane)
            .zip(input.par_chunks(plane).zip(grad.par_chunks(pooled)))
            .for_each(|(to, (input, grad))| {
                to.fill(0.0);
                for (i, &grad) in grad.iter().enumerate() {
                    to[self.largest(input, i / width, i % width)] += grad;
                }
            });
    }

    /// Where the largest value of window `(y, x)` lies in its plane.
    #[inline(always)]
    fn largest(&self, plane: &[f32], y: usize, x: usize) -> usize {
        let first = y * self.stride * self.width + x * self.stride;
        let (mut place, mut most) = (first, plane[first]);
        for row in 0..self.kernel {
            let start = first + row * self.width;
            for (column, &value) in plane[start..start + self.kernel].iter().enumerate() {
                if value > most || (value.is_nan() && !most.is_nan()) {
                    (place, most) = (start + column, value);
                }
            }
        }
        place
    }

    /// Lengths of a plane and of a pooled one.
    fn planes(&self, input: usize, output: usize) -> (usize, usize) {
        let plane = self.height * self.width;
        let pooled = self.out_height() * self.out_width();
        assert!(
            input.is_multiple_of(plane)
                && output.is_multiple_of(pooled)
                && input / plane == output / pooled,
            "max pooling: {input} and {output} numbers are not as many planes of {plane} and {pooled}"
        );
        (plane, pooled)
    }
}

/// The larger number; a NaN wins.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if b > a || b.is_nan() { b } else { a }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_may_overlap_and_leave_a_rest() {
        // Rows 0 1 2 3 4, 5 6 7 8 9, 10 11 12 13 14, 15 16 17 18 19, with one large number.
        let mut plane: Vec<f32> = (0..20).map(|v| v as f32).collect();
        plane[7] = 100.0;
        let run = |kernel, stride| {
            let (height, width) = (4, 5);
            let pool = MaxPool {
                kernel,
                stride,
                height,
                width,
            };
            let mut output = vec![f32::NAN; pool.out_height() * pool.out_width()];
            pool.forward(&plane, &mut output);
            let grad: Vec<f32> = (1..=output.len()).map(|v| v as f32).collect();
            let mut grad_input = vec![f32::NAN; 20];
            pool.backward(&plane, &grad, &mut grad_input);
            let touched: Vec<_> = (0..20).filter(|&i| grad_input[i] != 0.0).collect();
            (
                output,
                touched
                    .iter()
                    .map(|&i| (i, grad_input[i]))
                    .collect::<Vec<_>>(),
            )
        };
        let (output, grads) = run(2, 2);
        assert_eq!(output, [6.0, 100.0, 16.0, 18.0]);
        assert_eq!(grads, [(6, 1.0), (7, 2.0), (16, 3.0), (18, 4.0)]);
        let (output, grads) = run(3, 1);
        assert_eq!(output, [100.0, 100.0, 100.0, 100.0, 100.0, 100.0]);
        assert_eq!(grads, [(7, 21.0)]);
        let (output, _) = run(3, 2);
        assert_eq!(output, [100.0, 100.0]);
    }

    #[test]
    fn ties_go_to_the_first_and_nan_comes_out() {
        let pool = MaxPool {
            kernel: 2,
            stride: 2,
            height: 2,
            width: 2,
        };
        let input = [0.0, 0.0, 0.0, 0.0, 1.0, f32::NAN, 9.0, 2.0];
        let (mut output, mut grad) = ([0.5; 2], [9.0; 8]);
        pool.forward(&input, &mut output);
        pool.backward(&input, &[3.0, 4.0], &mut grad);
        assert!(output[0] == 0.0 && output[1].is_nan(), "{output:?}");
        assert_eq!(grad, [3.0, 0.0, 0.0, 0.0, 0.0, 4.0, 0.0, 0.0]);
    }

    #[test]
    #[should_panic(expected = "windows of 3x3 at stride 2 do not fit 2x8")]
    fn a_window_larger_than_the_image_is_refused() {
        let pool = MaxPool {
            kernel: 3,
            stride: 2,
            height: 2,
            width: 8,
        };
        pool.out_height();
    }
}
