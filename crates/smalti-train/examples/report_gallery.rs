//! Writes a report with every kind of block, filled with made-up curves and patterns, to look at.
//!
//! `cargo run --release -p smalti-train --example report_gallery -- report.html`

use smalti_train::report::{
    BarChart, Better, Column, Exhibit, Gallery, Histogram, KeyNumber, LineChart, Picture, Quantity,
    Report, SampleGrid, Series, Table, Value,
};
use std::f64::consts::TAU;

/// A repeatable value in -1..1 that looks like noise.
fn wobble(index: f64) -> f64 {
    ((index * 12.9898).sin() * 43_758.545_3).fract()
}

/// A loss curve: a decay towards `floor` with noise on it.
fn decay(points: u32, floor: f64, seed: f64) -> impl Iterator<Item = (f64, f64)> {
    (0..points).map(move |index| {
        let step = f64::from(index) * 10.0;
        let clean = floor + (1.0 - floor) * (-step / 4_000.0).exp();
        (step, clean * (1.0 + 0.25 * wobble(step + seed)))
    })
}

/// Rings of colour; `steps` shades a channel make it look quantized.
fn rings(side: u32, phase: f64, steps: f64) -> Picture {
    let pixel = |index: u32| {
        let (x, y) = (
            f64::from(index % side) / f64::from(side) - 0.5,
            f64::from(index / side) / f64::from(side) - 0.5,
        );
        let wave = (x.hypot(y) * 3.0 + phase) * TAU;
        [0.0, 0.33, 0.66].map(|shift| {
            let value = 0.5 + 0.45 * (wave + (shift + phase) * TAU).sin();
            ((value * steps).round() / steps * 255.0) as u8
        })
    };
    Picture::new(
        side,
        side,
        (0..side * side).flat_map(pixel).collect::<Vec<u8>>(),
    )
    .expect("the size fits")
}

/// Codes of a made-up grid; deeper ones vary faster.
fn codes(side: u32, phase: f64, depth: u32) -> Picture {
    let code = |index: u32| {
        let (x, y) = (f64::from(index % side), f64::from(index / side));
        let wave = ((x + phase * 9.0) * 0.35 * f64::from(depth)).sin()
            + (y * 0.3 * f64::from(depth)).cos();
        ((wave + 2.0) * 2.0 * f64::from(depth)) as u32
    };
    Picture::of_codes(
        side,
        side,
        &(0..side * side).map(code).collect::<Vec<u32>>(),
    )
    .expect("the size fits")
}

fn head(report: &mut Report) {
    report.subtitle("Every number on this page is made up: it shows what a report looks like, not what a model can do.");
    report
        .fact("data", "sines, 1,906 rings of 32 × 32 pixels")
        .fact("seed", 17_usize);
    report
        .fact("steps", 20_000_usize)
        .fact("time", Value::seconds(4_985.0))
        .fact("parameters", 1_234_567_usize);
    report.key_number(
        KeyNumber::new("PSNR", Value::number(24.13, 1).unit("dB")).note("96 validation images"),
    );
    report.key_number(KeyNumber::new("SSIM", Value::number(0.912, 3)).note("96 validation images"));
    report.key_number(
        KeyNumber::new("Codebook usage", Value::percent(0.973, 1)).note("498 of 512 codes"),
    );
    report.key_number(
        KeyNumber::new("Rate", Value::number(0.5625, 2).unit("bits/pixel")).note("8 × 8 × 4 codes"),
    );
    report.key_number(
        KeyNumber::new("Encoding", Value::seconds(0.0042)).note("per image, 2 threads"),
    );
}

fn training(report: &mut Report) {
    let mut total = LineChart::new(
        "Reconstruction loss",
        "step",
        Quantity::new("mean squared error"),
    )
    .log_y();
    total.series(Series::new("train", decay(2_000, 0.02, 0.0)).smoothed(0.97));
    total.series(Series::new(
        "validation",
        decay(2_000, 0.025, 0.3)
            .step_by(100)
            .map(|(x, y)| (x, y * 1.1)),
    ));
    total.mark(8_000.0, "discriminator joins");

    let depths = |title: &str, unit: &str, top: f64| {
        let mut chart = LineChart::new(
            title,
            "step",
            Quantity::new(title.to_lowercase()).unit(unit),
        );
        for depth in 1..=4_u32 {
            let rise = move |index: u32| {
                let step = f64::from(index) * 200.0;
                let limit = top * (1.0 - 0.12 * f64::from(depth));
                (
                    step,
                    limit * (1.0 - (-step / (1_500.0 * f64::from(depth))).exp()),
                )
            };
            chart.series(Series::new(format!("depth {depth}"), (0..100).map(rise)));
        }
        chart
    };
    let mut diverged = LineChart::new("A run that diverged", "step", "loss")
        .note("Learning rate ten times too high.");
    let explode = |step: u32| {
        (
            f64::from(step),
            if step > 28 {
                f64::NAN
            } else {
                1.0 + (f64::from(step) / 6.0).exp()
            },
        )
    };
    diverged.series(Series::new("train", (0..40).map(explode)));
    let mut rate = LineChart::new("Learning rate", "step", "learning rate");
    rate.series(Series::new(
        "schedule",
        (0..=200).map(|index| {
            let share = f64::from(index) / 200.0;
            (
                share * 20_000.0,
                3e-4 * (share * 20.0).min(1.0) * 0.5 * (1.0 + (share * TAU / 2.0).cos()),
            )
        }),
    ));
    let section = report.section("Training");
    section.paragraph(
        "The loss falls fast for the first 4,000 steps. From step 8,000 on the discriminator takes part; \
         the reconstruction loss alone no longer tells the quality of the pictures.",
    );
    section.add(total);
    section.paragraph("Codebooks fill from the first depth to the last; each depth refines what the ones before it left.");
    section
        .add(depths("Perplexity", "codes", 480.0))
        .add(depths("Code entropy", "bits", 9.0));
    section.add(diverged).add(rate);
}

fn quality(report: &mut Report) {
    let mut table = Table::new(
        "Quality by depth",
        [
            "codes".into(),
            Column::new(Quantity::new("rate").unit("bits/pixel")),
            Column::new(Quantity::new("PSNR").unit("dB")).better(Better::Higher),
            Column::new("SSIM").better(Better::Higher),
            Column::new(Quantity::new("size").unit("per image")),
            Column::new(Quantity::new("encoding").unit("ms")).better(Better::Lower),
        ],
    );
    for depth in 1..=4_u32 {
        let share = f64::from(depth);
        table.row([
            format!("8 × 8 × {depth}").into(),
            Value::number(0.140_625 * share, 3),
            Value::number(18.2 + 1.48 * share, 2),
            Value::number(0.71 + 0.05 * share, 3),
            Value::bytes(u64::from(depth) * 72),
            if depth == 3 {
                Value::missing()
            } else {
                Value::number(3.6 + 0.15 * share, 1)
            },
        ]);
    }
    let counts: Vec<u64> = (0..2_048)
        .map(|code| (9_000.0 * (-f64::from(code) / 320.0).exp()) as u64)
        .collect();
    let psnr: Vec<f64> = (0..960)
        .map(|index| 24.0 + 2.5 * (wobble(f64::from(index)) + wobble(f64::from(index) + 0.5)))
        .collect();
    let mut time = BarChart::new(
        "Where a training step spends its time",
        Quantity::new("time").unit("ms"),
    );
    for (name, milliseconds) in [
        ("encoder", 41.2),
        ("quantizer", 3.9),
        ("decoder", 55.0),
        ("losses, discriminator included", 62.3),
        ("optimiser", 8.1),
    ] {
        time.bar(name, Value::number(milliseconds, 1).unit("ms"));
    }
    let mut change = BarChart::new(
        "PSNR against the run before",
        Quantity::new("change").unit("dB"),
    );
    for (name, decibels) in [
        ("faces", 0.8),
        ("animals", 0.35),
        ("food", -0.25),
        ("flags", 1.1),
    ] {
        change.bar(name, Value::number(decibels, 2).unit("dB"));
    }
    let section = report.section("Quality");
    section.add(table);
    section.add(Histogram::ranked(
        "Codebook usage",
        counts.clone(),
        counts.len(),
    ));
    section.add(Histogram::of_values(
        "PSNR of single images",
        Quantity::new("PSNR").unit("dB"),
        &psnr,
        24,
    ));
    section.add(
        Histogram::ranked("Codebook usage, logarithmic", counts.clone(), counts.len()).log_y(),
    );
    section.add(time).add(change);
}

fn pictures(report: &mut Report) {
    let mut reconstructions = Gallery::new("Validation images, the first nine");
    for index in 0..9_u32 {
        let phase = f64::from(index) / 9.0;
        let exhibit = Exhibit::new(format!("ring {index}"))
            .picture("original", rings(32, phase, 255.0))
            .picture("reconstruction", rings(32, phase, 4.0));
        let exhibit = if index < 3 {
            (1..=2).fold(exhibit, |exhibit, depth| {
                exhibit.picture(format!("codes, depth {depth}"), codes(8, phase, depth))
            })
        } else {
            exhibit
        };
        reconstructions.exhibit(exhibit.value(
            "PSNR",
            Value::number(24.0 + 3.0 * wobble(phase), 1).unit("dB"),
        ));
    }
    let mut large = Gallery::new("Larger images");
    for index in 0..2_u32 {
        let phase = f64::from(index) / 5.0;
        large.exhibit(
            Exhibit::new(format!("photograph {index}"))
                .picture("original, 256 × 256", rings(256, phase, 255.0))
                .picture("reconstruction", rings(256, phase, 6.0))
                .value("PSNR", Value::number(26.4, 1).unit("dB"))
                .value("SSIM", Value::number(0.871, 3)),
        );
    }
    let mut samples = SampleGrid::new("Generated, class by class");
    for (class, label) in [
        "smileys & emotion",
        "people & body",
        "animals & nature",
        "food & drink",
        "flags",
    ]
    .iter()
    .enumerate()
    {
        samples.row(
            *label,
            (0..10).map(|index| rings(32, (class * 7 + index) as f64 / 13.0, 5.0)),
        );
    }
    report
        .section("Reconstructions")
        .add(reconstructions)
        .add(large);
    report
        .section("Samples")
        .paragraph("Ten samples a class at temperature 1.0, top-k 256, none left out.")
        .add(samples);
}

fn main() -> std::io::Result<()> {
    let path = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "report.html".to_owned());
    let mut report = Report::new("Residual tokenizer of coloured rings");
    head(&mut report);
    training(&mut report);
    quality(&mut report);
    pictures(&mut report);
    report.configuration(
        "seed = 17\nsteps = 20000\n\n[quantizer]\nkind = \"residual\"\ncodebook_size = 512\ncode_dim = 64\ndepth = 4\n\
         decay = 0.99\n\n[losses]\nreconstruction = 1.0\ncommitment = 0.25\n",
    );
    std::fs::write(path, report.render())
}
