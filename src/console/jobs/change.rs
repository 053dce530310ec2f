//! A change of many links.

use std::time::Instant;

use parking_lot::Mutex;

use crate::console::jobs::{KEPT, Stage};
use crate::console::request::Fields;
use crate::links::BulkCounts;
use crate::model::grouped;

#[derive(Debug)]
pub struct ChangeJob {
    pub words: &'static ChangeWords,
    pub total: usize,
    /// Where to go back to.
    pub back: String,
    /// The form that began it, with which it can be begun again.
    pub form: Fields,
    progress: Mutex<ChangeProgress>,
}

/// A change, in words.
#[derive(Debug, PartialEq, Eq)]
pub struct ChangeWords {
    /// "… 5 links".
    pub verb: &'static str,
    /// "5 links were …".
    pub done: &'static str,
    /// "already …": why a link needs no change.
    pub already: &'static str,
    /// "because of …": why a link cannot be changed.
    pub refused: &'static str,
    pub warning: &'static str,
}

#[derive(Debug, Clone, Default)]
pub struct ChangeProgress {
    pub counts: BulkCounts,
    /// Why it has ended early.
    pub stopped: Option<String>,
    /// Links of which it is not known whether they were changed.
    pub unknown: usize,
    over: Option<Instant>,
}

impl ChangeProgress {
    pub const fn is_over(&self) -> bool {
        self.over.is_some()
    }
}

impl ChangeJob {
    pub fn new(words: &'static ChangeWords, total: usize, back: String, form: Fields) -> Self {
        Self {
            words,
            total,
            back,
            form,
            progress: Mutex::default(),
        }
    }

    pub fn progress(&self) -> ChangeProgress {
        self.progress.lock().clone()
    }

    pub fn count(&self, counts: BulkCounts) {
        self.progress.lock().counts.add(counts);
    }

    /// Ends early. Of so many links, it is not known whether they were changed.
    pub fn stop(&self, why: String, unknown: usize) {
        let mut progress = self.progress.lock();
        progress.stopped = Some(why);
        progress.unknown = unknown;
    }

    pub fn end(&self) {
        self.progress.lock().over = Some(Instant::now());
    }

    pub(super) fn stage(&self) -> Stage {
        let over = self.progress.lock().over;
        over.map_or(Stage::Running, |at| Stage::Over(at + KEPT))
    }

    /// What it does, or has done.
    pub fn title(&self) -> String {
        format!("{} {}", self.words.verb, links(self.total))
    }

    /// What has become of the links so far, in sentences.
    pub fn outcome(&self, progress: &ChangeProgress) -> Vec<String> {
        let (counts, words) = (progress.counts, self.words);
        let mut sentences = vec![match counts.changed {
            0 => format!("No link was {}.", words.done),
            changed => format!("{} {} {}.", links(changed), were(changed), words.done),
        }];
        if counts.unchanged > 0 {
            let (links, were) = (links(counts.unchanged), were(counts.unchanged));
            sentences.push(format!(
                "{links} {were} left alone: already {}, or gone.",
                words.already
            ));
        }
        if counts.refused > 0 {
            let links = links(counts.refused);
            sentences.push(format!("{links} could not be changed because of {}.", words.refused));
        }
        let unreached = self.total.saturating_sub(counts.total() + progress.unknown);
        if progress.unknown > 0 {
            let links = links(progress.unknown);
            sentences.push(format!(
                "{links} may have been changed or not: the server could not find out."
            ));
        }
        if progress.is_over() && unreached > 0 {
            sentences.push(format!("{} {} not reached.", links(unreached), were(unreached)));
        }
        sentences
    }
}

pub fn links(number: usize) -> String {
    let noun = if number == 1 { "link" } else { "links" };
    format!("{} {noun}", grouped(number as u64))
}

const fn were(number: usize) -> &'static str {
    if number == 1 { "was" } else { "were" }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: ChangeWords = ChangeWords {
        verb: "Switch off",
        done: "switched off",
        already: "switched off",
        refused: "a damaged record",
        warning: "",
    };

    impl ChangeJob {
        pub(in crate::console::jobs) fn of_test(total: usize) -> Self {
            Self::new(&WORDS, total, String::new(), Fields::default())
        }
    }

    #[test]
    fn outcome_is_told_in_whole_sentences() {
        let outcome = |total, [changed, unchanged, refused]: [usize; 3], stop: Option<usize>| {
            let job = ChangeJob::of_test(total);
            job.count(BulkCounts {
                changed,
                unchanged,
                refused,
            });
            if let Some(unknown) = stop {
                job.stop("the disk failed".to_owned(), unknown);
            }
            job.end();
            job.outcome(&job.progress()).join(" ")
        };
        assert_eq!(outcome(1, [1, 0, 0], None), "1 link was switched off.");
        assert_eq!(
            outcome(9, [8, 1, 0], None),
            "8 links were switched off. 1 link was left alone: already switched off, or gone."
        );
        assert_eq!(
            outcome(6, [0, 5, 1], None),
            "No link was switched off. 5 links were left alone: already switched off, or gone. \
             1 link could not be changed because of a damaged record."
        );
        assert_eq!(
            outcome(1_201, [500, 0, 0], Some(0)),
            "500 links were switched off. 701 links were not reached."
        );
        assert_eq!(
            outcome(1_001, [500, 0, 0], Some(500)),
            "500 links were switched off. 500 links may have been changed or not: the server could not find out. \
             1 link was not reached."
        );
    }
}
