//! How fresh parameters get their first values.

use burn::module::{Param, ParamId};
use burn::tensor::{Device, Shape, Tensor, TensorData};

use crate::Noise;

/// Draws the first values of parameters on one device, from one seeded stream.
#[derive(Debug)]
pub struct Init {
    device: Device,
    /// None: nothing is drawn, parameters are zero.
    noise: Option<Noise>,
}

impl Init {
    /// Parameters on `device`, drawn from the stream of `seed`.
    ///
    /// On an autodiff device the parameters are tracked.
    pub fn new(device: &Device, seed: u64) -> Self {
        Self {
            device: device.clone(),
            noise: Some(Noise::from_seed(seed)),
        }
    }

    /// Parameters on `device` that weights are loaded into: zeros, whose memory is not touched before.
    pub fn blank(device: &Device) -> Self {
        Self {
            device: device.clone(),
            noise: None,
        }
    }

    /// Whether weights are going to be loaded: nothing that is drawn or read now would stay.
    pub fn is_blank(&self) -> bool {
        self.noise.is_none()
    }

    /// The device parameters are made on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Normal numbers with mean 0 and the given standard deviation.
    pub fn normal<const D: usize>(
        &mut self,
        shape: [usize; D],
        deviation: f32,
    ) -> Param<Tensor<D>> {
        let count = shape.iter().product();
        let Some(noise) = &mut self.noise else {
            return self.given(shape, vec![0.0; count]);
        };
        let mut values = noise.normal_values(count);
        values.iter_mut().for_each(|v| *v *= deviation);
        self.given(shape, values)
    }

    /// Numbers uniform in [−bound, bound).
    pub fn uniform<const D: usize>(&mut self, shape: [usize; D], bound: f32) -> Param<Tensor<D>> {
        let count = shape.iter().product();
        let Some(noise) = &mut self.noise else {
            return self.given(shape, vec![0.0; count]);
        };
        let mut values = noise.uniform_values(count);
        values
            .iter_mut()
            .for_each(|v| *v = (2.0 * *v - 1.0) * bound);
        self.given(shape, values)
    }

    /// PyTorch's default for the weight of a linear or convolution layer with `fan_in` inputs to
    /// each output: uniform within ±1/√fan_in (Kaiming's with a = √5).
    pub fn fan_in<const D: usize>(&mut self, shape: [usize; D], fan_in: usize) -> Param<Tensor<D>> {
        self.uniform(shape, 1.0 / (fan_in as f32).sqrt())
    }

    /// All elements equal to `value`.
    pub fn constant<const D: usize>(&mut self, shape: [usize; D], value: f32) -> Param<Tensor<D>> {
        self.given(shape, vec![value; shape.iter().product()])
    }

    /// The given numbers.
    pub fn given<const D: usize>(&self, shape: [usize; D], values: Vec<f32>) -> Param<Tensor<D>> {
        let tensor = Tensor::from_data(TensorData::new(values, Shape::from(shape)), &self.device);
        let tensor = if self.device.is_autodiff() {
            tensor.require_grad()
        } else {
            tensor
        };
        Param::initialized(ParamId::new(), tensor)
    }

    /// The given numbers, as state that no gradient reaches.
    pub fn buffer<const D: usize>(&self, shape: [usize; D], values: Vec<f32>) -> Param<Tensor<D>> {
        let tensor = Tensor::from_data(TensorData::new(values, Shape::from(shape)), &self.device);
        Param::initialized(ParamId::new(), tensor).set_require_grad(false)
    }
}
