//! Sampling images from a [`Far`], code by code, with guidance where it is asked for.
//!
//! Positions in raster order, the codes of one in their order. Keys and values of earlier positions
//! stay in a cache that is allocated once for a batch; the head's cache holds one position and is
//! cleared for the next. Guidance puts the batch twice into every tensor, first with its condition,
//! then with the condition hidden; the code that is drawn from the combined logits goes on in both.
//! Without guidance (or a scale of 1) there is a single half. How batches keep from changing what is
//! drawn stands in `generators/drawing.rs`.
//!
//! Different from the published code: combined logits, softmax and draw are `f32` whatever the model;
//! the head's cache has as many places as there are codes, where it has as many as the image there.

use std::ops::{ControlFlow, Range};

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use smalti_nn::nearest::id_tensor;
use smalti_nn::rotary_transformer::{cache, through_cached};
use smalti_nn::{Rotations, TransformerCache};
use smalti_quantize::Codes;

use super::config::HeadConfig;
use super::model::Far;
use crate::generators::drawing::{Draws, Maps, Rows};
use crate::generators::request::{GenerateError, GenerationRequest, Progress};
use crate::generators::sampling::Guidance;
use crate::generators::walk::{Walk, walk_maps};

impl Far {
    /// Samples codes, one map for each condition.
    ///
    /// `watch` is called after every position and stops the generation by [`ControlFlow::Break`].
    /// Captions are computed together as long as neighbours have the same number of tokens: a large
    /// request is quickest in the order of that number.
    ///
    /// # Errors
    /// When the request does not fit the model, the logits are not numbers, or `watch` says so.
    pub fn generate(
        &self,
        request: &GenerationRequest,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Codes, GenerateError> {
        let (model, capability) = (self.valid(), self.config().capability());
        walk_maps(request, &capability, &model.device(), watch, |samples| {
            Writer::new(&model, request, samples)
        })
    }
}

/// Writes the code maps of one batch.
struct Writer<'a> {
    model: &'a Far,
    device: Device,
    draws: Draws,
    /// Rows of one half of all tensors.
    rows: Rows,
    guidance: Option<Guidance>,
    /// `[rows, length, width]`
    start: Tensor<3>,
    rotations: Rotations,
    head_rotations: Rotations,
    body: TransformerCache,
    head: TransformerCache,
}

impl<'a> Writer<'a> {
    fn new(model: &'a Far, request: &GenerationRequest, samples: Range<usize>) -> Self {
        let config = model.config();
        let device = model.device();
        let guidance = request.sampling.guidance;
        let guidance = guidance.filter(|_| request.sampling.is_guided());
        let halves = if guidance.is_some() { 2 } else { 1 };
        let rows = Rows::new(samples.len(), request.conditions.len(), halves);
        let shown: Vec<usize> = rows.samples().map(|i| samples.start + i).collect();
        let conditions = request.conditions.pick(&shown);
        let start = model.cls_embedding.forward(&conditions, None);
        let start = match guidance {
            Some(_) => Tensor::cat(vec![start, model.cls_embedding.hidden(&conditions)], 0),
            None => start,
        };
        let [all, length, _] = start.dims();
        let capacity = length + config.positions() - 1;
        Self {
            model,
            draws: Draws::new(request, samples, &config.layout()),
            rows,
            guidance,
            start,
            rotations: model.rotations(length),
            head_rotations: model.head_rotations(),
            body: cache(&model.layers, all, capacity, &device),
            head: cache(&model.ar_head, all, config.depth, &device),
            device,
        }
    }

    fn halves(&self) -> usize {
        self.start.dims()[0] / self.rows.count
    }

    /// One half's logits: those with the condition, led away from those without.
    fn guided(&self, logits: Tensor<2>, position: usize) -> Tensor<2> {
        let Some(guidance) = self.guidance else {
            return logits;
        };
        let count = self.rows.count;
        let shown = logits.clone().narrow(0, 0, count);
        match guidance.at(position) {
            1.0 => shown,
            scale => {
                let hidden = logits.narrow(0, count, count);
                hidden.clone() + (shown - hidden).mul_scalar(scale)
            }
        }
    }
}

impl Walk for Writer<'_> {
    fn rows(&self) -> Rows {
        self.rows
    }

    fn start(&self) -> Tensor<3> {
        self.start.clone()
    }

    fn given(&self, maps: &Maps, places: Range<usize>) -> Tensor<3> {
        let shape = [self.rows.count, places.len(), maps.depth];
        let ids = maps.given(self.rows.samples(), places);
        let codes = id_tensor(&ids, shape, &self.device).repeat_dim(0, self.halves());
        self.model.aggregate(self.model.code_vectors(codes))
    }

    fn read(&mut self, input: Tensor<3>) -> Tensor<3> {
        let [_, length, _] = input.dims();
        let layers = &self.model.layers;
        through_cached(layers, input, &self.rotations, &mut self.body).narrow(1, length - 1, 1)
    }

    fn write(
        &mut self,
        context: Tensor<3>,
        maps: &mut Maps,
        position: usize,
    ) -> Result<(), GenerateError> {
        let model = self.model;
        self.head.clear();
        let mut input = context.clone();
        for depth in 0..maps.depth {
            let hidden = match model.config.head {
                HeadConfig::Autoregressive { .. } => {
                    through_cached(&model.ar_head, input, &self.head_rotations, &mut self.head)
                }
                HeadConfig::Linear {} | HeadConfig::Mlp {} => context.clone(),
            };
            let logits = model.logits_at(depth, hidden.squeeze_dim::<2>(1));
            let logits = self.guided(logits, position);
            let drawn = self.draws.draw(logits, depth, position)?;
            maps.set(depth, position, &drawn);
            let ids = self.rows.spread(&drawn).repeat(self.halves());
            let ids = id_tensor(&ids, [ids.len(), 1], &self.device);
            input = model.tok_embeddings[depth].forward(ids);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generators::conditions::{Caption, Conditions};
    use crate::generators::far::config::{FarCondition, FarConfig};
    use crate::generators::far::testing::{all_kinds, conditions, random, random_codes, tiny};
    use crate::generators::request::Prefix;
    use crate::generators::sampling::SamplingConfig;
    use crate::generators::walk::read_before;
    use smalti_nn::linear::FEW_ROWS;
    use smalti_nn::nearest::id_values;
    use smalti_nn::state::host_values;

    fn go_on(_: Progress) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn request(config: &FarConfig, samples: usize) -> GenerationRequest {
        GenerationRequest::new(conditions(config, samples), 11)
    }

    fn generate(model: &Far, request: &GenerationRequest) -> Vec<u32> {
        model.generate(request, &mut go_on).unwrap().values()
    }

    fn guide(request: &mut GenerationRequest, scale: f32, interval: Option<[usize; 2]>) {
        request.sampling.guidance = Some(Guidance { scale, interval });
    }

    /// Greedy codes of the model's full forward pass given `codes`, with and without conditions.
    fn full_argmax(model: &Far, codes: &[u32], request: &GenerationRequest) -> Vec<u32> {
        let config = model.config();
        let shape = [
            request.conditions.len(),
            config.depth,
            config.height,
            config.width,
        ];
        let logits = |codes, start: Tensor<3>| {
            let codes = config.layout().by_position(&codes, &model.device());
            // Codes that a depth does not have are not to become NaN.
            model.logits_behind(start, codes, None).clamp_min(-1e9)
        };
        let codes = Codes::from_values(codes, shape, &model.device());
        let shown = model.cls_embedding.forward(&request.conditions, None);
        let mut all = logits(codes.clone(), shown);
        if let Some(guidance) = request.sampling.guidance {
            let hidden = logits(codes, model.cls_embedding.hidden(&request.conditions));
            let scales: Vec<f32> = (0..config.positions()).map(|t| guidance.at(t)).collect();
            let scales = Tensor::<1>::from_data(&scales[..], &model.device());
            let scales = scales.reshape([1, config.positions(), 1, 1]);
            all = hidden.clone() + (all - hidden) * scales;
        }
        id_values(all.argmax(3).squeeze_dim::<3>(3).swap_dims(1, 2))
    }

    #[test]
    fn greedy_codes_are_the_largest_logits_of_the_full_pass() {
        for config in all_kinds() {
            let model = random(&config, &Device::flex(), 1);
            let mut request = request(&config, 3);
            request.sampling = SamplingConfig::greedy();
            let codes = generate(&model, &request);
            assert_eq!(
                full_argmax(&model, &codes, &request),
                codes,
                "without guidance: {config:?}"
            );
            if config.condition == (FarCondition::Unconditional {}) {
                continue;
            }
            for interval in [None, Some([1, 4])] {
                guide(&mut request, 2.5, interval);
                let guided = generate(&model, &request);
                assert_eq!(full_argmax(&model, &guided, &request), guided, "{config:?}");
                assert_ne!(guided, codes, "{config:?}");
            }
        }
    }

    #[test]
    fn a_scale_of_one_is_no_guidance() {
        let model = random(&tiny(2), &Device::flex(), 2);
        let mut request = request(&tiny(2), 4);
        let plain = generate(&model, &request);
        guide(&mut request, 1.0, None);
        assert_eq!(generate(&model, &request), plain);
        assert_eq!(Writer::new(&model, &request, 0..4).halves(), 1);
        guide(&mut request, 3.0, None);
        assert_eq!(Writer::new(&model, &request, 0..4).halves(), 2);
        assert_ne!(generate(&model, &request), plain);
        let none = FarConfig {
            condition: FarCondition::Class {
                classes: 4,
                dropout: 0.0,
            },
            ..tiny(2)
        };
        let model = random(&none, &Device::flex(), 2);
        let error = model.generate(&request, &mut go_on).unwrap_err();
        assert!(error.to_string().contains("guidance"), "{error}");
    }

    #[test]
    fn batches_and_devices_with_gradients_change_nothing() {
        for (config, samples) in [
            (tiny(2), 7),
            (tiny(3), FEW_ROWS + 3),
            (all_kinds()[3].clone(), 7),
        ] {
            let model = random(&config, &Device::flex(), 3);
            for scale in [1.0, 2.0] {
                let mut request = request(&config, samples);
                guide(&mut request, scale, None);
                request.prefix = Some(Prefix {
                    codes: random_codes(&config, samples, 4),
                    row: 0,
                    column: 2,
                });
                let whole = generate(&model, &request);
                for batch_size in [1, 5, FEW_ROWS] {
                    request.batch_size = batch_size;
                    assert_eq!(
                        generate(&model, &request),
                        whole,
                        "{batch_size} of {samples}"
                    );
                }
                let tracked = random(&config, &Device::flex().autodiff(), 3);
                assert_eq!(generate(&tracked, &request), whole);
                request.seed += 1;
                assert_ne!(generate(&model, &request), whole);
            }
        }
    }

    /// The vectors of what was given, too: with few samples they are made with few rows.
    #[test]
    fn batches_do_not_change_a_bit_of_the_contexts() {
        let config = tiny(2);
        let model = random(&config, &Device::flex(), 3);
        for samples in [FEW_ROWS, 40] {
            let request = request(&config, samples);
            let mut codes = random_codes(&config, samples, 4).values();
            let map = config.layout().codes();
            let mut contexts = |batch: Range<usize>| {
                let maps = Maps {
                    codes: &mut codes[batch.start * map..batch.end * map],
                    depth: 2,
                    positions: 6,
                };
                let mut writer = Writer::new(&model, &request, batch.clone());
                let contexts = read_before(&mut writer, &maps, 5);
                let values = host_values(contexts.narrow(0, 0, batch.len()));
                values.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            };
            let whole = contexts(0..samples);
            let width = whole.len() / samples;
            for batch in [0..1, 3..8, 2..samples] {
                let expected = &whole[batch.start * width..batch.end * width];
                assert_eq!(contexts(batch), expected, "{samples} samples");
            }
        }
    }

    #[test]
    fn a_prefix_is_kept_and_continued() {
        let config = tiny(2);
        let model = random(&config, &Device::flex(), 6);
        let mut request = request(&config, 2);
        request.sampling = SamplingConfig::greedy();
        guide(&mut request, 2.0, None);
        let given = random_codes(&config, 2, 7);
        let codes = given.values();
        for (row, column) in [(0, 0), (0, 2), (1, 0), (1, 2)] {
            let start = 3 * row + column;
            request.prefix = Some(Prefix {
                codes: given.clone(),
                row,
                column,
            });
            let done = generate(&model, &request);
            let best = full_argmax(&model, &done, &request);
            for (i, got) in done.iter().enumerate() {
                let expected = if i % 6 < start { codes[i] } else { best[i] };
                assert_eq!(*got, expected, "{i} from {start}");
            }
        }
    }

    #[test]
    fn captions_of_several_lengths_are_written_as_if_alone() {
        let config = all_kinds()[3].clone();
        let model = random(&config, &Device::flex(), 8);
        let captions: Vec<Caption> = [3, 3, 1, 5]
            .into_iter()
            .zip(0..)
            .map(|(tokens, seed)| Caption {
                values: smalti_nn::Noise::from_seed(seed).normal_values(3 * tokens),
                width: 3,
            })
            .collect();
        let mut request = GenerationRequest::new(Conditions::Captions(captions.clone()), 5);
        guide(&mut request, 2.0, None);
        let together = generate(&model, &request);
        for (i, caption) in captions.into_iter().enumerate() {
            request.conditions = Conditions::Captions(vec![caption]);
            request.first_sample = i as u64;
            let alone = generate(&model, &request);
            assert_eq!(alone, together[12 * i..12 * (i + 1)], "caption {i}");
        }
    }

    #[test]
    fn progress_is_told_and_cancelling_stops() {
        let model = random(&tiny(2), &Device::flex(), 8);
        let mut request = request(&tiny(2), 3);
        request.batch_size = 2;
        let mut seen = Vec::new();
        let mut watch = |progress: Progress| {
            seen.push(progress.done);
            assert_eq!(progress.total, 18);
            match progress.done {
                14.. => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        };
        let cancelled = model.generate(&request, &mut watch);
        assert!(matches!(cancelled, Err(GenerateError::Cancelled)));
        assert_eq!(seen, [2, 4, 6, 8, 10, 12, 13, 14]);
        request.conditions = Conditions::Classes(Vec::new());
        assert!(generate(&model, &request).is_empty());
    }
}
