//! The links that are measured with: any number of them, always the same, without being kept in memory.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::json;

/// Grows when the same numbers make other links, so that stores of before are not taken for those of now.
pub(crate) const GENERATION: u32 = 2;
/// The partner whose links they are.
pub(crate) const PARTNER: u32 = 1_234_567;
/// Characters of an id.
pub(crate) const ID_BYTES: usize = 8;
/// Bytes of a destination.
pub(crate) const DESTINATION_BYTES: usize = 120;
/// Users among whom varied links are divided.
pub(crate) const USERS: u64 = 20;
/// System names of varied links.
pub(crate) const SYSTEM_NAMES: u64 = 1_000;
/// The first creation of a varied link, in unix seconds: 2024-01-01.
pub(crate) const FIRST_CREATED: i64 = 1_704_067_200;
/// Seconds over which creations are spread: two years.
pub(crate) const CREATED_SECONDS: i64 = 2 * 365 * DAY;
/// Seconds of a day.
pub(crate) const DAY: i64 = 86_400;
/// Hosts that named links lead to.
pub(crate) const HOSTS: u64 = 2_000;
/// The first so many named links work, so that they can be measured with; the others are in every state.
pub(crate) const WORKING: u64 = 100_000;
/// The last second for which a named link can work, long after anybody measures: 2100-01-01.
const FAR: i64 = 4_102_444_800;

/// Of names. Each is in a tenth of them, for each name has two.
pub(crate) const WORDS: [&str; 20] = [
    "Algebra",
    "Anatomy",
    "Biology",
    "Botany",
    "Chemistry",
    "Commencement",
    "Economics",
    "Ethics",
    "Geology",
    "History",
    "Keynote",
    "Lecture",
    "Linguistics",
    "Optics",
    "Orientation",
    "Physics",
    "Seminar",
    "Statistics",
    "Vorlesung",
    "הרצאה",
];

const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
/// How many ids there are: 36 to the 8th.
const ID_SPACE: u64 = 2_821_109_907_456;
/// Has no factor in common with the former, so that no two numbers make the same id.
const ID_FACTOR: u64 = 1_657_283_947_561;

/// What the links of a store are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// All enabled and without expiry: for redirects.
    Plain,
    /// Several users, names, statuses, expiries: for lists.
    Varied,
    /// Names that people search for, many hosts, previews, every state: for the console.
    Named,
}

impl Kind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Varied => "varied",
            Self::Named => "named",
        }
    }
}

/// The id of a link. Neighbours are far apart, as drawn ids are.
pub(crate) fn id(number: u64) -> String {
    let mut rest = (u128::from(number) * u128::from(ID_FACTOR) % u128::from(ID_SPACE)) as u64;
    let mut id = String::with_capacity(ID_BYTES);
    for _ in 0..ID_BYTES {
        let digit = DIGITS.get((rest % 36) as usize).copied().unwrap_or(b'0');
        id.push(char::from(digit));
        rest /= 36;
    }
    id
}

/// An id that none of the first 10^11 links has.
pub(crate) fn unknown_id(number: u64) -> String {
    id(100_000_000_000 + number)
}

/// Where it leads: a URL of 120 bytes that nothing can compress or share.
pub(crate) fn destination(number: u64) -> String {
    let mut url = format!("https://video.example.com/watch/{}?token=", id(number));
    let mut state = number;
    while url.len() < DESTINATION_BYTES {
        state = mixed(state);
        let random = format!("{state:016x}");
        let missing = DESTINATION_BYTES - url.len();
        url.push_str(random.get(..missing.min(random.len())).unwrap_or_default());
    }
    url
}

/// The finaliser of splitmix64: any number to one that looks random.
pub(crate) const fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A whole number below `limit` that depends on the link and on what is asked about it.
fn draw(number: u64, what: u64, limit: u64) -> u64 {
    mixed(mixed(number) ^ what) % limit
}

pub(crate) fn user(number: u64) -> String {
    format!("user{}@example.com", draw(number, 1, USERS))
}

pub(crate) fn system_name(number: u64) -> String {
    format!("SYSTEM-NAME-{}", draw(number, 2, SYSTEM_NAMES))
}

/// A tenth of the varied links have one.
pub(crate) fn unique_id(number: u64) -> Option<String> {
    number.is_multiple_of(10).then(|| format!("unique-{number}"))
}

pub(crate) fn host(number: u64) -> String {
    format!("host{}.example.com", draw(number, 8, HOSTS))
}

fn name(number: u64) -> String {
    let word = |what| {
        WORDS
            .get(draw(number, what, WORDS.len() as u64) as usize)
            .copied()
            .unwrap_or_default()
    };
    format!("{} {} {number}", word(9), word(10))
}

/// Where a named link leads.
pub(crate) fn named_destination(number: u64) -> String {
    destination(number).replace("video.example.com", &host(number))
}

/// What a named link has of its own.
fn named(number: u64, created: i64) -> serde_json::Value {
    let system_name = match draw(number, 2, 10) {
        0..6 => "KMC-PREVIEW",
        6..8 => "LECTURE",
        _ => "EVENT",
    };
    let (status, starts, expires) = match draw(number, 7, 100) {
        _ if number < WORKING => (2, None, None),
        0..70 => (2, None, None),
        70..80 => (
            2,
            None,
            Some(created + draw(number, 6, 90 * DAY.unsigned_abs()).cast_signed()),
        ),
        80..88 => (2, None, Some(FAR)),
        88..90 => (2, Some(FAR - DAY), Some(FAR)),
        90..98 => (1, None, None),
        _ => (3, None, None),
    };
    json!({
        "fullUrl": named_destination(number),
        "userId": user(number),
        "name": name(number),
        "systemName": system_name,
        "createdAt": created,
        "updatedAt": created + draw(number, 4, 90 * DAY.unsigned_abs()).cast_signed(),
        "startsAt": starts,
        "expiresAt": expires,
        "status": status,
    })
}

fn line(kind: Kind, number: u64) -> serde_json::Value {
    let mut link = json!({ "id": id(number), "partnerId": PARTNER, "fullUrl": destination(number) });
    let created = FIRST_CREATED + draw(number, 3, CREATED_SECONDS.unsigned_abs()).cast_signed();
    let more = match kind {
        Kind::Plain => json!({ "systemName": "BENCHMARK", "createdAt": FIRST_CREATED, "status": 2 }),
        Kind::Varied => json!({
            "userId": user(number),
            "systemName": system_name(number),
            "uniqueId": unique_id(number),
            "createdAt": created,
            "updatedAt": created + draw(number, 4, 90 * DAY.unsigned_abs()).cast_signed(),
            "expiresAt": (draw(number, 5, 2) == 0)
                .then(|| created + draw(number, 6, 3 * 365 * DAY.unsigned_abs()).cast_signed()),
            "status": match draw(number, 7, 100) {
                0..90 => 2,
                90..98 => 1,
                _ => 3,
            },
        }),
        Kind::Named => named(number, created),
    };
    if let (Some(link), serde_json::Value::Object(more)) = (link.as_object_mut(), more) {
        link.extend(more);
    }
    link
}

/// Writes the first `count` links as JSON Lines, as `tinyd import` reads them.
pub(crate) fn write_lines(path: &Path, kind: Kind, count: u64) -> Result<()> {
    write_lines_of(path, kind, 0..count)
}

/// Writes those with these numbers.
pub(crate) fn write_lines_of(path: &Path, kind: Kind, numbers: Range<u64>) -> Result<()> {
    let mut numbers: Vec<_> = numbers.collect();
    if kind != Kind::Varied {
        // In the order of the store, in which millions are imported in minutes instead of hours.
        numbers.sort_by_cached_key(|&number| id(number));
    }
    write(path, |file| {
        for number in numbers {
            serde_json::to_writer(&mut *file, &line(kind, number))?;
            file.write_all(b"\n")?;
        }
        Ok(())
    })
}

/// Writes ids, one a line.
pub(crate) fn write_ids(path: &Path, ids: impl Iterator<Item = String>) -> Result<()> {
    write(path, |file| {
        for id in ids {
            writeln!(file, "{id}")?;
        }
        Ok(())
    })
}

/// Writes a file through a buffer.
pub(crate) fn write(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> Result<()>) -> Result<()> {
    let fill_and_flush = || {
        let mut file = BufWriter::new(File::create(path)?);
        fill(&mut file)?;
        Ok::<_, anyhow::Error>(file.flush()?)
    };
    fill_and_flush().with_context(|| format!("writing {}", path.display()))
}
