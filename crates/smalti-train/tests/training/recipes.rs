//! The recipes in `configs/`.

use std::path::Path;

use smalti_train::{ComparisonConfig, RunConfig};

#[test]
fn every_recipe_is_valid_and_says_what_to_call() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs"));
    let mut recipes = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let command = match text.contains("kind = \"comparison\"") {
            true => {
                ComparisonConfig::read(&path, &[]).unwrap_or_else(|e| panic!("{name}: {e}"));
                "compare"
            }
            false => {
                RunConfig::read(&path, &[]).unwrap_or_else(|e| panic!("{name}: {e}"));
                "train"
            }
        };
        let call = format!("#   smalti {command} configs/{name}");
        assert!(text.contains(&call), "{name} does not say {call:?}");
        recipes += 1;
    }
    assert!(recipes >= 8, "{recipes} recipes");
}
