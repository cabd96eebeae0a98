//! Axes: the range of a chart, its scale, and ticks at round values.
//!
//! An [`Axis`] maps data to `0..=1`; the drawing below it never sees the data's size, so that values of 1e-30 or 1e100
//! draw like any other. Ticks stand at 1, 2 or 5 times a power of ten; on a logarithmic axis at powers of ten, with
//! 2 and 5 between them when the range is short, and at evenly spaced values when it is shorter still.

use super::value::{fixed, scientific, significant};

/// How values are laid out along an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    Linear,
    /// Base 10. Values that are not positive have no place.
    Log,
}

/// What an axis is fitted with.
#[derive(Debug, Clone, Copy)]
pub(super) struct AxisStyle {
    pub(super) scale: Scale,
    /// Share of the range left free at either end; never reaches from positive values below zero.
    pub(super) padding: f64,
    /// About how many ticks are wanted.
    pub(super) ticks: usize,
    /// A linear axis starts at zero: for bars, whose length is their value.
    pub(super) from_zero: bool,
    /// Where all values are whole, so are the ticks: steps, codes. There is no step 0.5.
    pub(super) whole: bool,
}

/// A tick: where it stands in `0..=1`, and what it says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tick {
    pub(super) position: f64,
    pub(super) label: String,
}

/// A fitted axis.
#[derive(Debug, Clone)]
pub(super) struct Axis {
    scale: Scale,
    // Both in the scale's own unit: on a logarithmic axis, base-10 logarithms.
    low: f64,
    high: f64,
    ticks: Vec<Tick>,
}

/// Beyond this the difference of two values may overflow; no measured quantity is there.
const LARGEST: f64 = 1e150;

impl Scale {
    /// Whether a value has a place on such an axis.
    pub(super) fn can_draw(self, value: f64) -> bool {
        value.is_finite() && value.abs() < LARGEST && (self == Scale::Linear || value > 0.0)
    }

    fn forward(self, value: f64) -> f64 {
        match self {
            Scale::Linear => value,
            Scale::Log => value.log10(),
        }
    }
}

impl Axis {
    /// Fits an axis to the values that can be drawn; nothing when there are none.
    pub(super) fn fit(values: impl IntoIterator<Item = f64>, style: AxisStyle) -> Option<Self> {
        let (mut smallest, mut largest, mut all_whole) = (f64::INFINITY, f64::NEG_INFINITY, true);
        for value in values
            .into_iter()
            .filter(|&value| style.scale.can_draw(value))
        {
            smallest = smallest.min(value);
            largest = largest.max(value);
            all_whole &= value.fract() == 0.0;
        }
        if smallest > largest {
            return None;
        }
        if style.from_zero && style.scale == Scale::Linear {
            (smallest, largest) = (smallest.min(0.0), largest.max(0.0));
        }
        let (low, high) = widen(
            style.scale.forward(smallest),
            style.scale.forward(largest),
            smallest,
            style,
        );
        let mut axis = Self {
            scale: style.scale,
            low,
            high,
            ticks: Vec::new(),
        };
        axis.ticks = match style.scale {
            Scale::Linear => linear_ticks(low, high, style.ticks, style.whole && all_whole),
            Scale::Log => log_ticks(low, high, style.ticks),
        }
        .into_iter()
        .filter_map(|(value, label)| {
            Some(Tick {
                position: axis.position(value)?,
                label,
            })
        })
        .collect();
        Some(axis)
    }

    /// Where a value stands, 0 to 1 from the axis's low to its high end; nothing for what cannot be drawn.
    pub(super) fn position(&self, value: f64) -> Option<f64> {
        self.scale.can_draw(value).then(|| {
            ((self.scale.forward(value) - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
        })
    }

    /// Whether a value lies between the two ends.
    pub(super) fn contains(&self, value: f64) -> bool {
        self.scale.can_draw(value) && (self.low..=self.high).contains(&self.scale.forward(value))
    }

    pub(super) fn ticks(&self) -> &[Tick] {
        &self.ticks
    }
}

/// Adds the free room, and opens a range that is a single value.
fn widen(low: f64, high: f64, smallest: f64, style: AxisStyle) -> (f64, f64) {
    let size = low.abs().max(high.abs());
    // A range below the resolution of the numbers themselves counts as one value.
    if high - low <= size * 1e-12 {
        let room = match style.scale {
            Scale::Log => 0.5,
            Scale::Linear if size == 0.0 => 1.0,
            Scale::Linear => size * 0.1,
        };
        return (low - room, high + room);
    }
    let room = (high - low) * style.padding;
    match style.scale {
        Scale::Log => (low - room, high + room),
        Scale::Linear => (
            if smallest >= 0.0 {
                (low - room).max(0.0)
            } else {
                low - room
            },
            if high <= 0.0 {
                (high + room).min(0.0)
            } else {
                high + room
            },
        ),
    }
}

/// The step of 1, 2, 5 times a power of ten that comes closest to the wanted number of ticks.
fn round_step(span: f64, wanted: usize) -> f64 {
    let raw = span / wanted.max(1) as f64;
    let magnitude = 10f64.powf(raw.log10().floor());
    // The bounds are the geometric means of neighbouring steps.
    let factor = match raw / magnitude {
        ratio if ratio < 2f64.sqrt() => 1.0,
        ratio if ratio < 10f64.sqrt() => 2.0,
        ratio if ratio < 50f64.sqrt() => 5.0,
        _ => 10.0,
    };
    factor * magnitude
}

fn linear_ticks(low: f64, high: f64, wanted: usize, whole: bool) -> Vec<(f64, String)> {
    let mut step = round_step(high - low, wanted);
    if whole {
        step = step.max(1.0);
    }
    // A millionth of a step is allowed for the rounding of the division.
    let (first, last) = ((low / step - 1e-6).ceil(), (high / step + 1e-6).floor());
    let count = (last - first) as usize + 1;
    let largest = low.abs().max(high.abs());
    (0..count)
        .map(|index| (first + index as f64) * step)
        .map(|value| (value, linear_label(value, step, largest)))
        .collect()
}

fn log_ticks(low: f64, high: f64, wanted: usize) -> Vec<(f64, String)> {
    let (first, last) = (low.ceil() as i32, high.floor() as i32);
    let decades = (last - first + 1).max(0) as usize;
    let labelled = |value: f64| (value, short(value));
    if decades >= 3 {
        let stride = decades.div_ceil(wanted.max(1) + 2);
        return (first..=last)
            .step_by(stride)
            .map(|exponent| labelled(10f64.powi(exponent)))
            .collect();
    }
    let between: Vec<_> = (first - 1..=last)
        .flat_map(|exponent| [1.0, 2.0, 5.0].map(|factor| factor * 10f64.powi(exponent)))
        .filter(|value| (low..=high).contains(&value.log10()))
        .map(labelled)
        .collect();
    if between.len() >= 3 {
        between
    } else {
        linear_ticks(10f64.powf(low), 10f64.powf(high), wanted, false)
    }
}

const PREFIXES: [(f64, &str); 4] = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];

/// A tick of an evenly spaced axis: all labels of one axis have the same decimals and the same prefix.
fn linear_label(value: f64, step: f64, largest: f64) -> String {
    // Sums of steps miss zero by a rounding error.
    if value.abs() < step * 1e-6 {
        return "0".to_owned();
    }
    if !(1e-3..1e15).contains(&largest) {
        let digits = (largest.log10().floor() - step.log10().floor()).max(0.0) as usize + 1;
        return scientific(value, digits);
    }
    let (divisor, prefix) = PREFIXES
        .into_iter()
        .find(|(divisor, _)| largest >= 1e4 && largest >= *divisor)
        .unwrap_or((1.0, ""));
    let decimals = (-(step / divisor * 1.000_001).log10().floor()).max(0.0) as usize;
    format!("{}{prefix}", fixed(value / divisor, decimals))
}

/// A tick of a logarithmic axis: "0.001", "50", "20k", "1e-5".
fn short(value: f64) -> String {
    let (divisor, prefix) = PREFIXES
        .into_iter()
        .find(|(divisor, _)| value >= 1e4 && value >= *divisor * 0.999_999)
        .unwrap_or((1.0, ""));
    if (0.000_999..1e15).contains(&value) {
        format!("{}{prefix}", significant(value / divisor, 3))
    } else {
        scientific(value, 3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINEAR: AxisStyle = AxisStyle {
        scale: Scale::Linear,
        padding: 0.0,
        ticks: 5,
        from_zero: false,
        whole: false,
    };
    const LOG: AxisStyle = AxisStyle {
        scale: Scale::Log,
        ..LINEAR
    };

    fn labels(values: &[f64], style: AxisStyle) -> Vec<String> {
        let axis = Axis::fit(values.iter().copied(), style).expect("drawable values");
        axis.ticks().iter().map(|tick| tick.label.clone()).collect()
    }

    #[test]
    fn linear_ticks_are_round() {
        assert_eq!(
            labels(&[0.0, 0.97], LINEAR),
            ["0", "0.2", "0.4", "0.6", "0.8"]
        );
        assert_eq!(
            labels(&[0.0, 50_000.0], LINEAR),
            ["0", "10k", "20k", "30k", "40k", "50k"]
        );
        assert_eq!(
            labels(&[-1.0, 1.0], LINEAR),
            ["-1.0", "-0.5", "0", "0.5", "1.0"]
        );
        assert_eq!(
            labels(&[0.0, 2e-4], LINEAR),
            ["0", "5e-5", "1e-4", "1.5e-4", "2e-4"]
        );
        assert_eq!(
            labels(&[1e-5, 3e-5], LINEAR),
            ["1e-5", "1.5e-5", "2e-5", "2.5e-5", "3e-5"]
        );
    }

    #[test]
    fn whole_numbers_get_whole_ticks() {
        let steps = AxisStyle {
            whole: true,
            ..LINEAR
        };
        assert_eq!(labels(&[0.0, 1.0, 2.0], steps), ["0", "1", "2"]);
        assert_eq!(
            labels(&[0.0, 1.0, 2.5], steps),
            ["0", "0.5", "1.0", "1.5", "2.0", "2.5"]
        );
    }

    #[test]
    fn log_ticks_follow_the_range() {
        assert_eq!(
            labels(&[0.001, 1_000.0], LOG),
            ["0.001", "0.01", "0.1", "1", "10", "100", "1,000"]
        );
        assert_eq!(labels(&[1e-6, 1e-4], LOG), ["1e-6", "1e-5", "1e-4"]);
        assert_eq!(labels(&[0.9, 30.0], LOG), ["1", "2", "5", "10", "20"]);
        assert_eq!(labels(&[0.61, 0.69], LOG), ["0.62", "0.64", "0.66", "0.68"]);
        assert_eq!(labels(&[10_000.0, 2e6], LOG), ["10k", "100k", "1M"]);
    }

    #[test]
    fn positions_run_from_low_to_high() {
        let axis = Axis::fit([10.0, 1_000.0], LOG).expect("drawable values");
        assert_eq!(axis.position(10.0), Some(0.0));
        assert!((axis.position(100.0).expect("positive") - 0.5).abs() < 1e-12);
        assert_eq!(axis.position(0.0), None);
        assert_eq!(axis.position(f64::NAN), None);
        assert!(!axis.contains(1.0) && axis.contains(20.0));
    }

    #[test]
    fn nothing_to_draw_is_no_axis() {
        assert!(Axis::fit([], LINEAR).is_none());
        assert!(Axis::fit([f64::NAN, f64::INFINITY, 1e200], LINEAR).is_none());
        assert!(Axis::fit([0.0, -1.0], LOG).is_none());
    }

    #[test]
    fn any_range_has_finite_ticks() {
        let ranges = [
            (0.0, 0.0),
            (7.0, 7.0),
            (-3.0, -3.0),
            (1e-300, 2e-300),
            (-1e149, 1e149),
            (1e15, 1e15 + 0.1),
            (5.0, 5.0 + 1e-9),
        ];
        for (low, high) in ranges {
            let axis = Axis::fit([low, high], LINEAR).expect("drawable values");
            assert!(
                !axis.ticks().is_empty() && axis.ticks().len() < 20,
                "{low}..{high}: {:?}",
                axis.ticks()
            );
            assert!(
                axis.ticks().iter().all(|tick| tick.position.is_finite()),
                "{low}..{high}: {:?}",
                axis.ticks()
            );
        }
    }

    #[test]
    fn room_does_not_cross_zero_and_bars_start_there() {
        let padded = AxisStyle {
            padding: 0.1,
            ..LINEAR
        };
        assert_eq!(
            Axis::fit([0.0, 1.0], padded)
                .expect("drawable")
                .position(0.0),
            Some(0.0)
        );
        let bars = AxisStyle {
            from_zero: true,
            ..LINEAR
        };
        assert_eq!(
            Axis::fit([5.0, 10.0], bars)
                .expect("drawable")
                .position(5.0),
            Some(0.5)
        );
    }
}
