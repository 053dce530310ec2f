//! Copies of the store on the servers.

use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::cluster::boxes::Cluster;
use crate::cluster::load::Load;
use crate::cluster::servers::{MAX_FILE_BYTES, Servers, wait};

const STREAM: &str = "TINYD_main_COPY";
const COPIED: &str = "going on from a copy of the links";

/// A chunk of a copy of which no more has come, as docs/store-format.md says.
fn unfinished() -> Vec<u8> {
    let of = json!({
        "id": "00", "at": 0, "count": 2, "cluster": "00".repeat(16), "epoch": 1, "sequence": 1,
        "chain": "00".repeat(32), "digest": "00".repeat(32),
    });
    let of = of.to_string();
    let length = u16::try_from(of.len()).unwrap().to_be_bytes();
    let hashed = [&0_u32.to_be_bytes(), &length[..], of.as_bytes(), b"data"].concat();
    let digest: [u8; 32] = Sha256::digest(&hashed).into();
    [b"TYC2", &digest[..], &hashed].concat()
}

/// An admin box ended while it put a copy there; it goes on with a stream that has no room for one.
fn start() -> Cluster {
    let servers = Servers::start();
    let config = json!({
        "name": STREAM, "subjects": ["tinyd.main.copy.*"], "storage": "file", "retention": "limits",
        "discard": "new", "num_replicas": 3, "max_bytes": 10_000, "allow_direct": true, "deny_delete": true,
    });
    let made = servers.request(&format!("$JS.API.STREAM.CREATE.{STREAM}"), &config.to_string());
    assert!(made.expect("an answer")["error"].is_null());
    let stored = servers.send("tinyd.main.copy.00", &unfinished()).expect("an answer");
    assert_eq!(stored["seq"], 1, "{stored}");
    Cluster::start_on(servers, 2, 2, |servers, _| servers.urls())
}

pub fn box_away_for_too_long_goes_on_from_a_copy() {
    let mut cluster = start();
    let load = Load::start(&cluster, &[&[2], &[0, 1]]);
    cluster.boxes[3].kill();
    load.wait_for_writes(200);
    // What is away has no other way back.
    cluster.servers.limit_log(20_000);
    load.wait_for_writes(50);
    let (links, _) = load.stop();
    (0..2).for_each(|number| cluster.forget_entries(number));
    let first = cluster.servers.info().expect("the log")["state"]["first_seq"].as_u64();
    let first = first.unwrap();
    assert!(first > 50, "the log begins with {first}");
    cluster.servers.limit_log(1_000_000_000);
    cluster.restart(3);
    cluster.assert_all_is_well(&links);
    assert!(cluster.boxes[3].log().contains(COPIED));

    let copies = cluster.servers.info_of_stream(STREAM).expect("the copies");
    assert_eq!(copies["state"]["num_subjects"], 1, "{copies}");
    let status = cluster.tinyd_cluster(0, &["status"]);
    assert!(
        status.contains("copy of the links for boxes that join: up to entry "),
        "{status}"
    );
    // As a new box does.
    cluster.boxes[3].terminate();
    std::fs::remove_dir_all(cluster.boxes[3].folder.path().join("data")).unwrap();
    let joined = cluster.tinyd_cluster(3, &["join"]);
    assert!(joined.contains("joined after entry "), "{joined}");
    cluster.restart(3);
    wait("the box that joined", || cluster.members().contains_key("edge1"));
    cluster.assert_all_is_well(&links);
}

/// The servers have no room for a copy, and then they have.
pub fn copy_waits_for_room_on_the_servers() {
    const OTHER: &str = "OTHER";
    let servers = Servers::start();
    // All that the streams of log and clicks leave, but for a little.
    let bytes = MAX_FILE_BYTES - 2_000_100_000;
    let config = json!({ "name": OTHER, "storage": "file", "num_replicas": 3, "max_bytes": bytes });
    let made = servers.request(&format!("$JS.API.STREAM.CREATE.{OTHER}"), &config.to_string());
    assert!(made.expect("an answer")["error"].is_null());
    let cluster = Cluster::start_on(servers, 1, 0, |servers, _| servers.urls());
    cluster.boxes[0].wait_for_log("cannot put a copy of the links on the servers");
    let log = cluster.boxes[0].log();
    assert!(
        log.contains("raise its max_file") && log.contains("insufficient storage"),
        "{log}"
    );
    let status = cluster.tinyd_cluster(0, &["status"]);
    assert!(
        status.contains("no copy of the links for boxes that join yet"),
        "{status}"
    );
    cluster
        .servers
        .request(&format!("$JS.API.STREAM.DELETE.{OTHER}"), "")
        .expect("an answer");
    wait("a copy", || {
        cluster.boxes[0].log().contains("INFO put a copy of the links")
    });
}
