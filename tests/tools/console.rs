//! The web console in Chromium, as people use it (`tests/console`).

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::clients::{npm_installed, run};
use crate::support::fixture::{ADMIN_SECRET, Appliance, PARTNER, USER_SECRET, configuration, folder};

/// A name that leads to the appliance in the browser of the test. To browsers, plain HTTP at it is not secure.
const HOST: &str = "console.example.test";
const SHORT_URL_BASE: &str = "https://go.example.org";

pub fn people_use_the_console_in_chromium() {
    let settings = format!("[public]\nurl = \"{SHORT_URL_BASE}\"\n[console]\nurl = \"http://{HOST}/console\"\n");
    let operator = format!("id = {PARTNER}\noperator = true\n");
    let settings = configuration(&settings).replacen(&format!("id = {PARTNER}\n"), &operator, 1);
    let appliance = Appliance::start_in(folder(&settings));
    let folder = npm_installed("console");
    let screenshots = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../console-screenshots");
    // Of pages that may be no more.
    let _ = fs::remove_dir_all(&screenshots);
    let mut command = Command::new("node");
    command
        // Each file has a browser of its own, which often waits.
        .args(["--test", "--test-concurrency=3", "--test-reporter=spec"])
        .current_dir(folder)
        .env("TINYD_ADMIN_URL", &appliance.admin)
        .env("TINYD_PUBLIC_URL", &appliance.public)
        .env("TINYD_SHORT_URL_BASE", SHORT_URL_BASE)
        .env("TINYD_CONSOLE_HOST", HOST)
        .env("TINYD_PARTNER_ID", PARTNER)
        .env("TINYD_ADMIN_SECRET", ADMIN_SECRET)
        .env("TINYD_USER_SECRET", USER_SECRET)
        .env("TINYD_SCREENSHOTS", screenshots);
    run(
        &mut command,
        "It needs Chromium: apt-get install chromium, or set CHROMIUM.",
    );
}
