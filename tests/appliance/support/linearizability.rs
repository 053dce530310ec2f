//! A linearizability check of calls on a link over HTTP: some order explains all results, with each call taking effect
//! between its start and its end. Failed calls may have taken effect or not.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use serde_json::Value;
use stateright::semantics::{ConsistencyTester as _, LinearizabilityTester, SequentialSpec};

use super::fixture::{Appliance, poll};

const CLIENTS: usize = 4;
const CALLS: usize = 5;
const ROUNDS: usize = 60;

/// The links added under one unique ID, and the holder of it.
#[derive(Debug, Clone, Default, Hash)]
pub struct Holders {
    /// By ID: the version of the destination, `None` if deleted.
    links: BTreeMap<String, Option<usize>>,
}

#[derive(Debug, Clone)]
pub enum Call {
    /// With this version as destination.
    Add(usize),
    Update(String, usize),
    Delete(String),
    Get(String),
    Goto(String),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Return {
    Added(String),
    Taken,
    Done,
    NotFound,
    /// The version in the result of a get or a redirect.
    Version(usize),
    Gone,
}

impl Holders {
    fn shown(&self, id: &str, deleted: Return) -> Return {
        match self.links.get(id) {
            Some(Some(version)) => Return::Version(*version),
            Some(None) => deleted,
            None => Return::NotFound,
        }
    }

    fn replace(&mut self, id: &str, version: Option<usize>) -> Return {
        match self.links.get_mut(id) {
            Some(stored @ Some(_)) => {
                *stored = version;
                Return::Done
            }
            _ => Return::NotFound,
        }
    }
}

impl SequentialSpec for Holders {
    type Op = Call;
    type Ret = Return;

    fn invoke(&mut self, call: &Call) -> Return {
        match call {
            Call::Add(_) if self.links.values().any(Option::is_some) => Return::Taken,
            // No client learned its ID.
            Call::Add(version) => {
                self.links.insert(format!("unknown {version}"), Some(*version));
                Return::Added(format!("unknown {version}"))
            }
            Call::Update(id, version) => self.replace(id, Some(*version)),
            Call::Delete(id) => self.replace(id, None),
            Call::Get(id) => self.shown(id, Return::NotFound),
            Call::Goto(id) => self.shown(id, Return::Gone),
        }
    }

    fn is_valid_step(&mut self, call: &Call, returned: &Return) -> bool {
        match (call, returned) {
            // The server chooses the ID.
            (Call::Add(version), Return::Added(id)) if !self.links.values().any(Option::is_some) => {
                self.links.insert(id.clone(), Some(*version)).is_none()
            }
            _ => self.invoke(call) == *returned,
        }
    }
}

pub enum Event {
    Call(usize, Call),
    Return(usize, Return),
}

fn url(version: usize) -> String {
    format!("https://example.com/{version}")
}

fn version(url: &str) -> usize {
    url.rsplit('/').next().unwrap().parse().unwrap()
}

/// The reason that a call has no result.
enum Failed {
    /// It may have taken effect.
    Unknown,
    /// It has not, as the response states; so the history omits it.
    Refused,
}

fn make(appliance: &Appliance, ks: &str, unique_id: &str, call: &Call) -> Result<Return, Failed> {
    let post = |action: &str, params: &[(&str, &str)]| -> Result<Value, Failed> {
        let params = [&[("format", "1"), ("ks", ks)], params].concat();
        let answer = appliance.post("shortlink_shortlink", action, &params);
        match answer.status {
            200 => Ok(answer.json()),
            503 if answer.text().contains("nothing was written") => Err(Failed::Refused),
            503 => Err(Failed::Unknown),
            other => panic!("{other}: {answer:?}"),
        }
    };
    let code = |result: &Value| result["code"].as_str().map(str::to_owned);
    let done = |result: Value| match code(&result).as_deref() {
        None => Return::Done,
        Some("INVALID_OBJECT_ID") => Return::NotFound,
        Some(other) => panic!("{other}"),
    };
    Ok(match call {
        Call::Add(version) => {
            let url = url(*version);
            let params = [
                ("shortLink[systemName]", "NAME"),
                ("shortLink[fullUrl]", url.as_str()),
                ("shortLink[uniqueId]", unique_id),
            ];
            let result = post("add", &params)?;
            match code(&result).as_deref() {
                None => Return::Added(result["id"].as_str().unwrap().to_owned()),
                Some("SHORT_LINK_UNIQUE_ID_ALREADY_EXISTS") => Return::Taken,
                Some(other) => panic!("{other}"),
            }
        }
        Call::Update(id, version) => done(post("update", &[("id", id), ("shortLink[fullUrl]", &url(*version))])?),
        Call::Delete(id) => done(post("delete", &[("id", id)])?),
        Call::Get(id) => {
            let result = post("get", &[("id", id)])?;
            match result["fullUrl"].as_str() {
                Some(url) => Return::Version(version(url)),
                None => done(result),
            }
        }
        Call::Goto(id) => {
            let answer = appliance.goto(id);
            match answer.status {
                302 => Return::Version(version(answer.header("location"))),
                410 => Return::Gone,
                404 => Return::NotFound,
                other => panic!("{other}: {answer:?}"),
            }
        }
    })
}

/// Runs clients that call at random; returns calls and results in order of time.
///
/// Each client calls through one of the appliances. A redirect may show what another has changed a moment later, so it
/// is a call only where there is one appliance.
fn history(appliances: &[&Appliance], ks: &str, unique_id: &str) -> Vec<Event> {
    let events = Mutex::new(Vec::new());
    // A client whose call failed continues under a new number, because that call may still take effect.
    let (next_client, next_version) = (AtomicUsize::new(CLIENTS), AtomicUsize::new(0));
    let ids = Mutex::new(Vec::<String>::new());
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (events, next_client, next_version, ids) = (&events, &next_client, &next_version, &ids);
            let appliance = appliances[client % appliances.len()];
            scope.spawn(move || {
                let mut client = client;
                for _ in 0..CALLS {
                    let version = next_version.fetch_add(1, Ordering::SeqCst);
                    let known = ids.lock().last().cloned();
                    let call = match (known, rand::random_range(0..6)) {
                        (None, _) | (_, 0) => Call::Add(version),
                        (Some(id), 1) => Call::Delete(id),
                        (Some(id), 2) => Call::Get(id),
                        (Some(id), 3) => Call::Update(id, version),
                        (Some(id), _) if appliances.len() > 1 => Call::Get(id),
                        (Some(id), _) => Call::Goto(id),
                    };
                    let number = {
                        let mut events = events.lock();
                        events.push(Some(Event::Call(client, call.clone())));
                        events.len() - 1
                    };
                    match make(appliance, ks, unique_id, &call) {
                        Ok(returned) => {
                            if let Return::Added(id) = &returned {
                                ids.lock().push(id.clone());
                            }
                            events.lock().push(Some(Event::Return(client, returned)));
                        }
                        Err(Failed::Unknown) => client = next_client.fetch_add(1, Ordering::SeqCst),
                        Err(Failed::Refused) => {
                            events.lock()[number] = None;
                            poll("ready", || appliance.get_admin("/readyz").status == 200);
                        }
                    }
                }
            });
        }
    });
    events.into_inner().into_iter().flatten().collect()
}

pub fn is_linearizable(events: &[Event]) -> bool {
    let mut tester = LinearizabilityTester::new(Holders::default());
    for event in events {
        match event {
            Event::Call(client, call) => drop(tester.on_invoke(*client, call.clone()).unwrap()),
            Event::Return(client, returned) => drop(tester.on_return(*client, returned.clone()).unwrap()),
        }
    }
    tester.is_consistent()
}

/// Returns the number of calls that have failed.
pub fn assert_linearizable(appliance: &Appliance) -> usize {
    assert_linearizable_through(&[appliance], ROUNDS, |_| ())
}

/// The same through several appliances; before each round, the function makes trouble.
pub fn assert_linearizable_through(appliances: &[&Appliance], rounds: usize, mut before: impl FnMut(usize)) -> usize {
    let ks = appliances[0].admin_ks();
    let mut failed = 0;
    for round in 0..rounds {
        before(round);
        let events = history(appliances, &ks, &format!("round {round}"));
        let (calls, returns): (Vec<_>, Vec<_>) = events.iter().partition(|event| matches!(event, Event::Call(..)));
        failed += calls.len() - returns.len();
        let told = || {
            let lines = events.iter().map(|event| match event {
                Event::Call(client, call) => format!("{client} calls {call:?}"),
                Event::Return(client, returned) => format!("{client} returns {returned:?}"),
            });
            lines.collect::<Vec<_>>().join("\n")
        };
        assert!(is_linearizable(&events), "round {round}:\n{}", told());
    }
    failed
}
