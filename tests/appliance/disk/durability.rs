//! Acknowledged writes survive the end of the process, however it ends.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::support::fixture::{Appliance, tinyd};
use crate::support::http::{encode, exchange};

type Acknowledged = Mutex<BTreeMap<String, String>>;

/// Adds links from several clients and follows one until the server is gone; returns the acknowledged links.
fn add_until_it_ends(appliance: &mut Appliance, end: impl FnOnce(&mut Appliance)) -> BTreeMap<String, String> {
    const WRITERS: usize = 4;
    const ENOUGH: u64 = 200;
    let ks = appliance.admin_ks();
    let followed = appliance.add(&ks, &[]);
    let redirect = format!(
        "GET /api_v3/service/shortlink_shortlink/action/goto/id/{followed} HTTP/1.1\r\n\
         Host: x\r\nConnection: close\r\n\r\n"
    );
    let public = appliance.public.strip_prefix("http://").unwrap().to_owned();
    let host = appliance.admin.strip_prefix("http://").unwrap().to_owned();
    let acknowledged = Acknowledged::default();
    let (count, ended) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let followed_until = &ended;
        scope.spawn(move || {
            loop {
                match std::panic::catch_unwind(|| exchange(&public, redirect.as_bytes())) {
                    Ok(answer) => assert_eq!(answer.status, 302),
                    // After the listener has closed there is no response.
                    Err(_) => return assert!(followed_until.load(Ordering::SeqCst), "no redirect while it ran"),
                }
            }
        });
        for writer in 0..WRITERS {
            let (ks, host, acknowledged, count, ended) = (&ks, &host, &acknowledged, &count, &ended);
            scope.spawn(move || {
                for number in 0.. {
                    let url = format!("https://example.com/{writer}/{number}");
                    let target = format!(
                        "/api_v3/service/shortlink_shortlink/action/add?format=1&ks={}&\
                         shortLink:systemName=NAME&shortLink:fullUrl={}",
                        encode(ks),
                        encode(&url)
                    );
                    let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
                    // After the listener has closed there is no response, so the write is not acknowledged.
                    let answer = std::panic::catch_unwind(|| exchange(host, request.as_bytes()));
                    let Ok(answer) = answer else {
                        assert!(ended.load(Ordering::SeqCst), "no answer while it ran");
                        return;
                    };
                    if answer.status == 200 {
                        let link: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
                        acknowledged.lock().insert(link["id"].as_str().unwrap().to_owned(), url);
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
        crate::support::fixture::poll("some links", || count.load(Ordering::SeqCst) > ENOUGH);
        ended.store(true, Ordering::SeqCst);
        end(appliance);
    });
    acknowledged.into_inner()
}

fn assert_all_there(appliance: &Appliance, acknowledged: &BTreeMap<String, String>) {
    for (id, url) in acknowledged {
        assert_eq!(
            appliance.goto(id).header("location"),
            url,
            "{id} was acknowledged and is lost"
        );
    }
    let listed = appliance.list(&appliance.admin_ks(), &[("pager[pageSize]", "0")]).1;
    // Writes in flight may be there too, one per writer; and the link that was followed.
    let least = acknowledged.len() as u64 + 1;
    assert!((least..=least + 4).contains(&listed), "{listed} of {least}");
}

/// Kills per test.
const KILLS: usize = 5;

#[test]
fn kill_loses_no_acknowledged_write() {
    let mut appliance = Appliance::start();
    let mut all = BTreeMap::new();
    for _ in 0..KILLS {
        let acknowledged = add_until_it_ends(&mut appliance, Appliance::kill);
        all.extend(acknowledged);
        appliance.restart();
    }
    for (id, url) in &all {
        assert_eq!(
            appliance.goto(id).header("location"),
            url,
            "{id} was acknowledged and is lost"
        );
    }
    appliance.kill();
    let store = appliance.store();
    let verified = tinyd().args(["verify", "--store"]).arg(store).output().unwrap();
    assert!(
        verified.status.success(),
        "{}",
        String::from_utf8_lossy(&verified.stdout)
    );
}

#[test]
fn terminated_process_finishes_requests_in_flight() {
    let mut appliance = Appliance::start();
    let acknowledged = add_until_it_ends(&mut appliance, |appliance| assert!(appliance.terminate().success()));
    assert!(appliance.log().contains("ended"));
    appliance.restart();
    assert_all_there(&appliance, &acknowledged);
}
