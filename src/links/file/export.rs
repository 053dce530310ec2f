//! Writing links to a file.

use std::io::Write;

use crate::links::file;
use crate::model::PartnerId;
use crate::store::{CopyError, Snapshot, StoreError};

/// Writes the links of a partner, or all, by id. Leaves out damaged links and returns how many.
pub fn export(
    snapshot: &Snapshot,
    partner: Option<PartnerId>,
    mut writer: file::LinkWriter<impl Write>,
    mut on_link: impl FnMut(),
) -> Result<u64, CopyError> {
    let mut damaged = 0;
    for entry in snapshot.iter()? {
        match entry.and_then(|(_, link)| link) {
            Ok(link) if partner.is_none_or(|partner| partner == link.partner_id) => writer.write(&link)?,
            Ok(_) => {}
            Err(error @ StoreError::Damaged { .. }) => {
                tracing::error!(%error, "export leaves out a link");
                damaged += 1;
            }
            Err(error) => return Err(error.into()),
        }
        on_link();
    }
    writer.finish()?;
    Ok(damaged)
}
