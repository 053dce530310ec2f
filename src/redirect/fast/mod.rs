//! The fast path. Without this folder, and without `event_loop.rs`, `loop_connection.rs`, `exchange.rs` and
//! `redirect_task.rs` of `server/`, `server/workers.rs` would give each connection to the general threads, and all
//! would work, slower. `TINYD_FAST_PATH=off` does that in a debug build; the tests of redirects run both ways.
//!
//! It answers plain requests for redirects, nearly all there are, from the bytes of the request to those of the
//! response: nothing is allocated, nothing awaited. Every other request is for the general threads.

mod answers;
mod now;
pub mod request;
mod template;

pub use now::Now;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{HeaderValue, STRICT_TRANSPORT_SECURITY};

use crate::http::Peer;
use crate::kaltura::{AccessLog, Requested, Subject};
use crate::links::{ClickRecorder, Links, Verdict};
use crate::metrics::{RedirectOutcome, ThreadRedirects};
use crate::model::{Clock, LinkId, Visit};
use crate::redirect::fast::answers::{Answers, NoRedirect};
use crate::redirect::fast::request::{Ahead, Asker, Parsed, Request};
use crate::redirect::fast::template::{Filling, Template};
use crate::redirect::guesses::{Guess, UnknownIdLimit};
use crate::redirect::page::Pages;
use crate::redirect::previews::Visitors;
use crate::redirect::{Representation, Tiny, outcome_of, respond_to, too_many_guesses};

/// The listener in the access log.
const LISTENER: &str = "public";

#[derive(Debug)]
pub enum Outcome {
    Answered {
        /// The length of the request, in bytes.
        consumed: usize,
        /// Whether the client wants the connection to end.
        close: bool,
    },
    /// The link is not in memory yet, or its answer has no template.
    Waiting(Waiting),
    /// The head of the request is not whole yet.
    Partial,
    /// Anything but a plain request for a redirect: for the general server to answer.
    Other,
}

/// A request whose link is not in memory yet, or whose answer has no template.
#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    id: LinkId,
    client: IpAddr,
    visit: Visit,
    head_only: bool,
    representation: Representation,
    close: bool,
    consumed: usize,
}

impl Waiting {
    pub const fn consumed(&self) -> usize {
        self.consumed
    }

    pub const fn close(&self) -> bool {
        self.close
    }
}

/// The fast path of one thread.
#[derive(Debug)]
pub struct FastPath {
    links: Arc<Links>,
    guesses: Arc<UnknownIdLimit>,
    access_log: Arc<AccessLog>,
    tiny: Tiny,
    pages: Arc<Pages>,
    answers: Arc<Answers>,
    /// In the answers already.
    hsts: Option<HeaderValue>,
    redirects: ThreadRedirects,
    recorder: ClickRecorder,
    visitors: Visitors,
    /// Only in debug builds.
    is_off: bool,
}

impl FastPath {
    /// For one thread, whose counts stay unread.
    pub fn new(
        links: Arc<Links>,
        tiny: Tiny,
        guesses: Arc<UnknownIdLimit>,
        pages: Arc<Pages>,
        access_log: Arc<AccessLog>,
    ) -> Self {
        Self {
            recorder: links.recorder(),
            links,
            guesses,
            access_log,
            tiny,
            answers: Arc::new(Answers::new(&pages, None)),
            pages,
            hsts: None,
            redirects: ThreadRedirects::default(),
            visitors: Visitors::default(),
            is_off: cfg!(debug_assertions) && std::env::var_os("TINYD_FAST_PATH").is_some_and(|value| value == "off"),
        }
    }

    /// With this `Strict-Transport-Security` in each response.
    #[must_use]
    pub fn with_hsts(self, hsts: Option<&HeaderValue>) -> Self {
        Self {
            answers: Arc::new(Answers::new(&self.pages, hsts)),
            hsts: hsts.cloned(),
            ..self
        }
    }

    /// Records clicks of one thread.
    pub fn new_recorder(&self) -> ClickRecorder {
        self.links.recorder()
    }

    /// The same for another thread, which counts its redirects and clicks here.
    pub fn for_thread(&self, redirects: ThreadRedirects, recorder: ClickRecorder) -> Self {
        Self {
            recorder,
            links: Arc::clone(&self.links),
            guesses: Arc::clone(&self.guesses),
            access_log: Arc::clone(&self.access_log),
            tiny: self.tiny,
            pages: Arc::clone(&self.pages),
            answers: Arc::clone(&self.answers),
            hsts: self.hsts.clone(),
            redirects,
            visitors: Visitors::default(),
            is_off: self.is_off,
        }
    }

    /// Notes how long redirects took whose requests came together: from reading them to writing their answers.
    pub fn took(&self, duration: Duration, redirects: u64) {
        self.redirects.took(duration, redirects);
    }

    pub fn clock(&self) -> &Clock {
        self.links.clock()
    }

    /// Reads the links of requests that are about to be answered.
    pub fn prefetch<'i>(&self, inputs: impl Iterator<Item = &'i [u8]>) {
        self.links
            .index()
            .prefetch(inputs.filter_map(|input| request::id_ahead(input, self.tiny)));
    }

    /// Answers the first request in `input`, appending the response to `out`. `ahead`, empty at first, gets those that
    /// follow it.
    pub fn answer<'i>(
        &self,
        input: &'i [u8],
        ahead: &mut Ahead<'i>,
        now: &Now,
        asker: &Asker<'_>,
        out: &mut Vec<u8>,
    ) -> Outcome {
        if cfg!(debug_assertions) && self.is_off {
            return Outcome::Other;
        }
        let mut request = match ahead.first(input, self.tiny, asker, self.links.index()) {
            Parsed::Whole(request) => request,
            Parsed::Partial => return Outcome::Partial,
            Parsed::Other => return Outcome::Other,
        };
        request.close |= asker.is_last;
        let begins = out.len();
        let outcome = self.answer_request(&request, input, now, asker, out);
        if matches!(outcome, Outcome::Answered { .. }) && self.access_log.takes_next() {
            self.log(&request, asker.peer, out.get(begins..).unwrap_or_default());
        }
        outcome
    }

    fn answer_request(
        &self,
        request: &Request<'_>,
        input: &[u8],
        now: &Now,
        asker: &Asker<'_>,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let &Request {
            id, consumed, close, ..
        } = request;
        let filling = Filling {
            id: id.as_bytes(),
            location: b"",
            date: &now.date,
            close,
            head_only: request.visitor.head_only,
        };
        let answered = Outcome::Answered { consumed, close };
        let head = || input.get(..consumed).unwrap_or_default();
        if request.is_hop {
            self.answers.hop.write(&filling, out);
            self.redirects.count(RedirectOutcome::Hop);
            return answered;
        }
        if self.guesses.is_anybody_shut_out(now.time())
            && self.guesses.is_shut_out(request.client(asker.peer), now.time())
        {
            let refusal = &self.answers.too_many_guesses;
            return self.refuse(RedirectOutcome::Refused, refusal, request, head(), &filling, out);
        }
        let verdict = self.links.index().look_up_with(id, now.time(), |location| {
            self.answers.found.write(&Filling { location, ..filling }, out);
        });
        let refusal = match verdict {
            Verdict::Redirect(()) => {
                self.redirects.count(RedirectOutcome::Found);
                if self.recorder.is_counting() {
                    let visit = self.visitors.visit_of(&request.visitor);
                    self.recorder.record(id, visit, now.time());
                }
                return answered;
            }
            // Each start makes an answer of its own.
            Verdict::Loading | Verdict::Damaged | Verdict::NotYet(_) => {
                return Outcome::Waiting(Waiting {
                    id,
                    client: request.client(asker.peer),
                    visit: self.visitors.visit_of(&request.visitor),
                    head_only: request.visitor.head_only,
                    representation: request.representation(head()),
                    close,
                    consumed,
                });
            }
            Verdict::Unknown => {
                if self.guesses.note(request.client(asker.peer), id, now.time()) == Guess::TooMany {
                    let refusal = &self.answers.too_many_guesses;
                    return self.refuse(RedirectOutcome::Refused, refusal, request, head(), &filling, out);
                }
                &self.answers.unknown
            }
            Verdict::Disabled => &self.answers.disabled,
            Verdict::Deleted => &self.answers.deleted,
            Verdict::Expired => &self.answers.expired,
        };
        self.refuse(outcome_of(&verdict), refusal, request, head(), &filling, out)
    }

    /// Only here, the language of the visitor is looked at.
    fn refuse(
        &self,
        outcome: RedirectOutcome,
        refusal: &NoRedirect,
        request: &Request<'_>,
        head: &[u8],
        filling: &Filling<'_>,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let Some(template) = refusal.get(request.id, request.representation(head)) else {
            return Outcome::Other;
        };
        self.redirects.count(outcome);
        template.write(filling, out);
        Outcome::Answered {
            consumed: request.consumed,
            close: request.close,
        }
    }

    /// Looks for the link in the store, and answers.
    pub async fn wait(&self, waiting: Waiting, now: &Now, out: &mut Vec<u8>) {
        let Waiting { id, representation, .. } = waiting;
        let verdict = self.links.look_up(id).await;
        if matches!(verdict, Verdict::Redirect(_)) {
            self.recorder.record(id, waiting.visit, now.time());
        }
        let is_refused =
            verdict == Verdict::Unknown && self.guesses.note(waiting.client, id, now.time()) == Guess::TooMany;
        let mut response = if is_refused {
            self.redirects.count(RedirectOutcome::Refused);
            too_many_guesses(&self.pages, representation)
        } else {
            self.redirects.count(outcome_of(&verdict));
            respond_to(verdict, id.as_str(), Requested::default(), &self.pages, || {
                representation
            })
        };
        let filling = Filling {
            id: b"",
            location: b"",
            date: &now.date,
            close: waiting.close,
            head_only: waiting.head_only,
        };
        if let Some(hsts) = &self.hsts {
            response.headers_mut().insert(STRICT_TRANSPORT_SECURITY, hsts.clone());
        }
        let status = response.status();
        Template::new(response, b"", b"").write(&filling, out);
        if self.access_log.takes_next() {
            let method = if waiting.head_only { "HEAD" } else { "GET" };
            self.access_log
                .write(LISTENER, waiting.client, method, &Subject::Goto(id), status, None);
        }
    }

    #[cold]
    fn log(&self, request: &Request<'_>, peer: &Peer, answer: &[u8]) {
        let method = if request.visitor.head_only { "HEAD" } else { "GET" };
        let subject = if request.is_tiny {
            Subject::Tiny(request.id)
        } else {
            Subject::Goto(request.id)
        };
        // It stands after "HTTP/1.1 ".
        let status = answer.get(9..12).and_then(|digits| StatusCode::from_bytes(digits).ok());
        let status = status.unwrap_or_default();
        self.access_log
            .write(LISTENER, request.client(peer), method, &subject, status, None);
    }
}

#[cfg(test)]
impl FastPath {
    pub fn test(links: Arc<Links>) -> Self {
        let guesses = Arc::new(UnknownIdLimit::new(Arc::new(1_000.into()), true, Arc::default()));
        let access_log = Arc::new(AccessLog::new(None, crate::kaltura::LoggedAddress::None));
        Self::new(links, Tiny::Hop, guesses, Arc::default(), access_log)
    }
}

#[cfg(test)]
mod tests {
    use hyper::Method;

    use super::*;
    use crate::http::HeadLimits;
    use crate::kaltura::session::Kind;
    use crate::links::{Draft, Scope};
    use crate::metrics::Metrics;
    use crate::model::{Actor, ActorKind, Destination, PartnerId, Status as LinkStatus, Timestamp, Way};
    use crate::redirect::TINY;
    use crate::redirect::{Client, GOTO, Redirects};
    use crate::store::Transaction;

    fn fast_path(folder: &std::path::Path) -> (FastPath, Vec<LinkId>) {
        let clock = Clock::manual(Timestamp::from_unix(1_000));
        let links = Arc::new(Links::open(folder, clock, 8).unwrap());
        links.load().unwrap();
        let draft = |status, [starts_at, expires_at]: [Option<i64>; 2]| Draft {
            added_by: Kind::Admin,
            partner_id: PartnerId(1),
            user_id: None,
            name: None,
            system_name: "NAME".to_owned(),
            full_url: Destination::parse("https://example.com/video").unwrap(),
            unique_id: None,
            status,
            starts_at: starts_at.map(Timestamp::from_unix),
            expires_at: expires_at.map(Timestamp::from_unix),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let drafts = [
            draft(LinkStatus::Enabled, [None; 2]),
            draft(LinkStatus::Enabled, [None, Some(2_000)]),
            draft(LinkStatus::Enabled, [None, Some(10)]),
            draft(LinkStatus::Disabled, [None; 2]),
            draft(LinkStatus::Enabled, [Some(1_000), Some(2_000)]),
        ];
        let somebody = Actor {
            partner: Some(PartnerId(1)),
            user: None,
            kind: ActorKind::Admin,
            way: Way::Api,
        };
        let ids = drafts.map(|draft| runtime.block_on(links.add(draft, somebody.clone())).unwrap().id);
        (FastPath::test(links), ids.to_vec())
    }

    const HEAD: HeadLimits = HeadLimits {
        head_bytes: 4096,
        target_bytes: 4096,
        headers: 64,
    };

    fn peer() -> Peer {
        Peer::new("203.0.113.7".parse().unwrap(), &Arc::default())
    }

    fn asker(peer: &Peer) -> Asker<'_> {
        Asker {
            peer,
            head: &HEAD,
            is_last: false,
        }
    }

    fn now() -> Now {
        let mut now = Now::default();
        now.set(Timestamp::from_unix(1_000));
        now
    }

    #[test]
    fn a_redirect_allocates_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (fast_path, mut ids) = fast_path(folder.path());
        ids.push("unknown1".parse().unwrap());
        let (now, peer, mut out) = (now(), peer(), Vec::with_capacity(64 * 1024));
        // The first guess of a client makes room for others.
        fast_path
            .guesses
            .note(peer.address(), "unknown2".parse().unwrap(), now.time());
        for id in ids {
            for path in [GOTO, TINY] {
                // As many as the fast path reads ahead, and more.
                let requests = format!(
                    "GET {path}{id} HTTP/1.1\r\nHost: a\r\nAccept: text/html\r\n\
                     User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0\r\n\r\n"
                )
                .repeat(20);
                out.clear();
                let allocated = allocation_counter::measure(|| {
                    let (mut rest, mut ahead) = (requests.as_bytes(), Ahead::default());
                    while !rest.is_empty() {
                        let outcome = fast_path.answer(rest, &mut ahead, &now, &asker(&peer), &mut out);
                        let Outcome::Answered { consumed, .. } = outcome else {
                            panic!("{outcome:?}");
                        };
                        rest = &rest[consumed..];
                    }
                });
                assert_eq!(allocated.count_total, 0, "{requests}");
                assert_eq!(String::from_utf8_lossy(&out).matches("HTTP/1.1 ").count(), 20);
            }
        }
    }

    #[test]
    fn redirect_after_a_lookup_is_counted_alike() {
        let folder = tempfile::tempdir().unwrap();
        let (before, ids) = fast_path(folder.path());
        drop(before);
        let clock = Clock::manual(Timestamp::from_unix(1_000));
        let links = Arc::new(Links::open(folder.path(), clock, 8).unwrap());
        let peer = peer();
        let fast_path = FastPath::test(Arc::clone(&links));
        let (now, mut out) = (now(), Vec::new());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        for (id, answer, clicks) in [(ids[0], "302", 1), (ids[2], "410", 0)] {
            for (method, more) in [("GET", ""), ("HEAD", ""), ("GET", "User-Agent: Twitterbot\r\n")] {
                let request = format!("{method} {GOTO}{id} HTTP/1.1\r\nHost: a\r\n{more}\r\n");
                out.clear();
                // The first one brings it into memory.
                if let Outcome::Waiting(waiting) =
                    fast_path.answer(request.as_bytes(), &mut Ahead::default(), &now, &asker(&peer), &mut out)
                {
                    assert_eq!((method, more), ("GET", ""));
                    runtime.block_on(fast_path.wait(waiting, &now, &mut out));
                }
                assert!(out.starts_with(format!("HTTP/1.1 {answer}").as_bytes()), "{request}");
            }
            let scope = Scope {
                partner: PartnerId(1),
                owner: None,
            };
            let (_, usage) = runtime.block_on(links.get_with_usage(id, scope)).unwrap();
            assert_eq!((usage.clicks, usage.previews), (clicks, 2 * clicks));
            assert_eq!(usage.last_used_at.is_some(), clicks > 0);
        }
    }

    #[test]
    fn damaged_links_are_counted_as_such_on_both_paths() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let (first, ids) = fast_path(folder.path());
        let damaged = ids[0];
        let damage = move |transaction: &mut Transaction<'_>| transaction.damage(damaged);
        runtime.block_on(first.links.store().write(damage)).unwrap();
        drop(first);

        let links = Arc::new(Links::open(folder.path(), Clock::system(), 8).unwrap());
        links.load().unwrap();
        let metrics = Arc::new(Metrics::default());
        let peer = peer();
        let fast_path = FastPath::test(Arc::clone(&links)).for_thread(metrics.redirects.for_thread(), links.recorder());
        let (now, mut out) = (now(), Vec::new());
        let accept = "Accept: text/html\r\nAccept-Language: fr\r\n";
        let request = format!("GET {GOTO}{damaged} HTTP/1.1\r\nHost: a\r\n{accept}\r\n");
        let Outcome::Waiting(waiting) =
            fast_path.answer(request.as_bytes(), &mut Ahead::default(), &now, &asker(&peer), &mut out)
        else {
            panic!("it must be looked for");
        };
        let guesses = Arc::new(UnknownIdLimit::new(Arc::default(), true, Arc::default()));
        let redirects = Redirects::new(&links, Tiny::Hop, true, &guesses, &Arc::default(), None, &metrics);
        runtime.block_on(async {
            fast_path.wait(waiting, &now, &mut out).await;
            let client = Client {
                headers: &hyper::HeaderMap::new(),
                address: peer.address(),
                presence: None,
            };
            let id = Some(damaged.as_str());
            redirects.goto(&Method::POST, id, Requested::default(), client).await;
        });
        let answer = String::from_utf8(out).unwrap();
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(
            answer.contains("retry-after: 1\r\n") && answer.contains("content-language: fr\r\n"),
            "{answer}"
        );
        assert!(answer.contains("LINK_DAMAGED"), "{answer}");
        let counted = RedirectOutcome::ALL.into_iter().zip(metrics.redirects.read().0);
        let counted: Vec<_> = counted.filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [(RedirectOutcome::Damaged, 2)]);
    }
}
