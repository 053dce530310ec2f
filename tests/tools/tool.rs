//! Programs that tests need, how to install them, and whether they work on this machine.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use parking_lot::Mutex;

use crate::cluster;
use crate::network;
use crate::wrapper::{REMOUNT, unshare};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tool {
    Bash,
    Chromium,
    Curl,
    /// A Java that compiles what it runs, and keytool.
    Java,
    /// A mount namespace, in which a file system can be mounted and remounted.
    Mount,
    /// A NATS server, which is installed here.
    Nats,
    /// A network namespace with a mount namespace.
    Network,
    /// h2load and nghttp.
    Nghttp2,
    Nginx,
    Node,
    Openssl,
    Pebble,
    Php,
    Promtool,
    Python,
    Slowhttptest,
    Strace,
    Testssl,
}

impl Tool {
    /// Its name, and how to install it.
    pub fn need(self) -> &'static str {
        match self {
            Self::Bash => "bash: apt-get install bash",
            Self::Chromium => "Chromium: apt-get install chromium, or set CHROMIUM",
            Self::Curl => "curl: apt-get install curl",
            Self::Java => "Java 17: apt-get install openjdk-17-jdk-headless",
            Self::Mount => {
                "permission to mount: run as root or allow user namespaces; apt-get install util-linux mount"
            }
            Self::Nats => "Python 3.11 with venv, which installs nats-server: apt-get install python3-venv",
            Self::Network => {
                "network namespaces: run as root or allow user namespaces; apt-get install util-linux mount iproute2"
            }
            Self::Nghttp2 => "h2load and nghttp: apt-get install nghttp2-client",
            Self::Nginx => "nginx: apt-get install nginx-light",
            Self::Node => "Node.js 20 and npm: apt-get install nodejs npm",
            Self::Openssl => "openssl 3: apt-get install openssl",
            Self::Pebble => "pebble: apt-get install pebble",
            Self::Php => "PHP 8.2: apt-get install php-cli",
            Self::Promtool => "promtool: apt-get install prometheus",
            Self::Python => "Python 3.11 with venv: apt-get install python3-venv",
            Self::Slowhttptest => "slowhttptest: apt-get install slowhttptest",
            Self::Strace => "strace with permission to trace: apt-get install strace",
            Self::Testssl => "testssl.sh: apt-get install testssl.sh",
        }
    }

    /// Whether it works; tried once.
    pub fn works(self) -> bool {
        static TRIED: Mutex<BTreeMap<Tool, bool>> = Mutex::new(BTreeMap::new());
        *TRIED.lock().entry(self).or_insert_with(|| self.try_out())
    }

    fn try_out(self) -> bool {
        match self {
            Self::Bash => succeeds("bash", &["-c", "[[ -n $BASH_VERSION ]]"]),
            Self::Chromium => {
                // As the test starts it.
                let browser = std::env::var("CHROMIUM").unwrap_or_else(|_| "/usr/bin/chromium".to_owned());
                succeeds(
                    &browser,
                    &[
                        "--headless",
                        "--no-sandbox",
                        "--disable-gpu",
                        "--dump-dom",
                        "about:blank",
                    ],
                )
            }
            Self::Curl => succeeds("curl", &["--version"]),
            Self::Java => succeeds("java", &["--list-modules"]) && succeeds("javac", &["--version"]),
            Self::Mount => {
                let folder = tempfile::tempdir().unwrap();
                let script =
                    format!("mount -t tmpfs -o size=1m tmpfs \"$0\" && {REMOUNT},ro tmpfs \"$0\" && nsenter --version");
                let wrapper = unshare(&["-m"]);
                let args = [&wrapper[1..], &["sh", "-c", &script, folder.path().to_str().unwrap()]].concat();
                succeeds(wrapper[0], &args)
            }
            Self::Nats => Self::Python.try_out() && succeeds(&cluster::program().to_string_lossy(), &["--version"]),
            Self::Network => network::works(),
            Self::Nghttp2 => succeeds("h2load", &["--version"]) && succeeds("nghttp", &["--version"]),
            Self::Nginx => succeeds("nginx", &["-v"]),
            Self::Node => {
                succeeds(
                    "node",
                    &["-e", "process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)"],
                ) && succeeds("npm", &["--version"])
            }
            Self::Openssl => succeeds("sh", &["-c", "openssl version | grep -q '^OpenSSL 3'"]),
            // It prints its help and fails.
            Self::Pebble => command("pebble", &["-h"]).status().is_ok(),
            Self::Php => succeeds("php", &["-r", "exit((int)(PHP_VERSION_ID < 80200));"]),
            Self::Promtool => succeeds("promtool", &["--version"]),
            Self::Python => {
                let script = "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))";
                succeeds("python3", &["-c", script])
            }
            // It prints its help and fails.
            Self::Slowhttptest => command("slowhttptest", &["-h"]).status().is_ok(),
            Self::Strace => {
                let inject = "inject=getcwd:error=EIO:when=1";
                let args = [
                    "-D",
                    "-f",
                    "--seccomp-bpf",
                    "-o",
                    "/dev/null",
                    "-e",
                    "trace=getcwd",
                    "-e",
                    inject,
                ];
                succeeds("strace", &[&args[..], &["true"]].concat())
            }
            // Asked for its version, it fails.
            Self::Testssl => command("testssl", &["--version"]).status().is_ok(),
        }
    }
}

fn command(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

pub fn succeeds(program: &str, args: &[&str]) -> bool {
    command(program, args).status().is_ok_and(|status| status.success())
}
