//! Histograms: how values are distributed, and how often each code of a codebook is used.
//!
//! Two forms with one drawing. [`Histogram::of_values`] counts values in bins of equal width
//! ([`Histogram::of_counts`] takes bins that are counted already). [`Histogram::ranked`] takes counts that are
//! already made (one for each code) and sorts them from the most to the least used: a flat profile is a codebook
//! used evenly, a cliff is where the dead codes begin. Where there are more codes than columns, neighbours in the
//! ranking share a bar that shows their mean; the note says how many.

use super::{
    axis::{Axis, AxisStyle, Scale},
    html::escape,
    plot::{self, Canvas, SERIES_COLOURS, Size, Words},
    value::{Quantity, Value},
};

/// Bars at most: narrower ones are not told apart on a phone.
const MOST_BARS: usize = 200;
/// Bars up to which each stands by itself.
const SEPARATE_UP_TO: usize = 60;

/// Codes up to which those that are not used are drawn, too.
const MOST_RANKED: usize = 1 << 20;

/// A chart of bars along a numeric axis.
#[derive(Debug, Clone)]
pub struct Histogram {
    title: String,
    x: Quantity,
    y: Quantity,
    scale: Scale,
    bars: Vec<Bar>,
    marks: Vec<(f64, String)>,
    notes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
struct Bar {
    from: f64,
    to: f64,
    height: f64,
}

impl Histogram {
    /// Counts `values` in `bins` bins of equal width between the smallest and the largest finite value.
    ///
    /// # Panics
    ///
    /// When `bins` is 0.
    pub fn of_values(
        title: impl Into<String>,
        x: impl Into<Quantity>,
        values: &[f64],
        bins: usize,
    ) -> Self {
        assert!(bins > 0, "a histogram needs at least one bin");
        let finite: Vec<f64> = values
            .iter()
            .copied()
            .filter(|&value| Scale::Linear.can_draw(value))
            .collect();
        let smallest = finite.iter().copied().fold(f64::INFINITY, f64::min);
        let largest = finite.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        // One value repeated still needs a bin with a width.
        let (low, width) = match largest - smallest {
            0.0 => (smallest - 0.5, 1.0 / bins as f64),
            range => (smallest, range / bins as f64),
        };
        let mut counts = vec![0_u64; if finite.is_empty() { 0 } else { bins }];
        for value in &finite {
            counts[(((value - low) / width) as usize).min(bins - 1)] += 1;
        }
        let mut histogram = Self::of_counts(title, x, (low, width), &counts);
        if finite.len() < values.len() {
            histogram.notes.push(format!(
                "{} more are not finite and not counted.",
                values.len() - finite.len()
            ));
        }
        histogram
    }

    /// Bins of equal width that were counted elsewhere: where the first begins, and how wide each is.
    pub fn of_counts(
        title: impl Into<String>,
        x: impl Into<Quantity>,
        (low, width): (f64, f64),
        counts: &[u64],
    ) -> Self {
        let mut histogram = Self::empty(title.into(), x.into(), Quantity::new("values in the bin"));
        let total = Value::count(counts.iter().sum()).html();
        histogram.notes.push(format!("{total} values."));
        let bar = |(index, &count): (usize, &u64)| Bar {
            from: low + index as f64 * width,
            to: low + (index + 1) as f64 * width,
            height: count as f64,
        };
        histogram.bars = counts.iter().enumerate().map(bar).collect();
        histogram
    }

    /// Codebook usage: the counts of the codes that are used, of so many codes in all, sorted from the most
    /// to the least used. Codes that are not used follow, unless there are too many to show anything beside them.
    pub fn ranked(
        title: impl Into<String>,
        counts: impl IntoIterator<Item = u64>,
        codes: usize,
    ) -> Self {
        let x = Quantity::new("codes, most used first");
        let mut histogram = Self::empty(title.into(), x, Quantity::new("times used"));
        let mut sorted: Vec<u64> = counts.into_iter().filter(|&count| count > 0).collect();
        sorted.sort_unstable_by(|left, right| right.cmp(left));
        let used = sorted.len();
        if codes <= MOST_RANKED {
            sorted.resize(codes.max(used), 0);
        }
        let written = |count: usize| Value::count(count as u64).html();
        histogram.notes.push(format!(
            "{} of {} codes are used.",
            written(used),
            written(codes)
        ));
        let shared = sorted.len().div_ceil(MOST_BARS).max(1);
        if shared > 1 {
            histogram.notes.push(format!(
                "Each bar is the mean of {} neighbours.",
                written(shared)
            ));
        }
        let bar = |(index, neighbours): (usize, &[u64])| Bar {
            from: (index * shared) as f64,
            to: (index * shared + neighbours.len()) as f64,
            height: neighbours.iter().map(|&count| count as f64).sum::<f64>()
                / neighbours.len() as f64,
        };
        histogram.bars = sorted.chunks(shared).enumerate().map(bar).collect();
        histogram
    }

    fn empty(title: String, x: Quantity, y: Quantity) -> Self {
        Self {
            title,
            x,
            y,
            scale: Scale::Linear,
            bars: Vec::new(),
            marks: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Makes the vertical axis logarithmic; bars of height 0 are not drawn.
    pub fn log_y(mut self) -> Self {
        self.scale = Scale::Log;
        self
    }

    /// Marks a value with a vertical line; the axis reaches there, also where no bar does.
    pub fn mark(mut self, x: f64, words: impl Into<String>) -> Self {
        self.marks.push((x, words.into()));
        self
    }

    /// A sentence below the chart.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(escape(&note.into()));
        self
    }

    /// Names the vertical axis.
    pub fn y(mut self, y: impl Into<Quantity>) -> Self {
        self.y = y.into();
        self
    }

    /// The chart as a figure. Alone in its row it is also drawn wide, for screens that have the room.
    pub(super) fn html(&self, is_alone: bool) -> String {
        let mut html = format!(
            "<figure class=\"chart\">\n<h3>{}</h3>\n",
            escape(&self.title)
        );
        let sizes: &[Size] = if is_alone {
            &[Size::Wide, Size::Narrow]
        } else {
            &[Size::Narrow]
        };
        let drawings: Option<String> = sizes.iter().map(|&size| self.draw(size)).collect();
        match drawings {
            Some(drawings) => {
                html += &format!("<p class=\"axis\">{}</p>\n{drawings}", self.y.html());
                html += &format!("<p class=\"axis horizontal\">{}</p>\n", self.x.html());
            }
            None => html += "<p class=\"empty\">No values to draw.</p>\n",
        }
        html + &format!(
            "<figcaption>{}</figcaption>\n</figure>\n",
            self.notes.join(" ")
        )
    }

    fn draw(&self, size: Size) -> Option<String> {
        let (x_axis, y_axis) = self.axes(size)?;
        let description = format!("{}: {} by {}", self.title, self.y.name, self.x.name);
        let axes = (&x_axis, &y_axis);
        Some(plot::draw(axes, size, &description, |canvas| {
            self.paint(canvas, axes);
        }))
    }

    /// The chart as an SVG file of its own, with title and the axes' names; nothing where there is nothing to draw.
    pub fn svg(&self) -> Option<String> {
        let (x_axis, y_axis) = self.axes(Size::Wide)?;
        let axes = (&x_axis, &y_axis);
        let words = Words {
            title: self.title.clone(),
            x: self.x.plain(),
            y: self.y.plain(),
            series: Vec::new(),
        };
        Some(plot::standalone(axes, &words, |canvas| {
            self.paint(canvas, axes);
        }))
    }

    fn axes(&self, size: Size) -> Option<(Axis, Axis)> {
        let y_style = AxisStyle {
            scale: self.scale,
            padding: 0.05,
            ticks: 5,
            from_zero: true,
            whole: true,
        };
        let y_axis = Axis::fit(self.bars.iter().map(|bar| bar.height), y_style)?;
        let edges = self.bars.iter().flat_map(|bar| [bar.from, bar.to]);
        let marks = self.marks.iter().map(|(x, _)| *x);
        let linear = AxisStyle {
            scale: Scale::Linear,
            padding: 0.0,
            ticks: size.horizontal_ticks(),
            from_zero: false,
            whole: true,
        };
        Some((Axis::fit(edges.chain(marks), linear)?, y_axis))
    }

    fn paint(&self, canvas: &mut Canvas<'_, '_>, (x_axis, y_axis): (&Axis, &Axis)) {
        let place = |bar: &Bar| {
            Some(Place {
                left: x_axis.position(bar.from)?,
                right: x_axis.position(bar.to)?,
                // What has no place on a logarithmic axis has no height.
                top: y_axis.position(bar.height).unwrap_or(0.0),
            })
        };
        let places: Vec<Place> = self.bars.iter().filter_map(place).collect();
        draw_bars(canvas, &places);
        let visible = self.marks.iter().filter(|(x, _)| x_axis.contains(*x));
        for (row, (x, words)) in visible.enumerate() {
            canvas.mark(x_axis.position(*x).unwrap_or(0.0), words, row as u32);
        }
    }
}

/// Where a bar stands, in axis positions.
struct Place {
    left: f64,
    right: f64,
    top: f64,
}

/// Few bars stand apart; many are one outline.
fn draw_bars(canvas: &mut Canvas<'_, '_>, places: &[Place]) {
    if places.len() > SEPARATE_UP_TO {
        let steps = places
            .iter()
            .flat_map(|place| [(place.left, place.top), (place.right, place.top)]);
        // A mark beyond the bars makes the axis longer than they are.
        let (from, to) = (places[0].left, places[places.len() - 1].right);
        let outline = [(from, 0.0)]
            .into_iter()
            .chain(steps)
            .chain([(to, 0.0)])
            .collect();
        canvas.area(outline, SERIES_COLOURS[0]);
        return;
    }
    let span = places
        .last()
        .map_or(0.0, |last| last.right - places[0].left);
    let gap = 0.05 * span / places.len() as f64;
    for place in places.iter().filter(|place| place.top > 0.0) {
        canvas.bar(
            [(place.left + gap, place.top), (place.right - gap, 0.0)],
            SERIES_COLOURS[0],
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heights(histogram: &Histogram) -> Vec<f64> {
        histogram.bars.iter().map(|bar| bar.height).collect()
    }

    #[test]
    fn values_fall_into_their_bins() {
        let histogram =
            Histogram::of_values("Gains", "gain", &[0.0, 0.1, 0.9, 1.0, 2.0, f64::NAN], 2);
        assert_eq!(heights(&histogram), [3.0, 2.0]);
        let html = histogram.html(false);
        assert!(html.contains("5 values. 1 more are not finite and not counted."));
        assert_eq!(html.matches("<rect").count(), 2);
    }

    #[test]
    fn the_axis_reaches_to_a_mark() {
        let histogram =
            Histogram::of_values("Bits", "bits", &[0.0, 1.0], 2).mark(4.0, "here & now");
        let (x_axis, _) = histogram.axes(Size::Wide).expect("values");
        assert_eq!(x_axis.position(4.0), Some(1.0));
        assert_eq!(x_axis.position(1.0), Some(0.25));
        assert!(histogram.html(false).contains("here &amp; now"));
        assert!(
            histogram
                .svg()
                .is_some_and(|svg| svg.contains("here &amp; now"))
        );
        assert!(
            Histogram::of_values("None", "x", &[], 4)
                .mark(1.0, "x")
                .svg()
                .is_none()
        );
    }

    #[test]
    fn counts_are_ranked() {
        let histogram = Histogram::ranked("Usage", [0, 7, 3, 0, 9], 5);
        assert_eq!(heights(&histogram), [9.0, 7.0, 3.0, 0.0, 0.0]);
        assert!(histogram.html(true).contains("3 of 5 codes are used."));
    }

    #[test]
    fn large_codebooks_share_bars() {
        let counts: Vec<u64> = (0..16_384).collect();
        let histogram = Histogram::ranked("Usage", counts.clone(), counts.len()).log_y();
        assert!(histogram.bars.len() <= MOST_BARS);
        let total: f64 = histogram
            .bars
            .iter()
            .map(|bar| bar.height * (bar.to - bar.from))
            .sum();
        assert_eq!(total, counts.iter().sum::<u64>() as f64);
        let html = histogram.html(false);
        assert_eq!(html.matches("<polygon").count(), 1);
        assert!(
            html.contains(
                "16,383 of 16,384 codes are used. Each bar is the mean of 82 neighbours."
            )
        );
    }

    #[test]
    fn of_codebooks_without_a_table_the_used_codes_are_drawn() {
        let histogram = Histogram::ranked("Usage", [2, 5], 1 << 31);
        assert_eq!(heights(&histogram), [5.0, 2.0]);
        assert!(
            histogram
                .html(true)
                .contains("2 of 2,147,483,648 codes are used.")
        );
    }

    #[test]
    fn a_single_value_and_none_are_fine() {
        assert_eq!(
            heights(&Histogram::of_values("One", "x", &[4.0, 4.0], 4))
                .iter()
                .sum::<f64>(),
            2.0
        );
        assert!(
            Histogram::of_values("None", "x", &[], 4)
                .html(true)
                .contains("No values to draw.")
        );
        assert!(
            Histogram::ranked("None", [], 0)
                .html(true)
                .contains("0 of 0 codes")
        );
        assert!(
            Histogram::ranked("Unused", [0, 0], 2)
                .log_y()
                .html(true)
                .contains("No values to draw.")
        );
    }
}
