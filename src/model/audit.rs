//! An entry of the audit log: a change, its actor and its time. Never a session or a secret.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::{LinkId, PartnerId, ShortLink, Timestamp};

/// Longer texts are cut in an entry, in bytes.
const TEXT_MAX_BYTES: usize = 300;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ActorKind {
    User,
    Admin,
    /// The operator: any process that may write the store file.
    Local,
}

/// By which way a change came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Way {
    Api,
    Console,
    /// As far as it tells: a client of the API says so itself.
    CommandLine,
}

/// Who changes something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Actor {
    #[serde(rename = "partnerId", default, skip_serializing_if = "Option::is_none")]
    pub partner: Option<PartnerId>,
    #[serde(rename = "userId", default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    pub kind: ActorKind,
    pub way: Way,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AuditAction {
    Add,
    Update,
    Delete,
    Restore,
    RenewId,
    DeleteUser,
    Import,
    EndSession,
}

impl AuditAction {
    pub const ALL: [Self; 8] = [
        Self::Add,
        Self::Update,
        Self::Delete,
        Self::Restore,
        Self::RenewId,
        Self::DeleteUser,
        Self::Import,
        Self::EndSession,
    ];

    /// As it stands in an entry.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Restore => "restore",
            Self::RenewId => "renewId",
            Self::DeleteUser => "deleteUser",
            Self::Import => "import",
            Self::EndSession => "endSession",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.name() == name)
    }
}

/// What a field was, and what it is now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldChange {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// Counts up. The store has it in the key, and not in the entry.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub sequence: u64,
    pub at: Timestamp,
    /// Whose links were changed; none for those of several partners.
    #[serde(rename = "partnerId", default, skip_serializing_if = "Option::is_none")]
    pub partner: Option<PartnerId>,
    pub by: Actor,
    pub action: AuditAction,
    /// The link, if it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<LinkId>,
    /// What has changed, by the names of the fields, or numbers that say how much.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub changes: BTreeMap<String, FieldChange>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl AuditEntry {
    /// Notes the fields in which a link differs from what it was; from no link if it is new.
    #[must_use]
    pub fn of_link(mut self, old: Option<&ShortLink>, new: &ShortLink) -> Self {
        (self.partner, self.id) = (Some(new.partner_id), Some(new.id));
        let before = old.map(fields);
        for (position, (name, value)) in fields(new).into_iter().enumerate() {
            let was = before.as_ref().and_then(|before| before.get(position)?.1.clone());
            if was != value {
                self.note(name, was, value);
            }
        }
        self
    }

    /// Notes a change of something else, or a number.
    pub fn note(&mut self, name: &str, old: Option<String>, new: Option<String>) {
        let change = FieldChange {
            old: old.map(cut),
            new: new.map(cut),
        };
        self.changes.insert(name.to_owned(), change);
    }
}

fn fields(link: &ShortLink) -> [(&'static str, Option<String>); 8] {
    let time = |time: Option<Timestamp>| time.map(|time| time.to_string());
    [
        ("fullUrl", Some(link.full_url.clone())),
        ("name", link.name.clone()),
        ("systemName", Some(link.system_name.clone())),
        ("uniqueId", link.unique_id.clone()),
        ("userId", link.user_id.clone()),
        ("status", Some(link.status.name().to_owned())),
        ("startsAt", time(link.starts_at)),
        ("expiresAt", time(link.expires_at)),
    ]
}

fn cut(mut text: String) -> String {
    if text.len() > TEXT_MAX_BYTES {
        text.truncate(text.floor_char_boundary(TEXT_MAX_BYTES));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_written_by_their_names() {
        for action in AuditAction::ALL {
            let written = serde_json::to_value(action).unwrap();
            assert_eq!(written, action.name());
            assert_eq!(AuditAction::named(action.name()), Some(action));
        }
        assert_eq!(AuditAction::named("Add"), None);
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        for text in ["x".repeat(300), "ä".repeat(150)] {
            assert_eq!(cut(text.clone()), text);
        }
        assert_eq!(cut("x".repeat(301)), format!("{}…", "x".repeat(300)));
        assert_eq!(cut(format!("x{}", "ä".repeat(150))), format!("x{}…", "ä".repeat(149)));
    }
}
