//! The tokenizer's codebooks as the generator sees them: frozen tables of vectors.
//!
//! The published transformers contain no codebook and look codes up in the tokenizer; here the tables
//! travel with the generator, so that its file alone can run it.

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Int, Tensor};

/// One table for all depths or one for each, `[codebook_size, code_dim]`. Never trained.
#[derive(Module, Debug)]
pub struct CodeEmbedding {
    /// One, or as many as depths.
    pub tables: Vec<Param<Tensor<2>>>,
}

impl CodeEmbedding {
    /// The given tables (without a padding row): one that all depths share, or one for each depth.
    pub fn new(tables: Vec<Tensor<2>>) -> Self {
        let freeze = |table: Tensor<2>| {
            Param::initialized(ParamId::new(), table.detach()).set_require_grad(false)
        };
        Self {
            tables: tables.into_iter().map(freeze).collect(),
        }
    }

    /// Tables of the given sizes to load weights into.
    pub fn zeros(codebook_sizes: &[usize], code_dim: usize, device: &Device) -> Self {
        let zeros = |&size: &usize| Tensor::zeros([size, code_dim], device);
        Self::new(codebook_sizes.iter().map(zeros).collect())
    }

    /// `[codebook_size, code_dim]` of every table.
    pub fn shapes(&self) -> Vec<[usize; 2]> {
        self.tables
            .iter()
            .map(|table| table.lazy_shape().dims())
            .collect()
    }

    /// The vectors of codes `[batch, positions, depth]`: `[batch, positions, depth, code_dim]`.
    pub fn lookup(&self, codes: Tensor<3, Int>) -> Tensor<4> {
        let [batch, positions, depth] = codes.dims();
        let [_, code_dim] = self.tables[0].dims();
        if let [table] = &self.tables[..] {
            let ids = codes.reshape([batch * positions * depth]);
            return table
                .val()
                .select(0, ids)
                .reshape([batch, positions, depth, code_dim]);
        }
        let vectors = (0..depth).map(|d| {
            let ids = codes.clone().narrow(2, d, 1).reshape([batch * positions]);
            self.lookup_at(d, ids)
                .reshape([batch, positions, 1, code_dim])
        });
        Tensor::cat(vectors.collect(), 2)
    }

    /// The vectors of codes `[batch]` of one depth: `[batch, code_dim]`.
    pub fn lookup_at(&self, depth: usize, codes: Tensor<1, Int>) -> Tensor<2> {
        let table = if self.tables.len() == 1 { 0 } else { depth };
        self.tables[table].val().select(0, codes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_depth_is_looked_up_in_its_table() {
        let device = Device::flex();
        let tables = [[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]]
            .map(|rows| Tensor::<2>::from_data(rows, &device));
        let codes = Tensor::<3, Int>::from_data([[[1, 0], [0, 1]]], &device);
        let values = |e: &CodeEmbedding| e.lookup(codes.clone()).try_into_vec_as::<f32>().unwrap();
        let own = CodeEmbedding::new(tables.to_vec());
        assert_eq!(values(&own), [3.0, 4.0, 5.0, 6.0, 1.0, 2.0, 7.0, 8.0]);
        let shared = CodeEmbedding::new(vec![tables[0].clone()]);
        assert_eq!(values(&shared), [3.0, 4.0, 1.0, 2.0, 1.0, 2.0, 3.0, 4.0]);
        assert_eq!(own.shapes(), [[2, 2], [2, 2]]);
        let single = own.lookup_at(1, Tensor::from_data([1], &device));
        assert_eq!(single.try_into_vec_as::<f32>().unwrap(), [7.0, 8.0]);
    }

    #[test]
    fn tables_are_never_trained() {
        let device = Device::flex().autodiff();
        let codes = CodeEmbedding::new(vec![Tensor::ones([4, 2], &device).require_grad()]);
        assert!(!codes.lookup(Tensor::zeros([1, 2, 3], &device)).is_tracked());
        assert!(
            !codes
                .train()
                .lookup(Tensor::zeros([1, 2, 3], &device))
                .is_tracked()
        );
    }
}
