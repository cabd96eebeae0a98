//! Short sequences, as the depth transformer has them: no blocks and nothing set up for a head.
//!
//! A score is one dot product over the head's width, and each query's sums are taken directly.

use super::blocks::{dot, weighted_sum};
use super::{Attention, Gradients, Inputs, Results};
use crate::lanes::{Kernel, Lanes};
use crate::softmax::{exponentials_in_place, largest, scale};

/// Most queries and most keys of a head that comes here.
pub(super) const SHORT: usize = 16;

/// The way forward for some heads.
pub(super) struct Forward<'a> {
    pub(super) shape: &'a Attention,
    pub(super) inputs: Inputs<'a>,
    pub(super) output: &'a mut [f32],
    pub(super) log_sums: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self {
            shape,
            inputs,
            output,
            log_sums,
        } = self;
        let width = shape.head_dim;
        let rows = inputs
            .q
            .chunks_exact(width)
            .zip(output.chunks_exact_mut(width));
        for (i, (query, output)) in rows.enumerate() {
            let first = i / shape.queries * shape.keys * width;
            let seen = shape.visible(i % shape.queries);
            let place = first..first + seen * width;
            let mut room = [0.0; SHORT];
            let weights = &mut room[..seen];
            for (weight, key) in weights
                .iter_mut()
                .zip(inputs.k[place.clone()].chunks_exact(width))
            {
                *weight = dot::<V>(query, key) * shape.scale;
            }
            let highest = largest::<V>(weights);
            let total = exponentials_in_place::<V>(weights, highest);
            scale::<V>(weights, 1.0 / total);
            weighted_sum::<V>(weights, &inputs.v[place], output);
            log_sums[i] = highest + total.ln();
        }
    }
}

/// The way back for some heads.
pub(super) struct Backward<'a> {
    pub(super) shape: &'a Attention,
    pub(super) inputs: Inputs<'a>,
    pub(super) results: Results<'a>,
    pub(super) gradients: Gradients<'a>,
}

impl Kernel for Backward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self {
            shape,
            inputs,
            results,
            gradients,
        } = self;
        let width = shape.head_dim;
        gradients.k.fill(0.0);
        gradients.v.fill(0.0);
        let rows = inputs
            .q
            .chunks_exact(width)
            .zip(results.grad_output.chunks_exact(width));
        for (i, (query, grad)) in rows.enumerate() {
            let first = i / shape.queries * shape.keys * width;
            let seen = shape.visible(i % shape.queries);
            let place = first..first + seen * width;
            let own = i * width..(i + 1) * width;
            let (keys, values) = (&inputs.k[place.clone()], &inputs.v[place.clone()]);
            let delta = dot::<V>(grad, &results.output[own.clone()]);
            let (mut weights, mut slopes) = ([0.0; SHORT], [0.0; SHORT]);
            let pairs = keys.chunks_exact(width).zip(values.chunks_exact(width));
            for (j, (key, value)) in pairs.enumerate() {
                weights[j] = dot::<V>(query, key) * shape.scale;
                slopes[j] = dot::<V>(grad, value);
            }
            exponentials_in_place::<V>(&mut weights[..seen], results.log_sums[i]);
            for (slope, weight) in slopes.iter_mut().zip(&weights).take(seen) {
                *slope = weight * (*slope - delta) * shape.scale;
            }
            weighted_sum::<V>(&slopes[..seen], keys, &mut gradients.q[own]);
            let grad_keys = gradients.k[place.clone()].chunks_exact_mut(width);
            let grad_values = gradients.v[place].chunks_exact_mut(width);
            for (j, (grad_key, grad_value)) in grad_keys.zip(grad_values).enumerate() {
                add_scaled::<V>(slopes[j], query, grad_key);
                add_scaled::<V>(weights[j], grad, grad_value);
            }
        }
    }
}

/// `target += factor · source`
#[inline(always)]
fn add_scaled<V: Lanes>(factor: f32, source: &[f32], target: &mut [f32]) {
    let factor = V::splat(factor);
    for (source, target) in source.chunks(V::N).zip(target.chunks_mut(V::N)) {
        let sum = factor.mul_add(V::load_part(source, 0.0), V::load_part(target, 0.0));
        sum.store_part(target);
    }
}
