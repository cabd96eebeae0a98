use super::*;
use burn::tensor::{Device, TensorData};
use smalti_nn::state::{Array, Weights, host_values};

mod examples;
mod golden;
mod gradients;
mod properties;
mod small_batches;

/// A quantizer with the given tables, `cluster_size_ema` and `embed_ema`; one of each for each
/// codebook.
fn with_state(
    config: &ResidualConfig,
    device: &Device,
    books: &[[&[f32]; 3]],
) -> ResidualQuantizer {
    let quantizer = config
        .build(&mut Init::new(device, 1))
        .expect("a valid configuration");
    let mut weights = Weights::of(&quantizer);
    for (book, state) in books.iter().enumerate() {
        for (field, values) in ["weight", "cluster_size_ema", "embed_ema"]
            .iter()
            .zip(state)
        {
            let name = format!("codebooks.{book}.{field}");
            let array = weights.0.get_mut(&name).expect("a codebook has this field");
            assert_eq!(array.values.len(), values.len(), "{name}");
            array.values = values.to_vec();
        }
    }
    weights
        .load_into(quantizer)
        .expect("the same names and shapes")
}

/// A quantizer with the given tables, one for each codebook.
fn with_tables(config: &ResidualConfig, device: &Device, tables: &[Vec<f32>]) -> ResidualQuantizer {
    let ones = vec![
        1.0;
        tables
            .iter()
            .map(Vec::len)
            .max()
            .expect("at least one table")
    ];
    let width = config.code_dim;
    let books: Vec<[&[f32]; 3]> = tables
        .iter()
        .map(|t| [t.as_slice(), &ones[..t.len() / width], t.as_slice()])
        .collect();
    with_state(config, device, &books)
}

/// Vectors one beside the other, `[1, width, 1, count]`.
fn in_a_row(vectors: &[f32], width: usize, device: &Device) -> Tensor<4> {
    let rows = TensorData::new(vectors.to_vec(), [1, 1, vectors.len() / width, width]);
    Tensor::<4>::from_data(rows, device).permute([0, 3, 1, 2])
}

fn normal(seed: u64, shape: [usize; 4], device: &Device) -> Tensor<4> {
    Noise::from_seed(seed).standard_normal(shape, device)
}

/// One of the arrays of a quantizer's state.
fn state(quantizer: &ResidualQuantizer, name: &str) -> Vec<f32> {
    let Array { values, .. } = Weights::of(quantizer)
        .0
        .remove(name)
        .expect("the name of an array");
    values
}

fn assert_close(got: &[f32], expected: &[f32], relative: f32, absolute: f32, what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        assert!(
            (g - e).abs() <= absolute + relative * e.abs(),
            "{what}[{i}]: expected {e}, got {g}"
        );
    }
}
