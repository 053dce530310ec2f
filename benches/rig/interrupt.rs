//! Ctrl-C: ends the processes that were started and removes the folders that were made, which guards cannot do then.

use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

/// What shells expect of a program that was interrupted.
const EXIT_CODE: i32 = 130;

static FOLDERS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
static PROCESSES: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

pub(crate) fn remove_on_interrupt(folder: &Path) {
    FOLDERS.lock().push(folder.to_owned());
}

pub(crate) fn end_on_interrupt(process: Pid) {
    PROCESSES.lock().push(process);
}

/// It has ended; the number may soon be another process's.
pub(crate) fn has_ended(process: Pid) {
    PROCESSES.lock().retain(|&other| other != process);
}

/// Waits for signals from now on, in a thread of its own.
pub(crate) fn watch() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            let Ok((mut interrupt, mut terminate)) =
                signal(SignalKind::interrupt()).and_then(|interrupt| Ok((interrupt, signal(SignalKind::terminate())?)))
            else {
                return;
            };
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            for &process in PROCESSES.lock().iter() {
                // It may have ended by the same Ctrl-C.
                let _ = kill_process(process, Signal::INT);
            }
            for folder in FOLDERS.lock().iter() {
                let _ = std::fs::remove_dir_all(folder);
            }
            std::process::exit(EXIT_CODE);
        });
    });
    Ok(())
}
