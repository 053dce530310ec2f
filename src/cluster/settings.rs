//! The settings of `[cluster]`.

use std::time::Duration;

use url::Url;

use crate::tls::Authorities;

/// What a box does in its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Takes writes, and redirects.
    Admin,
    /// Redirects only.
    Edge,
}

impl Role {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Edge => "edge",
        }
    }
}

/// What an admin box answers to reads while the log does not say how far it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// 503: every read shows all that any admin box has acknowledged.
    Current,
    /// What this box has.
    Available,
}

#[derive(Clone, PartialEq, Eq)]
pub struct ClusterSettings {
    pub role: Role,
    /// The name of the cluster, in the subjects and the stream of the log.
    pub name: String,
    /// The name of this box in it.
    pub node: String,
    pub servers: Vec<String>,
    /// The seed of the NKEY with which this box identifies itself.
    pub seed: Option<String>,
    pub authorities: Authorities,
    /// How long a write waits for the log.
    pub write_patience: Duration,
    pub reads: Reads,
    /// The API of an admin box, for clients that write to an edge.
    pub admin_url: Option<String>,
    pub accept_lazy_fsync: bool,
}

impl std::fmt::Debug for ClusterSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (role, name, node) = (self.role, &self.name, &self.node);
        write!(f, "ClusterSettings({name}, {node}, {role:?})")
    }
}

impl ClusterSettings {
    pub fn stream(&self) -> String {
        format!("TINYD_{}", self.name)
    }

    pub fn is_edge(&self) -> bool {
        self.role == Role::Edge
    }

    /// Whose API and console to use in place of an edge's.
    pub fn admin_box(&self) -> &str {
        self.admin_url.as_deref().unwrap_or("an admin box")
    }

    /// A subject of the cluster.
    pub fn subject(&self, of: &str) -> String {
        format!("tinyd.{}.{of}", self.name)
    }
}

/// Refuses what cannot be part of a subject.
pub fn check_name(text: &str) -> Result<(), String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if (1..=32).contains(&text.len()) && text.chars().all(is_plain) {
        return Ok(());
    }
    Err("expected 1 to 32 letters, digits, - or _".to_owned())
}

/// Refuses what is no address of a NATS server.
pub fn check_server(text: &str) -> Result<(), String> {
    const EXPECTED: &str = "expected the address of a NATS server, such as tls://nats1.example.com:4222";
    let url = Url::parse(text).map_err(|error| format!("{error}: {EXPECTED}"))?;
    let is_server = matches!(url.scheme(), "nats" | "tls") && url.host_str().is_some();
    let is_plain = url.username().is_empty() && url.password().is_none() && matches!(url.path(), "" | "/");
    match is_server && is_plain {
        true => Ok(()),
        false => Err(format!("{EXPECTED}, without a password: set cluster.key_file")),
    }
}
