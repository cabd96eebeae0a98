//! 2-D convolution: forward, gradient of the input, gradient of the weight and bias.
//!
//! Images are `[batch, channels, height, width]`, weights `[out_channels, in_channels, kernel, kernel]`, as
//! in PyTorch. Any square kernel, any stride, any padding by zeros, sides apart.
//!
//! All three passes are products over *windows* ([`windows`]), of which only horizontal shifts are
//! copied, one cache-sized block at a time. Results do not depend on the number of threads.

mod backward_input;
mod backward_weight;
mod correlate;
mod forward;
mod shape;
mod windows;

pub use backward_input::{conv2d_backward_input, conv2d_backward_input_on};
pub use backward_weight::{conv2d_backward_weight, conv2d_backward_weight_on};
pub use forward::{conv2d_forward, conv2d_forward_on};
pub use shape::{ConvShape, ConvShapeError, Padding};

#[cfg(test)]
mod tests;
