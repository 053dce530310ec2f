//! Redirects over TLS 1.3: tinyd, nginx, HAProxy and Caddy, with the same certificate, cipher suite and group.

pub(crate) mod certificate;
pub(crate) mod client;
pub(crate) mod h2load;
pub(crate) mod handshakes;
pub(crate) mod idle;
pub(crate) mod servers;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::rig::contest::{self, Lane, Measured};
use crate::rig::http::GOTO;
use crate::rig::links;
use crate::rig::machine::{self, Place};
use crate::rig::report::{self, Goal, say};
use crate::rig::stores::Prepared;
use crate::rig::tls::certificate::Certificate;
use crate::rig::tls::client::Client;
use crate::rig::tls::servers::{Kind, Server, Site};
use crate::rig::wrk::{self, Manner};

const CONNECTIONS: u32 = 64;

/// What is measured in CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    KeepAlive,
    Full,
    Resumed,
    Http2,
}

/// All servers that are running.
#[derive(Debug)]
pub(crate) struct Field<'f> {
    scratch: PathBuf,
    store: &'f Prepared,
    links: u64,
    certificate: Certificate,
    servers: Vec<Server>,
    /// What h2load asks for.
    paths: PathBuf,
}

impl<'f> Field<'f> {
    pub(crate) fn set_up(scratch: &Path, store: &'f Prepared, links: u64) -> Result<Self> {
        let scratch = scratch.join("tls");
        std::fs::create_dir_all(&scratch)?;
        let paths = scratch.join("paths");
        links::write(&paths, |file| {
            for number in 0..links {
                writeln!(file, "{GOTO}{}", links::id(number))?;
            }
            Ok(())
        })?;
        let mut field = Self {
            certificate: Certificate::new(&scratch)?,
            scratch,
            store,
            links,
            servers: Vec::new(),
            paths,
        };
        for kind in Kind::ALL {
            match kind.start(&field.site())? {
                Some(server) => field.servers.push(server),
                None => report::remark(&format!(
                    "{} is not installed and left out: {}",
                    kind.name(),
                    machine::INSTALL
                )),
            }
        }
        let client = Client::new(&field.certificate)?;
        for server in &field.servers {
            let answer = client.get(server.address, &format!("{GOTO}{}", links::id(1)));
            server.verify(&answer.with_context(|| server.kind.name())?, 1)?;
        }
        Ok(field)
    }

    fn site(&self) -> Site<'_> {
        Site {
            scratch: &self.scratch,
            store: self.store,
            links: self.links,
            certificate: &self.certificate,
        }
    }

    pub(crate) fn measure(
        &self,
        task: Task,
        title: &str,
        ids: &Path,
        rounds: u64,
        seconds: u64,
    ) -> Result<Vec<Measured>> {
        let servers = self.servers.iter();
        match task {
            Task::KeepAlive => {
                let script = wrk::goto(&self.scratch, "goto", ids, Manner::KeepAlive)?;
                let lane = |server: &Server| Lane {
                    name: server.kind.name().to_owned(),
                    process: server.process.id(),
                    url: format!("https://{}", server.address),
                    script: script.clone(),
                    connections: CONNECTIONS,
                    is_refused: false,
                    load: Place::Load,
                };
                contest::measure(title, &servers.map(lane).collect::<Vec<_>>(), rounds, seconds)
            }
            Task::Full => {
                let lanes = servers.map(|server| handshakes::Lane::full(server, &self.certificate, self.links));
                contest::measure(title, &lanes.collect::<Result<Vec<_>>>()?, rounds, seconds)
            }
            Task::Resumed => {
                let lanes = servers.map(|server| handshakes::Lane::resumed(server, &self.certificate, self.links));
                contest::measure(title, &lanes.collect::<Result<Vec<_>>>()?, rounds, seconds)
            }
            Task::Http2 if machine::find("h2load").is_none() => {
                say(&format!(
                    "h2load is not installed; {title} is left out: {}",
                    machine::INSTALL
                ));
                Ok(Vec::new())
            }
            Task::Http2 => {
                let (client, paths) = (Client::new(&self.certificate)?, &self.paths);
                for server in &self.servers {
                    if !client.can_use_http2(server.address)? {
                        say(&format!(
                            "{} does not offer HTTP/2; {title} is left out",
                            server.kind.name()
                        ));
                        return Ok(Vec::new());
                    }
                }
                let lanes = servers.map(|server| h2load::Lane { server, paths });
                contest::measure(title, &lanes.collect::<Vec<_>>(), rounds, seconds)
            }
        }
    }

    /// The memory of idle connections, with servers of their own.
    pub(crate) fn idle(&self, title: &str, connections: u64, rounds: u64) -> Result<(Value, Vec<Goal>)> {
        let kinds: Vec<_> = self.servers.iter().map(|server| server.kind).collect();
        idle::make_room(connections)?;
        idle::compare(title, &kinds, &self.site(), connections, rounds)
    }
}
