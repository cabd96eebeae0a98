//! Batches of preprocessed float images, decoded in parallel and ahead of their use.
//!
//! What a batch holds depends only on the data set, the preprocessing, the seed and the batch's
//! number: not on threads, on how far ahead is decoded, or on where reading began. A resumed
//! training gets the same batches as one that was never interrupted.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use rayon::prelude::*;

use crate::{DataError, Dataset, EpochOrder, ImageSource, Preprocess, append_planes, sample_rng};

/// Images ready for a network.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// `[batch, 3, height, width]` in [-1, 1].
    pub images: Vec<f32>,
    /// `[batch, 3, height, width]`.
    pub shape: [usize; 4],
    /// Class of every image, if every image has one.
    pub labels: Option<Vec<u32>>,
    /// Index of every image in the data set.
    pub indices: Vec<usize>,
}

/// Which images are visited in what order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visits {
    /// One pass in order; the last batch may be smaller.
    Once,
    /// Epoch after epoch without end, shuffled anew each time; what does not fill a batch at the
    /// end of an epoch is left out of it.
    Shuffled {
        /// Seed of orders and of random preprocessing.
        seed: u64,
    },
}

/// How batches are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchConfig {
    /// Images in a batch.
    pub batch_size: usize,
    /// Their order.
    pub visits: Visits,
    /// Number of the first batch: what a resumed training has already used.
    pub first_batch: u64,
    /// Batches decoded ahead, at least 1. Bounds the memory in use.
    pub ahead: usize,
}

/// Preprocesses some images, in parallel. Random draws come from [`sample_rng`] of seed, epoch and
/// index.
pub fn load_batch(
    dataset: &Dataset,
    indices: &[usize],
    preprocess: &Preprocess,
    seed: u64,
    epoch: u64,
) -> Result<Batch, DataError> {
    let load = |&index: &usize| {
        let image = dataset.image(index)?;
        preprocess
            .apply(&image, &mut sample_rng(seed, epoch, index))
            .map_err(|error| error.in_sample(&dataset.name(index)))
    };
    let images = indices
        .par_iter()
        .map(load)
        .collect::<Result<Vec<_>, _>>()?;
    let (width, height) = images
        .first()
        .map_or((0, 0), |image| (image.width(), image.height()));
    let mut planes = Vec::with_capacity(images.len() * 3 * width * height);
    for (image, &index) in images.iter().zip(indices) {
        if (image.width(), image.height()) != (width, height) {
            let (got_width, got_height) = (image.width(), image.height());
            let problem = format!(
                "{} becomes {got_width} x {got_height}, others of its batch {width} x {height}; end with a crop",
                dataset.name(index)
            );
            return Err(DataError::Config {
                what: "preprocessing",
                problems: vec![problem],
            });
        }
        append_planes(image, &mut planes);
    }
    Ok(Batch {
        images: planes,
        shape: [images.len(), 3, height, width],
        labels: indices.iter().map(|&index| dataset.label(index)).collect(),
        indices: indices.to_vec(),
    })
}

/// An iterator over batches that a thread of its own prepares. Dropping it ends the thread.
#[derive(Debug)]
pub struct Batches {
    receiver: Option<Receiver<Result<Batch, DataError>>>,
    worker: Option<JoinHandle<()>>,
}

impl Batches {
    /// Starts preparing batches.
    pub fn start(
        dataset: Dataset,
        preprocess: Preprocess,
        config: BatchConfig,
    ) -> Result<Self, DataError> {
        preprocess.validate()?;
        check(&dataset, &preprocess, config)?;
        let (sender, receiver) = sync_channel(config.ahead - 1);
        let work = move || {
            let mut plan = Plan::new(dataset.len(), config);
            while let Some((epoch, indices)) = plan.next_batch() {
                let seed = if let Visits::Shuffled { seed } = config.visits {
                    seed
                } else {
                    0
                };
                let batch = load_batch(&dataset, &indices, &preprocess, seed, epoch);
                let failed = batch.is_err();
                // Nobody listens any more: the iterator was dropped.
                if sender.send(batch).is_err() || failed {
                    break;
                }
            }
        };
        let worker = std::thread::Builder::new()
            .name("batches".to_owned())
            .spawn(work);
        let worker = worker.map_err(DataError::io("start a thread for", "batches"))?;
        Ok(Self {
            receiver: Some(receiver),
            worker: Some(worker),
        })
    }
}

fn check(dataset: &Dataset, preprocess: &Preprocess, config: BatchConfig) -> Result<(), DataError> {
    let mut problems = Vec::new();
    if config.batch_size == 0 || config.ahead == 0 {
        problems.push(format!(
            "batch_size and ahead must be at least 1, got {} and {}",
            config.batch_size, config.ahead
        ));
    }
    if matches!(config.visits, Visits::Shuffled { .. }) && dataset.len() < config.batch_size {
        problems.push(format!(
            "a batch of {} does not fit into a data set of {} images",
            config.batch_size,
            dataset.len()
        ));
    }
    if config.visits == Visits::Once && preprocess.is_random() {
        problems.push(
            "one pass in order is for measuring, its preprocessing must not be random".to_owned(),
        );
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(DataError::Config {
            what: "batches",
            problems,
        })
    }
}

/// The indices of batch after batch.
struct Plan {
    len: usize,
    config: BatchConfig,
    next: u64,
    order: Option<(u64, EpochOrder)>,
}

impl Plan {
    fn new(len: usize, config: BatchConfig) -> Self {
        Self {
            len,
            config,
            next: config.first_batch,
            order: None,
        }
    }

    /// Epoch and indices.
    fn next_batch(&mut self) -> Option<(u64, Vec<usize>)> {
        let size = self.config.batch_size;
        let number = self.next;
        self.next += 1;
        let Visits::Shuffled { seed } = self.config.visits else {
            let start = usize::try_from(number).ok()?.checked_mul(size)?;
            return (start < self.len).then(|| (0, (start..self.len.min(start + size)).collect()));
        };
        let per_epoch = (self.len / size) as u64;
        let (epoch, place) = (number / per_epoch, (number % per_epoch) as usize);
        if self.order.as_ref().is_none_or(|(of, _)| *of != epoch) {
            self.order = Some((epoch, EpochOrder::new(self.len, seed, epoch)));
        }
        let (_, order) = self.order.as_ref()?;
        Some((epoch, order.starting_at(place * size)[..size].to_vec()))
    }
}

impl Iterator for Batches {
    type Item = Result<Batch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Ok(batch) = self.receiver.as_ref()?.recv() {
            return Some(batch);
        }
        // The thread has ended; if by a panic, it is this thread's panic too.
        self.receiver = None;
        if let Some(Err(panic)) = self.worker.take().map(JoinHandle::join) {
            std::panic::resume_unwind(panic);
        }
        None
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        // Without a receiver the worker's next send fails.
        self.receiver = None;
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Image, MemorySource, PreprocessPair, Sample};

    fn dataset(len: usize) -> Dataset {
        let image = |i: usize| {
            Image::new(6, 5, (0..90).map(|at| (at * 3 + i * 7) as u8).collect()).unwrap()
        };
        let samples = (0..len)
            .map(|i| Sample {
                image: image(i),
                label: Some(i as u32),
                name: format!("image {i}"),
            })
            .collect();
        Dataset::new(MemorySource {
            samples,
            ..Default::default()
        })
    }

    fn config(batch_size: usize, visits: Visits) -> BatchConfig {
        BatchConfig {
            batch_size,
            visits,
            first_batch: 0,
            ahead: 2,
        }
    }

    fn take(dataset: &Dataset, config: BatchConfig, count: usize) -> Vec<Batch> {
        let batches =
            Batches::start(dataset.clone(), PreprocessPair::crops(4).train, config).unwrap();
        batches.take(count).map(Result::unwrap).collect()
    }

    #[test]
    fn resumed_batches_equal_uninterrupted_ones() {
        let (set, shuffled) = (dataset(10), config(3, Visits::Shuffled { seed: 9 }));
        let whole = take(&set, shuffled, 10);
        for first_batch in [1, 3, 7] {
            let resumed = take(
                &set,
                BatchConfig {
                    first_batch,
                    ahead: 1,
                    ..shuffled
                },
                3,
            );
            assert_eq!(
                resumed,
                whole[first_batch as usize..first_batch as usize + 3]
            );
        }
        assert_eq!(whole[0].shape, [3, 3, 4, 4]);
        assert_eq!(
            whole[0].labels.as_ref().unwrap()[0] as usize,
            whole[0].indices[0]
        );
        // Three batches are an epoch: nine different images; the next epoch begins with the fourth.
        let mut epoch: Vec<usize> = whole[..3]
            .iter()
            .flat_map(|batch| batch.indices.clone())
            .collect();
        epoch.sort_unstable();
        epoch.dedup();
        assert_eq!(epoch.len(), 9);
        assert_eq!(whole[3].indices, EpochOrder::new(10, 9, 1).indices()[..3]);
    }

    #[test]
    fn what_an_image_becomes_does_not_depend_on_its_batch() {
        let set = dataset(8);
        let train = PreprocessPair::crops(4).train;
        let together = load_batch(&set, &[0, 1, 2, 3], &train, 1, 2).unwrap();
        let alone = load_batch(&set, &[2], &train, 1, 2).unwrap();
        assert_eq!(together.images[2 * 48..3 * 48], alone.images);
        assert!(
            (0..8).any(|i| load_batch(&set, &[i], &train, 1, 3).unwrap().images
                != load_batch(&set, &[i], &train, 1, 2).unwrap().images)
        );
    }

    #[test]
    fn one_pass_ends_with_a_smaller_batch() {
        let batches = Batches::start(
            dataset(7),
            PreprocessPair::crops(4).eval,
            config(3, Visits::Once),
        )
        .unwrap();
        let indices: Vec<Vec<usize>> = batches.map(|batch| batch.unwrap().indices).collect();
        assert_eq!(indices, [vec![0, 1, 2], vec![3, 4, 5], vec![6]]);
    }

    #[test]
    fn wrong_settings_and_images_are_errors() {
        let eval = PreprocessPair::crops(4).eval;
        for wrong in [
            config(0, Visits::Once),
            config(8, Visits::Shuffled { seed: 0 }),
            BatchConfig {
                ahead: 0,
                ..config(1, Visits::Once)
            },
        ] {
            assert!(matches!(
                Batches::start(dataset(7), eval.clone(), wrong),
                Err(DataError::Config { .. })
            ));
        }
        assert!(
            Batches::start(
                dataset(7),
                PreprocessPair::crops(4).train,
                config(1, Visits::Once)
            )
            .is_err()
        );
        let too_large = Preprocess {
            steps: vec![crate::Step::CenterCrop { size: 6 }],
        };
        let mut batches = Batches::start(dataset(7), too_large, config(3, Visits::Once)).unwrap();
        let error = batches.next().unwrap().unwrap_err().to_string();
        assert!(error.starts_with("image 0: cannot cut 6 x 6"), "{error}");
        assert!(batches.next().is_none());
        let mut samples: Vec<Sample> = (0..2).map(|i| dataset(2).get(i).unwrap()).collect();
        samples[1].image = Image::filled(1, 1, [0; 3]).unwrap();
        let mixed = Dataset::new(MemorySource {
            samples,
            ..Default::default()
        });
        let error = load_batch(&mixed, &[0, 1], &Preprocess::default(), 0, 0)
            .unwrap_err()
            .to_string();
        assert!(error.contains("image 1 becomes 1 x 1"), "{error}");
    }
}
