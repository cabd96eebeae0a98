use super::*;
use sha2::{Digest, Sha256};

fn digest(points: &[u32]) -> String {
    let mut hash = Sha256::new();
    for point in points {
        hash.update(point.to_le_bytes());
    }
    hash.finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// SHA-256 of the first points as little-endian 32-bit integers, with their least and greatest.
#[test]
fn the_points_of_seed_42_are_pytorchs() {
    let known = [
        (
            16,
            65536,
            "1f0ca1b894cb0ef3af506b9e17957e813355770ce469c99f6e483f052b783c12",
            1608,
            1073740195,
        ),
        (
            8,
            65536,
            "364e3eaf3a1d44a7302ffb0764160a1576a352b61797c96918e475c658f45633",
            3264,
            1073739775,
        ),
        (
            4,
            65536,
            "a13dcdc78d98377a18c5b37e9bb20e97b0b6d3c99ee889307c8c7cc36e7d2beb",
            2002,
            1073739419,
        ),
        (
            1,
            65536,
            "1a718e1a389938579c5479f9198f2e2c791234232bc2b220607cc2a09ce95e78",
            421,
            1073741755,
        ),
        (
            12,
            4096,
            "878aa1fcf6cf37d157fc1a17d788a054d56ba44dd8f7f8d38f7a0ac08440f90b",
            9775,
            1073734277,
        ),
        (
            14,
            16384,
            "0dd7e9246147c68f2b2cb4867bd4cd873ce90f63b38d540f9a8775593c8530db",
            13452,
            1073741529,
        ),
        (
            18,
            262_144,
            "f291ad81440fe8118e0bf7e6f9b3f0fcbeb00f1ce7d41c256d6341f0b89521f1",
            165,
            1073740871,
        ),
        (
            14,
            262_144,
            "b41bd1db9c65b81a5022b4c3de51e60348780b5c3841c4deddccaa6c827c4859",
            138,
            1073741529,
        ),
    ];
    for (dims, count, expected, least, greatest) in known {
        let points = scrambled_points(dims, count, 42);
        assert_eq!(
            digest(&points),
            expected,
            "{dims} dimensions, {count} points"
        );
        assert_eq!(points.iter().min(), Some(&least), "{dims}");
        assert_eq!(points.iter().max(), Some(&greatest), "{dims}");
    }
}

#[test]
fn the_first_points_of_seed_42() {
    let points = scrambled_points(16, 3, 42);
    assert_eq!(points[..4], [1071071778, 112062556, 883666784, 450361855]);
    assert_eq!(points[16..20], [455562977, 937919578, 154636302, 805931528]);
    assert_eq!(points[32..36], [6588112, 420987484, 588050205, 22301174]);
    let points = scrambled_points(8, 2, 42);
    assert_eq!(points[8..12], [221491766, 912046632, 353776479, 559753100]);
    let points = scrambled_points(4, 2, 42);
    assert_eq!(points[4..], [486083875, 899867899, 78673571, 661607448]);
}

/// The vector of PyTorch's own test suite: two dimensions, seed 123456.
#[test]
fn the_points_that_pytorch_tests_itself_with() {
    let expected = [
        0.50860737, 0.29320504, 0.07116939, 0.89594537, 0.49354145, 0.11524881, 0.93097717,
        0.70244044, 0.87266153, 0.23887917, 0.31021884, 0.57600391, 0.13687253, 0.42054182,
        0.69931293, 0.77336788,
    ];
    for (x, expected) in scrambled_points(2, 8, 123_456).iter().zip(expected) {
        let got = f64::from(*x) / f64::from(1 << BITS);
        // They are f32.
        assert!((got - expected).abs() < 6e-8, "{got} {expected}");
    }
}

/// What makes a Sobol sequence one: of the first 2^b points each of 2^b equal intervals of a
/// dimension holds exactly one, scrambled or not.
#[test]
fn every_dimension_is_stratified() {
    for (dims, bits, seed) in [(MAX_DIMS, 10, 0), (MAX_DIMS, 10, u32::MAX), (2, 20, 42)] {
        let points = scrambled_points(dims, 1 << bits, seed);
        for dim in 0..dims {
            let mut cells = vec![0; 1 << bits];
            for point in points.chunks_exact(dims) {
                cells[(point[dim] >> (BITS - bits)) as usize] += 1;
            }
            assert!(
                cells.iter().all(|&n| n == 1),
                "seed {seed}, dimension {dim}"
            );
        }
    }
}

#[test]
fn fewer_points_are_the_beginning_of_more() {
    let many = scrambled_points(5, 100, 7);
    assert_eq!(scrambled_points(5, 33, 7), many[..165]);
    assert_ne!(scrambled_points(5, 33, 8), many[..165]);
}
