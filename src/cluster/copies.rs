//! Copies of the store on the servers, for boxes that are new or have been away for longer than the log reaches: one
//! admin box puts one there every night.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::cluster::nats::{Nats, NatsError, Published};
use crate::cluster::{Cluster, Role};
use crate::links::Links;
use crate::model::unix_milliseconds;
use crate::store::replication::Position;
use crate::store::{FILE_NAME, Progress, Store, Unfinished};

/// A copy is made when the last one is so old.
const AGE: Duration = Duration::from_hours(24);
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
const CHUNK_BYTES: usize = 512 * 1024;
const MAGIC: &[u8; 4] = b"TYC1";
const HEAD_BYTES: usize = MAGIC.len() + 16 + 8 + 4 + 4 + 32;
/// How often a copy is begun again that was replaced while it was read.
const ATTEMPTS: usize = 3;

/// A part of a copy, as a message has it.
struct Chunk<'a> {
    copy: [u8; 16],
    /// When the copy was made, in milliseconds since 1970.
    at: i64,
    number: u32,
    count: u32,
    data: &'a [u8],
}

impl<'a> Chunk<'a> {
    fn encode(&self) -> Vec<u8> {
        let digest: [u8; 32] = Sha256::digest(self.data).into();
        let parts: [&[u8]; 7] = [
            MAGIC,
            &self.copy,
            &self.at.to_be_bytes(),
            &self.number.to_be_bytes(),
            &self.count.to_be_bytes(),
            &digest,
            self.data,
        ];
        parts.concat()
    }

    fn decode(message: &'a [u8]) -> Option<Self> {
        let (head, data) = message.split_first_chunk::<HEAD_BYTES>()?;
        let rest = head.strip_prefix(MAGIC)?;
        let (copy, rest) = rest.split_first_chunk()?;
        let (at, rest) = rest.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        let (count, digest) = rest.split_first_chunk()?;
        let found: [u8; 32] = Sha256::digest(data).into();
        (digest == found).then_some(Self {
            copy: *copy,
            at: i64::from_be_bytes(*at),
            number: u32::from_be_bytes(*number),
            count: u32::from_be_bytes(*count),
            data,
        })
    }
}

/// Puts copies of the store on the servers, if this is the admin box whose turn it is.
pub async fn keep(cluster: Arc<Cluster>, links: Arc<Links>) {
    if cluster.settings().role == Role::Edge {
        return;
    }
    let copies = cluster.nats().copies();
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let made = match newest(&copies).await {
            Ok(Some((_, at))) => at,
            Ok(None) => 0,
            Err(_) => continue,
        };
        let age = unix_milliseconds().saturating_sub(made);
        let is_old = u128::try_from(age).is_ok_and(|age| age > AGE.as_millis());
        if !is_old || !is_first(&cluster) {
            continue;
        }
        match put(&copies, &links).await {
            Ok(chunks) => tracing::info!(chunks, "copy of the store put on the servers, for boxes that join"),
            Err(error) => tracing::warn!(%error, "cannot put a copy of the store on the servers"),
        }
    }
}

/// Whether no other admin box that is there has a name before this one's.
fn is_first(cluster: &Cluster) -> bool {
    let own = &cluster.settings().node;
    let members = cluster.members().list();
    !members.iter().any(|(member, _, is_silent)| {
        !is_silent && member.role == Role::Admin.name() && member.halted.is_none() && member.node < *own
    })
}

/// The number of the last chunk of the newest whole copy, and when it was made.
async fn newest(copies: &Nats) -> Result<Option<(u64, i64)>, NatsError> {
    let mut last = copies.last().await?;
    // One that is being put there comes after a whole one.
    while last > 0 {
        let message = copies.read(last - 1).await?.into_iter().next();
        let Some(chunk) = message.as_deref().and_then(Chunk::decode) else {
            break;
        };
        if chunk.number + 1 == chunk.count {
            return Ok(Some((last, chunk.at)));
        }
        last = last.saturating_sub(u64::from(chunk.number) + 1);
    }
    Ok(None)
}

async fn put(copies: &Nats, links: &Arc<Links>) -> Result<u32, String> {
    let folder = links.store().folder().to_owned();
    let path = folder.join("cluster-copy.redb");
    let copied = Arc::clone(links);
    let target = path.clone();
    let making = tokio::task::spawn_blocking(move || -> Result<File, String> {
        let snapshot = copied.store().snapshot().map_err(|error| error.to_string())?;
        let made = snapshot.copy_to(&target, &mut Silent);
        made.map_err(|error| error.to_string())?;
        let file = File::open(&target).map_err(|error| error.to_string());
        // It goes with the file that is open.
        drop(std::fs::remove_file(&target));
        file
    });
    let mut file = making.await.map_err(|error| error.to_string())??;
    let bytes = file.metadata().map_err(|error| error.to_string())?.len();
    let count = u32::try_from(bytes.div_ceil(CHUNK_BYTES as u64)).map_err(|error| error.to_string())?;
    let (copy, at) = (rand::random(), unix_milliseconds());
    let mut last = copies.info().await.map_err(|error| error.to_string())?.state.last_seq;
    let first = last + 1;
    for number in 0..count {
        let mut data = Vec::with_capacity(CHUNK_BYTES);
        let mut part = (&mut file).take(CHUNK_BYTES as u64);
        part.read_to_end(&mut data).map_err(|error| error.to_string())?;
        let chunk = Chunk {
            copy,
            at,
            number,
            count,
            data: &data,
        };
        match copies.append(last, chunk.encode().into()).await {
            Ok(Published::Stored) => last += 1,
            Ok(Published::WrongLast(_)) => return Err("another box is doing so".to_owned()),
            Err(error) => return Err(error.to_string()),
        }
    }
    copies.purge_before(first).await.map_err(|error| error.to_string())?;
    Ok(count)
}

/// Writes the newest copy to a file, verified, and returns its position.
pub async fn take(copies: &Nats, path: &Path, progress: &mut (dyn Progress + Send)) -> Result<Position, String> {
    for _ in 0..ATTEMPTS {
        let Some((last, _)) = newest(copies).await.map_err(|error| error.to_string())? else {
            return Err("no admin box has put a copy of its links on the servers yet; use --url or --from".to_owned());
        };
        let unfinished = Unfinished::new(path);
        if fill(copies, last, &unfinished, progress).await? {
            let opened = Store::open_verified(unfinished.path()).map_err(|error| error.to_string())?;
            let position = opened.snapshot().map_err(|error| error.to_string())?.position();
            let position = position.ok_or("the copy is of a store in no cluster")?;
            drop(opened);
            unfinished.publish().map_err(|error| error.to_string())?;
            return Ok(position);
        }
    }
    Err("the copy on the servers was replaced while it was read: try again".to_owned())
}

/// False if the copy is not there any more.
async fn fill(
    copies: &Nats,
    last: u64,
    unfinished: &Unfinished,
    progress: &mut (dyn Progress + Send),
) -> Result<bool, String> {
    let text = |error: io::Error| error.to_string();
    let mut file = unfinished.create().map_err(text)?;
    let newest = copies.read(last - 1).await.map_err(|error| error.to_string())?;
    let Some(newest) = newest.first().and_then(|message| Chunk::decode(message)) else {
        return Ok(false);
    };
    let (copy, count) = (newest.copy, newest.count);
    progress.begin("reading", count.into());
    let (first, mut number) = ((last + 1).saturating_sub(count.into()), 0);
    while number < count {
        let messages = copies.read((first + u64::from(number)).saturating_sub(1)).await;
        let messages = messages.map_err(|error| error.to_string())?;
        if messages.is_empty() {
            return Ok(false);
        }
        for message in messages {
            let Some(chunk) = Chunk::decode(&message).filter(|chunk| chunk.copy == copy && chunk.number == number)
            else {
                return Ok(number == count);
            };
            file.write_all(chunk.data).map_err(text)?;
            number += 1;
            progress.advance(1);
        }
    }
    file.sync_all().map_err(text)?;
    Ok(true)
}

/// Has a box that cannot follow any more go on from the newest copy.
pub async fn replace(cluster: &Cluster, links: &Links) -> Result<Position, String> {
    let path: PathBuf = links.store().folder().join(format!("{FILE_NAME}.copy"));
    let position = take(&cluster.nats().copies(), &path, &mut Silent).await?;
    let own = links
        .store()
        .replicating()
        .map(|replicating| *replicating.position().borrow());
    if own.is_none_or(|own| {
        own.cluster != position.cluster || (own.epoch, own.sequence) >= (position.epoch, position.sequence)
    }) {
        drop(std::fs::remove_file(&path));
        return Err("the copy on the servers is no later than this box".to_owned());
    }
    links.store().replace(path).await.map_err(|error| error.to_string())
}

/// Progress that nobody follows.
pub struct Silent;

impl Progress for Silent {
    fn begin(&mut self, _: &'static str, _: u64) {}

    fn advance(&mut self, _: u64) {}
}
