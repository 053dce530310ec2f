//! Compresses the files of the console that browsers keep, and names them by their content.

#![allow(clippy::expect_used, reason = "a build that cannot go on says so by panicking")]

use std::io::Write as _;
use std::path::Path;
use std::{env, fs};

use flate2::Compression;
use flate2::write::GzEncoder;
use sha1::{Digest as _, Sha1};

const FOLDER: &str = "src/console/assets";
/// Hexadecimal digits of a hash that name a file.
const HASH_DIGITS: usize = 16;

fn main() {
    println!("cargo::rerun-if-changed={FOLDER}");
    println!("cargo::rerun-if-changed=src/console/templates");
    let out = env::var_os("OUT_DIR").expect("cargo sets it");
    for name in ["style.css", "script.js"] {
        let content = fs::read(Path::new(FOLDER).join(name)).expect("asset is there");
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&content).expect("memory takes all");
        let compressed = encoder.finish().expect("memory takes all");
        let hash: String = Sha1::digest(&content)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let write = |extension: &str, bytes: &[u8]| {
            fs::write(Path::new(&out).join(format!("{name}.{extension}")), bytes).expect("OUT_DIR is writable");
        };
        write("gz", &compressed);
        write("hash", hash.split_at(HASH_DIGITS).0.as_bytes());
    }
}
