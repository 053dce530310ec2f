//! A failing disk under a running server: redirects continue, acknowledged writes survive, and the store recovers by
//! itself.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use rustix::process::geteuid;

use crate::support::fixture::{Appliance, configuration_with_operator, folder, poll, tinyd};
use crate::support::http::{Answer, encode, exchange};
use crate::wrapper::{REMOUNT, serve_under, start_with_failing, unshare};

/// The results that clients got.
#[derive(Debug, Default)]
struct Seen {
    /// ID and destination of each acknowledged link.
    acknowledged: Mutex<Vec<(String, String)>>,
    unknown: AtomicUsize,
    refused: AtomicUsize,
    redirects: AtomicUsize,
}

fn add(host: &str, ks: &str, url: &str) -> Answer {
    let target = format!(
        "/api_v3/service/shortlink_shortlink/action/add?format=1&ks={}&shortLink:systemName=NAME&shortLink:fullUrl={}",
        encode(ks),
        encode(url)
    );
    exchange(
        host,
        format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes(),
    )
}

/// Adds links and follows one while `during` runs. No redirect may fail, and each write must have a documented result.
fn under_load(appliance: &Appliance, during: impl FnOnce(&Seen)) -> Seen {
    const WRITERS: usize = 3;
    let ks = appliance.admin_ks();
    let id = appliance.add(&ks, &[]);
    let host = appliance.admin.strip_prefix("http://").unwrap();
    let (seen, stopped) = (Seen::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        // Stops the other threads even if an assertion in `during` fails.
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        let _stop = Stop(&stopped);
        scope.spawn(|| {
            while !stopped.load(Ordering::SeqCst) {
                assert_eq!(appliance.goto(&id).status, 302, "a redirect failed");
                seen.redirects.fetch_add(1, Ordering::SeqCst);
            }
        });
        for writer in 0..WRITERS {
            let (ks, seen, stopped) = (&ks, &seen, &stopped);
            scope.spawn(move || {
                for number in 0.. {
                    if stopped.load(Ordering::SeqCst) {
                        return;
                    }
                    let url = format!("https://example.com/{writer}/{number}");
                    let answer = add(host, ks, &url);
                    match answer.status {
                        200 => {
                            let link = answer.json();
                            let id = link["id"].as_str().unwrap_or_else(|| panic!("{link}")).to_owned();
                            seen.acknowledged.lock().push((id, url));
                        }
                        503 if answer.text().contains("outcome unknown") => {
                            seen.unknown.fetch_add(1, Ordering::SeqCst);
                        }
                        503 => {
                            assert!(
                                answer.text().contains("store unavailable, nothing was written"),
                                "{answer:?}"
                            );
                            assert_eq!(answer.header("retry-after"), "5", "{answer:?}");
                            seen.refused.fetch_add(1, Ordering::SeqCst);
                        }
                        _ => panic!("{answer:?}"),
                    }
                }
            });
        }
        during(&seen);
    });
    seen
}

impl Seen {
    fn acknowledged(&self) -> usize {
        self.acknowledged.lock().len()
    }

    /// Waits for further acknowledged writes.
    fn wait_for_writes(&self) {
        let before = self.acknowledged();
        poll("writes", || self.acknowledged() > before + 3);
    }

    fn wait_for_refusals(&self) {
        let before = self.refused.load(Ordering::SeqCst);
        poll("refusals", || self.refused.load(Ordering::SeqCst) > before + 3);
    }
}

/// Checks that every acknowledged link is served, also after a kill, and that the store is whole.
fn assert_nothing_lost(mut appliance: Appliance, seen: &Seen) {
    let all_there = |appliance: &Appliance| {
        for (id, url) in seen.acknowledged.lock().iter() {
            assert_eq!(
                appliance.goto(id).header("location"),
                url,
                "{id} was acknowledged and is lost"
            );
        }
    };
    all_there(&appliance);
    appliance.kill();
    appliance.restart();
    all_there(&appliance);
    assert!(appliance.terminate().success());
    assert_whole(&appliance.store());
}

fn assert_whole(store: &Path) {
    let verified = tinyd().args(["verify", "--store"]).arg(store).output().unwrap();
    assert!(
        verified.status.success(),
        "{}",
        String::from_utf8_lossy(&verified.stdout)
    );
}

/// The log has one line for the failure and one for its end.
fn assert_logged_once(appliance: &Appliance) {
    let log = appliance.log();
    let count = |text: &str| log.matches(text).count();
    let failures = count("store failed: refusing writes");
    assert!(failures > 0, "nothing has failed");
    assert_eq!(failures, count("store works again, accepting writes"));
    assert_eq!(failures, count(" ERROR "));
}

/// Runs it with a system call that fails several times in a row, so that the first attempts to reopen the store fail
/// too.
fn with_failing(system_call: &str, error: &str, calls: &str) {
    let appliance = start_with_failing(system_call, error, calls, folder(&configuration_with_operator()));
    let seen = under_load(&appliance, |seen| {
        poll("a failure", || {
            appliance.log().contains("store failed: refusing writes")
        });
        appliance.wait_for_log("store works again, accepting writes");
        seen.wait_for_writes();
    });
    assert_logged_once(&appliance);
    let (unknown, refused) = (seen.unknown.load(Ordering::SeqCst), seen.refused.load(Ordering::SeqCst));
    assert!(unknown + refused > 0);
    poll("ready", || appliance.get_admin("/readyz").status == 200);
    assert_nothing_lost(appliance, &seen);
}

pub fn failed_syncs_lose_no_write_and_no_redirect() {
    with_failing("fdatasync", "EIO", "40..43");
}

pub fn full_disk_loses_no_write_and_no_redirect() {
    with_failing("pwrite64", "ENOSPC", "400..403");
}

/// Mounts a file system that only the appliance sees.
const MOUNTED: &str = "mount -t tmpfs -o size=3m,mode=700 tmpfs \"$0\" && exec \"$@\"";

pub fn store_recovers_from_full_and_read_only_disks() {
    let folder = folder(&configuration_with_operator());
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    let data = data.to_str().unwrap().to_owned();
    let namespace = unshare(&["-m"]);
    let wrapper = [&namespace[..], &["bash", "-c", MOUNTED, &data]].concat();
    let appliance = Appliance::start_by(serve_under(&wrapper), folder);
    let id = appliance.process_id().to_string();
    // The mounted folder as the appliance sees it.
    let inside = format!("/proc/{id}/root{data}");
    let try_remount = |how: &str| {
        let enter: &[&str] = if geteuid().is_root() {
            &["-m"]
        } else {
            &["-U", "-m", "--preserve-credentials"]
        };
        let done = Command::new("nsenter")
            .args(["-t", &id])
            .args(enter)
            .args(["sh", "-c", &format!("{REMOUNT},{how} tmpfs \"$0\""), &data])
            .output();
        done.unwrap().status.success()
    };
    // The appliance may just be trying to write a file.
    let remount = |how: &str| poll(how, || try_remount(how));
    let seen = under_load(&appliance, |seen| {
        seen.wait_for_writes();
        let filler = format!("{inside}/filler");
        // Fills the disk.
        let _ = fs::write(&filler, vec![1; 4 * 1024 * 1024]);
        seen.wait_for_refusals();
        let unready = appliance.get_admin("/readyz");
        assert_eq!((unready.status, &unready.json()["ready"]), (503, &false.into()));
        assert!(
            unready.json()["store"]["reason"]
                .as_str()
                .unwrap()
                .contains("No space left"),
            "{unready:?}"
        );
        // Reads still work.
        assert!(appliance.list(&appliance.admin_ks(), &[]).1 > 0);

        // No file is open for writing now, so a remount works.
        remount("ro");
        appliance.wait_for_log("Read-only file system");
        remount("rw");
        fs::remove_file(filler).unwrap();
        seen.wait_for_writes();
    });
    assert_logged_once(&appliance);
    poll("ready", || appliance.get_admin("/readyz").status == 200);
    for (id, url) in seen.acknowledged.lock().iter() {
        assert_eq!(
            appliance.goto(id).header("location"),
            url,
            "{id} was acknowledged and is lost"
        );
    }
    // The mount ends with the process.
    let copy = appliance.folder.path().join("backup.redb");
    let made = appliance.tinyd(&["backup", copy.to_str().unwrap()]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    assert_whole(&copy);
}
