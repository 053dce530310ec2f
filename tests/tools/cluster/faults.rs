//! Servers that end, hang, forget, and are damaged.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use rustix::process::Signal;

use crate::cluster::boxes::{Cluster, try_add};
use crate::cluster::load::Load;
use crate::cluster::servers::{Servers, wait};
use crate::support::fixture::{ADMIN_SECRET, PARTNER};

/// Longer than an election takes.
const HANGING: Duration = Duration::from_secs(8);
const URL: &str = "shortLink[fullUrl]";

pub fn killed_servers_lose_nothing() {
    let mut cluster = Cluster::start(2, 2);
    let load = Load::start(&cluster, &[&[2], &[3], &[0], &[1]]);
    load.wait_for_writes(50);
    let leader = cluster.servers.leader();
    for victim in [leader, (leader + 1) % 3] {
        cluster.servers.kill(victim);
        load.wait_for_writes(100);
        cluster.servers.start_one(victim);
        cluster.servers.wait_until_current();
    }
    load.wait_for_writes(50);
    let (links, _) = load.stop();
    cluster.assert_all_is_well(&links);
}

pub fn hung_leader_loses_nothing() {
    let cluster = Cluster::start(2, 2);
    let load = Load::start(&cluster, &[&[2], &[3], &[0], &[1]]);
    load.wait_for_writes(50);
    let leader = cluster.servers.leader();
    cluster.servers.signal(leader, Signal::STOP);
    // The fault itself takes this long.
    std::thread::sleep(HANGING);
    cluster.servers.signal(leader, Signal::CONT);
    load.wait_for_writes(200);
    let (links, _) = load.stop();
    cluster.servers.wait_until_current();
    cluster.assert_all_is_well(&links);
}

pub fn lost_quorum_refuses_writes_until_it_is_back() {
    let mut cluster = Cluster::start(2, 2);
    let load = Load::start(&cluster, &[&[2], &[3], &[0], &[1]]);
    load.wait_for_writes(50);
    let leader = cluster.servers.leader();
    let down = [leader, (leader + 1) % 3];
    down.into_iter().for_each(|number| cluster.servers.kill(number));
    load.wait_for_refusals(20);
    let before = load.acknowledged();
    load.wait_for_redirects(100);
    load.wait_for_refusals(20);
    assert_eq!(load.acknowledged(), before, "acknowledged without a quorum");
    down.into_iter().for_each(|number| cluster.servers.start_one(number));
    load.wait_for_writes(100);
    let (links, _) = load.stop();
    cluster.servers.wait_until_current();
    cluster.assert_all_is_well(&links);
}

/// JetStream ends on a server whose disk is full, until an operator makes room and starts it again.
pub fn full_disks_of_servers_lose_nothing() {
    let servers = Servers::start_on_small_disks();
    let mut cluster = Cluster::start_on(servers, 2, 1, |servers, _| servers.urls());
    let load = Load::start(&cluster, &[&[2], &[0, 1]]);
    load.wait_for_writes(50);
    let leader = cluster.servers.leader();
    cluster.servers.fill_disk(leader);
    load.wait_for_writes(200);
    // It asks the servers whether they sync.
    cluster.boxes[1].terminate();
    cluster.restart(1);
    cluster.wait_until_box_is_writable(1);
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    others.into_iter().for_each(|number| cluster.servers.fill_disk(number));
    load.wait_for_refusals(20);
    load.wait_for_redirects(100);
    load.wait_for_refusals(20);
    for number in 0..3 {
        cluster.servers.empty_disk(number);
        cluster.servers.kill(number);
        cluster.servers.start_one(number);
    }
    load.wait_for_writes(100);
    let (links, _) = load.stop();
    cluster.servers.wait_until_current();
    cluster.assert_all_is_well(&links);
}

pub fn damaged_replica_misleads_no_box() {
    let mut cluster = Cluster::start(2, 2);
    let load = Load::start(&cluster, &[&[2], &[0], &[1]]);
    load.wait_for_writes(20);
    // It will have to read what is damaged.
    cluster.boxes[3].kill();
    load.wait_for_writes(200);
    let victim = (cluster.servers.leader() + 1) % 3;
    cluster.servers.kill(victim);
    cluster.servers.flip_bit(victim);
    cluster.servers.start_one(victim);
    load.wait_for_writes(50);
    cluster.restart(3);
    let (links, _) = load.stop();
    cluster.assert_all_is_well(&links);
}

/// A server's disk is set back while another is down that has not seen the last entries: the log loses its end.
pub fn lost_end_of_the_log_is_put_back() {
    let mut cluster = Cluster::start(2, 2);
    let load = Load::start(&cluster, &[&[2], &[3], &[0], &[1]]);
    load.wait_for_writes(50);
    // The two that will have forgotten.
    let (away, set_back) = (1, 2);
    cluster.servers.wait_until_current();
    cluster.servers.kill(set_back);
    let kept = cluster.servers.store_copy(set_back);
    cluster.servers.start_one(set_back);
    cluster.servers.wait_until_current();
    cluster.servers.kill(away);
    load.wait_for_writes(200);
    let acknowledged = cluster.servers.last();
    cluster.servers.kill_all();
    cluster.servers.set_back(set_back, &kept);
    cluster.servers.start_one(away);
    cluster.servers.start_one(set_back);
    wait("what is lost", || {
        cluster.boxes[..2]
            .iter()
            .any(|one| one.log().contains("the log has lost its end"))
    });
    load.wait_for_writes(50);
    // It has what the others have lost, and never gets current with it: an operator empties it.
    cluster.servers.empty(0);
    cluster.servers.start_one(0);
    cluster.servers.wait_until_current();
    let (links, _) = load.stop();
    assert!(cluster.servers.last() > acknowledged);
    cluster.assert_all_is_well(&links);
}

pub fn deleted_stream_is_made_anew() {
    let mut cluster = Cluster::start(2, 2);
    let load = Load::start(&cluster, &[&[2], &[2, 3], &[0], &[1]]);
    load.wait_for_writes(100);
    cluster.servers.delete_stream();
    load.wait_for_refusals(20);
    load.wait_for_redirects(50);
    let made = cluster.tinyd_cluster(0, &["recreate", "--log-size", "1"]);
    assert!(made.contains("stream made anew"), "{made}");
    load.wait_for_writes(100);
    // An edge that was away, too.
    cluster.boxes[3].terminate();
    cluster.restart(3);
    load.wait_for_redirects(1);
    let (links, _) = load.stop();
    cluster.assert_all_is_well(&links);
}

/// The log has lost more than the boxes keep of it; and then something has come into it that is no entry.
pub fn lost_end_that_no_box_keeps_is_given_up() {
    let mut cluster = Cluster::start(2, 1);
    let mut links = BTreeMap::new();
    let mut write = |cluster: &Cluster, writes| {
        let load = Load::start(cluster, &[&[2]]);
        load.wait_for_writes(writes);
        links.extend(load.stop().0);
        cluster.wait_until_equal();
    };
    write(&cluster, 30);
    let healthy = cluster.failed_cluster(0, &["recreate", "--replace"]);
    assert!(healthy.contains("there is nothing to make anew"), "{healthy}");
    cluster.servers.kill_all();
    let kept: Vec<_> = (0..3).map(|number| cluster.servers.store_copy(number)).collect();
    (0..3).for_each(|number| cluster.servers.start_one(number));
    cluster.wait_until_writable();
    write(&cluster, 30);
    (0..2).for_each(|number| cluster.forget_entries(number));
    cluster.wait_until_writable();
    write(&cluster, 10);
    let last = cluster.servers.last();

    cluster.servers.kill_all();
    for (number, kept) in kept.iter().enumerate() {
        cluster.servers.set_back(number, kept);
        cluster.servers.start_one(number);
    }
    let why_not = |cluster: &Cluster, reason: &str| {
        wait(reason, || {
            let ready = cluster.boxes[0].get_admin("/readyz").json();
            let said = ready["cluster"]["reason"].as_str();
            said.is_some_and(|said| said.contains(reason))
        });
    };
    why_not(&cluster, "any more, which the log has lost");
    let refused = cluster.failed_cluster(0, &["recreate"]);
    let expected = format!("Add --replace to delete the stream and go on after entry {last}");
    assert!(refused.contains(&expected), "{refused}");
    // It is looked at each second, and logged once.
    let log = cluster.boxes[0].log();
    for line in ["the log has lost its end", "any more, which the log has lost"] {
        assert_eq!(log.matches(line).count(), 1, "{log}");
    }
    let made = cluster.tinyd_cluster(0, &["recreate", "--replace", "--log-size", "1"]);
    assert!(
        made.contains(&format!("stream made anew, after entry {last}")),
        "{made}"
    );
    cluster.wait_until_writable();
    write(&cluster, 10);

    let last = cluster.servers.last();
    assert_eq!(
        cluster.servers.send("tinyd.main.log", b"useless").unwrap()["seq"],
        last + 1
    );
    let ks = cluster.boxes[0].admin_ks();
    wait("a refused write", || !try_add(&cluster.boxes[0], &ks));
    let made = cluster.tinyd_cluster(1, &["recreate", "--replace", "--log-size", "1"]);
    assert!(made.contains(&format!("to {} deleted", last + 1)), "{made}");
    cluster.wait_until_writable();
    write(&cluster, 10);
    cluster.assert_all_is_well(&links);
}

/// A box has written to servers that have a copy of the log, while the others went on.
pub fn forked_box_stops_and_is_salvaged() {
    let mut cluster = Cluster::start(2, 1);
    let load = Load::start(&cluster, &[&[2], &[0, 1]]);
    load.wait_for_writes(50);
    let (mut links, _) = load.stop();
    cluster.wait_until_equal();
    cluster.servers.kill_all();
    let others = cluster.servers.fork();
    cluster.boxes[1].terminate();
    cluster.point(1, &others.urls());
    cluster.restart(1);
    cluster.wait_until_box_is_writable(1);
    let ks = cluster.boxes[1].start_session(ADMIN_SECRET, "alone", "2", "");
    let lost = cluster.boxes[1].add(&ks, &[(URL, "https://example.com/lost")]);
    cluster.boxes[1].terminate();
    drop(others);
    (0..3).for_each(|number| cluster.servers.start_one(number));
    cluster.wait_until_box_is_writable(0);
    (0..5).for_each(|_| wait("a write", || try_add(&cluster.boxes[0], &ks)));
    cluster.point(1, &cluster.servers.urls());
    cluster.restart(1);
    let forked = |cluster: &Cluster| {
        cluster
            .members()
            .get("admin1")
            .is_some_and(|member| !member["halted"].is_null())
    };
    wait("the fork is noticed", || forked(&cluster));
    // It redirects, and takes no writes.
    assert_eq!(cluster.boxes[1].goto(&lost).status, 302);
    assert!(!try_add(&cluster.boxes[1], &ks));
    assert_eq!(cluster.boxes[0].goto(&lost).status, 404);
    cluster.boxes[1].terminate();
    let file = cluster.boxes[1].folder.path().join("lost.jsonl");
    cluster.tinyd_cluster(1, &["salvage", file.to_str().unwrap()]);
    let salvaged = fs::read_to_string(&file).unwrap();
    assert!(salvaged.contains(&lost), "{salvaged}");
    // As an operator returns it to its cluster.
    let imported = cluster.boxes[0].tinyd(&["import", file.to_str().unwrap(), "--partner", PARTNER]);
    assert!(imported.status.success(), "{imported:?}");
    fs::remove_dir_all(cluster.boxes[1].folder.path().join("data")).unwrap();
    cluster.boxes[0].terminate();
    let kept = cluster.boxes[0].store();
    cluster.tinyd_cluster(1, &["join", "--from", kept.to_str().unwrap()]);
    cluster.restart(0);
    cluster.restart(1);
    links.retain(|id, _| *id != lost);
    cluster.assert_all_is_well(&links);
    assert_eq!(cluster.boxes[1].goto(&lost).status, 302);
}
