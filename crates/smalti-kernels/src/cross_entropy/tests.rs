use super::*;

fn logits(rows: usize, classes: usize) -> Vec<f32> {
    (0..rows * classes)
        .map(|i| ((i * 7919) % 1009) as f32 / 100.0 - 5.0)
        .collect()
}

fn probabilities_of(rows: usize, classes: usize) -> Vec<f32> {
    let mut out = Vec::new();
    for row in 0..rows {
        let raw: Vec<f32> = (0..classes)
            .map(|k| ((k * 31 + row * 17) % 23) as f32)
            .collect();
        let sum: f32 = raw.iter().sum::<f32>().max(1.0);
        out.extend(raw.iter().map(|x| x / sum));
    }
    out
}

/// Loss and gradient of a row in f64.
fn reference(x: &[f32], t: &[f64], epsilon: f64, grad: f64) -> (f64, Vec<f64>) {
    let largest = f64::from(x.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let e: Vec<f64> = x.iter().map(|x| (f64::from(*x) - largest).exp()).collect();
    let sum = e.iter().sum::<f64>() + epsilon;
    let mass: f64 = t.iter().sum();
    let term = |(x, t): (&f32, &f64)| {
        if *t == 0.0 {
            0.0
        } else {
            t * (f64::from(*x) - largest)
        }
    };
    let loss = mass * sum.ln() - x.iter().zip(t).map(term).sum::<f64>();
    (
        loss,
        e.iter()
            .zip(t)
            .map(|(e, t)| grad * (mass * e / sum - t))
            .collect(),
    )
}

/// Holds a path against the reference; targets as rows of probabilities in f64.
fn check(simd: Simd, loss: CrossEntropy, x: &[f32], targets: Targets<'_>, wide: &[f64]) {
    let rows = x.len() / loss.classes;
    let grads: Vec<f32> = (0..rows).map(|row| 0.5 + row as f32).collect();
    let mut losses = vec![f32::NAN; rows];
    let partitions = loss.forward_on(simd, x, targets, &mut losses);
    let mut grad = vec![f32::NAN; x.len()];
    let kept = BackwardRows {
        partitions: &partitions,
        grad_losses: &grads,
    };
    loss.backward_on(simd, x, targets, kept, &mut grad);
    for row in 0..rows {
        let place = row * loss.classes..(row + 1) * loss.classes;
        let (epsilon, factor) = (f64::from(loss.partition_epsilon), f64::from(grads[row]));
        let (want, slopes) = reference(&x[place.clone()], &wide[place.clone()], epsilon, factor);
        let name = format!("{simd:?} {loss:?} row {row}");
        assert!(
            (f64::from(losses[row]) - want).abs() < 3e-6 * want.max(1.0),
            "{name}: {want}"
        );
        for (got, want) in grad[place].iter().zip(slopes) {
            assert!(
                (f64::from(*got) - want).abs() <= 1e-6 * factor,
                "{name}: {got} for {want}"
            );
        }
    }
}

#[test]
fn agrees_with_f64_for_classes_and_probabilities() {
    for (rows, classes) in [
        (1, 1),
        (3, 2),
        (2, 16),
        (5, 37),
        (3, 1000),
        (300, 65),
        (2, 16_384),
    ] {
        let mut x = logits(rows, classes);
        let classes_of: Vec<u32> = (0..rows).map(|row| (row * 13 % classes) as u32).collect();
        let mut hard = vec![0.0; x.len()];
        for (row, class) in classes_of.iter().enumerate() {
            hard[row * classes + *class as usize] = 1.0;
        }
        let mut soft = probabilities_of(rows, classes);
        if classes > 3 {
            // A masked logit that nothing asks for.
            x[2] = f32::NEG_INFINITY;
            soft[2] = 0.0;
        }
        let wide: Vec<f64> = soft.iter().map(|t| f64::from(*t)).collect();
        for simd in Simd::available() {
            for partition_epsilon in [0.0, 1e-7, 0.5] {
                let loss = CrossEntropy {
                    classes,
                    partition_epsilon,
                };
                check(simd, loss, &x, Targets::Classes(&classes_of), &hard);
                check(simd, loss, &x, Targets::Probabilities(&soft), &wide);
            }
        }
    }
}

/// The f64 form above is itself held against differences.
#[test]
fn the_reference_gradient_is_the_slope_of_the_loss() {
    let mut x = logits(1, 7);
    let t: Vec<f64> = probabilities_of(1, 7)
        .iter()
        .map(|t| f64::from(*t) * 1.5)
        .collect();
    let (_, want) = reference(&x, &t, 0.0, 1.0);
    for i in 0..7 {
        let (middle, step) = (x[i], 1.0 / 4096.0);
        x[i] = middle + step;
        let above = reference(&x, &t, 0.0, 1.0).0;
        x[i] = middle - step;
        let slope = (above - reference(&x, &t, 0.0, 1.0).0) / (2.0 * f64::from(step));
        x[i] = middle;
        assert!((slope - want[i]).abs() < 1e-6, "{slope} for {}", want[i]);
    }
}

#[test]
fn equal_logits_cost_the_logarithm_of_the_classes() {
    let loss = CrossEntropy {
        classes: 8,
        partition_epsilon: 0.0,
    };
    let mut losses = [0.0];
    loss.forward(&[3.5; 8], Targets::Classes(&[5]), &mut losses);
    assert!((losses[0] - 8.0_f32.ln()).abs() < 1e-6);
    loss.forward(&[f32::NAN; 8], Targets::Classes(&[5]), &mut losses);
    assert!(losses[0].is_nan());
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let (x, soft) = (logits(2000, 50), probabilities_of(2000, 50));
    let loss = CrossEntropy {
        classes: 50,
        partition_epsilon: 1e-7,
    };
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let (mut losses, mut grad) = (vec![0.0; 2000], vec![0.0; x.len()]);
            let targets = Targets::Probabilities(&soft);
            let partitions = loss.forward(&x, targets, &mut losses);
            let kept = BackwardRows {
                partitions: &partitions,
                grad_losses: &losses,
            };
            loss.backward(&x, targets, kept, &mut grad);
            (losses, grad)
        })
    };
    assert_eq!(run(1), run(3));
}

#[test]
#[should_panic(expected = "class 4 of row 1 is not below 4")]
fn classes_out_of_range_are_named() {
    let loss = CrossEntropy {
        classes: 4,
        partition_epsilon: 0.0,
    };
    loss.forward(&[0.0; 8], Targets::Classes(&[3, 4]), &mut [0.0; 2]);
}
