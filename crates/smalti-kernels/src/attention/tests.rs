use super::*;
use crate::noise::noise;

fn shapes() -> Vec<Attention> {
    let shape = |[heads, queries, keys, head_dim]: [usize; 4], mask| {
        let scale = 1.0 / (head_dim as f32).sqrt();
        Attention {
            heads,
            queries,
            keys,
            head_dim,
            scale,
            mask,
        }
    };
    vec![
        shape([1, 1, 1, 1], Mask::None),
        shape([2, 3, 5, 7], Mask::None),
        shape([3, 4, 4, 32], Mask::Causal { offset: 0 }),
        shape([300, 4, 4, 16], Mask::Causal { offset: 0 }),
        shape([2, 3, 16, 5], Mask::Causal { offset: 11 }),
        shape([1, 65, 130, 24], Mask::None),
        shape([2, 130, 130, 33], Mask::Causal { offset: 0 }),
        shape([1, 9, 140, 16], Mask::Causal { offset: 131 }),
        shape([1, 70, 64, 64], Mask::Causal { offset: 3 }),
        shape([1, 17, 200, 512], Mask::None),
    ]
}

/// One that goes by blocks.
fn long() -> Attention {
    shapes()
        .into_iter()
        .find(|shape| shape.queries == 65)
        .expect("it is in the list")
}

struct Truth {
    output: Vec<f64>,
    log_sums: Vec<f64>,
    q: Vec<f64>,
    k: Vec<f64>,
    v: Vec<f64>,
}

/// Output and the gradients of Σ output·grad in f64, with the whole matrix of scores.
fn reference(shape: &Attention, inputs: Inputs<'_>, grad: &[f32]) -> Truth {
    let Attention {
        heads,
        queries,
        keys,
        head_dim: d,
        ..
    } = *shape;
    let wide = |values: &[f32]| values.iter().map(|x| f64::from(*x)).collect::<Vec<_>>();
    let (q, k, v, grad) = (wide(inputs.q), wide(inputs.k), wide(inputs.v), wide(grad));
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let scale = f64::from(shape.scale);
    let zeros = |n: usize| vec![0.0; n];
    let mut out = Truth {
        output: zeros(q.len()),
        log_sums: vec![],
        q: zeros(q.len()),
        k: zeros(k.len()),
        v: zeros(v.len()),
    };
    for row in 0..heads * queries {
        let (place, head) = (row * d..(row + 1) * d, row / queries);
        let seen = match shape.mask {
            Mask::None => keys,
            Mask::Causal { offset } => keys.min(row % queries + offset + 1),
        };
        let key = |j: usize| (head * keys + j) * d..(head * keys + j + 1) * d;
        let scores: Vec<f64> = (0..seen)
            .map(|j| scale * dot(&q[place.clone()], &k[key(j)]))
            .collect();
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scores.iter().map(|s| (s - largest).exp()).sum();
        out.log_sums.push(largest + sum.ln());
        let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp() / sum).collect();
        let slopes: Vec<f64> = (0..seen)
            .map(|j| dot(&grad[place.clone()], &v[key(j)]))
            .collect();
        let mean = dot(&weights, &slopes);
        for j in 0..seen {
            let slope = weights[j] * (slopes[j] - mean) * scale;
            for c in 0..d {
                let (own, other) = (row * d + c, key(j).start + c);
                out.output[own] += weights[j] * v[other];
                out.q[own] += slope * k[other];
                out.k[other] += slope * q[own];
                out.v[other] += weights[j] * grad[own];
            }
        }
    }
    out
}

fn close(got: &[f32], want: &[f64], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!(
            (f64::from(*g) - w).abs() <= 1e-5 * w.abs().max(1.0),
            "{what} at {i}: {g} for {w}"
        );
    }
}

struct Data {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    grad: Vec<f32>,
}

impl Data {
    fn new(shape: &Attention) -> Self {
        let rows = shape.heads * shape.queries * shape.head_dim;
        let key_rows = shape.heads * shape.keys * shape.head_dim;
        Self {
            q: noise(rows, 1),
            k: noise(key_rows, 2),
            v: noise(key_rows, 3),
            grad: noise(rows, 4),
        }
    }

    fn inputs(&self) -> Inputs<'_> {
        Inputs {
            q: &self.q,
            k: &self.k,
            v: &self.v,
        }
    }

    /// Output, log sums and the three gradients.
    fn run(&self, simd: Simd, shape: &Attention) -> [Vec<f32>; 5] {
        let nan = |like: &[f32]| vec![f32::NAN; like.len()];
        let mut output = nan(&self.q);
        let log_sums = shape.forward_on(simd, self.inputs(), &mut output);
        let (mut q, mut k, mut v) = (nan(&self.q), nan(&self.k), nan(&self.v));
        let results = Results {
            output: &output,
            log_sums: &log_sums,
            grad_output: &self.grad,
        };
        let gradients = Gradients {
            q: &mut q,
            k: &mut k,
            v: &mut v,
        };
        shape.backward_on(simd, self.inputs(), results, gradients);
        [output, log_sums, q, k, v]
    }
}

#[test]
fn agrees_with_f64_on_every_path() {
    for shape in shapes() {
        let data = Data::new(&shape);
        let want = reference(&shape, data.inputs(), &data.grad);
        for simd in Simd::available() {
            let [output, log_sums, q, k, v] = data.run(simd, &shape);
            let name = format!("{simd:?} {shape:?}");
            close(&output, &want.output, &format!("{name}: output"));
            close(&log_sums, &want.log_sums, &format!("{name}: log sums"));
            close(&q, &want.q, &format!("{name}: q"));
            close(&k, &want.k, &format!("{name}: k"));
            close(&v, &want.v, &format!("{name}: v"));
        }
    }
}

/// The f64 gradients above are themselves held against differences.
#[test]
fn the_reference_gradient_is_the_slope_of_the_output() {
    let shape = Attention {
        heads: 1,
        queries: 3,
        keys: 4,
        head_dim: 2,
        scale: 0.7,
        mask: Mask::Causal { offset: 1 },
    };
    let mut data = Data::new(&shape);
    let loss = |data: &Data| -> f64 {
        let output = reference(&shape, data.inputs(), &data.grad).output;
        output
            .iter()
            .zip(&data.grad)
            .map(|(y, g)| y * f64::from(*g))
            .sum()
    };
    let want = reference(&shape, data.inputs(), &data.grad);
    let step = 1.0 / 1024.0;
    let fields: [fn(&mut Data) -> &mut Vec<f32>; 3] = [|d| &mut d.q, |d| &mut d.k, |d| &mut d.v];
    for (field, want) in fields.iter().zip([&want.q, &want.k, &want.v]) {
        for (i, want) in want.iter().enumerate() {
            let middle = field(&mut data)[i];
            field(&mut data)[i] = middle + step;
            let above = loss(&data);
            field(&mut data)[i] = middle - step;
            let slope = (above - loss(&data)) / (2.0 * f64::from(step));
            field(&mut data)[i] = middle;
            assert!((slope - want).abs() < 1e-5, "{slope} for {want}");
        }
    }
}

#[test]
fn scores_of_any_size_are_fine() {
    let shape = Attention {
        scale: 1000.0,
        ..long()
    };
    let data = Data::new(&shape);
    for simd in Simd::available() {
        let results = data.run(simd, &shape);
        assert!(results.iter().flatten().all(|x| x.is_finite()), "{simd:?}");
    }
}

#[test]
fn a_step_equals_the_last_query_of_the_whole() {
    for (heads, capacity, length, head_dim) in
        [(1, 1, 1, 1), (3, 9, 4, 7), (2, 300, 150, 33), (5, 8, 8, 64)]
    {
        let (q, scale) = (noise(heads * head_dim, 5), 0.3);
        let (k, v) = (
            noise(heads * capacity * head_dim, 6),
            noise(heads * capacity * head_dim, 7),
        );
        let shape = DecodeShape {
            heads,
            capacity,
            length,
            head_dim,
            scale,
        };
        let filled = |values: &[f32]| -> Vec<f32> {
            values
                .chunks(capacity * head_dim)
                .flat_map(|head| &head[..length * head_dim])
                .copied()
                .collect()
        };
        let whole = Attention {
            heads,
            queries: 1,
            keys: length,
            head_dim,
            scale,
            mask: Mask::None,
        };
        let (near_k, near_v) = (filled(&k), filled(&v));
        let inputs = Inputs {
            q: &q,
            k: &near_k,
            v: &near_v,
        };
        let want = reference(&whole, inputs, &q).output;
        for simd in Simd::available() {
            let mut output = vec![f32::NAN; q.len()];
            decode_on(simd, &shape, &q, [&k, &v], &mut output);
            close(&output, &want, &format!("{simd:?} {shape:?}"));
        }
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let by_blocks = Attention { heads: 5, ..long() };
    let short = shapes().into_iter().find(|shape| shape.heads == 300);
    for shape in [by_blocks, short.expect("it is in the list")] {
        let data = Data::new(&shape);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| data.run(Simd::active(), &shape))
        };
        assert_eq!(run(1), run(3));
    }
}

#[test]
fn a_nan_reaches_the_output() {
    let shape = long();
    for place in [0, 70 * 24, 129 * 24 + 5] {
        let mut data = Data::new(&shape);
        data.k[place] = f32::NAN;
        for simd in Simd::available() {
            let [output, ..] = data.run(simd, &shape);
            assert!(
                output.iter().all(|x| x.is_nan()),
                "{simd:?}, key {}",
                place / 24
            );
        }
    }
}

#[test]
#[should_panic(expected = "attention: lengths of q, output, k, v")]
fn lengths_are_checked() {
    let shape = shapes()[1];
    let data = Data::new(&shape);
    let inputs = Inputs {
        k: &data.k[1..],
        ..data.inputs()
    };
    shape.forward(inputs, &mut vec![0.0; data.q.len()]);
}
