//! What the configuration of NATS servers includes for a cluster: where streams are kept, and who may do what.

use std::fmt::{self, Write as _};

use crate::cluster::presence::Member;
use crate::cluster::{ClusterSettings, Role, check_name, key};

/// A box as the servers know it. Its text is a line of the file that they are made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownBox {
    pub role: Role,
    pub node: String,
    pub public_key: String,
}

impl fmt::Display for KnownBox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.role.name(), self.node, self.public_key)
    }
}

impl KnownBox {
    /// Errors name no word of the line, which may be a seed.
    fn read(line: &str) -> Result<Self, String> {
        let words: Vec<_> = line.split_whitespace().collect();
        let [role, node, public_key] = words.as_slice() else {
            return Err("expected a role, a name and a public key, as tinyd cluster key prints them".to_owned());
        };
        let found = [Role::Admin, Role::Edge]
            .into_iter()
            .find(|known| known.name() == *role);
        let role = found.ok_or("the role: expected admin or edge")?;
        check_name(node).map_err(|expected| format!("the name: {expected}"))?;
        if !key::is_public(public_key) {
            return Err(format!(
                "the key of {node} is not that of a user: expected 56 characters that begin with U"
            ));
        }
        Ok(Self {
            role,
            node: (*node).to_owned(),
            public_key: (*public_key).to_owned(),
        })
    }

    /// The boxes of a file with one a line, empty lines and those that begin with `#` aside.
    pub fn read_all(text: &str) -> Result<Vec<Self>, String> {
        let mut boxes = Vec::<Self>::new();
        let lines = text.lines().map(str::trim).zip(1..);
        for (line, number) in lines.filter(|(line, _)| !line.is_empty() && !line.starts_with('#')) {
            let wrong = |reason| format!("line {number}: {reason}");
            let read = Self::read(line).map_err(wrong)?;
            for known in &boxes {
                if known.node == read.node || known.public_key == read.public_key {
                    let (node, other) = (&read.node, &known.node);
                    return Err(wrong(format!(
                        "{node} has the name or the key of {other}: each box needs its own"
                    )));
                }
            }
            boxes.push(read);
        }
        if boxes.iter().any(|one| one.role == Role::Admin) {
            Ok(boxes)
        } else {
            Err("no line of an admin box: expected those that tinyd cluster key prints".to_owned())
        }
    }

    /// A user with what the box needs and nothing else.
    fn user(&self, settings: &ClusterSettings) -> String {
        let Self { role, node, public_key } = self;
        let (subject, stream) = (|of: &str| settings.subject(of), settings.stream());
        let (publish, subscribe) = match role {
            // Also the name under which the command line asks.
            Role::Admin => (
                vec!["$JS.API.>".to_owned(), subject(">")],
                vec![
                    format!("_INBOX_{node}.>"),
                    format!("_INBOX_{node}-status.>"),
                    subject(">"),
                ],
            ),
            Role::Edge => (
                vec![
                    format!("$JS.API.DIRECT.GET.{stream}"),
                    format!("$JS.API.DIRECT.GET.{stream}_COPY"),
                    // The same, as a leaf node maps them.
                    subject("read"),
                    subject("read_copy"),
                    subject(&Member::subject(role.name(), node)),
                    subject("entry"),
                    subject(&format!("clicks.{node}")),
                ],
                vec![
                    format!("_INBOX_{node}.>"),
                    subject("live"),
                    subject("head"),
                    subject("ask"),
                    subject(&format!("given.{node}")),
                ],
            ),
        };
        format!(
            "      {{ # {node}\n        nkey: {public_key}\n        permissions: {{\n          \
             publish: {publish:?}\n          subscribe: {subscribe:?}\n        }}\n      }}\n"
        )
    }
}

fn users(settings: &ClusterSettings, boxes: &[KnownBox], role: Role) -> String {
    let of_role = boxes.iter().filter(|one| one.role == role);
    of_role.map(|one| one.user(settings)).collect()
}

/// Where the servers keep streams.
#[derive(Debug)]
pub struct StreamStore {
    pub folder: String,
    pub max_gigabytes: u64,
}

/// What the servers include. Edges have an account of their own, because servers send the answer to a request to
/// whatever subject it names, which must not be that of the log.
pub fn include(settings: &ClusterSettings, boxes: &[KnownBox], store: &StreamStore) -> String {
    let (subject, stream) = (|of: &str| settings.subject(of), settings.stream());
    let servers = "$SYS.REQ.SERVER.PING.JSZ";
    let direct = [stream.clone(), format!("{stream}_COPY")].map(|stream| format!("$JS.API.DIRECT.GET.{stream}"));
    let (mut exports, mut imports) = (String::new(), String::new());
    // Writing to a string does not fail.
    for of in ["live", "head", "ask", "given.*"] {
        let of = subject(of);
        let _ = writeln!(exports, "      {{ stream: {of:?}, accounts: [EDGES] }}");
        let _ = writeln!(imports, "      {{ stream: {{ account: LINKS, subject: {of:?} }} }}");
    }
    for (of, name) in direct.iter().zip(["read", "read_copy"]) {
        let name = subject(name);
        let _ = writeln!(
            exports,
            "      {{ service: {of:?}, response_type: stream, accounts: [EDGES] }}"
        );
        let _ = writeln!(imports, "      {{ service: {{ account: LINKS, subject: {of:?} }} }}");
        let _ = writeln!(
            imports,
            "      {{ service: {{ account: LINKS, subject: {of:?} }}, to: {name:?} }}"
        );
    }
    for of in ["entry", "pos.edge.*", "clicks.*"] {
        let of = subject(of);
        let _ = writeln!(exports, "      {{ service: {of:?}, accounts: [EDGES] }}");
        let _ = writeln!(imports, "      {{ service: {{ account: LINKS, subject: {of:?} }} }}");
    }
    let (folder, most, to) = (&store.folder, store.max_gigabytes, subject("servers"));
    let (admins, edges) = [Role::Admin, Role::Edge]
        .map(|role| users(settings, boxes, role))
        .into();
    format!(
        "{HEADER}\
         jetstream {{ store_dir: {folder:?}, max_file: {most}G, sync_interval: always }}\n\
         accounts {{\n  \
         SYS {{ exports: [{{ service: {servers:?}, response_type: stream }}] }}\n  \
         LINKS {{\n    jetstream: enabled\n    \
         imports: [{{ service: {{ account: SYS, subject: {servers:?} }}, to: {to:?} }}]\n    \
         exports: [\n{exports}    ]\n    users: [\n{admins}    ]\n  }}\n  \
         EDGES {{\n    imports: [\n{imports}    ]\n    users: [\n{edges}    ]\n  }}\n\
         }}\nsystem_account: SYS\n"
    )
}

/// What a leaf node includes. JetStream does not cross to it, so reads of the log go by other names.
pub fn include_of_leaf(settings: &ClusterSettings, boxes: &[KnownBox]) -> String {
    let (stream, edges) = (settings.stream(), users(settings, boxes, Role::Edge));
    let [read, read_copy] = ["read", "read_copy"].map(|of| settings.subject(of));
    format!(
        "{HEADER}\
         accounts {{\n  EDGES {{\n    mappings: {{\n      \
         \"$JS.API.DIRECT.GET.{stream}\": {read:?}\n      \
         \"$JS.API.DIRECT.GET.{stream}_COPY\": {read_copy:?}\n    }}\n    \
         users: [\n{edges}    ]\n  }}\n}}\n"
    )
}

const HEADER: &str = "# Made by tinyd cluster include. Run it again to change it.\n";

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh_key() -> String {
        key::public_key(&key::generate().unwrap()).unwrap()
    }

    #[test]
    fn boxes_are_read_from_the_lines_of_their_keys() {
        let [a, b] = [(Role::Admin, "a"), (Role::Edge, "b-1")].map(|(role, node)| KnownBox {
            role,
            node: node.to_owned(),
            public_key: fresh_key(),
        });
        let text = format!("# boxes\n\n{a}\n  {b}\r\n");
        assert_eq!(KnownBox::read_all(&text), Ok(vec![a.clone(), b.clone()]));
        let seed = key::generate().unwrap();
        let account = fresh_key().replacen('U', "A", 1);
        let (fresh, of_a) = (fresh_key(), &a.public_key);
        for (lines, expected) in [
            (format!("{a}\nedge b"), "line 2: expected a role, a name and"),
            (seed.clone(), "line 1: expected a role, a name and"),
            (format!("leaf b {fresh}"), "line 1: the role: expected admin or"),
            (format!("edge b.c {fresh}"), "line 1: the name: expected 1 to 32"),
            (
                format!("edge b {account}"),
                "line 1: the key of b is not that of a user",
            ),
            (format!("edge b {seed}"), "line 1: the key of b is not that of a user"),
            (format!("{a}\nedge a {fresh}"), "line 2: a has the name or the key of a"),
            (format!("{a}\nedge b {of_a}"), "line 2: b has the name or the key of a"),
            (b.to_string(), "no line of an admin box"),
        ] {
            let error = KnownBox::read_all(&lines).unwrap_err();
            assert!(error.starts_with(expected) && !error.contains(&seed), "{error}");
        }
    }
}
