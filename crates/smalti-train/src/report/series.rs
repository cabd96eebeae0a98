//! The series of a line chart: points, their moving average, and what of them is drawn.
//!
//! Smoothing is the exponential moving average with the start-up bias divided out (as in Adam, Kingma and Ba 2015,
//! section 3): `s = w·s + (1 − w)·y`, shown `s / (1 − wⁿ)`; values that are not finite pass through and leave the sum alone.
//!
//! Long series are thinned to the first, lowest, highest and last point of each pixel column, which draws the same
//! picture from a hundredth of the points.

use super::axis::Axis;

/// A named series of `(x, y)` points, in the order in which they are joined.
#[derive(Debug, Clone)]
pub struct Series {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
    pub(super) smoothing: Option<f64>,
}

impl Series {
    /// A series; points need not be finite.
    pub fn new(name: impl Into<String>, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        Self {
            name: name.into(),
            points: points.into_iter().collect(),
            smoothing: None,
        }
    }

    /// Draws a moving average over the faint raw values; `weight` in `0..1` is the weight of the past, 0.98 averages
    /// over about 50 points.
    ///
    /// # Panics
    ///
    /// When `weight` is not in `0..1`.
    pub fn smoothed(mut self, weight: f64) -> Self {
        assert!(
            (0.0..1.0).contains(&weight),
            "series {:?}: smoothing weight {weight} is not in 0..1",
            self.name
        );
        self.smoothing = Some(weight);
        self
    }

    /// The line that stands for the series: the average, or the points themselves.
    pub(super) fn main_line(&self) -> Vec<(f64, f64)> {
        let Some(weight) = self.smoothing else {
            return self.points.clone();
        };
        let (mut sum, mut total_weight) = (0.0, 0.0);
        let average = |&(x, y): &(f64, f64)| {
            if !y.is_finite() {
                return (x, y);
            }
            sum = weight * sum + (1.0 - weight) * y;
            total_weight = weight * total_weight + (1.0 - weight);
            (x, sum / total_weight)
        };
        self.points.iter().map(average).collect()
    }
}

/// Axis positions of the points, cut at those that cannot be drawn, each run thinned to the pixel columns.
pub(super) fn segments(
    points: &[(f64, f64)],
    x_axis: &Axis,
    y_axis: &Axis,
    columns: u32,
) -> Vec<Vec<(f64, f64)>> {
    let placed: Vec<Option<(f64, f64)>> = points
        .iter()
        .map(|&(x, y)| Some((x_axis.position(x)?, y_axis.position(y)?)))
        .collect();
    placed
        .split(Option::is_none)
        .filter(|run| !run.is_empty())
        .map(|run| thinned(&run.iter().flatten().copied().collect::<Vec<_>>(), columns))
        .collect()
}

/// First, lowest, highest and last point of each stretch of neighbours in one pixel column.
fn thinned(points: &[(f64, f64)], columns: u32) -> Vec<(f64, f64)> {
    let column = |point: &(f64, f64)| (point.0 * f64::from(columns)) as u32;
    let mut kept = Vec::new();
    for stretch in points.chunk_by(|left, right| column(left) == column(right)) {
        if stretch.len() <= 4 {
            kept.extend_from_slice(stretch);
            continue;
        }
        let by_height =
            |left: &&usize, right: &&usize| stretch[**left].1.total_cmp(&stretch[**right].1);
        let indices: Vec<usize> = (0..stretch.len()).collect();
        let lowest = *indices
            .iter()
            .min_by(by_height)
            .expect("a stretch has points");
        let highest = *indices
            .iter()
            .max_by(by_height)
            .expect("a stretch has points");
        let mut chosen = vec![0, lowest, highest, stretch.len() - 1];
        chosen.sort_unstable();
        chosen.dedup();
        kept.extend(chosen.into_iter().map(|index| stretch[index]));
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_has_no_start_up_bias() {
        let series = Series::new("constant", (0..5).map(|x| (f64::from(x), 3.0))).smoothed(0.9);
        assert!(
            series
                .main_line()
                .iter()
                .all(|point| (point.1 - 3.0).abs() < 1e-12)
        );
        // 0.5·1 + 0.25·0 over 0.5 + 0.25.
        let two = Series::new("two", [(0.0, 0.0), (1.0, 1.0)]).smoothed(0.5);
        assert!((two.main_line()[1].1 - 2.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn thinning_keeps_the_extremes() {
        let mut points: Vec<(f64, f64)> = (0..100_000)
            .map(|index| (f64::from(index) / 1e5, 0.5))
            .collect();
        points[54_321].1 = 1.0;
        points[54_322].1 = 0.0;
        let kept = thinned(&points, 400);
        assert!(kept.len() <= 1_600, "{} points", kept.len());
        assert!(kept.contains(&points[54_321]) && kept.contains(&points[54_322]));
        assert_eq!((kept[0], kept[kept.len() - 1]), (points[0], points[99_999]));
    }

    #[test]
    #[should_panic(expected = "not in 0..1")]
    fn smoothing_by_one_is_refused() {
        let _ = Series::new("frozen", []).smoothed(1.0);
    }
}
