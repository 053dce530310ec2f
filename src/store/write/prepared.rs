//! Links that are to be written, in a file without a name: read and checked before the writer is taken, and however
//! many.

use std::io::{self, BufReader, BufWriter, Read as _, Seek as _, Write as _};
use std::path::Path;

use tempfile::SpooledTempFile;

use crate::model::{LinkId, ShortLink};
use crate::store::format::record;

/// So much is kept in memory: few files are as long.
const IN_MEMORY_BYTES: usize = 256 * 1024;

/// A link, and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    pub number: u64,
    /// Whether the line says when it was made.
    pub is_dated: bool,
    /// Whether the line says when it starts.
    pub has_start: bool,
    pub link: ShortLink,
}

#[derive(Debug)]
pub struct Preparing(BufWriter<SpooledTempFile>);

/// Gives them back, in their order.
#[derive(Debug)]
pub struct PreparedLinks(BufReader<SpooledTempFile>);

impl Preparing {
    pub fn in_folder(folder: &Path) -> Self {
        Self(BufWriter::new(tempfile::spooled_tempfile_in(IN_MEMORY_BYTES, folder)))
    }

    pub fn push(&mut self, prepared: &Prepared) -> io::Result<()> {
        let Prepared {
            number,
            is_dated,
            has_start,
            link,
        } = prepared;
        let record = record::encode(link).map_err(io::Error::other)?;
        let id = link.id.as_bytes();
        let id_bytes = u8::try_from(id.len()).map_err(io::Error::other)?;
        let record_bytes = u32::try_from(record.len()).map_err(io::Error::other)?;
        self.0.write_all(&number.to_be_bytes())?;
        self.0
            .write_all(&[u8::from(*is_dated), u8::from(*has_start), id_bytes])?;
        self.0.write_all(&record_bytes.to_be_bytes())?;
        self.0.write_all(id)?;
        self.0.write_all(&record)
    }

    pub fn finish(self) -> io::Result<PreparedLinks> {
        let mut file = self.0.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.rewind()?;
        Ok(PreparedLinks(BufReader::new(file)))
    }
}

impl PreparedLinks {
    /// Begins again.
    pub fn rewind(&mut self) -> io::Result<()> {
        self.0.rewind()
    }

    fn read(&mut self) -> io::Result<Option<Prepared>> {
        let mut number = [0; 8];
        match self.0.read_exact(&mut number) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let (mut flags, mut length) = ([0; 3], [0; 4]);
        self.0.read_exact(&mut flags)?;
        self.0.read_exact(&mut length)?;
        let [is_dated, has_start, id_bytes] = flags;
        let mut id = vec![0; usize::from(id_bytes)];
        self.0.read_exact(&mut id)?;
        let mut record = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut record)?;
        let id = LinkId::from_bytes(&id).map_err(io::Error::other)?;
        Ok(Some(Prepared {
            number: u64::from_be_bytes(number),
            is_dated: is_dated != 0,
            has_start: has_start != 0,
            link: record::decode(id, &record).map_err(io::Error::other)?,
        }))
    }
}

impl Iterator for PreparedLinks {
    type Item = io::Result<Prepared>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}
