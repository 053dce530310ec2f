//! A file that says how far an import has come.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::cli::exit::{CliError, Failure};
use crate::store::Unfinished;

/// Which links come from where to where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct Route {
    pub(in crate::cli) from: String,
    pub(in crate::cli) kaltura_partner: u32,
    /// The store or the appliance.
    pub(in crate::cli) into: String,
    pub(in crate::cli) partner: u32,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    #[serde(flatten)]
    route: Route,
    /// All links that were created before this second have been imported.
    created_from: Option<i64>,
}

pub(super) struct Cursor {
    path: PathBuf,
    route: Route,
    pub(super) created_from: Option<i64>,
}

impl Cursor {
    /// Reads a cursor, which must be one of this route. Without the file, it is at the beginning.
    pub(super) fn open(path: &Path, route: &Route) -> Result<Self, CliError> {
        let wrong = |reason: String| Failure::Usage.error(format!("--resume {}: {reason}", path.display()));
        let created_from = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(wrong(error.to_string())),
            Ok(bytes) => {
                let content: Content = serde_json::from_slice(&bytes)
                    .map_err(|error| wrong(format!("not a file that --resume has written: {error}")))?;
                if content.route != *route {
                    let Route {
                        from,
                        kaltura_partner,
                        into,
                        partner,
                    } = content.route;
                    return Err(wrong(format!(
                        "belongs to the import of partner {kaltura_partner} at {from} as {partner} into {into}: \
                         use another file"
                    )));
                }
                content.created_from
            }
        };
        Ok(Self {
            path: path.to_owned(),
            route: route.clone(),
            created_from,
        })
    }

    pub(super) fn save(&mut self, created_from: Option<i64>) -> Result<(), CliError> {
        self.created_from = created_from;
        let content = Content {
            route: self.route.clone(),
            created_from,
        };
        let unfinished = Unfinished::new(&self.path);
        let write = || {
            let mut file = unfinished.create()?;
            serde_json::to_writer(&mut file, &content)?;
            file.write_all(b"\n")?;
            file.sync_all()
        };
        let written = write().and_then(|()| unfinished.publish());
        Ok(written.with_context(|| format!("cannot write {}", self.path.display()))?)
    }
}
