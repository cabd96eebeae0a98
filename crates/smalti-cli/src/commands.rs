//! One file for each command.

pub(crate) mod compare;
pub(crate) mod completions;
pub(crate) mod convert;
pub(crate) mod decode;
pub(crate) mod demo;
pub(crate) mod distance;
pub(crate) mod divergence;
pub(crate) mod encode;
pub(crate) mod evaluate;
pub(crate) mod files;
pub(crate) mod generate;
pub(crate) mod images;
pub(crate) mod import;
pub(crate) mod inspect;
pub(crate) mod table;
pub(crate) mod train;
