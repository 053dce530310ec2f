//! Identifiers of links and partners.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

/// Shortest id that a link can have, in bytes. Imported ids can be this short (docs/kaltura-api.md#ids).
pub const ID_MIN_BYTES: usize = 4;
/// Longest id that a link can have, in bytes (docs/kaltura-api.md#ids).
pub const ID_MAX_BYTES: usize = 20;

/// The id of a short link: 4 to 20 characters of `0-9a-z`, held inline so that a lookup allocates nothing.
///
/// Ordered as its text is, which is also the order of the store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct LinkId {
    // Zero-padded. No id contains a zero byte, so comparing the padded bytes compares the texts.
    bytes: [u8; ID_MAX_BYTES],
    len: u8,
}

/// The text is not an id of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an id has {ID_MIN_BYTES} to {ID_MAX_BYTES} characters of 0-9 and a-z")]
pub struct InvalidId;

impl LinkId {
    pub fn from_bytes(text: &[u8]) -> Result<Self, InvalidId> {
        if !(ID_MIN_BYTES..=ID_MAX_BYTES).contains(&text.len()) {
            return Err(InvalidId);
        }
        let mut bytes = [0; ID_MAX_BYTES];
        for (slot, &byte) in bytes.iter_mut().zip(text) {
            if !(byte.is_ascii_digit() || byte.is_ascii_lowercase()) {
                return Err(InvalidId);
            }
            *slot = byte;
        }
        Ok(Self {
            bytes,
            len: u8::try_from(text.len()).map_err(|_| InvalidId)?,
        })
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&[])
    }

    /// The id, padded with zeros: ordered as the ids are.
    pub const fn padded(&self) -> [u8; ID_MAX_BYTES] {
        self.bytes
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or("")
    }
}

// Numbers are hashed in a fraction of the time that as many bytes take; and ids with the same bytes are the same.
impl Hash for LinkId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [most @ .., a, b, c, d] = self.bytes;
        state.write_u128(u128::from_ne_bytes(most));
        state.write_u32(u32::from_ne_bytes([a, b, c, d]));
    }
}

impl FromStr for LinkId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        Self::from_bytes(text.as_bytes())
    }
}

impl From<LinkId> for String {
    fn from(id: LinkId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for LinkId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LinkId({})", self.as_str())
    }
}

/// The number of a partner, the tenant to whom links belong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct PartnerId(pub u32);

impl fmt::Display for PartnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths_and_characters_are_bounded() {
        for good in ["67mk41xj", "abcd", "00000000000000000000"] {
            assert_eq!(good.parse::<LinkId>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "abc",
            "000000000000000000000",
            "ABCD",
            "ab d",
            "ab-d",
            "äöüß",
            "abc\0",
        ] {
            assert_eq!(bad.parse::<LinkId>(), Err(InvalidId), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn ids_order_as_their_texts(a in "[0-9a-z]{4,20}", b in "[0-9a-z]{4,20}") {
            let (left, right): (LinkId, LinkId) = (a.parse().unwrap(), b.parse().unwrap());
            prop_assert_eq!(left.cmp(&right), a.as_bytes().cmp(b.as_bytes()));
        }
    }
}
