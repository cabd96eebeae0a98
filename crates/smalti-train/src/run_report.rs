//! The report of a run: what was trained, how it went, what it can do.

mod charts;
mod codes;
mod samples;

use smalti_data::Image;
use smalti_metrics::CodeStatistics;
use smalti_models::generators::Writing;

use crate::config::RunConfig;
use crate::error::TrainError;
use crate::evaluation::{self, Evaluation, Measuring, evaluate};
use crate::journal::{self, Entry};
use crate::model_dir::{GeneratorModel, TokenizerModel, short};
use crate::observer::Silent;
use crate::report::{Exhibit, Gallery, KeyNumber, Picture, Report, Value};
use crate::samples::spread;
use crate::trainer::RunFolder;

pub(crate) use charts::points;

/// Images shown beside their reconstructions.
const EXHIBITS: usize = 24;
/// Images whose code maps are shown.
const CODE_MAPS: usize = 2;

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
    for chart in charts::tokenizer(config, &journal::read(&folder.journal())?) {
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
    report.subtitle(match model.description.model.writing() {
        Writing::Raster => "New images, written code by code.",
        Writing::Denoised { .. } | Writing::Unmasked { .. } => {
            "New images, written in passes over all of their codes."
        }
    });
    let entries = journal::read(&folder.journal())?;
    generator_numbers(&mut report, model, &entries);
    samples::sections(&mut report, model, seed)?;
    let section = report.section("Training");
    section.add(charts::generator(
        &entries,
        model.description.model.writing(),
    ));
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
    samples::sections(&mut report, model, 1)?;
    let section = report.section("Training");
    for chart in charts::tokenizer(configs[0], &journal::read(&folders[0].journal())?) {
        section.add(chart);
    }
    section.add(charts::generator(&stage_two, Writing::Raster));
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
    if let Some(frechet) = &evaluation.frechet {
        report.key_number(
            KeyNumber::new("Fréchet distance", Value::number(frechet.distance, 3))
                .note(format!("to the images, by {}", frechet.network)),
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
        let note = match model.description.model.writing() {
            Writing::Raster => "cross entropy on images not trained on",
            Writing::Denoised { .. } => "bound on the likelihood of images not trained on",
            Writing::Unmasked { .. } => "cross entropy of masked codes of images not trained on",
        };
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
    section.add(codes::maps(model, &spread(images, CODE_MAPS))?);
    section.add(codes::table(&measured.evaluation));
    section.paragraph(codes::EXPLANATION);
    codes::frequencies(section, model, &measured.statistics);
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
