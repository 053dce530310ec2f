//! Writing links.

use std::borrow::Cow;
use std::io::{self, Write};

use crate::links::file::{FIELDS, FileFormat, LinkJson, NEVER};
use crate::model::ShortLink;

pub struct LinkWriter<W: Write>(Kind<W>);

enum Kind<W: Write> {
    JsonLines(W),
    Csv(Box<csv::Writer<W>>),
}

impl<W: Write> LinkWriter<W> {
    pub fn new(format: FileFormat, inner: W) -> io::Result<Self> {
        Ok(Self(match format {
            FileFormat::JsonLines => Kind::JsonLines(inner),
            FileFormat::Csv => {
                let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(inner);
                writer.write_record(FIELDS)?;
                Kind::Csv(Box::new(writer))
            }
        }))
    }

    pub fn write(&mut self, link: &ShortLink) -> io::Result<()> {
        match &mut self.0 {
            Kind::JsonLines(inner) => {
                serde_json::to_writer(&mut *inner, &LinkJson::from(link))?;
                inner.write_all(b"\n")
            }
            Kind::Csv(writer) => Ok(writer.write_record(csv_record(link).iter().map(|value| value.as_bytes()))?),
        }
    }

    pub fn finish(self) -> io::Result<()> {
        match self.0 {
            Kind::JsonLines(mut inner) => inner.flush(),
            Kind::Csv(mut writer) => writer.flush(),
        }
    }
}

/// In the order of [`FIELDS`].
fn csv_record(link: &ShortLink) -> [Cow<'_, str>; FIELDS.len()] {
    let row = LinkJson::from(link);
    let number = |number: i64| Cow::Owned(number.to_string());
    let starts_at = if link.is_retired() {
        Cow::Borrowed(NEVER)
    } else {
        row.starts_at.map(number).unwrap_or_default()
    };
    [
        row.id,
        number(row.created_at),
        number(row.updated_at),
        row.expires_at.map(number).unwrap_or_default(),
        number(row.partner_id.into()),
        row.user_id.unwrap_or_default(),
        row.name.unwrap_or_default(),
        row.system_name,
        row.full_url,
        row.unique_id.unwrap_or_default(),
        number(row.status.into()),
        starts_at,
    ]
}
