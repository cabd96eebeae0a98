//! Several tokenizers trained alike and measured alike: which quantizer is best at which rate.
//!
//! A [`ComparisonConfig`] is a base run and a list of entries, which differ in the quantizer (and its
//! losses, and what else a method cannot do without). Every entry states its rate in bits per pixel;
//! the statement is checked before anything is trained, as is everything else that can be. What stands
//! equal by construction: images, network, seed, optimiser, steps. The encoder's last layer is as wide as
//! the quantizer asks for, so a method whose latents are means and variances has a few more parameters.
//!
//! The folder of a comparison holds `config.toml`, one run folder for each entry (named after the entry
//! and a hash of its resolved configuration) and at the end `results.json` and `report.html`. An entry
//! that was measured is not trained again; an entry whose configuration was changed is trained in a
//! new folder beside the old one. A run that diverges is a result, too: it is reported, and the others go on.

mod candidate;
mod config;
mod report;
mod result;
mod trial;

use std::path::{Path, PathBuf};

use burn::tensor::Device;

pub use crate::report::REPORT_FILE;
pub use config::{BaseRun, ComparisonConfig, ComparisonKind, Entry};
pub use result::{EntryResult, Measured, Outcome, Results};

use crate::error::TrainError;
use crate::observer::Observer;
use crate::run::TokenizerImages;

/// File name of the numbers of a comparison.
pub const RESULTS_FILE: &str = "results.json";

/// How a comparison ended.
#[derive(Clone, Debug, PartialEq)]
pub enum ComparisonOutcome {
    /// All entries have a result; the folder has its results and its report.
    Finished(Results),
    /// Stopped on request, with so many entries done.
    Stopped {
        /// Entries with a result.
        done: usize,
        /// All entries.
        entries: usize,
    },
}

/// Carries out a comparison in `folder`, going on where an earlier call ended.
///
/// # Errors
/// When the configuration is invalid, images cannot be read or files not written.
pub fn compare(
    config: &ComparisonConfig,
    folder: &Path,
    device: &Device,
    observer: &mut dyn Observer,
) -> Result<ComparisonOutcome, TrainError> {
    let candidates = candidate::all(config, device)?;
    let judges_config = config.judges();
    let judges = judges_config.load(device)?;
    std::fs::create_dir_all(folder).map_err(TrainError::io("create", folder))?;
    let text = config.to_toml();
    smalti_data::atomic::write(&folder.join("config.toml"), text.as_bytes())?;
    let images = TokenizerImages::open(&config.base.data, observer)?;
    if let Some(image) = images.eval.first() {
        judges.require_size("an image to measure on", image)?;
    }
    let mut results = Results::new(images.eval.len());
    for (number, candidate) in candidates.iter().enumerate() {
        let trial = trial::Trial {
            candidate,
            folder: folder.join(&candidate.folder),
            place: format!("{} of {}", number + 1, candidates.len()),
            judges: (&judges_config, &judges),
        };
        match trial.result(&images, device, observer)? {
            Some(result) => results.entries.push(result),
            None => {
                return Ok(ComparisonOutcome::Stopped {
                    done: number,
                    entries: candidates.len(),
                });
            }
        }
    }
    results.write(&folder.join(RESULTS_FILE))?;
    let page = report::Page {
        config,
        results: &results,
        folder,
        device,
    };
    smalti_data::atomic::write(
        &folder.join(REPORT_FILE),
        page.render(&images.eval)?.as_bytes(),
    )?;
    note_old_runs(folder, &candidates, observer);
    Ok(ComparisonOutcome::Finished(results))
}

/// Names run folders of earlier configurations: they are kept, and nothing else tells of them.
fn note_old_runs(folder: &Path, candidates: &[candidate::Candidate], observer: &mut dyn Observer) {
    let Ok(found) = std::fs::read_dir(folder) else {
        return;
    };
    let mut old: Vec<PathBuf> = found
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join("config.toml").is_file())
        .filter(|path| candidates.iter().all(|c| !path.ends_with(&c.folder)))
        .collect();
    old.sort();
    for path in old {
        observer.note(&format!(
            "{} is of an earlier configuration and not part of the results",
            path.display()
        ));
    }
}
