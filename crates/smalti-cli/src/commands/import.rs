//! `smalti import`

use std::process::ExitCode;

use smalti::{
    Device, Observer, Published, PublishedGenerator, PublishedGeneratorLayout, PublishedLayout,
};

use crate::arguments::{ImportOptions, Kind};
use crate::hints::Misuse;
use crate::terminal::Terminal;

pub(crate) fn run(options: &ImportOptions, terminal: &mut Terminal) -> anyhow::Result<ExitCode> {
    // Nothing is computed: the weights only pass through.
    let device = Device::flex();
    let (what, fingerprint, license) = match options.layout.kind() {
        Kind::Tokenizer(layout) => {
            let model = tokenizer(options, layout)?.read(&device)?;
            model.save(&options.out)?;
            ("tokenizer", model.fingerprint, model.description.license)
        }
        Kind::Generator(layout) => {
            let model = generator(options, layout)?.read(&device)?;
            model.save(&options.out)?;
            ("generator", model.fingerprint, model.description.license)
        }
    };
    terminal.note(&format!(
        "{what} {} written to {}; licence of the weights: {license}",
        smalti::model_dir::short(&fingerprint),
        options.out.display(),
    ));
    Ok(ExitCode::SUCCESS)
}

fn tokenizer(options: &ImportOptions, layout: PublishedLayout) -> anyhow::Result<Published> {
    let of_generators = [
        ("--tokenizer", options.tokenizer.is_some()),
        ("--image-size", options.image_size.is_some()),
        ("--heads", options.heads.is_some()),
    ];
    refuse(
        of_generators,
        "this layout is of a tokenizer, this is asked of generators",
    )?;
    refuse_configuration(options, layout.has_configuration())?;
    Ok(Published {
        layout,
        weights: options.weights.clone(),
        config: options.config.clone(),
        license: options.license.clone(),
    })
}

fn generator(
    options: &ImportOptions,
    layout: PublishedGeneratorLayout,
) -> anyhow::Result<PublishedGenerator> {
    refuse_configuration(options, layout.has_configuration())?;
    if layout.has_configuration() {
        let told = [
            ("--image-size", options.image_size.is_some()),
            ("--heads", options.heads.is_some()),
        ];
        refuse(told, "the configuration of this layout tells it")?;
    }
    let Some(tokenizer) = options.tokenizer.clone() else {
        let problem = "--tokenizer: this layout is of a generator; name the folder of the tokenizer whose codes it writes, which `smalti import` makes as well";
        anyhow::bail!(Misuse(problem.into()));
    };
    Ok(PublishedGenerator {
        layout,
        weights: options.weights.clone(),
        config: options.config.clone(),
        tokenizer,
        image_size: options.image_size,
        heads: options.heads,
        license: options.license.clone(),
    })
}

fn refuse_configuration(options: &ImportOptions, has_one: bool) -> anyhow::Result<()> {
    let given = options.config.is_some() && !has_one;
    refuse(
        [("--config", given)],
        "files of this layout have no configuration beside them",
    )
}

/// Refuses the first of some options that was given.
fn refuse<const N: usize>(options: [(&str, bool); N], why: &str) -> anyhow::Result<()> {
    match options.iter().find(|(_, given)| *given) {
        Some((name, _)) => anyhow::bail!(Misuse(format!("{name}: {why}"))),
        None => Ok(()),
    }
}
