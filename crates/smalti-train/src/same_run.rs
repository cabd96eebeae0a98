//! Whether a folder's run is the one that a configuration asks for.
//!
//! A run leaves `config.toml` in its folder. Checkpoints of another configuration would be gone on with
//! as if they were of this one, and the outcome would be of neither; so everything must be the same but
//! for what says how long a run is and when it looks: those may change on the way.

use std::collections::BTreeMap;
use std::path::Path;

use crate::checkpoint;
use crate::config::RunConfig;
use crate::error::TrainError;
use crate::trainer::RunFolder;

/// Settings, or tables of settings, that may differ.
const CHANGEABLE: [&str; 7] = [
    "data.strict",
    "sampling",
    "training.steps",
    "training.evaluate_every",
    "training.checkpoint_every",
    "training.keep_checkpoints",
    "training.log_every",
];

/// Differences that a message lists.
const LISTED: usize = 12;

/// Refuses to carry `config` out in a folder in which a run of another configuration left checkpoints or
/// a model. `asked` names the configuration in the message.
///
/// # Errors
/// Names both files and what differs; also when the folder's own configuration is gone or cannot be
/// read.
pub fn require_same_run(config: &RunConfig, asked: &Path, folder: &Path) -> Result<(), TrainError> {
    let run = RunFolder(folder.to_owned());
    let begun = !checkpoint::list(&run.checkpoints())?.is_empty() || run.model().exists();
    if !begun {
        return Ok(());
    }
    let path = run.config();
    if !path.is_file() {
        let problem =
            "the folder holds checkpoints, but no config.toml that says of which run they are";
        return Err(TrainError::layout(folder, problem));
    }
    let differences = differences(&RunConfig::read(&path, &[])?, config);
    match differences.is_empty() {
        true => Ok(()),
        false => Err(TrainError::OtherRun {
            asked: asked.into(),
            existing: path,
            differences,
        }),
    }
}

/// What differs between the configuration of a run and the one asked for, a line each.
fn differences(there: &RunConfig, asked: &RunConfig) -> Vec<String> {
    let [there, asked] = [there, asked].map(leaves);
    let of = |leaves: &BTreeMap<String, String>, name: &str| {
        leaves.get(name).map_or("not set", |value| value).to_owned()
    };
    let names: std::collections::BTreeSet<&String> = there.keys().chain(asked.keys()).collect();
    let differing = names
        .into_iter()
        .filter(|name| there.get(*name) != asked.get(*name) && !is_changeable(name));
    let mut lines: Vec<String> = differing
        .map(|name| {
            let (there, asked) = (of(&there, name), of(&asked, name));
            format!("{name}: {there} there, {asked} asked for")
        })
        .collect();
    if lines.len() > LISTED {
        let more = lines.len() - LISTED;
        lines.truncate(LISTED);
        lines.push(format!("… and {more} more"));
    }
    lines
}

fn is_changeable(name: &str) -> bool {
    CHANGEABLE.iter().any(|changeable| {
        let rest = name.strip_prefix(changeable);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

/// The values of a configuration by their dotted names.
fn leaves(config: &RunConfig) -> BTreeMap<String, String> {
    fn walk(name: String, value: &toml::Value, leaves: &mut BTreeMap<String, String>) {
        match value {
            toml::Value::Table(table) => {
                for (key, value) in table {
                    let inner = match name.is_empty() {
                        true => key.clone(),
                        false => format!("{name}.{key}"),
                    };
                    walk(inner, value, leaves);
                }
            }
            value => {
                leaves.insert(name, value.to_string());
            }
        }
    }
    let table = toml::Value::try_from(config).expect("a configuration is a table");
    let mut leaves = BTreeMap::new();
    walk(String::new(), &table, &mut leaves);
    leaves
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECIPE: &str = include_str!("../../../configs/emoji-tokenizer.toml");

    fn config(settings: &[&str]) -> RunConfig {
        let settings: Vec<String> = settings.iter().map(|s| (*s).to_owned()).collect();
        RunConfig::parse(RECIPE, &settings, Path::new("recipe")).unwrap()
    }

    /// A folder whose run of these settings has a checkpoint.
    fn begun(settings: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder(folder.path().to_owned());
        std::fs::write(run.config(), config(settings).to_toml()).unwrap();
        std::fs::create_dir(run.checkpoints()).unwrap();
        std::fs::write(run.checkpoints().join("step-00000007.safetensors"), "").unwrap();
        folder
    }

    fn refused(settings: &[&str], folder: &Path) -> String {
        let error = require_same_run(&config(settings), Path::new("mine.toml"), folder);
        error.unwrap_err().to_string()
    }

    #[test]
    fn what_differs_is_listed_with_both_values_and_both_files() {
        let folder = begun(&["optimizer.learning_rate=0.5", "seed=7"]);
        let message = refused(
            &["seed=8", "data.eval_source={kind='emoji'}"],
            folder.path(),
        );
        let existing = folder.path().join("config.toml").display().to_string();
        for part in [
            "mine.toml",
            &existing,
            "\n  optimizer.learning_rate: 0.5 there, ",
            "\n  seed: 7 there, 8 asked for",
            "\n  data.eval_source.kind: not set there, \"emoji\" asked for",
        ] {
            assert!(message.contains(part), "{part} is not in {message}");
        }
    }

    #[test]
    fn only_length_and_looking_may_change() {
        let folder = begun(&[]);
        let settings = [
            "training.steps=9999",
            "training.evaluate_every=3",
            "training.checkpoint_every=4",
            "training.keep_checkpoints=9",
            "training.log_every=2",
            "data.strict=true",
        ];
        let same = config(&settings);
        require_same_run(&same, Path::new("mine.toml"), folder.path()).unwrap();
        let message = refused(&["training.batch_size=3"], folder.path());
        assert!(message.contains("training.batch_size"), "{message}");
        assert!(is_changeable("sampling.top_k") && !is_changeable("sampling_rate"));
    }

    #[test]
    fn a_run_that_never_began_is_no_obstacle_and_one_without_its_configuration_is() {
        let folder = begun(&["seed=7"]);
        let run = RunFolder(folder.path().to_owned());
        std::fs::remove_file(run.config()).unwrap();
        let message = refused(&[], folder.path());
        assert!(message.contains("no config.toml"), "{message}");
        std::fs::write(run.config(), config(&["seed=7"]).to_toml()).unwrap();
        std::fs::remove_dir_all(run.checkpoints()).unwrap();
        require_same_run(&config(&[]), Path::new("mine.toml"), folder.path()).unwrap();
    }

    #[test]
    fn long_lists_are_cut() {
        let generator = include_str!("../../../configs/emoji-generator.toml");
        let generator = RunConfig::parse(generator, &[], Path::new("recipe")).unwrap();
        let lines = differences(&config(&[]), &generator);
        assert_eq!(lines.len(), LISTED + 1);
        assert!(lines[LISTED].starts_with("… and "), "{lines:?}");
    }
}
