//! The first start: a data folder, and a configuration with secrets of its own.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use crate::config::ConfigError;

/// The number of the first partner; the one that Kaltura's guide uses in its examples.
const FIRST_PARTNER: u32 = 1_234_567;

/// Makes a missing file and its folder; returns whether it did.
pub(super) fn create(path: &Path) -> Result<bool, ConfigError> {
    let failed = |action| {
        move |cause| ConfigError::File {
            path: path.to_owned(),
            action,
            cause,
        }
    };
    if path.try_exists().map_err(failed("cannot look for it"))? {
        return Ok(false);
    }
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(failed("cannot create its folder"))?;
    let folder = fs::canonicalize(folder).map_err(failed("cannot read its folder"))?;
    // New, or not at all: another process may be doing the same.
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = match opened {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(false),
        opened => opened.map_err(failed("cannot create it"))?,
    };
    file.write_all(content(&folder).as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(failed("cannot write it"))?;
    Ok(true)
}

fn content(folder: &Path) -> String {
    // TOML's basic strings escape as JSON's do.
    let folder = serde_json::Value::String(folder.to_string_lossy().into_owned());
    let [admin_secret, user_secret] = [(); 2].map(|()| secret());
    format!(
        "# Settings of tinyd. All of them: docs/configuration.md. Check this file: tinyd check --config FILE\n\
         data_dir = {folder}\n\
         \n\
         [[partner]]\n\
         id = {FIRST_PARTNER}\n\
         operator = true\n\
         admin_secret = \"{admin_secret}\"\n\
         user_secret = \"{user_secret}\"\n"
    )
}

/// 128 bits in hexadecimal, as Kaltura's secrets are.
fn secret() -> String {
    rand::random::<[u8; 16]>()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
