//! Ctrl-C and kills in the middle of a training.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::support::{Called, TOKENIZER, call, folder, names, program};

/// Starts a training and waits until it has taken `steps` steps.
fn start(folder: &Path, settings: &[&str], steps: usize) -> Child {
    std::fs::write(folder.join("config.toml"), TOKENIZER).unwrap();
    let mut command = program(folder);
    command
        .args(["train", "config.toml", "--out", "run"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    for setting in settings {
        command.args(["--set", setting]);
    }
    let mut child = command.spawn().unwrap();
    let journal = folder.join("run/metrics.jsonl");
    let lines = || std::fs::read_to_string(&journal).map_or(0, |text| text.lines().count());
    while lines() < steps {
        assert!(
            child.try_wait().unwrap().is_none(),
            "the training ended before it was interrupted"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
    child
}

#[cfg(unix)]
#[test]
fn ctrl_c_writes_a_checkpoint_and_says_how_to_go_on() {
    let here = folder();
    let child = start(
        here.path(),
        &[
            "training.steps=1000000",
            "training.checkpoint_every=1000000",
        ],
        3,
    );
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
    let checkpoints = names(&here.path().join("run/checkpoints"));
    let [checkpoint] = &checkpoints[..] else {
        panic!("{checkpoints:?}")
    };
    let step: u64 = checkpoint
        .trim_start_matches("step-")
        .trim_end_matches(".safetensors")
        .parse()
        .unwrap();
    let message = format!(
        "stopped after step {step}; the checkpoint is run/checkpoints/{checkpoint}\ngo on with: smalti train --resume run\n"
    );
    assert!(called.stderr.ends_with(&message), "{}", called.stderr);
    assert!(!here.path().join("run/model").exists());
    let called = call(
        here.path(),
        &format!("train --resume run --set training.steps={}", step + 1),
    )
    .succeeded();
    assert!(
        called
            .stderr
            .contains(&format!("resuming after step {step} from")),
        "{}",
        called.stderr
    );
}

#[test]
fn a_killed_run_ends_in_the_same_model_as_one_that_was_not() {
    let here = folder();
    let whole = folder();
    let settings = [
        "training.steps=35",
        "training.accumulate=2",
        "training.average={decay = 0.9}",
    ];
    // Between the checkpoints after 21 and 28 steps.
    let mut child = start(here.path(), &settings, 23);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(
        !here.path().join("run/model").exists(),
        "the training ended before it was killed"
    );
    assert!(!names(&here.path().join("run/checkpoints")).is_empty());
    call(here.path(), "train --resume run -q").succeeded();

    let child = start(whole.path(), &settings, 1);
    Called::from(child.wait_with_output().unwrap()).succeeded();
    let read = |folder: &Path, name: &str| std::fs::read(folder.join("run").join(name)).unwrap();
    for name in [
        "model/image_tokenizer.json",
        "model/model.safetensors",
        "metrics.jsonl",
        "checkpoints/step-00000035.safetensors",
    ] {
        assert!(
            read(here.path(), name) == read(whole.path(), name),
            "{name} differs"
        );
    }
}
