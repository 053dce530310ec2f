//! Lists take turns: so that many of them, or long ones, keep neither redirects nor each other waiting for ever.
//!
//! A list begins among the short ones. If it turns out to take more steps than these may, it begins again in the next
//! queue, where fewer go on at a time; in the last one on threads of the lowest priority. What is done twice is a
//! small part of the whole. Each queue gives turns to partners in rotation. Reads of single links take no turns.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use crate::links::Links;
use crate::model;
use crate::model::PartnerId;
use crate::store::{Lane, ReadLimit, Stopped, StoreError};

/// Steps of a short list: as many as reading sixty links one by one. Enough for the first page of nearly every list.
const SHORT_STEPS: u64 = 2_048;
/// Concurrent short lists. Each takes a moment; more would hold too much memory.
const SHORT_MAX: usize = 32;
/// Steps of a list of about three thousand links.
const MEDIUM_STEPS: u64 = 100_000;
/// The same where longer ones are answered from memory: about as long as that takes.
const IN_MEMORY_STEPS: u64 = 40_000;
/// The worst list of a million links takes a few seconds alone.
pub const READ_TIMEOUT: Duration = Duration::from_secs(20);
/// Concurrent long lists, each of which may use several threads.
const LONG_MAX: usize = 4;

/// The client that waits for a read.
#[derive(Debug, Clone)]
pub struct ReadContext {
    pub deadline: Instant,
    /// True once the client has disconnected.
    pub left: watch::Receiver<bool>,
    /// The same, cheap to read often.
    pub has_left: Arc<AtomicBool>,
    /// True while work is going on that ends when the client disconnects.
    pub is_awaited: watch::Sender<bool>,
}

impl ReadContext {
    /// Of a client whose leaving nobody notices.
    pub fn until(deadline: Instant) -> Self {
        Self {
            deadline,
            left: watch::channel(false).1,
            has_left: Arc::default(),
            is_awaited: watch::Sender::new(false),
        }
    }
}

#[cfg(test)]
impl ReadContext {
    pub(super) fn patient() -> Self {
        Self::until(Instant::now() + Duration::from_secs(3600))
    }
}

/// Sets `is_awaited` while it lives.
struct Awaited<'c>(&'c ReadContext);

impl<'c> Awaited<'c> {
    fn new(context: &'c ReadContext) -> Self {
        context.is_awaited.send_replace(true);
        Self(context)
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        self.0.is_awaited.send_replace(false);
    }
}

#[derive(Debug)]
pub(super) struct Turns {
    short: Arc<Queue>,
    medium: Arc<Queue>,
    long: Arc<Queue>,
}

impl Default for Turns {
    fn default() -> Self {
        let cores = model::cores();
        Self {
            short: Queue::new(SHORT_MAX),
            medium: Queue::new(cores.max(2)),
            long: Queue::new((cores / 2).clamp(1, LONG_MAX)),
        }
    }
}

/// Reads that wait for one of a number of slots.
#[derive(Debug)]
struct Queue(Mutex<Waiting>);

#[derive(Debug)]
struct Waiting {
    free: usize,
    by_partner: HashMap<PartnerId, VecDeque<oneshot::Sender<Turn>>>,
    /// The partners of waiting reads, in the order of their turns.
    rotation: VecDeque<PartnerId>,
}

impl Waiting {
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        let partner = self.rotation.pop_front()?;
        let waiting = self.by_partner.get_mut(&partner)?;
        let next = waiting.pop_front();
        if waiting.is_empty() {
            self.by_partner.remove(&partner);
        } else {
            self.rotation.push_back(partner);
        }
        next
    }
}

/// A slot, which the next in the queue gets when this is dropped.
#[derive(Debug)]
pub struct Turn(Option<Arc<Queue>>);

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(queue) = self.0.take() {
            queue.give_on();
        }
    }
}

impl Queue {
    fn new(places: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Waiting {
            free: places,
            by_partner: HashMap::new(),
            rotation: VecDeque::new(),
        })))
    }

    async fn turn(self: &Arc<Self>, partner: PartnerId, context: &ReadContext) -> Result<Turn, Stopped> {
        let turn = {
            let mut waiting = self.0.lock();
            if waiting.free > 0 {
                waiting.free -= 1;
                return Ok(Turn(Some(Arc::clone(self))));
            }
            let (sender, turn) = oneshot::channel();
            let of_partner = waiting.by_partner.entry(partner).or_default();
            of_partner.push_back(sender);
            if of_partner.len() == 1 {
                waiting.rotation.push_back(partner);
            }
            turn
        };
        let mut left = context.left.clone();
        let leaving = async {
            // Without a sender, the client counts as connected.
            if left.wait_for(|left| *left).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            // The queue lives as long as its turns.
            turn = turn => turn.map_err(|_| Stopped::Time),
            () = tokio::time::sleep_until(context.deadline.into()) => Err(Stopped::Time),
            () = leaving => Err(Stopped::Left),
        }
    }

    fn give_on(self: &Arc<Self>) {
        loop {
            let next = {
                let mut waiting = self.0.lock();
                match waiting.next() {
                    Some(next) => next,
                    None => {
                        waiting.free += 1;
                        return;
                    }
                }
            };
            match next.send(Turn(Some(Arc::clone(self)))) {
                Ok(()) => return,
                // It no longer waits; on to the next one.
                Err(mut turn) => drop(turn.0.take()),
            }
        }
    }
}

impl Links {
    /// Reads in the partner's turn: with few steps first, then with more, at last on threads of low priority. The turn
    /// lasts until it is dropped.
    pub(super) async fn read_in_turn<R, F>(
        &self,
        partner: PartnerId,
        context: &ReadContext,
        read: impl Fn(ReadLimit, Lane) -> F,
    ) -> Result<(R, Turn), StoreError>
    where
        F: Future<Output = Result<R, StoreError>>,
    {
        for (queue, steps) in [(&self.turns.short, SHORT_STEPS), (&self.turns.medium, MEDIUM_STEPS)] {
            // Beyond these, what is in memory answers sooner.
            let most = if self.search.is_ready() {
                IN_MEMORY_STEPS
            } else {
                u64::MAX
            };
            let steps = steps.min(most);
            let turn = queue.turn(partner, context).await?;
            match read(ReadLimit::steps(steps), Lane::Shared).await {
                Err(StoreError::Stopped(Stopped::Steps)) => {}
                done => return Ok((done?, turn)),
            }
        }
        let _awaited = Awaited::new(context);
        let turn = self.turns.long.turn(partner, context).await?;
        // Its time begins with its turn.
        let deadline = context.deadline.min(Instant::now() + READ_TIMEOUT);
        let limit = ReadLimit::until(deadline, Arc::clone(&context.has_left));
        Ok((read(limit, Lane::Apart).await?, turn))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> (ReadContext, watch::Sender<bool>) {
        let (leave, left) = watch::channel(false);
        let context = ReadContext {
            left,
            ..ReadContext::patient()
        };
        (context, leave)
    }

    #[tokio::test]
    async fn partners_take_turns_in_rotation() {
        let (queue, order) = (Queue::new(1), Arc::new(Mutex::new(Vec::new())));
        let first = queue.turn(PartnerId(1), &context().0).await.unwrap();
        let mut tasks = Vec::new();
        for partner in [1, 1, 1, 2, 2, 3] {
            let (queue, order) = (Arc::clone(&queue), Arc::clone(&order));
            let (context, leave) = context();
            tasks.push(tokio::spawn(async move {
                let _turn = queue.turn(PartnerId(partner), &context).await.unwrap();
                order.lock().push(partner);
                drop(leave);
            }));
            // Each is in the queue before the next one comes.
            tokio::task::yield_now().await;
        }
        drop(first);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.lock(), [1, 2, 3, 1, 2, 1]);
        assert_eq!(queue.0.lock().free, 1);
    }

    #[tokio::test]
    async fn turn_of_a_client_that_left_goes_to_the_next() {
        let queue = Queue::new(1);
        let first = queue.turn(PartnerId(1), &context().0).await.unwrap();
        let (leaver, leave) = context();
        let (late, _stay) = context();
        let late = ReadContext {
            deadline: Instant::now(),
            ..late
        };
        let waiting = {
            let queue = Arc::clone(&queue);
            tokio::spawn(async move { queue.turn(PartnerId(2), &leaver).await.map(drop) })
        };
        tokio::task::yield_now().await;
        leave.send_replace(true);
        assert_eq!(waiting.await.unwrap(), Err(Stopped::Left));
        assert_eq!(queue.turn(PartnerId(2), &late).await.map(drop), Err(Stopped::Time));
        drop(first);
        drop(queue.turn(PartnerId(3), &context().0).await.unwrap());
        assert_eq!(queue.0.lock().free, 1);
    }
}
