//! nginx, HAProxy, Caddy and the floor, with the same links as tinyd, each on the server's core.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::rig::http::{self, GOTO};
use crate::rig::links;
use crate::rig::machine::{self, Place};
use crate::rig::process::Running;
use crate::rig::report::say;
use crate::rig::tls::certificate::Certificate;
use crate::rig::tls::client::Client;

/// How long it may take until all links are read.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A server that redirects.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    pub(crate) process: Running,
}

/// Starts nginx, with a certificate for TLS only; `None` if it is not installed.
pub(crate) fn nginx(scratch: &Path, count: u64, certificate: Option<&Certificate>) -> Result<Option<Proxy>> {
    let Some(program) = machine::find("nginx") else {
        return Ok(None);
    };
    let folder = scratch.join("nginx");
    std::fs::create_dir_all(&folder)?;
    let address = free_address()?;
    let map = folder.join("links.map");
    links::write(&map, |file| {
        for number in 0..count {
            writeln!(
                file,
                "\"{GOTO}{}\" \"{}\";",
                links::id(number),
                links::destination(number)
            )?;
        }
        Ok(())
    })?;
    let (home, map, threads) = (folder.display(), map.display(), machine::server_threads());
    let (options, secure) = certificate.map_or_else(Default::default, |Certificate { cert, key, .. }| {
        let (cert, key) = (cert.display(), key.display());
        (
            "ssl http2 ",
            format!(
                "ssl_certificate {cert}; ssl_certificate_key {key}; ssl_protocols TLSv1.2 TLSv1.3;\n\
                 ssl_session_tickets on;\n"
            ),
        )
    });
    // The least that nginx has to do: no header is added, no unknown id looked for. The hash is as large as it wants
    // it.
    let config = format!(
        "daemon off;\nworker_processes {threads};\npid {home}/pid;\nerror_log {home}/error.log;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n\
           access_log off;\n\
           client_body_temp_path {home}/body; proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/fastcgi;\n\
           uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;\n\
           keepalive_requests 1000000000; keepalive_timeout 300s;\n\
           map_hash_max_size 4194304; map_hash_bucket_size 256;\n\
           map $uri $destination {{ include {map}; }}\n\
           server {{\n\
             listen {address} {options}backlog=4096;\n\
             {secure}\
             return 302 $destination;\n\
           }}\n\
         }}\n"
    );
    let file = folder.join("nginx.conf");
    std::fs::write(&file, config)?;
    let mut command = Place::Server.command(program);
    command
        .arg("-p")
        .arg(&folder)
        .arg("-c")
        .arg(&file)
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    started("nginx", &mut command, address, certificate).with_context(|| {
        format!(
            "nginx: {}",
            std::fs::read_to_string(folder.join("error.log")).unwrap_or_default()
        )
    })
}

/// Starts HAProxy, with a certificate for TLS only; `None` if it is not installed.
pub(crate) fn haproxy(scratch: &Path, count: u64, certificate: Option<&Certificate>) -> Result<Option<Proxy>> {
    let Some(program) = machine::find("haproxy") else {
        return Ok(None);
    };
    let folder = scratch.join("haproxy");
    std::fs::create_dir_all(&folder)?;
    let address = free_address()?;
    let map = folder.join("links.map");
    links::write(&map, |file| {
        for number in 0..count {
            writeln!(file, "{GOTO}{} {}", links::id(number), links::destination(number))?;
        }
        Ok(())
    })?;
    let (map, threads) = (map.display(), machine::server_threads());
    let options = certificate.map_or_else(String::new, |certificate| {
        format!("ssl crt {} alpn h2,http/1.1 ", certificate.both.display())
    });
    let config = format!(
        "global\n  nbthread {threads}\n  maxconn 4096\n\
         defaults\n  mode http\n  timeout client 300s\n  timeout server 300s\n  timeout connect 5s\n  \
         timeout http-keep-alive 300s\n\
         frontend redirects\n  bind {address} {options}backlog 4096\n  \
         http-request redirect location %[path,map_str({map})] code 302\n"
    );
    let file = folder.join("haproxy.cfg");
    std::fs::write(&file, config)?;
    let mut command = Place::Server.command(program);
    command
        .arg("-db")
        .arg("-f")
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    started("HAProxy", &mut command, address, certificate)
}

/// Starts Caddy for TLS; `None` if it is not installed. It searches its maps from the first entry to the last, which
/// with many links would be all that is measured, so it makes a destination of the same length from the id.
pub(crate) fn caddy(scratch: &Path, certificate: &Certificate) -> Result<Option<Proxy>> {
    let Some(program) = machine::find("caddy") else {
        return Ok(None);
    };
    let folder = scratch.join("caddy");
    std::fs::create_dir_all(&folder)?;
    let address = free_address()?;
    let (cert, key) = (certificate.cert.display(), certificate.key.display());
    let token = links::destination(0).rsplit('=').next().map_or(0, str::len);
    let token = "0".repeat(token);
    let config = format!(
        "{{\n  admin off\n  auto_https off\n  servers {{\n    protocols h1 h2\n  }}\n}}\n\
         https://:{} {{\n  bind 127.0.0.1\n  tls {cert} {key}\n  \
         @goto path_regexp goto ^{GOTO}([0-9a-z]+)$\n  \
         redir @goto https://video.example.com/watch/{{re.goto.1}}?token={token} 302\n}}\n",
        address.port()
    );
    let file = folder.join("Caddyfile");
    std::fs::write(&file, config)?;
    let mut command = Place::Server.command(program);
    command
        .args(["run", "--adapter", "caddyfile", "--config"])
        .arg(&file)
        // It keeps things there.
        .env("HOME", &folder)
        .env_remove("XDG_CONFIG_HOME")
        .env_remove("XDG_DATA_HOME")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    started("Caddy", &mut command, address, Some(certificate))
}

/// Starts the floor, which is this program with another subcommand. It has one thread, wherever it is.
pub(crate) fn floor(scratch: &Path, count: u64) -> Result<Proxy> {
    let map = scratch.join("floor.map");
    links::write(&map, |file| {
        for number in 0..count {
            writeln!(file, "{} {}", links::id(number), links::destination(number))?;
        }
        Ok(())
    })?;
    let mut command = Place::Server.command(std::env::current_exe()?);
    command.arg("floor").arg(&map).stdout(Stdio::piped());
    let mut process = Running::start("the floor", &mut command)?;
    let output = process.child().stdout.take().context("the floor's standard output")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    let address = line
        .trim()
        .parse()
        .with_context(|| format!("the floor says {line:?}"))?;
    Ok(Proxy { address, process })
}

/// The same, favoured over a tinyd that has something to do as threads that redirect are there.
pub(crate) fn floor_beside(scratch: &Path, count: u64) -> Result<Proxy> {
    let floor = floor(scratch, count)?;
    if let Err(error) = machine::favour_session(floor.process.id()) {
        say(&format!("the floor is not favoured: {error:#}"));
    }
    Ok(floor)
}

fn started(
    name: &str,
    command: &mut std::process::Command,
    address: SocketAddr,
    certificate: Option<&Certificate>,
) -> Result<Option<Proxy>> {
    let client = certificate.map(Client::new).transpose()?;
    let mut process = Running::start(name, command)?;
    let target = format!("{GOTO}{}", links::id(0));
    process.wait_until(START_TIMEOUT, || {
        let answer = match &client {
            Some(client) => client.get(address, &target),
            None => http::get(address, &target),
        };
        Ok(answer?.status == 302)
    })?;
    Ok(Some(Proxy { address, process }))
}

/// A port for servers that cannot say which one the system gave them. Somebody else may take it in between; then the
/// server does not start.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
