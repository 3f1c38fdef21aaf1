//! The table of figures: printed, and written between two marks of a page.

use crate::{Context, Result};
use std::fmt::Write as _;
use std::path::Path;

pub const BEGIN: &str = "<!-- bench:begin -->";
pub const END: &str = "<!-- bench:end -->";

/// One measurement beside its peer's and the goal.
pub struct Row {
    pub what: String,
    pub unit: &'static str,
    pub ours: Option<f64>,
    pub peer: Option<f64>,
    pub goal: Goal,
}

/// What is aimed at.
#[derive(Clone, Copy)]
pub enum Goal {
    AtMost(f64),
    AtLeast(f64),
    /// Our figure over the peer's.
    RatioAtMost(f64),
    /// Only shown.
    None,
}

impl Row {
    fn ratio(&self) -> Option<f64> {
        Some(self.ours? / self.peer?)
    }

    fn met(&self) -> &'static str {
        let met = match self.goal {
            Goal::AtMost(most) => self.ours.map(|v| v <= most),
            Goal::AtLeast(least) => self.ours.map(|v| v >= least),
            Goal::RatioAtMost(most) => self.ratio().map(|v| v <= most),
            Goal::None => None,
        };
        match (met, self.goal) {
            (Some(true), _) => "yes",
            (Some(false), _) => "no",
            (None, Goal::None) => "",
            (None, _) => "not measured",
        }
    }
}

/// A Markdown table, its columns aligned to be read as plain text too.
pub fn table(rows: &[Row]) -> String {
    let mut cells = vec![["measurement", "ours", "peer", "ratio", "goal", "met"].map(str::to_owned)];
    for row in rows {
        let shown = |v: Option<f64>| v.map_or_else(|| "–".to_owned(), |v| format!("{} {}", number(v), row.unit));
        let goal = match row.goal {
            Goal::AtMost(v) => format!("≤ {} {}", number(v), row.unit),
            Goal::AtLeast(v) => format!("≥ {} {}", number(v), row.unit),
            Goal::RatioAtMost(v) => format!("ratio ≤ {}", number(v)),
            Goal::None => String::new(),
        };
        let ratio = row.ratio().map_or_else(String::new, number);
        cells.push([
            row.what.clone(),
            shown(row.ours),
            shown(row.peer),
            ratio,
            goal,
            row.met().to_owned(),
        ]);
    }
    let width = |column: usize| {
        cells
            .iter()
            .filter_map(|r| r.get(column))
            .map(|c| c.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..6).map(width).collect();
    let mut text = String::new();
    for (n, row) in cells.iter().enumerate() {
        for (cell, width) in row.iter().zip(&widths) {
            // Writing to a string cannot fail.
            let _ = write!(text, "| {cell:width$} ");
        }
        text.push_str("|\n");
        if n == 0 {
            widths
                .iter()
                .for_each(|width| text.push_str(&format!("|{}", "-".repeat(width + 2))));
            text.push_str("|\n");
        }
    }
    text
}

/// Three significant digits, thousands apart.
fn number(v: f64) -> String {
    if v.abs() >= 1000.0 {
        let whole = format!("{v:.0}");
        let (head, tail) = whole.split_at(whole.len().saturating_sub(3));
        return format!("{head} {tail}");
    }
    let decimals = if v.abs() >= 100.0 {
        0
    } else if v.abs() >= 10.0 {
        1
    } else {
        2
    };
    format!("{v:.decimals$}")
}

/// Puts `text` between the marks of the page.
pub fn write_page(page: &Path, text: &str) -> Result<()> {
    let old = std::fs::read_to_string(page).context(page.display())?;
    let new = between_marks(&old, text).context(format!("{} has no marks", page.display()))?;
    std::fs::write(page, new).context(page.display())
}

fn between_marks(old: &str, text: &str) -> Option<String> {
    let (head, rest) = old.split_once(BEGIN)?;
    let (_, tail) = rest.split_once(END)?;
    Some(format!("{head}{BEGIN}\n{text}{END}{tail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_are_judged_and_only_what_is_between_the_marks_changes() {
        let row = |ours, peer, goal| Row {
            what: "x".into(),
            unit: "µs",
            ours,
            peer,
            goal,
        };
        assert_eq!(row(Some(9.0), Some(27.0), Goal::RatioAtMost(0.34)).met(), "yes");
        assert_eq!(row(Some(9.0), None, Goal::RatioAtMost(0.34)).met(), "not measured");
        assert_eq!(row(Some(2.0), None, Goal::AtMost(1.0)).met(), "no");
        assert_eq!(row(Some(2.0), None, Goal::AtLeast(1.0)).met(), "yes");
        assert_eq!(number(12_345.6), "12 346");
        let page = format!("a {BEGIN} old {END} z");
        assert_eq!(between_marks(&page, "new\n"), Some(format!("a {BEGIN}\nnew\n{END} z")));
        assert_eq!(between_marks("no marks", "new"), None);
        let lines: Vec<usize> = table(&[row(Some(1.0), None, Goal::None)])
            .lines()
            .map(|l| l.chars().count())
            .collect();
        assert!(
            lines.windows(2).all(|pair| matches!(pair, [a, b] if a == b)),
            "{lines:?}"
        );
    }
}
