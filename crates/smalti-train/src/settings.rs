//! Reading a configuration file of any kind, with settings of the command line put into it first.

use std::path::Path;

use serde::de::DeserializeOwned;

use crate::error::TrainError;

/// Reads `text`, after setting the given `key.path = value` pairs in it; `path` names it in errors.
/// Without settings `placed` does the reading, whose errors show the line they are about; a table
/// that was changed has no lines.
///
/// # Errors
/// When the text or a setting is malformed.
pub(crate) fn parse<T: DeserializeOwned>(
    text: &str,
    settings: &[String],
    path: &Path,
    placed: impl FnOnce(&str) -> Result<T, toml::de::Error>,
) -> Result<T, TrainError> {
    let syntax = |reason: String| TrainError::ConfigSyntax {
        path: path.into(),
        reason: reason.trim_end().into(),
    };
    if settings.is_empty() {
        return placed(text).map_err(|e| syntax(e.to_string()));
    }
    let mut table: toml::Table = toml::from_str(text).map_err(|e| syntax(e.to_string()))?;
    for setting in settings {
        apply(&mut table, setting).map_err(syntax)?;
    }
    table
        .try_into()
        .map_err(|e: toml::de::Error| syntax(e.to_string()))
}

/// Sets `key.path=value` in a table. The value is TOML; what is not is taken as a string.
fn apply(table: &mut toml::Table, setting: &str) -> Result<(), String> {
    let (path, value) = setting
        .split_once('=')
        .ok_or_else(|| format!("--set {setting}: expected key.path=value"))?;
    let value = value.trim();
    let value = toml::from_str::<toml::Table>(&format!("value = {value}"))
        .ok()
        .and_then(|mut parsed| parsed.remove("value"))
        .unwrap_or_else(|| toml::Value::String(value.to_owned()));
    let mut keys: Vec<&str> = path.split('.').map(str::trim).collect();
    let last = keys
        .pop()
        .filter(|key| !key.is_empty())
        .ok_or_else(|| format!("--set {setting}: the key is empty"))?;
    let mut place = table;
    for key in keys {
        let entry = place
            .entry(key.to_owned())
            .or_insert_with(|| toml::Value::Table(toml::Table::new()));
        place = entry
            .as_table_mut()
            .ok_or_else(|| format!("--set {setting}: {key} is not a table"))?;
    }
    place.insert(last.to_owned(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_reach_nested_keys_and_guess_strings() {
        let mut table: toml::Table = toml::from_str("[training]\nsteps = 5").unwrap();
        for setting in [
            "training.steps = 7",
            "seed=3",
            "tokenizer=runs/a/model",
            "optimizer.betas=[0.5, 0.9]",
        ] {
            apply(&mut table, setting).unwrap();
        }
        assert_eq!(table["training"]["steps"].as_integer(), Some(7));
        assert_eq!(table["seed"].as_integer(), Some(3));
        assert_eq!(table["tokenizer"].as_str(), Some("runs/a/model"));
        assert_eq!(table["optimizer"]["betas"][0].as_float(), Some(0.5));
        assert!(
            apply(&mut table, "seed.x=1")
                .unwrap_err()
                .contains("seed is not a table")
        );
        assert!(
            apply(&mut table, "nothing")
                .unwrap_err()
                .contains("key.path=value")
        );
    }
}
