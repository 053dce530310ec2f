//! Reading links, with a reason for everything that is wrong.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::Deserialize;

use crate::links::file::{FIELDS, FileFormat, NEVER, STARTS_AT};
use crate::model::validate::{
    self, FULL_URL, NAME, SYSTEM_NAME, TextRule, UNIQUE_ID, USER_ID, without_byte_order_mark,
};
use crate::model::{Destination, LinkId, PartnerId, ShortLink, Status, Timestamp, whole_number};

/// Longest line: a link with the longest destination, every character escaped.
const LINE_MAX_BYTES: u64 = 128 * 1024;
/// Longest reason: it may quote the input.
const REASON_MAX_BYTES: usize = 300;
/// How much of an invalid id a reason quotes.
const ID_SHOWN_BYTES: usize = 40;
/// Spreadsheets write a semicolon where numbers have a decimal comma.
const DELIMITERS: [u8; 3] = [b',', b';', b'\t'];
/// Spreadsheets save "Unicode text" as UTF-16.
const UTF_16: &str =
    "the file is UTF-16, expected UTF-8: save it as \"CSV UTF-8\", or convert it with iconv -f UTF-16 -t UTF-8";
/// The start of a retired id as spreadsheets write it, `2.53402E+11`, where an older export had the number.
const NEVER_ROUNDED: i64 = 253_402_000_000;
const CSV_BUFFER_BYTES: u64 = 64 * 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Counted from 1.
    pub number: u64,
    /// The link, or why the line is invalid.
    pub link: Result<ShortLink, String>,
    /// Whether the line has a creation time.
    pub is_dated: bool,
    /// Whether the line has a start, or says that there is none.
    pub has_start: bool,
}

/// Values of fields that a line leaves out.
#[derive(Debug, Clone, Copy)]
pub struct Defaults {
    pub now: Timestamp,
    /// Without one, each line must name its own.
    pub partner: Option<PartnerId>,
}

/// A whole number. Drops a fraction, as the API does: data frames write a column with gaps as fractions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Whole(i64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let number = serde_json::Number::deserialize(deserializer)?;
        let whole = whole_number(&number.to_string());
        whole
            .map(Self)
            .ok_or_else(|| D::Error::custom("expected a whole number of at most 64 bits"))
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "a JSON object")]
struct Row {
    id: String,
    created_at: Option<Whole>,
    updated_at: Option<Whole>,
    expires_at: Option<Whole>,
    partner_id: Option<Whole>,
    user_id: Option<String>,
    name: Option<String>,
    system_name: String,
    full_url: String,
    unique_id: Option<String>,
    status: Option<Whole>,
    #[serde(deserialize_with = "nullable", default)]
    starts_at: Option<Option<Whole>>,
    /// The API's lists have it.
    #[serde(rename = "objectType")]
    _object_type: Option<String>,
}

/// A field whose null is a value.
fn nullable<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Option<Whole>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// Reads the lines of a file, without empty ones. Fails if the file is UTF-16 or the header line of a CSV file is
/// invalid.
pub fn read<'r>(
    format: FileFormat,
    mut file: impl BufRead + Send + 'r,
    defaults: Defaults,
) -> Result<Box<dyn Iterator<Item = io::Result<Line>> + Send + 'r>, String> {
    let start = match start_of(&mut file) {
        Ok(start) => start,
        Err(error) => return Ok(Box::new(std::iter::once(Err(error)))),
    };
    // Also without a byte order mark: every second byte of a field name is zero.
    if let [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, _, ..] | [_, 0, ..] = start.as_slice() {
        return Err(UTF_16.to_owned());
    }
    let start = without_byte_order_mark(&start).to_owned();
    let file = io::Cursor::new(start).chain(file);
    Ok(match format {
        FileFormat::JsonLines => Box::new(json_lines(file, defaults)),
        FileFormat::Csv => Box::new(csv_lines(file, defaults)?),
    })
}

fn start_of(file: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut start = Vec::new();
    file.take(3).read_to_end(&mut start)?;
    Ok(start)
}

fn json_lines(mut file: impl BufRead + Send, defaults: Defaults) -> impl Iterator<Item = io::Result<Line>> + Send {
    let mut number = 0;
    let mut bytes = Vec::new();
    std::iter::from_fn(move || {
        loop {
            bytes.clear();
            number += 1;
            // One byte more than allowed shows that there is more.
            match file.by_ref().take(LINE_MAX_BYTES + 1).read_until(b'\n', &mut bytes) {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) => return Some(Err(error)),
            }
            if bytes.len() as u64 > LINE_MAX_BYTES && !bytes.ends_with(b"\n") {
                if let Err(error) = file.skip_until(b'\n') {
                    return Some(Err(error));
                }
                let row = Err(format!("longer than {LINE_MAX_BYTES} bytes"));
                return Some(Ok(line_of(number, row, defaults)));
            }
            let line = bytes.trim_ascii();
            if line.is_empty() {
                continue;
            }
            let row = std::str::from_utf8(line)
                .map_err(|_| "not UTF-8".to_owned())
                // serde would accept an array as a struct.
                .and_then(|text| {
                    if text.starts_with('[') {
                        Err("expected a JSON object".to_owned())
                    } else {
                        Ok(text)
                    }
                })
                .and_then(|text| serde_json::from_str::<Row>(text).map_err(|error| describe(&error)));
            return Some(Ok(line_of(number, row, defaults)));
        }
    })
}

/// Only the column of serde_json's position means something here.
fn describe(error: &serde_json::Error) -> String {
    let text = shortened(&error.to_string(), REASON_MAX_BYTES).to_owned();
    match text.split_once(" at line 1 column ") {
        Some((what, column)) => format!("{what} (column {column})"),
        None => text,
    }
}

/// The header line of a CSV file, and the delimiter.
struct Beginning {
    delimiter: u8,
    line: Vec<u8>,
    /// Whether it follows a line such as Excel's `sep=;`.
    is_second: bool,
}

impl Beginning {
    fn read(file: &mut impl BufRead) -> Result<Self, String> {
        let line = first_line(file)?;
        let named = line.strip_suffix(b"\n").unwrap_or(&line);
        let named = named.strip_suffix(b"\r").unwrap_or(named);
        let quoted = named.strip_prefix(b"\"").and_then(|named| named.strip_suffix(b"\""));
        let named = quoted.unwrap_or(named);
        if let Some(([b's' | b'S', b'e' | b'E', b'p' | b'P', b'='], [delimiter])) = named.split_at_checked(4) {
            if !DELIMITERS.contains(delimiter) {
                return Err(format!(
                    "line 1 says sep={:?}; expected a comma, semicolon or tab",
                    char::from(*delimiter)
                ));
            }
            return Ok(Self {
                delimiter: *delimiter,
                line: first_line(file)?,
                is_second: true,
            });
        }
        // No field name contains a delimiter.
        let delimiter = line.iter().find(|byte| DELIMITERS.contains(byte)).copied();
        Ok(Self {
            delimiter: delimiter.unwrap_or(b','),
            line,
            is_second: false,
        })
    }
}

/// A line with its end, up to the longest line.
fn first_line(file: &mut impl BufRead) -> Result<Vec<u8>, String> {
    let mut line = Vec::new();
    loop {
        let available = file.fill_buf().map_err(|error| error.to_string())?;
        let end = available.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
        let taken = end.map_or(available, |end| available.get(..=end).unwrap_or(available));
        line.extend_from_slice(taken);
        let (count, is_carriage_return) = (taken.len(), taken.ends_with(b"\r"));
        file.consume(count);
        if is_carriage_return {
            let next = file.fill_buf().map_err(|error| error.to_string())?;
            if next.first() == Some(&b'\n') {
                line.push(b'\n');
                file.consume(1);
            }
        }
        if end.is_some() || count == 0 || line.len() as u64 > LINE_MAX_BYTES {
            return Ok(line);
        }
    }
}

fn csv_lines(
    mut file: impl BufRead + Send,
    defaults: Defaults,
) -> Result<impl Iterator<Item = io::Result<Line>> + Send, String> {
    let left = Arc::new(AtomicU64::new(LINE_MAX_BYTES + CSV_BUFFER_BYTES));
    let Beginning {
        delimiter,
        line,
        is_second,
    } = Beginning::read(&mut file)?;
    let breaks = Arc::new(Mutex::new(Breaks {
        before: is_second.into(),
        ..Breaks::default()
    }));
    let number_of_names = if is_second { 2 } else { 1 };
    let bounded = Bounded {
        inner: io::Cursor::new(line).chain(file),
        left: Arc::clone(&left),
        breaks: Arc::clone(&breaks),
    };
    let mut reader = csv::ReaderBuilder::new()
        .buffer_capacity(CSV_BUFFER_BYTES as usize)
        .delimiter(delimiter)
        .from_reader(bounded);
    let names = reader.byte_headers().map_err(|error| error.to_string())?.clone();
    let mut columns = Vec::new();
    for name in &names {
        let name = String::from_utf8_lossy(name).trim().to_owned();
        if !FIELDS.contains(&name.as_str()) {
            return Err(format!(
                "line {number_of_names} names {name:?}; known are {}",
                FIELDS.join(", ")
            ));
        }
        if columns.contains(&name) {
            return Err(format!("line {number_of_names} names {name} twice"));
        }
        columns.push(name);
    }
    for name in ["id", "systemName", "fullUrl"] {
        if !columns.iter().any(|column| column == name) {
            return Err(format!("line {number_of_names} does not name {name}"));
        }
    }
    let mut record = csv::ByteRecord::new();
    Ok(std::iter::from_fn(move || {
        left.store(LINE_MAX_BYTES + CSV_BUFFER_BYTES, Ordering::Relaxed);
        let read = reader.read_byte_record(&mut record);
        let last = breaks.lock().line_before(reader.position().byte());
        // A record with line breaks inside began that many lines earlier.
        let inside: usize = record.iter().map(line_breaks).sum();
        let number = last.saturating_sub(inside as u64);
        match read {
            Ok(false) => None,
            Ok(true) => Some(Ok(line_of(number, csv_row(&columns, &record), defaults))),
            Err(error) => Some(match error.into_kind() {
                csv::ErrorKind::Io(error) => Err(error),
                csv::ErrorKind::UnequalLengths { expected_len, len, .. } => Ok(line_of(
                    number,
                    Err(format!("{len} values for {expected_len} names")),
                    defaults,
                )),
                kind => Ok(line_of(number, Err(format!("{kind:?}")), defaults)),
            }),
        }
    }))
}

fn line_breaks(text: &[u8]) -> usize {
    let of_both = text.windows(2).filter(|two| *two == b"\r\n").count();
    text.iter().filter(|byte| matches!(byte, b'\r' | b'\n')).count() - of_both
}

/// Bounds what is read at a time: an unclosed quote would read the whole file into memory.
struct Bounded<R> {
    inner: R,
    left: Arc<AtomicU64>,
    breaks: Arc<Mutex<Breaks>>,
}

/// Where the lines of a file end. The csv crate counts CR LF and empty lines differently.
#[derive(Default)]
struct Breaks {
    read: u64,
    /// Line breaks before `positions`.
    before: u64,
    is_after_return: bool,
    positions: VecDeque<u64>,
}

impl Breaks {
    fn note(&mut self, bytes: &[u8]) {
        for (position, byte) in (self.read..).zip(bytes) {
            if *byte == b'\n' {
                self.positions.push_back(position);
            } else if self.is_after_return {
                self.positions.push_back(position - 1);
            }
            self.is_after_return = *byte == b'\r';
        }
        self.read += bytes.len() as u64;
    }

    /// The number of the line that ends at `end`: the byte after CR or LF, or the last byte.
    fn line_before(&mut self, end: u64) -> u64 {
        let mut is_broken = false;
        while let Some(position) = self.positions.pop_front_if(|position| *position < end) {
            self.before += 1;
            is_broken = position + 1 == end;
        }
        if is_broken { self.before } else { self.before + 1 }
    }
}

impl<R: io::Read> io::Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.left.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
        let most = buffer.len().min(left);
        let room = buffer.get_mut(..most).filter(|room| !room.is_empty()).ok_or_else(|| {
            let text = format!("a line of more than {LINE_MAX_BYTES} bytes, or a quote that is not closed");
            io::Error::new(io::ErrorKind::InvalidData, text)
        })?;
        let read = self.inner.read(room)?;
        self.breaks.lock().note(buffer.get(..read).unwrap_or_default());
        self.left.fetch_sub(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

fn csv_row(columns: &[String], record: &csv::ByteRecord) -> Result<Row, String> {
    let mut row = Row::default();
    for (name, value) in columns.iter().zip(record) {
        let value = std::str::from_utf8(value).map_err(|_| format!("{name} is not UTF-8"))?;
        if value.is_empty() {
            if name == STARTS_AT {
                row.starts_at = Some(None);
            }
            continue;
        }
        let number = || {
            whole_number(value)
                .map(Whole)
                .ok_or_else(|| format!("{name}: expected a whole number"))
        };
        match name.as_str() {
            "id" => value.clone_into(&mut row.id),
            "createdAt" => row.created_at = Some(number()?),
            "updatedAt" => row.updated_at = Some(number()?),
            "expiresAt" => row.expires_at = Some(number()?),
            "partnerId" => row.partner_id = Some(number()?),
            "userId" => row.user_id = Some(value.to_owned()),
            "name" => row.name = Some(value.to_owned()),
            "systemName" => value.clone_into(&mut row.system_name),
            "fullUrl" => value.clone_into(&mut row.full_url),
            "uniqueId" => row.unique_id = Some(value.to_owned()),
            "status" => row.status = Some(number()?),
            STARTS_AT if value.eq_ignore_ascii_case(NEVER) => {
                row.starts_at = Some(Some(Whole(Timestamp::NEVER.as_unix())));
            }
            STARTS_AT => row.starts_at = Some(Some(number()?)),
            other => return Err(format!("unknown field {other}")),
        }
    }
    Ok(row)
}

fn line_of(number: u64, row: Result<Row, String>, defaults: Defaults) -> Line {
    let is_dated = row.as_ref().is_ok_and(|row| row.created_at.is_some());
    let has_start = row.as_ref().is_ok_and(|row| row.starts_at.is_some());
    Line {
        number,
        link: row.and_then(|row| link_of(row, defaults)),
        is_dated,
        has_start,
    }
}

/// Checks a row by the API's rules (docs/kaltura-api.md#kalturashortlink).
fn link_of(row: Row, defaults: Defaults) -> Result<ShortLink, String> {
    let id: LinkId = row
        .id
        .parse()
        .map_err(|error| format!("id {:?}: {error}", shortened(&row.id, ID_SHOWN_BYTES)))?;
    let text = |rule: &TextRule, text: Option<&str>| {
        text.map(|text| rule.value(text).map_err(|error| format!("{}: {error}", rule.field)))
            .transpose()
            .map(Option::flatten)
    };
    let user_id = text(&USER_ID, row.user_id.as_deref())?;
    let name = text(&NAME, row.name.as_deref())?;
    text(&SYSTEM_NAME, Some(&row.system_name))?;
    let unique_id = text(&UNIQUE_ID, row.unique_id.as_deref())?;
    text(&FULL_URL, Some(&row.full_url))?;
    Destination::parse(&row.full_url).map_err(|error| format!("fullUrl: {error}"))?;
    let status = row
        .status
        .map_or_else(|| Status::Enabled.number().into(), |Whole(number)| number);
    let partner_of = |Whole(number)| {
        validate::partner_id(number).ok_or_else(|| format!("partnerId: {number} is not the number of a partner"))
    };
    let partner_id = row.partner_id.map(partner_of).transpose()?;
    let seconds = |whole: Option<Whole>| whole.map(|Whole(seconds)| seconds);
    let created_at = time("createdAt", seconds(row.created_at))?.unwrap_or(defaults.now);
    // Stricter than the API, which takes times before the year 0 too.
    let optional_time = |field: &str, whole: Option<Whole>| {
        let given = seconds(whole).map(validate::optional_time).transpose();
        let given = given.map_err(|error| format!("{field}: {error}"))?.flatten();
        time(field, given.map(Timestamp::as_unix))
    };
    let status = Status::from_number(status).ok_or("status: expected 1 (disabled), 2 (enabled) or 3 (deleted)")?;
    let starts_at = match row.starts_at.flatten() {
        Some(Whole(seconds)) if Timestamp::from_unix(seconds) == Timestamp::NEVER => Some(Timestamp::NEVER),
        Some(Whole(NEVER_ROUNDED)) if status == Status::Deleted => Some(Timestamp::NEVER),
        other => optional_time(STARTS_AT, other)?,
    };
    if starts_at == Some(Timestamp::NEVER) && status != Status::Deleted {
        return Err(format!(
            "{STARTS_AT}: {NEVER} ({}) is for deleted links, whose id is retired",
            Timestamp::NEVER
        ));
    }
    let expires_at = optional_time("expiresAt", row.expires_at)?;
    // By which the id is known to be retired where its record is damaged.
    if starts_at == Some(Timestamp::NEVER) && expires_at.is_some() {
        return Err("expiresAt: a link whose id is retired has none".to_owned());
    }
    let updated_at = time("updatedAt", seconds(row.updated_at))?;
    // Retired ids have one time for both, by which they are known even where their records are damaged.
    let updated_at = updated_at.filter(|_| starts_at != Some(Timestamp::NEVER));
    Ok(ShortLink {
        id,
        created_at,
        updated_at: updated_at.unwrap_or(created_at),
        starts_at,
        expires_at,
        partner_id: partner_id
            .or(defaults.partner)
            .ok_or("partnerId: missing, and the import names no partner")?,
        user_id,
        name,
        system_name: row.system_name,
        full_url: row.full_url,
        unique_id,
        status,
    })
}

fn time(field: &str, seconds: Option<i64>) -> Result<Option<Timestamp>, String> {
    let time = seconds.map(validate::time).transpose();
    time.map_err(|error| format!("{field}: {error}"))
}

fn shortened(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or(text)
}
