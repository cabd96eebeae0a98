//! Layers and blocks on burn; the one place where an operation picks a kernel.
