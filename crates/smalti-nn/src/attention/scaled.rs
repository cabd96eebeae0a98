//! Scaled dot-product attention of heads: whole sequences, causal or not, and single steps.

use burn::tensor::{Bool, Tensor, activation::softmax};
use smalti_kernels::Attention as Kernel;
use smalti_kernels::attention::{DecodeShape, Gradients, Inputs, Mask, Results, decode};

use super::KeyValueCache;
use crate::hook::{self, CpuOp, CpuTensor, cpu_tensor, dims, elements};

/// Causal attention of `query [batch, heads, m, c]` over `key` and `value [batch, heads, n, c]`; the
/// queries belong to the last `m` of the `n` positions.
pub fn causal_attention(query: Tensor<4>, key: Tensor<4>, value: Tensor<4>) -> Tensor<4> {
    let (queries, keys) = (query.dims()[2], key.dims()[2]);
    assert!(
        queries <= keys,
        "attention: {queries} queries, but only {keys} keys"
    );
    attention(Sees::Past, query, key, value)
}

/// Attention of `query [batch, heads, m, c]` over all of `key` and `value [batch, heads, n, c]`.
pub fn full_attention(query: Tensor<4>, key: Tensor<4>, value: Tensor<4>) -> Tensor<4> {
    attention(Sees::All, query, key, value)
}

/// What a query attends to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sees {
    /// Every key.
    All,
    /// Its own key and those before; the queries belong to the last keys.
    Past,
}

fn attention(sees: Sees, query: Tensor<4>, key: Tensor<4>, value: Tensor<4>) -> Tensor<4> {
    match hook::call(
        Scaled { sees },
        [
            query.into_dispatch(),
            key.into_dispatch(),
            value.into_dispatch(),
        ],
    ) {
        Ok(output) => output,
        Err(inputs) => {
            let [query, key, value] = inputs.map(Tensor::from_dispatch);
            composed(sees, query, key, value)
        }
    }
}

/// Causal attention of `query` over everything in `cache`; the queries are its last positions.
pub fn cached_attention(query: Tensor<4>, cache: &KeyValueCache) -> Tensor<4> {
    let [_, _, queries, width] = query.dims();
    if queries > 1 {
        return causal_attention(query, cache.keys(), cache.values());
    }
    let (keys, values) = (cache.keys.clone(), cache.values.clone());
    let [batch, heads, capacity, _] = keys.dims();
    let shape = DecodeShape {
        heads: batch * heads,
        capacity,
        length: cache.len(),
        head_dim: width,
        scale: scale(width),
    };
    let inputs = [
        query.into_dispatch(),
        keys.into_dispatch(),
        values.into_dispatch(),
    ];
    // The cache is read where it lies; a step of generation has no gradient.
    let step = |[query, keys, values]: &[CpuTensor; 3]| {
        let mut output = hook::output(batch * heads * width);
        decode(
            &shape,
            elements(query),
            elements(keys),
            elements(values),
            &mut output,
        );
        cpu_tensor(output, [batch, heads, 1, width])
    };
    match hook::call_plain(inputs, step) {
        Ok(output) => output,
        Err([query, ..]) => {
            causal_attention(Tensor::from_dispatch(query), cache.keys(), cache.values())
        }
    }
}

/// [`attention`] made of burn's own operations.
fn composed(sees: Sees, query: Tensor<4>, key: Tensor<4>, value: Tensor<4>) -> Tensor<4> {
    attention_weights(sees, query, key).matmul(value)
}

/// `softmax(q·kᵀ/√c + mask)`, `[batch, heads, m, n]`.
pub(super) fn attention_weights(sees: Sees, query: Tensor<4>, key: Tensor<4>) -> Tensor<4> {
    let [_, _, queries, width] = query.dims();
    let keys = key.dims()[2];
    let device = query.device();
    // Scaling the queries touches fewer numbers than scaling the products.
    let scores = query
        .mul_scalar(1.0 / (width as f64).sqrt())
        .matmul(key.transpose());
    if sees == Sees::All || queries == 1 {
        return softmax(scores, 3);
    }
    let future = Tensor::<2, Bool>::tril_mask([queries, keys], (keys - queries) as i64, &device);
    softmax(
        scores.mask_fill(future.unsqueeze::<4>(), f32::NEG_INFINITY),
        3,
    )
}

fn scale(width: usize) -> f32 {
    (1.0 / (width as f64).sqrt()) as f32
}

/// The attention of the CPU; inputs are queries, keys and values.
#[derive(Clone, Copy, Debug)]
struct Scaled {
    sees: Sees,
}

impl Scaled {
    fn kernel(&self, [query, key, _]: &[CpuTensor; 3]) -> Kernel {
        let [batch, heads, queries, head_dim] = dims(query);
        let [_, _, keys, _] = dims(key);
        let mask = match self.sees {
            Sees::All => Mask::None,
            Sees::Past => Mask::Causal {
                offset: keys - queries,
            },
        };
        Kernel {
            heads: batch * heads,
            queries,
            keys,
            head_dim,
            scale: scale(head_dim),
            mask,
        }
    }
}

impl CpuOp<3> for Scaled {
    /// The output and, for each query, the logarithm of its sum of exponentials.
    type Saved = (CpuTensor, Vec<f32>);
    const CHEAP: bool = false;

    fn forward(&self, inputs: &[CpuTensor; 3]) -> (CpuTensor, Self::Saved) {
        let [q, k, v] = inputs.each_ref().map(elements);
        let mut output = hook::output(q.len());
        let log_sums = self.kernel(inputs).forward(Inputs { q, k, v }, &mut output);
        let output = cpu_tensor(output, dims::<4>(&inputs[0]));
        (output.clone(), (output, log_sums))
    }

    fn backward(
        &self,
        inputs: &[CpuTensor; 3],
        (output, log_sums): Self::Saved,
        grad: CpuTensor,
        needed: [bool; 3],
    ) -> [Option<CpuTensor>; 3] {
        let [q, k, v] = inputs.each_ref().map(elements);
        let results = Results {
            output: elements(&output),
            log_sums: &log_sums,
            grad_output: elements(&grad),
        };
        let [mut grad_q, mut grad_k, mut grad_v] = [q, k, v].map(|x| hook::output(x.len()));
        let gradients = Gradients {
            q: &mut grad_q,
            k: &mut grad_k,
            v: &mut grad_v,
        };
        self.kernel(inputs)
            .backward(Inputs { q, k, v }, results, gradients);
        let mut values = [grad_q, grad_k, grad_v].into_iter();
        std::array::from_fn(|i| {
            let values = values.next().expect("three gradients");
            needed[i].then(|| cpu_tensor(values, dims::<4>(&inputs[i])))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Noise;
    use crate::hook::agreement::{self, assert_agree, assert_slopes};
    use burn::tensor::Device;

    fn own(sees: Sees) -> impl Fn(&agreement::Inputs) -> Tensor<4> {
        move |i| attention(sees, i.get(0), i.get(1), i.get(2))
    }

    fn other(sees: Sees) -> impl Fn(&agreement::Inputs) -> Tensor<4> {
        move |i| composed(sees, i.get(0), i.get(1), i.get(2))
    }

    #[test]
    fn kernel_and_composition_agree() {
        for sees in [Sees::All, Sees::Past] {
            for (queries, keys) in [(5, 5), (3, 7), (1, 4), (70, 70)] {
                let (short, long) = ([2, 3, queries, 6], [2, 3, keys, 6]);
                let shapes: [&[usize]; 3] = [&short, &long, &long];
                assert_agree(&shapes, 2e-5, own(sees), other(sees));
            }
            assert_agree(
                &[&[2, 2, 5, 4]],
                2e-5,
                |i| attention(sees, i.get(0), i.get(0), i.get(0)),
                |i| composed(sees, i.get(0), i.get(0), i.get(0)),
            );
        }
    }

    #[test]
    fn gradients_are_slopes() {
        let shapes: [&[usize]; 3] = [&[2, 2, 4, 6], &[2, 2, 5, 6], &[2, 2, 5, 6]];
        assert_slopes(&shapes, own(Sees::Past));
        assert_slopes(&shapes, own(Sees::All));
    }

    #[test]
    fn without_a_mask_more_queries_than_keys_are_fine() {
        let [query, key] = [(4, 1), (2, 2)].map(|(length, seed)| {
            Noise::from_seed(seed).standard_normal([1, 1, length, 3], &Device::flex())
        });
        let mixed = full_attention(query, key.clone(), key.ones_like());
        assert!(mixed.all_close(
            Tensor::ones([1, 1, 4, 3], &Device::flex()),
            None,
            Some(1e-6)
        ));
    }

    #[test]
    fn a_step_reads_the_filled_part_of_its_cache() {
        let plain = Device::flex();
        let mut noise = Noise::from_seed(2);
        for device in [plain.clone(), plain.clone().autodiff()] {
            let mut cache = KeyValueCache::new([2, 3, 9, 4], &device);
            let [keys, values] = [(); 2].map(|()| noise.standard_normal([2, 3, 6, 4], &device));
            cache.append(keys.clone(), values.clone());
            let query = noise.standard_normal([2, 3, 1, 4], &device);
            let expected = composed(Sees::Past, query.clone(), keys, values);
            assert!(cached_attention(query, &cache).all_close(expected, Some(1e-5), Some(1e-6)));
        }
    }
}
