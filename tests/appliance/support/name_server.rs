//! A DNS server with configurable answers that records its queries.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{CNAME, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use parking_lot::Mutex;

/// The answer for a name.
#[derive(Debug, Clone)]
pub enum Says {
    /// Addresses of both types, with this TTL in seconds.
    Addresses(Vec<IpAddr>, u32),
    /// An alias, with the addresses of its target if they are known here.
    Alias(String),
    /// NXDOMAIN.
    Nothing,
    /// SERVFAIL.
    Failure,
    /// No reply.
    Silence,
    /// A truncated reply by UDP; addresses by TCP.
    LongAddresses(Vec<IpAddr>),
}

/// Addresses with a TTL of zero.
pub fn at(addresses: &[&str]) -> Says {
    at_for(addresses, 0)
}

/// Addresses with this TTL in seconds.
pub fn at_for(addresses: &[&str], seconds: u32) -> Says {
    Says::Addresses(parse(addresses), seconds)
}

pub fn parse(addresses: &[&str]) -> Vec<IpAddr> {
    addresses.iter().map(|address| address.parse().unwrap()).collect()
}

#[derive(Default)]
struct Zone {
    says: HashMap<String, Says>,
    /// The answer for a name after this many queries (of each type).
    later: HashMap<String, (usize, Says)>,
    /// Names without the last dot, and types.
    asked: Vec<(String, RecordType)>,
}

/// A DNS server.
pub struct NameServer {
    pub address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    is_over: Arc<AtomicBool>,
}

impl NameServer {
    pub fn start() -> Self {
        Self::at("127.0.0.1:0")
    }

    /// Serves UDP and TCP at an address.
    pub fn at(address: &str) -> Self {
        let (datagrams, listener) = bind(address);
        let address = datagrams.local_addr().unwrap();
        let server = Self {
            address,
            zone: Arc::default(),
            is_over: Arc::default(),
        };
        let (zone, is_over) = (Arc::clone(&server.zone), Arc::clone(&server.is_over));
        std::thread::spawn(move || {
            let mut question = [0; 4096];
            while let Ok((length, client)) = datagrams.recv_from(&mut question) {
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                if let Some(answer) = answer(&zone, &question[..length], true) {
                    let _ = datagrams.send_to(&answer, client);
                }
            }
        });
        let (zone, is_over) = (Arc::clone(&server.zone), Arc::clone(&server.is_over));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                let zone = Arc::clone(&zone);
                std::thread::spawn(move || stream.map(|stream| serve(&zone, stream)));
            }
        });
        server
    }

    /// Sets the answer for a name and, with `*.` before it, for all names below it.
    pub fn says(&self, name: &str, says: Says) {
        let mut zone = self.zone.lock();
        zone.later.remove(name);
        zone.says.insert(name.to_owned(), says);
    }

    /// Sets the answer for a name after this many further queries.
    pub fn says_after(&self, questions: usize, name: &str, says: Says) {
        let mut zone = self.zone.lock();
        let before = zone.asked.iter().filter(|(asked, _)| asked == name).count();
        zone.later.insert(name.to_owned(), (before + questions, says));
    }

    /// The queries since the last call, in order.
    pub fn take_questions(&self) -> Vec<(String, RecordType)> {
        let mut asked = std::mem::take(&mut self.zone.lock().asked);
        asked.sort();
        asked
    }

    /// The configuration line that selects this resolver.
    pub fn setting(&self) -> String {
        format!("name_servers = [\"{}\"]\n", self.address)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // Wakes both threads.
        if let Ok(socket) = UdpSocket::bind("127.0.0.1:0") {
            let _ = socket.send_to(b"", self.address);
        }
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

/// One port for UDP and TCP; tries another if one of them is taken.
fn bind(address: &str) -> (UdpSocket, TcpListener) {
    for _ in 0..100 {
        let datagrams = UdpSocket::bind(address).unwrap();
        if let Ok(listener) = TcpListener::bind(datagrams.local_addr().unwrap()) {
            return (datagrams, listener);
        }
    }
    panic!("no port is free for both at {address}");
}

fn serve(zone: &Mutex<Zone>, mut stream: TcpStream) {
    let mut length = [0; 2];
    while stream.read_exact(&mut length).is_ok() {
        let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
        if stream.read_exact(&mut question).is_err() {
            return;
        }
        if let Some(answer) = answer(zone, &question, false) {
            let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
            if stream.write_all(&[&length[..], &answer].concat()).is_err() {
                return;
            }
        }
    }
}

/// The reply to a query; nothing for a silent server.
fn answer(zone: &Mutex<Zone>, question: &[u8], is_datagram: bool) -> Option<Vec<u8>> {
    let question = Message::from_vec(question).ok()?;
    let query = question.queries.first()?.clone();
    let name = query.name().to_ascii().trim_end_matches('.').to_ascii_lowercase();
    let mut zone = zone.lock();
    zone.asked.push((name.clone(), query.query_type()));
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.metadata.message_type = MessageType::Response;
    answer.metadata.recursion_desired = question.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    answer.add_query(query.clone());
    let (mut name, mut owner) = (name, query.name().clone());
    loop {
        match zone.of(&name) {
            Says::Addresses(addresses, seconds) => {
                let records = records(&owner, &addresses, seconds, query.query_type());
                if records.is_empty() {
                    // The absence of this type may be cached for as long.
                    answer.add_authority(start_of_authority(seconds));
                }
                answer.add_answers(records);
                break;
            }
            Says::LongAddresses(_) if is_datagram => {
                answer.metadata.truncation = true;
                break;
            }
            Says::LongAddresses(addresses) => {
                answer.add_answers(records(&owner, &addresses, 0, query.query_type()));
                break;
            }
            Says::Alias(other) => {
                let target = Name::from_ascii(format!("{other}.")).unwrap();
                let alias = RData::CNAME(CNAME(target.clone()));
                answer.add_answer(Record::from_rdata(owner, 0, alias));
                (name, owner) = (other, target);
            }
            Says::Nothing => {
                answer.metadata.response_code = ResponseCode::NXDomain;
                break;
            }
            Says::Failure => {
                answer.metadata.response_code = ResponseCode::ServFail;
                break;
            }
            Says::Silence => return None,
        }
        if answer.answers.len() > 20 {
            break;
        }
    }
    answer.to_vec().ok()
}

impl Zone {
    fn of(&self, name: &str) -> Says {
        if let Some((questions, says)) = self.later.get(name)
            && self.asked.iter().filter(|(asked, _)| asked == name).count() > *questions
        {
            return says.clone();
        }
        let mut below = name;
        loop {
            let pattern = if below == name {
                name.to_owned()
            } else {
                format!("*.{below}")
            };
            if let Some(says) = self.says.get(&pattern) {
                return says.clone();
            }
            match below.split_once('.') {
                Some((_, rest)) => below = rest,
                None => return Says::Nothing,
            }
        }
    }
}

/// Sets how long the absence may be cached, in seconds.
fn start_of_authority(seconds: u32) -> Record {
    let zone = Name::from_ascii("example.").unwrap();
    let [refresh, retry, expire] = [3600; 3];
    let soa = SOA::new(zone.clone(), zone.clone(), 1, refresh, retry, expire, seconds);
    Record::from_rdata(zone, seconds, RData::SOA(soa))
}

fn records(owner: &Name, addresses: &[IpAddr], seconds: u32, wanted: RecordType) -> Vec<Record> {
    let data = addresses.iter().map(|address| match *address {
        IpAddr::V4(address) => RData::from(address),
        IpAddr::V6(address) => RData::from(address),
    });
    let records = data.map(|data| Record::from_rdata(owner.clone(), seconds, data));
    records.filter(|record| record.record_type() == wanted).collect()
}
