//! The drawing that all charts share: an SVG with a quiet grid, tick labels, and a theme that follows the page.
//!
//! plotters draws on whole pixels. The drawing is therefore made [`SCALE`] times as large as it is shown and scaled by
//! the `viewBox`, which keeps curves smooth. Colours are written as fixed attributes (so a copied SVG is right by itself)
//! and style.css re-colours exactly these attributes with the page's variables, which is how dark mode works without
//! drawing twice.

use super::{
    axis::{Axis, Tick},
    html::{escape, one_line},
};
use plotters::{
    chart::ChartContext,
    coord::{
        Shift,
        ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter},
    },
    drawing::DrawingArea,
    element::{Circle, PathElement, Polygon, Rectangle},
    prelude::{Cartesian2d, ChartBuilder, IntoDrawingArea, SVGBackend},
    style::{
        Color, IntoTextStyle, RGBColor, ShapeStyle, TRANSPARENT, TextStyle,
        text_anchor::{HPos, Pos, VPos},
    },
};
use std::ops::Range;

/// Colours of the series in order of use; a chart with more series starts over with dashed lines. style.css maps each to a
/// variable.
pub(super) const SERIES_COLOURS: [RGBColor; 8] = [
    RGBColor(0x3B, 0x6F, 0xA0),
    RGBColor(0xC8, 0x75, 0x2D),
    RGBColor(0x4D, 0x8F, 0x68),
    RGBColor(0xA2, 0x52, 0x7A),
    RGBColor(0x7A, 0x6B, 0xB0),
    RGBColor(0x8A, 0x7A, 0x3F),
    RGBColor(0x3F, 0x91, 0x99),
    RGBColor(0xB0, 0x5A, 0x52),
];
const GRID: RGBColor = RGBColor(0xE4, 0xE4, 0xDF);
const BASELINE: RGBColor = RGBColor(0xB4, 0xB4, 0xAC);
const LABEL: RGBColor = RGBColor(0x6A, 0x6A, 0x64);

/// Width of a line that is to be dashed, in drawn pixels: plotters knows no dashes, so the finished drawing gets them
/// by this width, which no other line has.
const DASHED: u32 = 13;

/// Drawn pixels a shown pixel.
pub(super) const SCALE: u32 = 8;
/// Shown height of tick labels, in pixels.
const FONT_SIZE: f64 = 12.5;

/// Shown sizes of a chart. A page 390 pixels wide scales the wide one down until nothing can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    /// Across the whole page.
    Wide,
    /// One of two columns, or across a phone.
    Narrow,
}

impl Size {
    pub(super) fn pixels(self) -> (u32, u32) {
        match self {
            Size::Wide => (940, 300),
            Size::Narrow => (420, 250),
        }
    }

    /// About how many ticks fit along the horizontal axis.
    pub(super) fn horizontal_ticks(self) -> usize {
        match self {
            Size::Wide => 8,
            Size::Narrow => 4,
        }
    }
}

/// plotters' view of an axis: the positions `0..=1`, grid lines where the ticks are, and their labels.
#[derive(Clone)]
struct Positions(Vec<Tick>);

impl Ranged for Positions {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, position: &f64, (start, end): (i32, i32)) -> i32 {
        start + (f64::from(end - start) * position).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.0.iter().map(|tick| tick.position).collect()
    }

    fn range(&self) -> Range<f64> {
        0.0..1.0
    }
}

impl ValueFormatter<f64> for Positions {
    fn format_ext(&self, position: &f64) -> String {
        self.0
            .iter()
            .find(|tick| tick.position == *position)
            .map_or_else(String::new, |tick| tick.label.clone())
    }
}

type Coordinates = Cartesian2d<Positions, Positions>;

/// A chart being drawn; coordinates are axis positions, `0..=1` from the left and from the bottom.
pub(super) struct Canvas<'a, 'b> {
    chart: ChartContext<'a, SVGBackend<'b>, Coordinates>,
}

// Drawing into a string has no way to fail; a failure would be a wrong use of plotters.
const INFALLIBLE: &str = "an SVG is drawn into memory";

impl Canvas<'_, '_> {
    /// A line through positions; `opacity` 1 is solid.
    pub(super) fn line(
        &mut self,
        points: Vec<(f64, f64)>,
        colour: RGBColor,
        opacity: f64,
        width: f64,
    ) {
        let style = ShapeStyle {
            color: colour.mix(opacity),
            filled: false,
            stroke_width: scaled(width),
        };
        self.chart
            .plotting_area()
            .draw(&PathElement::new(points, style))
            .expect(INFALLIBLE);
    }

    /// A dashed line through positions, as wide as one of the main lines.
    pub(super) fn dashed_line(&mut self, points: Vec<(f64, f64)>, colour: RGBColor) {
        let style = ShapeStyle {
            color: colour.to_rgba(),
            filled: false,
            stroke_width: DASHED,
        };
        self.chart
            .plotting_area()
            .draw(&PathElement::new(points, style))
            .expect(INFALLIBLE);
    }

    /// A dot at a position.
    pub(super) fn dot(&mut self, point: (f64, f64), colour: RGBColor, radius: f64) {
        let dot = Circle::new(point, scaled(radius), colour.filled());
        self.chart.plotting_area().draw(&dot).expect(INFALLIBLE);
    }

    /// A filled rectangle between two corners.
    pub(super) fn bar(&mut self, corners: [(f64, f64); 2], colour: RGBColor) {
        let bar = Rectangle::new(corners, colour.filled());
        self.chart.plotting_area().draw(&bar).expect(INFALLIBLE);
    }

    /// A filled shape. Neighbouring bars drawn as one leave no hair lines between them.
    pub(super) fn area(&mut self, outline: Vec<(f64, f64)>, colour: RGBColor) {
        self.chart
            .plotting_area()
            .draw(&Polygon::new(outline, colour.filled()))
            .expect(INFALLIBLE);
    }

    /// A thin line over the whole height at a horizontal position, with words beside its upper end.
    pub(super) fn mark(&mut self, position: f64, words: &str, row: u32) {
        self.line(vec![(position, 0.0), (position, 1.0)], BASELINE, 1.0, 1.0);
        let (side, offset) = if position > 0.5 {
            (HPos::Right, -6)
        } else {
            (HPos::Left, 6)
        };
        let area = self.chart.plotting_area();
        let (x, y) = area.map_coordinate(&(position, 1.0));
        let down = row * (FONT_SIZE as u32 + 4) * SCALE;
        let style = label_style().pos(Pos::new(side, VPos::Top));
        // The plotting area maps to the picture's pixels; text is drawn on the area without coordinates.
        let pixels = area.strip_coord_spec();
        let (left, top) = pixels.get_base_pixel();
        pixels
            .draw_text(
                &one_line(words),
                &style,
                (x - left + offset * SCALE as i32, y - top + down as i32),
            )
            .expect(INFALLIBLE);
    }
}

fn scaled(pixels: f64) -> u32 {
    (pixels * f64::from(SCALE)).round() as u32
}

fn label_style() -> TextStyle<'static> {
    // plotters writes font sizes divided by 1.24.
    ("sans-serif", FONT_SIZE * 1.24 * f64::from(SCALE))
        .with_color(LABEL)
        .into_text_style(&(0, 0))
}

/// Draws one chart and returns it as an `<svg>` element.
///
/// `description` is what a screen reader says in its place.
pub(super) fn draw(
    axes: (&Axis, &Axis),
    size: Size,
    description: &str,
    contents: impl FnOnce(&mut Canvas<'_, '_>),
) -> String {
    let (width, height) = size.pixels();
    let class = if size == Size::Wide {
        "plot wide"
    } else {
        "plot narrow"
    };
    // The page's own <svg> needs no namespace, and its size comes from the style sheet.
    format!(
        "<svg class=\"{class}\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">\n{}</svg>\n",
        width * SCALE,
        height * SCALE,
        escape(description),
        elements(axes, size, contents)
    )
}

/// Words around a chart that stands in a file of its own.
#[derive(Debug)]
pub(super) struct Words {
    /// Above everything.
    pub(super) title: String,
    /// The horizontal axis, with its unit.
    pub(super) x: String,
    /// The vertical axis, with its unit.
    pub(super) y: String,
    /// The name of each series, in the order of the colours.
    pub(super) series: Vec<String>,
}

/// Height of a line of words around a standalone chart, in shown pixels.
const ROW: u32 = 20;
/// About the width of a letter of such words, in shown pixels.
const LETTER: f64 = FONT_SIZE * 0.56;

/// Draws one chart, wide, as an SVG file of its own: on white, with title, legend and the axes' names.
pub(super) fn standalone(
    axes: (&Axis, &Axis),
    words: &Words,
    contents: impl FnOnce(&mut Canvas<'_, '_>),
) -> String {
    let (width, chart_height) = Size::Wide.pixels();
    let mut texts = text(
        (12.0, ROW),
        "font-weight=\"bold\" fill=\"#222222\"",
        &words.title,
    );
    let (mut left, mut row) = (12.0, 2);
    for (index, name) in words.series.iter().enumerate() {
        let needed = 22.0 + name.chars().count() as f64 * LETTER + 18.0;
        if left > 12.0 && left + needed > f64::from(width) {
            (left, row) = (12.0, row + 1);
        }
        let RGBColor(red, green, blue) = SERIES_COLOURS[index % SERIES_COLOURS.len()];
        // One stroke of the whole length, or two with a gap.
        let strokes: &[(f64, f64)] = match is_dashed(index) {
            true => &[(0.0, 6.0), (10.0, 6.0)],
            false => &[(0.0, 16.0)],
        };
        for (start, length) in strokes {
            texts += &format!(
                "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"#{red:02X}{green:02X}{blue:02X}\"/>\n",
                scaled(left + start),
                (row * ROW - 6) * SCALE,
                scaled(*length),
                3 * SCALE
            );
        }
        texts += &text((left + 22.0, row * ROW), "fill=\"#222222\"", name);
        left += needed;
    }
    row += u32::from(!words.series.is_empty());
    texts += &text((12.0, row * ROW), "fill=\"#6A6A64\"", &words.y);
    let top = row * ROW + 4;
    let height = top + chart_height + ROW + 4;
    texts += &text(
        (f64::from(width) / 2.0, height - 8),
        "fill=\"#6A6A64\" text-anchor=\"middle\"",
        &words.x,
    );
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" role=\"img\" aria-label=\"{}\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#FFFFFF\"/>\n{texts}\
         <g transform=\"translate(0 {})\">\n{}</g>\n</svg>\n",
        width * SCALE,
        height * SCALE,
        escape(&words.title),
        top * SCALE,
        elements(axes, Size::Wide, contents)
    )
}

/// One line of words; its baseline stands at `y`.
fn text((x, y): (f64, u32), attributes: &str, words: &str) -> String {
    format!(
        "<text x=\"{}\" y=\"{}\" font-size=\"{}\" {attributes}>{}</text>\n",
        scaled(x),
        y * SCALE,
        scaled(FONT_SIZE),
        escape(&one_line(words))
    )
}

/// The elements of a chart, without an `<svg>` around them.
fn elements(
    axes: (&Axis, &Axis),
    size: Size,
    contents: impl FnOnce(&mut Canvas<'_, '_>),
) -> String {
    let (width, height) = size.pixels();
    let mut drawing = String::new();
    {
        let backend = SVGBackend::with_string(&mut drawing, (width * SCALE, height * SCALE));
        let area = backend.into_drawing_area();
        let mut canvas = Canvas {
            chart: grid(&area, axes),
        };
        contents(&mut canvas);
        canvas.line(vec![(0.0, 0.0), (1.0, 0.0)], BASELINE, 1.0, 1.0);
        drop(canvas);
        area.present().expect(INFALLIBLE);
    }
    let inside = drawing
        .split_once(">\n")
        .and_then(|(_, rest)| rest.rsplit_once("</svg>"))
        .map(|(inside, _)| inside)
        .expect("plotters wraps the drawing in one svg element");
    tidy(inside)
}

/// Leaves out what every element repeats and what is the default anyway; a page of charts shrinks by a third.
fn tidy(elements: &str) -> String {
    let dashes = format!(
        "stroke-width=\"{DASHED}\" stroke-dasharray=\"{} {}\"",
        scaled(6.0),
        scaled(3.0)
    );
    elements
        .replace(&format!("stroke-width=\"{DASHED}\""), &dashes)
        .replace(" opacity=\"1\"", "")
        .replace(" font-family=\"sans-serif\"", "")
        .replace(" \"/>", "\"/>")
}

fn grid<'a, 'b>(
    area: &'a DrawingArea<SVGBackend<'b>, Shift>,
    (x_axis, y_axis): (&Axis, &Axis),
) -> ChartContext<'a, SVGBackend<'b>, Coordinates> {
    let longest = y_axis
        .ticks()
        .iter()
        .map(|tick| tick.label.chars().count())
        .max()
        .unwrap_or(0);
    let mut chart = ChartBuilder::on(area)
        .margin_top(8 * SCALE)
        // Half of the last tick label stands beyond the end of the axis.
        .margin_right(18 * SCALE)
        .y_label_area_size(scaled(longest as f64 * FONT_SIZE * 0.6 + 12.0))
        .x_label_area_size(24 * SCALE)
        .build_cartesian_2d(
            Positions(x_axis.ticks().to_vec()),
            Positions(y_axis.ticks().to_vec()),
        )
        .expect(INFALLIBLE);
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(ShapeStyle {
            color: GRID.to_rgba(),
            filled: false,
            stroke_width: SCALE,
        })
        // The grid is enough; without axes there would be no labels, so they are drawn with no ink.
        .axis_style(TRANSPARENT)
        .label_style(label_style())
        .set_all_tick_mark_size(4 * SCALE)
        .draw()
        .expect(INFALLIBLE);
    chart
}

/// The number of a series' colour, as style.css names it, and whether its line is dashed.
pub(super) fn colour_class(index: usize) -> String {
    let dashed = if is_dashed(index) { " dashed" } else { "" };
    format!("series-{}{dashed}", index % SERIES_COLOURS.len() + 1)
}

/// Whether a series is dashed: every second round through the colours.
pub(super) fn is_dashed(index: usize) -> bool {
    index / SERIES_COLOURS.len() % 2 == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::axis::{AxisStyle, Scale};

    fn drawn() -> String {
        let style = AxisStyle {
            scale: Scale::Linear,
            padding: 0.0,
            ticks: 2,
            from_zero: false,
            whole: false,
        };
        let axis = Axis::fit([0.0, 1.0], style).expect("drawable values");
        draw((&axis, &axis), Size::Narrow, "a \"line\"", |canvas| {
            canvas.line(vec![(0.0, 0.0), (1.0, 1.0)], SERIES_COLOURS[0], 1.0, 2.0);
            canvas.mark(0.25, "a < b", 0);
        })
    }

    #[test]
    fn text_stays_text_and_is_escaped() {
        let svg = drawn();
        assert!(svg.contains("<text") && svg.contains("a &lt; b"));
        assert!(svg.contains("aria-label=\"a &quot;line&quot;\""));
        // Each tick twice: once at either axis.
        assert_eq!(svg.matches("\n0.5\n").count(), 2, "tick labels: {svg}");
    }

    #[test]
    fn the_ninth_line_is_dashed_and_no_other() {
        let style = AxisStyle {
            scale: Scale::Linear,
            padding: 0.0,
            ticks: 2,
            from_zero: false,
            whole: false,
        };
        let axis = Axis::fit([0.0, 1.0], style).expect("drawable values");
        let line = vec![(0.0, 0.0), (1.0, 1.0)];
        let svg = draw((&axis, &axis), Size::Narrow, "", |canvas| {
            canvas.line(line.clone(), SERIES_COLOURS[0], 1.0, 1.8);
            canvas.dashed_line(line.clone(), SERIES_COLOURS[0]);
            canvas.mark(0.25, "here", 0);
        });
        assert_eq!(svg.matches("stroke-dasharray").count(), 1, "{svg}");
        assert_eq!(colour_class(7), "series-8");
        assert_eq!(colour_class(8), "series-1 dashed");
        assert_eq!(colour_class(16), "series-1");
        assert!(include_str!("style.css").contains(".legend i.dashed"));
    }

    #[test]
    fn nothing_points_outside() {
        assert!(!drawn().contains("http"));
    }

    #[test]
    fn a_standalone_drawing_says_what_it_shows() {
        let style = AxisStyle {
            scale: Scale::Linear,
            padding: 0.0,
            ticks: 2,
            from_zero: false,
            whole: false,
        };
        let axis = Axis::fit([0.0, 1.0], style).expect("drawable values");
        let words = Words {
            title: "error & size".to_owned(),
            x: "bits".to_owned(),
            y: "share (%)".to_owned(),
            series: (0..12)
                .map(|i| format!("a series with number {i}"))
                .collect(),
        };
        let svg = standalone((&axis, &axis), &words, |canvas| canvas.mark(0.5, "here", 0));
        assert!(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\""));
        for part in ["error &amp; size", "bits", "share (%)", "number 11", "here"] {
            assert!(svg.contains(part), "{part} is not in {svg}");
        }
        // Twelve names do not fit in one line: the drawing moves down for them.
        let alone = Words {
            series: Vec::new(),
            ..words
        };
        let height = |svg: &str| {
            let (_, rest) = svg.split_once(" height=\"").expect("a height");
            rest.split('"')
                .next()
                .map(|number| number.parse::<u32>().expect("a number"))
        };
        let low = standalone((&axis, &axis), &alone, |_| {});
        assert!(height(&svg) > height(&low).map(|low| low + 2 * ROW));
        assert_eq!(svg.matches("<svg").count(), 1);
    }

    #[test]
    fn the_style_sheet_knows_every_colour() {
        let style = include_str!("style.css");
        for RGBColor(red, green, blue) in SERIES_COLOURS.into_iter().chain([GRID, BASELINE, LABEL])
        {
            let attribute = format!("=\"#{red:02X}{green:02X}{blue:02X}\"]");
            assert!(
                style.contains(&attribute),
                "style.css has no rule for {attribute}"
            );
        }
    }
}
