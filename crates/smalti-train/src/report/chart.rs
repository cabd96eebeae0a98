//! Line charts: named series over steps.
//!
//! Points that cannot be drawn (not finite, or not positive on a logarithmic axis) leave a gap and are counted in a note
//! below the chart: a diverged run shows that it diverged. Where a series is smoothed, the raw values stay visible behind
//! its average.

use super::{
    axis::{Axis, AxisStyle, Scale},
    html::escape,
    plot::{self, Canvas, SERIES_COLOURS, Size, Words, colour_class, is_dashed},
    series::{Series, segments},
    value::{Quantity, Value},
};

/// Points from which on a series is drawn without dots.
const DOTTED_BELOW: usize = 24;

/// A line chart.
#[derive(Debug, Clone)]
pub struct LineChart {
    title: String,
    x: Quantity,
    y: Quantity,
    scale: Scale,
    note: String,
    series: Vec<Series>,
    marks: Vec<(f64, String)>,
}

impl LineChart {
    /// An empty chart of `y` over `x`.
    pub fn new(title: impl Into<String>, x: impl Into<Quantity>, y: impl Into<Quantity>) -> Self {
        Self {
            title: title.into(),
            x: x.into(),
            y: y.into(),
            scale: Scale::Linear,
            note: String::new(),
            series: Vec::new(),
            marks: Vec::new(),
        }
    }

    /// Makes the vertical axis logarithmic.
    pub fn log_y(mut self) -> Self {
        self.scale = Scale::Log;
        self
    }

    /// A sentence below the chart.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    /// Adds a series. Colours repeat after eight, with dashed lines.
    pub fn series(&mut self, series: Series) -> &mut Self {
        self.series.push(series);
        self
    }

    /// Marks an event with a vertical line: "discriminator joins". Marks outside the range of the series are left out.
    pub fn mark(&mut self, x: f64, words: impl Into<String>) -> &mut Self {
        self.marks.push((x, words.into()));
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
                html += &self.legend();
                html += &format!("<p class=\"axis\">{}</p>\n", self.y.html());
                html += &drawings;
                html += &format!("<p class=\"axis horizontal\">{}</p>\n", self.x.html());
            }
            None => html += "<p class=\"empty\">No values to draw.</p>\n",
        }
        let notes = self.notes();
        if !notes.is_empty() {
            html += &format!("<figcaption>{}</figcaption>\n", escape(&notes));
        }
        html + "</figure>\n"
    }

    fn legend(&self) -> String {
        let mut html = String::from("<ul class=\"legend\">\n");
        for (index, series) in self.series.iter().enumerate() {
            // The last of the raw points, finite or not: a legend must not show a run as healthy that ended in NaN.
            let last = match series.points.last() {
                Some((_, y)) if !y.is_finite() => Value::significant(*y, 4),
                Some(_) => Value::significant(
                    series.main_line().last().map_or(f64::NAN, |point| point.1),
                    4,
                ),
                None => Value::missing(),
            };
            html += &format!(
                "<li><i class=\"{}\"></i>{} <b>{}</b></li>\n",
                colour_class(index),
                escape(&series.name),
                last.unit(self.y.unit.as_str()).html()
            );
        }
        html + "<li class=\"unit\">(last values)</li>\n</ul>\n"
    }

    /// The caller's note, then what a reader must know to read the lines.
    fn notes(&self) -> String {
        let mut notes = Vec::new();
        if !self.note.is_empty() {
            notes.push(self.note.clone());
        }
        if self
            .series
            .iter()
            .any(|series| series.smoothing.is_some() && !series.points.is_empty())
        {
            notes.push("Solid lines are moving averages, faint lines the raw values.".to_owned());
        }
        for series in &self.series {
            let hidden = series
                .points
                .iter()
                .filter(|point| !self.can_draw(point))
                .count();
            if hidden > 0 {
                let why = if self.scale == Scale::Log {
                    "not finite or not positive"
                } else {
                    "not finite"
                };
                notes.push(format!(
                    "{}: {hidden} of {} points are {why} and not drawn.",
                    series.name,
                    series.points.len()
                ));
            }
        }
        notes.join(" ")
    }

    fn can_draw(&self, &(x, y): &(f64, f64)) -> bool {
        Scale::Linear.can_draw(x) && self.scale.can_draw(y)
    }

    fn draw(&self, size: Size) -> Option<String> {
        let (x_axis, y_axis) = self.axes(size)?;
        let names: Vec<&str> = self
            .series
            .iter()
            .map(|series| series.name.as_str())
            .collect();
        let description = format!(
            "{}: {} over {}; {}",
            self.title,
            self.y.name,
            self.x.name,
            names.join(", ")
        );
        let axes = (&x_axis, &y_axis);
        Some(plot::draw(axes, size, &description, |canvas| {
            self.paint(canvas, axes, size);
        }))
    }

    /// The chart as an SVG file of its own, with title, legend and the axes' names; nothing where there is nothing to
    /// draw.
    pub fn svg(&self) -> Option<String> {
        let (x_axis, y_axis) = self.axes(Size::Wide)?;
        let axes = (&x_axis, &y_axis);
        let words = Words {
            title: self.title.clone(),
            x: self.x.plain(),
            y: self.y.plain(),
            series: self
                .series
                .iter()
                .map(|series| series.name.clone())
                .collect(),
        };
        Some(plot::standalone(axes, &words, |canvas| {
            self.paint(canvas, axes, Size::Wide);
        }))
    }

    fn axes(&self, size: Size) -> Option<(Axis, Axis)> {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let linear = AxisStyle {
            scale: Scale::Linear,
            padding: 0.0,
            ticks: size.horizontal_ticks(),
            from_zero: false,
            whole: true,
        };
        // The whole course of the run, also where there is nothing to draw: a line that ends early is seen to end early.
        let x_axis = Axis::fit(points().map(|point| point.0), linear)?;
        let y_style = AxisStyle {
            scale: self.scale,
            padding: 0.05,
            ticks: 5,
            from_zero: false,
            whole: false,
        };
        let drawable = points().filter(|point| self.can_draw(point));
        let y_axis = Axis::fit(drawable.map(|point| point.1), y_style)?;
        Some((x_axis, y_axis))
    }

    fn paint(&self, canvas: &mut Canvas<'_, '_>, (x_axis, y_axis): (&Axis, &Axis), size: Size) {
        let visible = self.marks.iter().filter(|(x, _)| x_axis.contains(*x));
        for (row, (x, words)) in visible.enumerate() {
            canvas.mark(x_axis.position(*x).unwrap_or(0.0), words, row as u32);
        }
        let columns = size.pixels().0;
        let place = |points: &[(f64, f64)]| segments(points, x_axis, y_axis, columns);
        // All raw values lie behind all averages.
        for (index, series) in self
            .series
            .iter()
            .enumerate()
            .filter(|(_, series)| series.smoothing.is_some())
        {
            let style = LineStyle {
                series: index,
                opacity: 0.28,
                width: 1.0,
            };
            draw_segments(canvas, place(&series.points), style);
        }
        for (index, series) in self.series.iter().enumerate() {
            let style = LineStyle {
                series: index,
                opacity: 1.0,
                width: 1.8,
            };
            draw_segments(canvas, place(&series.main_line()), style);
        }
    }
}

struct LineStyle {
    series: usize,
    opacity: f64,
    width: f64,
}

fn draw_segments(canvas: &mut Canvas<'_, '_>, segments: Vec<Vec<(f64, f64)>>, style: LineStyle) {
    let colour = SERIES_COLOURS[style.series % SERIES_COLOURS.len()];
    let is_sparse = segments.iter().map(Vec::len).sum::<usize>() < DOTTED_BELOW;
    for segment in segments {
        // A point between two gaps has no line; without a dot it would vanish.
        if style.opacity == 1.0 && (is_sparse || segment.len() == 1) {
            segment
                .iter()
                .for_each(|&point| canvas.dot(point, colour, 2.6));
        }
        if segment.len() < 2 {
            continue;
        }
        match style.opacity == 1.0 && is_dashed(style.series) {
            true => canvas.dashed_line(segment, colour),
            false => canvas.line(segment, colour, style.opacity, style.width),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: &[(f64, f64)]) -> LineChart {
        let mut chart = LineChart::new("Loss", "step", Quantity::new("loss").unit("nats"));
        chart.series(Series::new("train", points.iter().copied()));
        chart
    }

    #[test]
    fn a_line_is_drawn_in_both_sizes() {
        let alone = chart(&[(0.0, 1.0), (1.0, 0.5)]).html(true);
        assert_eq!(alone.matches("<svg").count(), 2);
        assert!(alone.contains("train <b>0.5<span class=\"unit\">&nbsp;nats</span></b>"));
        let paired = chart(&[(0.0, 1.0), (1.0, 0.5)]).html(false);
        assert_eq!(paired.matches("<svg").count(), 1);
        assert_eq!(paired.matches("stroke=\"#3B6FA0\"").count(), 1, "{paired}");
    }

    #[test]
    fn a_chart_can_stand_in_its_own_file() {
        let svg = chart(&[(0.0, 1.0), (1.0, 0.5)]).svg().expect("two points");
        for part in ["Loss", "step", "loss (nats)", "train", "xmlns"] {
            assert!(svg.contains(part), "{part} is not in {svg}");
        }
        assert!(chart(&[]).svg().is_none());
    }

    #[test]
    fn nan_leaves_a_gap_and_is_reported() {
        let html = chart(&[
            (0.0, 1.0),
            (1.0, 2.0),
            (2.0, f64::NAN),
            (3.0, 1.0),
            (4.0, f64::INFINITY),
        ])
        .html(false);
        assert!(html.contains("train: 2 of 5 points are not finite and not drawn."));
        assert!(
            html.contains("<b>∞"),
            "the legend shows how the run ended: {html}"
        );
        assert!(!html.contains("NaN,") && !html.contains("inf,"));
        assert_eq!(html.matches("<circle").count(), 3);
    }

    #[test]
    fn nothing_to_draw_is_said() {
        for points in [&[][..], &[(0.0, f64::NAN)], &[(f64::NAN, 1.0)]] {
            let html = chart(points).html(true);
            assert!(
                html.contains("No values to draw.") && !html.contains("<svg"),
                "{html}"
            );
        }
        let bare = LineChart::new("Nothing", "step", "loss").html(true);
        assert!(bare.contains("No values to draw."));
    }

    #[test]
    fn log_axes_leave_out_zero() {
        let html = chart(&[(0.0, 0.0), (1.0, 0.1), (2.0, 10.0)])
            .log_y()
            .html(false);
        assert!(html.contains("1 of 3 points are not finite or not positive"));
    }

    #[test]
    fn marks_outside_the_range_are_left_out() {
        let mut chart = chart(&[(0.0, 1.0), (10.0, 2.0)]);
        chart.mark(5.0, "inside").mark(50.0, "outside");
        let html = chart.html(false);
        assert!(html.contains("inside") && !html.contains("outside"));
    }
}
