//! The pages of the newest snapshot, each made once.
//!
//! Between two ticks every scrape of one form gets the same bytes: a second scraper costs nothing, a client that
//! asks in a loop costs no work of ours, and many that do not take their answer hold one page among them.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use axum::body::Bytes;
use telemetry_model::Snapshot;

use super::Coding;
use crate::expose::{self, Format};

/// What a scrape can get.
#[derive(Clone)]
pub(super) struct Page {
    pub(super) bytes: Bytes,
    pub(super) coding: Coding,
}

/// What a scrape asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) format: Format,
    /// How it may be compressed.
    pub(super) coding: Coding,
}

/// Pages made of one snapshot.
pub(super) struct Pages {
    gzip_min_bytes: usize,
    made: Mutex<Made>,
}

#[derive(Default)]
struct Made {
    /// Weak, so that old values do not outlive the next tick only because nobody has scraped since.
    of: Weak<Snapshot>,
    /// At most one for each of nine forms.
    pages: Vec<(Form, Page)>,
}

// === impl Pages ===

impl Pages {
    pub(super) fn new(config: &expose::Config) -> Self {
        let expose::Config { gzip_min_bytes } = *config;
        Self { gzip_min_bytes, made: Mutex::default() }
    }

    /// The page of a snapshot in some form.
    pub(super) fn get(&self, snapshot: &Arc<Snapshot>, form: Form) -> Page {
        // A panic while the lock was held cannot have left half a page: it is added whole.
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::ptr::eq(made.of.as_ptr(), Arc::as_ptr(snapshot)) {
            *made = Made { of: Arc::downgrade(snapshot), pages: Vec::new() };
        }
        if let Some((_, page)) = made.pages.iter().find(|(each, _)| *each == form) {
            return page.clone();
        }
        let page = self.make(snapshot, form);
        made.pages.push((form, page.clone()));
        page
    }

    fn make(&self, snapshot: &Snapshot, form: Form) -> Page {
        let mut page = Vec::new();
        form.format.write(snapshot, &mut page);
        let coding = if page.len() >= self.gzip_min_bytes { form.coding } else { Coding::Identity };
        page = coding.encode(page);
        page.shrink_to_fit();
        Page { bytes: page.into(), coding }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expose::fixture;

    const PLAIN: Form = Form { format: Format::Text, coding: Coding::Identity };

    #[test]
    fn a_page_is_made_once_for_a_snapshot_and_anew_for_the_next() {
        let pages = Pages::new(&expose::Config::default());
        let (first, second) = (Arc::new(fixture::snapshot(100)), Arc::new(fixture::snapshot(200)));
        let page = pages.get(&first, PLAIN).bytes;
        assert_eq!(pages.get(&first, PLAIN).bytes.as_ptr(), page.as_ptr(), "the same bytes, not a copy");
        assert!(pages.get(&second, PLAIN).bytes.len() > page.len());
        for coding in [Coding::Gzip, Coding::Zstd] {
            let compressed = pages.get(&second, Form { coding, ..PLAIN });
            assert!(compressed.coding == coding && compressed.bytes.len() < page.len());
        }
    }

    #[test]
    fn old_values_are_let_go() {
        let pages = Pages::new(&expose::Config::default());
        let snapshot = Arc::new(fixture::snapshot(100));
        pages.get(&snapshot, PLAIN);
        assert_eq!(Arc::strong_count(&snapshot), 1);
    }

    #[test]
    fn small_pages_are_not_compressed() {
        let pages = Pages::new(&expose::Config { gzip_min_bytes: usize::MAX });
        let page = pages.get(&Arc::new(fixture::snapshot(100)), Form { coding: Coding::Zstd, ..PLAIN });
        assert_eq!(page.coding, Coding::Identity);
    }
}
