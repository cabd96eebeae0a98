//! `smalti compare`: what it prints and leaves, what it does not do twice, what it refuses.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Called, TOKENIZER, call, folder, names, program, smalti};

const ENTRIES: &str = r#"
[[entry]]
name = "RQ"
rate = 0.25
quantizer = { kind = "residual", codebook_size = 4, code_dim = 8, depth = 2 }
losses = { commitment = 0.25 }

[[entry]]
name = "RQ"
rate = 0.5
quantizer = { kind = "residual", codebook_size = 16, code_dim = 8, depth = 2 }
losses = { commitment = 0.25 }

[[entry]]
name = "VQ"
rate = 0.25
quantizer = { kind = "vector", codebook_size = 16, code_dim = 8 }
losses = { commitment = 0.25 }
"#;

/// The tests' tokenizer as the base of a comparison of three.
fn config() -> String {
    let start = TOKENIZER.find("[model.quantizer]").unwrap();
    let end = TOKENIZER.find("[losses]").unwrap();
    let base = [&TOKENIZER[..start], &TOKENIZER[end..]].concat();
    let base = base
        .replace("kind = \"tokenizer\"\n", "kind = \"comparison\"\n[base]\n")
        .replace("commitment = 0.25\n", "")
        .replace("steps = 40", "steps = 3");
    let tables = ["data", "model.network", "losses", "optimizer", "training"];
    let base = tables.iter().fold(base, |text, table| {
        text.replace(&format!("\n[{table}]\n"), &format!("\n[base.{table}]\n"))
    });
    base + ENTRIES
}

fn results(run: &Path) -> Value {
    let text = std::fs::read_to_string(run.join("results.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The folders of the runs in a comparison's folder.
fn runs(folder: &Path) -> Vec<String> {
    let mut found: Vec<String> = names(folder)
        .into_iter()
        .filter_map(|name| Some(name.strip_suffix("/config.toml")?.to_owned()))
        .collect();
    found.sort();
    found
}

/// Measures of all entries, without the times.
fn measures(run: &Path) -> Vec<Value> {
    let entries = results(run)["entries"].as_array().unwrap().clone();
    entries
        .into_iter()
        .map(|mut entry| {
            entry.as_object_mut().unwrap().remove("training_seconds");
            entry
        })
        .collect()
}

#[test]
fn entries_are_trained_measured_and_shown_once() {
    let here = folder();
    std::fs::write(here.path().join("compare.toml"), config()).unwrap();
    let called = call(here.path(), "compare compare.toml").succeeded();
    let run = here.path().join("runs/compare");
    let lines: Vec<Vec<&str>> = called
        .text()
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(lines[0][..4], ["method", "rate", "entropy", "PSNR"]);
    let order: Vec<&[&str]> = lines[1..4].iter().map(|line| &line[..2]).collect();
    assert_eq!(order, [["RQ", "0.250"], ["VQ", "0.250"], ["RQ", "0.500"]]);
    assert_eq!(lines[5], ["results", "runs/compare/results.json"]);
    assert_eq!(lines[6], ["report", "runs/compare/report.html"]);
    assert!(
        called
            .stderr
            .contains("training the tokenizer, VQ at 0.25, 3 of 3"),
        "{}",
        called.stderr
    );

    let first = results(&run);
    assert_eq!(first["images"], 8);
    let entries = first["entries"].as_array().unwrap();
    for entry in entries {
        assert_eq!(entry["outcome"], "measured");
        let rate = entry["evaluation"]["bits_per_pixel"].as_f64().unwrap();
        assert_eq!(entry["rate"].as_f64().unwrap(), rate);
        assert!(entry["training_seconds"].as_f64().unwrap() > 0.0);
        assert!(
            run.join(entry["folder"].as_str().unwrap())
                .join("model")
                .is_dir()
        );
    }
    // Codebooks that learn by moving averages are no parameters: the networks are equal.
    assert_eq!(entries[0]["parameters"], entries[1]["parameters"]);
    assert_eq!(entries[0]["parameters"], entries[2]["parameters"]);
    let report = std::fs::read_to_string(run.join("report.html")).unwrap();
    for part in [
        "PSNR over rate",
        "<svg",
        "Originals and reconstructions at 0.5",
        "4\u{a0}×\u{a0}2",
        "commitment",
    ] {
        assert!(report.contains(part), "{part}");
    }

    // A second call measures nothing again.
    let called = call(here.path(), "compare compare.toml").succeeded();
    assert_eq!(
        called.stderr.matches("already measured").count(),
        3,
        "{}",
        called.stderr
    );
    assert!(
        !called.stderr.contains("training the tokenizer"),
        "{}",
        called.stderr
    );
    assert_eq!(results(&run), first);

    // A changed entry is trained anew, beside its old run.
    let changed = config().replace(
        "codebook_size = 16, code_dim = 8 }",
        "codebook_size = 16, code_dim = 4 }",
    );
    std::fs::write(here.path().join("compare.toml"), changed).unwrap();
    let called = call(here.path(), "compare compare.toml").succeeded();
    assert_eq!(
        called.stderr.matches("already measured").count(),
        2,
        "{}",
        called.stderr
    );
    assert!(
        called.stderr.contains("is of an earlier configuration"),
        "{}",
        called.stderr
    );
    assert_eq!(runs(&run).len(), 4);
    let again = results(&run);
    assert_eq!(again["entries"][0], first["entries"][0]);
    assert_ne!(again["entries"][2]["folder"], first["entries"][2]["folder"]);
}

#[test]
fn judges_add_columns_and_train_nothing_again() {
    let here = folder();
    std::fs::write(here.path().join("compare.toml"), config()).unwrap();
    let plain = call(here.path(), "compare compare.toml --out run").succeeded();
    assert!(!plain.text().contains("perceptual"), "{}", plain.text());
    let first = results(&here.path().join("run"));

    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../goldens/st_lpips/alex_shift_tolerant_narrow.pth"
    );
    let network = format!("{{ kind = \"st_lpips\", file = {file:?} }}");
    let judges = format!("\n[evaluation]\nperceptual = {network}\nfeatures = {network}\n");
    std::fs::write(here.path().join("compare.toml"), config() + &judges).unwrap();
    let judged = call(here.path(), "compare compare.toml --out run").succeeded();
    assert_eq!(
        judged.stderr.matches("judged anew").count(),
        3,
        "{}",
        judged.stderr
    );
    assert!(!judged.stderr.contains("training the tokenizer"));
    let header = judged.text().lines().next().unwrap();
    assert!(header.contains("perceptual  Fréchet"), "{header}");
    let second = results(&here.path().join("run"));
    for (before, after) in (0..3).map(|i| (&first["entries"][i], &second["entries"][i])) {
        assert_eq!(before["training_seconds"], after["training_seconds"]);
        assert_eq!(
            before["evaluation"]["psnr_db"],
            after["evaluation"]["psnr_db"]
        );
        assert!(before["evaluation"]["perceptual"].is_null());
        assert!(after["evaluation"]["perceptual"].as_f64().unwrap() > 0.0);
        assert!(after["evaluation"]["frechet"]["distance"].as_f64().unwrap() > 0.0);
    }
    let report = std::fs::read_to_string(here.path().join("run/report.html")).unwrap();
    for part in [
        "perceptual distance over rate",
        "Fréchet distance over rate",
        "it is no FID",
    ] {
        assert!(report.contains(part), "{part}");
    }
    let again = call(here.path(), "compare compare.toml --out run").succeeded();
    assert_eq!(again.stderr.matches("already measured").count(), 3);

    // A network that cannot be read is told before anything is trained.
    let broken = judges.replace(file, "nowhere.pth");
    std::fs::write(here.path().join("compare.toml"), config() + &broken).unwrap();
    let called = call(here.path(), "compare compare.toml --out other");
    assert_eq!(called.code, Some(1));
    assert!(called.stderr.contains("nowhere.pth"), "{}", called.stderr);
    assert!(!called.stderr.contains("training the tokenizer"));
}

#[cfg(unix)]
#[test]
fn an_interrupted_comparison_goes_on_and_ends_alike() {
    let (here, whole) = (folder(), folder());
    for place in [&here, &whole] {
        std::fs::write(place.path().join("compare.toml"), config()).unwrap();
    }
    let line = "compare compare.toml --out run --set base.training.steps=30";
    let child = program(here.path())
        .args(line.split(' '))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Within the second of three runs.
    let run = here.path().join("run");
    let steps = || {
        let journals = names(&run)
            .into_iter()
            .filter(|name| name.ends_with("metrics.jsonl"));
        let lines = |name: String| {
            std::fs::read_to_string(run.join(name)).map_or(0, |text| text.lines().count())
        };
        journals.map(lines).sum::<usize>()
    };
    while !run.exists() || steps() < 40 {
        std::thread::sleep(Duration::from_millis(2));
    }
    let pid = child.id().to_string();
    assert!(
        std::process::Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .unwrap()
            .success()
    );
    let called = Called::from(child.wait_with_output().unwrap());
    assert_eq!(
        (called.code, called.text()),
        (Some(1), ""),
        "{}",
        called.stderr
    );
    assert!(
        called
            .stderr
            .ends_with("stopped with 1 of 3 entries measured; the same command goes on\n"),
        "{}",
        called.stderr
    );
    assert!(!run.join("results.json").exists());
    let called = call(here.path(), line).succeeded();
    assert_eq!(called.stderr.matches("already measured").count(), 1);
    assert_eq!(
        called.stderr.matches("resuming after step").count(),
        1,
        "{}",
        called.stderr
    );
    call(whole.path(), line).succeeded();
    assert_eq!(measures(&run), measures(&whole.path().join("run")));
}

#[test]
fn what_diverges_is_reported_and_the_others_go_on() {
    let here = folder();
    let text = config().replacen("depth = 2 }\n", "depth = 2 }\nlearning_rate = 1e30\n", 1);
    std::fs::write(here.path().join("compare.toml"), text).unwrap();
    let called = call(here.path(), "compare compare.toml --out run -q");
    assert_eq!(called.code, Some(1));
    assert!(
        called.stderr.starts_with("warning: RQ at 0.25 diverged: "),
        "{}",
        called.stderr
    );
    let run = here.path().join("run");
    let outcomes: Vec<Value> = results(&run)["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["outcome"].clone())
        .collect();
    assert_eq!(outcomes, ["diverged", "measured", "measured"]);
    let report = std::fs::read_to_string(run.join("report.html")).unwrap();
    assert!(report.contains("RQ at 0.25 diverged: "));
}

#[test]
fn wrong_comparisons_are_explained_before_anything_is_trained() {
    let here = folder();
    let text = config();
    let cases = [
        ("rate", "rate = 0.5", "rate = 0.75"),
        (
            "losses",
            "losses = { commitment = 0.25 }\n\n[[entry]]\nname = \"VQ\"",
            "\n[[entry]]\nname = \"VQ\"",
        ),
        ("weight", "[base.losses]", "[base.losses]\nperceptual = 1.0"),
        (
            "twice",
            "name = \"RQ\"\nrate = 0.5",
            "name = \"RQ\"\nrate = 0.25",
        ),
        ("steps", "steps = 3", "steps = 0"),
        ("override", "name = \"VQ\"", "name = \"VQ\"\nsteps = 5"),
        ("network", "blocks = 1", "blokcs = 1"),
        ("kind", "kind = \"comparison\"", "kind = \"tokenizer\""),
    ];
    for (name, from, to) in cases {
        assert!(text.contains(from), "{from}");
        std::fs::write(here.path().join("compare.toml"), text.replacen(from, to, 1)).unwrap();
        let called = call(here.path(), "compare compare.toml -q --out run");
        insta::assert_snapshot!(format!("compare_{name}"), called.seen(here.path()));
    }
    assert!(!here.path().join("run").exists());
    std::fs::write(here.path().join("compare.toml"), text).unwrap();
    let called = smalti(here.path(), ["train", "compare.toml"]);
    insta::assert_snapshot!("compare_with_train", called.seen(here.path()));
}
