//! A batch in two halves, each taken forward and backward by a thread of its own.
//!
//! A kernel that shares its work among threads has them wait for each other at its end. In a small
//! network that is at every few hundredths of a millisecond, and two threads then are hardly faster than
//! one. Halves of a batch meet once, when their gradients are added.
//!
//! The halves are two whatever the number of threads, and each draws its own noise, so that what a run
//! computes does not depend on the machine it has. Only for models whose images do not see each
//! other, and on the CPU: another device wants its batch whole.

use burn::module::Module;
use burn::tensor::Device;
use smalti_nn::Noise;
use smalti_nn::state::is_cpu;

use crate::error::TrainError;
use crate::gradients::Gradients;
use crate::journal::Measures;

/// What one half, or the whole batch, leaves: its gradient and its losses, both means over its images.
pub type Learned = (Gradients, Measures);

/// How many of so many images are in each half; all in one where there is only one, or where a device
/// other than the CPU wants its batch whole.
pub fn sizes(images: usize, device: &Device) -> Vec<usize> {
    if images < 2 || !is_cpu(device) {
        return vec![images];
    }
    vec![images - images / 2, images / 2]
}

/// What `work` makes of each half, both at once.
pub(crate) fn each<P: Send, R: Send>(parts: Vec<P>, work: impl Fn(P) -> R + Sync) -> Vec<R> {
    let mut parts = parts.into_iter();
    let (first, second) = (parts.next(), parts.next());
    assert!(parts.next().is_none(), "a batch has at most two halves");
    let first = first.expect("a batch has images");
    match second {
        Some(second) => {
            let (first, second) = rayon::join(|| work(first), || work(second));
            vec![first, second]
        }
        None => vec![work(first)],
    }
}

/// Gradient and losses of a batch, the means over its images, from those of its parts.
///
/// `parts` are the images of each part and what it learns from; `learn` takes a copy of the model whose
/// graph is the part's own.
///
/// # Errors
/// Those of `learn`.
pub fn learn<M: Module + Send, P: Send>(
    model: &M,
    device: &Device,
    noise: &mut Noise,
    parts: Vec<(usize, P)>,
    learn: impl Fn(M, P, Noise) -> Result<Learned, TrainError> + Sync,
) -> Result<Learned, TrainError> {
    let images: usize = parts.iter().map(|(count, _)| count).sum();
    let parts = parts.into_iter().map(|(count, part)| {
        let share = count as f64 / images as f64;
        // Not a clone, whose graph would be the same one, behind one lock.
        (share, model.clone().fork(device), part, noise.fork())
    });
    let learned = each(parts.collect(), |(share, model, part, noise)| {
        let (gradients, losses) = learn(model, part, noise)?;
        let losses = losses
            .into_iter()
            .map(|(name, value)| (name, share * value));
        Ok::<_, TrainError>((gradients.scaled(share), losses.collect::<Measures>()))
    });
    let mut learned = learned.into_iter();
    let (mut gradients, mut losses) = learned.next().expect("a batch has images")?;
    for other in learned {
        let (more, others) = other?;
        gradients.add(more);
        for ((_, sum), (_, value)) in losses.iter_mut().zip(others) {
            *sum += value;
        }
    }
    Ok((gradients, losses))
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::module::{Param, ParamId};
    use burn::tensor::Tensor;
    use smalti_nn::state::host_values;

    #[derive(Module, Debug)]
    struct Slope {
        weight: Param<Tensor<1>>,
    }

    fn slope() -> (Slope, Device) {
        let device = Device::flex().autodiff();
        let weight = Tensor::<1>::from_data([3.0], &device).require_grad();
        let weight = Param::initialized(ParamId::new(), weight);
        (Slope { weight }, device)
    }

    /// mean (w·x)² over the part.
    fn square(model: Slope, part: Vec<f32>, _: Noise) -> Result<Learned, TrainError> {
        let inputs = Tensor::<1>::from_data(part.as_slice(), &model.weight.val().device());
        let loss = (inputs * model.weight.val()).square().mean();
        let value = f64::from(loss.clone().inner().into_scalar::<f32>());
        let gradients = Gradients::of(&model, &loss.backward());
        Ok((gradients, vec![("loss".into(), value)]))
    }

    #[test]
    fn halves_leave_the_mean_of_the_whole() {
        let (model, device) = slope();
        let inputs = [1.0f32, 2.0, 3.0, 4.0, 5.0];
        let mut noise = Noise::from_seed(1);
        let parts = |sizes: Vec<usize>| -> Vec<(usize, Vec<f32>)> {
            let mut rest = &inputs[..];
            let part = |size: usize| {
                let (part, more) = rest.split_at(size);
                rest = more;
                (size, part.to_vec())
            };
            sizes.into_iter().map(part).collect()
        };
        for sizes in [sizes(5, &device), vec![5]] {
            let (mut gradients, losses) =
                learn(&model, &device, &mut noise, parts(sizes), square).unwrap();
            // Σx²/5 = 11: the loss is 9·11, its slope 2·3·11.
            assert!((losses[0].1 - 99.0).abs() < 1e-4);
            let gradient = host_values(gradients.remove("weight").unwrap());
            assert!((gradient[0] - 66.0).abs() < 1e-4);
        }
    }

    #[test]
    fn a_batch_is_cut_in_the_middle() {
        let cpu = Device::flex();
        assert_eq!(sizes(5, &cpu), [3, 2]);
        assert_eq!(sizes(2, &cpu), [1, 1]);
        assert_eq!(sizes(1, &cpu), [1]);
    }
}
