//! Administrators who look at pages of the console, each with a browser of their own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use hdrhistogram::Histogram;

use crate::rig::http::{Answer, Connection};
use crate::rig::links::{self, PARTNER};
use crate::rig::machine::Place;
use crate::rig::tinyd::ADMIN_SECRET;

/// How long somebody looks at a page, least and most.
const THINKING: [Duration; 2] = [Duration::from_millis(500), Duration::from_millis(1_500)];
/// How often somebody who thinks looks whether it is over.
const STEP: Duration = Duration::from_millis(50);
/// The longest time of a page that is told apart.
const PAGE_MAX_US: u64 = 60_000_000;

/// A browser in which an administrator has signed in.
#[derive(Debug)]
pub(crate) struct Browser {
    connection: Connection,
    cookie: String,
}

impl Browser {
    pub(crate) fn sign_in(admin: SocketAddr, user: &str) -> Result<Self> {
        let mut connection = Connection::open(admin)?;
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("partner", &PARTNER.to_string())
            .append_pair("user", user)
            .append_pair("secret", ADMIN_SECRET)
            .finish();
        let request = format!(
            "POST /console/sign-in HTTP/1.1\r\nHost: {admin}\r\nOrigin: http://{admin}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
            form.len()
        );
        let answer = connection.exchange(request.as_bytes())?;
        let cookie = answer
            .cookie
            .with_context(|| format!("signing in gave {} and no cookie", answer.status))?;
        Ok(Self { connection, cookie })
    }

    /// A page of the console, and how long it took.
    pub(crate) fn page(&mut self, path: &str) -> Result<(Answer, Duration)> {
        let cookie = &self.cookie;
        let request = format!("GET /console/{path} HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n");
        let started = Instant::now();
        let answer = self.connection.exchange(request.as_bytes())?;
        let took = started.elapsed();
        if answer.status != 200 {
            bail!("/console/{path} is answered {}", answer.status);
        }
        Ok((answer, took))
    }
}

/// What one looks at, one page after the other: lists, a link of a list, a search, and what else there is.
fn pages(number: u64) -> Vec<String> {
    let draw = |what: u64, limit: usize| links::mixed(number ^ links::mixed(what)) as usize % limit;
    let word = |what: u64| {
        links::WORDS
            .get(draw(what, links::WORDS.len()))
            .copied()
            .unwrap_or_default()
    };
    let link = |what: u64| links::id(draw(what, links::WORKING as usize) as u64);
    let query = |fields: &[(&str, &str)]| {
        let fields = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .finish();
        format!("all?{fields}")
    };
    vec![
        "all".to_owned(),
        "all?page=2".to_owned(),
        format!("links/{}", link(1)),
        query(&[("q", word(2))]),
        query(&[("q", word(3)), ("previews", "0")]),
        format!("links/{}/edit", link(4)),
        query(&[("q", &links::host(number))]),
        query(&[("q", &link(5))]),
        query(&[("state", "expired"), ("order", "expires")]),
        query(&[("owner", &links::user(number)), ("unused", "1")]),
        format!("links/{}", link(6)),
        "clicks".to_owned(),
        "audit".to_owned(),
        "transfer".to_owned(),
        "links".to_owned(),
        "links/new".to_owned(),
    ]
}

/// People at work until they are stopped.
#[derive(Debug)]
pub(crate) struct People {
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<Histogram<u64>>>>,
}

impl People {
    /// Signs so many in. All begin at once, with different pages.
    pub(crate) fn start(admin: SocketAddr, count: u64) -> Result<Self> {
        let is_over = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for person in 0..count {
            let mut browser = Browser::sign_in(admin, &format!("person{person}@example.com"))?;
            let is_over = Arc::clone(&is_over);
            threads.push(thread::spawn(move || {
                Place::Load.take_this_thread()?;
                browse(&mut browser, person, &is_over)
            }));
        }
        Ok(Self { is_over, threads })
    }

    /// Ends their work; says how long their pages took, in microseconds.
    pub(crate) fn stop(self) -> Result<Histogram<u64>> {
        self.is_over.store(true, Ordering::Relaxed);
        let mut all = Histogram::new_with_bounds(1, PAGE_MAX_US, 3)?;
        for thread in self.threads {
            let times = thread.join().map_err(|_| anyhow::anyhow!("a person panicked"))??;
            all.add(times)?;
        }
        Ok(all)
    }
}

fn browse(browser: &mut Browser, person: u64, is_over: &AtomicBool) -> Result<Histogram<u64>> {
    let mut times = Histogram::new_with_bounds(1, PAGE_MAX_US, 3)?;
    let [least, most] = THINKING;
    for turn in 0.. {
        let number = links::mixed(person) ^ turn;
        let pages = pages(number);
        // Not all at the same page.
        for path in pages.iter().cycle().skip(person as usize).take(pages.len()) {
            let (_, took) = browser.page(path)?;
            times.saturating_record(u64::try_from(took.as_micros()).unwrap_or(PAGE_MAX_US));
            let spread = u64::try_from((most - least).as_millis())?;
            let chosen = links::mixed(number ^ times.len()) % spread;
            let until = Instant::now() + least + Duration::from_millis(chosen);
            while Instant::now() < until {
                if is_over.load(Ordering::Relaxed) {
                    return Ok(times);
                }
                thread::sleep(STEP);
            }
        }
    }
    Ok(times)
}
