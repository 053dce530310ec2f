//! Three NATS servers with JetStream on loopback addresses of their own, and what can go wrong with them.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use rustix::process::{Pid, Signal, geteuid, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::clients::python_installed;
use crate::support::fixture::Process;
use crate::wrapper::unshare;

/// The version that the gate tests with; `NATS_VERSION` names another folder of `tests/nats`.
const VERSION: &str = "2.14.6";
const NUMBER: usize = 3;
const CLIENT_PORT: u16 = 4222;
const ROUTE_PORT: u16 = 6222;
pub const STREAM: &str = "TINYD_main";
/// What each server has for streams.
pub const MAX_FILE_BYTES: u64 = 8_000_000_000;
/// For an election on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(20);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// The server's program, installed where it is not yet.
pub fn program() -> PathBuf {
    let version = std::env::var("NATS_VERSION").unwrap_or_else(|_| VERSION.to_owned());
    python_installed(&format!("nats/{version}")).join("venv/bin/nats-server")
}

/// Waits for something that takes seconds, and lets others have the processor meanwhile.
pub fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(PAUSE);
    }
}

/// One account for all boxes, without keys.
const ACCOUNTS: &str = "accounts {
  SYS {
    users: [{user: sys, password: sys}]
    exports: [{service: \"$SYS.REQ.SERVER.PING.JSZ\", response_type: stream}]
  }
  TINYD {
    jetstream: enabled
    users: [{user: t, password: t}]
    imports: [{service: {account: SYS, subject: \"$SYS.REQ.SERVER.PING.JSZ\"}, to: \"tinyd.main.servers\"}]
  }
}
system_account: SYS
no_auth_user: t
";

/// Stands for the address of each server.
pub const ADDRESS: &str = "ADDRESS";
/// Stands for the folder of each server for streams.
pub const STORE: &str = "STORE";

/// What the configuration of each server has beside its names and addresses.
#[derive(Clone)]
pub struct ServerSettings {
    pub own: String,
    /// In a file of its own, which it includes.
    pub include: String,
    /// The key with which the test connects, if they want one.
    pub seed: Option<String>,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            own: String::new(),
            include: format!(
                "jetstream {{ store_dir: \"{STORE}\", sync_interval: always, max_file: {MAX_FILE_BYTES} }}\n{ACCOUNTS}"
            ),
            seed: None,
        }
    }
}

pub struct Servers {
    folder: TempDir,
    settings: ServerSettings,
    addresses: Vec<String>,
    /// Words before the command of each, which run it elsewhere.
    wrappers: Vec<Vec<String>>,
    processes: Vec<Option<Process>>,
    /// What holds the namespace with the disk of each.
    disks: Vec<Process>,
}

/// Mounts a small disk, and holds the namespace that has it.
const DISK: &str = "mount -t tmpfs -o size=64m tmpfs \"$0\" && echo mounted && exec sleep infinity";
const FILLER: &str = "filler";

/// Each test has addresses of its own, which no outgoing connection takes while a server is down.
fn addresses() -> Vec<String> {
    let (second, third) = (rand::random_range(1..=254u8), rand::random_range(0..=255u8));
    (1..=NUMBER)
        .map(|number| format!("127.{second}.{third}.{number}"))
        .collect()
}

fn urls(addresses: &[String]) -> Vec<String> {
    let url = |address: &String| format!("nats://{address}:{CLIENT_PORT}");
    addresses.iter().map(url).collect()
}

impl Servers {
    pub fn start() -> Self {
        let servers = Self::start_at(addresses(), vec![Vec::new(); NUMBER]);
        servers.wait_until_leader();
        servers
    }

    /// With the settings that the function returns for the servers' URLs.
    pub fn start_with(settings: impl FnOnce(&[String]) -> ServerSettings) -> Self {
        let addresses = addresses();
        let settings = settings(&urls(&addresses));
        let servers = Self::start_in(
            tempfile::tempdir().unwrap(),
            addresses,
            vec![Vec::new(); NUMBER],
            settings,
        );
        servers.wait_until_leader();
        servers
    }

    /// Each with a small disk of its own, which stays while it is down.
    pub fn start_on_small_disks() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (mut disks, mut wrappers) = (Vec::new(), Vec::new());
        for number in 0..NUMBER {
            let store = folder.path().join(format!("store{number}"));
            fs::create_dir(&store).unwrap();
            let wrapper = unshare(&["-m"]);
            let mut command = Command::new(wrapper[0]);
            command.args(&wrapper[1..]).args(["sh", "-c", DISK]).arg(store);
            let mut holder = Process(command.stdout(Stdio::piped()).spawn().unwrap());
            let mut line = String::new();
            let said = holder.0.stdout.take().expect("it is piped");
            BufReader::new(said).read_line(&mut line).unwrap();
            assert_eq!(line, "mounted\n");
            let words = ["nsenter", "-t", &holder.0.id().to_string()].map(str::to_owned);
            let enter: &[&str] = match geteuid().is_root() {
                true => &["-m"],
                false => &["-U", "-m", "--preserve-credentials"],
            };
            wrappers.push(
                words
                    .into_iter()
                    .chain(enter.iter().map(|word| (*word).to_owned()))
                    .collect(),
            );
            disks.push(holder);
        }
        let mut servers = Self::start_in(folder, addresses(), wrappers, ServerSettings::default());
        servers.disks = disks;
        servers.wait_until_leader();
        servers
    }

    /// The folder of a server as it sees it.
    fn disk(&self, number: usize) -> PathBuf {
        let root = format!("/proc/{}/root", self.disks[number].0.id());
        PathBuf::from(root).join(self.store(number).strip_prefix("/").unwrap())
    }

    /// Leaves no room on the disk of a server.
    pub fn fill_disk(&self, number: usize) {
        let mut filler = fs::File::create(self.disk(number).join(FILLER)).unwrap();
        while filler.write_all(&[1; 4096]).is_ok() {}
    }

    pub fn empty_disk(&self, number: usize) {
        fs::remove_file(self.disk(number).join(FILLER)).unwrap();
    }

    pub fn start_at(addresses: Vec<String>, wrappers: Vec<Vec<String>>) -> Self {
        Self::start_in(
            tempfile::tempdir().unwrap(),
            addresses,
            wrappers,
            ServerSettings::default(),
        )
    }

    fn start_in(folder: TempDir, addresses: Vec<String>, wrappers: Vec<Vec<String>>, settings: ServerSettings) -> Self {
        let mut servers = Self {
            folder,
            settings,
            processes: addresses.iter().map(|_| None).collect(),
            addresses,
            wrappers,
            disks: Vec::new(),
        };
        for number in 0..NUMBER {
            servers.configure(number);
            servers.start_one(number);
        }
        servers
    }

    /// Others with copies of what these have stored, who know nothing of them. These must be down.
    pub fn fork(&self) -> Self {
        assert!(self.processes.iter().all(Option::is_none), "a server runs");
        let folder = tempfile::tempdir().unwrap();
        for number in 0..NUMBER {
            copy(&self.store(number), &folder.path().join(format!("store{number}")));
        }
        Self::start_in(folder, addresses(), self.wrappers.clone(), self.settings.clone())
    }

    pub fn urls(&self) -> Vec<String> {
        urls(&self.addresses)
    }

    fn configure(&self, number: usize) {
        let routes: Vec<_> = self
            .addresses
            .iter()
            .map(|to| format!("nats://{to}:{ROUTE_PORT}"))
            .collect();
        let (address, store) = (&self.addresses[number], self.store(number));
        let included = format!("include{number}.conf");
        let configuration = format!(
            "server_name: n{number}\n\
             listen: {address}:{CLIENT_PORT}\n\
             cluster {{ name: c, listen: {address}:{ROUTE_PORT}, routes: [{}] }}\n\
             include \"{included}\"\n\
             {}",
            routes.join(", "),
            self.settings.own.replace(ADDRESS, address)
        );
        fs::write(self.configuration(number), configuration).unwrap();
        let include = self.settings.include.replace(STORE, store.to_str().unwrap());
        fs::write(self.folder.path().join(included), include).unwrap();
    }

    fn seed(&self) -> Option<&str> {
        self.settings.seed.as_deref()
    }

    fn configuration(&self, number: usize) -> PathBuf {
        self.folder.path().join(format!("n{number}.conf"))
    }

    fn store(&self, number: usize) -> PathBuf {
        self.folder.path().join(format!("store{number}"))
    }

    pub fn log(&self, number: usize) -> String {
        fs::read_to_string(self.folder.path().join(format!("n{number}.log"))).unwrap_or_default()
    }

    pub fn start_one(&mut self, number: usize) {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.path().join(format!("n{number}.log")))
            .unwrap();
        let program = program().to_string_lossy().into_owned();
        let words: Vec<_> = self.wrappers[number].iter().chain([&program]).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg("-c").arg(self.configuration(number));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        self.processes[number] = Some(Process(child.unwrap()));
    }

    /// A leaf node beside them, with its configuration and what that includes, which ends with what is returned.
    pub fn start_beside(&self, configuration: &str, include: &str) -> Process {
        let path = self.folder.path().join("beside.conf");
        fs::write(&path, configuration).unwrap();
        fs::write(self.folder.path().join("tinyd-leaf.conf"), include).unwrap();
        let log = fs::File::create(self.folder.path().join("beside.log")).unwrap();
        let mut command = Command::new(program());
        command
            .arg("-c")
            .arg(path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        Process(command.spawn().unwrap())
    }

    pub fn signal(&self, number: usize, signal: Signal) {
        let process = self.processes[number].as_ref().expect("it runs");
        kill_process(Pid::from_child(&process.0), signal).unwrap();
    }

    /// As by kill -9.
    pub fn kill(&mut self, number: usize) {
        drop(self.processes[number].take());
    }

    pub fn kill_all(&mut self) {
        (0..NUMBER).for_each(|number| self.kill(number));
    }

    /// Ends it as an operator does.
    pub fn terminate(&mut self, number: usize) {
        self.signal(number, Signal::TERM);
        let process = self.processes[number].as_mut().expect("it runs");
        process.0.wait().unwrap();
        self.kill(number);
    }

    /// A copy of what a server has stored; it must be down.
    pub fn store_copy(&self, number: usize) -> TempDir {
        let kept = tempfile::tempdir().unwrap();
        copy(&self.store(number), kept.path());
        kept
    }

    /// Sets a server, which must be down, back to what it had stored then.
    pub fn set_back(&self, number: usize, kept: &TempDir) {
        assert!(self.processes[number].is_none(), "the server runs");
        fs::remove_dir_all(self.store(number)).unwrap();
        copy(kept.path(), &self.store(number));
    }

    /// Removes all that a server, which must be down, has stored.
    pub fn empty(&self, number: usize) {
        assert!(self.processes[number].is_none(), "the server runs");
        fs::remove_dir_all(self.store(number)).unwrap();
    }

    /// Flips a bit in the middle of what a server, which must be down, has stored of the stream.
    pub fn flip_bit(&self, number: usize) {
        assert!(self.processes[number].is_none(), "the server runs");
        let messages = self
            .store(number)
            .join(format!("jetstream/TINYD/streams/{STREAM}/msgs"));
        let blocks = fs::read_dir(&messages).unwrap().map(|entry| entry.unwrap().path());
        let block = blocks
            .filter(|path| path.extension().is_some_and(|extension| extension == "blk"))
            .max_by_key(|path| fs::metadata(path).unwrap().len())
            .expect("a block");
        let mut bytes = fs::read(&block).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(block, bytes).unwrap();
    }

    /// The answer of the first server that gives one.
    pub fn request(&self, subject: &str, payload: &str) -> Option<Value> {
        self.send(subject, payload.as_bytes())
    }

    /// The same for any bytes.
    pub fn send(&self, subject: &str, payload: &[u8]) -> Option<Value> {
        let running = self
            .addresses
            .iter()
            .zip(&self.processes)
            .filter(|(_, process)| process.is_some());
        running
            .filter_map(|(address, _)| ask(address, self.seed(), subject, payload, true).ok())
            .find_map(|answers| answers.into_iter().next())
    }

    /// All answers that come within a while, to a server that answers.
    pub fn collect(&self, subject: &str, heard: &str) -> Vec<Value> {
        let running = self
            .addresses
            .iter()
            .zip(&self.processes)
            .filter(|(_, process)| process.is_some());
        running
            .filter_map(|(address, _)| listen(address, self.seed(), subject, heard).ok())
            .find(|answers| !answers.is_empty())
            .unwrap_or_default()
    }

    /// What one server says of the stream, from its leader as that server knows it.
    pub fn info_of(&self, number: usize) -> Option<Value> {
        let answers = ask(
            &self.addresses[number],
            self.seed(),
            &format!("$JS.API.STREAM.INFO.{STREAM}"),
            b"",
            true,
        );
        let info = answers.ok()?.into_iter().next()?;
        info["error"].is_null().then_some(info)
    }

    pub fn info(&self) -> Option<Value> {
        self.info_of_stream(STREAM)
    }

    pub fn info_of_stream(&self, stream: &str) -> Option<Value> {
        let info = self.request(&format!("$JS.API.STREAM.INFO.{stream}"), "")?;
        info["error"].is_null().then_some(info)
    }

    /// The number of the last entry of the log.
    pub fn last(&self) -> u64 {
        self.info().expect("the log")["state"]["last_seq"].as_u64().unwrap()
    }

    /// Has the log keep so many bytes only.
    pub fn limit_log(&self, bytes: u64) {
        let mut config = self.info().expect("the log")["config"].clone();
        config["max_bytes"] = bytes.into();
        let made = self.request(&format!("$JS.API.STREAM.UPDATE.{STREAM}"), &config.to_string());
        assert!(made.expect("an answer")["error"].is_null());
    }

    /// The number of the server that leads the stream.
    pub fn leader(&self) -> usize {
        let mut leader = None;
        wait("a leader of the stream", || {
            let info = self.info();
            let name = info.as_ref().and_then(|info| info["cluster"]["leader"].as_str());
            leader = name.and_then(|name| name.strip_prefix('n')?.parse().ok());
            leader.is_some()
        });
        leader.unwrap()
    }

    /// Until streams can be made.
    pub fn wait_until_leader(&self) {
        wait("JetStream", || {
            let info = self.request("$JS.API.INFO", "");
            info.is_some_and(|info| info["error"].is_null())
        });
    }

    /// Until the stream has a leader, and all replicas are up to it.
    pub fn wait_until_current(&self) {
        wait("all replicas current", || {
            self.info().is_some_and(|info| {
                let replicas = info["cluster"]["replicas"].as_array().cloned().unwrap_or_default();
                let is_current = |replica: &Value| replica["current"] == true && replica["offline"] != true;
                replicas.len() + 1 == NUMBER && replicas.iter().all(is_current)
            })
        });
    }

    pub fn delete_stream(&self) {
        let deleted = self
            .request(&format!("$JS.API.STREAM.DELETE.{STREAM}"), "")
            .expect("an answer");
        assert_eq!(deleted["success"], json!(true), "{deleted}");
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for number in 0..NUMBER {
                println!("log of server n{number}:\n{}", self.log(number));
            }
            let beside = fs::read_to_string(self.folder.path().join("beside.log"));
            println!("log of the server beside them:\n{}", beside.unwrap_or_default());
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Has the first server send to `subject` and answer to `reply`, as the box with this key.
pub fn send_with_key(servers: &Servers, seed: &str, subject: &str, reply: &str, payload: &str) -> std::io::Result<()> {
    let (mut stream, mut reader) = connect(&servers.addresses[0], Some(seed), ANSWER_TIMEOUT)?;
    let length = payload.len();
    write!(stream, "PUB {subject} {reply} {length}\r\n{payload}\r\nPING\r\n")?;
    let mut line = String::new();
    while line != "PONG\r\n" {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

/// The protocol of NATS by hand, so that the tests do not judge with what they test.
fn connect(address: &str, seed: Option<&str>, timeout: Duration) -> std::io::Result<(TcpStream, BufReader<TcpStream>)> {
    let address = format!("{address}:{CLIENT_PORT}").parse().expect("an address");
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_TIMEOUT)?;
    stream.set_read_timeout(Some(timeout))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut connect = json!({ "verbose": false });
    if let Some(seed) = seed {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let info: Value = serde_json::from_str(line.strip_prefix("INFO ").unwrap_or_default())?;
        let nonce = info["nonce"].as_str().unwrap_or_default();
        let pair = KeyPair::from_seed(seed).expect("a seed");
        connect["nkey"] = pair.public_key().into();
        let signed = pair.sign(nonce.as_bytes()).unwrap();
        connect["sig"] = BASE64_URL_SAFE_NO_PAD.encode(signed).into();
    }
    write!(stream, "CONNECT {connect}\r\n")?;
    Ok((stream, reader))
}

/// Where the test gets answers; its key, if it has one, is that of a box of this name.
const INBOX: &str = "_INBOX_test.1";
pub const TEST_NODE: &str = "test";

fn ask(address: &str, seed: Option<&str>, subject: &str, payload: &[u8], is_one: bool) -> std::io::Result<Vec<Value>> {
    exchange((address, seed), INBOX, is_one, |stream| {
        write!(stream, "PUB {subject} {INBOX} {}\r\n", payload.len())?;
        stream.write_all(&[payload, b"\r\n"].concat())
    })
}

fn listen(address: &str, seed: Option<&str>, subject: &str, heard: &str) -> std::io::Result<Vec<Value>> {
    exchange((address, seed), heard, false, |stream| {
        write!(stream, "PUB {subject} 0\r\n\r\n")
    })
}

fn exchange(
    (address, seed): (&str, Option<&str>),
    heard: &str,
    is_one: bool,
    send: impl FnOnce(&mut TcpStream) -> std::io::Result<()>,
) -> std::io::Result<Vec<Value>> {
    let timeout = if is_one { ANSWER_TIMEOUT } else { ANSWER_TIMEOUT / 4 };
    let (mut stream, mut reader) = connect(address, seed, timeout)?;
    write!(stream, "SUB {heard} 1\r\n")?;
    send(&mut stream)?;
    let (mut answers, mut line) = (Vec::new(), String::new());
    // Many boxes say something all the time.
    let started = Instant::now();
    loop {
        if started.elapsed() > ANSWER_TIMEOUT {
            return Ok(answers);
        }
        line.clear();
        match reader.read_line(&mut line) {
            Ok(0) | Err(_) => return Ok(answers),
            Ok(_) => {}
        }
        if line.starts_with("PING") {
            stream.write_all(b"PONG\r\n")?;
        }
        let Some(message) = line.strip_prefix("MSG ") else {
            continue;
        };
        let length: usize = message
            .trim()
            .rsplit(' ')
            .next()
            .and_then(|length| length.parse().ok())
            .unwrap_or(0);
        let mut payload = vec![0; length + 2];
        reader.read_exact(&mut payload)?;
        if let Ok(answer) = serde_json::from_slice(&payload[..length]) {
            answers.push(answer);
            if is_one {
                return Ok(answers);
            }
        }
    }
}
