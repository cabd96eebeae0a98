//! `smalti divergence` and `smalti convert`

use std::path::Path;

use crate::support::{call, folder, names, picture, size};

fn photos(here: &Path) {
    for (name, width, height) in [("a", 40, 32), ("b", 33, 64), ("c", 64, 64)] {
        picture(&here.join(format!("photos/{name}.png")), width, height);
    }
}

#[test]
fn the_divergence_of_a_vae_is_measured_and_drawn() {
    let here = folder();
    photos(here.path());
    let line = "divergence --model {gaussian} photos --largest-bits 8 -o out";
    let called = call(here.path(), line).succeeded();
    let first: Vec<&str> = called.text().lines().collect();
    assert!(
        first[0].starts_with("images") && first[0].ends_with('3'),
        "{}",
        called.text()
    );
    assert!(first[2].contains("2 of 4 channels"), "{}", called.text());
    let header = |name: &str| first.iter().any(|line| line.starts_with(name));
    for name in ["depth", "channel", "log2 K"] {
        assert!(header(name), "{name}: {}", called.text());
    }
    assert!(
        called.stderr.contains("report: out/report.html"),
        "{}",
        called.stderr
    );
    let expected = [
        "divergence.json",
        "group-divergence.svg",
        "group-errors.svg",
        "group-large-errors.svg",
        "large-errors-by-size.svg",
        "large-errors.svg",
        "report.html",
    ];
    assert_eq!(names(&here.path().join("out")), expected);
    // The same study may be repeated, the report of something else is not written over.
    call(here.path(), line).succeeded();
    std::fs::remove_file(here.path().join("out/divergence.json")).unwrap();
    insta::assert_snapshot!(
        "divergence_other_report",
        call(here.path(), line).seen(here.path())
    );
}

#[test]
fn json_has_every_channel_group_and_curve() {
    let here = folder();
    photos(here.path());
    let line = "divergence --model {gaussian} photos --largest-bits 6 --limit 2 --json";
    let called = call(here.path(), line).succeeded();
    let measured: serde_json::Value = serde_json::from_str(called.text()).unwrap();
    assert_eq!(measured["images"], 2);
    // 32 pixels at a factor of 4.
    assert_eq!(measured["positions"], 2 * 64);
    assert_eq!(measured["channels"].as_array().unwrap().len(), 8);
    assert_eq!(measured["groups"].as_array().unwrap().len(), 2);
    let sizes = |curve: &str| measured[curve]["sizes"].as_array().unwrap().len();
    assert_eq!(sizes("scalar_curve"), 7);
    assert_eq!(sizes("group_curve"), 6);
    for size in measured["group_curve"]["sizes"].as_array().unwrap() {
        assert_eq!(size["all"]["count"], 2 * 2 * 64, "{size}");
    }
    for point in measured["scalar_curve"]["points"].as_array().unwrap() {
        let share = |name: &str| point[name].as_f64().unwrap();
        assert!(share("at_least") <= share("exact") + 1e-9, "{point}");
        assert!(share("exact") <= share("at_most") + 1e-9, "{point}");
    }
    assert_eq!(
        names(here.path()).len(),
        3,
        "nothing is written without --out"
    );
}

#[test]
fn a_converted_vae_encodes_decodes_and_evaluates() {
    let here = folder();
    photos(here.path());
    let line = "convert {gaussian} -o tokenizer -k 256 --group 8 --images photos";
    let called = call(here.path(), line).succeeded();
    for part in ["PSNR of the VAE", "tokenizer", "0,1,2,3,4,5,6,7"] {
        assert!(called.text().contains(part), "{}", called.text());
    }
    let expected = [
        "conversion.json",
        "image_tokenizer.json",
        "model.safetensors",
        "report.html",
    ];
    assert_eq!(names(&here.path().join("tokenizer")), expected);
    call(
        here.path(),
        "encode -q --model tokenizer photos/b.png -o b.tokens",
    )
    .succeeded();
    call(here.path(), "decode -q --model tokenizer b.tokens -o b.png").succeeded();
    assert_eq!(size(&here.path().join("b.png")), (33, 64));
    let line = "evaluate --model tokenizer photos --resize 32 --json";
    let called = call(here.path(), line).succeeded();
    let measured: serde_json::Value = serde_json::from_str(called.text()).unwrap();
    assert_eq!(measured["bits_per_pixel"], 0.5);
    let json = std::fs::read(here.path().join("tokenizer/conversion.json")).unwrap();
    let conversion: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let psnr = |value: &serde_json::Value| value["psnr_db"].as_f64().unwrap();
    let before = psnr(&conversion["quality"]["tokenizer"]);
    assert!(
        (before - psnr(&measured)).abs() < 1e-9,
        "{before} {measured}"
    );
    // What came out can be measured and converted again.
    let line = "convert tokenizer -o again -k 16,64 --group 4 --grouping 0,2,4,6,1,3,5,7 --images photos --json";
    let called = call(here.path(), line).succeeded();
    let again: serde_json::Value = serde_json::from_str(called.text()).unwrap();
    assert_eq!(
        again["groups"][1]["channels"],
        serde_json::json!([1, 3, 5, 7])
    );
    assert_eq!(again["groups"][1]["codebook_bits"], 6.0);
    call(
        here.path(),
        "divergence --model again photos --largest-bits 4",
    )
    .succeeded();
}

#[test]
fn published_vaes_are_converted_and_measured() {
    let here = folder();
    photos(here.path());
    let goldens = concat!(env!("CARGO_MANIFEST_DIR"), "/../../goldens");
    for (vae, group) in [
        ("vae_diffusers", 2),
        ("vae_diffusers/ldm_f16.ckpt", 2),
        ("gq_unet/config.yaml", 4),
    ] {
        let out = format!("out-{}", vae.replace(['/', '.'], "-"));
        let line = format!(
            "convert {goldens}/{vae} -o {out} -k 256 --group {group} --resize 32 --images photos --json"
        );
        let called = call(here.path(), &line).succeeded();
        let conversion: serde_json::Value = serde_json::from_str(called.text()).unwrap();
        assert_eq!(conversion["groups"][0]["codebook_bits"], 8.0, "{vae}");
        call(
            here.path(),
            &format!("evaluate --model {out} photos --resize 32"),
        )
        .succeeded();
    }
    let line =
        format!("divergence --model {goldens}/vae_diffusers photos --resize 32 --largest-bits 4");
    let called = call(here.path(), &line).succeeded();
    assert!(
        called.text().contains("1 of 4 channels"),
        "{}",
        called.text()
    );
}

#[test]
fn codes_that_cannot_hold_the_vae_are_warned_of() {
    let here = folder();
    photos(here.path());
    let line =
        "convert {gaussian} -o out -k 2 --group 8 --normalize off --tolerance -1 --images photos";
    let called = call(here.path(), line).succeeded();
    assert!(
        called.stderr.contains("warning: ")
            && called.stderr.contains("theory predicts large errors"),
        "{}",
        called.stderr
    );
}

#[test]
fn what_cannot_be_converted_is_said_so() {
    let here = folder();
    photos(here.path());
    std::fs::create_dir(here.path().join("empty")).unwrap();
    std::fs::create_dir_all(here.path().join("full")).unwrap();
    std::fs::write(here.path().join("full/image_tokenizer.json"), "{}").unwrap();
    for (name, line) in [
        ("no_posterior", "convert {tokenizer} -o out --images photos"),
        ("missing", "convert nowhere -o out --images photos"),
        ("generator", "convert {generator} -o out --images photos"),
        (
            "no_images",
            "convert {gaussian} -o out --group 4 --images empty",
        ),
        (
            "no_folder",
            "convert {gaussian} -o out --group 4 --images nowhere",
        ),
        (
            "a_file",
            "convert {gaussian} -o out --group 4 --images photos/a.png",
        ),
        (
            "group",
            "convert {gaussian} -o out --group 3 --images photos",
        ),
        (
            "size",
            "convert {gaussian} -o out -k 1000 --group 4 --images photos",
        ),
        (
            "order",
            "convert {gaussian} -o out --group 4 --grouping 0,1 --images photos",
        ),
        (
            "side",
            "convert {gaussian} -o out --group 4 --resize 30 --images photos",
        ),
        (
            "full",
            "convert {gaussian} -o full --group 4 --images photos",
        ),
        (
            "word",
            "convert {gaussian} -o out --grouping odd --images photos",
        ),
    ] {
        let called = call(here.path(), line);
        assert!(!here.path().join("out").exists(), "{name}");
        insta::assert_snapshot!(format!("convert_{name}"), called.seen(here.path()));
    }
    let called = call(here.path(), "divergence --model {tokenizer} photos");
    insta::assert_snapshot!("divergence_no_posterior", called.seen(here.path()));
}
