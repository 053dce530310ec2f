//! Where a link stands in a list.

use crate::model::{ID_MAX_BYTES, LinkId, Timestamp};
use crate::store::query::{Order, OrderField};

/// Where a link stands in the result: keys in ascending order are links in output order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// Whether the time is never, and the time; equal for all links where the order has no time.
    times: [(bool, i64); OrderField::COUNT],
    tie: [u8; ID_MAX_BYTES],
}

impl Rank {
    pub(super) fn new(order: Order, time_of: impl Fn(OrderField) -> Option<Timestamp>, id: LinkId) -> Self {
        let rank_by = |time: Option<super::TimeOrder>| {
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
