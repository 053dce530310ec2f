//! Copies of the store on the servers, for boxes that are new or have been away for longer than the log reaches: one
//! admin box puts one there every day.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::task::spawn_blocking;

use crate::cluster::copy_format::{CHUNK_BYTES, FoundCopy, Part, StoreCopy, found, newest};
use crate::cluster::nats::{Nats, NatsError, Published};
use crate::cluster::stream::LogLimits;
use crate::cluster::{Cluster, Role};
use crate::links::Links;
use crate::store::replication::Position;
use crate::store::{self, FILE_NAME, Progress, SPACE_LEFT_BYTES, Store, Unfinished};

/// A copy is made when the last one is so old.
const AGE: Duration = Duration::from_hours(24);
/// One that is older than this was not made as it should.
const LATE: Duration = Duration::from_hours(25);
/// A replica that is asked for the copies has the last one within this.
const REPLICA_LAG: Duration = Duration::from_secs(60);
/// Before the first look, so that the other admin boxes have been heard.
const FIRST_LOOK: Duration = Duration::from_secs(10);
const LOOK_INTERVAL: Duration = Duration::from_secs(20);
/// Before a copy that failed is made again: the look interval, doubled each time up to this.
const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(60 * 60);
/// What the servers need for a message beside its chunk, with room to spare.
const MESSAGE_BYTES: u64 = 1024;
/// How often a copy is begun again that was replaced while it was read.
const ATTEMPTS: usize = 3;
/// Longer than an election takes.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Between two looks for a copy that a box can go on from: doubled up to the longest.
const SEARCH_FIRST: Duration = Duration::from_secs(1);
const SEARCH_MAX: Duration = Duration::from_secs(60);

/// Pauses between attempts, for as long as there is patience.
struct Patience {
    end: Instant,
    pause: Duration,
}

impl Patience {
    fn new() -> Self {
        Self {
            end: Instant::now() + PATIENCE,
            pause: PAUSE_FIRST,
        }
    }

    /// Pauses before the next attempt; `reason` is why there has to be one.
    async fn pause(&mut self, reason: String) -> Result<(), String> {
        if Instant::now() >= self.end {
            return Err(reason);
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Ok(())
    }
}

/// Puts copies of the store on the servers, if this is the admin box whose turn it is.
pub async fn keep(cluster: Arc<Cluster>, links: Arc<Links>) {
    if cluster.settings().role == Role::Edge {
        return;
    }
    let (mut own, mut pause) = (None, FIRST_LOOK);
    let mut after_failure = LOOK_INTERVAL;
    loop {
        tokio::time::sleep(pause).await;
        pause = LOOK_INTERVAL;
        // The log is not there: the watcher says so.
        if !is_due(&cluster, &links, own.as_ref()).await.unwrap_or(false) {
            continue;
        }
        match put(&cluster, &links).await {
            Ok(copy) => {
                let (entry, bytes) = (copy.sequence, copy.bytes());
                tracing::info!(
                    entry,
                    bytes,
                    "put a copy of the links on the servers, for boxes that join"
                );
                own = Some(copy);
                after_failure = LOOK_INTERVAL;
            }
            Err(error) => {
                let retry_seconds = after_failure.as_secs();
                tracing::warn!(%error, retry_seconds, "cannot put a copy of the links on the servers");
                pause = after_failure;
                after_failure = (after_failure * 2).min(LOOK_INTERVAL_MAX);
            }
        }
    }
}

/// Whether it is for this box to make a copy now. `own` is the last that it has made, in case that the replica that is
/// asked does not have it yet.
async fn is_due(cluster: &Cluster, links: &Links, own: Option<&StoreCopy>) -> Result<bool, NatsError> {
    let Some(replicating) = links.store().replicating() else {
        return Ok(false);
    };
    let position = *replicating.position().borrow();
    // What has stopped may have other links than the others.
    if replicating.halted().is_some() || cluster.state().stuck.is_some() || !is_first(cluster) {
        return Ok(false);
    }
    let first = cluster.nats().info().await?.state.first_seq;
    let is_usable = |copy: &Position| check(copy, &position, first).is_ok();
    if !is_usable(&position) {
        return Ok(false);
    }
    let copies = cluster.nats().copies();
    let there = match copies.info().await {
        Err(error) if error.is_no_stream() => None,
        info => {
            drop(info?);
            newest(found(&copies).await?).map(|found| found.copy)
        }
    };
    let own = own.filter(|own| own.age() < REPLICA_LAG);
    let mut usable = there.iter().chain(own).filter(|copy| {
        let position = copy.position();
        position.is_some_and(|position| is_usable(&position))
    });
    Ok(!usable.any(|copy| copy.age() < AGE))
}

/// Whether a box with this position could go on from a copy, with a log that begins with this entry; or why not.
fn check(copy: &Position, own: &Position, first: u64) -> Result<(), String> {
    if copy.cluster != own.cluster {
        let (of_copy, own) = (copy.cluster_text(), own.cluster_text());
        return Err(format!("it is of cluster {of_copy}, and this box is of cluster {own}"));
    }
    if copy.sequence.saturating_add(1) < first {
        let last = copy.sequence;
        return Err(format!(
            "it ends with entry {last}, and the log begins with entry {first}"
        ));
    }
    Ok(())
}

/// Whether no other admin box that is there has a name before this one's.
fn is_first(cluster: &Cluster) -> bool {
    let own = &cluster.settings().node;
    let members = cluster.members().list();
    !members.iter().any(|(member, _, is_silent)| {
        !is_silent && member.role == Role::Admin.name() && member.halted.is_none() && member.node < *own
    })
}

/// Bytes that the stream needs for two copies: the old one stays until the new one is whole.
const fn needed(bytes: u64) -> u64 {
    2 * (bytes + (bytes / CHUNK_BYTES as u64 + 2) * MESSAGE_BYTES)
}

async fn put(cluster: &Cluster, links: &Arc<Links>) -> Result<StoreCopy, String> {
    let copies = cluster.nats().copies();
    let (position, file, bytes) = make(Arc::clone(links)).await?;
    let count = u32::try_from(bytes.div_ceil(CHUNK_BYTES as u64)).map_err(|error| error.to_string())?;
    let copy = StoreCopy::new(&position, count);
    // Before anything is removed, so that another box that is writing notices.
    let last = make_room(cluster, &copies, bytes).await?;
    let there = found(&copies).await.map_err(|error| error.to_string())?;
    let kept = newest(there.clone()).map(|found| found.copy.id);
    for left in there.iter().filter(|found| Some(&found.copy.id) != kept.as_ref()) {
        // A box that ended in the middle has left it.
        let purged = copies.purge_copy(&left.copy.id).await;
        purged.map_err(|error| error.to_string())?;
    }
    match send(&copies, &copy, file, last).await {
        Ok(()) => Ok(copy),
        Err(reason) => {
            // The next copy removes it otherwise.
            let _ = copies.purge_copy(&copy.id).await;
            Err(reason)
        }
    }
}

/// A verified copy of the store in a file without a name, with its position and length.
async fn make(links: Arc<Links>) -> Result<(Position, File, u64), String> {
    let making = spawn_blocking(move || -> Result<_, String> {
        let store = links.store();
        let taken = store.disk_space().map_err(|error| error.to_string())?.file;
        store
            .check_space(SPACE_LEFT_BYTES + taken)
            .map_err(|error| error.to_string())?;
        let snapshot = store.snapshot().map_err(|error| error.to_string())?;
        let position = snapshot.position().ok_or("the store is in no cluster")?;
        let path = store.folder().join("cluster-copy.redb");
        let made = snapshot.copy_to(&path, &mut Silent);
        let verified = made.map_err(|error| error.to_string())?;
        let file = File::open(&path);
        // It goes with the file that is open.
        drop(std::fs::remove_file(&path));
        if let Some(problem) = verified.problems.first() {
            return Err(format!("the store is damaged: {problem}"));
        }
        let file = file.map_err(|error| error.to_string())?;
        let bytes = file.metadata().map_err(|error| error.to_string())?.len();
        Ok((position, file, bytes))
    });
    making.await.map_err(|error| error.to_string())?
}

/// Has the stream hold two copies of this size, and returns the number of its last message.
async fn make_room(cluster: &Cluster, copies: &Nats, bytes: u64) -> Result<u64, String> {
    let text = |error: NatsError| error.to_string();
    let limits = LogLimits {
        bytes: needed(bytes),
        age: Duration::ZERO,
        replicas: cluster.nats().info().await.map_err(text)?.config.num_replicas,
    };
    let (last, made) = match copies.info().await {
        Ok(info) if u64::try_from(info.config.max_bytes).is_ok_and(|room| room >= limits.bytes) => {
            return Ok(info.state.last_seq);
        }
        Ok(info) => (info.state.last_seq, copies.limit(limits).await),
        Err(error) if error.is_no_stream() => (0, copies.create(limits, 1, &[]).await),
        Err(error) => return Err(error.to_string()),
    };
    match made {
        Ok(()) => Ok(last),
        Err(error @ NatsError::Refused { .. }) => {
            let hint = too_small(limits.bytes);
            Err(format!("stream {}: {error}: {hint}", copies.stream))
        }
        Err(error) => Err(error.to_string()),
    }
}

fn too_small(bytes: u64) -> String {
    let megabytes = megabytes(bytes);
    format!("two copies take {megabytes} MB on each NATS server; raise its max_file if it has less room")
}

const fn megabytes(bytes: u64) -> u64 {
    bytes.div_ceil(1_000_000)
}

/// Appends the chunks of a copy after a message, and drops older copies.
async fn send(copies: &Nats, copy: &StoreCopy, mut file: File, last: u64) -> Result<(), String> {
    for number in 0..=copy.count {
        let of = copy.clone();
        let reading = spawn_blocking(move || {
            let mut data = Vec::with_capacity(CHUNK_BYTES);
            (&mut file).take(CHUNK_BYTES as u64).read_to_end(&mut data)?;
            let data = &data;
            Ok::<_, io::Error>((Bytes::from(Part { of, number, data }.encode()), file))
        });
        let read = reading.await.map_err(|error| error.to_string())?;
        let part;
        (part, file) = read.map_err(|error| error.to_string())?;
        append(copies, &copy.id, last + u64::from(number), part).await?;
    }
    let first = copies.get(last + 1).await.map_err(|error| error.to_string())?;
    let first = first.as_deref().and_then(Part::decode);
    if first.is_none_or(|first| first.of != *copy) {
        return Err("another box has removed its first chunk".to_owned());
    }
    copies.purge_before(last + 1).await.map_err(|error| error.to_string())
}

/// Appends a part, which may take several attempts.
async fn append(copies: &Nats, copy: &str, after: u64, part: Bytes) -> Result<(), String> {
    let mut patience = Patience::new();
    loop {
        let reason = match copies.append_to_copy(copy, after, part.clone()).await {
            Ok(Published::Stored) => return Ok(()),
            // By an earlier attempt, or it is on its way.
            Ok(Published::WrongLast(_)) => match copies.get(after + 1).await {
                Ok(Some(stored)) if stored == part => return Ok(()),
                Ok(Some(_)) => return Err("another box is doing so".to_owned()),
                Ok(None) => "a chunk is on its way".to_owned(),
                Err(error) => error.to_string(),
            },
            Err(error @ NatsError::Refused { .. }) => return Err(error.to_string()),
            Err(error) => error.to_string(),
        };
        patience.pause(reason).await?;
    }
}

/// Writes the newest copy to a file, verified, and returns its position. A copy that `fits` refuses is not read.
pub async fn take(
    copies: &Nats,
    path: &Path,
    fits: impl Fn(&Position) -> Result<(), String> + Sync,
    progress: &mut (dyn Progress + Send),
) -> Result<Position, String> {
    for _ in 0..ATTEMPTS {
        let there = match found(copies).await {
            Err(NatsError::NoResponders) => Vec::new(),
            there => there.map_err(|error| error.to_string())?,
        };
        let Some(found) = newest(there) else {
            return Err("no admin box has put a copy of its links on the servers yet; use --url or --from".to_owned());
        };
        let position = found.copy.position().ok_or("the copy on the servers is malformed")?;
        fits(&position).map_err(|reason| format!("the copy on the servers cannot be used: {reason}"))?;
        let (target, bytes) = (path.to_owned(), found.copy.bytes());
        let creating = spawn_blocking(move || {
            store::check_space(&target, bytes)?;
            let unfinished = Unfinished::new(&target);
            unfinished.create().map(|file| (unfinished, file))
        });
        let created = creating.await.map_err(|error| error.to_string())?;
        let (unfinished, file) = created.map_err(|error| error.to_string())?;
        if fill(copies, &found, file, progress).await? {
            let finishing = spawn_blocking(move || finish(unfinished, position));
            return finishing.await.map_err(|error| error.to_string())?;
        }
    }
    Err("the copy on the servers was replaced while it was read: try again".to_owned())
}

/// Gives a copy its name if it is whole and what it should be.
fn finish(unfinished: Unfinished, expected: Position) -> Result<Position, String> {
    let opened = Store::open_verified(unfinished.path()).map_err(|error| error.to_string())?;
    let position = opened.snapshot().map_err(|error| error.to_string())?.position();
    drop(opened);
    if position != Some(expected) {
        return Err("the copy on the servers is not what it says".to_owned());
    }
    unfinished.publish().map_err(|error| error.to_string())?;
    Ok(expected)
}

/// Writes a copy to a file; false if it is not there any more.
async fn fill(
    copies: &Nats,
    found: &FoundCopy,
    mut file: File,
    progress: &mut (dyn Progress + Send),
) -> Result<bool, String> {
    let text = |error: io::Error| error.to_string();
    let count = found.copy.count;
    progress.begin("reading", count.into());
    let (before, mut number) = (found.last.saturating_sub(u64::from(count) + 1), 0);
    while number < count {
        let Some(messages) = read(copies, &found.copy, before + u64::from(number)).await? else {
            return Ok(false);
        };
        let copy = found.copy.clone();
        let writing = spawn_blocking(move || write(file, &copy, number, &messages));
        let written;
        (written, file) = writing.await.map_err(|error| error.to_string())?.map_err(text)?;
        if written == 0 {
            return Ok(false);
        }
        progress.advance(written.into());
        number += written;
    }
    let syncing = spawn_blocking(move || file.sync_all());
    syncing.await.map_err(|error| error.to_string())?.map_err(text)?;
    Ok(true)
}

/// Messages after the one with this number; none if the copy is not there any more.
async fn read(copies: &Nats, copy: &StoreCopy, after: u64) -> Result<Option<Vec<Vec<u8>>>, String> {
    let mut patience = Patience::new();
    loop {
        let reason = match copies.read(after).await {
            Ok(messages) if !messages.is_empty() => return Ok(Some(messages)),
            Ok(_) => match found(copies).await {
                Ok(there) if there.iter().all(|found| found.copy != *copy) => return Ok(None),
                // A replica that is behind, or damaged.
                _ => format!("no replica has message {} of the copies", after + 1),
            },
            Err(error) => error.to_string(),
        };
        patience.pause(reason).await?;
    }
}

/// Writes the chunks that come next, and returns how many those are.
fn write(mut file: File, copy: &StoreCopy, first: u32, messages: &[Vec<u8>]) -> io::Result<(u32, File)> {
    let mut number = first;
    for message in messages {
        let next = Part::decode(message).filter(|part| part.of == *copy && part.number == number);
        let Some(part) = next.filter(|part| part.number < copy.count) else {
            break;
        };
        file.write_all(part.data)?;
        number += 1;
    }
    Ok((number - first, file))
}

/// When a box that cannot follow any more looks for a copy to go on from.
#[derive(Debug, Default)]
pub struct Search(Mutex<Option<(Instant, Duration)>>);

impl Search {
    pub fn is_due(&self, now: Instant) -> bool {
        self.0.lock().is_none_or(|(next, _)| now >= next)
    }

    fn end(&self, has_found: bool, now: Instant) {
        let mut next = self.0.lock();
        let pause = next.map_or(SEARCH_FIRST, |(_, pause)| (pause * 2).min(SEARCH_MAX));
        *next = (!has_found).then(|| (now + pause, pause));
    }

    /// Has a box that cannot follow the log any more, which begins with this entry, go on from the newest copy.
    pub async fn replace(&self, cluster: &Cluster, links: &Links, first: u64) -> Result<Position, String> {
        let replaced = replace(cluster, links, first).await;
        self.end(replaced.is_ok(), Instant::now());
        replaced
    }
}

async fn replace(cluster: &Cluster, links: &Links, first: u64) -> Result<Position, String> {
    let replicating = links.store().replicating().ok_or("the store is in no cluster")?;
    let own = *replicating.position().borrow();
    let fits = |copy: &Position| {
        check(copy, &own, first)?;
        if (own.epoch, own.sequence) >= (copy.epoch, copy.sequence) {
            return Err(format!("it ends with entry {}, and this box has it", copy.sequence));
        }
        Ok(())
    };
    let path: PathBuf = links.store().folder().join(format!("{FILE_NAME}.copy"));
    take(&cluster.nats().copies(), &path, fits, &mut Silent).await?;
    let replaced = links.store().replace(path.clone()).await;
    if replaced.is_err() {
        // It may be in the place of the store already.
        drop(std::fs::remove_file(path));
    }
    replaced.map_err(|error| error.to_string())
}

/// What the servers have for boxes that join, in words. `store` is the size of the store that a copy would be of.
pub async fn describe(nats: &Nats, store: u64) -> String {
    let described = try_describe(&nats.copies(), store).await;
    described.unwrap_or_else(|error| format!("cannot read the copies of the links for boxes that join: {error}"))
}

async fn try_describe(copies: &Nats, store: u64) -> Result<String, NatsError> {
    const NONE: &str = "no copy of the links for boxes that join yet; if there is none after a minute, the log of the \
                        admin boxes says why";
    let there = match found(copies).await {
        Err(NatsError::NoResponders) => Vec::new(),
        there => there?,
    };
    let Some(copy) = newest(there).map(|found| found.copy) else {
        return Ok(NONE.to_owned());
    };
    let (sequence, size, hours) = (copy.sequence, megabytes(copy.bytes()), copy.age().as_secs() / 3_600);
    let mut words = format!("copy of the links for boxes that join: up to entry {sequence}, {size} MB, {hours} h old");
    if copy.age() > LATE {
        words.push_str("; there should be a newer one, the log of the admin boxes says why not");
        // An edge may not ask.
        let room = copies.info().await.ok().map(|info| info.config.max_bytes);
        if room.is_some_and(|room| u64::try_from(room).is_ok_and(|room| room < needed(store))) {
            words = format!("{words}: {}", too_small(needed(store)));
        }
    }
    Ok(words)
}

/// Progress that nobody follows.
pub struct Silent;

impl Progress for Silent {
    fn begin(&mut self, _: &'static str, _: u64) {}

    fn advance(&mut self, _: u64) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::copy_format::tests::{copy, message};

    #[test]
    fn chunks_are_written_in_their_order_up_to_another() {
        let (one, other) = (copy(), copy());
        let messages = [message(&one, 0, b"a"), message(&one, 1, b"b"), message(&one, 2, b"")];
        let write = |first, messages: &[Vec<u8>]| {
            let (written, mut file) = write(tempfile::tempfile().unwrap(), &one, first, messages).unwrap();
            let mut text = String::new();
            io::Seek::rewind(&mut file).unwrap();
            file.read_to_string(&mut text).unwrap();
            (written, text)
        };
        assert_eq!(write(0, &messages), (2, "ab".to_owned()));
        assert_eq!(write(1, &messages[1..]), (1, "b".to_owned()));
        assert_eq!(write(0, &messages[1..]), (0, String::new()));
        assert_eq!(
            write(0, &[message(&one, 0, b"a"), message(&other, 1, b"b")]),
            (1, "a".to_owned())
        );
    }

    #[test]
    fn box_searches_again_after_growing_pauses() {
        let (search, began) = (Search::default(), Instant::now());
        let mut searched = Vec::new();
        for second in 0..200 {
            let now = began + Duration::from_secs(second);
            if search.is_due(now) {
                searched.push(second);
                search.end(false, now);
            }
        }
        assert_eq!(searched, [0, 1, 3, 7, 15, 31, 63, 123, 183]);
        search.end(true, began);
        assert!(search.is_due(began));
    }
}
