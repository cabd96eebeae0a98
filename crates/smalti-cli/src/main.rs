//! The `smalti` command line.

fn main() {}
