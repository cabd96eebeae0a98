//! JSON files for people and programs: indented, ending in a line break, whole or not at all.

use std::path::Path;

use serde::Serialize;

use crate::error::TrainError;

/// Writes a value that has a representation in JSON, as all descriptions and results here do.
pub(crate) fn write(path: &Path, value: &impl Serialize) -> Result<(), TrainError> {
    let mut json = serde_json::to_vec_pretty(value).expect("descriptions and results serialise");
    json.push(b'\n');
    Ok(smalti_data::atomic::write(path, &json)?)
}
