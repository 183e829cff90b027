//! A violation as a page for a browser: a drawing (SVG) and its explanation, in one self-contained file.

use super::timeline::{Axis, client, describe, times};
use ringfort_check::{Ending, Kind, Operation, Violation};
use std::fmt::Write;

const ROW_HEIGHT: f64 = 34.0;
const LABEL_WIDTH: f64 = 270.0;
const BARS_WIDTH: f64 = 620.0;
const TIMES_WIDTH: f64 = 190.0;

const STYLE: &str = "
:root { color-scheme: light dark; --text: #1b1f24; --faint: #6a737d; --line: #d8dee4; --page: #ffffff;
  --put: #2f6fde; --get: #2a9d5c; --delete: #8a63d2; --wrong: #d1242f; }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --faint: #8b949e; --line: #30363d; --page: #0d1117;
  --put: #5b9bff; --get: #4cc38a; --delete: #b48cff; --wrong: #ff6b6b; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page); margin: 2rem auto;
  max-width: 1100px; padding: 0 1rem; }
h1 { color: var(--wrong); font-size: 1.5rem; }
svg { width: 100%; height: auto; }
svg text { font: 14px ui-monospace, monospace; fill: var(--text); }
svg .time { fill: var(--faint); font-size: 12px; }
svg .grid { stroke: var(--line); }
svg .put { fill: var(--put); } svg .get { fill: var(--get); } svg .delete { fill: var(--delete); }
svg .unknown { fill-opacity: 0.35; }
svg .wrong { stroke: var(--wrong); stroke-width: 3; }
p.note { color: var(--faint); }
";

/// The whole page; `sentence` summarises the run's findings.
pub fn page(sentence: &str, key: &str, violation: &Violation) -> String {
    let reason = escaped(&violation.reason.to_string());
    let mut html = String::from("<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n");
    html += &format!("<title>Not linearizable: {}</title>\n<style>{STYLE}</style>\n", escaped(key));
    html += "<h1>Not linearizable</h1>\n";
    html += &format!("<p>{}</p>\n", escaped(sentence));
    html += &format!("<p>The key <code>{}</code>: <strong>{reason}</strong>.</p>\n", escaped(key));
    html += &drawing(violation);
    html += "<p class=\"note\">Each bar is an operation, from its request to its answer; an open end means that the \
             outcome is unknown. The events are in their order from left to right, not to scale; times are in seconds \
             of the run. An operation takes effect at one moment within its bar, but no choice of moments explains \
             all of these answers. The other operations on the key do not matter for that. The value \
             <code>3.17</code> is the seventeenth that client 3 wrote; <code>3.17+1.4</code> is that value with \
             another one appended.</p>\n</html>\n";
    html
}

fn drawing(violation: &Violation) -> String {
    let axis = Axis::new(violation);
    let height = ROW_HEIGHT * violation.operations.len() as f64;
    let width = LABEL_WIDTH + BARS_WIDTH + TIMES_WIDTH;
    let mut svg = format!("<svg viewBox=\"0 0 {width} {height}\" role=\"img\" xmlns=\"http://www.w3.org/2000/svg\">\n");
    for (row, operation) in violation.operations.iter().enumerate() {
        let is_wrong = violation.contradicted() == Some(operation);
        draw_row(&mut svg, operation, axis.span(operation), row as f64 * ROW_HEIGHT, is_wrong);
    }
    svg + "</svg>\n"
}

/// `span` is in parts of the width of the bars.
fn draw_row(svg: &mut String, operation: &Operation, span: (f64, Option<f64>), top: f64, is_wrong: bool) {
    let (class, bottom, text_y) = (class(operation), top + ROW_HEIGHT, top + ROW_HEIGHT * 0.62);
    let start = LABEL_WIDTH + span.0 * BARS_WIDTH;
    let end =
        LABEL_WIDTH + span.1.unwrap_or(if operation.ending == Ending::Refused { span.0 } else { 1.0 }) * BARS_WIDTH;
    let label = escaped(&format!("{} {}", client(operation), describe(operation)));
    let open = if operation.ending == Ending::Unknown { " unknown" } else { "" };
    let wrong = if is_wrong { " wrong" } else { "" };
    let (bar_top, bar_height, bar_width) = (top + 7.0, ROW_HEIGHT - 14.0, (end - start).max(6.0));
    let times_x = LABEL_WIDTH + BARS_WIDTH + 12.0;
    let written = write!(
        svg,
        "<line class=\"grid\" x1=\"0\" x2=\"{}\" y1=\"{bottom}\" y2=\"{bottom}\"/>\n\
         <text x=\"4\" y=\"{text_y}\">{label}</text>\n\
         <rect class=\"{class}{open}{wrong}\" x=\"{start:.1}\" y=\"{bar_top}\" width=\"{bar_width:.1}\" \
         height=\"{bar_height}\" rx=\"4\"><title>{label}</title></rect>\n\
         <text class=\"time\" x=\"{times_x}\" y=\"{text_y}\">{}</text>\n",
        LABEL_WIDTH + BARS_WIDTH + TIMES_WIDTH,
        escaped(&times(operation)),
    );
    written.expect("a string takes everything");
}

fn class(operation: &Operation) -> &'static str {
    match operation.kind {
        Kind::Put { .. } | Kind::Increment { .. } | Kind::Append { .. } => "put",
        Kind::Get { .. } => "get",
        Kind::Delete { .. } => "delete",
    }
}

/// Escapes text for HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::super::timeline::tests::violation;
    use super::*;

    #[test]
    fn a_violation_is_drawn_with_a_bar_for_each_operation() {
        let svg = drawing(&violation());
        assert_eq!(svg.matches("<rect").count(), 4);
        assert_eq!((svg.matches(" unknown\"").count(), svg.matches(" wrong\"").count()), (1, 1));
        assert!(svg.contains("end get: 1.7</text>"), "{svg}");
    }

    #[test]
    fn text_is_no_markup() {
        assert_eq!(escaped("<a href=\"&\">"), "&lt;a href=&quot;&amp;&quot;&gt;");
    }
}
