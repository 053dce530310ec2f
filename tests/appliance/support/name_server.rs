//! A server of the domain name system that says what a test wants, and counts what it was asked.

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

/// What is said of a name.
#[derive(Debug, Clone)]
pub enum Says {
    /// Addresses of both kinds, for so many seconds.
    Addresses(Vec<IpAddr>, u32),
    /// Another name, and its addresses with it if they are known here.
    Alias(String),
    /// There is no such name.
    Nothing,
    /// That it cannot say.
    Failure,
    /// Nothing at all.
    Silence,
    /// By UDP, that the answer is too long; by TCP, addresses.
    LongAddresses(Vec<IpAddr>),
}

/// Addresses that are to be forgotten at once.
pub fn at(addresses: &[&str]) -> Says {
    at_for(addresses, 0)
}

/// Addresses that may be kept for so many seconds.
pub fn at_for(addresses: &[&str], seconds: u32) -> Says {
    Says::Addresses(parse(addresses), seconds)
}

pub fn parse(addresses: &[&str]) -> Vec<IpAddr> {
    addresses.iter().map(|address| address.parse().unwrap()).collect()
}

#[derive(Default)]
struct Zone {
    says: HashMap<String, Says>,
    /// What is said of a name once it was asked for so many times (of each type).
    later: HashMap<String, (usize, Says)>,
    /// Names without the last dot, and types.
    asked: Vec<(String, RecordType)>,
}

/// A name server.
pub struct NameServer {
    pub address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    is_over: Arc<AtomicBool>,
}

impl NameServer {
    pub fn start() -> Self {
        Self::at("127.0.0.1:0")
    }

    /// Serves by UDP and TCP at an address.
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

    /// From now on, this is said of a name and, with `*.` before it, of all below it.
    pub fn says(&self, name: &str, says: Says) {
        let mut zone = self.zone.lock();
        zone.later.remove(name);
        zone.says.insert(name.to_owned(), says);
    }

    /// This is said of a name after it was asked for so many times from now on.
    pub fn says_after(&self, questions: usize, name: &str, says: Says) {
        let mut zone = self.zone.lock();
        let before = zone.asked.iter().filter(|(asked, _)| asked == name).count();
        zone.later.insert(name.to_owned(), (before + questions, says));
    }

    /// What it was asked since this was called last, in order.
    pub fn take_questions(&self) -> Vec<(String, RecordType)> {
        let mut asked = std::mem::take(&mut self.zone.lock().asked);
        asked.sort();
        asked
    }

    /// The line of the settings by which it is asked.
    pub fn setting(&self) -> String {
        format!("name_servers = [\"{}\"]\n", self.address)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // So that both threads notice.
        if let Ok(socket) = UdpSocket::bind("127.0.0.1:0") {
            let _ = socket.send_to(b"", self.address);
        }
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

/// The same port for both; where one was taken meanwhile, another one will do.
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

/// What is said to a question; nothing if that is what is wanted.
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
                    // That there is none of this type may be kept for as long.
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

/// Says for how many seconds it holds that there is nothing.
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
