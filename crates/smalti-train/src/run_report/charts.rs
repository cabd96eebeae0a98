//! How a training went: charts over its steps, from the journal.

use smalti_models::generators::Writing;

use super::codes;
use crate::adversary;
use crate::config::RunConfig;
use crate::journal::Entry;
use crate::report::{LineChart, Quantity, Series};

/// A measure over the steps.
pub(crate) fn points(entries: &[Entry], phase: &str, name: &str) -> Vec<(f64, f64)> {
    let of_phase = entries.iter().filter(|entry| entry.phase == phase);
    of_phase
        .filter_map(|entry| Some((entry.step as f64, entry.number(name)?)))
        .collect()
}

pub(super) fn tokenizer(config: &RunConfig, entries: &[Entry]) -> Vec<LineChart> {
    let steps = || Quantity::new("step");
    let mut losses =
        LineChart::new("Losses", steps(), Quantity::new("loss, images in [−1, 1]")).log_y();
    let names = match config {
        RunConfig::Tokenizer(run) => run.losses.keys(),
        RunConfig::Generator(_) => unreachable!("a tokenizer's report has a tokenizer's run"),
    };
    // The adversary's has no sign, and a chart of its own.
    for name in names.filter(|name| *name != adversary::LOSS) {
        losses.series(Series::new(name, points(entries, "train", name)));
    }
    let mut psnr = LineChart::new(
        "Fidelity on images not trained on",
        steps(),
        Quantity::new("PSNR").unit("dB"),
    );
    psnr.series(Series::new("PSNR", points(entries, "eval", "psnr_db")));
    let mut charts = vec![losses, psnr];
    charts.extend(codes::charts(entries));
    charts.extend(divergence_charts(entries));
    charts.extend(choice_chart(entries));
    charts.extend(adversary_charts(entries));
    charts
}

/// The charts of a training against a discriminator; none for others.
fn adversary_charts(entries: &[Entry]) -> Vec<LineChart> {
    if points(entries, "train", "discriminator").is_empty() {
        return Vec::new();
    }
    let series = |chart: &mut LineChart, name: &str, measure: &str| {
        chart.series(Series::new(name, points(entries, "train", measure)));
    };
    let mut losses = LineChart::new("Both sides of the game", "step", Quantity::new("loss"));
    series(&mut losses, "discriminator", "discriminator");
    series(&mut losses, "tokenizer, unweighted", adversary::LOSS);
    let mut norms = LineChart::new("Gradients", "step", Quantity::new("Euclidean norm")).log_y();
    series(&mut norms, "tokenizer", "gradient_norm");
    series(&mut norms, "discriminator", "discriminator_gradient_norm");
    let mut weight = LineChart::new(
        "Weight of the adversarial loss",
        "step",
        Quantity::new("weight"),
    );
    series(&mut weight, "with balance and ramp", "adversarial_weight");
    vec![losses, norms, weight]
}

/// The charts of Gaussian latents; none for others.
fn divergence_charts(entries: &[Entry]) -> Vec<LineChart> {
    let chart = |title: &str, y: Quantity, lines: [(&str, &str); 3]| {
        let mut chart = LineChart::new(title, "step", y).log_y();
        for (name, measure) in lines {
            chart.series(Series::new(name, points(entries, "train", measure)));
        }
        chart
    };
    if points(entries, "train", "divergence_bits_mean").is_empty() {
        return Vec::new();
    }
    vec![
        chart(
            "Divergence from the prior",
            Quantity::new("divergence").unit("bits per code"),
            [
                ("mean", "divergence_bits_mean"),
                ("smallest of a batch", "divergence_bits_min"),
                ("largest of a batch", "divergence_bits_max"),
            ],
        ),
        chart(
            "Weights of the divergence",
            Quantity::new("weight"),
            [
                ("of all", "divergence_weight"),
                ("below the target", "divergence_weight_below"),
                ("above the target", "divergence_weight_above"),
            ],
        ),
    ]
}

/// The chart of choices by logits; none for others.
fn choice_chart(entries: &[Entry]) -> Option<LineChart> {
    let certainty = points(entries, "train", "choice_certainty");
    if certainty.is_empty() {
        return None;
    }
    let mut chart = LineChart::new(
        "How decided the choice of codes is",
        "step",
        Quantity::new("share"),
    );
    chart.series(Series::new("weight of the likeliest code, mean", certainty));
    let apart = points(entries, "train", "draws_apart");
    if !apart.is_empty() {
        chart.series(Series::new("drawn codes that are not the best", apart));
    }
    Some(chart)
}

pub(super) fn generator(entries: &[Entry], writing: Writing) -> LineChart {
    let (step, loss) = (
        Quantity::new("step"),
        Quantity::new("loss").unit("nats per code"),
    );
    let title = match writing {
        Writing::Raster => "Cross entropy of the generator",
        Writing::Denoised { .. } => "Bound on the generator's likelihood",
        Writing::Unmasked { .. } => "Cross entropy of masked codes",
    };
    let mut chart = LineChart::new(title, step, loss);
    chart.series(Series::new("training", points(entries, "train", "codes")));
    chart.series(Series::new(
        "images not trained on",
        points(entries, "eval", "codes"),
    ));
    chart
}
