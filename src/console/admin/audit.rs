//! The audit log: who changed what, and when.

use askama::Template;
use hyper::StatusCode;
use hyper::header::{CONTENT_DISPOSITION, HeaderValue};

use crate::console::cookie::SignedIn;
use crate::console::page::{Frame, Section, html, protect};
use crate::console::request::ConsoleRequest;
use crate::console::view::{TimeView, plain};
use crate::console::{Console, Page};
use crate::model::{
    Actor, ActorKind, AuditAction, AuditEntry, Destination, FieldChange, LinkId, PartnerId, Timestamp, Way,
};
use crate::store::AuditQuery;

const PAGE_ENTRIES: usize = 50;

#[derive(Debug, Template)]
#[template(path = "audit.html")]
struct AuditView {
    frame: Frame,
    user: String,
    id: String,
    action: String,
    actions: Vec<(&'static str, &'static str)>,
    entries: Vec<EntryView>,
    /// The filter, as the query of a URL.
    query: String,
    next: Option<u64>,
}

#[derive(Debug)]
struct EntryView {
    at: TimeView,
    by: String,
    way: &'static str,
    action: &'static str,
    id: Option<LinkId>,
    changes: Vec<ChangeView>,
}

#[derive(Debug)]
struct ChangeView {
    field: String,
    old: Option<String>,
    new: Option<String>,
}

/// The filter of a request, within what somebody may see.
fn query(request: &ConsoleRequest, partner: PartnerId) -> AuditQuery {
    let text = |name| Some(request.query.text(name)).filter(|text| !text.is_empty());
    AuditQuery {
        partner: Some(partner),
        user: text("user").map(str::to_owned),
        id: text("id").and_then(|id| id.parse().ok()),
        action: text("action").and_then(AuditAction::named),
        before: text("before").and_then(|before| before.parse().ok()),
        limit: PAGE_ENTRIES,
        ..AuditQuery::default()
    }
}

const fn words(action: AuditAction) -> &'static str {
    match action {
        AuditAction::Add => "Made",
        AuditAction::Update => "Changed",
        AuditAction::Delete => "Deleted",
        AuditAction::Restore => "Restored",
        AuditAction::RenewId => "Given a new ID",
        AuditAction::DeleteUser => "All links of a user deleted",
        AuditAction::Import => "Imported",
        AuditAction::EndSession => "Session ended",
    }
}

fn by(actor: &Actor) -> String {
    let user = actor.user.as_deref().filter(|user| !user.is_empty());
    match (user, actor.kind) {
        (Some(user), _) => plain(user),
        (None, ActorKind::Local) => "the server's machine".to_owned(),
        (None, _) => "nobody in particular".to_owned(),
    }
}

/// A destination in the letters that the network uses, so that look-alikes show. The log shortens long ones.
fn destination(text: &str) -> String {
    match text.strip_suffix('…') {
        Some(beginning) => format!("{}…", Destination::location_of(beginning)),
        None => Destination::location_of(text),
    }
}

/// A time that the log has in unix seconds.
fn time(text: &str) -> String {
    match text.parse() {
        Ok(seconds) if seconds == Timestamp::NEVER.as_unix() => "never".to_owned(),
        Ok(seconds) => Timestamp::from_unix(seconds).in_utc(),
        Err(_) => plain(text),
    }
}

impl EntryView {
    fn new(entry: &AuditEntry) -> Self {
        let change = |(field, change): (&String, &FieldChange)| {
            let shown = |text: &str| match field.as_str() {
                "fullUrl" => destination(text),
                "startsAt" | "expiresAt" => time(text),
                _ => plain(text),
            };
            ChangeView {
                field: plain(field),
                old: change.old.as_deref().map(shown),
                new: change.new.as_deref().map(shown),
            }
        };
        Self {
            at: TimeView::new(entry.at),
            by: by(&entry.by),
            way: match entry.by.way {
                Way::Api => "API",
                Way::Console => "console",
                Way::CommandLine => "command line",
            },
            action: words(entry.action),
            id: entry.id,
            changes: entry.changes.iter().map(change).collect(),
        }
    }
}

impl Console {
    pub(super) async fn audit_page(&self, request: &ConsoleRequest, signed_in: &SignedIn) -> Page {
        let query = query(request, signed_in.session.partner);
        let page = self.links.audit(query.clone()).await?;
        let text = |name| request.query.text(name).to_owned();
        let fields = ["user", "id", "action"].map(|name| (name, text(name)));
        let given = fields.into_iter().filter(|(_, value)| !value.is_empty());
        let view = AuditView {
            frame: self.frame(Some(signed_in), Section::Audit),
            user: text("user"),
            id: text("id"),
            action: text("action"),
            actions: AuditAction::ALL.map(|action| (action.name(), words(action))).to_vec(),
            entries: page.entries.iter().map(EntryView::new).collect(),
            query: url::form_urlencoded::Serializer::new(String::new())
                .extend_pairs(given)
                .finish(),
            next: page.next,
        };
        Ok(html(StatusCode::OK, &view))
    }

    /// All entries that the filter finds, as JSON Lines.
    pub(super) async fn audit_file(&self, request: &ConsoleRequest, signed_in: &SignedIn) -> Page {
        let query = query(request, signed_in.session.partner);
        let mut response = self.transfers.audit(query, u64::MAX).await?;
        protect(response.headers_mut());
        let disposition = HeaderValue::from_static("attachment; filename=\"audit.jsonl\"");
        response.headers_mut().insert(CONTENT_DISPOSITION, disposition);
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_the_log_are_shown_as_such() {
        assert_eq!(time("1796112030"), "2026-12-01 08:00:30 UTC");
        assert_eq!(time(&Timestamp::NEVER.as_unix().to_string()), "never");
        assert_eq!(time("soon"), "soon");
    }
}
