//! The servers that redirect over TLS, each with the same links and the same certificate.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::rig::http::Answer;
use crate::rig::links::{self, DESTINATION_BYTES};
use crate::rig::process::Running;
use crate::rig::proxies;
use crate::rig::stores::Prepared;
use crate::rig::tinyd::{Setup, Tinyd};
use crate::rig::tls::certificate::Certificate;

/// What is measured, tinyd first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Tinyd,
    Nginx,
    HaProxy,
    Caddy,
}

/// What servers are started with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Site<'s> {
    pub(crate) scratch: &'s Path,
    pub(crate) store: &'s Prepared,
    pub(crate) links: u64,
    pub(crate) certificate: &'s Certificate,
}

/// A server that is running.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) kind: Kind,
    pub(crate) address: SocketAddr,
    pub(crate) process: Running,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Tinyd, Self::Nginx, Self::HaProxy, Self::Caddy];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tinyd => "tinyd",
            Self::Nginx => "nginx",
            Self::HaProxy => "HAProxy",
            Self::Caddy => "Caddy",
        }
    }

    /// Starts it, one thread on the server's core; `None` if it is not installed.
    pub(crate) fn start(self, site: &Site<'_>) -> Result<Option<Server>> {
        let Site {
            scratch,
            links,
            certificate,
            ..
        } = *site;
        std::fs::create_dir_all(scratch)?;
        let proxy = match self {
            Self::Tinyd => return Ok(Some(tinyd(site)?)),
            Self::Nginx => proxies::nginx(scratch, links, Some(certificate))?,
            Self::HaProxy => proxies::haproxy(scratch, links, Some(certificate))?,
            Self::Caddy => proxies::caddy(scratch, certificate)?,
        };
        Ok(proxy.map(|proxy| Server {
            kind: self,
            address: proxy.address,
            process: proxy.process,
        }))
    }
}

fn tinyd(site: &Site<'_>) -> Result<Server> {
    let data = site.scratch.join("data");
    site.store.copy_to(&data)?;
    let mut tinyd = Tinyd::start(Setup {
        certificate: Some(site.certificate),
        ..Setup::new(&data, site.scratch)
    })?;
    // Else pages of the store would be read, and be taken for memory of connections.
    tinyd.wait_until_verified()?;
    Ok(Server {
        kind: Kind::Tinyd,
        address: tinyd.secure.context("tinyd does not listen for TLS")?,
        process: tinyd.process,
    })
}

impl Server {
    /// Whether it redirects a link's id as expected.
    pub(crate) fn verify(&self, answer: &Answer, number: u64) -> Result<()> {
        let location = answer.location.as_deref().unwrap_or_default();
        let is_expected = match self.kind {
            Kind::Caddy => location.len() == DESTINATION_BYTES && location.contains(&links::id(number)),
            Kind::Tinyd | Kind::Nginx | Kind::HaProxy => location == links::destination(number),
        };
        if answer.status != 302 || !is_expected {
            let name = self.kind.name();
            bail!("{name} does not redirect as expected: {} {location:?}", answer.status);
        }
        Ok(())
    }
}
