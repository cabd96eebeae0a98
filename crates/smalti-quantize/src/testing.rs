//! Support for tests: recorded tensors of the published code, and slopes by finite differences.

use burn::module::Module;
use burn::tensor::{Device, Shape, Tensor, TensorData};
use safetensors::{Dtype, SafeTensors};
use smalti_nn::Noise;
use smalti_nn::state::{Weights, host_values};

use crate::{Learn, QuantizeError, Quantized, Quantizer};

/// The tensors of one case of `goldens/`.
pub(crate) struct Golden(Vec<u8>);

impl Golden {
    pub(crate) fn open(case: &str) -> Self {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../goldens");
        let path = format!("{root}/{case}/tensors.safetensors");
        Self(std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}")))
    }

    fn view<T>(&self, name: &str, read: impl Fn(Dtype, &[u8], &[usize]) -> T) -> T {
        let file = SafeTensors::deserialize(&self.0).expect("a safetensors file");
        let view = file.tensor(name).expect(name);
        read(view.dtype(), view.data(), view.shape())
    }

    pub(crate) fn shape(&self, name: &str) -> Vec<usize> {
        self.view(name, |_, _, shape| shape.to_vec())
    }

    pub(crate) fn floats(&self, name: &str) -> Vec<f32> {
        self.view(name, |dtype, data, _| {
            assert_eq!(dtype, Dtype::F32, "{name}");
            let chunks = data.as_chunks::<4>().0;
            chunks.iter().map(|&b| f32::from_le_bytes(b)).collect()
        })
    }

    pub(crate) fn number(&self, name: &str) -> f32 {
        let values = self.floats(name);
        assert_eq!(values.len(), 1, "{name}");
        values[0]
    }

    pub(crate) fn doubles(&self, name: &str) -> Vec<f64> {
        self.view(name, |dtype, data, _| {
            assert_eq!(dtype, Dtype::F64, "{name}");
            let chunks = data.as_chunks::<8>().0;
            chunks.iter().map(|&b| f64::from_le_bytes(b)).collect()
        })
    }

    /// Whole numbers of 32 or 64 bits.
    pub(crate) fn ids(&self, name: &str) -> Vec<u32> {
        self.view(name, |dtype, data, _| {
            let wide: Vec<i64> = match dtype {
                Dtype::I32 => {
                    let chunks = data.as_chunks::<4>().0;
                    chunks
                        .iter()
                        .map(|&b| i32::from_le_bytes(b).into())
                        .collect()
                }
                Dtype::I64 => {
                    let chunks = data.as_chunks::<8>().0;
                    chunks.iter().map(|&b| i64::from_le_bytes(b)).collect()
                }
                other => panic!("{name} holds {other:?}"),
            };
            let id = |value: i64| u32::try_from(value).expect("an id");
            wide.into_iter().map(id).collect()
        })
    }

    /// The tensor as recorded.
    pub(crate) fn tensor<const D: usize>(&self, name: &str, device: &Device) -> Tensor<D> {
        let data = TensorData::new(self.floats(name), Shape::from(self.shape(name)));
        Tensor::from_data(data, device)
    }
}

pub(crate) fn normal(seed: u64, shape: [usize; 4], device: &Device) -> Tensor<4> {
    Noise::from_seed(seed).standard_normal(shape, device)
}

pub(crate) fn map(values: Vec<f32>, shape: [usize; 4], device: &Device) -> Tensor<4> {
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// A quantizer with some arrays of its state replaced.
pub(crate) fn with_arrays<M: Module>(quantizer: M, arrays: &[(&str, Vec<f32>)]) -> M {
    let mut weights = Weights::of(&quantizer);
    for (name, values) in arrays {
        let array = weights
            .0
            .get_mut(*name)
            .unwrap_or_else(|| panic!("no {name}"));
        assert_eq!(array.values.len(), values.len(), "{name}");
        array.values = values.clone();
    }
    weights
        .load_into(quantizer)
        .expect("the same names and shapes")
}

/// The arrays of a PyTorch file of a case.
pub(crate) fn pytorch(case: &str, file: &str) -> Weights {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../goldens");
    let path = format!("{root}/{case}/{file}");
    Weights::read_pytorch(std::path::Path::new(&path)).expect("a readable file")
}

pub(crate) fn quantized(quantizer: &impl Quantizer, latents: Tensor<4>) -> Quantized {
    let mut noise = Noise::from_seed(1);
    quantizer
        .quantize(latents, &mut noise)
        .expect("finite latents")
}

pub(crate) fn loss(quantized: &Quantized, name: &str) -> Tensor<1> {
    let found = quantized.losses.iter().find(|(known, _)| *known == name);
    let names: Vec<&str> = quantized.losses.iter().map(|(name, _)| *name).collect();
    found
        .unwrap_or_else(|| panic!("no loss {name} in {names:?}"))
        .1
        .clone()
}

/// Σ weight · loss.
pub(crate) fn weighted(quantized: &Quantized, weights: &[(&str, f64)]) -> Tensor<1> {
    let terms = weights
        .iter()
        .map(|(name, weight)| loss(quantized, name).mul_scalar(*weight));
    terms.reduce(|a, b| a + b).expect("a loss")
}

/// The tolerance of the goldens: 2e-5 + 1e-4 of the value.
pub(crate) fn assert_golden(got: &[f32], expected: &[f32], what: &str) {
    assert_near(got, expected, [2e-5, 1e-4], what);
}

pub(crate) fn assert_near(got: &[f32], expected: &[f32], tolerance: [f32; 2], what: &str) {
    let [absolute, relative] = tolerance;
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        assert!(
            (g - e).abs() <= absolute + relative * e.abs(),
            "{what}[{i}]: expected {e}, got {g}"
        );
    }
}

/// A scalar loss of the goldens: 1e-5 of the value.
pub(crate) fn assert_scalar(got: Tensor<1>, expected: f32, what: &str) {
    let got = got.into_scalar::<f32>();
    assert!(
        (got - expected).abs() <= 1e-5 * expected.abs().max(1.0),
        "{what}: expected {expected}, got {got}"
    );
}

/// Holds the gradient of `compute` at `values` against central differences.
///
/// `compute` also gives the codes: steps that change one are left out, and at least `share` of all
/// must be left.
pub(crate) fn assert_slopes(
    values: &[f32],
    gradient: &[f32],
    share: f64,
    compute: impl Fn(Vec<f32>) -> (f32, Vec<u32>),
) {
    assert_eq!(values.len(), gradient.len());
    let (_, codes) = compute(values.to_vec());
    let largest = gradient.iter().fold(0.0f32, |m, g| m.max(g.abs()));
    assert!(largest > 0.0, "a gradient of zeros proves nothing");
    let (step, mut compared) = (4e-3f32, 0);
    for (i, expected) in gradient.iter().enumerate() {
        let at = |offset: f32| {
            let mut moved = values.to_vec();
            moved[i] += offset;
            compute(moved)
        };
        let ((up, up_codes), (down, down_codes)) = (at(step), at(-step));
        if up_codes == codes && down_codes == codes {
            let slope = (up - down) / (2.0 * step);
            assert!(
                (slope - expected).abs() < 0.01 * largest + 1e-4,
                "[{i}]: slope {slope}, gradient {expected}"
            );
            compared += 1;
        }
    }
    assert!(
        f64::from(compared) >= share * values.len() as f64,
        "only {compared} of {} steps keep the codes",
        values.len()
    );
}

/// What must hold for every quantizer: `decode(encode(x))` is the value of training, codes are in
/// range, a batch is quantized as its parts are, and wrong input is refused.
pub(crate) fn assert_quantizer(quantizer: &mut impl Learn, channels: usize) {
    let device = Device::flex();
    let latents = normal(11, [3, channels, 3, 2], &device);
    let codes = quantizer.encode(latents.clone()).expect("finite latents");
    let spec = quantizer.spec();
    assert_eq!(codes.dims(), [3, spec.depth(), 3, 2]);
    for (i, id) in codes.values().into_iter().enumerate() {
        assert!((id as usize) < spec.codebook_sizes[i / 6 % spec.depth()]);
    }
    let whole = quantized(quantizer, latents.clone());
    let value = quantizer.decode(&codes).expect("codes in range");
    assert_eq!(whole.codes.values(), codes.values());
    assert_eq!(host_values(whole.quantized.clone()), host_values(value));

    let parts = [(0, 1), (1, 2)]
        .map(|(from, count)| quantized(quantizer, latents.clone().narrow(0, from, count)));
    let ids: Vec<u32> = parts.iter().flat_map(|part| part.codes.values()).collect();
    let values = parts.map(|part| host_values(part.quantized)).concat();
    assert_eq!(whole.codes.values(), ids);
    assert_eq!(host_values(whole.quantized), values);

    assert_mixes(quantizer, channels);
    assert_refuses(quantizer, channels);
    assert_refuses_codes(quantizer);
}

/// A frozen quantizer takes tracked latents.
fn assert_mixes(quantizer: &impl Quantizer, channels: usize) {
    let tracked = normal(12, [2, channels, 2, 2], &Device::flex().autodiff()).require_grad();
    let result = quantized(quantizer, tracked.clone());
    let losses = result.losses.iter().map(|(_, loss)| loss.clone());
    let total = losses.fold(result.quantized.sum(), |a, b| a + b);
    let gradient = tracked
        .grad(&total.backward())
        .expect("latents are tracked");
    let values = host_values(gradient);
    assert!(values.iter().all(|v| v.is_finite()) && values.iter().any(|v| *v != 0.0));
}

pub(crate) fn assert_refuses(quantizer: &mut impl Learn, channels: usize) {
    let device = Device::flex();
    let shape = [2, channels, 2, 2];
    for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut values = vec![0.5; shape.iter().product()];
        values[channels + 1] = wrong;
        let latents = map(values, shape, &device);
        let mut noise = Noise::from_seed(1);
        let refusal = Some(QuantizeError::NonFinite);
        assert_eq!(quantizer.encode(latents.clone()).err(), refusal);
        let result = quantizer.quantize(latents.clone(), &mut noise);
        assert_eq!(result.err(), refusal);
        let result = quantizer.quantize_and_update(latents, &mut noise);
        assert_eq!(result.err(), refusal);
    }
    let wide = normal(1, [1, channels + 1, 2, 2], &device);
    let refusal = QuantizeError::Channels {
        expected: channels,
        got: channels + 1,
    };
    assert_eq!(quantizer.encode(wide.clone()).err(), Some(refusal.clone()));
    let mut noise = Noise::from_seed(1);
    assert_eq!(quantizer.quantize(wide, &mut noise).err(), Some(refusal));
    let empty = Tensor::zeros([0, channels, 2, 2], &device);
    let result = quantizer.quantize_and_update(empty, &mut noise);
    assert_eq!(result.err(), Some(QuantizeError::Empty));
}

pub(crate) fn assert_refuses_codes(quantizer: &impl Quantizer) {
    let device = Device::flex();
    let spec = quantizer.spec();
    let depth = spec.depth();
    for (wrong, &codebook_size) in spec.codebook_sizes.iter().enumerate() {
        let mut ids = vec![0; depth];
        ids[wrong] = codebook_size as u32;
        let codes = crate::Codes::from_values(&ids, [1, depth, 1, 1], &device);
        let refusal = QuantizeError::OutOfRange {
            id: codebook_size as u32,
            depth: wrong,
            codebook_size,
        };
        assert_eq!(quantizer.decode(&codes).err(), Some(refusal));
    }
    let codes = crate::Codes::from_values(&vec![0; depth + 1], [1, depth + 1, 1, 1], &device);
    let refusal = QuantizeError::Depth {
        expected: depth,
        got: depth + 1,
    };
    assert_eq!(quantizer.decode(&codes).err(), Some(refusal));
}
