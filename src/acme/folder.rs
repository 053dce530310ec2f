//! What is kept in the data folder: accounts, the certificate with its key, and failures. Each is a file that is
//! replaced as a whole, or not at all, and that its owner alone can read.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha1::{Digest as _, Sha1};

use crate::acme::schedule::Failures;
use crate::acme::settings::AcmeSettings;
use crate::model::Timestamp;
use crate::store::Unfinished;
use crate::tls::{Certificate, PairFiles};

const FOLDER: &str = "acme";
const CERTIFICATE: &str = "certificate.pem";
const FAILURES: &str = "failures.json";

const FILE_MAX_BYTES: u64 = 2 * 1024 * 1024;

/// The folder `acme` in the data folder.
#[derive(Debug, Clone)]
pub struct AcmeFolder {
    data: PathBuf,
    path: PathBuf,
}

/// Where a certificate is from. One from elsewhere is served until there is one from here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub directory: String,
    pub profile: Option<String>,
    /// What was asked for, sorted. An authority may add names.
    pub domains: Vec<String>,
}

/// When a certificate was issued, and the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IssueTimes {
    pub at: Timestamp,
    pub before: Option<Timestamp>,
}

impl Origin {
    pub fn of(settings: &AcmeSettings) -> Self {
        let mut domains = settings.domains.clone();
        domains.sort();
        domains.dedup();
        Self {
            directory: settings.directory.clone(),
            profile: settings.profile.clone(),
            domains,
        }
    }
}

/// An account at an authority.
#[derive(Serialize, Deserialize)]
pub struct Account {
    /// The one that the authority knows.
    pub email: Option<String>,
    /// With the key.
    pub credentials: serde_json::Value,
}

impl AcmeFolder {
    pub fn new(data: &Path) -> Self {
        Self {
            data: data.to_owned(),
            path: data.join(FOLDER),
        }
    }

    pub fn certificate_path(&self) -> PathBuf {
        self.path.join(CERTIFICATE)
    }

    /// Creates the folder, and finds out whether files can be written there.
    pub fn prepare(&self) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(&self.path) {
            Ok(()) => File::open(&self.data)?.sync_all()?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        let probe = Unfinished::new(&self.path.join("probe"));
        probe.create()?.write_all(b"probe")
    }

    /// The certificate and where it is from; `None`: there is none yet.
    pub fn certificate(&self) -> Result<Option<(Certificate, Origin, IssueTimes)>, String> {
        let path = self.certificate_path();
        let unreadable = |error: io::Error| format!("cannot read {}: {error}", path.display());
        let Some(text) = read(&path).map_err(unreadable)? else {
            return Ok(None);
        };
        let files = PairFiles {
            certificate: path.clone(),
            key: path.clone(),
        };
        let certificate = Certificate::from_pem(&files, &text, &text).map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&text);
        let times = issue_times(&text).unwrap_or(IssueTimes {
            at: certificate.not_before,
            before: None,
        });
        Ok(Some((certificate, origin(&text), times)))
    }

    /// Key and certificates are in one file, so that no crash leaves one without the other.
    pub fn store_certificate(&self, origin: &Origin, times: IssueTimes, key: &str, chain: &str) -> io::Result<()> {
        let profile = origin.profile.as_deref().unwrap_or_default();
        let (directory, domains) = (&origin.directory, origin.domains.join(" "));
        let before = times.before.map_or_else(String::new, |before| before.to_string());
        let text = format!(
            "{DIRECTORY_LINE}{directory}\n{PROFILE_LINE}{profile}\n{DOMAINS_LINE}{domains}\n{ISSUED_LINE}{}\n\
            {BEFORE_LINE}{before}\n{key}{chain}",
            times.at
        );
        write(&self.certificate_path(), text.as_bytes())
    }

    /// The account at the authority of this directory.
    pub fn account(&self, directory: &str) -> io::Result<Option<Account>> {
        read_json(&self.account_path(directory))
    }

    pub fn store_account(&self, directory: &str, account: &Account) -> io::Result<()> {
        write_json(&self.account_path(directory), account)
    }

    /// Of an account that the authority does not know any more.
    pub fn remove_account(&self, directory: &str) -> io::Result<()> {
        fs::remove_file(self.account_path(directory))
    }

    pub fn failures(&self) -> io::Result<Failures> {
        Ok(read_json(&self.path.join(FAILURES))?.unwrap_or_default())
    }

    pub fn store_failures(&self, failures: &Failures) -> io::Result<()> {
        let path = self.path.join(FAILURES);
        if *failures == Failures::default() {
            return match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        write_json(&path, failures)
    }

    fn account_path(&self, directory: &str) -> PathBuf {
        let digest = Sha1::digest(directory.as_bytes());
        let name: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        self.path.join(format!("account-{name}.json"))
    }
}

const DIRECTORY_LINE: &str = "directory: ";
const PROFILE_LINE: &str = "profile: ";
const DOMAINS_LINE: &str = "domains: ";
const ISSUED_LINE: &str = "issued: ";
const BEFORE_LINE: &str = "before: ";

fn value<'t>(text: &'t str, name: &str) -> &'t str {
    let mut lines = text.lines();
    lines.find_map(|line| line.strip_prefix(name)).unwrap_or_default()
}

fn origin(text: &str) -> Origin {
    let profile = value(text, PROFILE_LINE);
    Origin {
        directory: value(text, DIRECTORY_LINE).to_owned(),
        profile: (!profile.is_empty()).then(|| profile.to_owned()),
        domains: value(text, DOMAINS_LINE)
            .split_whitespace()
            .map(str::to_owned)
            .collect(),
    }
}

fn issue_times(text: &str) -> Option<IssueTimes> {
    let time = |name| value(text, name).parse().ok().map(Timestamp::from_unix);
    Some(IssueTimes {
        at: time(ISSUED_LINE)?,
        before: time(BEFORE_LINE),
    })
}

/// The content of a file; `None`: there is no file.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut content = Vec::new();
    file.take(FILE_MAX_BYTES).read_to_end(&mut content)?;
    Ok(Some(content))
}

fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let Some(content) = read(path)? else { return Ok(None) };
    let value = serde_json::from_slice(&content);
    Ok(value
        .inspect_err(|_| tracing::warn!(file = %path.display(), "not the JSON that tinyd writes; ignoring it"))
        .ok())
}

fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let unfinished = Unfinished::new(path);
    let mut file = unfinished.create()?;
    file.write_all(content)?;
    file.sync_all()?;
    unfinished.publish()
}

fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    write(path, &serde_json::to_vec(value)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    use crate::tls::testing::Authority;

    fn prepared() -> (tempfile::TempDir, AcmeFolder) {
        let data = tempfile::tempdir().unwrap();
        let folder = AcmeFolder::new(data.path());
        folder.prepare().unwrap();
        (data, folder)
    }

    #[test]
    fn certificate_is_stored_with_its_key_and_origin() {
        let (_data, folder) = prepared();
        assert!(folder.certificate().unwrap().is_none());
        let root = Authority::new("root");
        for (names, profile) in [("a.example", None), ("b.example", Some("shortlived".to_owned()))] {
            let (chain, key) = root.issue(&[names], 0, 9);
            let from = Origin {
                directory: "https://ca.example/dir".to_owned(),
                profile,
                domains: vec![names.to_owned(), "other.example".to_owned()],
            };
            let times = IssueTimes {
                at: Timestamp::from_unix(7),
                before: from.profile.as_ref().map(|_| Timestamp::from_unix(5)),
            };
            folder.store_certificate(&from, times, &key, &chain).unwrap();
            let (certificate, origin, stored) = folder.certificate().unwrap().unwrap();
            assert_eq!(
                (certificate.names, origin, stored),
                (vec![names.to_owned()], from, times)
            );
        }
        folder.prepare().unwrap();
        let (chain, _) = root.issue(&["c.example"], 0, 9);
        fs::write(folder.certificate_path(), chain).unwrap();
        let error = folder.certificate().unwrap_err();
        assert!(error.contains("certificate.pem: holds no key"), "{error}");
    }

    #[test]
    fn files_are_for_their_owner_alone() {
        let (data, folder) = prepared();
        let account = Account {
            email: None,
            credentials: serde_json::json!({"id": "x"}),
        };
        let origin = Origin {
            directory: String::new(),
            profile: None,
            domains: Vec::new(),
        };
        let times = IssueTimes {
            at: Timestamp::from_unix(7),
            before: None,
        };
        let mut failures = Failures::default();
        failures.note(Timestamp::from_unix(7));
        folder.store_certificate(&origin, times, "", "").unwrap();
        folder.store_account("https://a", &account).unwrap();
        folder.store_failures(&failures).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&data.path().join("acme")), 0o700);
        let files: Vec<_> = fs::read_dir(data.path().join("acme"))
            .unwrap()
            .map(|file| file.unwrap().path())
            .collect();
        assert_eq!(files.len(), 3, "{files:?}");
        assert!(files.iter().all(|file| mode(file) == 0o600), "{files:?}");
    }

    #[test]
    fn each_directory_has_an_account_of_its_own() {
        let (_data, folder) = prepared();
        let account = |id: &str| Account {
            email: None,
            credentials: serde_json::json!({ "id": id }),
        };
        for directory in ["https://a", "https://b"] {
            folder.store_account(directory, &account(directory)).unwrap();
        }
        let stored = |directory| {
            folder
                .account(directory)
                .unwrap()
                .map(|account| account.credentials["id"].clone())
        };
        assert_eq!(stored("https://a").unwrap(), "https://a");
        folder.remove_account("https://a").unwrap();
        assert_eq!(
            (stored("https://a"), stored("https://b").unwrap()),
            (None, "https://b".into())
        );
    }

    #[test]
    fn failures_are_kept_until_an_order_succeeds() {
        let (_data, folder) = prepared();
        let mut failures = Failures::default();
        failures.note(Timestamp::from_unix(7));
        folder.store_failures(&failures).unwrap();
        assert_eq!(folder.failures().unwrap(), failures);
        folder.store_failures(&Failures::default()).unwrap();
        folder.store_failures(&Failures::default()).unwrap();
        assert_eq!(folder.failures().unwrap(), Failures::default());
    }
}
