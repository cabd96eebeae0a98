//! Agreement with the published implementation, on the reference tensors of `goldens/vqdiffusion`.
//!
//! Tolerances are those of the reference's notes: 1e-4 on logarithms above −60 (f32 sums in another
//! order; below, they are clamped), 1e-4 relative on losses.

use burn::tensor::{Device, Int, Tensor, TensorData};
use safetensors::{Dtype, SafeTensors};
use smalti_nn::Init;
use smalti_nn::state::host_values;

use super::importance::TimeImportance;
use super::loss::{Steps, Worn, start_logs};
use super::schedule::{Rates, Schedule};
use super::transitions::{LogRates, PosteriorRates, forward, log_one_hot, posterior};
use crate::generators::lesson::TimeLoss;

/// Codes of the reference.
const CODES: usize = 12;
/// Samples, codes of each.
const SHAPE: [usize; 2] = [4, 20];

struct Case {
    bytes: Vec<u8>,
    schedule: Schedule,
    device: Device,
}

impl Case {
    fn load() -> Self {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../goldens/vqdiffusion/tensors.safetensors"
        );
        Self {
            bytes: std::fs::read(path).unwrap(),
            schedule: Schedule::new(10),
            device: Device::flex(),
        }
    }

    fn floats(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = file.tensor(name).unwrap();
        assert_eq!(view.dtype(), Dtype::F32, "{name}");
        let values = view.data().as_chunks::<4>().0.iter();
        let values = values.map(|&bytes| f32::from_le_bytes(bytes)).collect();
        (view.shape().to_vec(), values)
    }

    fn ids(&self, name: &str) -> Vec<usize> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = file.tensor(name).unwrap();
        assert_eq!(view.dtype(), Dtype::I64, "{name}");
        let values = view.data().as_chunks::<8>().0.iter();
        values
            .map(|&bytes| i64::from_le_bytes(bytes) as usize)
            .collect()
    }

    fn codes(&self, name: &str, device: &Device) -> Tensor<2, Int> {
        let ids: Vec<i32> = self.ids(name).into_iter().map(|id| id as i32).collect();
        Tensor::from_data(TensorData::new(ids, SHAPE), device)
    }

    /// `[batch, classes, length]` of the reference as our `[batch, length, classes]`.
    fn rows(&self, name: &str, device: &Device) -> Tensor<3> {
        let (shape, values) = self.floats(name);
        let data = TensorData::new(values, [shape[0], shape[1], shape[2]]);
        Tensor::<3>::from_data(data, device).swap_dims(1, 2)
    }

    fn logs(&self, rate: impl Fn(usize) -> Rates) -> LogRates {
        let rates: Vec<_> = self.ids("t").into_iter().map(rate).collect();
        LogRates::new(&rates, CODES, &self.device)
    }

    fn posterior_rates(&self) -> PosteriorRates {
        PosteriorRates {
            seen: self.logs(|t| self.schedule.after(Some(t))),
            target: self.logs(|t| self.schedule.after(t.checked_sub(1))),
            between: self.logs(|t| self.schedule.step(t)),
        }
    }

    fn close_logs(&self, name: &str, got: Tensor<3>) {
        let want = host_values(self.rows(name, &self.device));
        let got = host_values(got);
        assert_eq!(got.len(), want.len(), "{name}");
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            let close = match *want > -60.0 {
                true => (got - want).abs() < 1e-4,
                false => *got < -59.0,
            };
            assert!(close, "{name} {i}: {got} for {want}");
        }
    }

    fn steps(&self, device: &Device) -> Steps {
        Steps::new((self.schedule, &self.ids("t")), CODES, [1.0, 1.0], device)
    }
}

fn close(name: &str, got: &[f32], want: &[f32], relative: f32, absolute: f32) {
    assert_eq!(got.len(), want.len(), "{name}");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let bound = relative * want.abs() + absolute;
        assert!((got - want).abs() <= bound, "{name} {i}: {got} for {want}");
    }
}

#[test]
fn rates_are_those_of_the_reference() {
    let case = Case::load();
    let codes = CODES as f64;
    let of = |rates: &dyn Fn(usize) -> Rates, count: usize| (0..count).map(rates).collect();
    let steps: Vec<Rates> = of(&|time| case.schedule.step(time), 10);
    // The reference keeps the start behind the last step.
    let sums: Vec<Rates> = of(&|time| case.schedule.after((time < 10).then_some(time)), 11);
    let logs = |rates: &[Rates], value: &dyn Fn(&Rates) -> f64| -> Vec<f32> {
        rates.iter().map(|r| value(r).ln() as f32).collect()
    };
    type Part = (&'static str, fn(&Rates, f64) -> f64);
    let parts: [Part; 4] = [
        ("at", |r, _| r.keep),
        ("bt", |r, codes| r.renew / codes),
        ("ct", |r, _| r.mask),
        ("1_min_ct", |r, _| 1.0 - r.mask),
    ];
    for (name, part) in parts {
        let value = |r: &Rates| part(r, codes);
        let cumulative = match name {
            "1_min_ct" => "sched.log_1_min_cumprod_ct".to_owned(),
            name => format!("sched.log_cumprod_{name}"),
        };
        for (name, got) in [
            (format!("sched.log_{name}"), logs(&steps, &value)),
            (cumulative, logs(&sums, &value)),
        ] {
            let (_, want) = case.floats(&name);
            assert_eq!(got.len(), want.len(), "{name}");
            for (got, want) in got.iter().zip(want) {
                let same = *got == want || (got - want).abs() < 1e-4;
                assert!(same, "{name}: {got} for {want}");
            }
        }
    }
}

#[test]
fn distributions_are_those_of_the_reference() {
    let case = Case::load();
    let device = &case.device;
    let one_hot = |name: &str| log_one_hot(case.codes(name, device), CODES + 1);
    let rates = case.posterior_rates();
    let seen = case.codes("xt", device);
    case.close_logs("q_xt_given_x0", forward(one_hot("x0"), &rates.seen));
    case.close_logs("q_one_step_xt", forward(one_hot("xt"), &rates.between));
    let truth = one_hot("x0").narrow(2, 0, CODES);
    case.close_logs("q_posterior_true", posterior(truth, seen.clone(), &rates));
    let start = start_logs(case.rows("net_out", device));
    case.close_logs("p_xtm1", posterior(start.clone(), seen, &rates));
    let mask = Tensor::full([SHAPE[0], SHAPE[1], 1], -70.0, device);
    case.close_logs("log_x0_recon", Tensor::cat(vec![start, mask], 2));
}

#[test]
fn codes_are_worn_away_as_in_the_reference() {
    let case = Case::load();
    let device = &case.device;
    let logs = forward(
        log_one_hot(case.codes("x0", device), CODES + 1),
        &case.posterior_rates().seen,
    );
    let noise = case.rows("train.uniform", device);
    let gumbel = (noise.add_scalar(1e-30).log().neg().add_scalar(1e-30))
        .log()
        .neg();
    let drawn = (logs + gumbel).argmax(2).squeeze_dim::<2>(2);
    let drawn = smalti_nn::nearest::id_values(drawn);
    // The smallest recorded margin, 0.12, is far from float error.
    let expected = case.ids("train.xt");
    assert!(
        drawn
            .iter()
            .zip(expected)
            .all(|(&got, want)| got as usize == want)
    );
}

#[test]
fn losses_and_their_gradient_are_those_of_the_reference() {
    let case = Case::load();
    let device = case.device.clone().autodiff();
    let logits = host_values(case.rows("net_out", &case.device));
    let data = TensorData::new(logits, [SHAPE[0], SHAPE[1], CODES]);
    let logits = Tensor::<3>::from_data(data, &device).require_grad();
    let worn = |seen: &str| Worn {
        clean: case.codes("x0", &device),
        seen: case.codes(seen, &device),
    };
    let losses = case.steps(&device).losses(logits.clone(), worn("train.xt"));
    let (steps, times) = (10.0, case.ids("t"));
    let bound = losses.bound.sum_dim(1).squeeze_dim::<1>(1);
    let auxiliary = losses.auxiliary.sum_dim(1).squeeze_dim::<1>(1);
    let early: Vec<f32> = times.iter().map(|&t| 2.0 - t as f32 / steps).collect();
    let early = Tensor::<1>::from_data(early.as_slice(), &device);
    let whole = (bound.clone() + auxiliary * early * 5e-4).mul_scalar(steps);
    close(
        "vb_loss",
        &host_values(whole.clone()),
        &case.floats("train.vb_loss").1,
        1e-4,
        1e-4,
    );

    let gradient = logits.grad(&whole.sum().backward()).unwrap();
    let want = host_values(case.rows("train.grad_net_out", &case.device));
    close("gradient", &host_values(gradient), &want, 1e-3, 1e-3);

    let mut importance = TimeImportance::new(10, &mut Init::new(&case.device, 1));
    let seen = times.iter().zip(host_values(bound));
    let seen: Vec<_> = seen.map(|(&time, loss)| TimeLoss { time, loss }).collect();
    importance.note(&seen);
    let history = host_values(importance.lt_history.val());
    close(
        "Lt_history",
        &history,
        &case.floats("train.Lt_history").1,
        2e-4,
        1e-4,
    );
}

#[test]
fn every_code_has_the_divergence_of_the_reference() {
    let case = Case::load();
    let device = &case.device;
    let worn = Worn {
        clean: case.codes("x0", device),
        seen: case.codes("xt", device),
    };
    let losses = case
        .steps(device)
        .losses(case.rows("net_out", device), worn);
    let got = host_values(losses.bound);
    let (divergence, missed) = (case.floats("kl").1, case.floats("decoder_nll").1);
    let times = case.ids("t");
    let want = divergence.iter().zip(missed).enumerate();
    let want: Vec<f32> = want
        .map(|(i, (kl, nll))| if times[i / SHAPE[1]] == 0 { nll } else { *kl })
        .collect();
    close("bound", &got, &want, 1e-4, 1e-4);
}
