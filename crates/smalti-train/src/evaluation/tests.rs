use std::path::PathBuf;

use smalti_models::autoencoder::AutoencoderConfig;
use smalti_models::features::FeatureConfig;
use smalti_models::perceptual::PerceptualConfig;
use smalti_nn::Init;

use super::*;
use crate::judges::JudgesConfig;
use crate::observer::Silent;

const NETWORK: &str = "[network]\nresolution = 32\nchannels = 4\nmultipliers = [1, 2]\nblocks = 1\nz_channels = 8\nnorm_groups = 2\n[quantizer]\n";

fn model(quantizer: &str) -> Autoencoder {
    let config: AutoencoderConfig = toml::from_str(&format!("{NETWORK}{quantizer}")).unwrap();
    config.build(&mut Init::new(&Device::flex(), 3)).unwrap()
}

fn images() -> Vec<Image> {
    let image = |number: usize| {
        let mut image = Image::filled(32, 32, [(number * 40) as u8, 90, 30]).unwrap();
        let patch = Image::filled(12, 9, [200, (number * 25) as u8, 160]).unwrap();
        image.paste(&patch, number * 2, 5);
        image
    };
    (0..6).map(image).collect()
}

fn measured(model: &Autoencoder, judges: Judges, batch_size: usize) -> Evaluation {
    let measuring = Measuring { batch_size, judges };
    evaluate(model, &images(), &measuring, &mut Silent)
        .unwrap()
        .0
}

#[test]
fn codes_that_are_dead_or_near_zero_are_counted() {
    let model = model("kind = 'vector'\ncodebook_size = 16\ncode_dim = 8\n");
    let evaluation = measured(&model, Judges::default(), 4);
    let [depth] = &evaluation.depths[..] else {
        panic!("one depth")
    };
    assert_eq!(depth.dead, 16 - (depth.usage * 16.0).round() as usize);
    assert_eq!(depth.near_zero, Some(0));
    assert!(evaluation.correlations.is_empty() && evaluation.frechet.is_none());
    // A quantizer without a table has no rows.
    let free = self::model("kind = 'lfq'\nbits = 8\n");
    assert_eq!(
        measured(&free, Judges::default(), 4).depths[0].near_zero,
        None
    );
}

#[test]
fn branches_are_compared_over_all_images_however_they_are_batched() {
    let model = model("kind = 'factorized'\ncodebook_size = 16\ncode_dim = 4\ndepth = 2\n");
    let all = measured(&model, Judges::default(), 6).correlations;
    let [pair] = &all[..] else { panic!("one pair") };
    assert_eq!(pair.depths, [0, 1]);
    assert!((0.0..=1.0).contains(&pair.mean_squared_cosine), "{pair:?}");
    let parts = measured(&model, Judges::default(), 4).correlations;
    let difference = pair.mean_squared_cosine - parts[0].mean_squared_cosine;
    assert!(difference.abs() < 1e-6, "{difference}");
}

#[test]
fn judges_judge_and_refuse_what_they_cannot_see() {
    let file = || {
        let name = "/../../goldens/st_lpips/alex_shift_tolerant_narrow.pth";
        PathBuf::from(format!("{}{name}", env!("CARGO_MANIFEST_DIR")))
    };
    let config = JudgesConfig {
        perceptual: Some(PerceptualConfig::StLpips { file: file() }),
        features: Some(FeatureConfig::StLpips { file: file() }),
    };
    let judges = config.load(&Device::flex()).unwrap();
    let model = model("kind = 'vector'\ncodebook_size = 16\ncode_dim = 8\n");
    let evaluation = measured(&model, judges.clone(), 4);
    assert!(evaluation.perceptual.unwrap() > 0.0);
    let frechet = evaluation.frechet.as_ref().unwrap();
    assert!(frechet.distance > 1e-3, "{frechet:?}");
    assert_eq!(evaluation.too_few().is_some(), frechet.width >= 6);

    // Images against themselves are at no distance.
    let mut meter = Meter::new(model.quantizer());
    let (images, device) = (images(), Device::flex());
    for part in images.chunks(2) {
        meter.judge(&judges, (part, part), &device).unwrap();
    }
    let same = meter.finish().unwrap();
    assert!(same.frechet_distance().unwrap() < 1e-9);
    assert_eq!(same.perceptual, Some(0.0));

    let dot = Image::filled(8, 8, [1, 2, 3]).unwrap();
    let message = judges
        .require_size("dot.png", &dot)
        .unwrap_err()
        .to_string();
    assert!(message.contains("dot.png has 8x8 pixels"), "{message}");
}
