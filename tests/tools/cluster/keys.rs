//! Boxes with keys, over TLS, and the accounts of the documentation.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::TempDir;

use crate::cluster::boxes::{copied, failed_tinyd_cluster, settings, tinyd_cluster};
use crate::cluster::load::{ACTION, send};
use crate::cluster::servers::{ADDRESS, STORE, STREAM, ServerSettings, Servers, TEST_NODE, send_with_key, wait};
use crate::support::certificates::Authority;
use crate::support::fixture::{Appliance, folder, serve};

const CERTIFICATE: &str = "tls { cert_file: /etc/nats/cert.pem, key_file: /etc/nats/key.pem }";
const KEY: &str = "cluster.key";
const CLIENTS: usize = 4;
/// With one for the test.
const BOXES: [(&str, &str); 3] = [("admin", "admin0"), ("edge", "edge0"), ("admin", TEST_NODE)];

/// The folder of a box with a key, and its line for the servers.
fn keyed(urls: &[String], authority: &Authority, role: &str, node: &str) -> (TempDir, String) {
    let urls: Vec<_> = urls.iter().map(|url| url.replacen("nats://", "tls://", 1)).collect();
    let trust = authority.setting();
    let with_key =
        settings(&urls, role, node).replacen("[cluster]\n", &format!("[cluster]\nkey_file = \"{KEY}\"\n{trust}"), 1);
    let folder = folder(&with_key);
    let key = folder.path().join(KEY);
    let line = tinyd_cluster(folder.path(), &["key", key.to_str().unwrap()]);
    (folder, line)
}

/// A part of docs/cluster.md with other text in the place of some.
fn documented(first: &str, last: &str, changes: &[(&str, &str)]) -> String {
    let document = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/cluster.md")).unwrap();
    let begin = document.find(first).expect(first);
    let end = begin + document[begin..].find(last).expect(last) + last.len();
    let mut text = document[begin..end].to_owned();
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    text
}

fn seed_in(folder: &TempDir) -> String {
    fs::read_to_string(folder.path().join(KEY)).unwrap().trim().to_owned()
}

fn host(url: &str) -> &str {
    url["nats://".len()..].split(':').next().unwrap()
}

/// The address of the leaf node beside servers.
fn leaf_host(urls: &[String]) -> String {
    let (network, _) = host(&urls[0]).rsplit_once('.').unwrap();
    format!("{network}.9")
}

/// A line with a certificate of the servers and the leaf node.
fn certified(urls: &[String], authority: &Authority) -> String {
    let leaf = leaf_host(urls);
    let hosts: Vec<_> = urls.iter().map(|url| host(url)).chain([leaf.as_str()]).collect();
    let (chain, key) = authority.issue(&hosts, |_| {});
    let folder = authority.file().parent().unwrap().to_owned();
    let (chain_file, key_file) = (folder.join("cert.pem"), folder.join("key.pem"));
    fs::write(&chain_file, chain).unwrap();
    fs::write(&key_file, key).unwrap();
    format!("tls {{ cert_file: {chain_file:?}, key_file: {key_file:?} }}")
}

/// What the servers need for leaf nodes.
fn leafnodes(certificate: &str) -> String {
    let listen = format!("{ADDRESS}:7422");
    let changes = [("0.0.0.0:7422", listen.as_str()), (CERTIFICATE, certificate)];
    documented("leafnodes {\n  listen", "account: EDGES }] }\n}\n", &changes)
}

/// The configuration of a leaf node of servers.
fn leaf_node(urls: &[String], authority: &Authority) -> String {
    let listen = format!("{}:4222", leaf_host(urls));
    let trusting = format!(
        "account: EDGES\n    tls {{ {} }}\n",
        authority.setting().replacen(" =", ":", 1).trim()
    );
    let changes = [
        ("0.0.0.0:4222", listen.as_str()),
        (CERTIFICATE, &certified(urls, authority)),
        ("nats1.example.com", host(&urls[0])),
        ("nats2.example.com", host(&urls[1])),
        ("account: EDGES\n", &trusting),
    ];
    documented("server_name: nats-fra\n", "include \"tinyd-leaf.conf\"\n", &changes)
}

/// What `tinyd cluster status` complains of with other settings.
fn complaint(of: &Appliance, change: impl FnOnce(String) -> String) -> String {
    let path = of.config();
    let settings = fs::read_to_string(&path).unwrap();
    fs::write(&path, change(settings.clone())).unwrap();
    let output = of.tinyd(&["cluster", "status"]);
    fs::write(&path, settings).unwrap();
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn last(servers: &Servers) -> u64 {
    servers.info().expect("the log")["state"]["last_seq"].as_u64().unwrap()
}

pub fn edge_with_a_key_reads_the_log_and_cannot_write() {
    let (mut folders, authority) = (Vec::new(), Authority::new());
    let mut of_leaf = String::new();
    let servers = Servers::start_with(|urls| {
        let lines = BOXES.map(|(role, node)| {
            let (folder, line) = keyed(urls, &authority, role, node);
            folders.push(folder);
            line
        });
        let boxes = folders[0].path().join("boxes");
        fs::write(&boxes, lines.concat()).unwrap();
        let include = |args: &[&str]| {
            let args = [&["include", boxes.to_str().unwrap()], args].concat();
            tinyd_cluster(folders[0].path(), &args)
        };
        of_leaf = include(&["--leaf"]);
        let certificate = certified(urls, &authority);
        ServerSettings {
            own: format!("{certificate}\nallow_non_tls: true\n{}", leafnodes(&certificate)),
            include: include(&["--store-dir", STORE, "--max-file", "8"]),
            seed: Some(seed_in(&folders[2])),
        }
    });
    let [of_admin, of_edge, _]: [TempDir; 3] = folders.try_into().unwrap();
    for folder in [&of_admin, &of_edge] {
        let early = failed_tinyd_cluster(folder.path(), &["join"]);
        assert!(early.contains("there is no stream TINYD_main"), "{early}");
        assert!(early.contains("cluster init on the first box"), "{early}");
    }
    tinyd_cluster(of_admin.path(), &["init", "--log-size", "1", "--clicks-size", "1"]);
    let copy = copied(&of_admin);
    let admin = Appliance::start_by(serve(), of_admin);
    let file = copy.path().join("links.redb");
    tinyd_cluster(of_edge.path(), &["join", "--from", file.to_str().unwrap()]);
    let ks = admin.admin_ks();
    let id = admin.add(&ks, &[]);
    // What it has missed, and what comes while it is there.
    let mut edge = Appliance::start_by(serve(), of_edge);
    wait("a link of the log", || edge.goto(&id).status == 302);
    let next = admin.add(&ks, &[]);
    wait("the next link", || edge.goto(&next).status == 302);
    let status = tinyd_cluster(admin.folder.path(), &["status"]);
    assert!(status.contains("2 of 2 boxes are current"), "{status}");

    let untrusted = complaint(&admin, |settings| settings.replacen("ca_file", "# ca_file", 1));
    assert!(untrusted.contains("UnknownIssuer"), "{untrusted}");
    let stranger = admin.folder.path().join("other.key");
    tinyd_cluster(admin.folder.path(), &["key", stranger.to_str().unwrap()]);
    let unknown = complaint(&admin, |settings| settings.replacen(KEY, "other.key", 1));
    assert!(unknown.contains("authorization violation"), "{unknown}");
    let of_an_edge = complaint(&edge, |settings| settings);
    assert!(of_an_edge.contains("run this on an admin box"), "{of_an_edge}");

    let seed = seed_in(&edge.folder);
    let before = last(&servers);
    for (subject, reply, payload) in [
        ("tinyd.main.log", "_INBOX_edge0.1", "no entry"),
        // Servers may send the answer to what no key may publish to.
        (&format!("$JS.API.DIRECT.GET.{STREAM}"), "tinyd.main.log", "{\"seq\":1}"),
        ("tinyd.main.clicks.edge0", "tinyd.main.log", "no clicks"),
    ] {
        send_with_key(&servers, &seed, subject, reply, payload).unwrap();
    }
    edge.terminate();
    let missed = admin.add(&ks, &[]);
    assert_eq!(last(&servers), before + 1);
    // In another region.
    let urls = servers.urls();
    let _leaf = servers.start_beside(&leaf_node(&urls, &authority), &of_leaf);
    let path = edge.config();
    let settings = fs::read_to_string(&path).unwrap();
    let line = settings.lines().find(|line| line.starts_with("servers = ")).unwrap();
    let through_leaf = format!("servers = [\"tls://{}:4222\"]", leaf_host(&urls));
    fs::write(&path, settings.replacen(line, &through_leaf, 1)).unwrap();
    edge.restart();
    wait("what was missed, through the leaf node", || {
        edge.goto(&missed).status == 302
    });
    let live = admin.add(&ks, &[]);
    wait("the next link, through the leaf node", || {
        edge.goto(&live).status == 302
    });
    // Its clicks are counted all the same, up to the last redirect.
    let (base, target) = (edge.public.clone(), format!("{ACTION}/goto/id/{live}"));
    let answered = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while send(&base, "GET", &target, "").is_ok_and(|answer| answer.status == 302) {
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        wait("redirects", || answered.load(Ordering::Relaxed) > 100);
        assert!(edge.terminate().success());
    });
    wait("clicks of the edge", || {
        let link = admin.link("get", &ks, &[("id", &live), ("withClicks", "1")]);
        let visits = ["clicks", "previews"].map(|of| link[of].as_u64().unwrap());
        visits.iter().sum::<u64>() > answered.load(Ordering::Relaxed)
    });
}
