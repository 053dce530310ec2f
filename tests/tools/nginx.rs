//! A real nginx with two upstreams and the settings of docs/operating.md: no link and no destination makes it drop
//! one.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::support::fixture::{Process, poll};
use crate::support::origin::Origin;
use crate::support::proxy::{GOTO, Proxy, proxied};

/// Requests per target: more than there are upstreams.
const TIMES: usize = 6;

/// The first section of the documented nginx configuration that begins so, without its first and last line.
fn of_guide(begin: &str) -> String {
    let guide = include_str!("../../docs/operating.md");
    let (_, after) = guide.split_once("\nnginx:\n").unwrap();
    let lines = after.lines().skip_while(|line| line.trim() != begin).skip(1);
    let lines = lines.take_while(|line| line.trim() != "}");
    lines.map(|line| format!("{line}\n")).collect()
}

/// An nginx with the same appliance as both upstreams.
struct Nginx {
    socket: PathBuf,
    _process: Process,
    folder: TempDir,
}

impl Nginx {
    /// With these lines in its `location`.
    fn before(proxy: &Proxy, location: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temporary: String = temporary
            .iter()
            .map(|name| format!("{name}_temp_path {};\n", at(name)))
            .collect();
        let upstream = format!("server {};\n", proxy.appliance.public.strip_prefix("http://").unwrap());
        let upstreams = of_guide("upstream tinyd {").replace("        server 127.0.0.1:8080;\n", &upstream.repeat(2));
        // Without a master: a worker would outlive the end of the test.
        let configuration = format!(
            "daemon off;\nmaster_process off;\npid {};\nerror_log {};\nevents {{}}\n\
             http {{\naccess_log off;\n{temporary}\
             upstream tinyd {{\n{upstreams}}}\nserver {{\nlisten unix:{};\nlocation / {{\n{location}}}\n}}\n}}\n",
            at("pid"),
            at("error.log"),
            at("socket")
        );
        let user = if rustix::process::geteuid().is_root() {
            "user root;\n"
        } else {
            ""
        };
        fs::write(folder.path().join("nginx.conf"), format!("{user}{configuration}")).unwrap();
        let mut command = Command::new("nginx");
        command
            .args(["-c", &at("nginx.conf"), "-e", &at("error.log"), "-p"])
            .arg(folder.path());
        let process = Process(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let socket = folder.path().join("socket");
        poll("nginx serves", || UnixStream::connect(&socket).is_ok());
        Self {
            socket,
            _process: process,
            folder,
        }
    }

    /// The status, and the whole response.
    fn get(&self, target: &str) -> (u16, String) {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let request = format!("GET {target} HTTP/1.1\r\nHost: tinyd\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        (answer[9..12].parse().unwrap(), answer)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("error.log")).unwrap()
    }
}

/// Links with the longest location and the longest head, and one whose upstream breaks off.
struct Longest {
    proxy: Proxy,
    _origin: Origin,
    plain: String,
    location: String,
    head: String,
    broken: String,
}

fn longest() -> Longest {
    let origin = Origin::start(|conversation| {
        if conversation.path() == "/head" {
            let (one, other) = ("a".repeat(3_800), "b".repeat(3_900));
            conversation.answer(&format!("ETag: \"{one}\"\r\nContent-Language: {other}\r\n"), "ok");
        } else {
            conversation.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1FFFFFFFFFFFFFFFF\r\nabc");
        }
    });
    let proxy = Proxy::to(&[&origin]);
    Longest {
        plain: format!("{GOTO}{}", proxy.link("https://example.com/")),
        location: format!(
            "{GOTO}{}",
            proxy.link(&format!("https://example.com/{}", "ü".repeat(1_362)))
        ),
        head: proxied(&proxy.link(&origin.url("/head"))),
        broken: proxied(&proxy.link(&origin.url("/broken"))),
        proxy,
        _origin: origin,
    }
}

pub fn documented_nginx_settings_keep_both_upstreams() {
    let links = longest();
    let nginx = Nginx::before(&links.proxy, &of_guide("location / {"));
    for (target, status, part) in [
        (&links.location, 302, "\r\nLocation: https://example.com/%C3%BC"),
        (&links.head, 200, "\r\nContent-Language: bbb"),
        (&links.broken, 502, "error-DESTINATION_UNREACHABLE"),
    ] {
        for _ in 0..TIMES {
            let (answered, answer) = nginx.get(target);
            assert_eq!(answered, status, "{target}: {answer} {}", nginx.log());
            assert!(
                answer.to_lowercase().contains(&part.to_lowercase()),
                "{target}: {answer}"
            );
        }
        assert_eq!(nginx.get(&links.plain).0, 302, "after {target}: {}", nginx.log());
    }
    assert!(!nginx.log().contains("upstream"), "{}", nginx.log());
}

/// Negative control of the test above.
pub fn nginx_without_the_settings_drops_both_upstreams() {
    let links = longest();
    let guide = of_guide("location / {");
    let without: String = guide.lines().filter(|line| !line.contains("_buffer")).collect();
    assert_ne!(guide.replace('\n', ""), without);
    for target in [&links.location, &links.head] {
        let nginx = Nginx::before(&links.proxy, &without);
        assert_eq!(nginx.get(&links.plain).0, 302);
        for _ in 0..TIMES {
            assert_eq!(nginx.get(target).0, 502, "{target}");
        }
        assert_eq!(nginx.get(&links.plain).0, 502, "after {target}");
    }
}
