//! What an import would do, or has done, in words.

use crate::console::view::plain;
use crate::links::file::{ImportReport, LineProblem};
use crate::model::grouped;

#[derive(Debug)]
pub struct ImportReportView {
    pub added: String,
    pub updated: String,
    pub unchanged: String,
    pub skipped: String,
    pub refused: String,
    /// Links that are written.
    pub writes: u64,
    pub has_refused: bool,
    pub problems: LinesView,
    pub warnings: LinesView,
    pub first_ids: Vec<String>,
}

#[derive(Debug)]
pub struct LinesView {
    pub count: String,
    pub first: Vec<(u64, String)>,
    /// Lines beyond those; empty without any.
    pub more: String,
}

impl ImportReportView {
    pub fn new(report: &ImportReport) -> Self {
        Self {
            added: grouped(report.added),
            updated: grouped(report.updated),
            unchanged: grouped(report.unchanged),
            skipped: grouped(report.skipped),
            refused: grouped(report.refused),
            writes: report.added + report.updated,
            has_refused: report.refused > 0,
            problems: LinesView::new(report.refused, &report.problems),
            warnings: LinesView::new(report.warned, &report.warnings),
            first_ids: report.first_ids.iter().map(|id| plain(id)).collect(),
        }
    }

    /// How many links are written.
    pub fn writes_words(&self) -> String {
        grouped(self.writes)
    }
}

impl LinesView {
    fn new(count: u64, listed: &[LineProblem]) -> Self {
        let more = count.saturating_sub(listed.len() as u64);
        Self {
            count: grouped(count),
            first: listed
                .iter()
                .map(|problem| (problem.line, plain(&problem.reason)))
                .collect(),
            more: if more > 0 { grouped(more) } else { String::new() },
        }
    }
}
