//! A set for the facts about callers, which a server keeps for each signed-in user.

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::ops::Deref;

/// A set in a single allocation without spare capacity: a sorted slice of distinct values.
///
/// A [`BTreeSet`] allocates room for 11 values at least.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompactSet<T>(Box<[T]>);

impl<T: Ord> CompactSet<T> {
    /// Returns whether the set contains this value.
    pub fn contains<Q: Ord + ?Sized>(&self, value: &Q) -> bool
    where
        T: Borrow<Q>,
    {
        self.0.binary_search_by(|own| own.borrow().cmp(value)).is_ok()
    }
}

impl<T> Default for CompactSet<T> {
    fn default() -> Self {
        Self(Box::default())
    }
}

impl<T: Ord, V: Into<T>> FromIterator<V> for CompactSet<T> {
    fn from_iter<I: IntoIterator<Item = V>>(values: I) -> Self {
        Self(values.into_iter().map(Into::into).collect::<BTreeSet<T>>().into_iter().collect())
    }
}

impl<T> Deref for CompactSet<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_contains_exactly_the_values_it_was_made_of_each_once() {
        let set: CompactSet<Box<str>> = ["b", "c", "a", "b"].into_iter().collect();
        assert_eq!(Vec::from_iter(set.iter().map(|value| &**value)), ["a", "b", "c"]);
        for (value, is_in) in [("a", true), ("b", true), ("c", true), ("A", false), ("", false), ("d", false)] {
            assert_eq!(set.contains(value), is_in, "{value}");
        }
    }
}
