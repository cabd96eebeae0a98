//! Training as a whole, at a size that takes seconds.

mod adversary;
mod any_tokenizer;
mod failure;
mod far;
mod gpt;
mod learning;
mod recipes;
mod resume;
mod support;
mod whole_map;
