//! The page of a comparison: plots, a table for each rate, pictures.

use std::path::Path;

use burn::tensor::Device;
use smalti_data::Image;

use super::config::ComparisonConfig;
use super::result::{EntryResult, Outcome, Results};
use crate::error::TrainError;
use crate::evaluation::{Evaluation, reconstructions};
use crate::journal;
use crate::model_dir::TokenizerModel;
use crate::report::{
    Better, Column, LineChart, Picture, Quantity, Report, SampleGrid, Section, Series, Table, Value,
};
use crate::run_report::points;
use crate::samples::spread;
use crate::trainer::RunFolder;

/// What a page is made of.
pub(super) struct Page<'a> {
    pub(super) config: &'a ComparisonConfig,
    pub(super) results: &'a Results,
    /// The comparison's folder.
    pub(super) folder: &'a Path,
    /// Where models reconstruct the pictures.
    pub(super) device: &'a Device,
}

impl Page<'_> {
    /// The page; `images` are those that were measured on.
    ///
    /// # Errors
    /// When a journal or a model of an entry cannot be read.
    pub(super) fn render(&self, images: &[Image]) -> Result<String, TrainError> {
        let mut report = Report::new("Tokenizers compared");
        report.subtitle("Equal networks, images, steps and bits per pixel; what differs is the quantizer between encoder and decoder.");
        let training = &self.config.base.training;
        report.fact(
            "images measured on, none of them trained on",
            self.results.images,
        );
        report.fact("steps", training.steps);
        report.fact("images a step", training.batch_size * training.accumulate);
        report.fact("seed", self.config.base.seed);
        self.plots(report.section("Rate and distortion"));
        self.tables(report.section("Numbers"));
        self.pictures(report.section("Pictures"), images)?;
        self.training(report.section("Training"))?;
        report.configuration(self.config.to_toml());
        Ok(report.render())
    }

    fn plots(&self, section: &mut Section) {
        section.paragraph("Up and to the left is better: more fidelity from fewer bits. The rate counts every code at its full length, log2 of the codebook's size.");
        let fidelity = || Quantity::new("PSNR").unit("dB");
        let fixed = |evaluation: &Evaluation| evaluation.bits_per_pixel;
        let rate = |what: &str| Quantity::new(what).unit("bits per pixel");
        section.add(self.plot(
            LineChart::new("PSNR over rate", rate("rate"), fidelity()),
            |evaluation| Some((fixed(evaluation), evaluation.psnr_db)),
        ));
        section.paragraph("On the right the same fidelity over what the codes would take if each were written with as many bits as its frequency over these images allows. Few images make that look better than it is.");
        section.add(self.plot(
            LineChart::new("SSIM over rate", rate("rate"), "SSIM"),
            |evaluation| Some((fixed(evaluation), evaluation.ssim?)),
        ));
        section.add(self.plot(
            LineChart::new("PSNR over entropy", rate("entropy"), fidelity()),
            |evaluation| Some((evaluation.entropy_bits_per_pixel, evaluation.psnr_db)),
        ));
        for judge in self.judges() {
            section.add(
                self.plot(
                    LineChart::new(
                        format!("{} over rate", judge.title),
                        rate("rate"),
                        judge.title,
                    )
                    .note("Lower is better."),
                    |evaluation| Some((fixed(evaluation), (judge.number)(evaluation)?)),
                ),
            );
        }
    }

    /// The measures that networks took.
    fn judges(&self) -> Vec<Judge> {
        let all = [
            Judge {
                title: "perceptual distance",
                number: |evaluation| evaluation.perceptual,
            },
            Judge {
                title: "Fréchet distance",
                number: Evaluation::frechet_distance,
            },
        ];
        let taken = |judge: &Judge| self.results.have(judge.number);
        all.into_iter().filter(taken).collect()
    }

    /// One line for each method, from its lowest to its highest rate.
    fn plot(
        &self,
        mut chart: LineChart,
        place: impl Fn(&Evaluation) -> Option<(f64, f64)>,
    ) -> LineChart {
        for method in self.results.methods() {
            let of_method = self.results.entries.iter().filter(|e| e.name == method);
            let mut points: Vec<(f64, f64)> = of_method
                .filter_map(|entry| place(&entry.measured()?.evaluation))
                .collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            chart.series(Series::new(method, points));
        }
        chart
    }

    fn tables(&self, section: &mut Section) {
        for rate in self.results.rates() {
            let judges = self.judges();
            let mut table = Table::new(format!("At {rate} bits per pixel."), columns(&judges));
            self.results
                .at(rate)
                .for_each(|entry| _ = table.row(row(entry, &judges)));
            section.add(table);
        }
        section.paragraph("Rate and entropy are bits per pixel. Parameters are the numbers that gradients train; codebooks that learn by moving averages come on top. Codes used, perplexity and entropy are over all images measured on, perplexity as the mean over the codes of a position.");
        let frechet = |evaluation: &Evaluation| evaluation.frechet.clone();
        let measured = self
            .results
            .entries
            .iter()
            .filter_map(EntryResult::measured);
        if let Some(frechet) = measured.filter_map(|m| frechet(&m.evaluation)).next() {
            let few = match self.results.images <= frechet.width {
                true => {
                    " There are no more images than a vector has numbers, so it is too large, for all alike."
                }
                false => "",
            };
            section.paragraph(format!(
                "The Fréchet distance is that of all reconstructions to all images by {} ({} numbers); it is no FID, and compares with nothing but distances by this network on these images.{few}",
                frechet.network, frechet.width
            ));
        }
        for entry in &self.results.entries {
            if let Outcome::Diverged { reason } = &entry.outcome {
                section.paragraph(format!("{} diverged: {reason}.", entry.label()));
            }
        }
    }

    fn pictures(&self, section: &mut Section, images: &[Image]) -> Result<(), TrainError> {
        section.paragraph("None of these images was trained on. The number is the mean PSNR over all images measured on.");
        let shown = spread(images, self.config.pictures);
        for rate in self.results.rates() {
            let caption = format!("Originals and reconstructions at {rate} bits per pixel.");
            let mut grid = SampleGrid::new(caption).large();
            grid.row("original", shown.iter().map(Picture::from));
            for entry in self.results.at(rate) {
                let Some(measured) = entry.measured() else {
                    continue;
                };
                let model = TokenizerModel::load(&self.folder.join(&entry.folder), self.device)?;
                let decoded = reconstructions(&model.network, &shown)?;
                let label = format!("{}, {:.2} dB", entry.name, measured.evaluation.psnr_db);
                grid.row(label, decoded.iter().map(Picture::from));
            }
            section.add(grid);
        }
        Ok(())
    }

    /// The courses of the runs, one chart for each rate.
    fn training(&self, section: &mut Section) -> Result<(), TrainError> {
        for rate in self.results.rates() {
            let mut chart = LineChart::new(
                format!("Reconstruction loss in training, {rate} bits per pixel"),
                "step",
                Quantity::new("loss, images in [−1, 1]"),
            )
            .log_y();
            // All methods, so that each has its colour in every chart.
            for method in self.results.methods() {
                let mut course = Vec::new();
                for entry in self.results.at(rate).filter(|e| e.name == method) {
                    let run = RunFolder(self.folder.join(&entry.folder));
                    let entries = journal::read(&run.journal())?;
                    course = points(&entries, "train", "reconstruction");
                }
                chart.series(Series::new(method, course));
            }
            section.add(chart);
        }
        Ok(())
    }
}

/// A measure that a network took, lower is better.
struct Judge {
    title: &'static str,
    number: fn(&Evaluation) -> Option<f64>,
}

fn columns(judges: &[Judge]) -> Vec<Column> {
    let rate = |name: &str| Quantity::new(name).unit("bpp");
    let judged = judges
        .iter()
        .map(|judge| Column::new(judge.title).better(Better::Lower));
    let mut columns = vec![
        Column::new("method"),
        Column::new("codes"),
        Column::new(rate("rate")),
        Column::new(rate("entropy")),
        Column::new(Quantity::new("PSNR").unit("dB")).better(Better::Higher),
        Column::new("SSIM").better(Better::Higher),
    ];
    columns.extend(judged);
    columns.extend(["codes used", "perplexity", "training", "parameters"].map(Column::new));
    columns
}

fn row(entry: &EntryResult, judges: &[Judge]) -> Vec<Value> {
    let mut row = vec![Value::text(entry.name.as_str())];
    match entry.measured() {
        None => {
            row.push(Value::text("diverged"));
            row.extend(std::iter::repeat_n(Value::missing(), 7 + judges.len()));
        }
        Some(measured) => {
            let evaluation = &measured.evaluation;
            row.extend([
                Value::text(evaluation.codebooks().replace(' ', "\u{a0}")),
                Value::number(evaluation.bits_per_pixel, 3),
                Value::number(evaluation.entropy_bits_per_pixel, 3),
                Value::number(evaluation.psnr_db, 2),
                evaluation
                    .ssim
                    .map_or(Value::missing(), |ssim| Value::number(ssim, 3)),
            ]);
            row.extend(judges.iter().map(|judge| {
                let number = (judge.number)(evaluation);
                number.map_or(Value::missing(), |number| Value::significant(number, 4))
            }));
            row.extend([
                Value::percent(evaluation.usage, 1),
                Value::number(evaluation.perplexity(), 1),
                measured
                    .training_seconds
                    .map_or(Value::missing(), Value::seconds),
            ]);
        }
    }
    row.push(Value::count(entry.parameters as u64));
    row
}
