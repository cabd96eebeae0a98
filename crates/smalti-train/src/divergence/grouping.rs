//! Which channels share a code.
//!
//! A group is quantized well where the divergence of its channels is near log2 K at every position: above it the
//! error is large, below it bits are wasted. A VAE that was trained with its groups makes them so; for any other
//! VAE the groups have to be chosen. The paper, which always trains, says nothing of that. Here they are chosen to
//! make
//!
//! E\[Σ_g (k_g − T_g)²\]
//!
//! small, where k_g is the sum of the divergences of group g's channels at one position and T_g a target in
//! proportion to the group's log2 K. With equal targets Σ_g k_g is what it is, so the least value belongs to
//! groups that are even both on average and position by position: channels that are rich at the same positions
//! are kept apart. Only E\[kᵢ\] and E\[kᵢ kⱼ\] are needed.
//!
//! The search begins with the channels sorted by divergence and dealt out to whichever group is the farthest below
//! its target, and goes on with the best exchange of two channels until none helps. It ends at a local optimum,
//! always at least as good as the strided and the contiguous order; with one group there is nothing to choose.

use super::moments::Moments;

/// How channels are put into groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Grouping {
    /// As evenly as the search here finds.
    #[default]
    Even,
    /// Group g of n has the channels g, g + n, g + 2n …
    Strided,
    /// Group g has the channels from g · size on.
    Contiguous,
    /// All channels in this order, the first group's first.
    Custom(Vec<usize>),
}

impl Grouping {
    /// Whether it can be carried out with so many channels.
    ///
    /// # Errors
    /// When a custom order does not name every channel once.
    pub fn check(&self, channels: usize) -> Result<(), String> {
        match self {
            Self::Custom(order) => check_order(order, channels),
            _ => Ok(()),
        }
    }

    /// Channels, group after group.
    ///
    /// `codebook_bits` has log2 K for each group, and so says how many groups there are.
    ///
    /// # Errors
    /// When a custom order does not name every channel once.
    ///
    /// # Panics
    /// When the channels cannot be divided into so many groups.
    pub fn order(&self, moments: &Moments, codebook_bits: &[f64]) -> Result<Vec<usize>, String> {
        let (channels, groups) = (moments.channels(), codebook_bits.len());
        assert!(groups > 0 && channels.is_multiple_of(groups));
        match self {
            Self::Strided => Ok(strided(channels, groups)),
            Self::Contiguous => Ok((0..channels).collect()),
            Self::Custom(order) => {
                check_order(order, channels)?;
                Ok(order.clone())
            }
            Self::Even => Ok(even(&Products::of(moments), codebook_bits)),
        }
    }
}

/// Channels as text: "0, 4, 8".
pub(super) fn listed(channels: &[usize]) -> String {
    let names: Vec<String> = channels.iter().map(ToString::to_string).collect();
    names.join(", ")
}

fn strided(channels: usize, groups: usize) -> Vec<usize> {
    let group = |g: usize| (g..channels).step_by(groups);
    (0..groups).flat_map(group).collect()
}

fn check_order(order: &[usize], channels: usize) -> Result<(), String> {
    let mut sorted = order.to_vec();
    sorted.sort_unstable();
    match sorted == (0..channels).collect::<Vec<_>>() {
        true => Ok(()),
        false => Err(format!(
            "an order of channels names each of 0 to {} once, got {order:?}",
            channels - 1
        )),
    }
}

/// E\[kᵢ\] and E\[kᵢ kⱼ\] of the channels' divergences.
struct Products {
    channels: usize,
    means: Vec<f64>,
    products: Vec<f64>,
}

impl Products {
    fn of(moments: &Moments) -> Self {
        let channels = moments.channels();
        let positions = moments.positions();
        let mut means = vec![0.0; channels];
        let mut products = vec![0.0; channels * channels];
        for position in 0..positions {
            let bits: Vec<f64> = (0..channels).map(|i| moments.bits(position, i)).collect();
            for i in 0..channels {
                means[i] += bits[i];
                for j in 0..channels {
                    products[i * channels + j] += bits[i] * bits[j];
                }
            }
        }
        let average = |sum: &mut f64| *sum /= positions.max(1) as f64;
        means.iter_mut().for_each(average);
        products.iter_mut().for_each(average);
        Self {
            channels,
            means,
            products,
        }
    }

    /// E\[(k − T)²\] of one group.
    fn cost(&self, group: &[usize], target: f64) -> f64 {
        let row = |&i: &usize| {
            let products = group.iter().map(|&j| self.products[i * self.channels + j]);
            products.sum::<f64>() - 2.0 * target * self.means[i]
        };
        group.iter().map(row).sum::<f64>() + target * target
    }

    /// The sum over all groups.
    fn total(&self, groups: &[Vec<usize>], targets: &[f64]) -> f64 {
        let costs = groups.iter().zip(targets);
        costs.map(|(group, &target)| self.cost(group, target)).sum()
    }
}

fn even(products: &Products, codebook_bits: &[f64]) -> Vec<usize> {
    let (channels, count) = (products.channels, codebook_bits.len());
    let share = products.means.iter().sum::<f64>() / codebook_bits.iter().sum::<f64>();
    let targets: Vec<f64> = codebook_bits.iter().map(|bits| bits * share).collect();
    let size = channels / count;
    let split = |order: Vec<usize>| {
        order
            .chunks(size)
            .map(<[usize]>::to_vec)
            .collect::<Vec<_>>()
    };
    let starts = [
        dealt(products, &targets),
        split((0..channels).collect()),
        split(strided(channels, count)),
    ];
    let ends = starts.map(|start| exchanged(products, &targets, start));
    let mut best = ends
        .into_iter()
        .min_by(|a, b| {
            products
                .total(a, &targets)
                .total_cmp(&products.total(b, &targets))
        })
        .expect("there are three");
    best.iter_mut().for_each(|group| group.sort_unstable());
    if codebook_bits.iter().all(|&bits| bits == codebook_bits[0]) {
        best.sort_unstable();
    }
    best.concat()
}

/// The richest channel first, each to the group that is the farthest below its target.
fn dealt(products: &Products, targets: &[f64]) -> Vec<Vec<usize>> {
    let size = products.channels / targets.len();
    let mut order: Vec<usize> = (0..products.channels).collect();
    order.sort_by(|&a, &b| products.means[b].total_cmp(&products.means[a]));
    let mut groups = vec![Vec::new(); targets.len()];
    let mut missing = targets.to_vec();
    for channel in order {
        let open = (0..groups.len()).filter(|&g| groups[g].len() < size);
        let poorest = open
            .max_by(|&a, &b| missing[a].total_cmp(&missing[b]).then(b.cmp(&a)))
            .expect("there is a place for every channel");
        groups[poorest].push(channel);
        missing[poorest] -= products.means[channel];
    }
    groups
}

/// Exchanges two channels of different groups, the best pair first, while that helps.
fn exchanged(products: &Products, targets: &[f64], mut groups: Vec<Vec<usize>>) -> Vec<Vec<usize>> {
    let size = groups[0].len();
    let places: Vec<(usize, usize)> = (0..groups.len())
        .flat_map(|group| (0..size).map(move |place| (group, place)))
        .collect();
    loop {
        let before: Vec<f64> = groups
            .iter()
            .zip(targets)
            .map(|(group, &target)| products.cost(group, target))
            .collect();
        // Sums of rounding errors must not look like progress.
        let mut best = (-1e-9 * before.iter().sum::<f64>(), None);
        for (i, &(g, a)) in places.iter().enumerate() {
            for &(h, b) in places[i + 1..].iter().filter(|(h, _)| *h != g) {
                let (mut left, mut right) = (groups[g].clone(), groups[h].clone());
                std::mem::swap(&mut left[a], &mut right[b]);
                let after = products.cost(&left, targets[g]) + products.cost(&right, targets[h]);
                let gain = after - before[g] - before[h];
                if gain < best.0 {
                    best = (gain, Some((g, a, h, b)));
                }
            }
        }
        let Some((g, a, h, b)) = best.1 else {
            return groups;
        };
        let moved = groups[g][a];
        groups[g][a] = groups[h][b];
        groups[h][b] = moved;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smalti_nn::Noise;

    /// Posteriors with mean 0 whose divergences are about these, row by row.
    fn with_bits(rows: &[Vec<f64>]) -> Moments {
        let mut moments = Moments::new(rows[0].len());
        for row in rows {
            // ½(σ² − 1 − ln σ²) = k ln 2, solved for the smaller σ².
            let log_variance = |bits: f64| {
                let nats = bits * std::f64::consts::LN_2;
                let mut log = -2.0 * nats - 1.0;
                for _ in 0..200 {
                    log = log.exp() - 1.0 - 2.0 * nats;
                }
                log as f32
            };
            let mut map = vec![0.0; row.len()];
            map.extend(row.iter().map(|&bits| log_variance(bits)));
            moments.push(&map, [0]).unwrap();
        }
        moments
    }

    fn groups(order: &[usize], size: usize) -> Vec<Vec<usize>> {
        order.chunks(size).map(<[usize]>::to_vec).collect()
    }

    #[test]
    fn rich_channels_are_paired_with_poor_ones() {
        let moments = with_bits(&vec![vec![8.0, 7.0, 2.0, 1.0]; 3]);
        let order = Grouping::Even.order(&moments, &[16.0; 2]).unwrap();
        assert_eq!(order, [0, 3, 1, 2]);
    }

    #[test]
    fn channels_that_are_rich_together_are_kept_apart() {
        // All have 4 bits on average; 0 and 1 go together, 2 and 3 go together the other way.
        let moments = with_bits(&[vec![6.0, 6.0, 2.0, 2.0], vec![2.0, 2.0, 6.0, 6.0]]);
        let order = Grouping::Even.order(&moments, &[16.0; 2]).unwrap();
        for group in groups(&order, 2) {
            let bits = moments.group_bits(&group);
            assert!(
                bits.iter().all(|bits| (bits - 8.0).abs() < 1e-3),
                "{order:?}: {bits:?}"
            );
        }
    }

    #[test]
    fn a_group_with_more_codes_gets_more_bits() {
        let moments = with_bits(&vec![vec![6.0, 1.0, 3.0, 2.0]; 2]);
        let order = Grouping::Even.order(&moments, &[6.0, 18.0]).unwrap();
        let bits: Vec<f64> = groups(&order, 2)
            .iter()
            .map(|g| moments.group_bits(g)[0])
            .collect();
        assert!(
            (bits[0] - 3.0).abs() < 1e-3 && (bits[1] - 9.0).abs() < 1e-3,
            "{order:?}"
        );
    }

    /// The least cost of all ways to fill the groups.
    fn least(products: &Products, targets: &[f64], size: usize) -> f64 {
        fn fill(
            products: &Products,
            targets: &[f64],
            size: usize,
            groups: &mut Vec<Vec<usize>>,
            channel: usize,
        ) -> f64 {
            if channel == products.channels {
                return products.total(groups, targets);
            }
            let mut best = f64::INFINITY;
            for group in 0..groups.len() {
                if groups[group].len() < size {
                    groups[group].push(channel);
                    best = best.min(fill(products, targets, size, groups, channel + 1));
                    groups[group].pop();
                }
            }
            best
        }
        fill(
            products,
            targets,
            size,
            &mut vec![Vec::new(); targets.len()],
            0,
        )
    }

    #[test]
    fn the_search_ends_near_the_best_of_all_groupings() {
        for seed in 0..6 {
            let mut noise = Noise::from_seed(seed);
            let row = |noise: &mut Noise| {
                let values = noise.uniform_values(8);
                values
                    .iter()
                    .map(|v| 0.2 + 6.0 * f64::from(*v * v))
                    .collect::<Vec<_>>()
            };
            let base = row(&mut noise);
            let rows: Vec<Vec<f64>> = (0..12)
                .map(|_| {
                    row(&mut noise)
                        .iter()
                        .zip(&base)
                        .map(|(a, b)| 0.4 * a + b)
                        .collect()
                })
                .collect();
            let moments = with_bits(&rows);
            let products = Products::of(&moments);
            for count in [2, 4] {
                let targets = vec![products.means.iter().sum::<f64>() / count as f64; count];
                let cost = |grouping: Grouping| {
                    let order = grouping.order(&moments, &vec![16.0; count]).unwrap();
                    products.total(&groups(&order, 8 / count), &targets)
                };
                let found = cost(Grouping::Even);
                assert!(found <= cost(Grouping::Strided) + 1e-9);
                assert!(found <= cost(Grouping::Contiguous) + 1e-9);
                let best = least(&products, &targets, 8 / count);
                assert!(
                    found <= 1.05 * best,
                    "seed {seed}, {count} groups: {found}, best {best}"
                );
            }
        }
    }

    #[test]
    fn named_orders_are_what_they_say() {
        let moments = with_bits(&[vec![1.0; 6]]);
        let order = |grouping: Grouping| grouping.order(&moments, &[16.0; 2]);
        assert_eq!(order(Grouping::Strided).unwrap(), [0, 2, 4, 1, 3, 5]);
        assert_eq!(order(Grouping::Contiguous).unwrap(), [0, 1, 2, 3, 4, 5]);
        let custom = vec![5, 4, 3, 2, 1, 0];
        assert_eq!(order(Grouping::Custom(custom.clone())).unwrap(), custom);
        for wrong in [
            vec![0, 1, 2, 3, 4],
            vec![0, 1, 2, 3, 4, 4],
            vec![1, 2, 3, 4, 5, 6],
        ] {
            let error = order(Grouping::Custom(wrong)).unwrap_err();
            assert!(error.contains("each of 0 to 5 once"), "{error}");
        }
    }
}
