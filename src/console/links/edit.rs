//! Making a link, and changing one.

use askama::Template;
use hyper::StatusCode;

use crate::console::cookie::{SignedIn, new_once};
use crate::console::links::filter::Choices;
use crate::console::links::parse_id;
use crate::console::page::{Frame, RefusalView, Section, html};
use crate::console::problem::Problem;
use crate::console::request::Fields;
use crate::console::view::{input_value, parse_input, plain, time_of_link, title};
use crate::console::{Console, Page};
use crate::http::Response;
use crate::links::{Draft, LinkError, NotNew, Scope, UpdateError};
use crate::model::validate::{FULL_URL, NAME, SYSTEM_NAME, TextRule, USER_ID};
use crate::model::{Destination, LinkId, ShortLink, Status, Timestamp, validate};

/// The system name of links that are made here, unless somebody chooses another.
const SYSTEM_NAME_DEFAULT: &str = "CONSOLE";

/// How many hours or days from now a link may end at a click.
pub const PRESETS: Choices = &[
    ("3600", "1 hour"),
    ("86400", "1 day"),
    ("604800", "7 days"),
    ("2592000", "30 days"),
    ("15768000", "6 months"),
    ("31536000", "1 year"),
];

/// A form with what has been entered, as it was.
#[derive(Debug, Default)]
struct FormView {
    full_url: String,
    name: String,
    system_name: String,
    user: String,
    /// `always` or `window`.
    validity: String,
    starts: String,
    ends: String,
    preset: String,
    /// By which the form is recognised if it is sent twice.
    once: String,
    errors: Vec<ErrorView>,
    refusal: Option<RefusalView>,
}

/// What is wrong with a field.
#[derive(Debug)]
struct ErrorView {
    field: &'static str,
    label: &'static str,
    reason: String,
}

impl FormView {
    /// What has been entered. Pages have times in UTC; the visitor may have entered them in another time zone.
    fn entered(fields: &Fields) -> Self {
        let text = |name: &str| fields.text(name).to_owned();
        let time = |name: &str| {
            let unix = fields.text(&format!("{name}_unix")).parse().map(Timestamp::from_unix);
            let time = unix
                .ok()
                .and_then(time_of_link)
                .filter(|_| !fields.text(name).is_empty());
            time.map_or_else(|| text(name), |time| input_value(Some(time)))
        };
        Self {
            full_url: text("full_url"),
            name: text("name"),
            system_name: text("system_name"),
            user: text("user"),
            validity: text("validity"),
            starts: time("starts"),
            ends: time("ends"),
            preset: text("preset"),
            once: Some(text("once"))
                .filter(|once| !once.is_empty())
                .unwrap_or_else(new_once),
            errors: Vec::new(),
            refusal: None,
        }
    }

    fn is_refused(&self) -> bool {
        !self.errors.is_empty() || self.refusal.is_some()
    }

    fn error(&self, field: &str) -> Option<&str> {
        let error = self.errors.iter().find(|error| error.field == field);
        error.map(|error| error.reason.as_str())
    }

    fn refuse(&mut self, field: &'static str, label: &'static str, reason: impl Into<String>) {
        let reason = reason.into();
        self.errors.push(ErrorView { field, label, reason });
    }
}

#[derive(Debug, Template)]
#[template(path = "edit.html")]
struct EditPage {
    frame: Frame,
    /// The link that is changed; none for a new one.
    id: Option<LinkId>,
    title: String,
    form: FormView,
    presets: Choices,
    may_set_owner: bool,
}

/// What a form says about a link.
struct Entered {
    full_url: Destination,
    name: Option<String>,
    system_name: String,
    user: Option<String>,
    starts_at: Option<Timestamp>,
    expires_at: Option<Timestamp>,
}

impl Console {
    pub(super) fn new_link_page(&self, signed_in: &SignedIn) -> Response {
        let form = FormView {
            validity: "always".to_owned(),
            user: signed_in.user.clone(),
            once: new_once(),
            ..FormView::default()
        };
        self.edit_form(None, form, Some(signed_in), StatusCode::OK)
    }

    /// The form of a link, by its id and title, or of a new one.
    fn edit_form(
        &self,
        link: Option<(LinkId, String)>,
        form: FormView,
        signed_in: Option<&SignedIn>,
        status: StatusCode,
    ) -> Response {
        let section = if link.is_none() {
            Section::NewLink
        } else {
            Section::None
        };
        let (id, title) = link.unzip();
        let page = EditPage {
            frame: self.frame(signed_in, section),
            id,
            title: title.unwrap_or_else(|| "New link".to_owned()),
            // Where nobody is signed in, what an administrator has entered stays.
            may_set_owner: signed_in.map_or(!form.user.is_empty(), SignedIn::is_admin),
            form,
            presets: PRESETS,
        };
        html(status, &page)
    }

    /// The form with what was entered, and why it was not taken.
    pub(super) fn refused_link(
        &self,
        id: Option<LinkId>,
        fields: &Fields,
        signed_in: Option<&SignedIn>,
        problem: &Problem,
    ) -> Response {
        let form = FormView {
            refusal: Some(RefusalView::new(problem)),
            ..FormView::entered(fields)
        };
        let name = Some(plain(&form.name)).filter(|name| !name.is_empty());
        let link = id.map(|id| (id, name.unwrap_or_else(|| id.to_string())));
        self.edit_form(link, form, signed_in, problem.status())
    }

    pub(super) async fn edit_page(&self, id: &str, signed_in: &SignedIn) -> Page {
        let link = self.links.get(parse_id(id)?, &Scope::of(&signed_in.session)).await?;
        let has_window = link.expires_at.is_some() || link.starts_at.is_some();
        let form = FormView {
            full_url: link.full_url.clone(),
            name: link.name.clone().unwrap_or_default(),
            system_name: link.system_name.clone(),
            user: link.user_id.clone().unwrap_or_default(),
            validity: if has_window { "window" } else { "always" }.to_owned(),
            starts: input_value(link.starts_at),
            ends: input_value(link.expires_at),
            ..FormView::default()
        };
        let link = (link.id, title(&link));
        Ok(self.edit_form(Some(link), form, Some(signed_in), StatusCode::OK))
    }

    pub(super) async fn create(&self, form: &Fields, signed_in: &SignedIn) -> Page {
        let entered = match self.read(form, None, signed_in) {
            Ok(entered) => entered,
            Err(form) => return Ok(self.edit_form(None, *form, Some(signed_in), StatusCode::UNPROCESSABLE_ENTITY)),
        };
        let draft = self.draft(entered, signed_in);
        let link = self.add(draft, &["new"], form, signed_in).await?;
        Ok(self.done(&self.path(&format!("links/{}", link.id)), "created"))
    }

    fn draft(&self, entered: Entered, signed_in: &SignedIn) -> Draft {
        let own = || Some(signed_in.user.clone());
        Draft {
            added_by: signed_in.session.kind,
            partner_id: signed_in.session.partner,
            user_id: if signed_in.is_admin() { entered.user } else { own() },
            name: entered.name,
            system_name: entered.system_name,
            full_url: entered.full_url,
            unique_id: None,
            status: Status::Enabled,
            starts_at: entered.starts_at,
            expires_at: entered.expires_at,
        }
    }

    pub(super) async fn save(&self, id: &str, form: &Fields, signed_in: &SignedIn) -> Page {
        let (id, scope) = (parse_id(id)?, Scope::of(&signed_in.session));
        let stored = self.links.get(id, &scope).await?;
        let entered = match self.read(form, Some(&stored), signed_in) {
            Ok(entered) => entered,
            Err(form) => {
                let link = (id, title(&stored));
                return Ok(self.edit_form(Some(link), *form, Some(signed_in), StatusCode::UNPROCESSABLE_ENTITY));
            }
        };
        let is_admin = signed_in.is_admin();
        let edit = move |stored: &ShortLink| {
            Ok::<_, Problem>(ShortLink {
                full_url: entered.full_url.into_string(),
                name: entered.name,
                system_name: entered.system_name,
                user_id: if is_admin { entered.user } else { stored.user_id.clone() },
                starts_at: entered.starts_at,
                expires_at: entered.expires_at,
                ..stored.clone()
            })
        };
        self.links.update(id, scope, signed_in.actor(), edit).await?;
        Ok(self.done(&self.path(&format!("links/{id}")), "saved"))
    }

    /// Reads a form. What is wrong comes back with the form.
    fn read(
        &self,
        fields: &Fields,
        stored: Option<&ShortLink>,
        signed_in: &SignedIn,
    ) -> Result<Entered, Box<FormView>> {
        let mut form = FormView::entered(fields);
        let full_url = self.read_destination(&mut form, stored, signed_in);
        let name = read_text(&mut form, &NAME, "name", "Name").flatten();
        if form.system_name.is_empty() {
            SYSTEM_NAME_DEFAULT.clone_into(&mut form.system_name);
        }
        let system_name = read_text(&mut form, &SYSTEM_NAME, "system_name", "System name").flatten();
        let user = read_text(&mut form, &USER_ID, "user", "Owner").flatten();
        let (starts_at, expires_at) = self.read_validity(&mut form, fields, stored);
        let user = if signed_in.is_admin() { user } else { None };
        match (full_url, system_name) {
            (Some(full_url), Some(system_name)) if form.errors.is_empty() => Ok(Entered {
                full_url,
                name,
                system_name,
                user,
                starts_at,
                expires_at,
            }),
            _ => Err(Box::new(form)),
        }
    }

    fn read_destination(
        &self,
        form: &mut FormView,
        stored: Option<&ShortLink>,
        signed_in: &SignedIn,
    ) -> Option<Destination> {
        const LABEL: &str = "Destination";
        if form.full_url.is_empty() {
            form.refuse(
                "full_url",
                LABEL,
                "Enter the address of a page, such as https://www.example.com/video.",
            );
            return None;
        }
        if let Err(why) = FULL_URL.check(&form.full_url) {
            form.refuse("full_url", LABEL, format!("Expected {why}."));
            return None;
        }
        let destination = match Destination::parse(&form.full_url) {
            Ok(destination) => destination,
            Err(why) => {
                form.refuse(
                    "full_url",
                    LABEL,
                    format!("This is no web address that a link can lead to: {why}."),
                );
                return None;
            }
        };
        let is_kept = stored.is_some_and(|stored| stored.full_url == destination.as_str());
        if is_kept {
            return Some(destination);
        }
        let partner = signed_in.session.partner;
        if let Err(why) = self.destinations.check(&destination) {
            let reason = match why {
                NotNew::Loop => "This is a short link of this server. Use the page that it leads to.".to_owned(),
                why => format!("Links may not lead there: {why}."),
            };
            form.refuse("full_url", LABEL, reason);
        } else if let Err(why) = self.links.check_destination(partner, &destination) {
            form.refuse("full_url", LABEL, Problem::from(LinkError::from(why)).explanation());
        }
        Some(destination)
    }

    /// From when until when a link works. Values that nobody has changed keep their seconds.
    fn read_validity(
        &self,
        form: &mut FormView,
        fields: &Fields,
        stored: Option<&ShortLink>,
    ) -> (Option<Timestamp>, Option<Timestamp>) {
        if form.validity != "window" {
            return (None, None);
        }
        let stored_starts = stored.and_then(|stored| stored.starts_at);
        let stored_ends = stored.and_then(|stored| stored.expires_at);
        let starts = read_time(&form.starts, fields.text("starts_unix"), stored_starts);
        let mut ends = read_time(&form.ends, fields.text("ends_unix"), stored_ends);
        if let Ok(seconds @ 1..) = fields.text("preset").parse::<i64>() {
            let from = starts.flatten().unwrap_or_else(|| self.links.clock().now());
            ends = time_of_link(from.plus(seconds)).map(Some);
            form.preset.clear();
        }
        let wrong = "Enter a date and a time, such as 2026-12-24T18:00, or leave it empty.";
        if starts.is_none() {
            form.refuse("starts", "Works from", wrong);
        }
        if ends.is_none() {
            form.refuse("ends", "Works until", wrong);
        }
        let (starts, ends) = (starts.flatten(), ends.flatten());
        if validate::validity(starts, ends).is_err() {
            form.refuse("ends", "Works until", "The end has to come after the start.");
        }
        if ends.is_some() {
            form.ends = input_value(ends);
        }
        (starts, ends)
    }
}

/// The value of a text field; `None` if it is wrong.
fn read_text(form: &mut FormView, rule: &TextRule, field: &'static str, label: &'static str) -> Option<Option<String>> {
    let text = match field {
        "name" => &form.name,
        "user" => &form.user,
        _ => &form.system_name,
    };
    if text.is_empty() {
        return Some(None);
    }
    match rule.value(text) {
        Ok(value) => Some(value),
        Err(why) => {
            form.refuse(field, label, format!("Expected {why}."));
            None
        }
    }
}

/// Reads a time: outer `None` if it is wrong, inner `None` if there is none. The script sends it in unix seconds, since
/// it knows the visitor's time zone; without one it is in UTC.
pub fn read_time(text: &str, unix: &str, stored: Option<Timestamp>) -> Option<Option<Timestamp>> {
    if text.is_empty() {
        return Some(None);
    }
    let entered = unix.parse().map(Timestamp::from_unix).ok();
    let time = time_of_link(entered.or_else(|| parse_input(text))?)?;
    let is_kept = |stored: &Timestamp| stored.as_unix().div_euclid(60) == time.as_unix().div_euclid(60);
    Some(Some(stored.filter(is_kept).unwrap_or(time)))
}

impl From<UpdateError<Self>> for Problem {
    fn from(error: UpdateError<Self>) -> Self {
        match error {
            UpdateError::Link(error) => error.into(),
            UpdateError::Refused(problem) => problem,
        }
    }
}
