//! Tables of plain text.

/// One line for each pair, the values aligned.
pub(crate) fn facts(rows: &[(String, String)]) -> String {
    let width = rows
        .iter()
        .map(|(name, _)| name.chars().count())
        .max()
        .unwrap_or(0);
    rows.iter()
        .map(|(name, value)| format!("{name:<width$}  {value}\n"))
        .collect()
}

/// A distance whose size depends on the network that took it: four decimals, or four digits where these would say little.
pub(crate) fn distance(value: f64) -> String {
    match value == 0.0 || value.abs() >= 0.1 {
        true => format!("{value:.4}"),
        false => format!("{value:.3e}"),
    }
}

/// A heading and rows below it; the first column stands left, all others right.
pub(crate) fn columns(header: &[&str], rows: &[Vec<String>]) -> String {
    let header: Vec<String> = header.iter().map(ToString::to_string).collect();
    let all: Vec<&Vec<String>> = std::iter::once(&header).chain(rows).collect();
    let width = |column: usize| {
        let cells = all.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |row: &&Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate();
        let cells = cells.map(|(column, (cell, &width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("  {cell:>width$}"),
        });
        cells.collect::<String>().trim_end().to_owned() + "\n"
    };
    all.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_distances_keep_their_digits() {
        let shown = [12.345_67, 0.0, 1.234_56e-4, -0.000_02].map(distance);
        assert_eq!(shown, ["12.3457", "0.0000", "1.235e-4", "-2.000e-5"]);
    }

    #[test]
    fn numbers_stand_right_and_names_left() {
        let rows =
            [["GQ", "24.1"], ["TokenBridge", "9.5"]].map(|row| row.map(String::from).to_vec());
        assert_eq!(
            columns(&["method", "dB"], &rows),
            "method         dB\nGQ           24.1\nTokenBridge   9.5\n"
        );
    }
}
