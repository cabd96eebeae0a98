//! Tables: typed cells, units in the headings, numbers aligned on the right.
//!
//! A column is numeric when it holds no words; its cells are set in figures of equal width and, with the same number of
//! decimals in every cell, align at the point. Where a column says which direction is better, the best cell is bold.

use super::{
    html::escape,
    value::{Quantity, Value},
};

/// Which end of a column is the good one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// The largest number is best: PSNR, codebook usage.
    Higher,
    /// The smallest number is best: a loss, the Fréchet distance.
    Lower,
}

/// One column of a [`Table`].
#[derive(Debug, Clone)]
pub struct Column {
    quantity: Quantity,
    better: Option<Better>,
}

impl Column {
    /// A column with this heading; `Quantity::new("PSNR").unit("dB")`, or plain text for no unit.
    pub fn new(quantity: impl Into<Quantity>) -> Self {
        Self {
            quantity: quantity.into(),
            better: None,
        }
    }

    /// Marks the direction in the heading and the best cell of the column.
    pub fn better(mut self, better: Better) -> Self {
        self.better = Some(better);
        self
    }
}

impl From<&str> for Column {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

/// A table with a caption. The first column names the rows.
#[derive(Debug, Clone)]
pub struct Table {
    caption: String,
    columns: Vec<Column>,
    rows: Vec<Vec<Value>>,
}

impl Table {
    /// An empty table.
    ///
    /// # Panics
    ///
    /// When there is no column.
    pub fn new(caption: impl Into<String>, columns: impl IntoIterator<Item = Column>) -> Self {
        let columns: Vec<Column> = columns.into_iter().collect();
        assert!(!columns.is_empty(), "a table needs at least one column");
        Self {
            caption: caption.into(),
            columns,
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    ///
    /// # Panics
    ///
    /// When the row has not one value for each column.
    pub fn row(&mut self, values: impl IntoIterator<Item = Value>) -> &mut Self {
        let row: Vec<Value> = values.into_iter().collect();
        assert_eq!(
            row.len(),
            self.columns.len(),
            "table {:?}: a row needs one value a column",
            self.caption
        );
        self.rows.push(row);
        self
    }

    pub(super) fn html(&self) -> String {
        // Wide tables scroll inside their own box; the page itself never scrolls sideways.
        let mut html = format!(
            "<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"{}\">\n<table>\n",
            escape(&self.caption)
        );
        if !self.caption.is_empty() {
            html += &format!("<caption>{}</caption>\n", escape(&self.caption));
        }
        html += "<thead><tr>";
        for (index, column) in self.columns.iter().enumerate() {
            html += &format!(
                "<th scope=\"col\"{}>{}</th>",
                self.class(index, false),
                heading(column)
            );
        }
        html += "</tr></thead>\n<tbody>\n";
        let best: Vec<Option<f64>> = (0..self.columns.len())
            .map(|index| self.best(index))
            .collect();
        for row in &self.rows {
            html += "<tr>";
            for (index, value) in row.iter().enumerate() {
                let is_best = best[index].is_some() && value.as_f64() == best[index];
                let class = self.class(index, is_best);
                html += &match index {
                    0 => format!("<th scope=\"row\"{class}>{}</th>", value.html()),
                    _ => format!("<td{class}>{}</td>", value.html()),
                };
            }
            html += "</tr>\n";
        }
        html + "</tbody>\n</table>\n</div>\n"
    }

    fn class(&self, column: usize, is_best: bool) -> &'static str {
        let is_numeric =
            !self.rows.is_empty() && self.rows.iter().all(|row| !row[column].is_text());
        match (is_numeric, is_best) {
            (true, true) => " class=\"number best\"",
            (true, false) => " class=\"number\"",
            (false, true) => " class=\"best\"",
            (false, false) => "",
        }
    }

    /// The best finite number of a column that has a direction and more than one number to choose from.
    fn best(&self, column: usize) -> Option<f64> {
        let better = self.columns[column].better?;
        let numbers: Vec<f64> = self
            .rows
            .iter()
            .filter_map(|row| row[column].as_f64())
            .filter(|number| number.is_finite())
            .collect();
        if numbers.len() < 2 {
            return None;
        }
        numbers.into_iter().reduce(match better {
            Better::Higher => f64::max,
            Better::Lower => f64::min,
        })
    }
}

fn heading(column: &Column) -> String {
    let direction = match column.better {
        Some(Better::Higher) => " <span class=\"unit\" title=\"higher is better\">↑</span>",
        Some(Better::Lower) => " <span class=\"unit\" title=\"lower is better\">↓</span>",
        None => "",
    };
    column.quantity.html() + direction
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ablation() -> Table {
        let mut table = Table::new(
            "Depth against quality",
            [
                "depth".into(),
                Column::new(Quantity::new("PSNR").unit("dB")).better(Better::Higher),
                Column::new("loss").better(Better::Lower),
                "note".into(),
            ],
        );
        table.row([
            1_usize.into(),
            Value::number(20.5, 2),
            Value::significant(0.25, 3),
            "a < b".into(),
        ]);
        table.row([
            4_usize.into(),
            Value::number(24.125, 2),
            Value::significant(0.0625, 3),
            Value::missing(),
        ]);
        table
    }

    #[test]
    fn every_number_is_there() {
        let html = ablation().html();
        for number in [">1<", ">4<", "20.50", "24.12", "0.25", "0.0625", "–"] {
            assert!(html.contains(number), "{number} is missing in {html}");
        }
    }

    #[test]
    fn numbers_align_and_the_best_is_marked() {
        let html = ablation().html();
        assert!(html.contains("<td class=\"number best\">24.12</td>"));
        assert!(html.contains("<td class=\"number best\">0.0625</td>"));
        assert!(html.contains("<td class=\"number\">20.50</td>"));
        assert!(html.contains("<td>a &lt; b</td>"));
    }

    #[test]
    fn nan_is_never_the_best() {
        let mut table = Table::new(
            "",
            ["run".into(), Column::new("loss").better(Better::Lower)],
        );
        table.row(["a".into(), Value::number(f64::NAN, 1)]);
        table.row(["b".into(), Value::number(2.0, 1)]);
        table.row(["c".into(), Value::number(1.0, 1)]);
        let html = table.html();
        assert!(html.contains("<td class=\"number\">NaN</td>"));
        assert!(html.contains("<td class=\"number best\">1.0</td>"));
    }

    #[test]
    #[should_panic(expected = "one value a column")]
    fn a_row_of_the_wrong_length_is_refused() {
        ablation().row(["only one".into()]);
    }
}
