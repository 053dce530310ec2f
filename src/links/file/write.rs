//! Writing links.

use std::io::{self, Write};

use crate::links::file::{FIELDS, FileFormat, LinkJson};
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
        let row = LinkJson::from(link);
        match &mut self.0 {
            Kind::JsonLines(inner) => {
                serde_json::to_writer(&mut *inner, &row)?;
                inner.write_all(b"\n")
            }
            Kind::Csv(writer) => Ok(writer.serialize(row)?),
        }
    }

    pub fn finish(self) -> io::Result<()> {
        match self.0 {
            Kind::JsonLines(mut inner) => inner.flush(),
            Kind::Csv(mut writer) => writer.flush(),
        }
    }
}
