//! Three NATS servers on loopback addresses, as `docs/cluster.md` configures them, without TLS.

use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Result, bail};
use rustix::process::Signal;

use crate::rig::machine::{self, Place};
use crate::rig::process::Running;

pub(crate) const INSTALL: &str = "pip install --require-hashes --no-deps -r tests/nats/2.14.6/requirements.txt";
const NUMBER: usize = 3;
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// The servers of a cluster.
#[derive(Debug)]
pub(crate) struct Nats {
    pub(crate) urls: Vec<String>,
    pub(crate) processes: Vec<Running>,
}

impl Nats {
    pub(crate) fn start(scratch: &Path) -> Result<Self> {
        let Some(program) = machine::find("nats-server") else {
            bail!("nats-server is not installed, and nothing can be measured without it: {INSTALL}");
        };
        let third = rand::random_range(1..255_u8);
        let address = |number: usize| format!("127.77.{third}.{number}");
        let routes: Vec<_> = (1..=NUMBER).map(|to| format!("nats://{}:6222", address(to))).collect();
        let mut processes = Vec::new();
        for number in 1..=NUMBER {
            let (own, store) = (address(number), scratch.join(format!("nats{number}")));
            let configuration = format!(
                "server_name: n{number}\n\
                 listen: \"{own}:4222\"\n\
                 jetstream {{ store_dir: {store:?}, sync_interval: always, max_file: 8GB }}\n\
                 cluster {{ name: c, listen: \"{own}:6222\", routes: [{}] }}\n\
                 accounts {{\n\
                 SYS {{ users: [{{user: sys, password: sys}}],\n\
                 exports: [{{service: \"$SYS.REQ.SERVER.PING.JSZ\", response_type: stream}}] }}\n\
                 TINYD {{ jetstream: enabled, users: [{{user: t, password: t}}], imports: [{{\n\
                 service: {{account: SYS, subject: \"$SYS.REQ.SERVER.PING.JSZ\"}}, to: \"tinyd.main.servers\"}}] }}\n\
                 }}\n\
                 system_account: SYS\n\
                 no_auth_user: t\n",
                routes.join(", ")
            );
            let file = scratch.join(format!("nats{number}.conf"));
            fs::write(&file, configuration)?;
            let mut command = Place::Anywhere.command(&program);
            command.arg("-c").arg(&file).stdout(Stdio::null());
            command.stderr(File::create(scratch.join(format!("nats{number}.log")))?);
            processes.push(Running::start("nats-server", &mut command)?.ended_by(Signal::TERM));
        }
        let urls = (1..=NUMBER).map(|number| format!("nats://{}:4222", address(number)));
        let mut nats = Self {
            urls: urls.collect(),
            processes,
        };
        for (number, process) in nats.processes.iter_mut().enumerate() {
            let log = scratch.join(format!("nats{}.log", number + 1));
            process.wait_until(START_TIMEOUT, || {
                Ok(fs::read_to_string(&log)?.contains(" metadata leader"))
            })?;
        }
        Ok(nats)
    }
}
