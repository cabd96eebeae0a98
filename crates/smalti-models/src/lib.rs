//! Autoencoders, and the generators that write images token by token.
