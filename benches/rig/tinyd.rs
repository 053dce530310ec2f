//! tinyd, as an operator runs it: the binary, a configuration, a data folder.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::rig::http;
use crate::rig::links::PARTNER;
use crate::rig::machine::{self, Place};
use crate::rig::process::Running;
use crate::rig::tls::certificate::Certificate;

/// How long loading may take.
const READY_TIMEOUT: Duration = Duration::from_secs(300);
/// How long connections may take to end whose clients have gone.
const LEAVING_TIMEOUT: Duration = Duration::from_secs(60);
/// With which administrators of the links of the benchmarks sign in.
pub(crate) const ADMIN_SECRET: &str = "secret-of-the-benchmarks-0123456789";
const BINARY: &str = env!("CARGO_BIN_EXE_tinyd");

/// A load generator is one client with few connections, which are to stay.
const UNLIMITED: &str = "max_requests_per_connection = 0\nlifetime_seconds = 86400\n";

/// How to start it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup<'s> {
    /// The program.
    pub(crate) binary: &'s str,
    /// The folder that `links.redb` is in, or will be.
    pub(crate) data: &'s Path,
    /// Where the configuration and the log go.
    pub(crate) scratch: &'s Path,
    pub(crate) place: Place,
    pub(crate) threads: usize,
    pub(crate) tiny: &'s str,
    pub(crate) log: &'s str,
    /// More settings of the public listener, as they stand in its section.
    pub(crate) public: &'s str,
    /// More sections.
    pub(crate) more: &'s str,
    /// The certificate with which it listens for TLS too.
    pub(crate) certificate: Option<&'s Certificate>,
    /// The file that valgrind writes the number of instructions to; without one, it is not run under valgrind.
    pub(crate) counted_in: Option<&'s Path>,
}

impl<'s> Setup<'s> {
    /// On the server's core, with the defaults.
    pub(crate) fn new(data: &'s Path, scratch: &'s Path) -> Self {
        Self {
            binary: BINARY,
            data,
            scratch,
            place: Place::Server,
            threads: machine::server_threads(),
            tiny: "hop",
            log: "info",
            public: "",
            more: "",
            certificate: None,
            counted_in: None,
        }
    }
}

/// An appliance that is running.
#[derive(Debug)]
pub(crate) struct Tinyd {
    pub(crate) public: SocketAddr,
    /// Where it listens for TLS.
    pub(crate) secure: Option<SocketAddr>,
    pub(crate) admin: SocketAddr,
    pub(crate) process: Running,
    config: PathBuf,
    log: PathBuf,
}

impl Tinyd {
    /// Starts it and waits until all links are in memory.
    pub(crate) fn start(setup: Setup<'_>) -> Result<Self> {
        let mut tinyd = Self::exec(setup)?;
        let admin = tinyd.admin;
        tinyd
            .process
            .wait_until(READY_TIMEOUT, || Ok(http::get(admin, "/readyz")?.status == 200))?;
        Ok(tinyd)
    }

    /// Starts it and waits only until it has said where it listens.
    pub(crate) fn exec(setup: Setup<'_>) -> Result<Self> {
        let config = setup.scratch.join("tinyd.toml");
        let tls = setup
            .certificate
            .map_or_else(String::new, |Certificate { cert, key, .. }| {
                format!(
                    "[public.tls]\nlisten = \"127.0.0.1:0\"\ncertificates = [{{ cert = {cert:?}, key = {key:?} }}]\n"
                )
            });
        let settings = format!(
            "[public]\n{UNLIMITED}max_guesses_per_minute = 0\n{}\n{tls}[admin]\n{UNLIMITED}{}\
             [[partner]]\nid = {PARTNER}\nadmin_secret = \"{ADMIN_SECRET}\"\n",
            setup.public, setup.more
        );
        fs::write(&config, settings).with_context(|| format!("writing {}", config.display()))?;
        // Else a warning would be the first line of every log.
        fs::set_permissions(&config, fs::Permissions::from_mode(0o600))?;
        let log = setup.scratch.join(format!("tinyd-{}-{}.log", setup.tiny, setup.log));
        let mut command = match setup.counted_in {
            None => setup.place.command(setup.binary),
            Some(file) => {
                let mut valgrind = setup.place.command("valgrind");
                valgrind
                    .args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"])
                    .arg(format!("--log-file={}", file.display()))
                    .arg(setup.binary);
                valgrind
            }
        };
        command
            .args(["serve", "--threads", &setup.threads.to_string()])
            .args(["--public", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .args(["--tiny", setup.tiny, "--log", setup.log])
            .arg("--config")
            .arg(&config)
            .arg("--data")
            .arg(setup.data)
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?);
        let mut process = Running::start("tinyd", &mut command)?;
        let output = process.child().stdout.take().context("tinyd's standard output")?;
        let (mut public, mut secure, mut admin) = (None, None, None);
        for line in BufReader::new(output).lines() {
            let line = line?;
            for (listener, address) in [
                ("public http://", &mut public),
                ("public https://", &mut secure),
                ("admin http://", &mut admin),
            ] {
                if let Some(said) = line.strip_prefix(listener) {
                    *address = Some(said.parse().with_context(|| format!("tinyd says {line:?}"))?);
                }
            }
            let (Some(public), Some(admin)) = (public, admin) else {
                continue;
            };
            if secure.is_some() || setup.certificate.is_none() {
                return Ok(Self {
                    public,
                    secure,
                    admin,
                    process,
                    config,
                    log,
                });
            }
        }
        let said = fs::read_to_string(&log).unwrap_or_default();
        bail!("tinyd ended before it listened:\n{said}");
    }

    /// Waits until the store has been verified, as it is after each start.
    pub(crate) fn wait_until_verified(&mut self) -> Result<()> {
        let log = &self.log;
        self.process.wait_until(
            READY_TIMEOUT,
            || Ok(fs::read_to_string(log)?.contains("store verified")),
        )
    }

    /// Waits until the journal is made, as it is a second after each start.
    pub(crate) fn wait_until_journal(&mut self, data: &Path) -> Result<()> {
        let journal = data.join("links.redb.journal");
        self.process.wait_until(READY_TIMEOUT, || Ok(journal.exists()))
    }

    /// Waits until the public listener has no connection any more.
    pub(crate) fn wait_until_nobody_is_connected(&mut self) -> Result<()> {
        let admin = self.admin;
        let open = "tinyd_connections_open{listener=\"public\"}";
        self.process
            .wait_until(LEAVING_TIMEOUT, || Ok(metric(admin, open)? == 0.0))
    }

    /// Where its configuration is, which has the secret of an administrator.
    pub(crate) fn config(&self) -> &Path {
        &self.config
    }

    /// A session that may do everything to the links of the benchmarks.
    pub(crate) fn session(&self) -> Result<String> {
        let config = self.config.to_string_lossy();
        let ks = run(&["ks", "--type", "admin", "--user", "benchmark", "--config", &config])?;
        Ok(ks.trim().to_owned())
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Where it logs.
    pub(crate) fn log_file(&self) -> PathBuf {
        self.log.clone()
    }
}

/// A value of /metrics, by its name and labels.
pub(crate) fn metric(admin: SocketAddr, name: &str) -> Result<f64> {
    let text = String::from_utf8(http::get(admin, "/metrics")?.body)?;
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok();
    text.lines()
        .find_map(value)
        .with_context(|| format!("/metrics has no {name}"))
}

/// Runs a command of tinyd to its end and returns what it printed.
pub(crate) fn run(args: &[&str]) -> Result<String> {
    run_at(Place::Anywhere, args)
}

/// The same somewhere.
pub(crate) fn run_at(place: Place, args: &[&str]) -> Result<String> {
    let mut command: Command = place.command(BINARY);
    let output = command.args(args).output().context("running tinyd")?;
    if !output.status.success() {
        bail!(
            "tinyd {} failed: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
