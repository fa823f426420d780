//! The report as an SVG: a bar per target, its spread as a line.

use std::fmt::Write;

use super::Series;

const BAR: usize = 26;
const LEFT: usize = 150;
const WIDE: f64 = 520.0;

/// Requests per second of every target.
pub(crate) fn picture(title: &str, series: &[Series]) -> String {
    let height = 60 + series.len() * (BAR + 14);
    let most = series.iter().map(|series| series.spread(|round| round.rate()).max).fold(1.0, f64::max);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"780\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"16\" y=\"26\" font-size=\"15\">{}</text>\n",
        escape(title)
    );
    for (index, series) in series.iter().enumerate() {
        let spread = series.spread(|round| round.rate());
        let (top, middle) = (46 + index * (BAR + 14), 46 + index * (BAR + 14) + BAR / 2);
        let x = |value: f64| LEFT as f64 + value / most * WIDE;
        let _infallible = write!(
            out,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\n\
             <rect x=\"{LEFT}\" y=\"{top}\" width=\"{:.1}\" height=\"{BAR}\" fill=\"#c8553d\"/>\n\
             <line x1=\"{:.1}\" y1=\"{middle}\" x2=\"{:.1}\" y2=\"{middle}\" stroke=\"black\"/>\n\
             <text x=\"{:.1}\" y=\"{}\">{:.0}/s</text>\n",
            LEFT - 8,
            middle + 5,
            escape(&series.name),
            spread.median / most * WIDE,
            x(spread.min),
            x(spread.max),
            x(spread.max) + 8.0,
            middle + 5,
            spread.median,
        );
    }
    out.push_str("</svg>\n");
    out
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
