//! Sections: a heading and the blocks below it, in the order in which they were added.
//!
//! Charts that follow each other stand two in a row where there is room; a chart that is left over takes the whole width.

use super::{
    bars::BarChart,
    chart::LineChart,
    gallery::{Gallery, SampleGrid},
    histogram::Histogram,
    html::escape,
    table::Table,
};

/// What a section holds. Every kind converts into it: `section.add(table)`.
#[derive(Debug, Clone)]
pub enum Block {
    /// A paragraph of plain text.
    Paragraph(String),
    /// Text as it stands, folded away below a summary line: a configuration, a log.
    Folded {
        /// The line that is always visible.
        summary: String,
        /// The text, its line breaks and spaces kept.
        text: String,
    },
    /// A table.
    Table(Table),
    /// A line chart.
    LineChart(LineChart),
    /// A histogram.
    Histogram(Histogram),
    /// A bar chart.
    BarChart(BarChart),
    /// Pictures side by side.
    Gallery(Gallery),
    /// Samples in labelled rows.
    SampleGrid(SampleGrid),
}

macro_rules! block_from {
    ($($kind:ident),*) => {
        $(impl From<$kind> for Block {
            fn from(block: $kind) -> Self {
                Self::$kind(block)
            }
        })*
    };
}
block_from!(Table, LineChart, Histogram, BarChart, Gallery, SampleGrid);

impl Block {
    fn is_chart(&self) -> bool {
        matches!(
            self,
            Self::LineChart(_) | Self::Histogram(_) | Self::BarChart(_)
        )
    }

    fn html(&self, is_alone: bool) -> String {
        match self {
            Self::Paragraph(text) => format!("<p>{}</p>\n", escape(text)),
            Self::Folded { summary, text } => folded(summary, text),
            Self::Table(table) => table.html(),
            Self::LineChart(chart) => chart.html(is_alone),
            Self::Histogram(histogram) => histogram.html(is_alone),
            Self::BarChart(bars) => bars.html(),
            Self::Gallery(gallery) => gallery.html(),
            Self::SampleGrid(grid) => grid.html(),
        }
    }
}

/// Text folded away below a summary line.
pub(super) fn folded(summary: &str, text: &str) -> String {
    // A parser drops one line break after <pre>; this one, not the text's own.
    format!(
        "<details>\n<summary>{}</summary>\n<pre>\n{}</pre>\n</details>\n",
        escape(summary),
        escape(text)
    )
}

/// A heading and what stands below it.
#[derive(Debug, Clone)]
pub struct Section {
    heading: String,
    blocks: Vec<Block>,
}

impl Section {
    pub(super) fn new(heading: String) -> Self {
        Self {
            heading,
            blocks: Vec::new(),
        }
    }

    /// Adds a paragraph of plain text.
    pub fn paragraph(&mut self, text: impl Into<String>) -> &mut Self {
        self.add(Block::Paragraph(text.into()))
    }

    /// Adds text that is folded away until it is asked for.
    pub fn folded(&mut self, summary: impl Into<String>, text: impl Into<String>) -> &mut Self {
        self.add(Block::Folded {
            summary: summary.into(),
            text: text.into(),
        })
    }

    /// Adds a table, a chart, a gallery or a grid of samples.
    pub fn add(&mut self, block: impl Into<Block>) -> &mut Self {
        self.blocks.push(block.into());
        self
    }

    pub(super) fn heading(&self) -> &str {
        &self.heading
    }

    pub(super) fn html(&self, id: &str) -> String {
        let mut html = format!(
            "<section id=\"{id}\">\n<h2>{}</h2>\n",
            escape(&self.heading)
        );
        for group in self
            .blocks
            .chunk_by(|left, right| left.is_chart() && right.is_chart())
        {
            for row in group.chunks(2) {
                let blocks: String = row.iter().map(|block| block.html(row.len() == 1)).collect();
                html += &match row {
                    [one] if !one.is_chart() => blocks,
                    [_] => format!("<div class=\"charts\">\n{blocks}</div>\n"),
                    _ => format!("<div class=\"charts two\">\n{blocks}</div>\n"),
                };
            }
        }
        html + "</section>\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_charts_share_a_row() {
        let mut section = Section::new("Training".to_owned());
        section.paragraph("a < b");
        section
            .add(BarChart::new("one", "x"))
            .add(BarChart::new("two", "x"));
        section.add(BarChart::new("left over", "x"));
        section
            .paragraph("between")
            .add(BarChart::new("alone", "x"));
        let html = section.html("training");
        assert_eq!(html.matches("<div class=\"charts two\">").count(), 1);
        assert_eq!(html.matches("<div class=\"charts\">").count(), 2);
        assert!(html.contains("<p>a &lt; b</p>"));
    }

    #[test]
    fn folded_text_keeps_its_lines() {
        let mut section = Section::new("Notes".to_owned());
        section.folded("Log", "\nfirst\n  <second>");
        assert!(
            section
                .html("notes")
                .contains("<pre>\n\nfirst\n  &lt;second&gt;</pre>")
        );
    }
}
