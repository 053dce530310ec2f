//! The answers to http-01 (RFC 8555, section 8.3): to orders of tinyd, and those that another client puts into a
//! folder.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper::{Method, StatusCode};
use parking_lot::RwLock;
use rustix::fs::{Mode, OFlags, openat};
use tokio::sync::Semaphore;

use crate::http::{self, Response};

const FOLDERS: [&str; 2] = [".well-known", "acme-challenge"];
const PATH: &str = "/.well-known/acme-challenge/";

const TOKEN_MAX_BYTES: usize = 128;
const FILE_MAX_BYTES: u64 = 64 * 1024;
/// Files that are read at a time; a disk that does not answer holds up no more threads.
const READS_MAX: usize = 16;

/// Answers validations before anything else does.
#[derive(Debug)]
pub struct Challenges {
    /// Key authorizations by token.
    pending: RwLock<HashMap<String, String>>,
    /// The folder that another client is given as its webroot.
    webroot: RwLock<Option<PathBuf>>,
    reads: Arc<Semaphore>,
}

impl Default for Challenges {
    fn default() -> Self {
        Self {
            pending: RwLock::default(),
            webroot: RwLock::default(),
            reads: Arc::new(Semaphore::new(READS_MAX)),
        }
    }
}

impl Challenges {
    pub fn set_webroot(&self, webroot: Option<PathBuf>) {
        *self.webroot.write() = webroot;
    }

    /// `None`: not for a validation, or nothing is known of its token.
    pub async fn respond(&self, method: &Method, path: &str) -> Option<Response> {
        let token = path.strip_prefix(PATH).filter(|token| is_token(token))?;
        if ![Method::GET, Method::HEAD].contains(method) {
            return None;
        }
        let pending = self.pending.read().get(token).cloned();
        if let Some(authorization) = pending {
            return Some(answer(StatusCode::OK, authorization.into_bytes()));
        }
        let webroot = self.webroot.read().clone()?;
        let Ok(permit) = Arc::clone(&self.reads).try_acquire_owned() else {
            return Some(answer(StatusCode::SERVICE_UNAVAILABLE, b"busy\n".to_vec()));
        };
        let token = token.to_owned();
        let reading = tokio::task::spawn_blocking(move || {
            let content = read(&webroot, &token);
            drop(permit);
            content
        });
        match reading.await.ok()? {
            Ok(content) => Some(answer(StatusCode::OK, content)),
            Err(error) => {
                tracing::debug!(%error, "no challenge in public.acme_webroot");
                None
            }
        }
    }

    /// Answers validations of this token until the returned value is dropped.
    pub(super) fn publish(self: &Arc<Self>, token: &str, authorization: &str) -> PublishedToken {
        self.pending.write().insert(token.to_owned(), authorization.to_owned());
        PublishedToken {
            challenges: Arc::clone(self),
            token: token.to_owned(),
        }
    }
}

#[derive(Debug)]
pub(super) struct PublishedToken {
    challenges: Arc<Challenges>,
    token: String,
}

impl Drop for PublishedToken {
    fn drop(&mut self) {
        self.challenges.pending.write().remove(&self.token);
    }
}

/// Whether it is a token as authorities make them (base64url), and so the name of a file in the folder itself.
pub(super) fn is_token(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    (1..=TOKEN_MAX_BYTES).contains(&text.len()) && text.bytes().all(is_inner)
}

/// Reads a regular file below the folder. No symbolic link is followed below it, and a pipe is not waited for.
fn read(webroot: &Path, token: &str) -> io::Result<Vec<u8>> {
    let mut folder = File::open(webroot)?;
    for name in FOLDERS {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        folder = File::from(openat(&folder, name, flags, Mode::empty())?);
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(openat(&folder, token, flags, Mode::empty())?);
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > FILE_MAX_BYTES {
        let reason = format!("not a regular file of at most {FILE_MAX_BYTES} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    let mut content = Vec::new();
    file.take(FILE_MAX_BYTES).read_to_end(&mut content)?;
    Ok(content)
}

fn answer(status: StatusCode, content: Vec<u8>) -> Response {
    let mut response = http::bytes(status, "application/octet-stream", content);
    http::no_store(response.headers_mut());
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    use http_body_util::BodyExt as _;

    async fn get(challenges: &Challenges, path: &str) -> Option<(u16, Vec<u8>)> {
        let response = challenges.respond(&Method::GET, path).await?;
        let status = response.status().as_u16();
        let content = response.into_body().collect().await.unwrap().to_bytes().to_vec();
        Some((status, content))
    }

    #[tokio::test]
    async fn token_is_answered_until_it_is_dropped() {
        let challenges = Arc::new(Challenges::default());
        let published = challenges.publish("tok_en-1", "tok_en-1.thumb");
        let path = format!("{PATH}tok_en-1");
        assert_eq!(get(&challenges, &path).await, Some((200, b"tok_en-1.thumb".to_vec())));
        assert!(challenges.respond(&Method::POST, &path).await.is_none());
        let head = challenges.respond(&Method::HEAD, &path).await.unwrap();
        assert_eq!(head.headers()["content-type"], "application/octet-stream");
        assert_eq!(head.headers()["cache-control"], "no-store");
        drop(published);
        assert_eq!(get(&challenges, &path).await, None);
    }

    #[tokio::test]
    async fn webroot_gives_regular_files_of_tokens_only() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("webroot/.well-known/acme-challenge");
        fs::create_dir_all(&folder).unwrap();
        fs::write(root.path().join("secret"), "secret").unwrap();
        fs::write(folder.join("good"), "good.thumb").unwrap();
        fs::write(folder.join("large"), vec![b'x'; 64 * 1024 + 1]).unwrap();
        fs::write(folder.join("two.dots"), "x").unwrap();
        fs::create_dir(folder.join("folder")).unwrap();
        symlink(root.path().join("secret"), folder.join("link")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            folder.join("pipe"),
            rustix::fs::FileType::Fifo,
            Mode::RUSR,
            0,
        )
        .unwrap();
        let challenges = Challenges::default();
        assert_eq!(get(&challenges, &format!("{PATH}good")).await, None);
        challenges.set_webroot(Some(root.path().join("webroot")));
        assert_eq!(
            get(&challenges, &format!("{PATH}good")).await,
            Some((200, b"good.thumb".to_vec()))
        );
        let wrong = [
            "",
            "none",
            "large",
            "two.dots",
            "folder",
            "link",
            "pipe",
            "..",
            "../../../secret",
            "%2e%2e",
            "a/b",
        ];
        for name in wrong {
            assert_eq!(get(&challenges, &format!("{PATH}{name}")).await, None, "{name}");
        }
        let long = "a".repeat(TOKEN_MAX_BYTES + 1);
        fs::write(folder.join(&long), "x").unwrap();
        assert_eq!(get(&challenges, &format!("{PATH}{long}")).await, None);
        // A link in place of a folder.
        fs::rename(root.path().join("webroot/.well-known"), root.path().join("elsewhere")).unwrap();
        symlink(root.path().join("elsewhere"), root.path().join("webroot/.well-known")).unwrap();
        assert_eq!(get(&challenges, &format!("{PATH}good")).await, None);
    }
}
