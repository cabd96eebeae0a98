//! `smalti import`

use std::process::ExitCode;

use smalti::{Device, Observer, Published, PublishedLayout};

use crate::arguments::ImportOptions;
use crate::hints::Misuse;
use crate::terminal::Terminal;

pub(crate) fn run(options: &ImportOptions, terminal: &mut Terminal) -> anyhow::Result<ExitCode> {
    let layout = PublishedLayout::from(options.layout);
    if options.config.is_some() && !layout.has_configuration() {
        let problem = "--config: files of this layout have no configuration beside them";
        anyhow::bail!(Misuse(problem.into()));
    }
    let published = Published {
        layout,
        weights: options.weights.clone(),
        config: options.config.clone(),
        license: options.license.clone(),
    };
    // Nothing is computed: the weights only pass through.
    let model = published.read(&Device::flex())?;
    model.save(&options.out)?;
    terminal.note(&format!(
        "tokenizer {} written to {}; licence of the weights: {}",
        smalti::model_dir::short(&model.fingerprint),
        options.out.display(),
        model.description.license
    ));
    Ok(ExitCode::SUCCESS)
}
