//! A failing disk under a running server: redirects continue, acknowledged writes survive, and the store recovers by
//! itself.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use rustix::process::geteuid;
use tempfile::TempDir;

use crate::support::fixture::{Appliance, configuration_with_operator, folder, poll, tinyd};
use crate::support::http::{Answer, encode, exchange};
use crate::support::manager::Manager;
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
    // A start makes some thirty.
    with_failing("pwrite64", "ENOSPC", "200..203");
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

/// Mounts a file system that only the appliance sees, with what a crash has left and no more room.
const FULL: &str = "mount -t tmpfs -o size=64m,mode=700 tmpfs \"$0\" && cp \"$1\"/* \"$0\"; \
                    head -c 80M /dev/zero >\"$0/filler\"; shift; exec \"$@\"";

/// The same, and read-only.
fn read_only() -> String {
    let mounted = "mount -t tmpfs -o size=64m,mode=700 tmpfs \"$0\" && cp \"$1\"/* \"$0\"; shift";
    format!("{mounted}; {REMOUNT},ro tmpfs \"$0\"; exec \"$@\"")
}

/// An appliance whose disk takes no writes from the start on, in a folder whose `saved` is what a crash has left.
struct Stuck {
    appliance: Appliance,
    manager: Manager,
    data: String,
}

impl Stuck {
    fn start(script: &str, folder: TempDir) -> Self {
        let (data, saved) = (folder.path().join("data"), folder.path().join("saved"));
        let (data, saved) = (data.to_str().unwrap().to_owned(), saved.to_str().unwrap().to_owned());
        let namespace = unshare(&["-m"]);
        let wrapper = [&namespace[..], &["bash", "-c", script, &data, &saved]].concat();
        let manager = Manager::new();
        let mut command = serve_under(&wrapper);
        command.env("NOTIFY_SOCKET", manager.address());
        let appliance = Appliance::spawn_by(command, folder);
        Self {
            appliance,
            manager,
            data,
        }
    }

    /// Runs a command on the disk, which only the appliance sees.
    fn run(&self, script: &str) -> bool {
        let enter: &[&str] = if geteuid().is_root() {
            &["-m"]
        } else {
            &["-U", "-m", "--preserve-credentials"]
        };
        let id = self.appliance.process_id().to_string();
        let mut command = Command::new("nsenter");
        command
            .args(["-t", &id])
            .args(enter)
            .args(["sh", "-c", script, &self.data]);
        command.output().unwrap().status.success()
    }

    fn assert_refuses(&self, reason: &str, acknowledged: &[(String, String)]) {
        let appliance = &self.appliance;
        poll("the reason", || {
            let ready = appliance.get_admin("/readyz");
            assert_eq!(ready.status, 503);
            ready.json()["store"]["reason"].to_string().contains(reason)
        });
        for (id, url) in acknowledged {
            assert_eq!(appliance.goto(id).header("location"), url, "{id}");
        }
        let ks = appliance.admin_ks();
        assert_eq!(appliance.list(&ks, &[]).1, acknowledged.len() as u64);
        let host = appliance.admin.strip_prefix("http://").unwrap();
        let refused = add(host, &ks, "https://example.com/");
        assert!(
            refused.status == 503 && refused.text().contains("nothing was written"),
            "{refused:?}"
        );
        let is_said =
            |line: &String| line.starts_with("STATUS=") && line.contains("writes are refused") && line.contains(reason);
        while !self.manager.hear().iter().any(is_said) {}
        assert_eq!(
            appliance.log().matches(" ERROR store takes no writes").count(),
            1,
            "{}",
            appliance.log()
        );
    }

    /// Checks that it takes writes again by itself, and has lost none.
    fn assert_recovers(self, acknowledged: &[(String, String)]) -> TempDir {
        let mut appliance = self.appliance;
        appliance.wait_for_log("store works again, accepting writes");
        poll("ready", || appliance.get_admin("/readyz").status == 200);
        let ks = appliance.admin_ks();
        appliance.add(&ks, &[]);
        assert_eq!(appliance.list(&ks, &[]).1, acknowledged.len() as u64 + 1);
        for (id, url) in acknowledged {
            assert_eq!(appliance.goto(id).header("location"), url, "{id}");
        }
        // The mount ends with the process.
        let copy = appliance.folder.path().join("backup.redb");
        let made = appliance.tinyd(&["backup", "--overwrite", copy.to_str().unwrap()]);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        assert_whole(&copy);
        assert!(appliance.terminate().success());
        let next = folder(&configuration_with_operator());
        let folder = std::mem::replace(&mut appliance.folder, next);
        fs::write(appliance.folder.path().join("log"), "").unwrap();
        fs::write(folder.path().join("log"), "").unwrap();
        folder
    }
}

/// A folder whose `saved` is what a crash has left, with links in the journal, and these links.
fn crashed() -> (TempDir, Vec<(String, String)>) {
    let mut appliance = Appliance::start_in(folder(&configuration_with_operator()));
    let ks = appliance.admin_ks();
    let acknowledged = (0..200).map(|number| {
        let url = format!("https://example.com/{number}");
        (appliance.add(&ks, &[("shortLink[fullUrl]", &url)]), url)
    });
    let acknowledged = acknowledged.collect();
    appliance.kill();
    let next = folder(&configuration_with_operator());
    let folder = std::mem::replace(&mut appliance.folder, next);
    fs::write(appliance.folder.path().join("log"), "").unwrap();
    fs::write(folder.path().join("log"), "").unwrap();
    fs::rename(folder.path().join("data"), folder.path().join("saved")).unwrap();
    fs::create_dir(folder.path().join("data")).unwrap();
    (folder, acknowledged)
}

pub fn start_on_full_and_read_only_disks_serves_what_is_there() {
    let (folder, acknowledged) = crashed();
    let full = Stuck::start(FULL, folder);
    full.assert_refuses("No space left", &acknowledged);
    assert!(full.run("rm \"$0/filler\""));
    let folder = full.assert_recovers(&acknowledged);

    let read_only = Stuck::start(&read_only(), folder);
    read_only.assert_refuses("Read-only file system", &acknowledged);
    assert!(read_only.run(&format!("{REMOUNT},rw tmpfs \"$0\"")));
    read_only.assert_recovers(&acknowledged);
}

/// A file that is no store stays that, however full its disk is.
pub fn damaged_store_is_not_taken_for_a_full_disk() {
    let (folder, _) = crashed();
    let (data, saved) = (folder.path().join("data"), folder.path().join("saved"));
    fs::write(saved.join("links.redb"), vec![0xa5; 1024 * 1024]).unwrap();
    let namespace = unshare(&["-m"]);
    let wrapper = ["bash", "-c", FULL, data.to_str().unwrap(), saved.to_str().unwrap()];
    let mut command = serve_under(&[&namespace[..], &wrapper].concat());
    command.args(["--public", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--config"]);
    command.arg(folder.path().join("tinyd.toml")).arg("--data").arg(&data);
    let ended = command.output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(
        !ended.status.success() && said.contains("Not a redb database"),
        "{said}"
    );
}
