//! Configurations as OmegaConf writes them: YAML in which a value may be `${path.to.another}`.
//!
//! Only a value that is nothing but such a reference, counted from the top of the file, is followed;
//! published configurations use no other form inside their model.

use serde_norway::Value;

/// References that may lead to one another before they are taken for a circle.
const LONGEST_CHAIN: usize = 16;

/// The node at `path` (names joined by dots), with every reference in it replaced by what it names.
///
/// # Errors
/// When the text is no YAML, has no such node, or a reference leads nowhere or in a circle.
pub(super) fn read_node(text: &str, path: &str) -> Result<Value, String> {
    let root: Value = serde_norway::from_str(text).map_err(|e| e.to_string())?;
    let node = find(&root, path).ok_or_else(|| format!("it has no {path}"))?;
    resolve(node, &root, LONGEST_CHAIN)
}

fn find<'a>(root: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(root, |node, name| match node {
        Value::Sequence(items) => items.get(name.parse::<usize>().ok()?),
        _ => node.get(name),
    })
}

fn resolve(node: &Value, root: &Value, left: usize) -> Result<Value, String> {
    match node {
        Value::String(text) => match text.strip_prefix("${").and_then(|t| t.strip_suffix('}')) {
            None => Ok(node.clone()),
            Some(_) if left == 0 => Err(format!("{text} leads in a circle")),
            Some(path) => match find(root, path.trim()) {
                Some(target) => resolve(target, root, left - 1),
                None => Err(format!("{text} leads nowhere")),
            },
        },
        Value::Sequence(items) => {
            let items = items.iter().map(|item| resolve(item, root, left));
            Ok(Value::Sequence(items.collect::<Result<_, _>>()?))
        }
        Value::Mapping(fields) => {
            let fields = fields
                .iter()
                .map(|(name, value)| Ok((name.clone(), resolve(value, root, left)?)));
            Ok(Value::Mapping(fields.collect::<Result<_, String>>()?))
        }
        _ => Ok(node.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
model:
  sizes: [3, 4]
  encoder: { width: 8, name: a }
  decoder: { params: '${model.encoder}', first: '${model.sizes.0}' }
  again: ${model.decoder.first}
  circle: { a: '${model.circle.b}', b: '${model.circle.a}' }
  inside: { itself: '${model.inside}' }
  nowhere: ${model.missing}
  partly: a-${model.sizes.0}
";

    #[test]
    fn references_are_replaced_by_what_they_name() {
        let decoder = read_node(TEXT, "model.decoder").unwrap();
        let encoder = read_node(TEXT, "model.encoder").unwrap();
        assert_eq!(decoder["params"], encoder);
        assert_eq!(decoder["first"], Value::from(3));
        assert_eq!(read_node(TEXT, "model.again").unwrap(), Value::from(3));
        assert_eq!(
            read_node(TEXT, "model.partly").unwrap(),
            Value::from("a-${model.sizes.0}")
        );
    }

    #[test]
    fn references_that_end_nowhere_are_errors() {
        let problem = |path| read_node(TEXT, path).unwrap_err();
        assert!(problem("model.circle").contains("leads in a circle"));
        assert!(problem("model.inside").contains("leads in a circle"));
        assert_eq!(problem("model.nowhere"), "${model.missing} leads nowhere");
        assert_eq!(problem("model.other"), "it has no model.other");
        assert!(read_node("a: [", "a").is_err());
    }
}
