//! Owners: whose a series is, named when the name becomes known.
//!
//! An owner is a number from the moment its first sample comes. What is known of it may grow; once it is bound, its
//! labels stay. Every sample that was ever stored under the number is read under the labels that are known now.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::LabelPairs;

/// The number of an owner; 0 is nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OwnerRef(pub u32);

/// The label of series whose owner's record is lost: its number.
pub const LOST_OWNER_LABEL: &str = "lost_owner";

/// The owner has other labels for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("owner {0:?} is bound already")]
pub struct AlreadyBound(pub OwnerRef);

/// All owners.
#[derive(Default)]
pub struct Owners(RwLock<Table>);

#[derive(Default)]
struct Table {
    owners: OwnersView,
    /// The highest number that was ever given; none of a file or a log is given again.
    last: u32,
}

/// What is known of one.
#[derive(Clone, Debug, Default)]
pub struct Owner {
    pub(super) labels: Arc<[(Arc<str>, Arc<str>)]>,
    pub(super) is_bound: bool,
    /// Numbers that a damaged log left without a record.
    pub(super) is_known: bool,
}

// === impl Owner ===

impl Owner {
    /// Whether it is bound, and its labels; `None` for a number whose record is lost.
    #[must_use]
    pub fn known(&self) -> Option<(bool, &LabelSlice)> {
        self.is_known.then_some((self.is_bound, &*self.labels))
    }
}

/// Label pairs in the order of their names.
type LabelSlice = [(Arc<str>, Arc<str>)];

/// The owners at one moment: a query sees one such moment.
pub type OwnersView = Arc<HashMap<OwnerRef, Owner, ahash::RandomState>>;

fn pairs(labels: &[(&str, &str)]) -> Arc<[(Arc<str>, Arc<str>)]> {
    let mut pairs: LabelPairs =
        labels.iter().map(|(name, value)| (Arc::from(*name), Arc::from(*value))).collect();
    pairs.sort();
    pairs.dedup_by(|later, first| later.0 == first.0);
    pairs.into()
}

// === impl Owners ===

impl Owners {
    /// A new owner, known by what is known of it so far.
    pub fn create(&self, labels: &[(&str, &str)]) -> OwnerRef {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.last = all.last.saturating_add(1);
        let owner = OwnerRef(all.last);
        let known = Owner { labels: pairs(labels), is_bound: false, is_known: true };
        Arc::make_mut(&mut all.owners).insert(owner, known);
        owner
    }

    /// Says what is known of an owner now. Twice the same is fine.
    ///
    /// # Errors
    /// If the owner is bound to other labels.
    pub fn bind(&self, owner: OwnerRef, labels: &[(&str, &str)]) -> Result<(), AlreadyBound> {
        self.put(owner, true, labels)
    }

    /// Puts an owner back as a log or a file has it. What is bound stays bound.
    ///
    /// # Errors
    /// If the owner is bound to other labels.
    pub fn put(&self, owner: OwnerRef, is_bound: bool, labels: &[(&str, &str)]) -> Result<(), AlreadyBound> {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let labels = pairs(labels);
        if let Some(known) = all.owners.get(&owner)
            && known.is_bound
        {
            return if known.labels == labels || !is_bound { Ok(()) } else { Err(AlreadyBound(owner)) };
        }
        all.last = all.last.max(owner.0);
        Arc::make_mut(&mut all.owners).insert(owner, Owner { labels, is_bound, is_known: true });
        Ok(())
    }

    /// Numbers below this are not given out any more.
    pub fn skip_to(&self, next: u32) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.last = all.last.max(next.saturating_sub(1));
    }

    /// A series is this owner's, whoever it is.
    pub fn refer(&self, owner: OwnerRef) {
        if owner.0 == 0 || self.view().contains_key(&owner) {
            return;
        }
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.last = all.last.max(owner.0);
        Arc::make_mut(&mut all.owners).entry(owner).or_default();
    }

    /// Gives owners that are referred to and whose records are lost a name of their own, so that their series are
    /// neither taken for others nor for each other's. Returns how many they were.
    pub fn name_lost(&self) -> u64 {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if all.owners.values().all(|owner| owner.is_known) {
            return 0;
        }
        let mut count = 0;
        for (number, owner) in Arc::make_mut(&mut all.owners).iter_mut().filter(|(_, owner)| !owner.is_known)
        {
            let labels = pairs(&[(LOST_OWNER_LABEL, &number.0.to_string())]);
            *owner = Owner { labels, is_bound: false, is_known: true };
            count += 1;
        }
        count
    }

    /// The owners as they are known now.
    #[must_use]
    pub fn view(&self) -> OwnersView {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner).owners)
    }

    /// The number the next owner gets.
    #[must_use]
    pub fn next(&self) -> u32 {
        self.0.read().unwrap_or_else(PoisonError::into_inner).last.saturating_add(1)
    }

    /// All that are known: number, whether bound, labels.
    #[must_use]
    pub fn all(&self) -> Vec<(OwnerRef, bool, Arc<LabelSlice>)> {
        let view = self.view();
        let known = view.iter().filter(|(_, owner)| owner.is_known);
        let mut all: Vec<_> =
            known.map(|(owner, known)| (*owner, known.is_bound, Arc::clone(&known.labels))).collect();
        all.sort_unstable_by_key(|(owner, ..)| *owner);
        all
    }
}

/// The labels of an owner in a view.
#[must_use]
pub fn labels_of(view: &OwnersView, owner: OwnerRef) -> &[(Arc<str>, Arc<str>)] {
    view.get(&owner).map_or(&[], |owner| &owner.labels)
}
