//! Writing: results to standard output, where errors are values; everything else to standard error.

use crate::error::{CliError, Result};
use clap::{Args, ValueEnum};
use std::borrow::Cow;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;

/// How much is printed besides the results, and colours.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Print results and errors only
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Print also what is loaded, from where, and what runs it
    #[arg(long, short, global = true)]
    verbose: bool,
    /// Colours: on a terminal unless NO_COLOR is set, always, or never
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t = Color::Auto)]
    color: Color,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Color {
    Auto,
    Always,
    Never,
}

static ARGS: OnceLock<OutputArgs> = OnceLock::new();

/// Stores the flags; the first call counts.
pub fn set(args: OutputArgs) {
    ARGS.get_or_init(|| args);
    set_color(args.color);
}

/// Whether only results and errors are wanted.
pub fn is_quiet() -> bool {
    ARGS.get().is_some_and(|args| args.quiet)
}

/// Whether progress is shown: on a terminal, unless `--quiet`.
pub fn shows_progress() -> bool {
    io::stderr().is_terminal() && !is_quiet()
}

/// Whether details are wanted.
pub fn is_verbose() -> bool {
    ARGS.get().is_some_and(|args| args.verbose)
}

/// Applies `--color` before the command line is parsed: help and usage errors have colours as well.
pub fn set_color_early(args: impl Iterator<Item = OsString>) {
    let args: Vec<String> = args.filter_map(|arg| arg.into_string().ok()).take_while(|arg| arg != "--").collect();
    let mut words = args.iter().enumerate().filter_map(|(i, arg)| match arg.strip_prefix("--color")? {
        "" => args.get(i + 1).map(String::as_str),
        rest => rest.strip_prefix('='),
    });
    if let Some(color) = words.next_back().and_then(|word| Color::from_str(word, false).ok()) {
        set_color(color);
    }
}

fn set_color(color: Color) {
    match color {
        Color::Auto => anstream::ColorChoice::Auto,
        Color::Always => anstream::ColorChoice::Always,
        Color::Never => anstream::ColorChoice::Never,
    }
    .write_global();
}

/// Text, at once.
pub fn text(text: &str) -> Result<()> {
    raw(text.as_bytes())
}

/// Bytes, at once.
pub fn raw(bytes: &[u8]) -> Result<()> {
    stdout().and_then(|mut out| out.write_all(bytes).and_then(|()| out.flush())).map_err(CliError::Output)
}

/// A line.
pub fn line(line: &str) -> Result<()> {
    text(&format!("{line}\n"))
}

/// One JSON object.
pub fn json(value: &serde_json::Value) -> Result<()> {
    line(&format!("{value:#}"))
}

/// Text with styles, which a terminal shows and nothing else gets.
pub fn styled(text: &str) -> Result<()> {
    let write = |out| {
        let mut out = anstream::AutoStream::auto(out);
        write!(out, "{text}").and_then(|()| out.flush())
    };
    stdout().and_then(write).map_err(CliError::Output)
}

/// Standard output as a file, which reports that it is not open for writing; the standard library's takes no notice. One that
/// was closed at the start is /dev/null by now, and nothing tells it from the one that a parent chose.
#[cfg(unix)]
fn stdout() -> io::Result<std::fs::File> {
    use std::os::fd::AsFd;
    Ok(io::stdout().as_fd().try_clone_to_owned()?.into())
}

#[cfg(not(unix))]
fn stdout() -> io::Result<io::StdoutLock<'static>> {
    Ok(io::stdout().lock())
}

/// A line on standard error, unless `--quiet`.
pub fn note(line: &str) {
    if !is_quiet() {
        error_line("", line);
    }
}

/// A line on standard error with `--verbose`.
pub fn detail(line: &str) {
    if is_verbose() {
        error_line("", line);
    }
}

/// A line on standard error after a styled prefix. If nobody can read it, nothing is lost.
pub fn error_line(prefix: &str, line: &str) {
    let _ = writeln!(anstream::stderr().lock(), "{prefix}{}", printable(line));
}

/// Text from outside (names of files and tensors, messages about them) with control characters escaped, as `\u{1b}`, so
/// that a terminal does not obey them; newlines stay.
pub fn printable(text: &str) -> Cow<'_, str> {
    let obeyed = |c: char| c.is_control() && c != '\n';
    if !text.contains(obeyed) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if obeyed(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out.into()
}

/// Red on a terminal.
pub fn red(text: &str) -> String {
    let style = anstyle::AnsiColor::Red.on_default().bold();
    format!("{style}{text}{style:#}")
}

/// Rows with aligned columns, printable; `align` has `l` or `r` for each column.
pub fn columns(rows: &[Vec<String>], align: &str) -> String {
    let printable = |cell: &String| printable(cell).replace('\n', "\\n");
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(printable).collect()).collect();
    let width = |c: usize| rows.iter().filter_map(|row| row.get(c)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..align.len()).map(width).collect();
    let mut out = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).zip(align.chars()).map(|((cell, &width), align)| match align {
            'r' => format!("{cell:>width$}"),
            _ => format!("{cell:<width$}"),
        });
        out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// A number of things: `1 token`, `2 tokens`.
pub fn counted<N: fmt::Display + From<u8> + PartialEq>(n: N, thing: &str) -> String {
    let plural = if n == N::from(1) { "" } else { "s" };
    format!("{n} {thing}{plural}")
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
    fn one_thing_is_singular() {
        assert_eq!([0u64, 1, 2].map(|n| counted(n, "token")), ["0 tokens", "1 token", "2 tokens"]);
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["a".into(), "1".into()], vec!["long".into(), "10".into()]];
        assert_eq!(columns(&rows, "lr"), "a      1\nlong  10\n");
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(printable("a\x1b[31m\r\tb\nc é"), "a\\u{1b}[31m\\r\\tb\nc é");
        assert_eq!(columns(&[vec!["a\x07\nb".into()]], "l"), "a\\u{7}\\nb\n");
    }
}
