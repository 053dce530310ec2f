//! Reloads under load: no request fails, and nothing grows.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::process::Signal;

use crate::support::certificates::Authority;
use crate::support::fixture::{Appliance, configuration, folder};
use crate::support::manager::Manager;
use crate::support::tls::{Client, NAME, leaf, served_certificate, settings};

const RELOADS: usize = 1_000;
/// After these, what is allocated once and kept is there.
const FIRST: usize = 200;
/// Most that it may grow by meanwhile. A certificate that was kept for each reload would take as much.
const MOST_BYTES: u64 = 4 * 1024 * 1024;

fn resident_bytes(appliance: &Appliance) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", appliance.process_id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Stops the loops of all threads, also when one fails.
struct EndOfTest<'s>(&'s AtomicBool);

impl Drop for EndOfTest<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Sends requests until stopped: on one connection, or each on its own.
fn ask(client: &Client, address: &str, is_kept: bool, stop: &AtomicBool, answered: &AtomicUsize) {
    let mut kept = client.open(address);
    while !stop.load(Ordering::Relaxed) {
        if !is_kept {
            kept = client.open(address);
        }
        let answer = kept.get("/robots.txt", "").expect("an answer");
        assert!(answer.status == 200 && !answer.is_last(), "{answer:?}");
        answered.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn thousand_reloads_fail_no_request_and_leak_nothing() {
    let authority = Authority::new();
    let unlimited = "max_requests_per_connection = 0\n";
    let limits = format!("[public]\n{unlimited}[admin]\n{unlimited}");
    let folder = folder(&configuration(&(limits + &settings(""))));
    let pairs = ["0", "1"].map(|name| (name, authority.issue(&[NAME], |_| {})));
    for (name, (chain, key)) in &pairs {
        fs::write(folder.path().join(format!("{name}-cert.pem")), chain).unwrap();
        fs::write(folder.path().join(format!("{name}-key.pem")), key).unwrap();
    }
    let at = folder.path().to_owned();
    let take = |number: usize| {
        for name in ["cert.pem", "key.pem"] {
            fs::copy(at.join(format!("{}-{name}", number % 2)), at.join("next")).unwrap();
            fs::rename(at.join("next"), at.join(name)).unwrap();
        }
    };
    take(0);
    let manager = Manager::new();
    let appliance = manager.start(folder, &[]);
    manager.hear_until("READY=1");
    let client = Client::new(&authority);
    let stop = AtomicBool::new(false);
    let answered = [(); 4].map(|()| AtomicUsize::new(0));
    let mut resident = 0;
    std::thread::scope(|scope| {
        for (number, count) in answered.iter().enumerate() {
            let address = if number < 3 {
                &appliance.public_tls
            } else {
                &appliance.admin_tls
            };
            let (client, stop) = (&client, &stop);
            scope.spawn(move || {
                let _end = EndOfTest(stop);
                ask(client, address, number % 2 == 0, stop, count);
            });
        }
        let _end = EndOfTest(&stop);
        for number in 1..=RELOADS {
            take(number);
            appliance.signal(Signal::HUP);
            manager.hear_until("READY=1");
            if number % 100 == 0 {
                let served = served_certificate(&client, &appliance.public_tls);
                assert!(served == leaf(&pairs[number % 2].1), "{number}");
            }
            if number == FIRST {
                resident = resident_bytes(&appliance);
            }
            if stop.load(Ordering::Relaxed) {
                return;
            }
        }
        let grown = resident_bytes(&appliance).saturating_sub(resident);
        assert!(grown <= MOST_BYTES, "{grown} more than {resident}");
    });
    for count in answered {
        assert!(count.load(Ordering::Relaxed) > 0);
    }
}
