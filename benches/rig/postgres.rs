//! PostgreSQL with a table of links: what a durable insert costs in a database that is known for not losing any.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Signal, geteuid};
use tempfile::TempDir;

use crate::rig::machine::Place;
use crate::rig::process::Running;
use crate::rig::report::say;

/// How to have it.
pub(crate) const INSTALL: &str = "apt-get install postgresql-15";

const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How many clients can be connected in a second on a machine that is busy.
const CONNECTED_A_SECOND: u32 = 64;
/// Debian's, one folder a version.
const VERSIONS: &str = "/usr/lib/postgresql";
/// The user whom it runs as if we are root, which it refuses to be.
const USER: &str = "postgres";

/// The columns of a link, and the indexes that tinyd keeps.
const TABLE: &str = "\
CREATE TABLE links (
    id text PRIMARY KEY,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    expires_at bigint,
    partner_id bigint NOT NULL,
    user_id text,
    name text,
    system_name text NOT NULL,
    full_url text NOT NULL,
    unique_id text,
    status smallint NOT NULL
);
CREATE INDEX by_created ON links (partner_id, status, created_at, id);
CREATE INDEX by_updated ON links (partner_id, status, updated_at, id);
CREATE INDEX by_expires ON links (partner_id, status, expires_at, id);
CREATE INDEX by_user ON links (partner_id, user_id, status, created_at, id) WHERE user_id IS NOT NULL;
CREATE INDEX by_system_name ON links (partner_id, system_name, status, created_at, id);
CREATE INDEX by_unique_id ON links (partner_id, unique_id, status, created_at, id) WHERE unique_id IS NOT NULL;
";

/// One add. As in tinyd, the id and the times are the server's.
const ADD: &str = "\
\\set r random(0, 4503599627370495)
\\set a random(0, 4611686018427387903)
\\set b random(0, 4611686018427387903)
\\set c random(0, 4611686018427387903)
INSERT INTO links (id, created_at, updated_at, expires_at, partner_id, user_id, name, system_name, full_url,
    unique_id, status)
VALUES (lpad(to_hex(:r::bigint), 13, '0'), extract(epoch FROM now())::bigint, extract(epoch FROM now())::bigint, NULL,
    1234567, 'benchmark', NULL, 'BENCH-' || :r::bigint,
    rpad('https://video.example.com/watch/' || to_hex(:r::bigint) || '?token=' || to_hex(:a::bigint) || to_hex(:b::bigint)
        || to_hex(:c::bigint), 120, to_hex(:a::bigint)), NULL, 2);
";

/// A server with an empty table.
#[derive(Debug)]
pub(crate) struct Postgres {
    process: Running,
    binaries: PathBuf,
    user: Option<(u32, u32)>,
    /// Where its socket is; the path of one has hardly 100 bytes.
    socket: TempDir,
    folder: PathBuf,
}

/// What pgbench said.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) adds_a_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

impl Postgres {
    /// Makes a cluster in the folder and starts it; `None` if PostgreSQL is not installed.
    pub(crate) fn start(scratch: &Path, clients: u32) -> Result<Option<Self>> {
        let Some(binaries) = binaries() else { return Ok(None) };
        let user = if geteuid().is_root() {
            Some(unprivileged_user()?)
        } else {
            None
        };
        let (folder, socket) = (
            scratch.join("postgres"),
            tempfile::Builder::new().prefix("tinyd-bench-").tempdir()?,
        );
        crate::rig::interrupt::remove_on_interrupt(socket.path());
        fs::create_dir_all(&folder)?;
        if let Some((user, group)) = user {
            chown(&folder, Some(user), Some(group))?;
            chown(socket.path(), Some(user), Some(group))?;
        }
        let data = folder.join("data");
        let mut initdb = command(&binaries.join("initdb"), user, &folder);
        initdb
            .args([
                "--username",
                USER,
                "--auth",
                "trust",
                "--encoding",
                "UTF8",
                "--locale",
                "C",
                "-D",
            ])
            .arg(&data);
        finished(&mut initdb)?;
        let mut server = command(&binaries.join("postgres"), user, &folder);
        server.arg("-D").arg(&data).arg("-k").arg(socket.path());
        // One connection more than there are clients, which by default may be 100.
        let connections = format!("max_connections={}", clients + 10);
        for setting in ["listen_addresses=", "fsync=on", "synchronous_commit=on", &connections] {
            server.args(["-c", setting]);
        }
        server
            .stdout(Stdio::null())
            .stderr(fs::File::create(scratch.join("postgres.log"))?);
        // Smart shutdown would wait for clients, fast does not.
        let process = Running::start("PostgreSQL", &mut server)?.ended_by(Signal::INT);
        let mut postgres = Self {
            process,
            binaries,
            user,
            socket,
            folder,
        };
        postgres.wait_until_ready()?;
        postgres.sql(TABLE)?;
        fs::write(postgres.folder.join("add.sql"), ADD)?;
        say(&postgres.sql("SELECT version()")?);
        Ok(Some(postgres))
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let (binaries, user, folder) = (self.binaries.clone(), self.user, self.folder.clone());
        let socket = self.socket.path().to_owned();
        self.process.wait_until(START_TIMEOUT, || {
            let mut ready = command(&binaries.join("pg_isready"), user, &folder);
            Ok(ready.arg("-h").arg(&socket).stdout(Stdio::null()).status()?.success())
        })
    }

    fn client(&self, program: &str) -> Command {
        let mut client = command(&self.binaries.join(program), self.user, &self.folder);
        client.arg("-h").arg(self.socket.path()).args(["-U", USER]);
        client
    }

    fn sql(&self, text: &str) -> Result<String> {
        Ok(
            finished(self.client("psql").args(["-q", "-A", "-t", "-c", text, "postgres"]))?
                .trim()
                .to_owned(),
        )
    }

    /// Inserts as fast as so many clients can, and sees that all were stored.
    pub(crate) fn add(&self, clients: u32, seconds: u64) -> Result<Run> {
        let before = self.count()?;
        // pgbench counts the time that connecting takes as part of the run, though not when it divides by it.
        let seconds = (seconds + 1 + u64::from(clients / CONNECTED_A_SECOND)).to_string();
        let log = self.folder.join(format!("log-{clients}"));
        let mut pgbench = self.client("pgbench");
        pgbench
            .args([
                "-n",
                "-M",
                "prepared",
                "-j",
                "1",
                "-c",
                &clients.to_string(),
                "-T",
                &seconds,
                "-l",
            ])
            .arg(format!("--log-prefix={}", log.display()))
            .arg("-f")
            .arg(self.folder.join("add.sql"))
            .arg("postgres");
        let text = finished(&mut pgbench)?;
        let find = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.split_whitespace().next())
        };
        let tps: f64 = find("tps = ")
            .and_then(|tps| tps.parse().ok())
            .with_context(|| format!("pgbench says no tps:\n{text}"))?;
        let processed: u64 = find("number of transactions actually processed: ")
            .and_then(|count| count.split('/').next()?.parse().ok())
            .with_context(|| format!("pgbench says not how many:\n{text}"))?;
        let stored = self.count()? - before;
        if stored != processed {
            bail!("PostgreSQL acknowledged {processed} inserts and stored {stored}");
        }
        let (p50_ms, p99_ms) = self.latencies(&log, clients, processed as f64 / tps)?;
        Ok(Run {
            adds_a_second: tps,
            p50_ms,
            p99_ms,
        })
    }

    fn count(&self) -> Result<u64> {
        self.sql("SELECT count(*) FROM links")?.parse().context("counting rows")
    }

    /// The middle and the 99th percentile of a log of pgbench, in milliseconds, and removes it.
    fn latencies(&self, prefix: &Path, clients: u32, seconds: f64) -> Result<(f64, f64)> {
        let name = prefix
            .file_name()
            .and_then(OsStr::to_str)
            .unwrap_or_default()
            .to_owned()
            + ".";
        let mut microseconds = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if !path
                .file_name()
                .is_some_and(|file| file.to_string_lossy().starts_with(&name))
            {
                continue;
            }
            let text = fs::read_to_string(&path)?;
            let latencies = text
                .lines()
                .filter_map(|line| line.split(' ').nth(2)?.parse::<f64>().ok());
            microseconds.extend(latencies);
            fs::remove_file(path)?;
        }
        as_wrk_corrects(&mut microseconds, f64::from(clients) * seconds * 1e6);
        microseconds.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let position = (microseconds.len() as f64 * share) as usize;
            microseconds.get(position).map_or(f64::NAN, |latency| latency / 1e3)
        };
        Ok((at(0.5), at(0.99)))
    }
}

/// Adds what a client would have waited that went on asking at its mean pace during a long wait, as wrk does; `busy` is
/// how long all clients were at it together.
fn as_wrk_corrects(microseconds: &mut Vec<f64>, busy: f64) {
    let interval = busy / microseconds.len() as f64;
    let missed = |latency: &f64| {
        let later = std::iter::successors(Some(*latency - interval), move |left| Some(left - interval));
        later.take_while(move |left| *left > interval)
    };
    let missed: Vec<_> = microseconds.iter().flat_map(missed).collect();
    microseconds.extend(missed);
}

/// The folder of the newest version's programs.
fn binaries() -> Option<PathBuf> {
    let versions = fs::read_dir(VERSIONS).ok()?.flatten();
    let found = versions.filter(|version| version.path().join("bin/pgbench").is_file());
    let newest = found.max_by_key(|version| version.file_name().to_string_lossy().parse::<u32>().unwrap_or(0))?;
    Some(newest.path().join("bin"))
}

fn unprivileged_user() -> Result<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd")?;
    let fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let mut ids = fields.filter_map(|fields| match fields.as_slice() {
        [USER, _, user, group, ..] => Some((user.parse().ok()?, group.parse().ok()?)),
        _ => None,
    });
    ids.next()
        .with_context(|| format!("PostgreSQL does not run as root, and there is no user {USER}"))
}

fn command(program: &Path, user: Option<(u32, u32)>, folder: &Path) -> Command {
    let mut command = Place::Anywhere.command(program);
    command.current_dir(folder).env("LC_ALL", "C");
    if let Some((user, group)) = user {
        command.uid(user).gid(group);
    }
    command
}

fn finished(command: &mut Command) -> Result<String> {
    let name = command.get_program().display().to_string();
    let output = command.output().with_context(|| format!("running {name}"))?;
    if !output.status.success() {
        bail!("{name} failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
