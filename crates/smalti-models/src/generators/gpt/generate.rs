//! Sampling images from a [`Gpt`], code by code.
//!
//! Positions in raster order, the codes of one in their order, each read before the next is drawn. Keys
//! and values of what was read stay in a cache that is allocated once for a batch. How batches keep from
//! changing what is drawn stands in `generators/drawing.rs`.
//!
//! Different from the published code: a token that is no code of its depth (a vocabulary larger than the
//! codebook) is never drawn, where it is there, and then fails to be decoded.

use std::ops::{ControlFlow, Range};

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use smalti_nn::TransformerCache;
use smalti_nn::nearest::id_tensor;
use smalti_nn::transformer::{cache, through_cached};
use smalti_quantize::Codes;

use super::model::Gpt;
use crate::generators::drawing::{Draws, Maps, Rows};
use crate::generators::request::{GenerateError, GenerationRequest, Progress};
use crate::generators::walk::{Walk, walk_maps};

impl Gpt {
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
    model: &'a Gpt,
    device: Device,
    draws: Draws,
    rows: Rows,
    /// `[rows, 1]`
    start: Tensor<2, Int>,
    cache: TransformerCache,
    /// Numbers of codes of the depths.
    sizes: Vec<usize>,
}

impl<'a> Writer<'a> {
    fn new(model: &'a Gpt, request: &GenerationRequest, samples: Range<usize>) -> Self {
        let config = model.config();
        let device = model.device();
        let rows = Rows::new(samples.len(), request.conditions.len(), 1);
        let shown: Vec<usize> = rows.samples().map(|i| samples.start + i).collect();
        Self {
            model,
            draws: Draws::new(request, samples, &config.layout()),
            start: model.start(&request.conditions.pick(&shown), &device),
            cache: cache(&model.blocks, rows.count, config.codes(), &device),
            rows,
            sizes: config.codebook_sizes(),
            device,
        }
    }

    /// The input for codes `[rows, length]` of which the first is number `first` of the map.
    fn placed(&self, ids: &[u32], first: usize) -> Tensor<3> {
        let shape = [self.rows.count, ids.len() / self.rows.count];
        self.model
            .placed(id_tensor(ids, shape, &self.device), first + 1)
    }
}

impl Walk for Writer<'_> {
    fn rows(&self) -> Rows {
        self.rows
    }

    fn start(&self) -> Tensor<3> {
        self.model.placed(self.start.clone(), 0)
    }

    fn given(&self, maps: &Maps, places: Range<usize>) -> Tensor<3> {
        let first = places.start * maps.depth;
        self.placed(&maps.given(self.rows.samples(), places), first)
    }

    /// Of several codes all but the last were read while they were drawn.
    fn written(&self, maps: &Maps, position: usize) -> Tensor<3> {
        let given = self.given(maps, position..position + 1);
        given.narrow(1, maps.depth - 1, 1)
    }

    fn read(&mut self, input: Tensor<3>) -> Tensor<3> {
        let [_, length, _] = input.dims();
        through_cached(&self.model.blocks, input, &mut self.cache).narrow(1, length - 1, 1)
    }

    fn write(
        &mut self,
        mut context: Tensor<3>,
        maps: &mut Maps,
        position: usize,
    ) -> Result<(), GenerateError> {
        for depth in 0..maps.depth {
            let logits = self.model.logits(context.clone()).squeeze_dim::<2>(1);
            let logits = logits.narrow(1, 0, self.sizes[depth]);
            let drawn = self.draws.draw(logits, depth, position)?;
            maps.set(depth, position, &drawn);
            if depth + 1 < maps.depth {
                let number = position * maps.depth + depth;
                context = self.read(self.placed(&self.rows.spread(&drawn), number));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generators::conditions::Conditions;
    use crate::generators::gpt::GptConfig;
    use crate::generators::gpt::testing::{
        conditions, random, random_codes, tiny, tiny_deep, tiny_free,
    };
    use crate::generators::output::GeneratorInput;
    use crate::generators::request::Prefix;
    use crate::generators::sampling::{Guidance, SamplingConfig};
    use smalti_nn::linear::FEW_ROWS;
    use smalti_nn::nearest::id_values;

    fn go_on(_: Progress) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn request(config: &GptConfig, samples: usize) -> GenerationRequest {
        GenerationRequest::new(conditions(config, samples), 11)
    }

    fn generate(model: &Gpt, request: &GenerationRequest) -> Vec<u32> {
        model.generate(request, &mut go_on).unwrap().values()
    }

    /// The likeliest codes of the model's full forward pass given `codes`.
    fn full_argmax(model: &Gpt, codes: &[u32], request: &GenerationRequest) -> Vec<u32> {
        let config = model.config();
        let conditions = request.conditions.clone();
        let shape = [conditions.len(), config.depth, config.height, config.width];
        let codes = Codes::from_values(codes, shape, &model.device());
        let logits = model
            .forward(GeneratorInput { codes, conditions }, None)
            .logits;
        let best = config.codebook_sizes().into_iter().enumerate();
        let best = best.map(|(d, size)| {
            let own = logits.clone().narrow(2, d, 1).narrow(3, 0, size);
            own.argmax(3).squeeze_dim::<3>(3)
        });
        id_values(Tensor::cat(best.collect(), 2).swap_dims(1, 2))
    }

    #[test]
    fn greedy_codes_are_the_largest_logits_of_the_full_pass() {
        for config in [tiny(), tiny_free(), tiny_deep()] {
            let model = random(&config, &Device::flex(), 1);
            let mut request = request(&config, 3);
            request.sampling = SamplingConfig::greedy();
            let codes = generate(&model, &request);
            assert_eq!(full_argmax(&model, &codes, &request), codes, "{config:?}");
        }
    }

    #[test]
    fn batches_and_devices_with_gradients_change_nothing() {
        for (config, samples) in [
            (tiny(), 7),
            (tiny_free(), FEW_ROWS + 3),
            (tiny_deep(), 7),
            (tiny_deep(), FEW_ROWS + 3),
        ] {
            let model = random(&config, &Device::flex(), 3);
            let mut request = request(&config, samples);
            request.prefix = Some(Prefix {
                codes: random_codes(&config, samples, 4),
                row: 1,
                column: 0,
            });
            let whole = generate(&model, &request);
            for batch_size in [1, 5, FEW_ROWS] {
                request.batch_size = batch_size;
                assert_eq!(generate(&model, &request), whole, "{batch_size}");
            }
            let tracked = random(&config, &Device::flex().autodiff(), 3);
            assert_eq!(generate(&tracked, &request), whole);
            request.seed += 1;
            assert_ne!(generate(&model, &request), whole);
        }
    }

    #[test]
    fn a_prefix_is_kept_and_continued() {
        for config in [tiny(), tiny_deep()] {
            let model = random(&config, &Device::flex(), 6);
            let mut request = request(&config, 2);
            request.sampling = SamplingConfig::greedy();
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
    }

    #[test]
    fn what_is_no_code_of_its_depth_is_never_drawn() {
        let config = tiny_deep();
        let model = random(&config, &Device::flex(), 9);
        let mut request = request(&config, 64);
        request.sampling.temperature = 50.0;
        let codes = model.generate(&request, &mut go_on).unwrap();
        assert_eq!(config.layout().check(&codes), Ok(()));
        let values = codes.values();
        let largest = |depth: usize| {
            let maps = values.chunks(6).skip(depth).step_by(2);
            maps.flatten().max().copied()
        };
        assert_eq!((largest(0), largest(1)), (Some(11), Some(4)));
    }

    #[test]
    fn what_the_model_cannot_do_is_refused() {
        let model = random(&tiny(), &Device::flex(), 1);
        let mut asked = request(&tiny(), 2);
        asked.sampling.guidance = Some(Guidance::new(2.0));
        let error = model.generate(&asked, &mut go_on).unwrap_err();
        assert!(error.to_string().contains("guidance"), "{error}");
        let classes = GenerationRequest::new(Conditions::Classes(vec![4]), 1);
        let error = model.generate(&classes, &mut go_on).unwrap_err();
        assert!(error.to_string().contains("below 4, got 4"), "{error}");
    }

    #[test]
    fn progress_is_told_and_cancelling_stops() {
        let model = random(&tiny_deep(), &Device::flex(), 8);
        let mut request = request(&tiny_deep(), 3);
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
    }
}
