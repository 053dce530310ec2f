//! A service manager like systemd: the socket for notifications.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use super::fixture::{Appliance, serve};

/// Timeout for a message, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// The manager's end of the socket.
pub struct Manager {
    socket: UnixDatagram,
    folder: TempDir,
}

impl Manager {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, folder }
    }

    /// Starts an appliance that notifies this manager, with more environment variables.
    pub fn start(&self, folder: TempDir, environment: &[(&str, &str)]) -> Appliance {
        let mut command = serve();
        command
            .env("NOTIFY_SOCKET", self.address())
            .envs(environment.iter().copied());
        Appliance::start_by(command, folder)
    }

    pub fn address(&self) -> PathBuf {
        self.folder.path().join("notify")
    }

    /// The lines of the next message.
    pub fn hear(&self) -> Vec<String> {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).expect("a message");
        let text = std::str::from_utf8(&buffer[..length]).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// The messages up to the one with this line.
    pub fn hear_until(&self, line: &str) -> Vec<Vec<String>> {
        let mut heard = Vec::new();
        loop {
            let message = self.hear();
            let is_it = message.iter().any(|one| one == line);
            heard.push(message);
            if is_it {
                return heard;
            }
        }
    }
}
