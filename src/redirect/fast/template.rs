//! Responses that are rendered once, but for what differs from one request to the next.

use bytes::{Buf as _, Bytes};
use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;

use crate::http::Response;

/// An HTTP date (RFC 9110, section 5.6.7), such as `Sun, 06 Nov 1994 08:49:37 GMT`.
pub type Date = [u8; 29];

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Bytes),
    Id,
    Location,
    Date,
    /// `Connection: close`, if the connection ends with this response.
    Close,
}

#[derive(Debug, Clone, Copy)]
pub struct Filling<'f> {
    pub id: &'f [u8],
    pub location: &'f [u8],
    pub date: &'f Date,
    pub close: bool,
    pub head_only: bool,
}

#[derive(Debug)]
pub struct Template {
    head: Vec<Piece>,
    body: Vec<Piece>,
}

impl Template {
    /// Renders a response as hyper does, with slots in the place of `id` and `location`. Drops a body that is not in
    /// memory as a whole.
    pub fn new(response: Response, id: &[u8], location: &[u8]) -> Self {
        let (parts, body) = response.into_parts();
        let body = body.collect().now_or_never().and_then(Result::ok);
        let mut body = body.unwrap_or_default().aggregate();
        let mut slots = vec![(id, Piece::Id), (location, Piece::Location)];
        slots.retain(|(what, _)| !what.is_empty());
        let mut head = Pieces::default();
        let reason = parts.status.canonical_reason().unwrap_or_default();
        head.text(format!("HTTP/1.1 {} {reason}\r\n", parts.status.as_str()).as_bytes());
        for (name, value) in &parts.headers {
            head.text(name.as_str().as_bytes());
            head.text(b": ");
            head.split(Bytes::copy_from_slice(value.as_bytes()), &slots);
            head.text(b"\r\n");
        }
        head.slot(Piece::Close);
        head.text(format!("content-length: {}\r\ndate: ", body.remaining()).as_bytes());
        head.slot(Piece::Date);
        head.text(b"\r\n\r\n");
        let mut rest = Pieces::default();
        while body.has_remaining() {
            // Of as many bytes as it has, a piece is not copied.
            let piece = body.copy_to_bytes(body.chunk().len());
            rest.split(piece, &slots);
        }
        Self {
            head: head.finished(),
            body: rest.finished(),
        }
    }

    pub fn write(&self, filling: &Filling<'_>, out: &mut Vec<u8>) {
        let body = if filling.head_only { &[] } else { self.body.as_slice() };
        for piece in self.head.iter().chain(body) {
            out.extend_from_slice(match piece {
                Piece::Text(text) => text,
                Piece::Id => filling.id,
                Piece::Location => filling.location,
                Piece::Date => filling.date,
                Piece::Close if filling.close => b"connection: close\r\n",
                Piece::Close => b"",
            });
        }
    }
}

#[derive(Debug, Default)]
struct Pieces {
    done: Vec<Piece>,
    /// Text up to the next slot.
    text: Vec<u8>,
}

impl Pieces {
    fn text(&mut self, text: &[u8]) {
        self.text.extend_from_slice(text);
    }

    fn slot(&mut self, piece: Piece) {
        self.end_text();
        self.done.push(piece);
    }

    fn end_text(&mut self) {
        if !self.text.is_empty() {
            self.done.push(Piece::Text(std::mem::take(&mut self.text).into()));
        }
    }

    /// Text, with slots in the place of their contents.
    fn split(&mut self, text: Bytes, slots: &[(&[u8], Piece)]) {
        let slot_at = |place: usize| {
            let rest = text.get(place..).unwrap_or_default();
            slots.iter().find(|(what, _)| rest.starts_with(what))
        };
        let (mut begin, mut place) = (0, 0);
        while place < text.len() && !slots.is_empty() {
            let Some((what, piece)) = slot_at(place) else {
                place += 1;
                continue;
            };
            self.text(text.get(begin..place).unwrap_or_default());
            self.slot(piece.clone());
            place += what.len();
            begin = place;
        }
        if begin == 0 && self.text.is_empty() && !text.is_empty() {
            // A page, which is large and stands in many templates, is not copied.
            self.done.push(Piece::Text(text));
        } else {
            self.text(text.get(begin..).unwrap_or_default());
        }
    }

    fn finished(mut self) -> Vec<Piece> {
        self.end_text();
        self.done
    }
}
