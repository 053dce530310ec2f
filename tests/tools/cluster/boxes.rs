//! Boxes of a cluster: each an appliance in a folder of its own.

use std::collections::BTreeMap;
use std::fs;
use std::process::Output;
use std::sync::Arc;

use parking_lot::RwLock;
use serde_json::Value;
use tempfile::TempDir;

use crate::cluster::load::{Link, possible};
use crate::cluster::servers::{Servers, wait};
use crate::support::fixture::{Appliance, USER_SECRET, configuration, folder, serve, tinyd};
use crate::support::wire::Connection;

pub const LINKS_PER_DAY: usize = 3;

/// Where a box listens, which changes when it is started again.
#[derive(Debug, Clone, Default)]
pub struct Address {
    pub public: String,
    pub admin: String,
}

pub type Addresses = Arc<RwLock<Vec<Address>>>;

/// Admin boxes first, then edges.
pub struct Cluster {
    pub boxes: Vec<Appliance>,
    pub addresses: Addresses,
    pub admins: usize,
    pub servers: Servers,
}

pub fn settings(servers: &[String], role: &str, node: &str) -> String {
    let cluster = format!("[cluster]\nservers = {servers:?}\nrole = \"{role}\"\nnode = \"{node}\"\n");
    let secret = format!("user_secret = \"{USER_SECRET}\"\n");
    let limited = format!("{secret}links_per_user_and_day = {LINKS_PER_DAY}\n");
    configuration(&cluster).replacen(&secret, &limited, 1)
}

fn try_tinyd_cluster(folder: &std::path::Path, args: &[&str]) -> Output {
    let mut command = tinyd();
    command.arg("cluster").args(args);
    command.env("TINYD_CONFIG", folder.join("tinyd.toml"));
    command.env("TINYD_DATA", folder.join("data"));
    command.output().unwrap()
}

/// Runs `tinyd cluster` for the box in a folder, which must succeed, and returns what it prints.
pub fn tinyd_cluster(folder: &std::path::Path, args: &[&str]) -> String {
    let output = try_tinyd_cluster(folder, args);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {complained}");
    String::from_utf8(output.stdout).unwrap()
}

/// The same for a command that must fail; what it complains of.
pub fn failed_tinyd_cluster(folder: &std::path::Path, args: &[&str]) -> String {
    let output = try_tinyd_cluster(folder, args);
    assert!(!output.status.success(), "{args:?}");
    String::from_utf8(output.stderr).unwrap()
}

impl Cluster {
    pub fn start(admins: usize, edges: usize) -> Self {
        Self::start_on(Servers::start(), admins, edges, |servers, _| servers.urls())
    }

    /// Each box knows the servers that the function returns for its number, once the stream is there.
    pub fn start_on(
        servers: Servers,
        admins: usize,
        edges: usize,
        known: impl Fn(&Servers, usize) -> Vec<String>,
    ) -> Self {
        let (mut boxes, mut copy) = (Vec::new(), None);
        for number in 0..admins + edges {
            let (role, node) = if number < admins {
                ("admin", format!("admin{number}"))
            } else {
                ("edge", format!("edge{}", number - admins))
            };
            let folder = folder(&settings(&servers.urls(), role, &node));
            match &copy {
                None => {
                    tinyd_cluster(folder.path(), &["init", "--log-size", "1", "--clicks-size", "1"]);
                    copy = Some(copied(&folder));
                }
                Some(copy) => {
                    let copy: &TempDir = copy;
                    let file = copy.path().join("links.redb");
                    tinyd_cluster(folder.path(), &["join", "--from", file.to_str().unwrap()]);
                }
            }
            let own = settings(&known(&servers, number), role, &node);
            fs::write(folder.path().join("tinyd.toml"), own).unwrap();
            boxes.push(Appliance::start_by(serve(), folder));
        }
        let cluster = Self {
            addresses: Arc::new(RwLock::new(vec![Address::default(); boxes.len()])),
            boxes,
            admins,
            servers,
        };
        (0..cluster.boxes.len()).for_each(|number| cluster.note_address(number));
        cluster.wait_until_writable();
        cluster
    }

    fn note_address(&self, number: usize) {
        let one = &self.boxes[number];
        self.addresses.write()[number] = Address {
            public: one.public.clone(),
            admin: one.admin.clone(),
        };
    }

    pub fn restart(&mut self, number: usize) {
        self.boxes[number].restart();
        self.note_address(number);
    }

    /// Has a box forget the entries that it keeps for others: a copy has none.
    pub fn forget_entries(&mut self, number: usize) {
        self.boxes[number].terminate();
        let store = self.boxes[number].store();
        let compacted = self.boxes[number].tinyd(&["compact", "--store", store.to_str().unwrap()]);
        assert!(compacted.status.success(), "{compacted:?}");
        self.restart(number);
    }

    /// Has a box use other servers after its next start.
    pub fn point(&self, number: usize, servers: &[String]) {
        let path = self.boxes[number].config();
        let configured = fs::read_to_string(&path).unwrap();
        let line = configured.lines().find(|line| line.starts_with("servers = ")).unwrap();
        fs::write(path, configured.replacen(line, &format!("servers = {servers:?}"), 1)).unwrap();
    }

    pub fn tinyd_cluster(&self, number: usize, args: &[&str]) -> String {
        tinyd_cluster(self.boxes[number].folder.path(), args)
    }

    pub fn failed_cluster(&self, number: usize, args: &[&str]) -> String {
        failed_tinyd_cluster(self.boxes[number].folder.path(), args)
    }

    /// Until each admin box has taken a write.
    pub fn wait_until_writable(&self) {
        for number in 0..self.admins {
            self.wait_until_box_is_writable(number);
        }
    }

    pub fn wait_until_box_is_writable(&self, number: usize) {
        let ks = self.boxes[number].admin_ks();
        wait("a write", || try_add(&self.boxes[number], &ks));
    }

    /// What each box that runs says of itself, by its name.
    pub fn members(&self) -> BTreeMap<String, Value> {
        let said = self.servers.collect("tinyd.main.ask", "tinyd.main.pos.>");
        let named = said
            .into_iter()
            .map(|member| (member["node"].as_str().unwrap().to_owned(), member));
        named.collect()
    }

    /// Waits until all boxes are where the log ends, and none differs.
    pub fn wait_until_equal(&self) {
        let mut last = String::new();
        let started = std::time::Instant::now();
        loop {
            let (info, members) = (self.servers.info(), self.members());
            let end = info.map(|info| info["state"]["last_seq"].clone()).unwrap_or_default();
            let first = members.values().next();
            let is_same = |member: &Value| {
                member["sequence"] == end
                    && member["halted"].is_null()
                    && ["epoch", "chain", "digest"]
                        .iter()
                        .all(|key| Some(&member[*key]) == first.map(|one| &one[*key]))
            };
            if members.len() == self.boxes.len() && members.values().all(is_same) {
                return;
            }
            if last.is_empty() || started.elapsed() > std::time::Duration::from_secs(60) {
                last = format!("end {end}: {members:#?}");
            }
            assert!(
                started.elapsed() < crate::cluster::servers::PATIENCE,
                "boxes differ: {last}"
            );
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    /// Every box has every link as it was last acknowledged.
    pub fn assert_has(&self, links: &BTreeMap<String, Link>) {
        for (one, address) in self.boxes.iter().zip(&*self.addresses.read()) {
            let mut connection = Connection::open(&address.public);
            for (id, link) in links {
                let target = format!("/api_v3/service/shortlink_shortlink/action/goto/id/{id}");
                let received = connection.get(&target, "").expect("an answer");
                let location = received.head.lines().find_map(|line| line.strip_prefix("location: "));
                let found = (received.status == 302).then_some(location).flatten();
                let is_known = received.status == 302 || received.status == 410;
                assert!(
                    is_known && possible(link, found),
                    "{id} on {}: {} {found:?}, expected {link:?}",
                    one.config().display(),
                    received.status
                );
                if received.is_last() {
                    connection = Connection::open(&address.public);
                }
            }
        }
    }

    pub fn assert_all_is_well(&self, links: &BTreeMap<String, Link>) {
        self.wait_until_equal();
        self.assert_has(links);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for (number, one) in self.boxes.iter().enumerate() {
                println!("log of box {number}:\n{}", one.log());
            }
        }
    }
}

pub fn copied(folder: &TempDir) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    let name = "links.redb";
    fs::copy(folder.path().join("data").join(name), copy.path().join(name)).unwrap();
    copy
}

/// Adds a link, unless writes are refused.
pub fn try_add(appliance: &Appliance, ks: &str) -> bool {
    let params = [
        ("format", "1"),
        ("ks", ks),
        ("shortLink[systemName]", "NAME"),
        ("shortLink[fullUrl]", "https://example.com/"),
    ];
    let answer = appliance.post("shortlink_shortlink", "add", &params);
    answer.status == 200 && answer.json()["id"].is_string()
}
