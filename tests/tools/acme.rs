//! Certificates of a real authority, Debian's pebble. It knows neither renewal information nor profiles;
//! tests/appliance/tls/acme.rs has a double for these.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::Signal;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tempfile::TempDir;

use crate::revocation;
use crate::support::acme::{self, served};
use crate::support::certificates::Authority;
use crate::support::fixture::{Appliance, Process, configuration, folder, poll, serve};
use crate::support::name_server::{NameServer, at};
use crate::support::origin::Server;
use crate::support::scrape::Scrape;
use crate::support::tls::Client;

const NAME: &str = "go.example.org";

/// No pauses, and no nonce rejected at random.
const QUICK: &[(&str, &str)] = &[("PEBBLE_VA_NOSLEEP", "1"), ("PEBBLE_WFE_NONCEREJECT", "0")];

/// A relay to an address that is known later: pebble must know where it validates before the appliance starts.
struct Relay {
    server: Server,
    to: Arc<Mutex<Option<String>>>,
}

impl Relay {
    fn start() -> Self {
        let to: Arc<Mutex<Option<String>>> = Arc::default();
        let known = Arc::clone(&to);
        let relay = move |client: TcpStream| {
            poll("the appliance's address", || known.lock().is_some());
            let Ok(server) = TcpStream::connect(known.lock().clone().unwrap()) else {
                return;
            };
            let (from, into) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            let back = std::thread::spawn(move || copy(from, into));
            copy(client, server);
            let _ = back.join();
        };
        Self {
            server: Server::start("127.0.0.1:0", relay),
            to,
        }
    }

    fn lead_to(&self, address: &str) {
        *self.to.lock() = Some(address.trim_start_matches("http://").to_owned());
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

/// The authority, its name server, and the way to the appliance.
struct Pebble {
    process: Mutex<Option<Process>>,
    folder: TempDir,
    /// Of its own HTTPS.
    authority: Authority,
    names: NameServer,
    http: Relay,
    tls: Relay,
    address: String,
    management: String,
    variables: &'static [(&'static str, &'static str)],
}

impl Pebble {
    fn start() -> Self {
        let pebble = Self::prepared(QUICK);
        pebble.run();
        pebble
    }

    fn prepared(variables: &'static [(&'static str, &'static str)]) -> Self {
        let (folder, authority, names) = (tempfile::tempdir().unwrap(), Authority::new(), NameServer::start());
        let (chain, key) = authority.issue(&["127.0.0.1"], |_| {});
        fs::write(folder.path().join("cert.pem"), chain).unwrap();
        fs::write(folder.path().join("key.pem"), key).unwrap();
        names.says(NAME, at(&["127.0.0.1"]));
        Self {
            process: Mutex::default(),
            folder,
            authority,
            names,
            http: Relay::start(),
            tls: Relay::start(),
            address: free_address(),
            management: free_address(),
            variables,
        }
    }

    /// Starts it, with new roots and without the accounts of before.
    fn run(&self) {
        let path = |name: &str| self.folder.path().join(name);
        let settings = json!({ "pebble": {
            "listenAddress": self.address,
            "managementListenAddress": self.management,
            "certificate": path("cert.pem"),
            "privateKey": path("key.pem"),
            "httpPort": self.http.server.address.port(),
            "tlsPort": self.tls.server.address.port(),
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
            "domainBlocklist": ["blocked.example.org"],
            "certificateValidityPeriod": 518_400,
        }});
        fs::write(path("pebble.json"), settings.to_string()).unwrap();
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path("log"))
            .unwrap();
        let mut command = Command::new("pebble");
        command
            .arg("-config")
            .arg(path("pebble.json"))
            .arg("-dnsserver")
            .arg(self.names.address.to_string());
        command.envs(self.variables.iter().copied());
        let process = command
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        *self.process.lock() = Some(Process(process));
        poll("pebble listens", || TcpStream::connect(&self.management).is_ok());
    }

    fn end(&self) {
        *self.process.lock() = None;
    }

    fn settings(&self, more: &str) -> String {
        format!(
            "[public.tls]\nlisten = \"127.0.0.1:0\"\n[acme]\ndirectory = \"https://{}/dir\"\n{}{more}\n",
            self.address,
            self.authority.setting()
        )
    }

    fn appliance(&self, more: &str) -> Appliance {
        self.appliance_in(folder(&configuration(&self.settings(more))))
    }

    fn appliance_in(&self, folder: TempDir) -> Appliance {
        let appliance = Appliance::spawn_by(serve(), folder);
        self.lead_to(&appliance);
        appliance
    }

    fn lead_to(&self, appliance: &Appliance) {
        self.http.lead_to(&appliance.public);
        self.tls.lead_to(&appliance.public_tls);
    }

    fn management(&self, target: &str) -> String {
        revocation::ask(&self.authority, &self.management, "GET", target, "").1
    }

    /// A client that trusts the root of what it issues.
    fn client(&self) -> Client {
        let mut roots = RootCertStore::empty();
        let root = self.management("/roots/0");
        roots
            .add(CertificateDer::from_pem_slice(root.as_bytes()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        Client {
            config: builder.unwrap().with_root_certificates(roots).with_no_client_auth(),
            name: NAME.to_owned(),
        }
    }
}

fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string()
}

fn orders(appliance: &Appliance) -> [f64; 2] {
    let scrape = Scrape::of(appliance);
    ["issued", "failed"].map(|result| scrape.get(&format!("tinyd_acme_orders_total{{result=\"{result}\"}}")))
}

fn stored(appliance: &Appliance) -> PathBuf {
    appliance.folder.path().join("data/acme/certificate.pem")
}

fn assert_private(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(
        fs::metadata(path).unwrap().permissions().mode() & 0o777,
        0o600,
        "{path:?}"
    );
}

fn assert_serves(appliance: &Appliance, client: &Client) {
    let answer = client.get(&appliance.public_tls, "/robots.txt");
    assert_eq!(answer.status, 200, "{answer:?}");
}

pub fn pebble_issues_by_http_01_and_the_certificate_is_kept() {
    let pebble = Pebble::start();
    let mut appliance = pebble.appliance(&format!("domains = \"{NAME}\"\nemail = \"admin@example.org\"\n"));
    appliance.wait_for_log("certificate issued");
    assert_serves(&appliance, &pebble.client());
    assert_eq!(orders(&appliance), [1.0, 0.0]);
    let folder = stored(&appliance).parent().unwrap().to_owned();
    for file in fs::read_dir(folder).unwrap() {
        assert_private(&file.unwrap().path());
    }
    let before = served(&appliance.public_tls, NAME);
    // Whatever becomes of the authority.
    pebble.end();
    appliance.terminate();
    appliance.restart();
    assert_eq!(served(&appliance.public_tls, NAME), before);
    assert_eq!(orders(&appliance), [0.0, 0.0]);
    let checked = appliance.tinyd(&[
        "check",
        "--data",
        appliance.folder.path().join("data").to_str().unwrap(),
    ]);
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(
        said.contains(&format!("ACME: a certificate for {NAME} from https://")),
        "{said}"
    );
    assert!(said.contains("certificate of acme: "), "{said}");
}

pub fn pebble_issues_by_tls_alpn_01() {
    let pebble = Pebble::start();
    let appliance = pebble.appliance(&format!(
        "domains = [\"{NAME}\", \"two.example.org\"]\nchallenge = \"tls-alpn-01\"\n"
    ));
    pebble.names.says("two.example.org", at(&["127.0.0.1"]));
    appliance.wait_for_log("certificate issued");
    assert_serves(&appliance, &pebble.client());
    // The protocol of validations is gone with the challenge.
    assert!(acme::proof(&appliance.public_tls, NAME).is_err());
}

/// By default, it rejects one nonce of twenty, and waits before it validates.
pub fn pebble_as_it_is_by_default_issues() {
    let pebble = Pebble::prepared(&[]);
    pebble.run();
    let names: Vec<_> = (0..3).map(|number| format!("n{number}.example.org")).collect();
    for name in &names {
        pebble.names.says(name, at(&["127.0.0.1"]));
    }
    let appliance = pebble.appliance(&format!("domains = {names:?}\n"));
    poll("an order", || orders(&appliance).iter().sum::<f64>() > 0.0);
    assert_eq!(orders(&appliance), [1.0, 0.0]);
}

pub fn pebble_renews_a_certificate_that_is_due() {
    let pebble = Pebble::start();
    let folder = folder(&configuration(&pebble.settings(&format!("domains = \"{NAME}\"\n"))));
    // Of another issuer, and past two thirds of its life.
    let due = acme::store(&folder, &format!("https://{}/dir", pebble.address), NAME, -80, 20);
    let appliance = pebble.appliance_in(folder);
    appliance.wait_for_log("certificate issued");
    assert_ne!(served(&appliance.public_tls, NAME), due);
    assert_serves(&appliance, &pebble.client());
    assert_eq!(orders(&appliance), [1.0, 0.0]);
    let log = appliance.log();
    assert!(log.contains("ordering a certificate"), "{log}");
}

pub fn pebble_refuses_and_the_old_certificate_stays() {
    let pebble = Pebble::start();
    for (domains, reason) in [
        // It leads elsewhere.
        ("[\"wrong.example.org\"]", "wrong.example.org was not validated"),
        ("[\"blocked.example.org\"]", "(rejectedIdentifier)"),
    ] {
        pebble.names.says("wrong.example.org", at(&["127.0.0.9"]));
        let folder = folder(&configuration(&pebble.settings(&format!("domains = {domains}\n"))));
        let before = acme::store(
            &folder,
            &format!("https://{}/dir", pebble.address),
            "old.example.org",
            -10,
            90,
        );
        let appliance = pebble.appliance_in(folder);
        appliance.wait_for_log("order failed");
        let log = appliance.log();
        let line = log.lines().find(|line| line.contains("order failed")).unwrap();
        assert!(line.contains(reason), "{line}");
        assert_eq!(served(&appliance.public_tls, NAME), before);
        assert_eq!(orders(&appliance), [0.0, 1.0]);
        assert_eq!(appliance.get_public("/robots.txt").status, 200);
    }
}

pub fn pebble_is_down_at_first_and_issues_later() {
    let pebble = Pebble::prepared(QUICK);
    let appliance = pebble.appliance(&format!("domains = \"{NAME}\"\n"));
    appliance.wait_for_log("order failed");
    assert_eq!(appliance.get_public("/robots.txt").status, 200);
    assert!(acme::handshake(&appliance.public_tls, NAME).is_err());
    appliance.wait_for_log("refusing TLS handshakes: there is no certificate yet");
    pebble.run();
    // Other settings are tried at once: no need to sit the pause out.
    let settings = pebble.settings(&format!("domains = \"{NAME}\"\nemail = \"admin@example.org\"\n"));
    fs::write(appliance.config(), configuration(&settings)).unwrap();
    appliance.signal(Signal::HUP);
    appliance.wait_for_log("certificate issued");
    assert_serves(&appliance, &pebble.client());
    assert_eq!(orders(&appliance), [1.0, 1.0]);
}

pub fn pebble_forgets_the_account_and_another_is_made() {
    let pebble = Pebble::start();
    let mut appliance = pebble.appliance(&format!("domains = \"{NAME}\"\n"));
    appliance.wait_for_log("certificate issued");
    let first = pebble.client();
    assert_serves(&appliance, &first);
    // It comes back with other roots, as another authority would, and knows nobody.
    pebble.end();
    pebble.run();
    appliance.terminate();
    fs::remove_file(stored(&appliance)).unwrap();
    appliance.restart();
    pebble.lead_to(&appliance);
    appliance.wait_for_log("the account cannot be used; making another");
    poll("an order", || orders(&appliance) == [1.0, 0.0]);
    assert_serves(&appliance, &pebble.client());
    let mut stream = first.connect(&appliance.public_tls);
    assert!(stream.write_all(b"x").and_then(|()| stream.read(&mut [0; 1])).is_err());
}

pub fn pebble_revokes_and_the_operator_orders_another() {
    let pebble = Pebble::start();
    let mut appliance = pebble.appliance(&format!("domains = \"{NAME}\"\n"));
    appliance.wait_for_log("certificate issued");
    let revoked = served(&appliance.public_tls, NAME);
    revocation::revoke(&pebble.authority, &pebble.address, &stored(&appliance));
    let status = pebble.management(&format!("/cert-status-by-serial/{}", revocation::serial(&revoked)));
    assert!(status.contains("\"Revoked\""), "{status}");
    // It has no renewal information, so only the operator knows.
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(served(&appliance.public_tls, NAME), revoked);
    appliance.terminate();
    fs::remove_file(stored(&appliance)).unwrap();
    appliance.restart();
    pebble.lead_to(&appliance);
    poll("another certificate", || orders(&appliance) == [1.0, 0.0]);
    assert_ne!(served(&appliance.public_tls, NAME), revoked);
    assert_serves(&appliance, &pebble.client());
}
