//! Reading a stream from any of its replicas.

use std::time::Duration;

use async_nats::{Message, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::time::timeout;

use crate::cluster::nats::{COPIES, Nats, NatsError, REQUEST_TIMEOUT, last_part};

/// For the first answer of a replica; doubled up to the timeout of a request.
const FIRST_TIMEOUT: Duration = Duration::from_millis(250);
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
        let (_, answer) = self.ask_replica(body.into()).await?;
        match answer.status.map(|status| status.as_u16()) {
            None => {
                let number = number_of(&answer).ok_or(NatsError::Malformed)?;
                Ok(Some((number, answer.payload.to_vec())))
            }
            Some(404) => Ok(None),
            Some(503) => Err(NatsError::NoResponders),
            Some(status) => Err(NatsError::NoAnswer(format!("status {status}"))),
        }
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
        let body = format!("{{\"seq\":{first},\"batch\":{BATCH_MAX_MESSAGES},\"max_bytes\":{BATCH_MAX_BYTES}}}");
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
        self.read_directly(body, |message| {
            parts.extend(number_of(message).map(|number| (number, message.payload.to_vec())));
            true
        })
        .await?;
        Ok(parts)
    }

    /// Takes messages until there are no more, or one is not taken.
    async fn read_directly(&self, body: String, mut take: impl FnMut(&Message) -> bool) -> Result<(), NatsError> {
        let (mut answers, mut answer) = self.ask_replica(body.into()).await?;
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
            answer = match timeout(REQUEST_TIMEOUT, answers.next()).await {
                Ok(Some(answer)) => answer,
                _ => return Err(NatsError::NoAnswer("timed out".to_owned())),
            };
        }
    }

    /// The first answer of a replica, and those to come. Until a server notices that a replica is cut off, it goes on
    /// sending requests to it: they are sent again.
    async fn ask_replica(&self, body: Bytes) -> Result<(Subscriber, Message), NatsError> {
        let no_answer = |error: String| NatsError::NoAnswer(error);
        if !self.is_connected() {
            return Err(NatsError::Disconnected);
        }
        let mut patience = FIRST_TIMEOUT;
        while patience <= REQUEST_TIMEOUT {
            let inbox = self.client.new_inbox();
            let answers = self.client.subscribe(inbox.clone()).await;
            let mut answers = answers.map_err(|error| no_answer(error.to_string()))?;
            let asked = self.client.publish_with_reply(self.direct_get(), inbox, body.clone());
            asked.await.map_err(|error| no_answer(error.to_string()))?;
            if let Ok(Some(answer)) = timeout(patience, answers.next()).await {
                return Ok((answers, answer));
            }
            patience *= 2;
        }
        Err(no_answer("timed out".to_owned()))
    }
}

/// The number of a message that a server has read from a stream.
fn number_of(message: &Message) -> Option<u64> {
    message.headers.as_ref()?.get("Nats-Sequence")?.as_str().parse().ok()
}
