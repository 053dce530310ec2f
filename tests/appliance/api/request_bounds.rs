//! Limits on the time and memory that requests can use.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::fixture::{ADMIN_SECRET, Appliance, PARTNER, code, configuration, folder, poll, serve};
use crate::support::http::{Answer, request};
use crate::support::scrape::refusals;
use crate::support::wire::Connection;

const MULTIREQUEST: &str = "/api_v3/service/multirequest";
const FORM: [(&str, &str); 1] = [("Content-Type", "application/x-www-form-urlencoded")];
const JSON: [(&str, &str); 1] = [("Content-Type", "application/json")];

fn multirequest(appliance: &Appliance, body: &Value) -> Answer {
    request(
        &appliance.admin,
        "POST",
        MULTIREQUEST,
        &JSON,
        body.to_string().as_bytes(),
    )
}

/// A value of `/proc/PID/status`, in bytes.
fn memory(appliance: &Appliance, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", appliance.process_id())).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Starts with links on pages of 500, each link at least a kilobyte.
fn start_with_links(settings: &str, links: usize) -> (Appliance, String) {
    let mut command = serve();
    // Memory is then what is in use: by default glibc keeps much of what is freed, the more the busier the machine is.
    command.env("MALLOC_MMAP_THRESHOLD_", "131072");
    let appliance = Appliance::start_by(command, folder(&configuration(settings)));
    let ks = appliance.admin_ks();
    for _ in 0..links / 100 {
        let mut body = json!({ "format": 1, "ks": ks });
        for number in 1..=100 {
            body[number.to_string()] = json!({
                "service": "shortlink_shortlink", "action": "add",
                "shortLink": { "systemName": "NAME", "fullUrl": format!("https://example.com/{}", "'".repeat(2_000)) },
            });
        }
        let results = multirequest(&appliance, &body).json();
        assert!(results.as_array().unwrap().iter().all(|link| code(link).is_empty()));
    }
    (appliance, ks)
}

#[test]
fn nested_braces_cost_little_cpu() {
    let appliance = Appliance::start();
    let calls: String = (0..200)
        .map(|n| format!("{n}:service=system&{n}:action=ping&"))
        .collect();
    for braces in ["{", "{1:result", "{1:result:", "%7b"] {
        for name in ["clientTag", "ks", "partnerId", "0:x", "callback"] {
            let text = braces.repeat(900_000 / braces.len());
            let body = format!("{calls}format=1&{name}={text}");
            let answer = request(&appliance.admin, "POST", MULTIREQUEST, &FORM, body.as_bytes());
            assert!(matches!(answer.status, 200 | 413), "{braces} {name}: {answer:?}");
        }
    }
    let target = format!("{MULTIREQUEST}?format=1&{calls}clientTag={}", "%7B".repeat(1_000));
    let answer = request(&appliance.admin, "GET", &target, &[], b"");
    assert_eq!(answer.json()[199], json!(true));
}

#[test]
fn references_are_resolved_for_valid_sessions_only() {
    let appliance = Appliance::start();
    let start = json!({
        "service": "session", "action": "start", "secret": ADMIN_SECRET, "type": 2, "partnerId": PARTNER,
    });
    let get = |ks: &str| json!({ "service": "shortlink_shortlink", "action": "get", "ks": ks, "id": "{9:result}" });
    let body = json!({ "format": 1, "0": start, "1": get("none"), "2": get("{1:result}"), "3": get("{2:result}") });
    let results = multirequest(&appliance, &body).json();
    let codes: Vec<_> = results.as_array().unwrap().iter().map(code).collect();
    // The error is the invalid session, not the reference beside it.
    assert_eq!(codes, ["", "INVALID_KS", "INVALID_PARAMETER_VALUE", "INVALID_KS"]);
    // session.start needs no session and may refer to earlier results.
    let mut again = start;
    again["userId"] = json!("{1:result}");
    let body = json!({ "format": 1, "0": { "service": "system", "action": "ping" }, "1": again });
    assert!(multirequest(&appliance, &body).json()[1].is_string());
}

#[test]
fn error_echoes_at_most_256_bytes() {
    let appliance = Appliance::start();
    for (service, action, name) in [
        ("session", "start", "partnerId"),
        ("shortlink_shortlink", "get", "id"),
        ("shortlink_shortlink", "goto", "id"),
        ("shortlink_shortlink", "get", "format"),
        ("shortlink_shortlink", "get", "ks"),
        ("shortlink_shortlink", "get", "shortLink[a"),
        ("", "x", "service"),
        ("system", "", "action"),
    ] {
        let long = "'".repeat(900_000);
        let ks = appliance.admin_ks();
        let params = [
            ("secret", "x"),
            ("service", service),
            ("action", action),
            (name, &long),
            ("ks", &ks),
        ];
        let answer = appliance.post(service, action, &params);
        assert!(
            answer.body.len() < 6_000,
            "{service} {action} {name}: {} bytes",
            answer.body.len()
        );
    }
}

#[test]
fn large_responses_stay_within_the_memory_budget() {
    const BUDGET: u64 = 64 * 1024 * 1024;
    // Beside the budget: the store's pages, threads and connections, and a list a core while it is written. Without a
    // budget, 40 responses take 1.3 GB.
    const SLACK: u64 = 32 * 1024 * 1024;
    const LIST: u64 = 16 * 1024 * 1024;
    let lists = std::thread::available_parallelism().unwrap().get().max(2) as u64;
    let (appliance, ks) = start_with_links(&format!("[admin]\nmax_buffered_bytes = {BUDGET}\n"), 500);
    let mut body = json!({ "format": 2, "ks": ks });
    for number in 1..=200 {
        let pager = json!({ "pageSize": 500 });
        body[number.to_string()] = json!({ "service": "shortlink_shortlink", "action": "list", "pager": pager });
    }
    let body = body.to_string();
    let head = format!(
        "POST {MULTIREQUEST} HTTP/1.1\r\nHost: tinyd\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let before = memory(&appliance, "VmRSS");
    // The clients do not read their responses.
    let mut clients: Vec<_> = (0..40).map(|_| Connection::open(&appliance.admin)).collect();
    for client in &mut clients {
        client.send(head.as_bytes());
        client.send(body.as_bytes());
    }
    poll("something is refused", || {
        refusals(&appliance, "admin", "buffered_bytes") > 0
    });
    poll("all have answers", || {
        clients
            .iter()
            .all(|client| client.stream.peek(&mut [0; 1]).is_ok_and(|read| read == 1))
    });
    let grown = memory(&appliance, "VmHWM") - before;
    assert!(grown < BUDGET + SLACK + lists * LIST, "{grown} bytes");
    // Small requests are served, and the memory is freed.
    assert_eq!(appliance.get_admin("/readyz").status, 200);
    drop(clients);
    poll("a page", || {
        let page = appliance.post(
            "shortlink_shortlink",
            "list",
            &[("format", "1"), ("ks", &ks), ("pager[pageSize]", "500")],
        );
        page.status == 200
    });
}

#[test]
fn write_is_answered_while_reads_are_rejected() {
    const BUDGET: u64 = 64 * 1024 * 1024;
    let (appliance, ks) = start_with_links(&format!("[admin]\nmax_buffered_bytes = {BUDGET}\n"), 500);
    // One request whose results together exceed the budget: each call has its own response.
    let mut body = json!({ "format": 2, "ks": ks });
    for number in 1..=100 {
        body[number.to_string()] = json!({
            "service": "shortlink_shortlink", "action": "list", "pager": { "pageSize": 500 },
        });
    }
    let answer = multirequest(&appliance, &body);
    let text = answer.text();
    assert!(text.len() < 40 * 1024 * 1024, "{} bytes", text.len());
    assert_eq!(
        text.matches("<item><objectType>KalturaShortLinkListResponse").count() + text.matches("<item><error>").count(),
        100
    );
    assert_eq!(appliance.add(&ks, &[]).len(), 8);
}

/// Enough links of one user that a list without a matching index is slow.
const MANY: usize = 40_000;

fn start_with_many_links() -> (Appliance, String) {
    let appliance = Appliance::start();
    let file = appliance.folder.path().join("links.jsonl");
    let lines = (0..MANY).map(|number| {
        format!(
            "{{\"id\":\"a{number:07}\",\"systemName\":\"NAME\",\"fullUrl\":\"https://example.com/{number}\",\
             \"userId\":\"me\",\"status\":2}}\n"
        )
    });
    fs::write(&file, lines.collect::<String>()).unwrap();
    let output = appliance.tinyd(&["import", file.to_str().unwrap(), "--partner", PARTNER]);
    assert!(output.status.success(), "{output:?}");
    let ks = appliance.admin_ks();
    (appliance, ks)
}

/// A list without a matching index.
fn long_list(ks: &str) -> Vec<(&str, &str)> {
    vec![
        ("format", "1"),
        ("ks", ks),
        ("filter[userIdIn]", "me,you"),
        ("filter[systemNameIn]", "NAME,OTHER"),
        ("filter[orderBy]", "+updatedAt"),
    ]
}

/// A multirequest of such lists, as sent.
fn many_long_lists(ks: &str) -> String {
    let mut body = json!({ "format": 1, "ks": ks });
    for number in 1..=200 {
        body[number.to_string()] = json!({
            "service": "shortlink_shortlink", "action": "list",
            "filter": { "userIdIn": "me,you", "systemNameIn": "NAME,OTHER", "orderBy": "+updatedAt" },
        });
    }
    let body = body.to_string();
    let length = body.len();
    format!(
        "POST {MULTIREQUEST} HTTP/1.1\r\nHost: tinyd\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
}

/// Lists that were answered or cancelled so far.
fn lists_ended(appliance: &Appliance) -> usize {
    appliance.log().matches("action=\"list\"").count()
}

#[test]
fn long_list_ends_when_its_client_disconnects() {
    let (appliance, ks) = start_with_many_links();
    let mut clients: Vec<_> = (0..10).map(|_| Connection::open(&appliance.admin)).collect();
    for client in &mut clients {
        client.send(many_long_lists(&ks).as_bytes());
    }
    poll("a list has ended", || lists_ended(&appliance) > 0);
    drop(clients);
    let own = || {
        let answer = appliance.post("shortlink_shortlink", "list", &long_list(&ks));
        assert_eq!(answer.json()["totalCount"], MANY);
    };
    (0..5).for_each(|_| own());
    // One list per client may have run, and some more before all clients had sent theirs.
    let ended = lists_ended(&appliance);
    assert!(ended < 35, "{ended} lists");
}

#[test]
fn long_lists_do_not_delay_other_calls() {
    let (appliance, ks) = start_with_many_links();
    let id = appliance.add(&ks, &[]);
    let mut clients: Vec<_> = (0..30).map(|_| Connection::open(&appliance.admin)).collect();
    for client in &mut clients {
        client.send(many_long_lists(&ks).as_bytes());
    }
    poll("a list has ended", || lists_ended(&appliance) > 0);
    let before = lists_ended(&appliance);
    // A get, a fast list of the same partner, a slow list and a write of another partner: none waits for all lists.
    assert_eq!(appliance.link("get", &ks, &[("id", &id)])["id"], id.as_str());
    assert_eq!(appliance.list(&ks, &[("filter[idEqual]", &id)]).1, 1);
    let other = appliance.other_partners_ks();
    assert_eq!(appliance.add(&other, &[("shortLink[systemName]", "NAME")]).len(), 8);
    let answer = appliance.post("shortlink_shortlink", "list", &long_list(&other));
    assert_eq!(answer.json()["totalCount"], 0);
    let meanwhile = lists_ended(&appliance) - before;
    assert!(meanwhile < 20, "{meanwhile} lists of the others ended meanwhile");
    drop(clients);
}

#[test]
fn redirect_threads_have_the_highest_priority() {
    let (appliance, ks) = start_with_many_links();
    let mut client = Connection::open(&appliance.admin);
    client.send(many_long_lists(&ks).as_bytes());
    let threads = || {
        let tasks = fs::read_dir(format!("/proc/{}/task", appliance.process_id())).unwrap();
        let stats = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("stat")).ok());
        let of_thread = |stat: String| {
            let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
            let nice: i32 = rest.split_whitespace().nth(16)?.parse().unwrap();
            Some((name.to_owned(), nice))
        };
        stats.filter_map(of_thread).collect::<Vec<_>>()
    };
    let expected = [
        ("tinyd", 19),
        ("tinyd-public-0", 0),
        ("tinyd-async-0", 0),
        ("tinyd-general", 10),
        ("tinyd-api", 19),
        ("tinyd-writer", 19),
        ("tinyd-scan", 19),
    ];
    // A thread lowers its own priority once it runs.
    poll("each thread has its priority", || {
        let threads = threads();
        let is_there = |(name, _): &(&str, i32)| threads.iter().any(|thread| thread.0 == *name);
        let is_right = |(name, nice): &(String, i32)| {
            let known = expected.iter().find(|known| known.0 == name);
            known.map_or(redirects(name) && *nice == 0, |known| known.1 == *nice)
        };
        expected.iter().all(is_there) && threads.iter().all(is_right)
    });
    // Before Linux 6.12 there are none.
    poll("redirect threads have the shortest time slices", || {
        let tasks = fs::read_dir(format!("/proc/{}/task", appliance.process_id())).unwrap();
        let slices = tasks.filter_map(|task| time_slice(&task.unwrap().path()));
        let (of_redirects, of_others): (Vec<_>, Vec<_>) = slices.partition(|(redirects, _)| *redirects);
        let longest = of_redirects.iter().max();
        longest.is_none_or(|(_, longest)| of_others.iter().all(|(_, slice)| slice > longest))
    });
}

fn redirects(thread: &str) -> bool {
    thread.starts_with("tinyd-public-") || thread.starts_with("tinyd-async-")
}

/// Whether a thread redirects, and its time slice in nanoseconds; none where it has ended, or the kernel does not tell.
fn time_slice(task: &Path) -> Option<(bool, u64)> {
    let name = fs::read_to_string(task.join("comm")).ok()?;
    let text = fs::read_to_string(task.join("sched")).ok()?;
    let slice = text.lines().find_map(|line| line.strip_prefix("se.slice"))?;
    Some((
        redirects(&name),
        slice.trim_start().strip_prefix(':')?.trim().parse().ok()?,
    ))
}
