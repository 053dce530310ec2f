//! Reading a stream from any of its replicas.

use std::time::Duration;

use async_nats::{Message, Subscriber};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, timeout, timeout_at};

use crate::cluster::nats::{COPIES, Nats, NatsError, REQUEST_TIMEOUT, last_part};

/// How long one replica is waited for alone; doubled for the next ones.
const FIRST_PATIENCE: Duration = Duration::from_millis(250);
/// Of one read.
const BATCH_MAX_MESSAGES: u32 = 1_000;
const BATCH_MAX_BYTES: u32 = 8 * 1024 * 1024;

impl Nats {
    /// The number of the last message as any replica has it, for a box that may not ask for more; 0 if there is none.
    pub async fn last(&self) -> Result<u64, NatsError> {
        let body = format!("{{\"last_by_subj\":\"{}\"}}", self.subject(self.appends));
        let last = self.read_one(body).await?;
        Ok(last.map_or(0, |(number, _)| number))
    }

    /// The first message with its number, the same.
    pub async fn first(&self) -> Result<Option<(u64, Vec<u8>)>, NatsError> {
        let body = format!("{{\"seq\":1,\"next_by_subj\":\"{}\"}}", self.subject(self.appends));
        self.read_one(body).await
    }

    async fn read_one(&self, body: String) -> Result<Option<(u64, Vec<u8>)>, NatsError> {
        let mut read = None;
        self.read_directly(
            |_| body.clone(),
            |message| {
                let number = number_of(message).ok_or(NatsError::Malformed);
                read = Some(number.map(|number| (number, message.payload.to_vec())));
                false
            },
        )
        .await?;
        read.transpose()
    }

    fn direct_get(&self) -> String {
        format!("$JS.API.DIRECT.GET.{}", self.stream)
    }

    /// Entries after the one with the number `after`, from any replica, up to the first that is missing.
    pub async fn read(&self, after: u64) -> Result<Vec<Vec<u8>>, NatsError> {
        let read = self.read_of(after).await?;
        Ok(read.into_iter().map(|(_, entry)| entry).collect())
    }

    /// The same, each with the last part of its subject.
    pub async fn read_of(&self, after: u64) -> Result<Vec<(String, Vec<u8>)>, NatsError> {
        let first = after + 1;
        let body = |batch| format!("{{\"seq\":{first},\"batch\":{batch},\"max_bytes\":{BATCH_MAX_BYTES}}}");
        let mut entries = Vec::new();
        let read = self.read_directly(body, |message| {
            let is_next = number_of(message) == Some(first + entries.len() as u64);
            if is_next {
                let subject = message.headers.as_ref().and_then(|headers| headers.get("Nats-Subject"));
                let of = last_part(subject.map_or("", |subject| subject.as_str()));
                entries.push((of, message.payload.to_vec()));
            }
            is_next
        });
        match read.await {
            // What has come is good by itself.
            Err(error) if entries.is_empty() => Err(error),
            _ => Ok(entries),
        }
    }

    /// The last part of each copy, with its number, from any replica.
    pub async fn last_parts(&self) -> Result<Vec<(u64, Vec<u8>)>, NatsError> {
        let body = format!("{{\"multi_last\":[\"{}\"]}}", self.subject(COPIES));
        let mut parts = Vec::new();
        self.read_directly(
            |_| body.clone(),
            |message| {
                parts.extend(number_of(message).map(|number| (number, message.payload.to_vec())));
                true
            },
        )
        .await?;
        Ok(parts)
    }

    /// Takes messages until there are no more, or one is not taken. The request is made for a number of messages.
    async fn read_directly(
        &self,
        request: impl Fn(u32) -> String,
        mut take: impl FnMut(&Message) -> bool,
    ) -> Result<(), NatsError> {
        let (mut answers, mut answer) = self.ask_replica(request).await?;
        loop {
            match answer.status.map(|status| status.as_u16()) {
                None => {}
                // No such message, or the end of the batch.
                Some(204 | 404) => return Ok(()),
                Some(503) => return Err(NatsError::NoResponders),
                Some(status) => return Err(NatsError::NoAnswer(format!("status {status}"))),
            }
            if !take(&answer) {
                return Ok(());
            }
            answer = timeout(REQUEST_TIMEOUT, answers.next())
                .await
                .ok()
                .flatten()
                .ok_or_else(timed_out)?;
        }
    }

    /// The first answer, and those to come. Until a server notices that a replica is cut off, it goes on sending
    /// requests to it; so this asks again after a while, and another replica may answer.
    async fn ask_replica(&self, request: impl Fn(u32) -> String) -> Result<(Subscriber, Message), NatsError> {
        if !self.is_connected() {
            return Err(NatsError::Disconnected);
        }
        let end = Instant::now() + REQUEST_TIMEOUT;
        let (mut batch, mut patience) = (BATCH_MAX_MESSAGES, FIRST_PATIENCE);
        let mut asked = FuturesUnordered::new();
        loop {
            let mut answers = self.request_several(self.direct_get(), request(batch).into()).await?;
            asked.push(async move {
                let answer = answers.next().await;
                (answers, answer)
            });
            // Over a slow or long link, the first replica may still answer.
            let until = end.min(Instant::now() + patience);
            (batch, patience) = (1, patience * 2);
            match timeout_at(until, asked.next()).await {
                Ok(Some((answers, Some(answer)))) => return Ok((answers, answer)),
                Ok(_) => return Err(NatsError::Disconnected),
                Err(_) if Instant::now() >= end => return Err(timed_out()),
                Err(_) => {}
            }
        }
    }
}

fn timed_out() -> NatsError {
    NatsError::NoAnswer("timed out".to_owned())
}

/// The number of a message that a server has read from a stream.
fn number_of(message: &Message) -> Option<u64> {
    message.headers.as_ref()?.get("Nats-Sequence")?.as_str().parse().ok()
}
