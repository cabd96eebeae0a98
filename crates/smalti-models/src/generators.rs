//! Generators: models that write images code by code.
//!
//! They speak codes and know no autoencoder. What a generator needs of its tokenizer, the frozen
//! codebook, comes in as plain tables ([`rq_transformer::CodeEmbedding`]).
//!
//! [`AnyGenerator`] is one of them: [`rq_transformer`] (codes that refine one another), [`far`] (codes
//! beside one another, and LlamaGen's single code) or [`gpt`] (one sequence of codes, as VQGAN's second
//! stage has it), which write code by code; [`diffusion`] or [`masked`], which write whole maps in
//! passes. What they have in common stands here: the [`layout`] of the maps, the [`conditions`], a
//! [`request`] and how it is drawn ([`sampling`], [`writing`]), the [`loss`] and the [`lesson`].

pub mod any;
pub mod class_condition;
pub mod conditions;
pub mod config;
pub mod diffusion;
mod drawing;
pub mod far;
pub mod gpt;
pub mod layout;
pub mod lesson;
pub mod loss;
pub mod masked;
pub mod output;
mod passes;
pub mod request;
pub mod rq_transformer;
pub mod sampling;
mod walk;
pub mod writing;

pub use any::AnyGenerator;
pub use class_condition::ClassCondition;
pub use conditions::{Caption, Conditions, InvalidInput};
pub use config::{GeneratorConfig, InvalidGenerator};
pub use layout::{CodeLayout, CodebookSize};
pub use lesson::{GeneratorLesson, TimeLoss};
pub use loss::{CodeTargets, GeneratorLosses, LossWeights};
pub use output::{GeneratorInput, GeneratorOutput, TextOutput};
pub use request::{GenerateError, GenerationRequest, Prefix, Progress};
pub use writing::{UnmaskingOrder, Writing};
