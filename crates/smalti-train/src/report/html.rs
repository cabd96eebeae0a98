//! Escaping: the one way by which text from outside reaches the page.
//!
//! Everything a caller passes (titles, captions, class names, file names, configuration) goes through [`escape`], both
//! as element text and inside double-quoted attributes. Control characters that HTML forbids become U+FFFD.

/// Escapes `text` for use as element text and inside a double-quoted attribute.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(character),
            _ if is_forbidden(character) => escaped.push('\u{FFFD}'),
            _ => escaped.push(character),
        }
    }
    escaped
}

/// `text` on one line and without forbidden characters, for what plotters escapes itself.
pub(super) fn one_line(text: &str) -> String {
    let clean = |character| match character {
        '\n' | '\t' => ' ',
        _ if is_forbidden(character) => '\u{FFFD}',
        _ => character,
    };
    text.chars().map(clean).collect()
}

/// Characters that an HTML document must not contain: controls and noncharacters.
fn is_forbidden(character: char) -> bool {
    let code = character as u32;
    character.is_control() || (0xFDD0..=0xFDEF).contains(&code) || code & 0xFFFE == 0xFFFE
}

/// An `id` or the name of a folder made from a heading: lower-case ASCII letters and digits, joined by single hyphens.
pub(crate) fn slug(heading: &str) -> String {
    let lower = heading.to_ascii_lowercase();
    let words: Vec<&str> = lower
        .split(|character: char| !character.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect();
    if words.is_empty() {
        "section".to_owned()
    } else {
        words.join("-")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_characters_are_escaped() {
        assert_eq!(
            escape(r#"<a href="x" id='y'>&</a>"#),
            "&lt;a href=&quot;x&quot; id=&#39;y&#39;&gt;&amp;&lt;/a&gt;"
        );
    }

    #[test]
    fn ordinary_text_stays_as_it_is() {
        let text = "Größe 32 × 32, 猫 🦊\n\tindented";
        assert_eq!(escape(text), text);
    }

    #[test]
    fn forbidden_characters_are_replaced() {
        assert_eq!(
            escape("a\0b\u{1b}c\rd\u{85}e\u{fffe}"),
            "a\u{FFFD}b\u{FFFD}c\u{FFFD}d\u{FFFD}e\u{FFFD}"
        );
    }

    #[test]
    fn one_line_keeps_markup_for_the_next_escape() {
        assert_eq!(one_line("a\n<b>\0"), "a <b>\u{FFFD}");
    }

    #[test]
    fn slugs_are_plain() {
        assert_eq!(slug("Stage 1: the tokenizer"), "stage-1-the-tokenizer");
        assert_eq!(slug("猫"), "section");
    }
}
