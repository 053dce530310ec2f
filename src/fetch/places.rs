//! How many fetches may go on at a time, in all and for each client.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::model::client_network;

#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    most_per_client: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    in_all: usize,
    by_client: HashMap<IpAddr, usize>,
}

/// The place of a fetch, which is free again when this is dropped.
#[derive(Debug)]
pub(super) struct FetchSlot {
    places: Arc<Places>,
    client: IpAddr,
}

impl Places {
    pub(super) fn new(most: usize, most_per_client: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            most_per_client,
            taken: Mutex::default(),
        })
    }

    /// A place for a client, if one is free.
    pub(super) fn take(self: &Arc<Self>, client: IpAddr) -> Option<FetchSlot> {
        let client = client_network(client);
        let mut taken = self.taken.lock();
        if taken.in_all >= self.most
            || taken
                .by_client
                .get(&client)
                .is_some_and(|of_client| *of_client >= self.most_per_client)
        {
            return None;
        }
        taken.in_all += 1;
        *taken.by_client.entry(client).or_default() += 1;
        Some(FetchSlot {
            places: Arc::clone(self),
            client,
        })
    }
}

impl Drop for FetchSlot {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock();
        taken.in_all -= 1;
        if let Some(of_client) = taken.by_client.get_mut(&self.client) {
            *of_client -= 1;
            if *of_client == 0 {
                taken.by_client.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_limited_in_all_and_for_each_client() {
        let places = Places::new(3, 2);
        let take = |client: &str| places.take(client.parse().unwrap());
        let (one, two) = (take("2001:db8::1").unwrap(), take("2001:db8::2").unwrap());
        assert!(take("2001:db8::3").is_none());
        let other = take("203.0.113.7").unwrap();
        assert!(take("203.0.113.8").is_none());
        drop(one);
        assert!(take("2001:db8::3").is_some());
        drop((two, other));
        assert!(places.taken.lock().by_client.is_empty());
        assert_eq!(places.taken.lock().in_all, 0);
    }
}
