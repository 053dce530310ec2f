//! What operators and API clients see of a box whose cluster cannot be reached.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::support::fixture::{Appliance, configuration, folder, poll, serve, tinyd};
use crate::support::scrape::Scrape;

/// As much of a NATS server as `tinyd cluster init` and `tinyd cluster join` need.
struct Nats {
    listener: TcpListener,
    /// What it says of the log; without it, there is none.
    log: Option<String>,
    /// The messages of the stream of copies.
    copies: Vec<Vec<u8>>,
    /// Requests for them that have come.
    reads: AtomicUsize,
}

impl Nats {
    fn start() -> Self {
        Self::with(None)
    }

    fn with(log: Option<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self {
            listener,
            log,
            copies: Vec::new(),
            reads: AtomicUsize::new(0),
        }
    }

    fn url(&self) -> String {
        format!("nats://{}", self.listener.local_addr().unwrap())
    }

    /// Answers the requests of one connection until it ends.
    fn serve_one(&self) {
        let mut stream = self.listener.accept().unwrap().0;
        let limits = r#""max_payload":1048576,"headers":true,"proto":1,"client_id":1"#;
        let names = r#""server_id":"n1","server_name":"n1","version":"2.12.0","go":"go1","host":"127.0.0.1","port":1"#;
        let info = format!("{{{names},{limits}}}");
        stream.write_all(format!("INFO {info}\r\n").as_bytes()).unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap());
        let (mut line, mut inboxes) = (String::new(), Vec::new());
        while lines.read_line(&mut line).is_ok_and(|read| read > 0) {
            let words: Vec<_> = line.split_ascii_whitespace().map(str::to_owned).collect();
            let words: Vec<_> = words.iter().map(String::as_str).collect();
            match words.as_slice() {
                ["PING"] => stream.write_all(b"PONG\r\n").unwrap(),
                ["SUB", subject, .., sid] => {
                    inboxes.push((subject.trim_end_matches('*').to_owned(), (*sid).to_owned()))
                }
                ["PUB", subject, rest @ ..] => {
                    let mut payload = vec![0; rest.last().unwrap().parse::<usize>().unwrap() + 2];
                    lines.read_exact(&mut payload).unwrap();
                    let config = String::from_utf8(payload).unwrap();
                    let [to, _] = rest else { continue };
                    let (_, inbox) = inboxes.iter().rev().find(|(inbox, _)| to.starts_with(inbox)).unwrap();
                    if let Some(answer) = self.answer(subject, config.trim_end()) {
                        let message = format!("MSG {to} {inbox} {}\r\n{answer}\r\n", answer.len());
                        stream.write_all(message.as_bytes()).unwrap();
                    } else if subject.starts_with("$JS.API.DIRECT.GET.") {
                        for (headers, data) in self.copies_for(config.trim_end()) {
                            let (headers, data) = (format!("NATS/1.0{headers}\r\n\r\n"), data);
                            let all = headers.len() + data.len();
                            let head = format!("HMSG {to} {inbox} {} {all}\r\n{headers}", headers.len());
                            stream.write_all(&[head.as_bytes(), data, b"\r\n"].concat()).unwrap();
                        }
                    }
                }
                _ => {}
            }
            line.clear();
        }
    }

    /// No stream is there before it is made; then as its leader describes it.
    fn answer(&self, subject: &str, config: &str) -> Option<String> {
        let none = r#"{"error":{"code":404,"err_code":10059,"description":"stream not found"}}"#;
        match subject.strip_prefix("$JS.API.STREAM.")? {
            "INFO.TINYD_main" => Some(self.log.clone().unwrap_or_else(|| none.to_owned())),
            "INFO.TINYD_main_COPY" if !self.copies.is_empty() => self.log.clone(),
            subject if subject.starts_with("INFO.") => Some(none.to_owned()),
            subject if subject.starts_with("CREATE.") => Some(info(config, 1)),
            _ => None,
        }
    }
}

impl Nats {
    /// The headers and data of the answers: the last message of the copy, or all; to the first request for all, none.
    fn copies_for(&self, request: &str) -> Vec<(String, &[u8])> {
        let message = |number: usize| (format!("\r\nNats-Sequence: {}", number + 1), &*self.copies[number]);
        let end = (" 204 EOB".to_owned(), &b""[..]);
        if request.contains("multi_last") {
            return vec![message(self.copies.len() - 1), end];
        }
        match self.reads.fetch_add(1, Ordering::Relaxed) {
            0 => Vec::new(),
            _ => (0..self.copies.len()).map(message).chain([end]).collect(),
        }
    }
}

/// The messages of a copy of the store of a new cluster, as docs/store-format.md says.
fn copy_of(store: &[u8], cluster: &str) -> Vec<Vec<u8>> {
    let chunks: Vec<_> = store.chunks(512 * 1024).chain([&b""[..]]).collect();
    let of = serde_json::json!({
        "id": "00", "at": 0, "count": chunks.len() - 1, "cluster": cluster, "epoch": 1, "sequence": 0,
        "chain": "00".repeat(32), "digest": "00".repeat(32),
    });
    let of = of.to_string();
    let message = |(number, chunk): (usize, &&[u8])| {
        let (number, length) = (u32::try_from(number).unwrap(), u16::try_from(of.len()).unwrap());
        let hashed = [&number.to_be_bytes(), &length.to_be_bytes()[..], of.as_bytes(), chunk].concat();
        let digest: [u8; 32] = Sha256::digest(&hashed).into();
        [b"TYC2", &digest[..], &hashed].concat()
    };
    chunks.iter().enumerate().map(message).collect()
}

fn info(config: &str, first: u64) -> String {
    let state = format!("{{\"first_seq\":{first},\"last_seq\":{},\"bytes\":0}}", first - 1);
    format!(r#"{{"config":{config},"state":{state},"created":"2026-01-01T00:00:00Z","cluster":null}}"#)
}

/// The log of a cluster with this id, which begins with this entry.
fn log_of(cluster: &str, first: u64) -> String {
    let config = serde_json::json!({
        "name": "TINYD_main", "storage": "file", "retention": "limits", "discard": "old", "num_replicas": 3,
        "max_bytes": 1, "max_age": 1, "metadata": {"tinyd-cluster": cluster, "tinyd-epoch": "1"},
    });
    info(&config.to_string(), first)
}

/// A box whose server is gone.
fn folder_of(node: &str, role: &str, more: &str) -> TempDir {
    let nats = Nats::start();
    let cluster = format!("data_dir = \"data\"\n{more}\n[cluster]\nservers = \"{}\"\n", nats.url());
    let cluster = format!("{cluster}node = \"{node}\"\nwrite_patience_seconds = 1\nrole = ");
    let folder = folder(&format!("{cluster}\"admin\"\n"));
    fs::create_dir(folder.path().join("data")).unwrap();
    let config = folder.path().join("tinyd.toml");
    let serving = thread::spawn(move || nats.serve_one());
    let made = tinyd()
        .args(["cluster", "init", "--config"])
        .arg(&config)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    serving.join().unwrap();
    fs::write(config, format!("{cluster}\"{role}\"\n")).unwrap();
    folder
}

fn append(folder: &TempDir, text: &str) {
    let path = folder.path().join("tinyd.toml");
    let settings = fs::read_to_string(&path).unwrap();
    fs::write(path, settings + text).unwrap();
}

#[test]
fn edge_without_partners_names_the_admin_box() {
    const ADMIN: &str = "https://admin1.example.com:8081";
    let folder = folder_of("e", "edge", "");
    append(&folder, &format!("admin_url = \"{ADMIN}\"\n"));
    let edge = Appliance::start_in(folder);
    assert!(!edge.log().contains("no [[partner]]"), "{}", edge.log());
    let expected = format!("this server is an edge of a cluster, nothing was done: use the API of {ADMIN}");
    for (service, action) in [
        ("shortlink_shortlink", "add"),
        ("shortlink_shortlink", "list"),
        ("session", "start"),
        ("user", "delete"),
        ("tinyd", "import"),
        ("tinyd", "signInLink"),
    ] {
        let refused = edge.post(service, action, &[("format", "1"), ("ks", "of an admin box")]);
        assert_eq!(refused.status, 503, "{service}.{action}");
        // An import has its format in the URL.
        assert!(refused.text().contains(&expected), "{service}.{action}: {refused:?}");
    }
    assert_eq!(edge.post("system", "ping", &[("format", "1")]).text(), "true");
    assert_eq!(edge.goto("00000000").status, 404);
    let console = edge.get_admin("/console/links");
    assert_eq!(console.status, 404);
    assert!(
        console.text().ends_with(&format!("use the console of {ADMIN}\n")),
        "{console:?}"
    );
    let link = edge.tinyd(&["link", "list"]);
    assert_eq!(link.status.code(), Some(2));
    let error = String::from_utf8(link.stderr).unwrap();
    assert!(
        error.contains("an edge of a cluster, which has no secrets of partners"),
        "{error}"
    );
    let ready = edge.get_admin("/readyz");
    assert_eq!(
        (ready.status, ready.json()["cluster"]["role"].as_str()),
        (200, Some("edge"))
    );
    let scrape = Scrape::of(&edge);
    assert_eq!(scrape.get("tinyd_cluster_role{role=\"edge\"}"), 1.0);
    assert!(!scrape.has("tinyd_cluster_boxes"));
}

#[test]
fn edge_with_partners_reads_and_refuses_writes() {
    let folder = folder_of("e", "edge", "");
    append(&folder, &configuration(""));
    let edge = Appliance::start_in(folder);
    let ks = edge.admin_ks();
    assert_eq!(edge.list(&ks, &[]).1, 0);
    let of_another = edge.post("shortlink_shortlink", "list", &[("format", "1"), ("ks", "djJ8OXw=")]);
    let counted = edge.start_session(crate::support::fixture::ADMIN_SECRET, "admin", "2", "actionslimit:5");
    let counted = edge.post("shortlink_shortlink", "list", &[("format", "1"), ("ks", &counted)]);
    let added = edge.post(
        "shortlink_shortlink",
        "add",
        &[
            ("format", "1"),
            ("ks", &ks),
            ("shortLink[fullUrl]", "https://example.com/"),
        ],
    );
    for refused in [of_another, counted, added] {
        let reason = refused.json()["args"]["REASON"].as_str().unwrap().to_owned();
        assert!(reason.ends_with("use the API of an admin box"), "{reason}");
        assert_eq!(refused.status, 503);
    }
}

#[test]
fn admin_box_says_why_it_takes_no_writes() {
    let folder = folder_of("a", "admin", "");
    append(&folder, &configuration(""));
    let alone = Appliance::start_in(folder);
    let ks = alone.admin_ks();
    let added = alone.post(
        "shortlink_shortlink",
        "add",
        &[
            ("format", "1"),
            ("ks", &ks),
            ("shortLink[systemName]", "NAME"),
            ("shortLink[fullUrl]", "https://example.com/"),
        ],
    );
    assert_eq!(added.status, 503);
    let ready = alone.get_admin("/readyz");
    let of_cluster = &ready.json()["cluster"];
    assert_eq!(
        (ready.status, of_cluster["acceptingWrites"].as_bool()),
        (200, Some(false))
    );
    assert_eq!(of_cluster["reason"], "not connected yet");
    assert_eq!(ready.json()["store"]["acceptingWrites"], true);
    let status = alone.tinyd(&["status"]);
    let screen = String::from_utf8(status.stdout).unwrap();
    assert_eq!(status.status.code(), Some(1));
    assert!(
        screen.contains("this box refuses writes: not connected yet"),
        "{screen}"
    );
    assert!(screen.contains("admin box a, at entry 0 of epoch 1"), "{screen}");
    let scrape = Scrape::of(&alone);
    assert_eq!(scrape.get("tinyd_cluster_accepting_writes"), 0.0);
    poll("silence", || {
        Scrape::of(&alone).get("tinyd_cluster_silent_seconds") > 1.0
    });
    assert_eq!(alone.goto("00000000").status, 404);
}

#[test]
fn store_and_settings_of_a_cluster_must_agree() {
    let refused = |folder: &TempDir| {
        let config = folder.path().join("tinyd.toml");
        let output = serve().arg("--config").arg(config).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let of_cluster = folder_of("a", "admin", "");
    fs::write(of_cluster.path().join("tinyd.toml"), "data_dir = \"data\"\n").unwrap();
    let error = refused(&of_cluster);
    assert!(error.contains("is of a cluster, and cluster.servers is not set") && error.contains("tinyd cluster leave"));

    let empty = folder("data_dir = \"data\"\n[cluster]\nservers = \"nats://127.0.0.1:1\"\nnode = \"b\"\n");
    let error = refused(&empty);
    assert!(
        error.contains("cluster.servers is set") && error.contains("tinyd cluster join"),
        "{error}"
    );
    // It would be in the way of the store that the box is to take.
    assert!(!empty.path().join("data/links.redb").exists());

    fs::write(empty.path().join("tinyd.toml"), "data_dir = \"data\"\n").unwrap();
    let mut alone = Appliance::start_in(empty);
    alone.terminate();
    fs::write(
        alone.config(),
        "data_dir = \"data\"\n[cluster]\nservers = \"nats://127.0.0.1:1\"\nnode = \"b\"\n",
    )
    .unwrap();
    assert!(refused(&alone.folder).contains("tinyd cluster init on the first box"));
}

#[test]
fn join_takes_what_fits_the_log_only() {
    let other = folder_of("a", "admin", "");
    let store = other.path().join("data/links.redb");
    let join = |nats: &Arc<Nats>, args: &[&str]| {
        let settings = format!(
            "data_dir = \"data\"\n[cluster]\nservers = \"{}\"\nnode = \"b\"\n",
            nats.url()
        );
        let folder = folder(&settings);
        let serving = Arc::clone(nats);
        // Until the test ends.
        thread::spawn(move || {
            loop {
                serving.serve_one();
            }
        });
        let mut command = tinyd();
        command.args(["cluster", "join"]).args(args).arg("--config");
        let joined = command.arg(folder.path().join("tinyd.toml")).output().unwrap();
        let has_joined = folder.path().join("data/links.redb").exists();
        assert_eq!(joined.status.success(), has_joined, "{joined:?}");
        joined
    };
    let refused = |log: String| {
        let joined = join(&Arc::new(Nats::with(Some(log))), &["--from", store.to_str().unwrap()]);
        assert_eq!(joined.status.code(), Some(2), "{joined:?}");
        String::from_utf8(joined.stderr).unwrap()
    };
    const CLUSTER: &str = "00112233445566778899aabbccddeeff";
    let error = refused(log_of(CLUSTER, 1));
    assert!(
        error.contains(&format!("and stream TINYD_main is of cluster {CLUSTER}")),
        "{error}"
    );
    let own = error
        .split("it is of cluster ")
        .nth(1)
        .unwrap()
        .split(',')
        .next()
        .unwrap();
    let error = refused(log_of(own, 10));
    assert!(
        error.contains("it ends with entry 0, and the log begins with entry 10: take a newer one"),
        "{error}"
    );

    let copies = copy_of(&fs::read(&store).unwrap(), own);
    let with_copies = |log: String| {
        Arc::new(Nats {
            copies: copies.clone(),
            ..Nats::with(Some(log))
        })
    };
    // It is refused before it is read.
    let nats = with_copies(log_of(CLUSTER, 1));
    let joined = join(&nats, &[]);
    let error = String::from_utf8(joined.stderr).unwrap();
    assert!(
        error.contains("the copy on the servers cannot be used: it is of cluster"),
        "{error}"
    );
    assert_eq!(nats.reads.load(Ordering::Relaxed), 0);
    // What is not answered is asked again.
    let nats = with_copies(log_of(own, 1));
    let joined = join(&nats, &[]);
    assert!(joined.status.success(), "{joined:?}");
    assert_eq!(nats.reads.load(Ordering::Relaxed), 2);
}

#[test]
fn check_says_that_servers_cannot_be_reached() {
    let text = "[cluster]\nservers = \"nats://127.0.0.1:1\"\nnode = \"a\"\n";
    let folder = folder(&configuration(text));
    let output = tinyd()
        .args(["check", "--config"])
        .arg(folder.path().join("tinyd.toml"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(6), "{output:?}");
    let (shown, error) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    assert!(
        shown.contains("cluster main: admin box a") && shown.contains("cluster.role = admin"),
        "{shown}"
    );
    assert!(error.contains("cannot connect to nats://127.0.0.1:1: "), "{error}");
    assert!(error.contains("refused"), "{error}");
}
