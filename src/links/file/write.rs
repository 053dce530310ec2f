//! Writing links.

use std::io::{self, Write};

use serde::Serialize;

use crate::links::file::{FIELDS, Format};
use crate::model::{ShortLink, Timestamp};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    id: &'a str,
    created_at: i64,
    updated_at: i64,
    expires_at: Option<i64>,
    partner_id: u32,
    user_id: Option<&'a str>,
    name: Option<&'a str>,
    system_name: &'a str,
    full_url: &'a str,
    unique_id: Option<&'a str>,
    status: u8,
}

impl<'a> From<&'a ShortLink> for Row<'a> {
    fn from(link: &'a ShortLink) -> Self {
        Self {
            id: link.id.as_str(),
            created_at: link.created_at.as_unix(),
            updated_at: link.updated_at.as_unix(),
            expires_at: link.expires_at.map(Timestamp::as_unix),
            partner_id: link.partner_id.0,
            user_id: link.user_id.as_deref(),
            name: link.name.as_deref(),
            system_name: &link.system_name,
            full_url: &link.full_url,
            unique_id: link.unique_id.as_deref(),
            status: link.status.number(),
        }
    }
}

/// Writes links as lines.
pub struct Writer<W: Write>(Kind<W>);

enum Kind<W: Write> {
    JsonLines(W),
    Csv(Box<csv::Writer<W>>),
}

impl<W: Write> Writer<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// When it cannot be written to.
    pub fn new(format: Format, inner: W) -> io::Result<Self> {
        Ok(Self(match format {
            Format::JsonLines => Kind::JsonLines(inner),
            Format::Csv => {
                let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(inner);
                writer.write_record(FIELDS)?;
                Kind::Csv(Box::new(writer))
            }
        }))
    }

    /// Writes a link.
    ///
    /// # Errors
    /// When the file cannot be written to.
    pub fn write(&mut self, link: &ShortLink) -> io::Result<()> {
        let row = Row::from(link);
        match &mut self.0 {
            Kind::JsonLines(inner) => {
                serde_json::to_writer(&mut *inner, &row)?;
                inner.write_all(b"\n")
            }
            Kind::Csv(writer) => Ok(writer.serialize(row)?),
        }
    }

    /// Ends the file.
    ///
    /// # Errors
    /// When the file cannot be written to.
    pub fn finish(self) -> io::Result<()> {
        match self.0 {
            Kind::JsonLines(mut inner) => inner.flush(),
            Kind::Csv(mut writer) => writer.flush(),
        }
    }
}
