//! The codebooks of a tokenizer in a run's report: maps of codes, how evenly they are used, over all images measured on and
//! over the steps of the training. What a collapse looks like: usage and perplexity that fall or stay low, a cliff in
//! the sorted frequencies, rows of the table near zero.

use smalti_data::Image;
use smalti_metrics::{CodeCounts, CodeStatistics};

use super::charts::points;
use crate::error::TrainError;
use crate::evaluation::Evaluation;
use crate::journal::Entry;
use crate::model_dir::TokenizerModel;
use crate::report::{
    Better, Column, Exhibit, Gallery, Histogram, LineChart, Picture, Quantity, Section, Series,
    Table, Value,
};
use crate::samples::to_tensor;

/// Depths whose lines can be told apart in one chart.
const MOST_DEPTHS: usize = 16;

/// Maps of the codes of some images.
pub(super) fn maps(model: &TokenizerModel, images: &[Image]) -> Result<Gallery, TrainError> {
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

/// How the codes of each depth are used.
pub(super) fn table(evaluation: &Evaluation) -> Table {
    let mut columns = vec![
        Column::new("depth"),
        Column::new(Quantity::new("codebook size").unit("codes")),
        Column::new(Quantity::new("used").unit("%")).better(Better::Higher),
        Column::new(Quantity::new("dead").unit("codes")).better(Better::Lower),
        Column::new(Quantity::new("perplexity").unit("codes")).better(Better::Higher),
        Column::new(Quantity::new("entropy").unit("bits per code")),
    ];
    // Where no depth has a table that learns there is nothing to say about its rows.
    let has_rows = evaluation.depths.iter().any(|d| d.near_zero.is_some());
    if has_rows {
        columns.push(Column::new(Quantity::new("near zero").unit("rows")));
    }
    let mut table = Table::new("Use of the codes over all images measured on.", columns);
    for (d, depth) in evaluation.depths.iter().enumerate() {
        let mut row = vec![
            Value::count(d as u64 + 1),
            Value::count(depth.codebook_size as u64),
            Value::percent(depth.usage, 1),
            Value::count(depth.dead as u64),
            Value::number(depth.perplexity, 1),
            Value::number(depth.entropy_bits, 2),
        ];
        if has_rows {
            let rows = depth.near_zero.map(|rows| Value::count(rows as u64));
            row.push(rows.unwrap_or(Value::missing()));
        }
        table.row(row);
    }
    table
}

/// What the table's words mean.
pub(super) const EXPLANATION: &str = "Dead codes were never chosen over all these images; few images leave many codes of a large codebook dead. The perplexity is the size of an evenly used codebook of the same entropy. Rows near zero are shorter than a thousandth of the median: what training has given up, or never begun with.";

/// How often each code is used, sorted.
pub(super) fn frequencies(
    section: &mut Section,
    model: &TokenizerModel,
    statistics: &CodeStatistics,
) {
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

/// Usage and perplexity of every depth over the steps.
pub(super) fn charts(entries: &[Entry]) -> Vec<LineChart> {
    let of = |measure: &str, depth: usize| points(entries, "eval", &format!("{measure}_{depth}"));
    let depths = (1..)
        .take_while(|&depth| !of("perplexity", depth).is_empty())
        .count();
    let shown = depths.min(MOST_DEPTHS);
    let each = |chart: &mut LineChart, measure: &str| {
        for depth in 1..=shown {
            let name = format!("depth {depth}");
            chart.series(Series::new(name, of(measure, depth)));
        }
    };
    let note = match depths > shown {
        true => format!("The first {shown} of {depths} depths."),
        false => String::new(),
    };
    let mut usage = LineChart::new(
        "Codes used on images not trained on",
        "step",
        Quantity::new("share of the codes"),
    )
    .note(note.as_str());
    usage.series(Series::new("used", points(entries, "eval", "usage")));
    usage.series(Series::new(
        "chosen in a training step",
        points(entries, "train", "codes_chosen"),
    ));
    // Of a single depth, its usage is that of all.
    if depths > 1 {
        each(&mut usage, "usage");
    }
    let mut perplexity = LineChart::new(
        "Perplexity on images not trained on",
        "step",
        Quantity::new("perplexity").unit("codes"),
    )
    .log_y()
    .note(note);
    each(&mut perplexity, "perplexity");
    vec![usage, perplexity]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Report;

    fn entries(depths: usize) -> Vec<Entry> {
        let entry = |step: u64| {
            let mut values = serde_json::Map::new();
            values.insert("usage".into(), 0.5.into());
            for depth in 1..=depths {
                values.insert(format!("usage_{depth}"), 0.25.into());
                values.insert(format!("perplexity_{depth}"), (depth as f64 + 1.5).into());
            }
            Entry {
                step,
                phase: "eval".into(),
                values,
            }
        };
        vec![entry(10), entry(20)]
    }

    fn page(depths: usize) -> String {
        let mut report = Report::new("test");
        let section = report.section("Training");
        for chart in charts(&entries(depths)) {
            section.add(chart);
        }
        report.render()
    }

    #[test]
    fn every_depth_has_its_lines() {
        let page = page(3);
        assert_eq!(
            page.matches("depth 3 <b>").count(),
            2,
            "usage and perplexity"
        );
        assert!(page.contains("depth 3 <b>4.5<span"), "{page}");
        assert!(!page.contains("of 3 depths"));
    }

    #[test]
    fn a_single_depth_is_not_drawn_twice() {
        assert_eq!(page(1).matches("depth 1 <b>").count(), 1);
    }

    #[test]
    fn very_many_depths_are_cut_off_and_that_is_said() {
        let page = page(40);
        assert!(page.contains("The first 16 of 40 depths."));
        assert!(!page.contains("depth 17 <b>"));
        // From the ninth colour on lines are dashed.
        assert!(page.contains("stroke-dasharray"));
    }
}
