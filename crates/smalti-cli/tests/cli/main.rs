//! The command line as a user meets it: what it prints, what it leaves behind, and what it says when
//! something is wrong.

mod compare;
mod convert;
mod damage;
mod distance;
mod evaluate;
mod generate;
mod guidance;
mod help;
mod images;
mod import;
mod inspect;
mod interruptions;
mod passes;
mod support;
mod training;
mod vae;
