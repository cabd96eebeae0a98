//! Sampling images from an [`RqTransformer`], code by code.
//!
//! Positions in raster order, depths within a position. Keys and values of earlier positions stay in a
//! cache that is allocated once for a batch (`[batch, heads, condition length + positions, head width]` for
//! each block of the body); the head's cache holds one position and is cleared for the next. Where the
//! head sees sums of code vectors, the sum is carried along. Logits of one depth come to the host as one
//! slice, where codes are drawn (see [`sampling`](crate::generators::sampling)). How batches keep from
//! changing what is drawn stands in `generators/drawing.rs`.

use std::ops::{ControlFlow, Range};

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use smalti_nn::TransformerCache;
use smalti_nn::nearest::id_tensor;
use smalti_quantize::Codes;

use super::model::RqTransformer;
use crate::generators::drawing::{Draws, Maps, Rows};
use crate::generators::request::{GenerateError, GenerationRequest, Progress};
use crate::generators::walk::{Walk, walk_maps};

impl RqTransformer {
    /// Samples codes, one map for each condition.
    ///
    /// `watch` is called after every position and stops the generation by [`ControlFlow::Break`].
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
    model: &'a RqTransformer,
    device: Device,
    draws: Draws,
    /// Rows of all tensors.
    rows: Rows,
    /// `[rows, condition length]`
    condition: Tensor<2, Int>,
    body: TransformerCache,
    head: TransformerCache,
}

impl<'a> Writer<'a> {
    fn new(model: &'a RqTransformer, request: &GenerationRequest, samples: Range<usize>) -> Self {
        let config = model.config();
        let device = model.device();
        let capacity = config.condition.length() + config.positions() - 1;
        let rows = Rows::new(samples.len(), request.conditions.len(), 1);
        let shown: Vec<usize> = rows.samples().map(|i| samples.start + i).collect();
        Self {
            model,
            draws: Draws::new(request, samples, &config.layout()),
            condition: request.conditions.pick(&shown).ids(&device),
            body: model.body_transformer.cache(rows.count, capacity, &device),
            head: model
                .head_transformer
                .cache(rows.count, config.depth, &device),
            rows,
            device,
        }
    }
}

impl Walk for Writer<'_> {
    fn rows(&self) -> Rows {
        self.rows
    }

    fn start(&self) -> Tensor<3> {
        self.model.condition_input(self.condition.clone())
    }

    fn given(&self, maps: &Maps, places: Range<usize>) -> Tensor<3> {
        let shape = [self.rows.count, places.len(), maps.depth];
        let ids = maps.given(self.rows.samples(), places.clone());
        let codes = id_tensor(&ids, shape, &self.device);
        self.model.body_input(codes, places.start)
    }

    fn read(&mut self, input: Tensor<3>) -> Tensor<3> {
        let [_, length, _] = input.dims();
        let body = &self.model.body_transformer;
        body.forward_cached(input, &mut self.body)
            .narrow(1, length - 1, 1)
    }

    fn write(
        &mut self,
        context: Tensor<3>,
        maps: &mut Maps,
        position: usize,
    ) -> Result<(), GenerateError> {
        let model = self.model;
        self.head.clear();
        let mut input = context;
        let mut sum: Option<Tensor<2>> = None;
        for depth in 0..maps.depth {
            let placed = input + model.pos_emb_d.val().narrow(1, depth, 1);
            let output = model
                .head_transformer
                .forward_cached(placed, &mut self.head);
            let logits = model
                .classifier
                .forward_at(depth, output.squeeze_dim::<2>(1));
            let drawn = self.draws.draw(logits, depth, position)?;
            maps.set(depth, position, &drawn);
            let ids = id_tensor(&self.rows.spread(&drawn), [self.rows.count], &self.device);
            let mut seen = model.code_vectors_at(depth, ids);
            if model.sums_depths() {
                seen = match sum.take() {
                    Some(before) => before + seen,
                    None => seen,
                };
                sum = Some(seen.clone());
            }
            input = model
                .head_mlp
                .as_ref()
                .map_or(seen.clone(), |mlp| mlp.forward(seen))
                .unsqueeze_dim(1);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generators::conditions::Conditions;
    use crate::generators::output::GeneratorInput;
    use crate::generators::request::Prefix;
    use crate::generators::rq_transformer::config::{Condition, RqTransformerConfig};
    use crate::generators::rq_transformer::testing::{build, random_codes, tiny, tiny_uneven};
    use crate::generators::sampling::SamplingConfig;
    use crate::generators::walk::read_before;
    use smalti_nn::linear::FEW_ROWS;
    use smalti_nn::nearest::id_values;
    use smalti_nn::state::host_values;

    fn go_on(_: Progress) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn request(config: &RqTransformerConfig, samples: usize) -> GenerationRequest {
        let conditions = match config.condition {
            Condition::Unconditional {} => Conditions::Unconditional(samples),
            Condition::Class { classes } => {
                Conditions::Classes((0..samples).map(|i| (i % classes) as u32).collect())
            }
            Condition::Text { length, .. } => {
                Conditions::Texts((0..samples).map(|i| vec![i as u32 % 5; length]).collect())
            }
        };
        GenerationRequest::new(conditions, 11)
    }

    /// The codes that `request` gives.
    fn generate(model: &RqTransformer, request: &GenerationRequest) -> Vec<u32> {
        model.generate(request, &mut go_on).unwrap().values()
    }

    /// Greedy codes of the model's full forward pass given `codes`.
    fn full_argmax(model: &RqTransformer, codes: &[u32], request: &GenerationRequest) -> Vec<u32> {
        let RqTransformerConfig {
            height,
            width,
            depth,
            ..
        } = *model.config();
        let conditions = request.conditions.clone();
        let shape = [conditions.len(), depth, height, width];
        let codes = Codes::from_values(codes, shape, &model.device());
        let output = model.forward(GeneratorInput { codes, conditions }, None);
        id_values(output.logits.argmax(3).squeeze_dim::<3>(3).swap_dims(1, 2))
    }

    #[test]
    fn greedy_codes_are_the_largest_logits_of_the_full_pass() {
        for (config, seed) in [(tiny(), 1), (tiny_uneven(), 2)] {
            let model = build(&config, &Device::flex(), seed);
            let mut request = request(&config, 3);
            request.sampling = SamplingConfig::greedy();
            let codes = generate(&model, &request);
            assert_eq!(full_argmax(&model, &codes, &request), codes);
        }
    }

    #[test]
    fn batches_and_devices_with_gradients_change_nothing() {
        for (config, samples) in [(tiny(), 7), (tiny_uneven(), 7), (tiny_uneven(), 37)] {
            let model = build(&config, &Device::flex(), 3);
            let mut request = request(&config, samples);
            let codes = random_codes(&config, samples, &Device::flex(), 4);
            request.prefix = Some(Prefix {
                codes,
                row: 0,
                column: 2,
            });
            let whole = generate(&model, &request);
            for batch_size in [1, 5, FEW_ROWS, FEW_ROWS + 2] {
                request.batch_size = batch_size;
                assert_eq!(generate(&model, &request), whole);
            }
            let tracked = build(&config, &Device::flex().autodiff(), 3);
            assert_eq!(generate(&tracked, &request), whole);
            request.seed += 1;
            assert_ne!(generate(&model, &request), whole);
        }
    }

    #[test]
    fn batches_do_not_change_a_bit_of_the_contexts() {
        let device = Device::flex();
        let config = tiny_uneven();
        let model = build(&config, &device, 3);
        let mut codes = random_codes(&config, 40, &device, 4).values();
        for samples in [FEW_ROWS, 40] {
            let request = request(&config, samples);
            let map = config.layout().codes();
            let mut contexts = |batch: Range<usize>| {
                let maps = Maps {
                    codes: &mut codes[batch.start * map..batch.end * map],
                    depth: config.depth,
                    positions: config.positions(),
                };
                let mut writer = Writer::new(&model, &request, batch.clone());
                let contexts = read_before(&mut writer, &maps, 4);
                host_values(contexts.narrow(0, 0, batch.len()))
            };
            let whole = contexts(0..samples);
            let width = whole.len() / samples;
            for batch in [0..1, 3..8, 2..samples] {
                let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                let expected = &whole[batch.start * width..batch.end * width];
                assert_eq!(bits(&contexts(batch)), bits(expected), "{samples} samples");
            }
        }
    }

    #[test]
    fn a_sample_is_known_by_its_number() {
        let config = tiny();
        let model = build(&config, &Device::flex(), 4);
        let all = Conditions::Classes(vec![2; 5]);
        let whole = generate(&model, &GenerationRequest::new(all, 5));
        let mut last = GenerationRequest::new(Conditions::Classes(vec![2; 2]), 5);
        last.first_sample = 3;
        assert_eq!(generate(&model, &last), whole[3 * 18..]);
        assert_ne!(whole[..18], whole[18..36]);
    }

    #[test]
    fn a_prefix_is_kept_and_continued() {
        let config = tiny();
        let model = build(&config, &Device::flex(), 6);
        let mut request = request(&config, 2);
        request.sampling = SamplingConfig::greedy();
        let given = random_codes(&config, 2, &Device::flex(), 7);
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
            for (i, (&got, (&given, &best))) in done.iter().zip(codes.iter().zip(&best)).enumerate()
            {
                assert_eq!(
                    got,
                    if i % 6 < start { given } else { best },
                    "{i} from {start}"
                );
            }
        }
    }

    #[test]
    fn progress_is_told_and_cancelling_stops() {
        let config = tiny();
        let model = build(&config, &Device::flex(), 8);
        let mut request = request(&config, 3);
        request.batch_size = 2;
        let mut seen = Vec::new();
        let mut watch = |progress: Progress| {
            seen.push(progress.done);
            assert_eq!(progress.total, 18);
            if progress.done >= 14 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        assert!(matches!(
            model.generate(&request, &mut watch),
            Err(GenerateError::Cancelled)
        ));
        assert_eq!(seen, [2, 4, 6, 8, 10, 12, 13, 14]);
        request.conditions = Conditions::Classes(Vec::new());
        assert!(generate(&model, &request).is_empty());
    }

    #[test]
    fn logits_that_are_no_numbers_are_an_error() {
        let config = tiny();
        let mut model = build(&config, &Device::flex(), 10);
        model.classifier.layer_norm.weight =
            model.classifier.layer_norm.weight.map(|w| w * f32::NAN);
        let error = model
            .generate(&request(&config, 2), &mut go_on)
            .unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("sample 0, row 0, column 0, depth 0: no code"),
            "{error}"
        );
    }
}
