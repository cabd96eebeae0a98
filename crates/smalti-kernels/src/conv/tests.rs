//! All three passes against f64 references, on every path, over odd shapes.

use proptest::prelude::*;

use super::*;
use crate::Simd;
use crate::gemm::tests::noise;

/// A sum and the sum of the magnitudes of its terms, the yardstick for rounding.
type Sum = (f64, f64);

/// Every (output, input, weight) triple of places that a convolution multiplies.
fn for_each_term(s: &ConvShape, mut visit: impl FnMut(usize, usize, usize)) {
    let (oh, ow) = (s.out_height(), s.out_width());
    for n in 0..s.batch {
        for o in 0..s.out_channels {
            for c in 0..s.in_channels {
                for (y, x) in (0..oh).flat_map(|y| (0..ow).map(move |x| (y, x))) {
                    for (ky, kx) in
                        (0..s.kernel).flat_map(|ky| (0..s.kernel).map(move |kx| (ky, kx)))
                    {
                        let (iy, ix) = (y * s.stride + ky, x * s.stride + kx);
                        let (Some(iy), Some(ix)) = (
                            iy.checked_sub(s.padding.top),
                            ix.checked_sub(s.padding.left),
                        ) else {
                            continue;
                        };
                        if iy >= s.height || ix >= s.width {
                            continue;
                        }
                        let output = ((n * s.out_channels + o) * oh + y) * ow + x;
                        let input = ((n * s.in_channels + c) * s.height + iy) * s.width + ix;
                        let weight = ((o * s.in_channels + c) * s.kernel + ky) * s.kernel + kx;
                        visit(output, input, weight);
                    }
                }
            }
        }
    }
}

fn add(to: &mut Sum, a: f32, b: f32) {
    let product = f64::from(a) * f64::from(b);
    *to = (to.0 + product, to.1 + product.abs());
}

/// Every value within rounding of its sum, `least` being the smallest yardstick.
fn close(what: &str, simd: Simd, got: &[f32], expected: &[Sum], least: f64) {
    assert_eq!(got.len(), expected.len());
    for (at, (got, (want, size))) in got.iter().zip(expected).enumerate() {
        let error = (f64::from(*got) - want).abs();
        assert!(
            error <= 1e-6 * size.max(least) + 1e-12,
            "{what} on {simd:?} at {at}: {got} instead of {want}"
        );
    }
}

fn check_all_passes(s: &ConvShape) {
    let (input, weight) = (noise(s.input_len(), 1), noise(s.weight_len(), 2));
    let (bias, grad) = (noise(s.out_channels, 3), noise(s.output_len(), 4));
    let zero = |len| vec![(0.0, 0.0); len];
    let (mut output, mut grad_input) = (zero(s.output_len()), zero(s.input_len()));
    let (mut grad_weight, mut grad_bias) = (zero(s.weight_len()), zero(s.out_channels));
    for_each_term(s, |o, i, w| {
        add(&mut output[o], input[i], weight[w]);
        add(&mut grad_input[i], grad[o], weight[w]);
        add(&mut grad_weight[w], grad[o], input[i]);
    });
    let channel = |at: usize| at / (s.out_height() * s.out_width()) % s.out_channels;
    for at in 0..s.output_len() {
        add(&mut output[at], bias[channel(at)], 1.0);
        add(&mut grad_bias[channel(at)], grad[at], 1.0);
    }
    // A tile of Winograd's form rounds as its largest sum does, also where a border leaves few terms.
    let least = |sums: &[Sum]| match winograd::applies(s) {
        true => sums.iter().map(|sum| sum.1).fold(0.0, f64::max),
        false => 0.0,
    };
    let (least_output, least_input) = (least(&output), least(&grad_input));
    for simd in Simd::available() {
        let stale = |len| vec![f32::NAN; len];
        let (mut o, mut gi) = (stale(s.output_len()), stale(s.input_len()));
        let (mut gw, mut gb) = (stale(s.weight_len()), stale(s.out_channels));
        conv2d_forward_on(simd, s, [&input, &weight], Some(&bias), &mut o);
        conv2d_backward_input_on(simd, s, &weight, &grad, &mut gi);
        conv2d_backward_weight_on(simd, s, [&input, &grad], &mut gw, Some(&mut gb));
        close("output", simd, &o, &output, least_output);
        close("input gradient", simd, &gi, &grad_input, least_input);
        close("weight gradient", simd, &gw, &grad_weight, 0.0);
        close("bias gradient", simd, &gb, &grad_bias, 0.0);
    }
}

fn shape(sizes: [usize; 7], padding: [usize; 4]) -> ConvShape {
    let [
        batch,
        in_channels,
        out_channels,
        height,
        width,
        kernel,
        stride,
    ] = sizes;
    let [top, left, bottom, right] = padding;
    let padding = Padding {
        top,
        left,
        bottom,
        right,
    };
    ConvShape {
        batch,
        in_channels,
        out_channels,
        height,
        width,
        kernel,
        stride,
        padding,
    }
}

/// The layers of the models that are trained here, at odd sizes.
#[test]
fn the_usual_layers_match_the_reference() {
    let same = [1; 4];
    check_all_passes(&shape([2, 3, 17, 16, 16, 3, 1], same));
    check_all_passes(&shape([3, 40, 33, 4, 4, 3, 1], same));
    check_all_passes(&shape([9, 5, 16, 8, 8, 3, 1], same));
    check_all_passes(&shape([1, 18, 3, 33, 20, 3, 1], same));
    check_all_passes(&shape([2, 7, 9, 32, 32, 3, 2], [0, 0, 1, 1]));
    check_all_passes(&shape([2, 6, 15, 16, 16, 4, 2], same));
    check_all_passes(&shape([2, 35, 19, 8, 8, 1, 1], [0; 4]));
    check_all_passes(&shape([1, 4, 6, 10, 66, 3, 1], same));
}

/// Several groups of channels, several blocks, several chunks.
#[test]
fn sizes_beyond_one_block_match_the_reference() {
    check_all_passes(&shape([2, 75, 30, 16, 16, 3, 1], [1; 4]));
    check_all_passes(&shape([1, 330, 10, 6, 6, 1, 1], [0; 4]));
    check_all_passes(&shape([1, 3, 4, 70, 64, 3, 1], [1; 4]));
    check_all_passes(&shape([40, 4, 4, 8, 8, 3, 1], [1; 4]));
}

/// Shapes that take Winograd's form: whole tiles and cut ones, several rows in a block and several
/// blocks in a row, padding of every width.
#[test]
fn tiles_match_the_reference() {
    for (sizes, padding) in [
        ([2, 16, 17, 16, 16, 3, 1], [1; 4]),
        ([1, 40, 16, 18, 31, 3, 1], [1; 4]),
        ([3, 19, 30, 15, 21, 3, 1], [0, 2, 1, 0]),
        ([1, 16, 16, 5, 600, 3, 1], [2, 0, 2, 0]),
        ([1, 300, 16, 16, 16, 3, 1], [1; 4]),
        ([5, 16, 33, 16, 20, 3, 1], [0; 4]),
        ([3, 20, 18, 8, 8, 3, 1], [1; 4]),
    ] {
        let shape = shape(sizes, padding);
        assert!(winograd::applies(&shape), "{shape:?}");
        check_all_passes(&shape);
    }
}

/// Large enough for the kernel's gradient to take Winograd's form, in one block and in several.
#[test]
fn kernel_gradients_match_the_reference() {
    for sizes in [[16, 64, 65, 16, 15, 3, 1], [3, 128, 32, 36, 41, 3, 1]] {
        let s = shape(sizes, [1; 4]);
        assert!(winograd::applies_to_weight(&s), "{s:?}");
        let (input, grad) = (noise(s.input_len(), 1), noise(s.output_len(), 2));
        let weights = |form: &dyn Fn(&mut [f32])| {
            let mut values = vec![f32::NAN; s.weight_len()];
            form(&mut values);
            values
        };
        for simd in Simd::available() {
            let got = weights(&|to| conv2d_backward_weight_on(simd, &s, [&input, &grad], to, None));
            // A kernel of five whose outer taps are left out sums the same directly.
            let wide = ConvShape {
                kernel: 5,
                padding: Padding::same(2),
                ..s
            };
            let mut all = vec![0.0; wide.weight_len()];
            conv2d_backward_weight_on(simd, &wide, [&input, &grad], &mut all, None);
            let largest = all.iter().fold(0.0f32, |most, x| most.max(x.abs()));
            for (at, value) in got.iter().enumerate() {
                let (pair, tap) = (at / 9, at % 9);
                let direct = all[pair * 25 + (tap / 3 + 1) * 5 + tap % 3 + 1];
                let error = (value - direct).abs();
                assert!(
                    error <= 3e-6 * largest,
                    "{simd:?} at {at}: {value} instead of {direct}"
                );
            }
        }
    }
}

#[test]
fn the_smallest_images_match_the_reference() {
    check_all_passes(&shape([1, 1, 1, 1, 1, 1, 1], [0; 4]));
    check_all_passes(&shape([3, 5, 4, 1, 1, 3, 1], [1; 4]));
    check_all_passes(&shape([3, 5, 4, 2, 2, 3, 2], [0, 0, 1, 1]));
    check_all_passes(&shape([2, 2, 3, 1, 7, 1, 3], [0; 4]));
    check_all_passes(&shape([2, 2, 3, 5, 3, 2, 3], [0, 1, 2, 0]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_shape_matches_the_reference(
        (batch, in_channels, out_channels) in (1usize..4, 1usize..7, 1usize..18),
        (height, width) in (1usize..14, 1usize..20),
        (kernel, stride) in (1usize..6, 1usize..4),
        (top, left, bottom, right) in (0usize..4, 0usize..4, 0usize..4, 0usize..4),
    ) {
        let sizes = [batch, in_channels, out_channels, height, width, kernel, stride];
        let shape = shape(sizes, [top, left, bottom, right]);
        prop_assume!(shape.validate().is_ok());
        check_all_passes(&shape);
    }
}

#[test]
fn threads_do_not_change_bits() {
    let s = shape([5, 33, 40, 16, 16, 3, 1], [1; 4]);
    let (input, weight) = (noise(s.input_len(), 1), noise(s.weight_len(), 2));
    let grad = noise(s.output_len(), 4);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        let (mut o, mut gi) = (vec![0.0; s.output_len()], vec![0.0; s.input_len()]);
        let (mut gw, mut gb) = (vec![0.0; s.weight_len()], vec![0.0; s.out_channels]);
        pool.install(|| {
            conv2d_forward(&s, &input, &weight, None, &mut o);
            conv2d_backward_input(&s, &weight, &grad, &mut gi);
            conv2d_backward_weight(&s, &input, &grad, &mut gw, Some(&mut gb));
        });
        [o, gi, gw, gb]
    };
    let one = run(1);
    assert_eq!(one, run(2));
    assert_eq!(one, run(7));
}

#[test]
fn not_a_number_reaches_exactly_its_window() {
    let s = shape([2, 3, 4, 9, 9, 3, 1], [1; 4]);
    for simd in Simd::available() {
        let (mut input, weight) = (noise(s.input_len(), 1), noise(s.weight_len(), 2));
        // Image 0, channel 1, at the right border: the next row must not see it.
        input[81 + 4 * 9 + 8] = f32::NAN;
        let mut output = vec![0.0; s.output_len()];
        conv2d_forward_on(simd, &s, [&input, &weight], None, &mut output);
        for (at, value) in output.iter().enumerate() {
            let (n, y, x) = (at / (4 * 81), at % 81 / 9, at % 9);
            assert_eq!(
                value.is_nan(),
                n == 0 && (3..=5).contains(&y) && x >= 7,
                "{simd:?} {at}"
            );
        }
        let (mut gw, grad) = (vec![0.0; s.weight_len()], noise(s.output_len(), 3));
        conv2d_backward_weight_on(simd, &s, [&input, &grad], &mut gw, None);
        // The border pixel is in no window's left column.
        for (at, value) in gw.iter().enumerate() {
            assert_eq!(
                value.is_nan(),
                at / 9 % 3 == 1 && at % 3 > 0,
                "{simd:?} {at}"
            );
        }
    }
}

#[test]
#[should_panic(expected = "does not fit a padded input of 2x2")]
fn impossible_shapes_panic_with_their_reason() {
    let s = shape([1, 1, 1, 2, 2, 3, 1], [0; 4]);
    conv2d_forward(&s, &[0.0; 4], &[0.0; 9], None, &mut [0.0; 1]);
}

#[test]
#[should_panic(expected = "has 4 values, not 3")]
fn short_slices_are_refused() {
    let s = shape([1, 1, 1, 2, 2, 1, 1], [0; 4]);
    conv2d_forward(&s, &[0.0; 3], &[0.0; 1], None, &mut [0.0; 4]);
}
