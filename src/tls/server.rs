//! TLS of a listener while it runs: its certificates, which are read again when their files change.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::sync::watch;

use crate::metrics::{CertificateReport, Listener, TlsReport};
use crate::model::{Clock, Timestamp};
use crate::tls::proof::{ACME_PROTOCOL, Resolver};
use crate::tls::{
    Authorities, Certificate, CertificateError, Certificates, MinVersion, PairFiles, Proof, Proofs, TlsSettings,
    UtcTime, provider,
};

/// In the order of preference.
const PROTOCOLS: [&[u8]; 2] = [HTTP_2, b"http/1.1"];
const HTTP_2: &[u8] = b"h2";
/// A client that uses a ticket gets another.
const TICKETS: usize = 1;

/// How new connections are secured.
#[derive(Debug)]
pub struct Secure {
    pub(super) config: Arc<ServerConfig>,
    pub(super) handshake_timeout: Duration,
    pub certificates: Arc<Certificates>,
    /// Whether it was logged that there is no certificate.
    has_warned: Arc<AtomicBool>,
}

impl Secure {
    pub(super) fn warn_of_no_certificate(&self) {
        if !self.has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!("refusing TLS handshakes: there is no certificate yet");
        }
    }
}

/// What client and server have agreed to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

impl Protocol {
    /// By its name (ALPN); clients that name none speak HTTP/1.1. `None`: a validation by an authority, for which the
    /// handshake is all.
    pub(super) fn agreed(name: Option<&[u8]>) -> Option<Self> {
        match name {
            Some(ACME_PROTOCOL) => None,
            Some(HTTP_2) => Some(Self::Http2),
            _ => Some(Self::Http1),
        }
    }
}

#[derive(Debug)]
pub struct TlsServer {
    clock: Clock,
    tickets: Arc<dyn ProducesTickets>,
    secure: watch::Sender<Arc<Secure>>,
    state: Mutex<State>,
    /// Held while files are read, which a disk may delay. The state is not.
    reading: Mutex<Files>,
}

/// The files that were read last.
#[derive(Debug)]
struct Files {
    /// Whether they could be used or not.
    fingerprint: Vec<Option<Fingerprint>>,
    /// What was wrong with them at the last look.
    suspected: Option<String>,
}

#[derive(Debug)]
struct State {
    settings: TlsSettings,
    /// Why what the files hold now is not used.
    problem: Option<String>,
    failures: u64,
    from_files: FromFiles,
    /// The certificate that tinyd ordered itself; it stands after those of files.
    issued: Option<Arc<Certificate>>,
    proofs: Proofs,
    has_warned: Arc<AtomicBool>,
}

/// What the files of the settings hold.
#[derive(Debug, Clone, Default)]
struct FromFiles {
    certificates: Vec<(PairFiles, Arc<Certificate>)>,
    verifier: Option<Verifier>,
}

/// Verifies client certificates.
#[derive(Debug, Clone)]
struct Verifier {
    /// The file that it was made of.
    pem: Vec<u8>,
    verifier: Arc<dyn ClientCertVerifier>,
}

/// Changes whenever a file does, or another takes its place.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fingerprint {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    /// Also by a change of owner or mode, after which it may be readable.
    changed: (i64, i64),
}

impl Fingerprint {
    /// `None`: there is no file. Follows symbolic links.
    fn of(path: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt as _;
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    fn of_all(settings: &TlsSettings) -> Vec<Option<Self>> {
        let of_pairs = settings
            .certificates
            .iter()
            .flat_map(|pair| [&pair.certificate, &pair.key]);
        of_pairs.chain(&settings.client_ca).map(|path| Self::of(path)).collect()
    }
}

impl TlsServer {
    /// Reads all files.
    pub fn new(settings: &TlsSettings, clock: Clock) -> Result<Self, CertificateError> {
        let tickets = Ticketer::new().map_err(|error| refused("TLS", error))?;
        let files = Files {
            fingerprint: Fingerprint::of_all(settings),
            suspected: None,
        };
        let (from_files, problem) = FromFiles::read(settings, &FromFiles::default());
        problem.map_or(Ok(()), Err)?;
        let state = State {
            settings: settings.clone(),
            problem: None,
            failures: 0,
            from_files,
            issued: None,
            proofs: Proofs::new(),
            has_warned: Arc::default(),
        };
        let secure = secure(&state, &tickets)?;
        log(secure.certificates.all(), clock.now());
        Ok(Self {
            clock,
            tickets,
            secure: watch::Sender::new(Arc::new(secure)),
            state: Mutex::new(state),
            reading: Mutex::new(files),
        })
    }

    pub fn subscribe(&self) -> watch::Receiver<Arc<Secure>> {
        self.secure.subscribe()
    }

    /// Takes other settings, and reads all files again. Returns why they cannot be used as they are.
    pub fn reload(&self, settings: &TlsSettings) -> Option<String> {
        let mut files = self.reading.lock();
        self.state.lock().settings.clone_from(settings);
        let problem = self.read(&mut files, settings);
        self.publish(&self.state.lock());
        self.take_note(problem.clone());
        files.suspected.clone_from(&problem);
        problem
    }

    /// Reads the files again if they have changed. Blocks on the disk.
    pub fn refresh(&self) {
        let mut files = self.reading.lock();
        let settings = self.state.lock().settings.clone();
        if Fingerprint::of_all(&settings) == files.fingerprint && files.suspected.is_none() {
            return;
        }
        let problem = self.read(&mut files, &settings);
        // A pair is replaced one file after the other: a mismatch is a problem only if the next look finds it too.
        if problem.is_none() || problem == files.suspected {
            self.take_note(problem.clone());
        }
        files.suspected = problem;
    }

    /// Serves a certificate beside those of files, in place of the one before.
    pub fn serve_issued(&self, issued: Option<Arc<Certificate>>) {
        let mut state = self.state.lock();
        log(issued.as_slice(), self.clock.now());
        state.issued = issued;
        self.publish(&state);
    }

    /// Shows a proof to validations that ask for this name, or none any more.
    pub fn prove(&self, name: &str, proof: Option<Proof>) {
        let mut state = self.state.lock();
        match proof {
            Some(proof) => state.proofs.insert(name.to_owned(), proof),
            None => state.proofs.remove(name),
        };
        self.publish(&state);
    }

    fn publish(&self, state: &State) {
        match secure(state, &self.tickets) {
            Ok(secure) => {
                self.secure.send_replace(Arc::new(secure));
            }
            // The versions of TLS were right at the start.
            Err(error) => tracing::error!(%error, "cannot change how connections are secured"),
        }
    }

    /// Takes what can be used of the files, and keeps the rest as it was.
    fn read(&self, files: &mut Files, settings: &TlsSettings) -> Option<String> {
        files.fingerprint = Fingerprint::of_all(settings);
        let before = self.state.lock().from_files.clone();
        let (from_files, problem) = FromFiles::read(settings, &before);
        let is_new = |certificate: &&Arc<Certificate>| {
            let mut kept = before.certificates.iter().map(|(_, kept)| kept);
            !kept.any(|kept| Arc::ptr_eq(kept, certificate))
        };
        let read = from_files.certificates.iter().map(|(_, certificate)| certificate);
        log(&read.filter(is_new).cloned().collect::<Vec<_>>(), self.clock.now());
        if !from_files.is_same(&before) {
            let mut state = self.state.lock();
            state.from_files = from_files;
            self.publish(&state);
        }
        problem.map(|problem| problem.to_string())
    }

    /// Logs a problem once, for as long as it stays the same.
    fn take_note(&self, problem: Option<String>) {
        let mut state = self.state.lock();
        if problem == state.problem {
            return;
        }
        if let Some(problem) = &problem {
            tracing::error!("cannot use the certificates; serving those of before: {problem}");
            state.failures += 1;
        }
        state.problem = problem;
    }

    /// What is known of its certificates.
    pub fn report(&self, listener: Listener) -> TlsReport {
        let (certificates, now) = (Arc::clone(&self.secure.borrow().certificates), self.clock.now());
        let certificates = certificates.all().iter().map(|certificate| CertificateReport {
            file: certificate.source.clone(),
            names: certificate.names.clone(),
            not_before: certificate.not_before.as_unix(),
            not_after: certificate.not_after.as_unix(),
            faults: certificate.faults(now),
        });
        let state = self.state.lock();
        TlsReport {
            listener,
            problem: state.problem.clone(),
            failures: state.failures,
            certificates: certificates.collect(),
        }
    }
}

fn log(certificates: &[Arc<Certificate>], now: Timestamp) {
    for certificate in certificates {
        let (file, names) = (&certificate.source, certificate.names.join(" "));
        tracing::info!(file, names, valid_until = %UtcTime(certificate.not_after), "certificate loaded");
        for fault in certificate.faults(now) {
            tracing::warn!(file, "certificate: {fault}");
        }
    }
}

fn refused(what: impl Into<PathBuf>, error: impl ToString) -> CertificateError {
    CertificateError::Unusable {
        path: what.into(),
        reason: error.to_string(),
    }
}

impl FromFiles {
    fn is_same(&self, other: &Self) -> bool {
        let addresses = |of: &Self| {
            let certificates = of.certificates.iter().map(|(_, certificate)| Arc::as_ptr(certificate));
            let verifier = of.verifier.as_ref();
            let verifier = verifier.map(|verifier| Arc::as_ptr(&verifier.verifier).cast::<()>());
            (certificates.collect::<Vec<_>>(), verifier)
        };
        addresses(self) == addresses(other)
    }

    /// What can be used of the files, in place of the rest what there was `before`, and the first problem.
    fn read(settings: &TlsSettings, before: &Self) -> (Self, Option<CertificateError>) {
        let (mut certificates, mut problems) = (Vec::new(), Vec::new());
        for files in &settings.certificates {
            let kept = || before.certificates.iter().find(|(kept, _)| kept == files);
            match Certificate::read(files) {
                // An unchanged one stays the same, although another file was read anew.
                Ok(certificate) => match kept().filter(|(_, kept)| kept.is_same(&certificate)) {
                    Some(kept) => certificates.push(kept.clone()),
                    None => certificates.push((files.clone(), Arc::new(certificate))),
                },
                Err(error) => {
                    problems.push(error);
                    certificates.extend(kept().cloned());
                }
            }
        }
        let verifier = settings.client_ca.as_deref();
        let verifier = verifier
            .map(|path| Verifier::read(path, before.verifier.as_ref()))
            .transpose();
        let verifier = verifier.unwrap_or_else(|error| {
            problems.push(error);
            before.verifier.clone()
        });
        if certificates.is_empty() && !problems.is_empty() {
            // Other settings, of which nothing can be used.
            certificates.clone_from(&before.certificates);
        }
        let from_files = Self { certificates, verifier };
        (from_files, problems.into_iter().next())
    }
}

impl Verifier {
    /// Of the authorities in a file; the one of before if that has not changed.
    fn read(path: &Path, before: Option<&Self>) -> Result<Self, CertificateError> {
        let pem = fs::read(path).map_err(|cause| CertificateError::Unreadable {
            path: path.to_owned(),
            cause,
        })?;
        if let Some(before) = before.filter(|before| before.pem == pem) {
            return Ok(before.clone());
        }
        let authorities = Authorities::from_pem(&pem).map_err(|reason| refused(path, reason))?;
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(authorities.iter().cloned());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build();
        let verifier = verifier.map_err(|error| refused(path, error))?;
        Ok(Self { pem, verifier })
    }
}

fn secure(state: &State, tickets: &Arc<dyn ProducesTickets>) -> Result<Secure, CertificateError> {
    let State {
        settings,
        from_files,
        issued,
        proofs,
        has_warned,
        ..
    } = state;
    let of_files = from_files.certificates.iter().map(|(_, certificate)| certificate);
    let certificates = of_files.chain(issued).cloned();
    let certificates = Arc::new(Certificates::new(certificates.collect()));
    let versions: &[&SupportedProtocolVersion] = match settings.min_version {
        MinVersion::Tls12 => &[&TLS13, &TLS12],
        MinVersion::Tls13 => &[&TLS13],
    };
    let mut provider_of_server = (*provider()).clone();
    provider_of_server
        .cipher_suites
        .sort_by_key(|suite| !is_short(suite.suite()));
    let builder = ServerConfig::builder_with_provider(Arc::new(provider_of_server)).with_protocol_versions(versions);
    let builder = builder.map_err(|error| refused("TLS", error))?;
    let builder = match &from_files.verifier {
        None => builder.with_no_client_auth(),
        Some(of_clients) => builder.with_client_cert_verifier(Arc::clone(&of_clients.verifier)),
    };
    let mut config = builder.with_cert_resolver(Arc::new(Resolver {
        certificates: Arc::clone(&certificates),
        proofs: proofs.clone(),
    }));
    // What costs least comes first: no client prefers a longer key for a redirect. Clients that list 256 bits first,
    // such as curl, would take a quarter more CPU for a handshake.
    config.ignore_client_order = true;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    if !proofs.is_empty() {
        config.alpn_protocols.push(ACME_PROTOCOL.to_vec());
    }
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    // A resumed session would not have its client's certificate verified again.
    if settings.client_ca.is_none() {
        config.ticketer = Arc::clone(tickets);
        config.send_tls13_tickets = TICKETS;
    }
    Ok(Secure {
        config: Arc::new(config),
        handshake_timeout: settings.handshake_timeout,
        certificates,
        has_warned: Arc::clone(has_warned),
    })
}

/// With keys of 128 bits.
fn is_short(suite: CipherSuite) -> bool {
    suite.as_str().is_some_and(|name| name.contains("AES_128"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::PairFiles;
    use crate::tls::testing::Authority;

    fn settings(folder: &Path) -> TlsSettings {
        TlsSettings {
            listen: Vec::new(),
            certificates: vec![PairFiles {
                certificate: folder.join("cert.pem"),
                key: folder.join("key.pem"),
            }],
            min_version: MinVersion::Tls12,
            handshake_timeout: Duration::from_secs(10),
            hsts_seconds: 0,
            client_ca: None,
        }
    }

    fn names(server: &TlsServer) -> Vec<String> {
        let report = server.report(Listener::Public);
        report
            .certificates
            .into_iter()
            .flat_map(|certificate| certificate.names)
            .collect()
    }

    #[test]
    fn pair_replaced_file_by_file_is_taken_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        let link = |generation: &str| {
            // As certbot does: a link each, one after the other.
            for name in ["cert.pem", "key.pem"] {
                let path = folder.path().join(name);
                let _ = fs::remove_file(&path);
                std::os::unix::fs::symlink(folder.path().join(format!("{generation}-{name}")), path).unwrap();
                if generation == "2" && name == "cert.pem" {
                    break;
                }
            }
        };
        let root = Authority::new("root");
        for generation in ["1", "2"] {
            let (chain, key) = root.issue(&[&format!("{generation}.example")], 0, 9);
            write(&format!("{generation}-cert.pem"), &chain);
            write(&format!("{generation}-key.pem"), &key);
        }
        link("1");
        let server = TlsServer::new(&settings(folder.path()), Clock::system()).unwrap();
        assert_eq!(names(&server), ["1.example"]);
        server.refresh();
        assert_eq!(server.report(Listener::Public).failures, 0);
        link("2");
        server.refresh();
        // Perhaps somebody is at it.
        assert_eq!(server.report(Listener::Public).problem, None);
        server.refresh();
        server.refresh();
        let report = server.report(Listener::Public);
        assert_eq!((names(&server), report.failures), (vec!["1.example".to_owned()], 1));
        let problem = report.problem.unwrap();
        assert!(problem.contains("is not that of the certificate in"), "{problem}");
        let key = folder.path().join("key.pem");
        fs::remove_file(&key).unwrap();
        std::os::unix::fs::symlink(folder.path().join("2-key.pem"), key).unwrap();
        server.refresh();
        assert_eq!(
            (names(&server), server.report(Listener::Public).problem),
            (vec!["2.example".to_owned()], None)
        );
    }

    #[test]
    fn pair_that_is_broken_does_not_hold_others_back() {
        let (folder, root) = (tempfile::tempdir().unwrap(), Authority::new("root"));
        let write = |name: &str, generation: &str| {
            let (chain, key) = root.issue(&[&format!("{name}{generation}.example")], 0, 9);
            fs::write(folder.path().join(format!("{name}.pem")), chain + &key).unwrap();
        };
        let pair = |name: &str| PairFiles {
            certificate: folder.path().join(format!("{name}.pem")),
            key: folder.path().join(format!("{name}.pem")),
        };
        write("a", "1");
        write("b", "1");
        let settings = TlsSettings {
            certificates: vec![pair("a"), pair("b")],
            ..settings(folder.path())
        };
        let server = TlsServer::new(&settings, Clock::system()).unwrap();
        fs::remove_file(folder.path().join("a.pem")).unwrap();
        write("b", "2");
        server.refresh();
        assert_eq!(names(&server), ["a1.example", "b2.example"]);
        // It is looked at again and again, and nothing comes of that.
        let mut published = server.subscribe();
        published.mark_unchanged();
        server.refresh();
        server.refresh();
        assert!(!published.has_changed().unwrap());
        let problem = server.reload(&settings).unwrap();
        assert!(problem.starts_with("cannot read "), "{problem}");
        assert_eq!(server.report(Listener::Public).failures, 1);
        write("a", "2");
        server.refresh();
        assert_eq!(names(&server), ["a2.example", "b2.example"]);
        assert_eq!(server.report(Listener::Public).problem, None);
        let b_only = TlsSettings {
            certificates: vec![pair("b")],
            ..settings
        };
        assert_eq!(server.reload(&b_only), None);
        assert_eq!(names(&server), ["b2.example"]);
    }

    #[test]
    fn files_that_cannot_be_used_end_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let error = TlsServer::new(&settings(folder.path()), Clock::system())
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("cannot read ") && error.contains("cert.pem"),
            "{error}"
        );
        let (chain, key) = Authority::new("root").issue(&["a"], 0, 9);
        fs::write(folder.path().join("cert.pem"), chain).unwrap();
        fs::write(folder.path().join("key.pem"), key).unwrap();
        let with_client_ca = TlsSettings {
            client_ca: Some(folder.path().join("key.pem")),
            ..settings(folder.path())
        };
        let error = TlsServer::new(&with_client_ca, Clock::system())
            .unwrap_err()
            .to_string();
        assert!(error.contains("key.pem: holds no certificate"), "{error}");
    }
}
