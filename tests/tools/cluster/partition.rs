//! Servers in network namespaces of their own, which can be cut off from each other.

use std::process::Command;

use crate::clients::run;
use crate::cluster::boxes::{Cluster, try_add};
use crate::cluster::load::Load;
use crate::cluster::servers::{Servers, wait};

const NUMBER: usize = 3;

fn shell(script: &str) {
    run(Command::new("sh").args(["-ec", script]), "It needs iproute2.");
}

fn address(number: usize) -> String {
    format!("10.77.0.{}", number + 1)
}

/// A bridge, with a namespace for each server.
fn lay_out() {
    // Else all addresses are of this one.
    shell(
        "ip route del local 0.0.0.0/0 dev lo; mkdir -p /run/netns; mount -t tmpfs tmpfs /run/netns\n\
         ip link add br0 type bridge; ip addr add 10.77.0.254/24 dev br0; ip link set br0 up",
    );
    for number in 0..NUMBER {
        let address = address(number);
        shell(&format!(
            "ip netns add t{number}; ip link add v{number} type veth peer name e0 netns t{number}\n\
             ip link set v{number} master br0 up; ip -n t{number} addr add {address}/24 dev e0\n\
             ip -n t{number} link set e0 up; ip -n t{number} link set lo up"
        ));
    }
}

/// Cuts a server off from the others, or connects it again. The boxes reach all of them.
fn cut(number: usize, change: &str) {
    for other in (0..NUMBER).filter(|other| *other != number) {
        let (one, another) = (address(number), address(other));
        shell(&format!(
            "ip -n t{number} route {change} blackhole {another}/32; ip -n t{other} route {change} blackhole {one}/32"
        ));
    }
}

/// A server that is cut off is left by the boxes that are connected to it.
pub fn partitioned_server_is_left() {
    lay_out();
    let addresses = (0..NUMBER).map(address).collect();
    let wrapper = |number| vec!["nsenter".to_owned(), format!("--net=/run/netns/t{number}")];
    let servers = Servers::start_at(addresses, (0..NUMBER).map(wrapper).collect());
    servers.wait_until_leader();
    // An admin box and the edge connect to the server that is cut off, which leads. It tells them of the others.
    let cluster = Cluster::start_on(servers, 2, 1, |servers, number| match number {
        0 | 2 => vec![servers.urls()[servers.leader()].clone()],
        _ => {
            let mut urls = servers.urls();
            urls.remove(servers.leader());
            urls
        }
    });
    let cut_off = cluster.servers.leader();
    let load = Load::start(&cluster, &[&[2], &[0], &[1]]);
    load.wait_for_writes(50);
    cut(cut_off, "add");
    let (cut_off_box, ks) = (&cluster.boxes[0], cluster.boxes[1].admin_ks());
    wait("the other server's leader", || {
        cluster.servers.info_of((cut_off + 1) % NUMBER).is_some()
    });
    wait("a write through the box that was cut off", || try_add(cut_off_box, &ks));
    let id = cut_off_box.add(&ks, &[]);
    wait("its link on the edge", || cluster.boxes[2].goto(&id).status == 302);
    load.wait_for_writes(100);
    load.wait_for_redirects(50);
    cut(cut_off, "del");
    load.wait_for_writes(100);
    let (links, _) = load.stop();
    cluster.servers.wait_until_current();
    cluster.assert_all_is_well(&links);
}
