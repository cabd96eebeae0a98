//! Drawing one code from logits: temperature, top-k, top-p, multinomial, in this order.
//!
//! 1. divide by the temperature; NaN becomes −∞;
//! 2. top-k: keep values not below the k-th largest (ties are all kept);
//! 3. softmax over what is left;
//! 4. top-p: by falling probability, keep every code whose *preceding* cumulative probability is below
//!    p: the smallest set that reaches p, at least one code;
//! 5. renormalise and draw.
//!
//! Rows of logits are host slices; a row costs a selection, not a sort of all codes.
//!
//! Different from the published code (kakaobrain/rq-vae-transformer): NaN is dealt with before top-k,
//! so it takes no place among the k; with p = 1 nothing is cut, where a running f32 sum that reaches 1
//! early cuts the far tail there; a row without any finite logit is an error.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::masked::MaskSchedule;
use super::writing::UnmaskingOrder;

/// How codes are drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SamplingConfig {
    /// Divides the logits; 1 leaves the model's distribution.
    pub temperature: f32,
    /// Keeps the k most probable codes; absent keeps all. 1 is greedy.
    pub top_k: Option<PerDepth<usize>>,
    /// Keeps the smallest set of codes that holds this probability; absent keeps all.
    pub top_p: Option<PerDepth<f64>>,
    /// Away from what the model would write without its condition; absent: no guidance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guidance: Option<Guidance>,
    /// Passes of a generator that writes all positions at once; absent: as many as its chain has steps
    /// (diffusion), or 8 (masked).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<usize>,
    /// How far a masked generator's choice of what to keep is left to chance in the first pass; absent: 4.5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub choice_temperature: Option<f64>,
    /// How many codes the passes of a masked generator keep; absent: the cosine's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reveal: Option<MaskSchedule>,
    /// Which codes the passes of a masked generator keep; absent: by confidence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<UnmaskingOrder>,
}

/// Guidance without a classifier: `logits = u + scale·(c − u)`, `c` the logits with the condition, `u`
/// those without.
///
/// Ho, Salimans 2022, arXiv 2207.12598; for logits of codes see LlamaGen (arXiv 2406.06525, section
/// 3.3). It comes before the temperature, and costs a second pass; 1 is the model as it is, in one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guidance {
    /// How far.
    pub scale: f32,
    /// First position, in raster order, that is guided and first that is not any more; absent: all
    /// are. (LlamaGen's `cfg_interval = n` is `[0, n + 2]`.)
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<[usize; 2]>,
}

impl Guidance {
    /// Of every position.
    pub const fn new(scale: f32) -> Self {
        Self {
            scale,
            interval: None,
        }
    }

    /// The scale at a position: 1 outside of the interval.
    pub(super) fn at(&self, position: usize) -> f32 {
        match self.interval {
            Some([start, end]) if !(start..end).contains(&position) => 1.0,
            _ => self.scale,
        }
    }

    /// Everything that is wrong with it.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !(self.scale.is_finite() && self.scale >= 0.0) {
            let got = self.scale;
            problems.push(format!(
                "guidance: expected a scale of at least 0 (1 is none), got {got}"
            ));
        }
        if let Some([start, end]) = self.interval
            && start >= end
        {
            problems.push(format!(
                "guidance: expected an interval of positions [start, end] that is not empty, got [{start}, {end}]"
            ));
        }
        problems
    }
}

/// A setting for all depths, or one for each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PerDepth<T> {
    /// The same at every depth.
    Same(T),
    /// One for each depth.
    Each(Vec<T>),
}

/// A [`SamplingConfig`] that makes no sense, with everything that is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sampling settings are wrong:{}", .0.iter().map(|p| format!("\n  {p}")).collect::<String>())]
pub struct InvalidSampling(pub Vec<String>);

/// A row of logits in which nothing can be chosen: all are NaN or −∞, or one is +∞.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no code can be drawn: the logits are not finite numbers")]
pub struct NoChoice;

impl Default for SamplingConfig {
    /// The model's own distribution.
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: None,
            top_p: None,
            guidance: None,
            steps: None,
            choice_temperature: None,
            reveal: None,
            order: None,
        }
    }
}

impl<T: Copy> PerDepth<T> {
    /// The value at `depth`.
    pub fn at(&self, depth: usize) -> T {
        match self {
            Self::Same(value) => *value,
            Self::Each(values) => values[depth],
        }
    }

    fn values(&self) -> &[T] {
        match self {
            Self::Same(value) => std::slice::from_ref(value),
            Self::Each(values) => values,
        }
    }

    fn check_length(&self, name: &str, depth: usize, problems: &mut Vec<String>) {
        if let Self::Each(values) = self
            && values.len() != depth
        {
            let got = values.len();
            problems.push(format!(
                "{name}: expected one value or {depth} (the depth), got {got}"
            ));
        }
    }
}

impl SamplingConfig {
    /// Always the most probable code.
    pub fn greedy() -> Self {
        Self {
            top_k: Some(PerDepth::Same(1)),
            ..Self::default()
        }
    }

    /// Checks the settings for codes of the given depth.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn validate(&self, depth: usize) -> Result<(), InvalidSampling> {
        let mut problems = Vec::new();
        if !(self.temperature > 0.0 && self.temperature.is_finite()) {
            let got = self.temperature;
            problems.push(format!(
                "temperature: expected a number above 0, got {got} (greedy is top_k = 1)"
            ));
        }
        if let Some(top_k) = &self.top_k {
            top_k.check_length("top_k", depth, &mut problems);
            if top_k.values().contains(&0) {
                problems.push("top_k: expected at least 1, got 0".into());
            }
        }
        if let Some(top_p) = &self.top_p {
            top_p.check_length("top_p", depth, &mut problems);
            if let Some(got) = top_p.values().iter().find(|p| !(**p > 0.0 && **p <= 1.0)) {
                problems.push(format!(
                    "top_p: expected a probability in (0, 1], got {got}"
                ));
            }
        }
        problems.extend(self.guidance.iter().flat_map(Guidance::problems));
        if let Some(got) = self.choice_temperature
            && !(got >= 0.0 && got.is_finite())
        {
            problems.push(format!(
                "choice_temperature: expected a number of at least 0, got {got}"
            ));
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(InvalidSampling(problems))
        }
    }

    /// Whether the condition is to be set against its absence anywhere.
    pub fn is_guided(&self) -> bool {
        self.guidance.is_some_and(|guidance| guidance.scale != 1.0)
    }

    /// The settings of one depth.
    pub(super) fn at(&self, depth: usize) -> CodeSampler {
        CodeSampler {
            temperature: self.temperature,
            top_k: self.top_k.as_ref().map_or(usize::MAX, |k| k.at(depth)),
            top_p: self.top_p.as_ref().map_or(1.0, |p| p.at(depth)),
        }
    }
}

/// Draws codes of one depth.
#[derive(Clone, Copy, Debug)]
pub(super) struct CodeSampler {
    temperature: f32,
    top_k: usize,
    top_p: f64,
}

/// A code that may be drawn, with its logit and later its weight.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    id: u32,
    weight: f32,
}

/// The code, and its weight, in whose part of all weights, laid end to end, a place lies.
pub(super) fn pick(entries: impl Iterator<Item = (u32, f64)>, place: f64) -> (u32, f64) {
    let (mut left, mut last) = (place, None);
    for (code, weight) in entries.filter(|(_, weight)| *weight > 0.0) {
        left -= weight;
        last = Some((code, weight));
        if left < 0.0 {
            break;
        }
    }
    // Rounding can leave a rest of 1e-16: it belongs to the last code that has any weight.
    last.expect("some code has a weight")
}

impl CodeSampler {
    /// One code from one row of logits. Takes exactly one number from `rng`.
    pub(super) fn draw(&self, logits: &[f32], rng: &mut ChaCha8Rng) -> Result<u32, NoChoice> {
        let ticket = rng.random::<f64>();
        let kept = self.kept(logits)?;
        let total: f64 = kept.iter().map(|c| f64::from(c.weight)).sum();
        let entries = kept.iter().map(|c| (c.id, f64::from(c.weight)));
        Ok(pick(entries, ticket * total).0)
    }

    /// The codes that temperature, top-k and top-p leave, with their probabilities.
    pub(super) fn distribution(&self, logits: &[f32]) -> Result<Vec<(u32, f64)>, NoChoice> {
        let kept = self.kept(logits)?;
        let total: f64 = kept.iter().map(|c| f64::from(c.weight)).sum();
        let share = |c: &Candidate| (c.id, f64::from(c.weight) / total);
        Ok(kept.iter().map(share).collect())
    }

    /// The codes that are left, with weights of which the largest is 1.
    fn kept(&self, logits: &[f32]) -> Result<Vec<Candidate>, NoChoice> {
        let mut kept = self.candidates(logits);
        let largest = kept.iter().fold(f32::NEG_INFINITY, |m, c| m.max(c.weight));
        if !largest.is_finite() {
            return Err(NoChoice);
        }
        for candidate in &mut kept {
            candidate.weight = (candidate.weight - largest).exp();
        }
        if self.top_p < 1.0 {
            let size = nucleus(&mut kept, self.top_p);
            kept.truncate(size);
        }
        Ok(kept)
    }

    /// The codes that temperature and top-k leave, in order of their ids, with their logits.
    fn candidates(&self, logits: &[f32]) -> Vec<Candidate> {
        let scaled = logits.iter().map(|logit| logit / self.temperature);
        let finite = scaled
            .zip(0..)
            .filter(|(value, _)| *value > f32::NEG_INFINITY);
        let mut kept: Vec<_> = finite
            .map(|(weight, id)| Candidate { id, weight })
            .collect();
        if self.top_k < kept.len() {
            let mut values: Vec<f32> = kept.iter().map(|c| c.weight).collect();
            let (_, threshold, _) =
                values.select_nth_unstable_by(self.top_k - 1, |a, b| b.total_cmp(a));
            let threshold = *threshold;
            kept.retain(|c| c.weight >= threshold);
        }
        kept
    }
}

/// Sorts the heaviest candidates to the front and returns how many hold the share `p` of the weight.
///
/// Ties go to the lower id. Only as many are sorted as needed: trained models put most of their weight
/// on few codes.
fn nucleus(kept: &mut [Candidate], p: f64) -> usize {
    let heavier =
        |a: &Candidate, b: &Candidate| b.weight.total_cmp(&a.weight).then(a.id.cmp(&b.id));
    let total: f64 = kept.iter().map(|c| f64::from(c.weight)).sum();
    let wanted = p * total;
    let (mut sorted, mut sum) = (0, 0.0);
    let mut step = 64;
    while sorted < kept.len() {
        let rest = &mut kept[sorted..];
        let count = step.min(rest.len());
        if count < rest.len() {
            rest.select_nth_unstable_by(count - 1, heavier);
        }
        rest[..count].sort_unstable_by(heavier);
        for candidate in &rest[..count] {
            sorted += 1;
            sum += f64::from(candidate.weight);
            if sum >= wanted {
                return sorted;
            }
        }
        step *= 4;
    }
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    /// Probabilities of the definition, by full sorts in f64.
    fn reference(logits: &[f32], temperature: f64, top_k: usize, top_p: f64) -> Vec<f64> {
        let scaled: Vec<f64> = logits
            .iter()
            .map(|&x| {
                if x.is_nan() {
                    f64::NEG_INFINITY
                } else {
                    f64::from(x) / temperature
                }
            })
            .collect();
        let mut sorted = scaled.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let threshold = sorted[top_k.min(sorted.len()) - 1];
        let weights: Vec<f64> = scaled
            .iter()
            .map(|&x| {
                if x >= threshold {
                    (x - sorted[0]).exp()
                } else {
                    0.0
                }
            })
            .collect();
        let total: f64 = weights.iter().sum();
        let mut probabilities: Vec<f64> = weights.iter().map(|w| w / total).collect();
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| {
            probabilities[b]
                .total_cmp(&probabilities[a])
                .then(a.cmp(&b))
        });
        let mut before = 0.0;
        for id in order {
            let own = probabilities[id];
            if before >= top_p {
                probabilities[id] = 0.0;
            }
            before += own;
        }
        let total: f64 = probabilities.iter().sum();
        probabilities.iter().map(|p| p / total).collect()
    }

    fn settings(temperature: f32, top_k: Option<usize>, top_p: Option<f64>) -> CodeSampler {
        let top_k = top_k.map(PerDepth::Same);
        SamplingConfig {
            temperature,
            top_k,
            top_p: top_p.map(PerDepth::Same),
            ..SamplingConfig::default()
        }
        .at(0)
    }

    #[test]
    fn frequencies_follow_the_definition() {
        let logits = [
            1.0,
            f32::NAN,
            2.5,
            0.0,
            2.5,
            -1.0,
            f32::NEG_INFINITY,
            1.7,
            0.9,
        ];
        let cases = [
            (1.0, None, None),
            (0.7, Some(4), None),
            (1.3, None, Some(0.8)),
            (1.0, Some(3), Some(0.6)),
            (2.0, Some(6), Some(0.999)),
            (1.0, Some(100), Some(1e-9)),
        ];
        let draws = 40_000;
        for (temperature, top_k, top_p) in cases {
            let sampler = settings(temperature, top_k, top_p);
            let mut rng = ChaCha8Rng::seed_from_u64(9);
            let mut counts = vec![0u32; logits.len()];
            for _ in 0..draws {
                counts[sampler.draw(&logits, &mut rng).unwrap() as usize] += 1;
            }
            let (k, p) = (top_k.unwrap_or(logits.len()), top_p.unwrap_or(1.0));
            let expected = reference(&logits, f64::from(temperature), k, p);
            for (&count, probability) in counts.iter().zip(&expected) {
                let share = f64::from(count) / f64::from(draws);
                // Five standard deviations; what cannot be drawn never is.
                let bound = 5.0 * (probability * (1.0 - probability) / f64::from(draws)).sqrt();
                assert!(
                    (share - probability).abs() <= bound,
                    "{counts:?} {expected:?}"
                );
            }
        }
    }

    #[test]
    fn top_p_keeps_the_same_set_as_a_full_sort() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        // Flat enough that the set needs more than the first batch of the partial sort.
        let logits: Vec<f32> = (0..3000).map(|_| rng.random::<f32>() * 4.0).collect();
        for p in [0.01, 0.3, 0.9, 0.999] {
            let mut kept = settings(1.0, None, Some(p)).candidates(&logits);
            kept.iter_mut()
                .for_each(|c| c.weight = (c.weight - 4.0).exp());
            let size = nucleus(&mut kept, p);
            let mut ids: Vec<u32> = kept[..size].iter().map(|c| c.id).collect();
            ids.sort_unstable();
            let expected = reference(&logits, 1.0, 3000, p);
            let expected: Vec<u32> = (0..3000).filter(|&i| expected[i as usize] > 0.0).collect();
            assert!(
                ids.len().abs_diff(expected.len()) <= 1,
                "{} {}",
                ids.len(),
                expected.len()
            );
            let common = ids
                .iter()
                .filter(|id| expected.binary_search(id).is_ok())
                .count();
            assert_eq!(common, ids.len().min(expected.len()));
        }
    }

    #[test]
    fn greedy_takes_the_largest_and_ties_are_all_kept() {
        let sampler = SamplingConfig::greedy().at(0);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        assert_eq!(sampler.draw(&[0.0, f32::NAN, 3.0, 2.9], &mut rng), Ok(2));
        let drawn: Vec<u32> = (0..64)
            .map(|_| sampler.draw(&[5.0, 1.0, 5.0], &mut rng).unwrap())
            .collect();
        assert!(drawn.contains(&0) && drawn.contains(&2) && !drawn.contains(&1));
    }

    #[test]
    fn rows_without_a_finite_largest_logit_are_errors() {
        let sampler = settings(1.0, Some(2), Some(0.9));
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for row in [
            [f32::NAN; 3],
            [f32::NEG_INFINITY; 3],
            [0.0, f32::INFINITY, 0.0],
        ] {
            assert_eq!(sampler.draw(&row, &mut rng), Err(NoChoice));
        }
    }

    #[test]
    fn wrong_settings_are_reported_at_once() {
        let wrong = SamplingConfig {
            temperature: 0.0,
            top_k: Some(PerDepth::Each(vec![5, 0])),
            top_p: Some(PerDepth::Same(1.5)),
            guidance: Some(Guidance {
                scale: -1.0,
                interval: Some([3, 3]),
            }),
            choice_temperature: Some(-1.0),
            ..SamplingConfig::default()
        };
        let message = wrong.validate(4).unwrap_err().to_string();
        for part in [
            "temperature",
            "top_k: expected one value or 4",
            "top_k: expected at least 1",
            "top_p",
            "guidance: expected a scale",
            "guidance: expected an interval",
        ] {
            assert!(message.contains(part), "{message}");
        }
        assert_eq!(SamplingConfig::greedy().validate(4), Ok(()));
        let text = "{temperature: 0.9, top_k: [8, 4], top_p: 0.95}";
        let read: SamplingConfig = serde_norway::from_str(text).unwrap();
        assert_eq!((read.at(1).top_k, read.at(1).top_p), (4, 0.95));
        assert_eq!(read.validate(2), Ok(()));
        assert!(!read.is_guided());
    }

    #[test]
    fn guidance_acts_within_its_interval_and_leaves_no_trace_where_there_is_none() {
        let guidance: Guidance = serde_norway::from_str("{scale: 2.0, interval: [1, 3]}").unwrap();
        assert_eq!([0, 1, 2, 3].map(|t| guidance.at(t)), [1.0, 2.0, 2.0, 1.0]);
        assert_eq!(Guidance::new(1.5).at(99), 1.5);
        let config = |scale| SamplingConfig {
            guidance: Some(Guidance::new(scale)),
            ..SamplingConfig::default()
        };
        assert!(config(2.0).is_guided() && !config(1.0).is_guided());
        // Fingerprints of generators are taken over what is written here.
        let written = serde_json::to_string(&SamplingConfig::greedy()).unwrap();
        assert_eq!(written, r#"{"temperature":1.0,"top_k":1,"top_p":null}"#);
    }
}
