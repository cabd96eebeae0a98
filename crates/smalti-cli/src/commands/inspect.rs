//! `smalti inspect`

use std::process::ExitCode;

use super::table;
use crate::arguments::InspectOptions;
use crate::terminal::Terminal;

pub(crate) fn run(options: &InspectOptions, terminal: &Terminal) -> anyhow::Result<ExitCode> {
    let description = smalti::inspect(&options.path)?;
    let text = if options.json {
        let mut object: serde_json::Map<String, serde_json::Value> =
            [("kind".to_owned(), description.kind.into())]
                .into_iter()
                .collect();
        object.extend(
            description
                .facts
                .into_iter()
                .map(|(name, value)| (name, value.into())),
        );
        serde_json::to_string_pretty(&object)? + "\n"
    } else {
        format!("{}\n{}", description.kind, table::facts(&description.facts))
    };
    terminal.data(&text)?;
    Ok(ExitCode::SUCCESS)
}
