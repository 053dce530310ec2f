//! A restart under load with inherited listening sockets, as systemd does it.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::support::certificates::Authority;
use crate::support::client::{self, Download};
use crate::support::connections::PACE;
use crate::support::fixture::{ADMIN_SECRET, PARTNER, Process, binary, configuration, poll, service, tinyd};
use crate::support::http::{encode, request};
use crate::support::tls::{Client, NAME, write_pair};
use crate::support::wire::Connection;

/// Starts the appliance with these sockets as descriptors 3, 4 and 5, as systemd passes them on.
fn start(folder: &Path, public: &TcpListener, admin: &TcpListener, public_tls: &TcpListener) -> Child {
    let inherited = |listener: &TcpListener| Stdio::from(OwnedFd::from(listener.try_clone().unwrap()));
    let script = "export LISTEN_PID=$$ LISTEN_FDS=3\n\
                  exec \"$0\" \"$@\" 3<&0 4<&1 5<&2 </dev/null >/dev/null 2>>\"$TEST_LOG\"";
    let mut command = service("bash");
    command
        .env("TEST_LOG", folder.join("log"))
        .args(["-c", script, binary(), "serve", "--threads", "2", "--log", "info"])
        .arg("--public")
        .arg(public.local_addr().unwrap().to_string())
        .arg("--admin")
        .arg(admin.local_addr().unwrap().to_string())
        .arg("--config")
        .arg(folder.join("tinyd.toml"))
        .arg("--data")
        .arg(folder.join("data"))
        .stdin(inherited(public))
        .stdout(inherited(admin))
        .stderr(inherited(public_tls))
        .spawn()
        .unwrap()
}

/// Connections that say nothing, or nothing more.
const IDLE: usize = 300;

/// How often the appliance has begun to drain.
fn drains(folder: &Path) -> usize {
    let log = fs::read_to_string(folder.join("log")).unwrap();
    log.matches(" draining").count()
}

/// Stops the loops of all threads, also when one fails.
struct EndOfTest<'s>(&'s AtomicBool);

impl Drop for EndOfTest<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn base(listener: &TcpListener) -> String {
    format!("http://{}", listener.local_addr().unwrap())
}

/// Sends requests on one connection after the other until stopped; each connection lives as long as the server allows.
/// Between two requests, the connection is idle for the pause.
fn ask<S: Read + Write>(
    open: impl Fn() -> Connection<S>,
    target: &str,
    pause: Duration,
    stop: &AtomicBool,
    answered: &AtomicUsize,
) {
    let mut connection: Option<Connection<S>> = None;
    let mut last = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let current = connection.get_or_insert_with(&open);
        match current.get(target, "") {
            Some(received) => {
                assert_eq!(received.status, 302, "{received:?}");
                answered.fetch_add(1, Ordering::Relaxed);
                if received.is_last() {
                    connection = None;
                }
            }
            // A client that was idle for so long must expect the connection to be closed.
            None => {
                assert!(
                    last.elapsed() > Duration::from_millis(900),
                    "a request has got no answer"
                );
                connection = None;
            }
        }
        last = Instant::now();
        // The pace of the client under test: idle connections must survive the restart too.
        std::thread::sleep(pause);
    }
}

/// Links whose export no socket has room for.
fn import_long_links(folder: &Path) {
    let destination = format!("https://example.com/{}", "x".repeat(1_000));
    let lines = (0..8_000).map(|number| {
        format!(
            "{{\"id\":\"long{number:04}\",\"systemName\":\"NAME\",\"partnerId\":{PARTNER},\
             \"fullUrl\":\"{destination}\"}}\n"
        )
    });
    let file = folder.join("long.jsonl");
    fs::write(&file, lines.collect::<String>()).unwrap();
    fs::create_dir(folder.join("data")).unwrap();
    let mut import = tinyd();
    import
        .args(["import", "--store"])
        .args([folder.join("data/links.redb"), file]);
    assert!(import.output().unwrap().status.success());
}

/// An export whose client takes the head only, for now.
fn slow_export(admin: &str, ks: &str) -> Download {
    let address: SocketAddr = admin.strip_prefix("http://").unwrap().parse().unwrap();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&address.into()).unwrap();
    let target = format!("/api_v3/service/tinyd/action/export?ks={}", encode(ks));
    let export = Download::ask(socket.into(), &client::request("GET", &target, ""));
    assert_eq!(export.status, 200);
    export
}

pub fn restart_fails_no_request() {
    let folder = tempfile::tempdir().unwrap();
    import_long_links(folder.path());
    let [public, admin, public_tls] = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let tls = public_tls.local_addr().unwrap().to_string();
    let pair = "certificates = [{ cert = \"cert.pem\", key = \"key.pem\" }]";
    // The drain ends with its requests, and not before.
    let settings = format!("drain_seconds = 3600\n[public.tls]\nlisten = \"{tls}\"\n{pair}\n");
    fs::write(folder.path().join("tinyd.toml"), configuration(&settings)).unwrap();
    let authority = Authority::new();
    write_pair(folder.path(), &authority.issue(&[NAME], |_| {}));
    let client = Client::new(&authority);
    let (public_base, admin_base) = (base(&public), base(&admin));
    let mut process = Process(start(folder.path(), &public, &admin, &public_tls));
    let form = |fields: &[(&str, &str)]| {
        let pairs = fields
            .iter()
            .map(|(name, value)| format!("{name}={}", crate::support::http::encode(value)));
        pairs.collect::<Vec<_>>().join("&")
    };
    let post = |action: &str, fields: &[(&str, &str)]| {
        let headers = [("Content-Type", "application/x-www-form-urlencoded")];
        let target = format!("/api_v3/service/{action}?format=1");
        request(&admin_base, "POST", &target, &headers, form(fields).as_bytes()).json()
    };
    let session = [("secret", ADMIN_SECRET), ("partnerId", PARTNER), ("type", "2")];
    let ks = post("session/action/start", &session).as_str().unwrap().to_owned();
    let link = [
        ("ks", ks.as_str()),
        ("shortLink[systemName]", "NAME"),
        ("shortLink[fullUrl]", "https://example.com/"),
    ];
    let add = || {
        post("shortlink_shortlink/action/add", &link)["id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let goto = format!("/api_v3/service/shortlink_shortlink/action/goto/id/{}", add());
    let general = format!("{goto}?x=y");

    let stop = AtomicBool::new(false);
    let end = || EndOfTest(&stop);
    let answered: Vec<_> = (0..11).map(|_| AtomicUsize::new(0)).collect();
    std::thread::scope(|scope| {
        for (number, count) in answered.iter().enumerate() {
            let (public, goto, general, stop, add) = (&public_base, &goto, &general, &stop, &add);
            let (client, tls) = (&client, &tls);
            let end = end();
            scope.spawn(move || {
                let _end = end;
                let open = || Connection::open(public);
                let open_secured = || client.open(tls);
                match number {
                    0..2 => ask(open, goto, PACE, stop, count),
                    2 => ask(open, goto, Duration::from_millis(20), stop, count),
                    3 => ask(open, general, Duration::from_millis(20), stop, count),
                    7 => ask(open_secured, goto, PACE, stop, count),
                    8 => ask(open_secured, goto, Duration::from_millis(20), stop, count),
                    9 => ask(open_secured, general, Duration::from_millis(20), stop, count),
                    10 => {
                        while !stop.load(Ordering::Relaxed) {
                            assert_eq!(client.get(tls, goto).status, 302);
                            count.fetch_add(1, Ordering::Relaxed);
                            std::thread::sleep(PACE);
                        }
                    }
                    // A connection for each request.
                    4 | 5 => {
                        while !stop.load(Ordering::Relaxed) {
                            assert_eq!(request(public, "GET", goto, &[], b"").status, 302);
                            count.fetch_add(1, Ordering::Relaxed);
                            std::thread::sleep(PACE);
                        }
                    }
                    _ => {
                        while !stop.load(Ordering::Relaxed) {
                            add();
                            count.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
        let _end = end();
        for restart in 0..3 {
            let before: Vec<_> = answered.iter().map(|count| count.load(Ordering::Relaxed)).collect();
            let everybody = |count: &(usize, &AtomicUsize)| count.1.load(Ordering::Relaxed) > before[count.0] + 3;
            let is_over = || stop.load(Ordering::Relaxed);
            poll("answers for everybody", || {
                answered.iter().enumerate().all(|count| everybody(&count)) || is_over()
            });
            let idle: Vec<_> = (0..IDLE).map(|_| Connection::open(&public_base)).collect();
            let export = slow_export(&admin_base, &ks);
            let id = process.0.id();
            assert!(
                Command::new("bash")
                    .args(["-c", &format!("kill -TERM {id}")])
                    .status()
                    .unwrap()
                    .success()
            );
            poll("draining", || drains(folder.path()) > restart || is_over());
            // The old process answers everybody for as long as the export lasts.
            let before: Vec<_> = answered.iter().map(|count| count.load(Ordering::Relaxed)).collect();
            let everybody = |count: &(usize, &AtomicUsize)| count.1.load(Ordering::Relaxed) > before[count.0] + 3;
            poll("answers for everybody while it drains", || {
                answered.iter().enumerate().all(|count| everybody(&count)) || is_over()
            });
            assert!(matches!(process.0.try_wait(), Ok(None)), "the export was cut off");
            assert!(export.finish().is_whole);
            assert!(process.0.wait().unwrap().success());
            drop(idle);
            process = Process(start(folder.path(), &public, &admin, &public_tls));
        }
        let before: usize = answered.iter().map(|count| count.load(Ordering::Relaxed)).sum();
        poll("answers after the last start", || {
            answered
                .iter()
                .map(|count| count.load(Ordering::Relaxed))
                .sum::<usize>()
                > before + 100
                || stop.load(Ordering::Relaxed)
        });
    });
    let log = fs::read_to_string(folder.path().join("log")).unwrap();
    assert!(
        !log.contains("cut off") && !log.contains("aborted requests") && !log.contains("ERROR"),
        "{log}"
    );
}
