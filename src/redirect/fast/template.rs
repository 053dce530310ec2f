//! Responses that are rendered once, but for what differs from one request to the next.

use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;

use crate::http::Response;

/// An HTTP date (RFC 9110, section 5.6.7), such as `Sun, 06 Nov 1994 08:49:37 GMT`.
pub type Date = [u8; 29];

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
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
        let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let slots = [(id, Piece::Id), (location, Piece::Location)];
        let mut head = Pieces::default();
        let reason = parts.status.canonical_reason().unwrap_or_default();
        head.text(format!("HTTP/1.1 {} {reason}\r\n", parts.status.as_str()).as_bytes());
        for (name, value) in &parts.headers {
            head.text(name.as_str().as_bytes());
            head.text(b": ");
            head.split(value.as_bytes(), &slots);
            head.text(b"\r\n");
        }
        head.slot(Piece::Close);
        head.text(format!("content-length: {}\r\ndate: ", body.len()).as_bytes());
        head.slot(Piece::Date);
        head.text(b"\r\n\r\n");
        let mut rest = Pieces::default();
        rest.split(&body, &slots);
        Self {
            head: head.0,
            body: rest.0,
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
struct Pieces(Vec<Piece>);

impl Pieces {
    fn text(&mut self, text: &[u8]) {
        match self.0.last_mut() {
            _ if text.is_empty() => {}
            Some(Piece::Text(before)) => before.extend_from_slice(text),
            _ => self.0.push(Piece::Text(text.to_owned())),
        }
    }

    fn slot(&mut self, piece: Piece) {
        self.0.push(piece);
    }

    /// Text, with slots in the place of their contents.
    fn split(&mut self, mut text: &[u8], slots: &[(&[u8], Piece)]) {
        while let Some((&first, rest)) = text.split_first() {
            let slot = slots
                .iter()
                .find(|(what, _)| !what.is_empty() && text.starts_with(what));
            if let Some((what, piece)) = slot {
                self.slot(piece.clone());
                text = text.get(what.len()..).unwrap_or_default();
            } else {
                self.text(&[first]);
                text = rest;
            }
        }
    }
}
