//! How the codebooks of a residual quantizer learn: their start, and an update in either order.

use burn::tensor::Tensor;
use smalti_nn::Noise;
use smalti_nn::nearest::{id_values, nearest_rows};
use smalti_nn::state::host_values;

use super::{ResidualQuantizer, Stack};
use crate::learning::{Draws, check_learnable};
use crate::{Learn, QuantizeError, Quantized, UpdateOrder, UpdateReport};

impl Learn for ResidualQuantizer {
    fn quantize_and_update(
        &mut self,
        latents: Tensor<4>,
        noise: &mut Noise,
    ) -> Result<(Quantized, UpdateReport), QuantizeError> {
        let mut draws = noise.fork();
        self.train_with(latents, noise, draws.rng())
    }
}

impl ResidualQuantizer {
    /// [`Learn::quantize_and_update`] with the random choices of revival from `draws`.
    pub(super) fn train_with(
        &mut self,
        latents: Tensor<4>,
        noise: &mut Noise,
        draws: &mut dyn Draws,
    ) -> Result<(Quantized, UpdateReport), QuantizeError> {
        let folded = self.folded(latents.clone())?;
        let (rows, grid) = self.rows(latents.clone())?;
        check_learnable(&host_values(rows.clone()))?;
        // An error at a later depth must not leave the updates of earlier ones behind.
        let before = self.codebooks.clone();
        match self.learn(rows, noise, draws) {
            Ok((stack, report)) => Ok((self.finish(latents, folded, stack, grid), report)),
            Err(error) => {
                self.codebooks = before;
                Err(error)
            }
        }
    }

    fn learn(
        &mut self,
        rows: Tensor<2>,
        noise: &mut Noise,
        draws: &mut dyn Draws,
    ) -> Result<(Stack, UpdateReport), QuantizeError> {
        self.start(&rows, noise);
        match self.config.learning.order {
            UpdateOrder::PerDepth => self.stack_per_depth(rows, draws),
            UpdateOrder::Joint => {
                let stack = self.stack(rows)?;
                let report = self.update_jointly(&stack, draws)?;
                Ok((stack, report))
            }
        }
    }

    /// Quantizes in the published order: the table is rewritten after every depth. The code of a
    /// depth is looked up before that.
    fn stack_per_depth(
        &mut self,
        rows: Tensor<2>,
        draws: &mut dyn Draws,
    ) -> Result<(Stack, UpdateReport), QuantizeError> {
        let learning = self.config.learning.clone();
        let mut stack = Stack::new(rows);
        let mut report = UpdateReport::default();
        for depth in 0..self.config.depth {
            self.step(&mut stack)?;
            let book = self.book(depth);
            let vectors = host_values(stack.residuals[depth].clone());
            let ids = id_values(stack.ids[depth].clone());
            report.merge(&self.codebooks[book].update(&vectors, &ids, &learning, draws)?);
        }
        Ok((stack, report))
    }

    /// Updates every codebook once, from the residuals of the depths that used it.
    fn update_jointly(
        &mut self,
        stack: &Stack,
        draws: &mut dyn Draws,
    ) -> Result<UpdateReport, QuantizeError> {
        let learning = self.config.learning.clone();
        let mut report = UpdateReport::default();
        for book in 0..self.codebooks.len() {
            let (mut vectors, mut ids) = (Vec::new(), Vec::new());
            for depth in (0..self.config.depth).filter(|&depth| self.book(depth) == book) {
                vectors.extend(host_values(stack.residuals[depth].clone()));
                ids.extend(id_values(stack.ids[depth].clone()));
            }
            report.merge(&self.codebooks[book].update(&vectors, &ids, &learning, draws)?);
        }
        Ok(report)
    }

    /// Places fresh codes on the first latents: separate codebooks each on their depth's residuals,
    /// the parts of a shared one on the residuals of one depth after the other.
    fn start(&mut self, rows: &Tensor<2>, noise: &mut Noise) {
        let Some(iterations) = self.codebooks[0].awaits_start(&self.config.learning) else {
            return;
        };
        let (depth, width) = (self.config.depth, self.config.code_dim);
        let mut residual = host_values(rows.clone());
        for d in 0..depth {
            let book = &mut self.codebooks[if self.config.shared { 0 } else { d }];
            let size = book.size();
            let part = if self.config.shared {
                d * size / depth..(d + 1) * size / depth
            } else {
                0..size
            };
            if part.is_empty() {
                continue;
            }
            book.start_on(&residual, part.clone(), iterations, noise);
            let codes = &book.averages().table[part.start * width..part.end * width];
            let ids = nearest_rows(&residual, codes, width);
            for (vector, id) in residual.chunks_exact_mut(width).zip(ids) {
                let code = &codes[id as usize * width..][..width];
                vector.iter_mut().zip(code).for_each(|(v, c)| *v -= c);
            }
        }
    }
}
