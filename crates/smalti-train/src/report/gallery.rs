//! Galleries: pictures side by side with what was measured on them, and grids of samples in labelled rows.
//!
//! A [`Gallery`] holds exhibits: one image, its reconstruction, perhaps its code maps, and below them a name and values
//! such as the PSNR. A [`SampleGrid`] has a label for each row, for pictures that were generated class by class. Both wrap
//! to the width of the screen.

use super::{html::escape, picture::Picture, value::Value};

/// Shown pixels of the longer side of a picture in a gallery, about.
const EXHIBIT_SIDE: u32 = 128;
/// Shown pixels of the longer side of a sample in a grid, about.
const SAMPLE_SIDE: u32 = 64;

/// Pictures that belong together, with a name and values.
#[derive(Debug, Clone)]
pub struct Exhibit {
    name: String,
    pictures: Vec<(String, Picture)>,
    values: Vec<(String, Value)>,
}

impl Exhibit {
    /// Nothing on show yet.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            pictures: Vec::new(),
            values: Vec::new(),
        }
    }

    /// Adds a picture and what it is: "original", "reconstruction", "codes, depth 1".
    pub fn picture(mut self, label: impl Into<String>, picture: Picture) -> Self {
        self.pictures.push((label.into(), picture));
        self
    }

    /// Adds what was measured: `("PSNR", Value::number(24.1, 1).unit("dB"))`.
    pub fn value(mut self, name: impl Into<String>, value: Value) -> Self {
        self.values.push((name.into(), value));
        self
    }

    fn html(&self) -> String {
        let mut html = String::from("<figure class=\"exhibit\">\n<div>\n");
        for (label, picture) in &self.pictures {
            let description = format!("{}, {label}", self.name);
            html += &format!(
                "<p>{}<br><span class=\"label\">{}</span></p>\n",
                picture.html(EXHIBIT_SIDE, &description),
                escape(label)
            );
        }
        html += &format!("</div>\n<figcaption>{}", escape(&self.name));
        for (name, value) in &self.values {
            html += &format!(
                " <span class=\"measure\">{} <b>{}</b></span>",
                escape(name),
                value.html()
            );
        }
        html + "</figcaption>\n</figure>\n"
    }
}

/// Exhibits in rows.
#[derive(Debug, Clone)]
pub struct Gallery {
    caption: String,
    exhibits: Vec<Exhibit>,
}

impl Gallery {
    /// An empty gallery.
    pub fn new(caption: impl Into<String>) -> Self {
        Self {
            caption: caption.into(),
            exhibits: Vec::new(),
        }
    }

    /// Adds an exhibit.
    pub fn exhibit(&mut self, exhibit: Exhibit) -> &mut Self {
        self.exhibits.push(exhibit);
        self
    }

    pub(super) fn html(&self) -> String {
        let exhibits: String = self.exhibits.iter().map(Exhibit::html).collect();
        format!(
            "<h3>{}</h3>\n<div class=\"gallery\">\n{exhibits}</div>\n",
            escape(&self.caption)
        )
    }
}

/// Samples in labelled rows.
#[derive(Debug, Clone)]
pub struct SampleGrid {
    caption: String,
    side: u32,
    rows: Vec<(String, Vec<Picture>)>,
}

impl SampleGrid {
    /// An empty grid.
    pub fn new(caption: impl Into<String>) -> Self {
        Self {
            caption: caption.into(),
            side: SAMPLE_SIDE,
            rows: Vec::new(),
        }
    }

    /// Shows pictures as large as those of a [`Gallery`]: for comparing them, not for counting them.
    pub fn large(mut self) -> Self {
        self.side = EXHIBIT_SIDE;
        self
    }

    /// Adds a row: a class and the pictures generated for it.
    pub fn row(
        &mut self,
        label: impl Into<String>,
        pictures: impl IntoIterator<Item = Picture>,
    ) -> &mut Self {
        self.rows
            .push((label.into(), pictures.into_iter().collect()));
        self
    }

    pub(super) fn html(&self) -> String {
        let mut html = format!(
            "<h3>{}</h3>\n<dl class=\"samples\">\n",
            escape(&self.caption)
        );
        for (label, pictures) in &self.rows {
            html += &format!("<div>\n<dt>{}</dt>\n<dd>\n", escape(label));
            for (index, picture) in pictures.iter().enumerate() {
                html += &picture.html(self.side, &format!("{label}, sample {}", index + 1));
                html.push('\n');
            }
            html += "</dd>\n</div>\n";
        }
        html + "</dl>\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grey(side: u32) -> Picture {
        Picture::new(side, side, vec![128; (side * side * 3) as usize]).expect("a valid picture")
    }

    #[test]
    fn exhibits_name_and_measure() {
        let mut gallery = Gallery::new("Validation images");
        gallery.exhibit(
            Exhibit::new("fox & friends")
                .picture("original", grey(32))
                .picture("reconstruction", grey(32))
                .value("PSNR", Value::number(24.13, 1).unit("dB")),
        );
        let html = gallery.html();
        assert_eq!(
            html.matches("<img class=\"pixels\" width=\"128\"").count(),
            2
        );
        assert!(html.contains("alt=\"fox &amp; friends, reconstruction\""));
        assert!(html.contains("PSNR <b>24.1<span class=\"unit\">&nbsp;dB</span></b>"));
    }

    #[test]
    fn samples_stand_in_their_row() {
        let mut grid = SampleGrid::new("Samples");
        grid.row("smileys", [grey(16), grey(16)]).row("flags", []);
        let html = grid.html();
        assert!(html.contains("<dt>smileys</dt>") && html.contains("<dt>flags</dt>"));
        assert_eq!(html.matches("width=\"64\"").count(), 2);
        assert!(html.contains("alt=\"smileys, sample 2\""));
        assert_eq!(grid.large().html().matches("width=\"128\"").count(), 2);
    }
}
