//! The position of a link in a list.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::model::{ID_MAX_BYTES, LinkId, Timestamp};
use crate::store::error::StoreError;
use crate::store::read::query::{Order, OrderField};

/// The position of a link in the result: keys in ascending order are links in output order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// Whether the time is never, and the time; equal for all links where the order has no time.
    times: [(bool, i64); OrderField::COUNT],
    tie: [u8; ID_MAX_BYTES],
}

impl Rank {
    pub fn new(order: Order, time_of: impl Fn(OrderField) -> Option<Timestamp>, id: LinkId) -> Self {
        let rank_by = |time: Option<crate::store::TimeOrder>| {
            let Some(by) = time else {
                return (false, 0);
            };
            let time = time_of(by.field);
            let seconds = time.map_or(0, Timestamp::as_unix);
            // The complement turns an order round.
            (time.is_none(), if by.descending { !seconds } else { seconds })
        };
        let tie = id.padded();
        Self {
            times: order.times.map(rank_by),
            tie: if order.ids_descend { tie.map(|byte| !byte) } else { tie },
        }
    }
}

/// Links with their ranks, in order or not.
pub type Candidates = Box<dyn Iterator<Item = Result<(Rank, LinkId), StoreError>>>;

/// Merges runs that are each in order. An error comes at once.
pub fn merge(mut runs: Vec<Candidates>) -> Candidates {
    if runs.len() == 1
        && let Some(only) = runs.pop()
    {
        return only;
    }
    let mut heads = BinaryHeap::new();
    // The runs whose next link is not among the heads.
    let mut behind: Vec<_> = (0..runs.len()).collect();
    Box::new(std::iter::from_fn(move || {
        while let Some(number) = behind.pop() {
            match runs.get_mut(number).and_then(Iterator::next) {
                Some(Ok(next)) => heads.push(Reverse((next, number))),
                Some(Err(error)) => {
                    (heads, behind) = Default::default();
                    return Some(Err(error));
                }
                None => {}
            }
        }
        let Reverse((head, number)) = heads.pop()?;
        behind.push(number);
        Some(Ok(head))
    }))
}
