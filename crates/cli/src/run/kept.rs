//! The kept part of an endless series: its first and last items, and their number.

use std::collections::VecDeque;

/// The first and the last items, up to a limit for each.
#[derive(Debug)]
pub(super) struct FirstAndLast<T> {
    most: usize,
    first: Vec<T>,
    last: VecDeque<T>,
    count: u64,
}

impl<T> FirstAndLast<T> {
    /// Keeps up to `most` first items, and as many last ones.
    pub(super) fn new(most: usize) -> Self {
        Self { most, first: Vec::new(), last: VecDeque::new(), count: 0 }
    }

    pub(super) fn push(&mut self, item: T) {
        self.count += 1;
        if self.first.len() < self.most {
            self.first.push(item);
            return;
        }
        if self.last.len() >= self.most {
            self.last.pop_front();
        }
        self.last.push_back(item);
    }

    /// The number of items.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The number of items between the first and the last.
    pub(super) fn left_out(&self) -> u64 {
        self.count - (self.first.len() + self.last.len()) as u64
    }

    /// The first items, and the last.
    pub(super) fn into_parts(self) -> (Vec<T>, Vec<T>) {
        (self.first, self.last.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_the_last_are_kept_and_all_are_counted() {
        let mut kept = FirstAndLast::new(2);
        (1..=3).for_each(|n| kept.push(n));
        assert_eq!((kept.count(), kept.left_out()), (3, 0));
        (4..=1000).for_each(|n| kept.push(n));
        assert_eq!((kept.count(), kept.left_out()), (1000, 996));
        assert_eq!(kept.into_parts(), (vec![1, 2], vec![999, 1000]));
    }
}
