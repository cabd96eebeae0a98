//! From ids to the vectors that body and head read; see the model's documentation for the formulas.

use burn::tensor::{Int, Tensor, s};
use smalti_nn::{Embedding, linear};

use super::config::{CodeInput, Sharing};
use super::model::RqTransformer;

impl RqTransformer {
    /// The vectors in front of an image, `[batch, condition length, width]`.
    pub(super) fn condition_input(&self, condition: Tensor<2, Int>) -> Tensor<3> {
        let [batch, length] = condition.dims();
        assert_eq!(
            length,
            self.config.condition.length(),
            "condition [batch {batch}, length {length}]"
        );
        self.cond_emb.forward(condition) + self.pos_emb_cond.val()
    }

    /// The body's input for codes `[batch, positions, depth]` whose first position is `start`.
    pub(super) fn body_input(&self, codes: Tensor<3, Int>, start: usize) -> Tensor<3> {
        let sum = self.code_vectors(codes).sum_dim(2).squeeze_dim::<3>(2);
        let [_, positions, _] = sum.dims();
        let projected = match &self.input_mlp {
            Some(mlp) => {
                let depth = self.config.depth as f64;
                let bias = mlp.bias.as_ref().map(|bias| bias.val().mul_scalar(depth));
                linear(sum, mlp.weight.val(), bias)
            }
            None => sum,
        };
        projected
            + self
                .pos_emb_hw
                .val()
                .slice(s![.., start..start + positions, ..])
    }

    /// The head's inputs that follow codes `[batch, positions, d]`, without the places of the depths.
    pub(super) fn head_input(&self, codes: Tensor<3, Int>) -> Tensor<4> {
        let vectors = self.code_vectors(codes);
        let Some(mlp) = &self.head_mlp else {
            return vectors;
        };
        mlp.forward(if self.sums_depths() {
            vectors.cumsum(2)
        } else {
            vectors
        })
    }

    /// Whether the head sees the sum of the code vectors before a depth, rather than the last one.
    pub(super) fn sums_depths(&self) -> bool {
        matches!(
            self.config.embedding,
            CodeInput::Tokenizer {
                cumulative: true,
                ..
            }
        )
    }

    /// The vectors of codes `[batch, positions, d]`, `d` of the first depths.
    fn code_vectors(&self, codes: Tensor<3, Int>) -> Tensor<4> {
        if let Some(tables) = &self.code_embedding {
            return tables.lookup(codes);
        }
        let [batch, positions, depth] = codes.dims();
        let offsets: Vec<i32> = (0..depth).map(|d| self.table_offset(d) as i32).collect();
        let offsets = Tensor::<1, Int>::from_data(&offsets[..], &codes.device());
        let ids = codes + offsets.unsqueeze::<3>();
        let vectors = self
            .own_table()
            .forward(ids.reshape([batch, positions * depth]));
        vectors.reshape([batch, positions, depth, self.config.embed_dim])
    }

    /// The vectors of codes `[batch]` of one depth.
    pub(super) fn code_vectors_at(&self, depth: usize, codes: Tensor<1, Int>) -> Tensor<2> {
        match &self.code_embedding {
            Some(tables) => tables.lookup_at(depth, codes),
            None => {
                let ids = codes.add_scalar(self.table_offset(depth) as i64);
                self.own_table()
                    .forward(ids.unsqueeze::<2>())
                    .squeeze_dim::<2>(0)
            }
        }
    }

    fn own_table(&self) -> &Embedding {
        self.tok_emb
            .as_ref()
            .expect("a model without the tokenizer's codebooks has its own table")
    }

    /// Where a depth's rows begin in the generator's own table.
    fn table_offset(&self, depth: usize) -> usize {
        match self.config.embedding {
            CodeInput::Own {
                tables: Sharing::PerDepth,
            } => self.config.codebook_sizes()[..depth].iter().sum(),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generators::rq_transformer::config::RqTransformerConfig;
    use crate::generators::rq_transformer::testing::{build, random_codes, tiny, tiny_uneven};
    use burn::tensor::Device;

    /// Models whose codes have vectors of every kind.
    fn models() -> Vec<RqTransformer> {
        let own = |tables, config| RqTransformerConfig {
            embedding: CodeInput::Own { tables },
            ..config
        };
        let configs = [
            tiny(),
            tiny_uneven(),
            own(Sharing::Shared, tiny()),
            own(Sharing::PerDepth, tiny_uneven()),
        ];
        configs
            .iter()
            .map(|config| build(config, &Device::flex(), 1))
            .collect()
    }

    #[test]
    fn codes_of_one_depth_have_the_vectors_they_have_among_all() {
        for model in models() {
            let device = Device::flex();
            let codes = model.by_position(&random_codes(model.config(), 2, &device, 2), &device);
            let all = model.code_vectors(codes.clone());
            let [batch, positions, _, width] = all.dims();
            for depth in 0..3 {
                let ids = codes
                    .clone()
                    .narrow(2, depth, 1)
                    .reshape([batch * positions]);
                let alone = model.code_vectors_at(depth, ids);
                let slice = all
                    .clone()
                    .narrow(2, depth, 1)
                    .reshape([batch * positions, width]);
                assert!(alone.equal(slice).all().into_scalar::<bool>());
            }
        }
    }

    #[test]
    fn the_bodys_input_is_the_sum_of_projected_codes_and_a_place() {
        for model in models() {
            let device = Device::flex();
            let codes = model.by_position(&random_codes(model.config(), 1, &device, 3), &device);
            let vectors = model.code_vectors(codes.clone());
            // As published: each code is projected, bias included, then all are summed.
            let each = model
                .input_mlp
                .as_ref()
                .map_or(vectors.clone(), |mlp| mlp.forward(vectors));
            let sum = each.sum_dim(2).squeeze_dim::<3>(2) + model.pos_emb_hw.val();
            let input = model.body_input(codes, 0);
            assert!(input.all_close(sum, Some(1e-5), Some(1e-5)));
        }
    }
}
