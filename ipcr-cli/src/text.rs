//! Words for people: strings from elsewhere made harmless, sizes, times, tables.

use std::borrow::Cow;
use std::fmt::Write as _;

/// `text` with everything that could move a cursor, change a colour or reorder what is seen replaced by escapes.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    if !text.contains(harmful) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' => clean.push_str("\\n"),
            '\t' => clean.push(' '),
            c if harmful(c) => {
                let _ = write!(clean, "\\u{{{:x}}}", u32::from(c));
            }
            c => clean.push(c),
        }
    }
    Cow::Owned(clean)
}

/// Control characters, and the invisible ones that reorder text (Unicode TR 36, "Bidirectional Text Spoofing").
fn harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Bytes in binary units: `0 B`, `1.5 KiB`, `313 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut tenths = u128::from(count) * 10 / 1024;
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    match tenths {
        0..1000 => format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit]),
        _ => format!("{} {}", tenths / 10, UNITS[unit]),
    }
}

/// How many of something: `1 peer`, `2 peers`.
pub(crate) fn count(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// Seconds as people say them: `5 s`, `3 min`, `2 h`, `9 days`.
pub(crate) fn seconds(count: u64) -> String {
    match count {
        0..120 => format!("{count} s"),
        120..7200 => format!("{} min", count / 60),
        7200..172_800 => format!("{} h", count / 3600),
        _ => format!("{} days", count / 86_400),
    }
}

/// Columns, each as wide as its widest cell and two spaces apart; no line ends in spaces. Cells are cleaned.
pub(crate) fn table<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    let rows: Vec<[String; N]> =
        rows.iter().map(|row| std::array::from_fn(|column| clean(&row[column]).into_owned())).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_elsewhere_reaches_the_terminal_raw() {
        assert_eq!(clean("a plain línea"), "a plain línea");
        assert_eq!(clean("\u{1b}[2J\u{7}x\r\n"), "\\u{1b}[2J\\u{7}x\\u{d}\\n");
        assert_eq!(clean("app\u{202e}gpj\u{9b}31m"), "app\\u{202e}gpj\\u{9b}31m");
    }

    #[test]
    fn sizes() {
        let sizes = [0, 1023, 1024, 1536, 104_857_600, 1 << 30, u64::MAX].map(bytes);
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "100 MiB", "1.0 GiB", "15.9 EiB"]);
    }

    #[test]
    fn times() {
        assert_eq!([0, 119, 120, 7200, 172_800].map(seconds), ["0 s", "119 s", "2 min", "2 h", "2 days"]);
    }

    #[test]
    fn tables_line_up() {
        let rows = [["a".to_owned(), "1".to_owned()], ["long".to_owned(), String::new()]];
        assert_eq!(table(&rows), ["a     1", "long"]);
    }
}
