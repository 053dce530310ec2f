//! Writes through several boxes, restarts, and what an operator does.

use std::time::Duration;

use crate::cluster::boxes::{Cluster, LINKS_PER_DAY};
use crate::cluster::load::Load;
use crate::cluster::servers::wait;
use crate::support::fixture::{ADMIN_SECRET, Appliance, code};
use crate::support::linearizability::assert_linearizable_through;

/// With a lot of room: how long it takes is measured by the benchmark.
const PAUSE_MAX: Duration = Duration::from_secs(60);
const ROUNDS: usize = 30;
const EDGES: usize = 100;
const URL: (&str, &str) = ("shortLink[fullUrl]", "https://example.com/");
const NAME: (&str, &str) = ("shortLink[systemName]", "NAME");

fn wait_for_status(appliance: &Appliance, id: &str, status: u16) {
    wait("a link on a box", || appliance.goto(id).status == status);
}

pub fn writes_of_any_box_are_on_all() {
    let cluster = Cluster::start(2, 2);
    let [a, b] = [&cluster.boxes[0], &cluster.boxes[1]];
    let ks = a.admin_ks();
    let id = a.add(&ks, &[]);
    // What one box has acknowledged, the other shows at once.
    assert_eq!(b.link("get", &ks, &[("id", &id)])["id"], id.as_str());
    b.link("update", &ks, &[("id", &id), ("shortLink[expiresAt]", "4102444800")]);
    assert_eq!(a.link("get", &ks, &[("id", &id)])["expiresAt"], 4_102_444_800_i64);
    for (through, action, status) in [(a, "delete", 410), (b, "restore", 302)] {
        assert_eq!(code(&through.link(action, &ks, &[("id", &id)])), "");
        cluster.boxes.iter().for_each(|one| wait_for_status(one, &id, status));
    }
    // A unique ID, a limit for each day and the end of a session count on all boxes.
    let unique = [NAME, URL, ("shortLink[uniqueId]", "key")];
    assert_eq!(code(&a.link("add", &ks, &unique)), "");
    assert_eq!(
        code(&b.link("add", &ks, &unique)),
        "SHORT_LINK_UNIQUE_ID_ALREADY_EXISTS"
    );
    let user = a.user_ks("me");
    let codes = (0..=LINKS_PER_DAY).map(|turn| code(&[a, b][turn % 2].link("add", &user, &[NAME, URL])).to_owned());
    assert_eq!(codes.collect::<Vec<_>>(), ["", "", "", "LINKS_PER_DAY_EXCEEDED"]);
    let ended = a.start_session(ADMIN_SECRET, "leaver", "2", "");
    a.call("session", "end", &ended, &[]);
    assert_eq!(code(&b.link("add", &ended, &[NAME, URL])), "INVALID_KS");
    // An edge takes no write.
    let params = [("format", "1"), ("ks", ks.as_str()), NAME, URL];
    let refused = cluster.boxes[2].post("shortlink_shortlink", "add", &params);
    assert_eq!(refused.status, 503, "{refused:?}");

    let load = Load::start(&cluster, &[&[2], &[3], &[0]]);
    load.wait_for_writes(300);
    let (links, _) = load.stop();
    cluster.assert_all_is_well(&links);
    let status = cluster.tinyd_cluster(0, &["status"]);
    assert!(status.contains("4 of 4 boxes are current"), "{status}");
}

pub fn hundred_edges_show_every_link() {
    let cluster = Cluster::start(1, EDGES);
    let load = Load::start(&cluster, &[&[1], &[EDGES]]);
    load.wait_for_writes(50);
    let (links, _) = load.stop();
    cluster.assert_all_is_well(&links);
    let status = cluster.tinyd_cluster(0, &["status"]);
    assert!(
        status.contains(&format!("{0} of {0} boxes are current", 1 + EDGES)),
        "{status}"
    );
}

pub fn killed_boxes_return_with_everything() {
    let mut cluster = Cluster::start(2, 2);
    let load = Load::start(&cluster, &[&[2, 3], &[0, 1]]);
    load.wait_for_writes(50);
    // An edge that is away while much is written.
    cluster.boxes[3].kill();
    for _ in 0..2 {
        cluster.boxes[0].kill();
        load.wait_for_writes(100);
        cluster.restart(0);
        load.wait_for_writes(100);
    }
    cluster.boxes[1].kill();
    cluster.restart(1);
    cluster.restart(3);
    cluster.boxes[2].kill();
    cluster.restart(2);
    load.wait_for_writes(50);
    let (links, _) = load.stop();
    cluster.assert_all_is_well(&links);
}

pub fn rolling_restart_fails_no_redirect() {
    let mut cluster = Cluster::start(2, 2);
    let load = Load::start(&cluster, &[&[2], &[3], &[0, 1]]);
    load.wait_for_writes(50);
    for number in 0..3 {
        cluster.servers.terminate(number);
        cluster.servers.start_one(number);
        cluster.servers.wait_until_current();
    }
    for number in 0..2 {
        cluster.boxes[number].terminate();
        cluster.restart(number);
        load.wait_for_writes(50);
    }
    let (links, pause) = load.stop();
    println!(
        "longest pause of writes in a rolling restart: {:.1} s",
        pause.as_secs_f64()
    );
    assert!(pause < PAUSE_MAX, "{pause:?}");
    cluster.assert_all_is_well(&links);
}

pub fn calls_are_linearizable_through_two_boxes() {
    let mut cluster = Cluster::start(2, 0);
    let mut down = None;
    let Cluster { boxes, servers, .. } = &mut cluster;
    assert_linearizable_through(&[&boxes[0], &boxes[1]], ROUNDS, |round| match round {
        4 | 18 => {
            let leader = servers.leader();
            servers.kill(leader);
            down = Some(leader);
        }
        10 | 24 => servers.start_one(down.take().expect("one is down")),
        14 => {
            servers.wait_until_current();
            let follower = (servers.leader() + 1) % 3;
            servers.kill(follower);
            servers.start_one(follower);
            servers.wait_until_current();
        }
        _ => {}
    });
    cluster.wait_until_equal();
}
