//! Writing: results to standard output, where errors are values; everything else to standard error.

use crate::error::{CliError, Result};
use std::io::{self, Write};

/// Text, at once.
pub fn text(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(CliError::Output)
}

/// A line.
pub fn line(line: &str) -> Result<()> {
    text(&format!("{line}\n"))
}

/// One JSON object.
pub fn json(value: &serde_json::Value) -> Result<()> {
    line(&format!("{value:#}"))
}

/// A line on standard error. If nobody can read it, nothing is lost.
pub fn note(line: &str) {
    let _ = writeln!(anstream::stderr().lock(), "{line}");
}

/// Red on a terminal.
pub fn red(text: &str) -> String {
    let style = anstyle::AnsiColor::Red.on_default().bold();
    format!("{style}{text}{style:#}")
}

/// Rows with aligned columns; `align` has `l` or `r` for each column.
pub fn columns(rows: &[Vec<String>], align: &str) -> String {
    let width = |c: usize| rows.iter().filter_map(|row| row.get(c)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..align.len()).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).zip(align.chars()).map(|((cell, &width), align)| match align {
            'r' => format!("{cell:>width$}"),
            _ => format!("{cell:<width$}"),
        });
        out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// Bytes with a decimal unit: `1.19 GB`.
pub fn bytes(n: u64) -> String {
    scaled(n, &["B", "kB", "MB", "GB", "TB"])
}

/// A count with a decimal unit: `2.41 G`.
pub fn count(n: u64) -> String {
    scaled(n, &["", "k", "M", "G", "T"]).trim_end().to_string()
}

fn scaled(n: u64, units: &[&str]) -> String {
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1000.;
        unit += 1;
    }
    let decimals = match value {
        _ if unit == 0 => 0,
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    };
    format!("{value:.decimals$} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_keep_three_digits() {
        let cases = [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (99_960, "100 kB"), (1_187_801_280, "1.19 GB")];
        for (n, text) in cases {
            assert_eq!(bytes(n), text);
        }
        assert_eq!(count(5_250_000), "5.25 M");
        assert_eq!(count(7), "7");
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["a".into(), "1".into()], vec!["long".into(), "10".into()]];
        assert_eq!(columns(&rows, "lr"), "a      1\nlong  10\n");
    }
}
