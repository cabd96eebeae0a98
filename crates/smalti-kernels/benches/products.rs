//! GFLOP/s of convolutions (forward, input gradient, weight gradient) and matrix products.
//!
//! `cargo bench -p smalti-kernels --bench products -- [words]` times every case whose name has all the
//! words; a case's time is the shortest of many runs. With the word `serve` it reads case names
//! from standard input instead, one a line, and answers each with the seconds of one run: so that
//! another program can take turns with it on a busy machine.
#![allow(clippy::print_stdout)] // a bench reports

use std::hint::black_box;
use std::io::BufRead;
use std::time::{Duration, Instant};

use smalti_kernels::conv::{
    ConvShape, Padding, conv2d_backward_input, conv2d_backward_weight, conv2d_forward,
};
use smalti_kernels::gemm::{Matrix, MatrixMut, Product, gemm};

/// Values that differ, none of them tiny.
fn values(len: usize) -> Vec<f32> {
    (0..len)
        .map(|i| ((i * 7919) % 1013) as f32 / 1013.0 - 0.5)
        .collect()
}

/// A piece of work by its shape.
#[derive(Clone, Copy)]
enum Work {
    Conv {
        batch: usize,
        channels: [usize; 2],
        size: usize,
        kernel: usize,
        stride: usize,
    },
    Linear {
        rows: usize,
        sizes: [usize; 2],
    },
}

/// One of the three products of a layer.
#[derive(Clone, Copy)]
struct Case {
    pass: &'static str,
    work: Work,
}

impl Case {
    fn name(&self) -> String {
        let pass = self.pass;
        match self.work {
            Work::Conv {
                batch,
                channels: [i, o],
                size,
                kernel,
                stride,
            } => {
                format!("conv {pass} n{batch} {i}-{o} {size} k{kernel}s{stride}")
            }
            Work::Linear {
                rows,
                sizes: [i, o],
            } => format!("linear {pass} {rows} {i}-{o}"),
        }
    }

    fn flops(&self) -> f64 {
        2.0 * match self.work {
            Work::Conv { .. } => self.shape().multiply_adds() as f64,
            Work::Linear {
                rows,
                sizes: [i, o],
            } => (rows * i * o) as f64,
        }
    }

    fn shape(&self) -> ConvShape {
        let Work::Conv {
            batch,
            channels,
            size,
            kernel,
            stride,
        } = self.work
        else {
            unreachable!("only convolutions have such a shape")
        };
        let padding = match (kernel, stride) {
            (3, 2) => Padding {
                top: 0,
                left: 0,
                bottom: 1,
                right: 1,
            },
            (1, _) => Padding::default(),
            _ => Padding::same(1),
        };
        let ([in_channels, out_channels], height, width) = (channels, size, size);
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

    fn prepare(&self) -> Box<dyn FnMut()> {
        match self.work {
            Work::Conv { .. } => conv(self.pass, self.shape()),
            Work::Linear { rows, sizes } => linear(self.pass, rows, sizes),
        }
    }
}

fn conv(pass: &str, shape: ConvShape) -> Box<dyn FnMut()> {
    let (mut input, mut weight) = (values(shape.input_len()), values(shape.weight_len()));
    let (mut bias, mut output) = (values(shape.out_channels), values(shape.output_len()));
    match pass {
        "forward" => Box::new(move || {
            conv2d_forward(&shape, &input, &weight, Some(&bias), black_box(&mut output));
        }),
        "input" => Box::new(move || {
            conv2d_backward_input(&shape, &weight, &output, black_box(&mut input));
        }),
        _ => Box::new(move || {
            let grad_bias = Some(&mut bias[..]);
            conv2d_backward_weight(&shape, &input, &output, black_box(&mut weight), grad_bias);
        }),
    }
}

fn linear(pass: &str, rows: usize, [inputs, outputs]: [usize; 2]) -> Box<dyn FnMut()> {
    let (mut x, mut w) = (values(rows * inputs), values(outputs * inputs));
    let (bias, mut y) = (values(outputs), values(rows * outputs));
    match pass {
        "forward" => Box::new(move || {
            let w = Matrix::new(&w, outputs, inputs).transposed();
            let product = Product::new(Matrix::new(&x, rows, inputs), w).with_bias(Some(&bias));
            gemm(&product, MatrixMut::new(black_box(&mut y), rows, outputs));
        }),
        "input" => Box::new(move || {
            let (y, w) = (
                Matrix::new(&y, rows, outputs),
                Matrix::new(&w, outputs, inputs),
            );
            gemm(
                &Product::new(y, w),
                MatrixMut::new(black_box(&mut x), rows, inputs),
            );
        }),
        _ => Box::new(move || {
            let (y, x) = (
                Matrix::new(&y, rows, outputs),
                Matrix::new(&x, rows, inputs),
            );
            let product = Product::new(y.transposed(), x);
            gemm(&product, MatrixMut::new(black_box(&mut w), outputs, inputs));
        }),
    }
}

fn cases() -> Vec<Case> {
    let convs = [
        (16, [3, 64], 64, [3, 1]),
        (16, [64, 3], 64, [3, 1]),
        (64, [3, 32], 32, [3, 1]),
        (64, [32, 3], 32, [3, 1]),
        (16, [32, 32], 64, [3, 1]),
        (64, [32, 32], 32, [3, 1]),
        (64, [64, 64], 16, [3, 1]),
        (32, [64, 64], 32, [3, 1]),
        (32, [128, 128], 16, [3, 1]),
        (32, [128, 128], 8, [3, 1]),
        (16, [128, 128], 64, [3, 1]),
        (64, [128, 128], 4, [3, 1]),
        (8, [512, 512], 16, [3, 1]),
        (8, [512, 512], 8, [3, 1]),
        (64, [32, 32], 32, [3, 2]),
        (32, [64, 64], 32, [3, 2]),
        (32, [128, 128], 16, [3, 2]),
        (64, [32, 64], 32, [4, 2]),
        (32, [64, 128], 16, [4, 2]),
        (64, [64, 128], 16, [1, 1]),
        (32, [128, 128], 32, [1, 1]),
        (32, [128, 64], 8, [1, 1]),
        (8, [512, 512], 16, [1, 1]),
    ];
    let linears = [
        (1, [768, 3072]),
        (16, [768, 3072]),
        (16, [256, 1024]),
        (512, [64, 256]),
        (512, [256, 1024]),
        (2048, [256, 256]),
        (1024, [768, 3072]),
        (1024, [1024, 1024]),
    ];
    let convs = convs.map(|(batch, channels, size, [kernel, stride])| Work::Conv {
        batch,
        channels,
        size,
        kernel,
        stride,
    });
    let linears = linears.map(|(rows, sizes)| Work::Linear { rows, sizes });
    let passes = ["forward", "input", "weight"];
    let work = convs.into_iter().chain(linears);
    work.flat_map(|work| passes.map(|pass| Case { pass, work }))
        .collect()
}

fn time_once(run: &mut dyn FnMut()) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}

/// Answers each name read with the seconds of one run.
fn serve() {
    let mut current: Option<(String, Box<dyn FnMut()>)> = None;
    for name in std::io::stdin().lock().lines() {
        let name = name.expect("standard input is text");
        if current.as_ref().is_none_or(|(made, _)| *made != name) {
            current = cases().iter().find(|case| case.name() == name).map(|case| {
                let mut run = case.prepare();
                run();
                (name, run)
            });
        }
        match &mut current {
            Some((_, run)) => println!("{}", time_once(run).as_secs_f64()),
            None => println!("unknown"),
        }
    }
}

fn main() {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    if words.iter().any(|word| word == "serve") {
        return serve();
    }
    for case in cases() {
        let name = case.name();
        if !words.iter().all(|word| name.contains(word.as_str())) {
            continue;
        }
        let mut run = case.prepare();
        run();
        let begin = Instant::now();
        let mut best = Duration::MAX;
        while begin.elapsed() < Duration::from_millis(300) {
            best = best.min(time_once(&mut run));
        }
        let (ms, rate) = (
            best.as_secs_f64() * 1e3,
            case.flops() / best.as_secs_f64() * 1e-9,
        );
        println!("{name:44} {ms:9.3} ms {rate:7.1} GFLOP/s");
    }
}
