//! The report of a run: what was trained, how it went, what it can do.

use smalti_data::Image;
use smalti_metrics::{CodeCounts, CodeStatistics};
use smalti_models::generators::sampling::Guidance;
use smalti_models::generators::{Conditions, GenerationRequest};

use crate::adversary;
use crate::config::RunConfig;
use crate::error::TrainError;
use crate::evaluation::{self, Evaluation, Measuring, evaluate};
use crate::journal::{self, Entry};
use crate::model_dir::{GeneratorModel, TokenizerModel, short};
use crate::observer::Silent;
use crate::report::{
    Better, Column, Exhibit, Gallery, Histogram, KeyNumber, LineChart, Picture, Quantity, Report,
    SampleGrid, Section, Series, Table, Value,
};
use crate::samples::{spread, to_images, to_tensor};
use crate::trainer::RunFolder;

/// Images shown beside their reconstructions.
const EXHIBITS: usize = 24;
/// Images whose code maps are shown.
const CODE_MAPS: usize = 2;
/// Samples shown of each class.
const SAMPLES: usize = 10;

/// The report of a finished stage 1.
///
/// # Errors
/// When the journal cannot be read or the network gives NaN.
pub fn tokenizer(
    config: &RunConfig,
    model: &TokenizerModel,
    (images, measuring): (&[Image], &Measuring),
    folder: &RunFolder,
) -> Result<String, TrainError> {
    let mut report = Report::new("Image tokenizer");
    report.subtitle("Images to discrete codes and back: what this run trained and how good it is.");
    let evaluation = tokenizer_numbers(&mut report, model, images, measuring)?;
    tokenizer_sections(&mut report, model, images, &evaluation)?;
    let section = report.section("Training");
    for chart in tokenizer_charts(config, &journal::read(&folder.journal())?) {
        section.add(chart);
    }
    report.configuration(config.to_toml());
    Ok(report.render())
}

/// The report of a finished stage 2.
///
/// # Errors
/// When the journal cannot be read or the network gives NaN.
pub fn generator(
    config: &RunConfig,
    model: &GeneratorModel,
    seed: u64,
    folder: &RunFolder,
) -> Result<String, TrainError> {
    let mut report = Report::new("Image generator");
    report.subtitle("New images, written code by code.");
    let entries = journal::read(&folder.journal())?;
    generator_numbers(&mut report, model, &entries);
    generator_sections(&mut report, model, seed)?;
    let section = report.section("Training");
    section.add(generator_chart(&entries));
    report.configuration(config.to_toml());
    Ok(report.render())
}

/// The report of both stages, one after the other, as the demo makes them.
///
/// # Errors
/// When a journal cannot be read or a network gives NaN.
pub fn whole_path(
    configs: [&RunConfig; 2],
    folders: [&RunFolder; 2],
    model: &GeneratorModel,
    images: &[Image],
    facts: &[(&str, Value)],
) -> Result<String, TrainError> {
    let mut report = Report::new("From images to tokens to new images");
    report.subtitle("A residual-quantized autoencoder turns images into discrete codes; an RQ-Transformer, trained on those codes, writes new images class by class.");
    for (name, value) in facts {
        report.fact(*name, value.clone());
    }
    let evaluation =
        tokenizer_numbers(&mut report, &model.tokenizer, images, &Measuring::plain(64))?;
    let stage_two = journal::read(&folders[1].journal())?;
    generator_numbers(&mut report, model, &stage_two);
    tokenizer_sections(&mut report, &model.tokenizer, images, &evaluation)?;
    generator_sections(&mut report, model, 1)?;
    let section = report.section("Training");
    for chart in tokenizer_charts(configs[0], &journal::read(&folders[0].journal())?) {
        section.add(chart);
    }
    section.add(generator_chart(&stage_two));
    report.configuration(format!(
        "# stage 1\n{}\n# stage 2\n{}",
        configs[0].to_toml(),
        configs[1].to_toml()
    ));
    Ok(report.render())
}

struct Measured {
    evaluation: Evaluation,
    statistics: CodeStatistics,
}

fn tokenizer_numbers(
    report: &mut Report,
    model: &TokenizerModel,
    images: &[Image],
    measuring: &Measuring,
) -> Result<Measured, TrainError> {
    let (evaluation, statistics) = evaluate(&model.network, images, measuring, &mut Silent)?;
    report.fact("tokenizer", Value::text(short(&model.fingerprint)));
    report.fact(
        "images measured on, none of them trained on",
        Value::count(evaluation.images as u64),
    );
    report.key_number(
        KeyNumber::new("PSNR", Value::number(evaluation.psnr_db, 2).unit("dB"))
            .note("mean over images, 8-bit RGB"),
    );
    if let Some(ssim) = evaluation.ssim {
        report.key_number(
            KeyNumber::new("SSIM", Value::number(ssim, 3)).note("mean over images, 7×7 window"),
        );
    }
    if let Some(distance) = evaluation.perceptual {
        report.key_number(
            KeyNumber::new("perceptual distance", Value::number(distance, 3))
                .note("mean over images, by the network of this run"),
        );
    }
    report.key_number(
        KeyNumber::new(
            "rate",
            Value::number(evaluation.bits_per_pixel, 3).unit("bits per pixel"),
        )
        .note("24 uncompressed"),
    );
    report.key_number(
        KeyNumber::new("codebook used", Value::percent(evaluation.usage, 1))
            .note("codes seen at least once"),
    );
    Ok(Measured {
        evaluation,
        statistics,
    })
}

fn generator_numbers(report: &mut Report, model: &GeneratorModel, entries: &[Entry]) {
    report.fact("generator", Value::text(short(&model.fingerprint)));
    let last = entries
        .iter()
        .rev()
        .find(|entry| entry.phase == "eval")
        .and_then(|entry| entry.number("codes"));
    if let Some(loss) = last {
        let note = "cross entropy on images not trained on";
        report.key_number(
            KeyNumber::new(
                "generator",
                Value::number(loss / std::f64::consts::LN_2, 2).unit("bits per code"),
            )
            .note(note),
        );
    }
}

fn tokenizer_sections(
    report: &mut Report,
    model: &TokenizerModel,
    images: &[Image],
    measured: &Measured,
) -> Result<(), TrainError> {
    let section = report.section("Reconstructions");
    section.paragraph("Originals on the left, what is left of them after encoding to codes and decoding on the right. The network has not seen these images in training.");
    section.add(reconstructions(model, &spread(images, EXHIBITS))?);
    let section = report.section("Codes");
    section.paragraph("Each picture is the map of the codes of one depth: equal colours are equal codes. Later depths refine what earlier ones left over.");
    section.add(code_maps(model, &spread(images, CODE_MAPS))?);
    section.add(depth_table(&measured.evaluation));
    code_usage(section, model, &measured.statistics);
    Ok(())
}

fn reconstructions(model: &TokenizerModel, images: &[Image]) -> Result<Gallery, TrainError> {
    let decoded = evaluation::reconstructions(&model.network, images)?;
    let mut gallery = Gallery::new("Original and reconstruction, with the PSNR of each pair.");
    for (i, (image, reconstruction)) in images.iter().zip(&decoded).enumerate() {
        let psnr = smalti_metrics::psnr_u8(image.pixels(), reconstruction.pixels())?;
        let exhibit = Exhibit::new(format!("{}", i + 1))
            .picture("original", Picture::from(image))
            .picture("reconstruction", Picture::from(reconstruction))
            .value("PSNR", Value::number(psnr, 1).unit("dB"));
        gallery.exhibit(exhibit);
    }
    Ok(gallery)
}

fn code_maps(model: &TokenizerModel, images: &[Image]) -> Result<Gallery, TrainError> {
    let codes = model
        .network
        .encode(to_tensor(images, &model.network.device()))?;
    let [_, depth, height, width] = codes.dims();
    let values = codes.values();
    let mut maps = values.chunks_exact(height * width);
    let mut gallery = Gallery::new("Code maps, one for each depth.");
    for image in images {
        let mut exhibit = Exhibit::new("").picture("image", Picture::from(image));
        for d in 0..depth {
            let map = maps.next().expect("a map for each depth of each image");
            let map = Picture::of_codes(width as u32, height as u32, map)
                .expect("a map has as many codes as it needs");
            exhibit = exhibit.picture(
                format!("depth {}", d + 1),
                map.enlarged(((image.width() / width).max(1)) as u32),
            );
        }
        gallery.exhibit(exhibit);
    }
    Ok(gallery)
}

fn depth_table(evaluation: &Evaluation) -> Table {
    let columns = [
        Column::new("depth"),
        Column::new(Quantity::new("codebook size").unit("codes")),
        Column::new(Quantity::new("used").unit("%")).better(Better::Higher),
        Column::new(Quantity::new("perplexity").unit("codes")).better(Better::Higher),
        Column::new(Quantity::new("entropy").unit("bits per code")),
    ];
    let mut table = Table::new("Use of the codes over all images measured on.", columns);
    for (d, depth) in evaluation.depths.iter().enumerate() {
        table.row([
            Value::count(d as u64 + 1),
            Value::count(depth.codebook_size as u64),
            Value::percent(depth.usage, 1),
            Value::number(depth.perplexity, 1),
            Value::number(depth.entropy_bits, 2),
        ]);
    }
    table
}

fn code_usage(section: &mut Section, model: &TokenizerModel, statistics: &CodeStatistics) {
    let mut add = |title: String, counts: &CodeCounts| {
        let histogram = Histogram::ranked(title, counts.seen(), counts.codebook_size());
        section.add(histogram.log_y());
    };
    if model.network.quantizer().shares_table()
        && let Some(all) = statistics.summed()
    {
        let title = match statistics.depth() {
            1 => "How often each code is used, most used first",
            _ => "How often each code is used, all depths together, most used first",
        };
        return add(title.into(), &all);
    }
    for d in 0..statistics.depth() {
        let title = format!(
            "How often each code of depth {} is used, most used first",
            d + 1
        );
        add(title, statistics.counts(d));
    }
}

/// Guidance that is shown where the generator's own sampling has none.
const SHOWN_GUIDANCE: f32 = 2.0;

fn generator_sections(
    report: &mut Report,
    model: &GeneratorModel,
    seed: u64,
) -> Result<(), TrainError> {
    let section = report.section("Generated images");
    section.paragraph("New images, sampled code by code, one row for each class.");
    if !model.description.model.can_be_guided() {
        section.add(samples(model, None, seed, "Samples, unselected.")?);
        return Ok(());
    }
    let own = model.description.sampling.guidance;
    let guidance = own.unwrap_or(Guidance::new(SHOWN_GUIDANCE));
    section.paragraph("Guidance leads samples away from what the generator would write without a class: clearer images of less variety. Both have the same random numbers.");
    let title = format!("Samples with guidance {}, unselected.", guidance.scale);
    section.add(samples(model, Some(guidance), seed, &title)?);
    section.add(samples(
        model,
        None,
        seed,
        "Samples without guidance, unselected.",
    )?);
    Ok(())
}

/// A row of samples for each class.
fn samples(
    model: &GeneratorModel,
    guidance: Option<Guidance>,
    seed: u64,
    title: &str,
) -> Result<SampleGrid, TrainError> {
    let mut grid = SampleGrid::new(title);
    let classes = &model.description.classes;
    let rows: Vec<(String, Conditions)> = match classes.is_empty() {
        true => (0..4)
            .map(|_| (String::new(), Conditions::Unconditional(SAMPLES)))
            .collect(),
        false => classes
            .iter()
            .enumerate()
            .map(|(c, name)| (name.clone(), Conditions::Classes(vec![c as u32; SAMPLES])))
            .collect(),
    };
    for (row, (name, conditions)) in rows.into_iter().enumerate() {
        let mut request = GenerationRequest {
            sampling: model.description.sampling.clone(),
            first_sample: (row * SAMPLES) as u64,
            ..GenerationRequest::new(conditions, seed)
        };
        request.sampling.guidance = guidance;
        let codes = model
            .network
            .generate(&request, &mut |_| std::ops::ControlFlow::Continue(()))?;
        let images = to_images(model.tokenizer.network.decode(&codes)?)?;
        grid.row(name, images.iter().map(Picture::from).collect::<Vec<_>>());
    }
    Ok(grid)
}

pub(crate) fn points(entries: &[Entry], phase: &str, name: &str) -> Vec<(f64, f64)> {
    let of_phase = entries.iter().filter(|entry| entry.phase == phase);
    of_phase
        .filter_map(|entry| Some((entry.step as f64, entry.number(name)?)))
        .collect()
}

fn tokenizer_charts(config: &RunConfig, entries: &[Entry]) -> Vec<LineChart> {
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
    let mut usage = LineChart::new(
        "Codes used on images not trained on",
        steps(),
        Quantity::new("share of the codes"),
    );
    usage.series(Series::new("used", points(entries, "eval", "usage")));
    usage.series(Series::new(
        "chosen in a training step",
        points(entries, "train", "codes_chosen"),
    ));
    let mut charts = vec![losses, psnr, usage];
    charts.extend(divergence_charts(entries));
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

fn generator_chart(entries: &[Entry]) -> LineChart {
    let (step, loss) = (
        Quantity::new("step"),
        Quantity::new("loss").unit("nats per code"),
    );
    let mut chart = LineChart::new("Cross entropy of the generator", step, loss);
    chart.series(Series::new("training", points(entries, "train", "codes")));
    chart.series(Series::new(
        "images not trained on",
        points(entries, "eval", "codes"),
    ));
    chart
}
