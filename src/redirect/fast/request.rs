//! Reads plain requests for redirects from their bytes. Every other request is for the general threads.

use std::mem::MaybeUninit;
use std::net::IpAddr;

use httparse::{Header, Status};
use smallvec::SmallVec;

use crate::http::{self, HeadLimits, Peer};
use crate::links::{LinkMap, PREFETCHED_LINKS};
use crate::model::{ID_MAX_BYTES, LinkId};
use crate::redirect::previews::{PURPOSES, Visitor, is_unasked};
use crate::redirect::{GOTO, Representation, TINY, Tiny};

/// Header lines of a request that is answered here, whatever the operator allows. Browsers send about fifteen.
const HEADERS_MAX: usize = 64;

/// The client of a connection, and the conditions for answering it.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    pub peer: &'a Peer,
    pub head: &'a HeadLimits,
    /// Whether the connection ends with the next answer.
    pub is_last: bool,
}

#[derive(Debug, Clone, Copy)]
pub struct Request<'i> {
    pub id: LinkId,
    /// Whether it came by `/tiny`.
    pub is_tiny: bool,
    /// Whether it leads to goto rather than to the destination.
    pub is_hop: bool,
    pub visitor: Visitor<'i>,
    accept: Option<&'i [u8]>,
    forwarded: Option<&'i [u8]>,
    pub close: bool,
    pub consumed: usize,
}

impl Request<'_> {
    /// Not needed where links redirect, so that the languages are looked for here, in the bytes of the head.
    pub fn representation(&self, head: &[u8]) -> Representation {
        Representation::preferred(self.accept, values_of(head, "accept-language"))
    }

    /// Not needed there either.
    pub fn client(&self, peer: &Peer) -> IpAddr {
        peer.client(self.forwarded.into_iter())
    }
}

/// The values of a header in a head that has been read, without blanks around them.
fn values_of<'h>(head: &'h [u8], name: &str) -> impl Iterator<Item = &'h [u8]> {
    let lines = head.split(|byte| *byte == b'\n').skip(1);
    lines.filter_map(move |line| {
        let (found, value) = line.split_at_checked(name.len())?;
        let value = value
            .strip_prefix(b":")
            .filter(|_| found.eq_ignore_ascii_case(name.as_bytes()));
        value.map(<[u8]>::trim_ascii)
    })
}

/// The beginning of the bytes that a client has sent.
pub enum Parsed<'i> {
    Whole(Request<'i>),
    Partial,
    Other,
}

pub fn parse<'i>(input: &'i [u8], tiny: Tiny, asker: &Asker<'_>) -> Parsed<'i> {
    let mut headers: [MaybeUninit<Header<'_>>; HEADERS_MAX] = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    let consumed = match parsed.parse_with_uninit_headers(input, &mut headers) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) if input.len() <= asker.head.head_bytes => return Parsed::Partial,
        // The guard of the general server says what is wrong with it.
        Ok(Status::Partial) | Err(_) => return Parsed::Other,
    };
    let request = input.get(..consumed).and_then(|head| plain(&parsed, tiny, head, asker));
    request.map_or(Parsed::Other, Parsed::Whole)
}

/// The request, if it is a plain one for a redirect.
fn plain<'i>(parsed: &httparse::Request<'_, 'i>, tiny: Tiny, head: &'i [u8], asker: &Asker<'_>) -> Option<Request<'i>> {
    let head_only = match parsed.method? {
        "GET" => false,
        "HEAD" => true,
        _ => return None,
    };
    let path = parsed.path?;
    if parsed.version? != 1 || head.len() > asker.head.head_bytes || parsed.headers.len() > asker.head.headers {
        return None;
    }
    // httparse passes over empty lines before a request and takes LF alone for the end of a line.
    let is_ended_after = |text: &[u8], more: usize| {
        let end = text.as_ptr().addr().wrapping_sub(head.as_ptr().addr()) + text.len() + more;
        head.get(end..end + 2) == Some(b"\r\n")
    };
    if !matches!(head.first(), Some(b'G' | b'H'))
        || !is_ended_after(path.as_bytes(), " HTTP/1.1".len())
        || !head.ends_with(b"\r\n")
    {
        return None;
    }
    let (id, is_tiny) = match path.strip_prefix(GOTO) {
        Some(id) => (id, false),
        None => (path.strip_prefix(TINY)?, true),
    };
    let mut request = Request {
        id: LinkId::from_bytes(id.as_bytes()).ok()?,
        is_tiny,
        is_hop: is_tiny && tiny == Tiny::Hop,
        visitor: Visitor {
            head_only,
            ..Visitor::default()
        },
        accept: None,
        forwarded: None,
        close: false,
        consumed: head.len(),
    };
    let mut hosts = 0;
    for header in parsed.headers.iter() {
        if !is_ended_after(header.value, 0) {
            return None;
        }
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        match header.name.len() {
            4 if is("host") && http::is_host(header.value) => hosts += 1,
            4 if is("host") => return None,
            6 if is("accept") => request.accept = request.accept.or(Some(header.value)),
            10 if is("user-agent") => {
                request.visitor.user_agent = request.visitor.user_agent.or(Some(header.value));
            }
            5 | 7 | 9 | 11 if PURPOSES.iter().any(|name| is(name.as_str())) => {
                request.visitor.is_unasked |= is_unasked(header.value);
            }
            10 if is("connection") => {
                request.close = match header.value {
                    value if value.eq_ignore_ascii_case(b"close") => true,
                    value if value.eq_ignore_ascii_case(b"keep-alive") => request.close,
                    _ => return None,
                }
            }
            // A body, or another protocol.
            6 if is("expect") => return None,
            7 if is("upgrade") => return None,
            14 if is("content-length") => return None,
            17 if is("transfer-encoding") => return None,
            // Of several, the general server makes one list.
            15 if asker.peer.is_proxy() && is("x-forwarded-for") && request.forwarded.is_some() => return None,
            15 if asker.peer.is_proxy() && is("x-forwarded-for") => request.forwarded = Some(header.value),
            _ => {}
        }
    }
    (hosts == 1).then_some(request)
}

/// The id that the first request in `input` is likely to look up.
pub(super) fn id_ahead(input: &[u8], tiny: Tiny) -> Option<LinkId> {
    let path = input.strip_prefix(b"GET ")?;
    let id = match path.strip_prefix(TINY.as_bytes()) {
        Some(id) if tiny != Tiny::Hop => id,
        Some(_) => return None,
        None => path.strip_prefix(GOTO.as_bytes())?,
    };
    let end = id.iter().take(ID_MAX_BYTES + 1).position(|byte| *byte == b' ')?;
    LinkId::from_bytes(id.get(..end)?).ok()
}

/// Requests that came together, in order, as far as they are whole and plain.
#[derive(Debug, Default)]
pub struct Ahead<'i> {
    requests: SmallVec<[Request<'i>; PREFETCHED_LINKS]>,
    /// How many of them were taken.
    taken: usize,
}

impl<'i> Ahead<'i> {
    /// The first request in `input`. If others follow it, reads them too, and their links.
    #[inline]
    pub(super) fn first(&mut self, input: &'i [u8], tiny: Tiny, asker: &Asker<'_>, links: &LinkMap) -> Parsed<'i> {
        if let Some(request) = self.requests.get(self.taken) {
            self.taken += 1;
            return Parsed::Whole(*request);
        }
        let first = parse(input, tiny, asker);
        if let Parsed::Whole(request) = &first
            && request.consumed < input.len()
        {
            self.read_after(*request, input, tiny, asker, links);
        }
        first
    }

    /// Reads what follows the first request in `input`.
    fn read_after(&mut self, first: Request<'i>, input: &'i [u8], tiny: Tiny, asker: &Asker<'_>, links: &LinkMap) {
        let mut read = first.consumed;
        self.requests.clear();
        self.requests.push(first);
        self.taken = 1;
        while self.requests.len() < PREFETCHED_LINKS
            && let Parsed::Whole(request) = parse(input.get(read..).unwrap_or_default(), tiny, asker)
        {
            read += request.consumed;
            self.requests.push(request);
        }
        let looked_up = self.requests.iter().filter(|request| !request.is_hop);
        links.prefetch(looked_up.map(|request| request.id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEAD: HeadLimits = HeadLimits {
        head_bytes: 4096,
        target_bytes: 4096,
        headers: 64,
    };

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]
        #[test]
        fn reading_a_request_is_total(
            method in "GET|HEAD|POST|[A-Z]{1,5}",
            path in "/tiny/[0-9a-z]{3,21}|\
                /api_v3/service/shortlink_shortlink/action/goto/id/[0-9a-z?/%]{0,21}|\\PC{0,20}",
            headers in "(Host: a\r\n|Connection: (close|upgrade|keep-alive)\r\n|Content-Length: \
                [0-9]\r\n|[A-Za-z]{1,12}: \\PC{0,8}\r\n){0,5}",
            cut in any::<prop::sample::Index>(),
        ) {
            let text = format!("{method} {path} HTTP/1.1\r\n{headers}\r\n");
            let peer = Peer::new(std::net::Ipv4Addr::LOCALHOST.into(), &std::sync::Arc::default());
            let asker = Asker { peer: &peer, head: &HEAD, is_last: false };
            let whole = parse(text.as_bytes(), Tiny::Hop, &asker);
            if let Parsed::Whole(request) = whole {
                prop_assert_eq!(request.consumed, text.len());
                prop_assert!(path.ends_with(request.id.as_str()));
                prop_assert_eq!(headers.matches("Host: a\r\n").count(), 1);
                if method == "GET" {
                    prop_assert_eq!(id_ahead(text.as_bytes(), Tiny::Direct), Some(request.id));
                }
                // Of one that is answered, no part is taken for more than a part.
                let part = &text.as_bytes()[..cut.index(text.len())];
                prop_assert!(matches!(parse(part, Tiny::Hop, &asker), Parsed::Partial));
            }
        }
    }
}
