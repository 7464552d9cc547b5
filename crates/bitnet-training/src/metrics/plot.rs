//! Curves as SVG, for light and dark pages.

use std::fmt::Write;

/// A curve.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Its name in the legend.
    pub label: String,
    /// `(x, y)`; what is not finite leaves a gap.
    pub points: Vec<(f64, f64)>,
}

/// Curves over one pair of axes.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    /// What `y` is.
    pub title: String,
    /// The curves; those without points are left out.
    pub series: Vec<Series>,
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 260.0;
/// Around the area of the curves.
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 40.0;
const COLOURS: [&str; 6] = ["#3b7dd8", "#d9662b", "#2f9e63", "#a04fc0", "#c23b55", "#7a7a2a"];
/// More points than pixels show nothing more.
const MOST_POINTS: usize = 1500;

/// Panels one below the other; `x` is what all of them run over.
pub fn svg(x: &str, panels: &[Panel]) -> String {
    let height = HEIGHT * panels.len() as f64;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\" fill=\"#777\">\n"
    );
    for (i, panel) in panels.iter().enumerate() {
        let _ = writeln!(out, "<g transform=\"translate(0 {})\">", HEIGHT * i as f64);
        draw(&mut out, x, panel);
        out += "</g>\n";
    }
    out + "</svg>\n"
}

fn draw(out: &mut String, x: &str, panel: &Panel) {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    let _ = writeln!(out, "<text x=\"{LEFT}\" y=\"18\" font-weight=\"bold\">{}</text>", escaped(&panel.title));
    let points = || panel.series.iter().flat_map(|s| &s.points).filter(|(x, y)| x.is_finite() && y.is_finite());
    let (Some(xs), Some(ys)) = (Axis::of(points().map(|p| p.0)), Axis::of(points().map(|p| p.1))) else {
        let _ = writeln!(out, "<text x=\"{LEFT}\" y=\"{}\">nothing yet</text>", HEIGHT / 2.0);
        return;
    };
    let across = |x: f64| LEFT + xs.share(x) * (right - LEFT);
    let down = |y: f64| bottom - ys.share(y) * (bottom - TOP);
    for tick in ys.ticks() {
        let (y, label) = (down(tick), ys.label(tick));
        let _ = writeln!(out, "<path d=\"M{LEFT} {y:.1}H{right}\" stroke=\"#777\" stroke-opacity=\".25\"/>");
        let _ = writeln!(out, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>", LEFT - 6.0, y + 4.0);
    }
    for tick in xs.ticks() {
        let (x, label) = (across(tick), xs.label(tick));
        let _ = writeln!(out, "<path d=\"M{x:.1} {bottom}v4\" stroke=\"#777\"/>");
        let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>", bottom + 17.0);
    }
    let _ = writeln!(out, "<text x=\"{right}\" y=\"{}\" text-anchor=\"end\">{}</text>", bottom + 33.0, escaped(x));
    let drawn = panel.series.iter().filter(|s| !s.points.is_empty());
    let mut legend = right;
    for (series, colour) in drawn.zip(COLOURS.iter().cycle()) {
        let mut path = String::new();
        let mut pen = 'M';
        for (x, y) in thinned(&series.points) {
            if x.is_finite() && y.is_finite() {
                let _ = write!(path, "{pen}{:.1} {:.1}", across(x), down(y));
                pen = 'L';
            } else {
                pen = 'M';
            }
        }
        let style = "fill=\"none\" stroke-width=\"1.5\" stroke-linejoin=\"round\" stroke-linecap=\"round\"";
        let _ = writeln!(out, "<path d=\"{path}\" stroke=\"{colour}\" {style}/>");
        let label = escaped(&series.label);
        let _ = writeln!(out, "<text x=\"{legend}\" y=\"18\" text-anchor=\"end\" fill=\"{colour}\">{label}</text>");
        legend -= 24.0 + 7.0 * series.label.chars().count() as f64;
    }
}

/// At most [`MOST_POINTS`]: means of neighbours.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let group = points.len().div_ceil(MOST_POINTS).max(1);
    let mean = |group: &[(f64, f64)]| {
        let sum = group.iter().fold((0.0, 0.0), |sum, p| (sum.0 + p.0, sum.1 + p.1));
        (sum.0 / group.len() as f64, sum.1 / group.len() as f64)
    };
    points.chunks(group).map(mean).collect()
}

/// A range of values and the distance of its ticks.
struct Axis {
    low: f64,
    high: f64,
    step: f64,
}

impl Axis {
    fn of(values: impl Iterator<Item = f64> + Clone) -> Option<Self> {
        let low = values.clone().reduce(f64::min)?;
        let high = values.reduce(f64::max)?;
        let (low, high) = if low == high { (low - 0.5, high + 0.5) } else { (low, high) };
        // 1, 2 or 5 times a power of ten, four to ten in the range.
        let raw = (high - low) / 5.0;
        let power = 10f64.powf(raw.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= raw)?;
        (step.is_finite() && step > 0.0).then_some(Self { low, high, step })
    }

    fn share(&self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        let first = (self.low / self.step).ceil();
        (0..12).map(move |i| (first + f64::from(i)) * self.step).take_while(|t| *t <= self.high + 1e-9 * self.step)
    }

    fn label(&self, tick: f64) -> String {
        let largest = self.low.abs().max(self.high.abs());
        match (0.01..100_000.0).contains(&largest) {
            true => format!("{tick:.*}", (-self.step.log10().floor()).clamp(0.0, 6.0) as usize),
            false if tick.abs() < self.step / 2.0 => "0".into(),
            false => format!("{tick:.*e}", usize::from(self.step.log10().floor() < tick.abs().log10().floor())),
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
