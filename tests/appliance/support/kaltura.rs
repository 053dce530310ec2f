//! A double of Kaltura's API, as far as an import calls it: it behaves as docs/kaltura-api.md says, and lists no more
//! than 10,000 links of a filter.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::origin::Server;

pub const KALTURA_PARTNER: u32 = 424_242;
pub const KALTURA_SECRET: &str = "kaltura-secret-0123456789abcdef";
pub const KALTURA_USER_KS: &str = "kaltura-session-of-a-user";

const LISTED_MAX: usize = 10_000;
const RELATIVE_MAX_SECONDS: i64 = 315_360_000;

/// What happens to a list in place of an answer.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// A status, to be tried again at once.
    Status(u16),
    /// The connection ends in the middle of the answer.
    Cut,
    Exception(&'static str),
    /// All sessions have ended.
    SessionsEnd,
}

#[derive(Default)]
struct State {
    links: Vec<Value>,
    /// One for each list that comes; `None` for an answer.
    faults: VecDeque<Option<Fault>>,
    lists: Vec<Value>,
    sessions: usize,
    ended: usize,
}

pub struct Kaltura {
    server: Server,
    state: Arc<Mutex<State>>,
}

impl Kaltura {
    pub fn start(links: Vec<Value>) -> Self {
        let state = Arc::new(Mutex::new(State {
            links,
            ..State::default()
        }));
        let shared = Arc::clone(&state);
        let server = Server::start("127.0.0.1:0", move |stream| serve(stream, &shared));
        Self { server, state }
    }

    pub fn url(&self) -> String {
        format!("http://{}/api_v3", self.server.address)
    }

    pub fn add(&self, links: impl IntoIterator<Item = Value>) {
        self.state.lock().links.extend(links);
    }

    /// What happens to the next lists.
    pub fn fail(&self, faults: &[Option<Fault>]) {
        self.state.lock().faults = faults.iter().copied().collect();
    }

    /// The lists since the last call.
    pub fn take_lists(&self) -> Vec<Value> {
        std::mem::take(&mut self.state.lock().lists)
    }

    pub fn sessions(&self) -> usize {
        self.state.lock().sessions
    }
}

/// A link as Kaltura sends it.
pub fn kaltura_link(id: &str, created_at: i64) -> Value {
    json!({
        "id": id,
        "createdAt": created_at,
        "updatedAt": created_at + 60,
        "partnerId": KALTURA_PARTNER,
        "userId": "editor@example.com",
        "name": "A name",
        "systemName": "KMC-PREVIEW",
        "fullUrl": format!("https://example.com/{id}"),
        "status": 2,
        "objectType": "KalturaShortLink"
    })
}

fn serve(stream: TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream);
    let (mut line, mut head) = (String::new(), String::new());
    while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
        head += &std::mem::take(&mut line).to_ascii_lowercase();
    }
    let Some(length) = head.lines().find_map(|line| line.strip_prefix("content-length: ")) else {
        return;
    };
    let mut body = vec![0; length.parse().unwrap()];
    reader.read_exact(&mut body).unwrap();
    let request: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(request["format"], 1, "{request}");
    let path = head.split(' ').nth(1).unwrap().to_owned();
    // A secret in a URL is in the logs of every proxy.
    assert!(!path.contains('?'), "{path}");
    let mut state = state.lock();
    let (mut status, mut cut) = (200, false);
    let answer = match path.as_str() {
        "/api_v3/service/session/action/start" => state.start(&request),
        "/api_v3/service/shortlink_shortlink/action/list" => {
            state.lists.push(request.clone());
            match state.faults.pop_front().flatten() {
                None => state.list(&request),
                Some(Fault::Status(failed)) => {
                    status = failed;
                    json!("<html>")
                }
                Some(Fault::Cut) => {
                    cut = true;
                    state.list(&request)
                }
                Some(Fault::Exception(code)) => exception(code, json!([])),
                Some(Fault::SessionsEnd) => {
                    state.ended = state.sessions;
                    state.list(&request)
                }
            }
        }
        _ => {
            status = 404;
            json!("<html>")
        }
    };
    drop(state);
    let text = if status == 200 {
        answer.to_string()
    } else {
        "<html>".to_owned()
    };
    let head = format!(
        "HTTP/1.1 {status} Word\r\nContent-Type: application/json\r\nContent-Length: {}\r\nRetry-After: 0\r\n\
         Connection: close\r\n\r\n",
        text.len()
    );
    let sent = if cut { &text[..text.len() / 2] } else { &text };
    let _ = reader
        .get_mut()
        .write_all([head.as_bytes(), sent.as_bytes()].concat().as_slice());
}

fn exception(code: &str, args: Value) -> Value {
    json!({
        "code": code,
        "message": format!("the message of {code}"),
        "objectType": "KalturaAPIException",
        "args": args
    })
}

impl State {
    fn start(&mut self, request: &Value) -> Value {
        let is_right = (&request["secret"], &request["partnerId"], &request["type"])
            == (&KALTURA_SECRET.into(), &KALTURA_PARTNER.into(), &2.into());
        if !is_right {
            return exception("START_SESSION_ERROR", json!({ "PID": request["partnerId"] }));
        }
        self.sessions += 1;
        json!(self.session())
    }

    fn session(&self) -> String {
        format!("kaltura-session-{}", self.sessions)
    }

    fn list(&self, request: &Value) -> Value {
        let filter = &request["filter"];
        let ks = request["ks"].as_str().unwrap_or("");
        let is_user = ks == KALTURA_USER_KS;
        if !is_user && (ks != self.session() || self.ended == self.sessions) {
            // Kaltura repeats the whole session.
            let message = json!({ "KSID": ks, "ERR_CODE": "-5", "ERR_DESC": "EXPIRED" });
            let mut invalid = exception("INVALID_KS", message);
            invalid["message"] = json!(format!("Invalid KS \"{ks}\", Error \"-5,EXPIRED\""));
            return invalid;
        }
        if is_user && filter["userIdEqual"].is_string() {
            return exception("CANNOT_RETRIEVE_ANOTHER_USERS_SHORT_LINK", json!({ "USER_ID": "x" }));
        }
        let time = |name: &str| {
            let seconds = filter[name].as_i64()?;
            assert!(seconds.abs() > RELATIVE_MAX_SECONDS, "{seconds} is relative to now");
            Some(seconds)
        };
        let (from, to) = (time("createdAtGreaterThanOrEqual"), time("createdAtLessThanOrEqual"));
        let statuses = filter["statusIn"].as_str().unwrap_or("1,2");
        let is_meant = |link: &&Value| {
            let at = link["createdAt"].as_i64().unwrap();
            from.is_none_or(|from| at >= from)
                && to.is_none_or(|to| at <= to)
                && statuses.contains(&link["status"].to_string())
                && filter["userIdEqual"].as_str().is_none_or(|user| link["userId"] == user)
        };
        let mut links: Vec<_> = self.links.iter().filter(is_meant).collect();
        links.sort_by_key(|link| link["createdAt"].as_i64());
        if filter["orderBy"] != "+createdAt" {
            links.reverse();
        }
        let total = links.len();
        links.truncate(LISTED_MAX);
        let size = request["pager"]["pageSize"].as_u64().unwrap_or(30).min(500) as usize;
        let skipped = (request["pager"]["pageIndex"].as_u64().unwrap_or(1).max(1) as usize - 1) * size;
        let page: Vec<_> = links.into_iter().skip(skipped).take(size).collect();
        json!({ "objects": page, "totalCount": total, "objectType": "KalturaShortLinkListResponse" })
    }
}
