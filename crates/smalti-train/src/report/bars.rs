//! Bar charts of named things: one horizontal bar a name, its value beside it.
//!
//! Drawn with HTML and CSS alone, so that names of any length wrap and the bars take whatever width is left. Bars start at
//! zero; negative values run to the left of it.

use super::{
    html::escape,
    value::{Quantity, Value},
};

/// A chart of horizontal bars.
#[derive(Debug, Clone)]
pub struct BarChart {
    title: String,
    quantity: Quantity,
    bars: Vec<(String, Value)>,
}

impl BarChart {
    /// An empty chart of this quantity.
    pub fn new(title: impl Into<String>, quantity: impl Into<Quantity>) -> Self {
        Self {
            title: title.into(),
            quantity: quantity.into(),
            bars: Vec::new(),
        }
    }

    /// Adds a bar. Words, missing values and what is not finite stand as text without a bar.
    pub fn bar(&mut self, name: impl Into<String>, value: Value) -> &mut Self {
        self.bars.push((name.into(), value));
        self
    }

    pub(super) fn html(&self) -> String {
        let mut html = format!(
            "<figure class=\"chart\">\n<h3>{}</h3>\n",
            escape(&self.title)
        );
        html += &format!("<p class=\"axis\">{}</p>\n", self.quantity.html());
        if self.bars.is_empty() {
            return html + "<p class=\"empty\">No values to draw.</p>\n</figure>\n";
        }
        let numbers = || self.bars.iter().filter_map(|(_, value)| finite(value));
        let (low, high) = (numbers().fold(0.0, f64::min), numbers().fold(0.0, f64::max));
        html += "<dl class=\"bars\">\n";
        for (name, value) in &self.bars {
            let (left, width) =
                finite(value).map_or((0.0, 0.0), |number| extent(number, low, high));
            html += &format!(
                "<div><dt>{}</dt><dd><span class=\"track\"><i style=\"margin-left:{left:.2}%;width:{width:.2}%\"></i></span>\
                 <b>{}</b></dd></div>\n",
                escape(name),
                value.html()
            );
        }
        html + "</dl>\n</figure>\n"
    }
}

fn finite(value: &Value) -> Option<f64> {
    value.as_f64().filter(|number| number.is_finite())
}

/// Where the bar from zero to `number` begins and how long it is, in percent of the track from `low` to `high`.
fn extent(number: f64, low: f64, high: f64) -> (f64, f64) {
    // Halves, because the difference of two finite numbers may overflow.
    let range = high / 2.0 - low / 2.0;
    if range <= 0.0 {
        return (0.0, 0.0);
    }
    let share = |value: f64| (value / 2.0 - low / 2.0) / range * 100.0;
    let (zero, end) = (share(0.0), share(number));
    (zero.min(end), (end - zero).abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_shares_of_the_largest() {
        let mut chart = BarChart::new("Time", Quantity::new("time").unit("ms"));
        chart
            .bar("encode <8>", Value::number(50.0, 1))
            .bar("decode", Value::number(200.0, 1));
        let html = chart.html();
        assert!(html.contains("margin-left:0.00%;width:25.00%") && html.contains("width:100.00%"));
        assert!(
            html.contains("<dt>encode &lt;8&gt;</dt>")
                && html.contains("50.0")
                && html.contains("200.0")
        );
    }

    #[test]
    fn negative_bars_run_left_from_zero() {
        assert_eq!(extent(-1.0, -1.0, 3.0), (0.0, 25.0));
        assert_eq!(extent(3.0, -1.0, 3.0), (25.0, 75.0));
        assert_eq!(extent(f64::MAX, -f64::MAX, f64::MAX), (50.0, 50.0));
    }

    #[test]
    fn what_has_no_length_stands_as_text() {
        let mut chart = BarChart::new("Odd", "x");
        chart
            .bar("a", Value::number(f64::NAN, 1))
            .bar("b", Value::missing())
            .bar("c", Value::number(0.0, 1));
        let html = chart.html();
        assert_eq!(html.matches("width:0.00%").count(), 3);
        assert!(html.contains("<b>NaN</b>") && html.contains("<b>–</b>"));
        assert!(
            BarChart::new("None", "x")
                .html()
                .contains("No values to draw.")
        );
    }
}
