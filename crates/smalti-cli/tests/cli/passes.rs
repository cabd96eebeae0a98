//! `smalti generate` with generators that write whole maps in passes.

use std::path::Path;

use crate::support::{Called, GENERATOR, call, folder, models, smalti};

const DIFFUSION: [&str; 1] = [
    "model={kind = 'diffusion', embed_dim = 16, layers = 1, heads = 2, condition = 'class', process = {steps = 6}}",
];
const MASKED: [&str; 2] = [
    "model={kind = 'masked', embed_dim = 16, layers = 1, heads = 2, condition = 'class'}",
    "sampling={choice_temperature = 4.5, reveal = 'cosine'}",
];

fn train(here: &Path, name: &str, model: &[&str]) {
    let tokenizer = models().tokenizer.display().to_string();
    let config = GENERATOR.replace("TOKENIZER", &tokenizer);
    std::fs::write(here.join("passes.toml"), config).unwrap();
    let settings = ["targets={kind = 'hard'}", "training.steps=8"];
    let settings = settings.iter().chain(model);
    let settings = settings.flat_map(|setting| ["--set", setting]);
    let line = ["train", "passes.toml", "--out", name, "-q"];
    smalti(here, line.into_iter().chain(settings)).succeeded();
}

fn generate(here: &Path, model: &str, more: &str) -> Called {
    let line = format!("generate --model {model} --class Flags --count 4 -o grid.png -q");
    call(here, format!("{line} {more}").trim_end())
}

#[test]
fn passes_are_chosen_on_the_command_line() {
    let here = folder();
    let picture = |model: &str, more: &str| {
        generate(here.path(), model, more).succeeded();
        std::fs::read(here.path().join("grid.png")).unwrap()
    };
    train(here.path(), "diffusion", &DIFFUSION);
    let whole = picture("diffusion", "");
    assert!(whole == picture("diffusion", "--steps 6"));
    assert!(whole != picture("diffusion", "--steps 1"));
    // Eight steps tell classes hardly apart.
    assert!(whole != picture("diffusion", "--guidance 1000"));

    train(here.path(), "masked", &MASKED);
    let usual = picture("masked", "");
    assert!(
        usual
            == picture(
                "masked",
                "--steps 8 --reveal cosine --choice-temperature 4.5"
            )
    );
    for more in [
        "--steps 3",
        "--reveal linear",
        "--choice-temperature 0",
        "--order halton",
        "--order rolled-halton",
    ] {
        assert!(usual != picture("masked", more), "{more}");
    }
    let called = call(here.path(), "inspect masked/model").succeeded();
    let text = called.text();
    assert!(text.starts_with("image generator (MaskGIT)"), "{text}");

    for (model, more, part) in [
        (
            "{generator}",
            "--steps 4",
            "writes its codes one after the other",
        ),
        ("{generator}", "--order halton", "leave order out"),
        ("diffusion", "--steps 7", "steps: expected 1 to 6, got 7"),
        ("diffusion", "--reveal linear", "has no choice to make"),
        ("masked", "--steps 0", "steps: expected 1 to"),
        (
            "masked",
            "--order halton --reveal linear",
            "in a fixed order",
        ),
        (
            "masked",
            "--guidance 2 --guidance-interval 0..3",
            "leave the interval out",
        ),
    ] {
        let called = generate(here.path(), model, more);
        assert_eq!(called.code, Some(2), "{more}");
        assert!(called.stderr.contains(part), "{more}: {}", called.stderr);
    }
}
