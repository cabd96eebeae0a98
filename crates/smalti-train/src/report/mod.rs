//! The report of a run: one HTML file that shows what was trained and how well it does.
//!
//! A page holds a title, facts about the run, key numbers as cards, sections of text, tables, charts and pictures, and the
//! resolved configuration. It is self-contained: no scripts, no fonts, no files beside it, pictures and charts inside; its
//! content security policy forbids anything else. It follows the reader's light or dark theme and fits a phone.
//! All text is escaped. [`Report::render`] gives the page as a string and depends on nothing but the contents: the same
//! run writes the same bytes. Writing the file is the caller's.
//!
//! Options are set by value and chained (`Table`'s columns, [`LineChart::log_y`]); contents are added through `&mut`.
//!
//! ```
//! use smalti_train::report::{KeyNumber, LineChart, Quantity, Report, Series, Value};
//!
//! let mut report = Report::new("Tokenizer of emoji");
//! report.fact("seed", 17_usize);
//! report.key_number(KeyNumber::new("PSNR", Value::number(24.1, 1).unit("dB")).note("96 validation images"));
//! let mut loss = LineChart::new("Reconstruction loss", "step", Quantity::new("loss")).log_y();
//! loss.series(Series::new("train", (1..100).map(|step| (f64::from(step), 1.0 / f64::from(step)))));
//! report.section("Training").paragraph("Two minutes on one processor.").add(loss);
//! let page = report.render();
//! assert!(page.starts_with("<!doctype html>"));
//! ```

mod axis;
mod bars;
mod chart;
mod code_map;
mod gallery;
mod histogram;
mod html;
mod picture;
mod plot;
mod section;
mod series;
mod table;
mod value;

pub use bars::BarChart;
pub use chart::LineChart;
pub use code_map::code_colour;
pub use gallery::{Exhibit, Gallery, SampleGrid};
pub use histogram::Histogram;
pub use picture::{Picture, PictureError};
pub use section::{Block, Section};
pub use series::Series;
pub use table::{Better, Column, Table};
pub use value::{Quantity, Value};

use html::escape;
pub(crate) use html::slug;

/// Name of the page in the folder of what it tells of.
pub const REPORT_FILE: &str = "report.html";

/// From this many sections on, the page has a table of contents.
const CONTENTS_FROM: usize = 3;

/// A number that belongs at the top of the page.
#[derive(Debug, Clone)]
pub struct KeyNumber {
    label: String,
    value: Value,
    note: String,
}

impl KeyNumber {
    /// A card: `KeyNumber::new("PSNR", Value::number(24.1, 1).unit("dB"))`.
    pub fn new(label: impl Into<String>, value: Value) -> Self {
        Self {
            label: label.into(),
            value,
            note: String::new(),
        }
    }

    /// What the number was measured on, in a few words.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    fn html(&self) -> String {
        let mut html = format!(
            "<li><span class=\"label\">{}</span><b>{}</b>",
            escape(&self.label),
            self.value.html()
        );
        if !self.note.is_empty() {
            html += &format!("<span class=\"label\">{}</span>", escape(&self.note));
        }
        html + "</li>\n"
    }
}

/// A report being put together.
#[derive(Debug, Clone)]
pub struct Report {
    title: String,
    subtitle: String,
    facts: Vec<(String, Value)>,
    key_numbers: Vec<KeyNumber>,
    sections: Vec<Section>,
    configuration: String,
}

impl Report {
    /// An empty report.
    pub fn new(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            subtitle: String::new(),
            facts: Vec::new(),
            key_numbers: Vec::new(),
            sections: Vec::new(),
            configuration: String::new(),
        }
    }

    /// Sets the sentence below the title.
    pub fn subtitle(&mut self, subtitle: impl Into<String>) -> &mut Self {
        self.subtitle = subtitle.into();
        self
    }

    /// Adds a line about the run to the head of the page: data, seed, device, duration.
    pub fn fact(&mut self, name: impl Into<String>, value: impl Into<Value>) -> &mut Self {
        self.facts.push((name.into(), value.into()));
        self
    }

    /// Adds a card to the top of the page.
    pub fn key_number(&mut self, number: KeyNumber) -> &mut Self {
        self.key_numbers.push(number);
        self
    }

    /// Begins a section and returns it for its contents.
    pub fn section(&mut self, heading: impl Into<String>) -> &mut Section {
        self.sections.push(Section::new(heading.into()));
        self.sections.last_mut().expect("a section was just added")
    }

    /// Sets the resolved configuration, shown folded at the end of the page.
    pub fn configuration(&mut self, text: impl Into<String>) -> &mut Self {
        self.configuration = text.into();
        self
    }

    /// The whole page.
    pub fn render(&self) -> String {
        let ids = self.section_ids();
        let mut page = self.head();
        page += "<main>\n";
        if !self.key_numbers.is_empty() {
            let cards: String = self.key_numbers.iter().map(KeyNumber::html).collect();
            page += &format!("<ul class=\"cards\">\n{cards}</ul>\n");
        }
        if self.sections.len() >= CONTENTS_FROM {
            page += "<nav aria-label=\"Contents\">\n";
            for (section, id) in self.sections.iter().zip(&ids) {
                page += &format!("<a href=\"#{id}\">{}</a>\n", escape(section.heading()));
            }
            page += "</nav>\n";
        }
        for (section, id) in self.sections.iter().zip(&ids) {
            page += &section.html(id);
        }
        if !self.configuration.is_empty() {
            page += &section::folded("Resolved configuration", &self.configuration);
        }
        page + "</main>\n</body>\n</html>\n"
    }

    fn head(&self) -> String {
        let title = escape(&self.title);
        let mut head = format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{title}</title>\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <meta http-equiv=\"Content-Security-Policy\" \
             content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n\
             <style>\n{}</style>\n</head>\n<body>\n<header>\n<h1>{title}</h1>\n",
            include_str!("style.css")
        );
        if !self.subtitle.is_empty() {
            head += &format!("<p>{}</p>\n", escape(&self.subtitle));
        }
        if !self.facts.is_empty() {
            head += "<dl class=\"facts\">\n";
            for (name, value) in &self.facts {
                head += &format!(
                    "<div><dt>{}</dt><dd>{}</dd></div>\n",
                    escape(name),
                    value.html()
                );
            }
            head += "</dl>\n";
        }
        head + "</header>\n"
    }

    /// One `id` a section, made unique with a number where headings repeat.
    fn section_ids(&self) -> Vec<String> {
        let mut ids: Vec<String> = Vec::with_capacity(self.sections.len());
        for section in &self.sections {
            let base = slug(section.heading());
            let unique = (2..)
                .map(|number| format!("{base}-{number}"))
                .find(|numbered| !ids.contains(numbered))
                .expect("there are endless numbers");
            ids.push(if ids.contains(&base) { unique } else { base });
        }
        ids
    }
}

#[cfg(test)]
mod tests;
