//! Times every kernel: `cargo bench -p smalti-kernels`, or with a part of a name, `-- conv2d`.
//!
//! Rates count what the plain definition of a kernel computes or reads: an item of a convolution or product is a
//! floating-point operation (2 for a multiply-add), a byte of the others is one that has to be read or
//! written once. `RAYON_NUM_THREADS` sets the threads.

mod attention;
mod codes;
mod elementwise;
mod norms;
mod products;
mod training;

fn main() {
    divan::main();
}

/// Values of about unit spread, the same for the same seed.
fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..count)
        .map(|_| (next() + next() + next() + next()) * 1.732)
        .collect()
}

/// Bytes of so many arrays of `f32` of one length.
fn bytes(arrays: usize, length: usize) -> divan::counter::BytesCount {
    divan::counter::BytesCount::new(4 * arrays * length)
}
