//! The web console in Chromium, as people use it (`tests/console`).

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::clients::{npm_installed, run};
use crate::support::fixture::{ADMIN_SECRET, Appliance, PARTNER, USER_SECRET, configuration, folder};

/// A name that leads to the appliance in the browser of the test. To browsers, plain HTTP at it is not secure.
const HOST: &str = "console.example.test";
const SHORT_URL_BASE: &str = "https://go.example.org";
const ORGANISATION: &str = "Universität Ω & Söhne";
const LOGO: &str = "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 28 28\">\
     <circle cx=\"14\" cy=\"14\" r=\"14\" fill=\"#8c1515\"/></svg>";
/// Accents, and whether they can be read on light pages as they are.
const ACCENTS: [(&str, bool); 2] = [("#ffdd00", false), ("#8c1515", true)];

/// An appliance with the name, colour and logo of an organisation.
fn branded(accent: &str) -> Appliance {
    let settings = format!("[console]\nname = \"{ORGANISATION}\"\naccent = \"{accent}\"\nlogo = \"logo.svg\"\n");
    let folder = folder(&configuration(&settings));
    fs::write(folder.path().join("logo.svg"), LOGO).unwrap();
    Appliance::start_in(folder)
}

pub fn people_use_the_console_in_chromium() {
    let settings = format!("[public]\nurl = \"{SHORT_URL_BASE}\"\n[console]\nurl = \"http://{HOST}/console\"\n");
    let operator = format!("id = {PARTNER}\noperator = true\n");
    let settings = configuration(&settings).replacen(&format!("id = {PARTNER}\n"), &operator, 1);
    let appliance = Appliance::start_in(folder(&settings));
    let branded = ACCENTS.map(|(accent, is_readable)| (accent, is_readable, branded(accent)));
    let branded = branded.each_ref().map(|(accent, is_readable, appliance)| {
        json!({ "name": ORGANISATION, "accent": accent, "isReadable": is_readable, "admin": appliance.admin,
            "public": appliance.public })
    });
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
        .env("TINYD_BRANDED", Value::from_iter(branded).to_string())
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
