//! Notifications to systemd, received on a socket like systemd's.

use std::fs;

use rustix::process::Signal;

use crate::support::fixture::{Appliance, configuration, folder, tinyd};
use crate::support::manager::Manager;

#[test]
fn systemd_is_notified_of_start_reload_and_stop() {
    let manager = Manager::new();
    let mut appliance = manager.start(folder(&configuration("")), &[]);
    let heard = manager.hear_until("READY=1");
    assert_eq!(heard[0], ["STATUS=opening the store"]);
    assert!(heard[1][0].starts_with("EXTEND_TIMEOUT_USEC="), "{heard:?}");
    let ready = heard.last().unwrap();
    assert!(ready[1].starts_with("STATUS="), "{ready:?}");

    let config = appliance.config();
    for text in [configuration("[log]\nformat = \"text\"\n"), "colour = 1".to_owned()] {
        fs::write(&config, text).unwrap();
        appliance.signal(Signal::HUP);
        let heard = manager.hear_until("READY=1");
        let reloading = heard.iter().find(|message| message[0] == "RELOADING=1").unwrap();
        let since = reloading[1].strip_prefix("MONOTONIC_USEC=").unwrap();
        assert!(since.parse::<u64>().unwrap() > 0);
    }

    let status = manager.hear();
    assert!(
        status[0].starts_with("STATUS=serving 0 links; the last reload changed nothing: "),
        "{status:?}"
    );
    assert!(status[0].contains("colour: unknown key"), "{status:?}");

    assert!(appliance.terminate().success());
    let heard = manager.hear_until("STOPPING=1");
    assert!(heard.iter().flatten().all(|line| line != "WATCHDOG=1"), "{heard:?}");
    let more_time = manager.hear();
    assert!(more_time[0].starts_with("EXTEND_TIMEOUT_USEC="), "{more_time:?}");
}

#[test]
fn failed_start_leaves_its_reason_in_the_status() {
    for (text, reason) in [
        ("colour = 1", "tinyd.toml: colour: unknown key"),
        ("require_store = true", "require_store is set"),
    ] {
        let manager = Manager::new();
        let folder = folder(&configuration(text));
        let mut command = tinyd();
        command
            .args(["serve", "--config"])
            .arg(folder.path().join("tinyd.toml"));
        command.arg("--data").arg(folder.path().join("data"));
        let output = command.env("NOTIFY_SOCKET", manager.address()).output().unwrap();
        assert!(!output.status.success());
        let said = String::from_utf8(output.stderr).unwrap();
        let reason = said
            .lines()
            .find(|line| line.contains(reason))
            .unwrap_or_else(|| panic!("{said}"));
        let reason = reason.strip_prefix("tinyd: ").unwrap();
        // The last word: nothing comes after it.
        let heard = manager.hear_until(&format!("STATUS={reason}"));
        assert!(heard.iter().flatten().all(|line| line != "READY=1"), "{heard:?}");
    }
}

#[test]
fn systemd_status_shows_the_number_of_links() {
    let mut appliance = Appliance::start();
    let ks = appliance.admin_ks();
    for _ in 0..2 {
        appliance.add(&ks, &[]);
    }
    appliance.terminate();
    let folder = std::mem::replace(&mut appliance.folder, folder(&configuration("")));
    fs::write(appliance.folder.path().join("log"), "").unwrap();
    let manager = Manager::new();
    let _appliance = manager.start(folder, &[]);
    manager.hear_until("STATUS=serving 2 links");
}

#[test]
fn watchdog_gets_heartbeats_while_threads_respond() {
    let manager = Manager::new();
    let appliance = manager.start(folder(&configuration("")), &[("WATCHDOG_USEC", "200000")]);
    manager.hear_until("READY=1");
    for _ in 0..3 {
        manager.hear_until("WATCHDOG=1");
    }
    // WATCHDOG_PID names another process, so no heartbeat is due.
    drop(appliance);
    let other = Manager::new();
    let mut appliance = other.start(
        folder(&configuration("")),
        &[("WATCHDOG_USEC", "200000"), ("WATCHDOG_PID", "1")],
    );
    other.hear_until("READY=1");
    appliance.terminate();
    let heard = other.hear_until("STOPPING=1");
    assert!(heard.iter().flatten().all(|line| line != "WATCHDOG=1"), "{heard:?}");
}
