//! 2-D convolution: forward, gradient of the input, gradient of the weight and bias.
//!
//! Images are `[batch, channels, height, width]`, weights `[out_channels, in_channels, kernel, kernel]`, as
//! in PyTorch. Any square kernel, any stride, any padding by zeros, sides apart.
//!
//! All three passes are products over *windows*, the input values under each kernel tap, of which
//! only horizontal shifts are copied, one cache-sized block at a time (`windows.rs`); the weight
//! gradient with many channels reads its windows from a channels-last copy instead. Results do not
//! depend on the number of threads.
//!
//! The forward pass and the input's gradient of 3×3 kernels at stride 1 take Winograd's form where
//! images and channels are large enough for it to be faster (`winograd/`).

mod backward_input;
mod backward_weight;
mod correlate;
mod forward;
mod shape;
mod weights;
mod windows;
mod winograd;

pub use backward_input::{conv2d_backward_input, conv2d_backward_input_on};
pub use backward_weight::{conv2d_backward_weight, conv2d_backward_weight_on};
pub use forward::{conv2d_forward, conv2d_forward_on};
pub use shape::{ConvShape, ConvShapeError, Padding};

#[cfg(test)]
mod tests;
