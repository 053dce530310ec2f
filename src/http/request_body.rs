//! Reading the body of a request into memory: up to a limit, within a time, and out of a budget.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Body;

use crate::http::Reservation;

#[derive(Debug, Clone, Copy)]
pub struct BodyLimits {
    pub max_bytes: usize,
    /// How long one may take to arrive.
    pub timeout: Duration,
}

/// Why there is no body. Something of it may be unread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BodyError {
    TooLarge,
    TooSlow,
    /// The budget is used up.
    NoMemory,
    Broken(String),
}

/// Reads a body. Reserves memory as it comes, so that announcing much gains nothing. Copies its pieces together: kept
/// as they come, those of a byte each would take fifty times as much.
pub async fn read_body<B>(incoming: B, limits: BodyLimits, reservation: &mut Reservation) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let reading = read(incoming, limits.max_bytes, reservation);
    let read = tokio::time::timeout(limits.timeout, reading).await;
    read.unwrap_or(Err(BodyError::TooSlow))
}

async fn read<B>(mut incoming: B, max_bytes: usize, reservation: &mut Reservation) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    if incoming.size_hint().lower() > max_bytes as u64 {
        return Err(BodyError::TooLarge);
    }
    let mut body = Vec::new();
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|error| BodyError::Broken(error.to_string()))?;
        let Ok(chunk) = frame.into_data() else { continue };
        if body.len() + chunk.len() > max_bytes {
            return Err(BodyError::TooLarge);
        }
        if !reservation.grow(chunk.len()) {
            return Err(BodyError::NoMemory);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Budget;
    use futures_util::FutureExt as _;
    use futures_util::stream;
    use http_body_util::StreamBody;
    use hyper::body::Frame;

    fn pieces(number: usize) -> impl Body<Data = Bytes, Error = std::io::Error> + Unpin {
        let pieces = (0..number).map(|_| Ok(Frame::data(Bytes::from_static(b"x"))));
        StreamBody::new(stream::iter(pieces))
    }

    #[test]
    fn a_body_in_tiny_pieces_takes_no_more_memory() {
        const BYTES: usize = 100_000;
        let used = allocation_counter::measure(|| {
            let mut reservation = Budget::new(BYTES).reserve(0).unwrap();
            let read = read(pieces(BYTES), BYTES, &mut reservation).now_or_never().unwrap();
            assert_eq!(read.unwrap().len(), BYTES);
        });
        assert!(used.bytes_max <= 4 * BYTES as u64, "{used:?}");
    }

    #[tokio::test]
    async fn bodies_have_limits_of_size_time_and_memory() {
        let limits = BodyLimits {
            max_bytes: 10,
            timeout: Duration::from_secs(30),
        };
        let budget = Budget::new(10);
        let mut reservation = budget.reserve(0).unwrap();
        let whole = read_body(pieces(10), limits, &mut reservation).await;
        assert_eq!((whole.unwrap().len(), budget.used()), (10, 10));
        let none_left = read_body(pieces(1), limits, &mut budget.reserve(0).unwrap()).await;
        assert_eq!(none_left, Err(BodyError::NoMemory));
        let mut reservation = Budget::new(100).reserve(0).unwrap();
        let large = read_body(pieces(11), limits, &mut reservation).await;
        assert_eq!(large, Err(BodyError::TooLarge));
        let announced = http_body_util::Full::new(Bytes::from_static(b"eleven byte"));
        assert_eq!(
            read_body(announced, limits, &mut reservation).await,
            Err(BodyError::TooLarge)
        );
        let silent = StreamBody::new(stream::pending::<Result<Frame<Bytes>, std::io::Error>>());
        let at_once = BodyLimits {
            timeout: Duration::ZERO,
            ..limits
        };
        let slow = read_body(silent, at_once, &mut reservation).await;
        assert_eq!(slow, Err(BodyError::TooSlow));
        let broken = StreamBody::new(stream::iter([Err::<Frame<Bytes>, _>(std::io::Error::other("gone"))]));
        let broken = read_body(broken, limits, &mut reservation).await;
        assert_eq!(broken, Err(BodyError::Broken("gone".to_owned())));
    }
}
