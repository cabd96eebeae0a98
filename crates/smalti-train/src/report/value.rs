//! Typed values and their units: what cards, tables, captions and legends print.
//!
//! A [`Value`] knows how it is written (a count, a number with fixed decimals, a share, a size, a duration), so that the
//! same quantity looks the same everywhere in a report. Thousands are grouped with commas, digits are ASCII: numbers can
//! be copied into a spreadsheet. What is not finite is written as `NaN` or `∞`, never hidden.

use super::html::escape;

/// A name and the unit that its numbers are in: an axis, a table column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quantity {
    pub(super) name: String,
    pub(super) unit: String,
}

impl Quantity {
    /// A quantity without a unit, such as "step" or "codes used".
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            unit: String::new(),
        }
    }

    /// Sets the unit, such as "dB".
    pub fn unit(mut self, unit: impl Into<String>) -> Self {
        self.unit = unit.into();
        self
    }

    /// "PSNR (dB)", or the bare name where there is no unit.
    pub(super) fn html(&self) -> String {
        if self.unit.is_empty() {
            escape(&self.name)
        } else {
            format!(
                "{} <span class=\"unit\">({})</span>",
                escape(&self.name),
                escape(&self.unit)
            )
        }
    }

    /// The same in plain text.
    pub(super) fn plain(&self) -> String {
        match self.unit.is_empty() {
            true => self.name.clone(),
            false => format!("{} ({})", self.name, self.unit),
        }
    }
}

impl From<&str> for Quantity {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

/// One value of a card, a table cell or a caption.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    form: Form,
    unit: String,
}

#[derive(Debug, Clone, PartialEq)]
enum Form {
    Text(String),
    Count(u64),
    Fixed { value: f64, decimals: usize },
    Significant { value: f64, digits: usize },
    Percent { fraction: f64, decimals: usize },
    Bytes(u64),
    Seconds(f64),
    Missing,
}

impl Value {
    /// Words.
    pub fn text(text: impl Into<String>) -> Self {
        Form::Text(text.into()).into()
    }

    /// A whole number: "16,384".
    pub fn count(count: u64) -> Self {
        Form::Count(count).into()
    }

    /// A number with a fixed number of decimals: "24.13".
    pub fn number(value: f64, decimals: usize) -> Self {
        Form::Fixed { value, decimals }.into()
    }

    /// A number with so many significant digits, for quantities whose size is not known beforehand: "0.01234", "3.2e-7".
    pub fn significant(value: f64, digits: usize) -> Self {
        Form::Significant { value, digits }.into()
    }

    /// A share of one, written in percent: `percent(0.973, 1)` is "97.3%".
    pub fn percent(fraction: f64, decimals: usize) -> Self {
        Form::Percent { fraction, decimals }.into()
    }

    /// A size in bytes: "12.3 MiB".
    pub fn bytes(bytes: u64) -> Self {
        Form::Bytes(bytes).into()
    }

    /// A duration: "850 ms", "4.2 s", "4 min 12 s", "1 h 23 min".
    pub fn seconds(seconds: f64) -> Self {
        Form::Seconds(seconds).into()
    }

    /// No value; drawn as a dash.
    pub fn missing() -> Self {
        Form::Missing.into()
    }

    /// Sets the unit that follows the number. A table column has its own unit; give it there.
    pub fn unit(mut self, unit: impl Into<String>) -> Self {
        self.unit = unit.into();
        self
    }

    /// The number, for comparing cells and for the length of a bar; nothing for words and missing values.
    pub(super) fn as_f64(&self) -> Option<f64> {
        match self.form {
            Form::Text(_) | Form::Missing => None,
            Form::Count(count) | Form::Bytes(count) => Some(count as f64),
            Form::Fixed { value, .. } | Form::Significant { value, .. } => Some(value),
            Form::Percent { fraction, .. } => Some(fraction),
            Form::Seconds(seconds) => Some(seconds),
        }
    }

    /// Whether the value is words.
    pub(super) fn is_text(&self) -> bool {
        matches!(self.form, Form::Text(_))
    }

    /// The value with its unit as HTML.
    pub(super) fn html(&self) -> String {
        let (number, own_unit) = self.parts();
        let unit = if self.unit.is_empty() {
            own_unit
        } else {
            &self.unit
        };
        if unit.is_empty() {
            escape(&number)
        } else {
            format!(
                "{}<span class=\"unit\">&nbsp;{}</span>",
                escape(&number),
                escape(unit)
            )
        }
    }

    /// The written number, and the unit that belongs to its form.
    fn parts(&self) -> (String, &'static str) {
        match &self.form {
            Form::Text(text) => (text.clone(), ""),
            Form::Count(count) => (group_thousands(&count.to_string()), ""),
            Form::Fixed { value, decimals } => (fixed(*value, *decimals), ""),
            Form::Significant { value, digits } => (significant(*value, *digits), ""),
            Form::Percent { fraction, decimals } => {
                (format!("{}%", fixed(fraction * 100.0, *decimals)), "")
            }
            Form::Bytes(bytes) => byte_size(*bytes),
            Form::Seconds(seconds) => duration(*seconds),
            Form::Missing => ("–".to_owned(), ""),
        }
    }
}

impl From<Form> for Value {
    fn from(form: Form) -> Self {
        Self {
            form,
            unit: String::new(),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

impl From<u64> for Value {
    fn from(count: u64) -> Self {
        Self::count(count)
    }
}

impl From<usize> for Value {
    fn from(count: usize) -> Self {
        Self::count(count as u64)
    }
}

/// Writes with fixed decimals and grouped thousands; from 1e15 on in scientific notation.
pub(super) fn fixed(value: f64, decimals: usize) -> String {
    if let Some(word) = not_finite(value) {
        return word.to_owned();
    }
    if value.abs() >= 1e15 {
        return format!("{value:.3e}");
    }
    let written = format!("{value:.decimals$}");
    // Rounding gives "-0.00" for small negative numbers.
    let is_zero = written
        .chars()
        .all(|character| matches!(character, '-' | '0' | '.'));
    group_thousands(if is_zero {
        written.trim_start_matches('-')
    } else {
        &written
    })
}

/// Writes with so many significant digits, without trailing zeros; very small and very large ones scientifically.
pub(super) fn significant(value: f64, digits: usize) -> String {
    if let Some(word) = not_finite(value) {
        return word.to_owned();
    }
    if value == 0.0 {
        return "0".to_owned();
    }
    let (_, exponent) = rounded(value, digits);
    if (-4..7).contains(&exponent) {
        let decimals = (digits as i32 - 1 - exponent).max(0) as usize;
        trim_zeros(&fixed(value, decimals)).to_owned()
    } else {
        scientific(value, digits)
    }
}

/// Writes a finite number as "2.5e-4", without trailing zeros.
pub(super) fn scientific(value: f64, digits: usize) -> String {
    let (mantissa, exponent) = rounded(value, digits);
    format!("{}e{exponent}", trim_zeros(&mantissa))
}

/// Mantissa and exponent of a finite number after rounding to so many digits, at least one.
fn rounded(value: f64, digits: usize) -> (String, i32) {
    let written = format!("{:.*e}", digits.max(1) - 1, value);
    let (mantissa, exponent) = written
        .split_once('e')
        .expect("the e format has an exponent");
    (
        mantissa.to_owned(),
        exponent.parse().expect("the exponent is a whole number"),
    )
}

fn trim_zeros(written: &str) -> &str {
    if written.contains('.') {
        written.trim_end_matches('0').trim_end_matches('.')
    } else {
        written
    }
}

fn not_finite(value: f64) -> Option<&'static str> {
    match value {
        _ if value.is_nan() => Some("NaN"),
        f64::INFINITY => Some("∞"),
        f64::NEG_INFINITY => Some("-∞"),
        _ => None,
    }
}

/// "-1234567.5" -> "-1,234,567.5".
fn group_thousands(written: &str) -> String {
    let (sign, digits) = written
        .strip_prefix('-')
        .map_or(("", written), |digits| ("-", digits));
    let (whole, decimals) = digits
        .find('.')
        .map_or((digits, ""), |dot| digits.split_at(dot));
    let mut grouped = String::from(sign);
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + decimals
}

fn byte_size(bytes: u64) -> (String, &'static str) {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut size = bytes as f64;
    let mut unit = 0;
    // 1023.95 would be written as "1024.0".
    while size >= 1023.95 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    (fixed(size, usize::from(unit > 0)), UNITS[unit])
}

fn duration(seconds: f64) -> (String, &'static str) {
    if !seconds.is_finite() || seconds < 0.0 {
        return (fixed(seconds, 1), "s");
    }
    // The bounds are where rounding would carry into the next unit.
    if seconds < 0.9995 {
        return (significant(seconds * 1e3, 3), "ms");
    }
    if seconds < 59.95 {
        return (fixed(seconds, 1), "s");
    }
    let whole = seconds.round();
    let (minutes, hours) = ((whole / 60.0).floor(), (whole / 3600.0).floor());
    if hours < 1.0 {
        (format!("{minutes} min {} s", whole - minutes * 60.0), "")
    } else {
        (
            format!("{} h {} min", fixed(hours, 0), minutes - hours * 60.0),
            "",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_decimals_and_groups() {
        assert_eq!(fixed(24.128, 2), "24.13");
        assert_eq!(fixed(-1_234_567.5, 1), "-1,234,567.5");
        assert_eq!(fixed(-0.001, 2), "0.00");
        assert_eq!(fixed(999.6, 0), "1,000");
        assert_eq!(fixed(2e18, 0), "2.000e18");
        assert_eq!(Value::count(16_384).html(), "16,384");
        assert_eq!(Value::percent(0.97345, 1).html(), "97.3%");
    }

    #[test]
    fn significant_digits_follow_the_size() {
        assert_eq!(significant(0.012345, 3), "0.0123");
        assert_eq!(significant(0.5, 4), "0.5");
        assert_eq!(significant(3.2e-7, 3), "3.2e-7");
        assert_eq!(significant(12_345.678, 4), "12,346");
        assert_eq!(significant(9.9996, 3), "10");
        assert_eq!(significant(1.5e9, 3), "1.5e9");
        assert_eq!(significant(0.0, 3), "0");
    }

    #[test]
    fn what_is_not_finite_is_said() {
        assert_eq!(fixed(f64::NAN, 2), "NaN");
        assert_eq!(significant(f64::INFINITY, 2), "∞");
        assert_eq!(Value::number(f64::NEG_INFINITY, 1).html(), "-∞");
        assert_eq!(Value::missing().html(), "–");
    }

    #[test]
    fn sizes_and_durations_pick_their_unit() {
        let html = |value: Value| {
            value
                .html()
                .replace("<span class=\"unit\">&nbsp;", " ")
                .replace("</span>", "")
        };
        assert_eq!(html(Value::bytes(512)), "512 B");
        assert_eq!(html(Value::bytes(12_897_484)), "12.3 MiB");
        assert_eq!(html(Value::bytes(1_048_575)), "1.0 MiB");
        assert_eq!(html(Value::seconds(0.0123)), "12.3 ms");
        assert_eq!(html(Value::seconds(4.25)), "4.2 s");
        assert_eq!(html(Value::seconds(59.99)), "1 min 0 s");
        assert_eq!(html(Value::seconds(252.0)), "4 min 12 s");
        assert_eq!(html(Value::seconds(4_985.0)), "1 h 23 min");
        assert_eq!(html(Value::number(24.1, 1).unit("dB")), "24.1 dB");
    }

    #[test]
    fn words_and_units_are_escaped() {
        assert_eq!(Value::text("<b>").html(), "&lt;b&gt;");
        assert!(Value::count(1).unit("a<b").html().contains("a&lt;b"));
        assert!(
            Quantity::new("x<y")
                .unit("&")
                .html()
                .starts_with("x&lt;y <span class=\"unit\">(&amp;)")
        );
    }
}
