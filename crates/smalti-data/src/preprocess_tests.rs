use super::*;
use crate::golden::Golden;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

fn counting(width: usize, height: usize) -> Image {
    Image::new(
        width,
        height,
        (0..width * height * 3)
            .map(|i| (i * 7 % 251) as u8)
            .collect(),
    )
    .unwrap()
}

fn one(step: Step) -> Preprocess {
    Preprocess { steps: vec![step] }
}

#[test]
fn golden_adm_crop() {
    let golden = Golden::open("metrics_resize");
    for case in ["crop0", "crop1"] {
        let expected = golden.image(&format!("{case}.out"));
        let step = Step::AdmCenterCrop {
            size: expected.width(),
        };
        assert!(
            one(step)
                .apply_fixed(&golden.image(&format!("{case}.in")))
                .unwrap()
                == expected,
            "{case} differs"
        );
    }
}

#[test]
fn sizes_follow_torchvision() {
    assert_eq!(shorter_side(500, 375, 256), (341, 256));
    assert_eq!(shorter_side(375, 500, 256), (256, 341));
    assert_eq!(shorter_side(1, 1, 256), (256, 256));
    // Margins of 1.5 and 2.5 are rounded to 2: half to even.
    let image = counting(7, 9);
    let crop = one(Step::CenterCrop { size: 4 })
        .apply_fixed(&image)
        .unwrap();
    assert_eq!(crop, image.crop(2, 2, 4, 4).unwrap());
}

#[test]
fn equal_seeds_give_equal_images_and_others_do_not() {
    let pipeline = PreprocessPair::crops(16).train;
    assert_eq!(pipeline.output_size(), Some((16, 16)));
    let image = counting(40, 24);
    let run = |seed| {
        pipeline
            .apply(&image, &mut ChaCha8Rng::seed_from_u64(seed))
            .unwrap()
    };
    assert_eq!(run(1), run(1));
    assert!((2..20).any(|seed| run(seed) != run(1)));
}

#[test]
fn random_rectangles_stay_inside_and_cover_the_allowed_range() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let (mut smallest, mut largest) = (f64::MAX, f64::MIN);
    for _ in 0..2000 {
        let [left, top, width, height] =
            random_rectangle(64, 48, [0.25, 1.0], [0.75, 4.0 / 3.0], &mut rng);
        assert!(left + width <= 64 && top + height <= 48);
        let share = (width * height) as f64 / (64.0 * 48.0);
        (smallest, largest) = (smallest.min(share), largest.max(share));
    }
    assert!(
        (0.23..0.30).contains(&smallest) && largest > 0.9,
        "{smallest} {largest}"
    );
    // Nothing fits: the middle, with the nearest allowed aspect.
    assert_eq!(
        random_rectangle(100, 10, [1.0, 1.0], [1.0, 1.0], &mut rng),
        [45, 0, 10, 10]
    );
    assert_eq!(
        random_rectangle(1, 1, [0.01, 0.01], [1.0, 1.0], &mut rng),
        [0, 0, 1, 1]
    );
}

#[test]
fn flips_at_the_extremes_are_not_random() {
    let image = counting(3, 2);
    let always = one(Step::HorizontalFlip { probability: 1.0 });
    assert_eq!(always.apply_fixed(&image).unwrap(), image.flip_horizontal());
    assert_eq!(
        one(Step::HorizontalFlip { probability: 0.0 })
            .apply_fixed(&image)
            .unwrap(),
        image
    );
    assert!(
        one(Step::HorizontalFlip { probability: 0.5 })
            .apply_fixed(&image)
            .is_err()
    );
}

#[test]
fn a_crop_larger_than_the_image_is_an_error() {
    let image = counting(20, 10);
    for step in [Step::CenterCrop { size: 11 }, Step::RandomCrop { size: 11 }] {
        let error = one(step)
            .apply(&image, &mut ChaCha8Rng::seed_from_u64(0))
            .unwrap_err();
        assert!(error.to_string().contains("11 x 11"), "{error}");
    }
}

#[test]
fn every_problem_is_reported_at_once() {
    let pair = PreprocessPair {
        train: Preprocess {
            steps: vec![
                Step::CenterCrop { size: 0 },
                Step::RandomResizedCrop {
                    size: 8,
                    scale: [0.5, 0.1],
                    ratio: [0.0, 1.0],
                    filter: Filter::Bilinear,
                },
            ],
        },
        eval: Preprocess {
            steps: vec![
                Step::RandomCrop { size: 9 },
                Step::HorizontalFlip { probability: 1.5 },
            ],
        },
    };
    let Err(DataError::Config { problems, .. }) = pair.validate() else {
        panic!("must be refused")
    };
    assert_eq!(problems.len(), 6, "{problems:?}");
    PreprocessPair::crops(32).validate().unwrap();
}

#[test]
fn unknown_fields_and_kinds_are_refused() {
    let good = r#"[{"kind":"resize_shorter","size":256,"filter":"bicubic"},{"kind":"center_crop","size":256}]"#;
    let parsed: Preprocess = serde_json::from_str(good).unwrap();
    assert_eq!(serde_json::to_string(&parsed).unwrap(), good);
    assert_eq!(parsed.output_size(), Some((256, 256)));
    for bad in [
        r#"[{"kind":"center_crop","size":256,"sice":1}]"#,
        r#"[{"kind":"centre_crop","size":256}]"#,
    ] {
        assert!(serde_json::from_str::<Preprocess>(bad).is_err(), "{bad}");
    }
}

#[test]
fn output_size_is_known_only_when_it_is_the_same_for_all_images() {
    let shorter = Step::ResizeShorter {
        size: 64,
        filter: Filter::Box,
    };
    assert_eq!(one(shorter.clone()).output_size(), None);
    let steps = vec![Step::CenterCrop { size: 100 }, shorter];
    assert_eq!(Preprocess { steps }.output_size(), Some((64, 64)));
}
