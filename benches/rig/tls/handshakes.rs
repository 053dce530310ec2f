//! A closed-loop load generator whose every request has a connection of its own, and what it verifies of each.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use rustls::HandshakeKind;

use crate::rig::contest::{Driven, Served};
use crate::rig::http::GOTO;
use crate::rig::links;
use crate::rig::machine::Place;
use crate::rig::tls::certificate::Certificate;
use crate::rig::tls::client::Client;
use crate::rig::tls::servers::Server;

/// Connections at a time.
const WORKERS: usize = 16;

/// A server and how connections to it begin.
#[derive(Debug)]
pub(crate) struct Lane<'s> {
    server: &'s Server,
    kind: HandshakeKind,
    /// One a worker, so that none takes another's tickets.
    clients: Vec<Client>,
    links: u64,
}

impl<'s> Lane<'s> {
    /// Every handshake is full.
    pub(crate) fn full(server: &'s Server, certificate: &Certificate, links: u64) -> Result<Self> {
        let clients = (0..WORKERS).map(|_| Client::new(certificate));
        Ok(Self {
            server,
            kind: HandshakeKind::Full,
            clients: clients.collect::<Result<_>>()?,
            links,
        })
    }

    /// Every handshake is resumed. The tickets of the first ones are taken before anything is measured.
    pub(crate) fn resumed(server: &'s Server, certificate: &Certificate, links: u64) -> Result<Self> {
        let client = |_| {
            let client = Client::resuming(certificate)?;
            client.get(server.address, &format!("{GOTO}{}", links::id(0)))?;
            Ok(client)
        };
        Ok(Self {
            server,
            kind: HandshakeKind::Resumed,
            clients: (0..WORKERS).map(client).collect::<Result<_>>()?,
            links,
        })
    }

    /// Requests until the time is over; how many.
    fn work(&self, client: &Client, end: Instant, mut drawn: u64) -> Result<u64> {
        Place::Load.take_this_thread()?;
        let mut requests = 0;
        while Instant::now() < end {
            drawn = links::mixed(drawn);
            let number = drawn % self.links.max(1);
            let target = format!("{GOTO}{}", links::id(number));
            let (kind, answer) = client.get_and_close(self.server.address, &target)?;
            if kind != self.kind {
                bail!(
                    "handshake {requests} of a client is {kind:?} instead of {:?}",
                    self.kind
                );
            }
            self.server.verify(&answer, number)?;
            requests += 1;
        }
        Ok(requests)
    }
}

impl Driven for Lane<'_> {
    fn name(&self) -> &str {
        self.server.kind.name()
    }

    fn process(&self) -> u32 {
        self.server.process.id()
    }

    fn drive(&self, seconds: u64, seed: u64) -> Result<Served> {
        let started = Instant::now();
        let end = started + Duration::from_secs(seconds);
        let requests = thread::scope(|scope| {
            let seeds = (seed << 32)..;
            let workers: Vec<_> = self
                .clients
                .iter()
                .zip(seeds)
                .map(|(client, seed)| scope.spawn(move || self.work(client, end, seed)))
                .collect();
            let ended = workers.into_iter().map(|worker| {
                worker
                    .join()
                    .unwrap_or_else(|_| Err(anyhow!("the load generator panicked")))
            });
            // All have ended before an error is returned.
            ended.collect::<Vec<_>>().into_iter().sum::<Result<u64>>()
        })?;
        Ok(Served {
            requests,
            seconds: started.elapsed().as_secs_f64(),
        })
    }
}
