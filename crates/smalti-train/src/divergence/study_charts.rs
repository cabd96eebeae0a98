//! The charts of a study: errors over the distance of log2 K from the divergence, and how the divergence is
//! distributed.

use super::distribution::Distribution;
use super::groups::GroupPoint;
use super::scalars::ScalarPoint;
use super::study::Study;
use crate::report::{Histogram, LineChart, Quantity, Series};

/// Codebook sizes that have a line of their own.
const SIZES: usize = 6;
/// A share too small to be seen in a chart.
const VANISHED: f64 = 1e-3;

fn excess() -> Quantity {
    Quantity::new("log2 K − R").unit("bits")
}

pub(super) fn scalar_chart(study: &Study) -> LineChart {
    let curve = &study.scalar_curve;
    let mut chart = LineChart::new(
        "Large errors of single channels",
        excess(),
        Quantity::new("share of errors of σ or more"),
    )
    .note(format!(
        "{} scalars of the model, {} independent codebooks of each size. Bounds are drawn with each scalar's own constants (c₁ = |μσ|, c₂ = |μ| + σ) and, wider, with the largest of all.",
        curve.scalars, curve.codebooks
    ));
    let points = until_vanished(&curve.points);
    let mut add = |name: String, value: fn(&ScalarPoint) -> f64| {
        chart.series(Series::new(name, line(points, |p| p.excess_bits, value)));
    };
    add("measured".into(), |point| point.large_errors);
    add("exact, (1 − P)ᴷ".into(), |point| point.exact);
    add("Theorem 3.1: at most".into(), |point| point.at_most);
    add("Theorem 3.2: at least".into(), |point| point.at_least);
    add(format!("3.1 with c₁ = {:.2}", curve.c1), |point| {
        point.at_most_common
    });
    add(format!("3.2 with c₂ = {:.2}", curve.c2), |point| {
        point.at_least_common
    });
    chart.mark(0.0, "log2 K = R");
    chart
}

pub(super) fn size_chart(study: &Study) -> LineChart {
    let mut chart = LineChart::new(
        "The same, by codebook size",
        excess(),
        Quantity::new("share of errors of σ or more"),
    );
    for size in some(&study.scalar_curve.sizes) {
        let points = line(&size.points, |p| p.excess_bits, |p| p.large_errors);
        chart.series(Series::new(format!("K = 2^{}", size.codebook_bits), points));
    }
    chart.mark(0.0, "log2 K = R");
    chart
}

pub(super) fn group_chart(study: &Study) -> LineChart {
    let curve = &study.group_curve;
    let mut chart = LineChart::new(
        "Error of groups, in units of σ",
        excess(),
        Quantity::new("mean of Σ((ẑ − μ)/σ)²/m"),
    )
    .log_y()
    .note(format!("{} groups, quantized at every size.", curve.groups));
    chart.series(Series::new(
        "codes",
        line(&curve.points, |p| p.excess_bits, |p| p.error),
    ));
    chart.series(Series::new(
        "a sample of the posterior",
        line(&curve.points, |p| p.excess_bits, |_| 1.0),
    ));
    chart.mark(0.0, "log2 K = R");
    chart
}

pub(super) fn group_share_chart(study: &Study) -> LineChart {
    let curve = &study.group_curve;
    let mut chart = LineChart::new(
        "Groups with an error of 1 or more",
        excess(),
        Quantity::new("share of groups"),
    )
    .note("The bounds are those of the theorems carried over to groups, for independent codes and the nearest of them.");
    let mut add = |name: &str, value: fn(&GroupPoint) -> f64| {
        chart.series(Series::new(
            name,
            line(&curve.points, |p| p.excess_bits, value),
        ));
    };
    add("measured", |point| point.large_errors);
    add("at most", |point| point.at_most);
    add("at least", |point| point.at_least);
    chart.mark(0.0, "log2 K = R");
    chart
}

/// How many groups have how much divergence, with log2 K of every codebook marked.
pub(super) fn divergence_histogram(
    bits: &Distribution,
    codebook_bits: impl Iterator<Item = f64>,
) -> Histogram {
    let counts = &bits.histogram;
    let histogram = Histogram::of_counts(
        "Divergence of all groups",
        Quantity::new("divergence of a group").unit("bits"),
        (counts.low, counts.width),
        &counts.counts,
    );
    let mut sizes: Vec<f64> = codebook_bits.collect();
    sizes.sort_by(f64::total_cmp);
    sizes.dedup();
    sizes.into_iter().fold(histogram, |histogram, bits| {
        histogram.mark(bits, format!("log2 K = {bits}"))
    })
}

fn line<'a, P>(
    points: &'a [P],
    x: fn(&P) -> f64,
    y: impl Fn(&P) -> f64 + 'a,
) -> impl Iterator<Item = (f64, f64)> + 'a {
    points.iter().map(move |point| (x(point), y(point)))
}

/// Up to where even the widest bound leaves no large errors: channels of a fraction of a bit are quantized with
/// codebooks of 2^18 as well.
fn until_vanished(points: &[ScalarPoint]) -> &[ScalarPoint] {
    let last = points.iter().rposition(|p| p.at_most_common > VANISHED);
    let shown = last.map_or(points.len(), |last| last + 2);
    &points[..shown.min(points.len())]
}

/// A few of many, the first and the last among them.
fn some<T>(all: &[T]) -> impl Iterator<Item = &T> {
    let shown = all.len().min(SIZES);
    (0..shown).map(move |i| &all[i * (all.len() - 1) / (shown - 1).max(1)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_sizes_stand_for_many() {
        let all: Vec<usize> = (0..19).collect();
        let shown: Vec<usize> = some(&all).copied().collect();
        assert_eq!(shown, [0, 3, 7, 10, 14, 18]);
        assert_eq!(some(&all[..1]).count(), 1);
        assert_eq!(some(&all[..0]).count(), 0);
    }

    #[test]
    fn a_chart_ends_one_point_after_the_last_that_shows() {
        let point = |at_most_common: f64| ScalarPoint {
            excess_bits: 0.0,
            count: 1,
            large_errors: 0.0,
            exact: 0.0,
            at_least: 0.0,
            at_most: 0.0,
            at_least_common: 0.0,
            at_most_common,
        };
        let shown = |bounds: &[f64]| {
            let points: Vec<ScalarPoint> = bounds.iter().copied().map(point).collect();
            until_vanished(&points).len()
        };
        assert_eq!(shown(&[1.0, 0.5, 0.0, 0.0, 0.0]), 3);
        assert_eq!(shown(&[1.0, 0.5]), 2);
        assert_eq!(shown(&[0.0, 0.0, 0.0]), 3);
        assert_eq!(shown(&[]), 0);
    }

    #[test]
    fn every_codebook_size_is_marked_once() {
        let svg = divergence_histogram(&Distribution::of([3.0, 9.0]), [8.0, 4.0, 8.0].into_iter())
            .svg()
            .expect("there is something to draw");
        for (mark, count) in [("log2 K = 8", 1), ("log2 K = 4", 1)] {
            assert_eq!(svg.matches(mark).count(), count, "{svg}");
        }
    }
}
