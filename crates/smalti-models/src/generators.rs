//! Generators: models that write images code by code.
//!
//! They speak codes and know no autoencoder. What a generator needs of its tokenizer, the frozen
//! codebook, comes in as plain tables ([`rq_transformer::CodeEmbedding`]).

pub mod rq_transformer;
pub mod sampling;
