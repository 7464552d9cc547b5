//! The report as an SVG image.

use super::LayerReport;
use std::fmt::Write;

/// Height of a row.
const ROW: f64 = 18.;
/// Width of a column of bars.
const BARS: f64 = 260.;
/// Space for the figure after a bar.
const FIGURE: f64 = 70.;
/// Approximate width of a letter.
const LETTER: f64 = 6.6;
/// Margin above the first row.
const TOP: f64 = 40.;

/// A row for each layer, with a bar for the SQNR of its weights and one for the share of outputs lost.
pub(super) fn svg(layers: &[LayerReport]) -> String {
    let longest = layers.iter().map(|l| l.name.chars().count()).max().unwrap_or(0);
    let left = 20. + LETTER * longest as f64;
    let second = left + BARS + FIGURE;
    let (width, height) = (second + BARS + FIGURE, TOP + ROW * layers.len() as f64 + 16.);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         font-family=\"monospace\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let mut text = |x: f64, y: f64, anchor: &str, content: &str| {
        let content = escape(content);
        let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{content}</text>");
    };
    text(left, 22., "start", "SQNR of the weights, dB");
    text(second, 22., "start", "outputs lost, %");
    let baseline = |row: usize| TOP + ROW * row as f64 + 12.;
    for (row, layer) in layers.iter().enumerate() {
        text(left - 8., baseline(row), "end", &layer.name);
        if layer.weights.is_none() {
            text(left, baseline(row), "start", &format!("kept ({})", layer.format));
        }
    }
    let sqnr = |l: &LayerReport| l.weights.map(|w| w.sqnr_db);
    let lost = |l: &LayerReport| l.output_error.map(|e| 100. * e);
    bars(&mut out, layers, left, "#3b6ea5", sqnr);
    bars(&mut out, layers, second, "#b5523b", lost);
    out + "</svg>\n"
}

/// Bars scaled to their figures, the longest to the full width; missing and infinite ones are left out.
fn bars(
    out: &mut String,
    layers: &[LayerReport],
    left: f64,
    colour: &str,
    figure: impl Fn(&LayerReport) -> Option<f64>,
) {
    let finite = |l: &LayerReport| figure(l).filter(|v| v.is_finite());
    let largest = layers.iter().filter_map(finite).fold(1e-12, f64::max);
    for (row, layer) in layers.iter().enumerate() {
        let Some(value) = finite(layer) else { continue };
        let (y, length) = (TOP + ROW * row as f64, BARS * (value / largest).max(0.));
        let _ = writeln!(
            out,
            "<rect x=\"{left:.1}\" y=\"{y:.1}\" width=\"{length:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\">{value:.2}</text>",
            ROW - 4.,
            left + length + 5.,
            y + 11.,
        );
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
