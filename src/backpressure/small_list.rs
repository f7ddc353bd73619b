//! A list that is nearly always empty or of one element.
//!
//! Owns the layout that keeps such a list at two words without an allocation:
//! every idle client has two of them. Refuses to be a general container.

/// Zero, one or many elements, in the order in which they came.
#[derive(Clone, Debug, Default)]
pub(crate) enum SmallList<T> {
    #[default]
    Empty,
    One(T),
    // The box keeps the common cases small: a bare vector would triple them.
    #[expect(clippy::box_collection, reason = "a client in the table must stay small")]
    Many(Box<Vec<T>>),
}

impl<T> SmallList<T> {
    pub(crate) fn push(&mut self, element: T) {
        *self = match std::mem::take(self) {
            Self::Empty => Self::One(element),
            Self::One(first) => Self::Many(Box::new(vec![first, element])),
            Self::Many(mut all) => {
                all.push(element);
                Self::Many(all)
            }
        };
    }

    pub(crate) fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        match self {
            Self::One(only) if !keep(only) => *self = Self::Empty,
            Self::Many(all) => all.retain(keep),
            _ => {}
        }
    }

    pub(crate) fn as_slice(&self) -> &[T] {
        match self {
            Self::Empty => &[],
            Self::One(only) => std::slice::from_ref(only),
            Self::Many(all) => all,
        }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [T] {
        match self {
            Self::Empty => &mut [],
            Self::One(only) => std::slice::from_mut(only),
            Self::Many(all) => all,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_keep_their_order_through_every_size() {
        let mut list = SmallList::default();
        for element in 0..4 {
            list.push(element);
            assert_eq!(list.as_slice(), (0..=element).collect::<Vec<_>>());
        }
        list.retain(|element| element % 2 == 1);
        assert_eq!(list.as_slice(), [1, 3]);
        list.retain(|_| false);
        assert!(list.as_mut_slice().is_empty());
        let mut one = SmallList::One(7);
        one.retain(|_| true);
        assert_eq!(one.as_slice(), [7]);
        one.retain(|_| false);
        assert!(one.as_slice().is_empty());
    }
}
