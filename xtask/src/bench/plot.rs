//! Pictures of what was measured, as SVG: ratios beside their limits, and curves.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::peers;
use crate::shell::Result;

/// A ratio and what it may be.
#[derive(Clone, Debug)]
pub(super) struct Bar {
    pub(super) ours: String,
    pub(super) beside: String,
    pub(super) ratio: f64,
    pub(super) limit: Option<f64>,
    pub(super) kept: bool,
}

/// One line of a picture: its name and the places that it goes through.
pub(super) struct Curve<'a> {
    pub(super) name: &'a str,
    pub(super) points: Vec<(f64, f64)>,
}

const ROW: f64 = 22.0;
const WORDS: f64 = 620.0;
const WIDTH: f64 = 1000.0;
/// Everything beyond is cut off.
const MOST: f64 = 2.5;
const COLOURS: [&str; 3] = ["#2a6fbb", "#c05a1c", "#4d8b31"];

/// Writes a picture beside what was built.
pub(super) fn write(root: &Path, name: &str, picture: &str) -> Result {
    let dir = peers::target_dir(root).join("bench");
    fs::create_dir_all(&dir)?;
    let file = dir.join(format!("{name}.svg"));
    fs::write(&file, picture)?;
    println!("{} shows it.\n", file.display());
    Ok(())
}

/// A bar for each ratio, and a line where its limit is; those that missed it have another colour.
pub(super) fn bars(bars: &[Bar]) -> String {
    let x = |ratio: f64| WORDS + ratio.min(MOST) / MOST * (WIDTH - WORDS - 60.0);
    let (mut body, mut y) = (String::new(), 10.0);
    for Bar { ours, beside, ratio, limit, kept } in bars {
        let colour = COLOURS[usize::from(!kept)];
        let (words, low) = (escape(&format!("{ours} / {beside}")), y + 14.0);
        let _ = writeln!(body, r#"<text x="{}" y="{low}" text-anchor="end">{words}</text>"#, WORDS - 8.0);
        let width = x(*ratio) - WORDS;
        let _ = writeln!(body, r#"<rect x="{WORDS}" y="{}" width="{width:.1}" height="14" fill="{colour}"/>"#, y + 3.0);
        if let Some(limit) = limit {
            let at = x(*limit);
            let _ = writeln!(body, r#"<path d="M{at:.1} {y}v20" stroke="black" stroke-width="2"/>"#);
        }
        let at = x(ratio.max(limit.unwrap_or_default())) + 5.0;
        let _ = writeln!(body, r#"<text x="{at:.1}" y="{low}">{ratio:.2}</text>"#);
        y += ROW;
    }
    picture(y + 10.0, &body)
}

/// Curves over the same numbers, each beginning at its own zero.
pub(super) fn curves(across: &str, curves: &[Curve<'_>]) -> String {
    const HEIGHT: f64 = 400.0;
    let all = || curves.iter().flat_map(|curve| &curve.points);
    let most = |of: fn(&(f64, f64)) -> f64| all().map(of).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let (right, top) = (most(|point| point.0), most(|point| point.1));
    let x = |value: f64| 60.0 + value / right * (WIDTH - 260.0);
    let y = |value: f64| HEIGHT - value / top * (HEIGHT - 30.0);
    let mut body = format!(r#"<path d="M60 20V{HEIGHT}H{}" fill="none" stroke="black"/>"#, WIDTH - 190.0);
    body.push('\n');
    for (at, curve) in curves.iter().enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        let line: Vec<String> =
            curve.points.iter().map(|point| format!("{:.1},{:.1}", x(point.0), y(point.1))).collect();
        let line = line.join(" ");
        let _ = writeln!(body, r#"<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>"#);
        for (number, value) in &curve.points {
            let (left, up) = (x(*number), y(*value));
            let _ = writeln!(body, r#"<circle cx="{left:.1}" cy="{up:.1}" r="3" fill="{colour}"/>"#);
            let _ = writeln!(body, r#"<text x="{left:.1}" y="{:.1}" fill="{colour}">{value:.2}</text>"#, up - 7.0);
        }
        let end = curve.points.last().map_or(0.0, |point| point.1);
        let name = escape(curve.name);
        let _ =
            writeln!(body, r#"<text x="{:.1}" y="{:.1}" fill="{colour}">{name}</text>"#, x(right) + 40.0, y(end) + 4.0);
    }
    for (number, _) in curves.first().into_iter().flat_map(|curve| &curve.points) {
        let _ =
            writeln!(body, r#"<text x="{:.1}" y="{}" text-anchor="middle">{number}</text>"#, x(*number), HEIGHT + 18.0);
    }
    let _ = writeln!(body, r#"<text x="{}" y="{}">{}</text>"#, WIDTH - 190.0, HEIGHT + 18.0, escape(across));
    picture(HEIGHT + 30.0, &body)
}

fn picture(height: f64, body: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n"
    )
}

fn escape(text: &str) -> String {
    text.replace('`', "").replace('&', "&amp;").replace('<', "&lt;")
}
