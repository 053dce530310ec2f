//! The page of a link: the short URL to share, its QR code, its state, and what can be done with it.

use askama::Template;
use hyper::StatusCode;

use crate::console::cookie::{SignedIn, new_once};
use crate::console::page::{Frame, RefusalView, Section, html};
use crate::console::playback::{Player, parse_time, show_time};
use crate::console::plot::Plot;
use crate::console::problem::Problem;
use crate::console::qr::{LEVEL_DEFAULT, LEVELS, QrPicture, SIZE_DEFAULT, SIZES};
use crate::console::request::{ConsoleRequest, Fields};
use crate::console::view::{DestinationView, StateView, TimeView, counted, plain, title};
use crate::console::{Console, Page, file};
use crate::http::Response;
use crate::links::{Draft, Scope};
use crate::model::validate::NAME;
use crate::model::{Destination, LinkId, ShortLink, Status, Usage, grouped};

/// Pixels of the code on the page.
const QR_SHOWN: usize = 192;

#[derive(Debug, Template)]
#[template(path = "link.html")]
struct LinkPage {
    frame: Frame,
    id: LinkId,
    title: String,
    system_name: String,
    unique_id: String,
    owner: String,
    short_url: String,
    /// What is shown beside it may not be https.
    destination: DestinationView,
    state: StateView,
    status: Status,
    /// Whether it has another id now, and never works again.
    is_retired: bool,
    created: TimeView,
    updated: TimeView,
    starts: Option<TimeView>,
    ends: Option<TimeView>,
    counts_clicks: bool,
    clicks: String,
    previews: String,
    last_used: Option<TimeView>,
    qr: String,
    levels: [&'static str; 4],
    level_default: &'static str,
    size_default: usize,
    sizes: [usize; 2],
    mail: String,
    player: Option<PlayerView>,
    playback_error: Option<String>,
    /// By which a form is recognised if it is sent twice.
    once: String,
    /// None for a deleted link.
    plot: Option<Plot>,
}

#[derive(Debug)]
struct PlayerView {
    takes_end: bool,
    start: String,
    end: String,
}

/// The form of times, where the page of the link cannot be shown.
#[derive(Debug, Template)]
#[template(path = "playback.html")]
struct TimesPage {
    frame: Frame,
    id: LinkId,
    start: String,
    end: String,
    once: String,
    refusal: RefusalView,
}

impl LinkPage {
    fn may_restore(&self) -> bool {
        self.frame.signed_in.as_ref().is_some_and(|account| account.is_admin)
    }

    fn is_deleted(&self) -> bool {
        self.status == Status::Deleted
    }

    fn is_off(&self) -> bool {
        self.status == Status::Disabled
    }
}

impl Console {
    pub(super) async fn link_page(&self, id: &str, request: &ConsoleRequest, signed_in: &SignedIn) -> Page {
        let (link, usage) = self.link(id, signed_in).await?;
        let frame = self.frame_after(request, signed_in, Section::None).await;
        let mut page = self.share_page(&link, &usage, frame, None);
        if link.status != Status::Deleted {
            let used = self.links.clicks_by_day(link.id, Scope::of(&signed_in.session)).await?;
            page.plot = Some(Plot::new(&used, self.links.clock().now().day()));
        }
        Ok(html(StatusCode::OK, &page))
    }

    fn share_page(&self, link: &ShortLink, usage: &Usage, frame: Frame, failed: Option<(&Fields, String)>) -> LinkPage {
        let short_url = self.short_url(link.id);
        let picture = QrPicture::new(&short_url, LEVEL_DEFAULT);
        let form = failed.as_ref().map(|(form, _)| *form);
        let given = |name| form.map(|form| form.text(name).to_owned()).unwrap_or_default();
        let player = Player::of(&link.full_url).map(|player| PlayerView {
            takes_end: player.takes_end(),
            start: given("start"),
            end: given("end"),
        });
        LinkPage {
            frame,
            id: link.id,
            title: title(link),
            system_name: plain(&link.system_name),
            unique_id: plain(link.unique_id.as_deref().unwrap_or_default()),
            owner: plain(link.user_id.as_deref().unwrap_or_default()),
            destination: DestinationView::new(&link.full_url),
            state: StateView::new(link, self.links.clock().now()),
            status: link.status,
            is_retired: link.is_retired(),
            created: TimeView::new(link.created_at),
            updated: TimeView::new(link.updated_at),
            starts: link.starts_at.map(TimeView::new),
            ends: link.expires_at.map(TimeView::new),
            counts_clicks: self.links.is_counting_clicks(),
            clicks: grouped(usage.clicks),
            previews: counted(usage.previews, "preview"),
            last_used: usage.last_used_at.map(TimeView::new),
            qr: picture.map(|picture| picture.svg(QR_SHOWN)).unwrap_or_default(),
            levels: LEVELS,
            level_default: LEVEL_DEFAULT,
            size_default: SIZE_DEFAULT,
            sizes: [*SIZES.start(), *SIZES.end()],
            mail: mail_to(link, &short_url),
            short_url,
            once: Some(given("once"))
                .filter(|once| !once.is_empty())
                .unwrap_or_else(new_once),
            player,
            playback_error: failed.map(|(_, error)| error),
            plot: None,
        }
    }

    /// The code of a link as a file.
    pub(super) async fn qr(&self, id: &str, is_svg: bool, request: &ConsoleRequest, signed_in: &SignedIn) -> Page {
        let (link, _) = self.link(id, signed_in).await?;
        let level = request.query.text("level");
        let size = request.query.text("size").parse().unwrap_or(SIZE_DEFAULT);
        let size = size.clamp(*SIZES.start(), *SIZES.end());
        let picture = QrPicture::new(&self.short_url(link.id), level).ok_or(Problem::Internal)?;
        let (kind, ending, body) = if is_svg {
            ("image/svg+xml", "svg", picture.svg(size).into_bytes())
        } else {
            ("image/png", "png", picture.png(size).ok_or(Problem::Internal)?)
        };
        Ok(file(kind, body, Some(format!("{}.{ending}", link.id))))
    }

    /// Makes another link to the same destination, with times of playback.
    pub(super) async fn add_with_times(&self, id: &str, form: &Fields, signed_in: &SignedIn) -> Page {
        let (link, usage) = self.link(id, signed_in).await?;
        let player = Player::of(&link.full_url).filter(|_| link.status != Status::Deleted);
        let player = player.ok_or(Problem::NotFound)?;
        let refuse = |error: &str| {
            let frame = self.frame(Some(signed_in), Section::None);
            let page = self.share_page(&link, &usage, frame, Some((form, error.to_owned())));
            Ok(html(StatusCode::UNPROCESSABLE_ENTITY, &page))
        };
        let Some(start) = parse_time(form.text("start")) else {
            return refuse("Enter when playback starts, such as 1:30.");
        };
        let end = match form.text("end") {
            "" => None,
            text => match parse_time(text) {
                Some(end) if end > start => Some(end),
                Some(_) => return refuse("Playback has to end after it starts."),
                None => return refuse("Enter when playback ends, such as 2:45, or leave it empty."),
            },
        };
        let made = player.with_times(&link.full_url, start, end);
        let Some(full_url) = made.and_then(|url| Destination::parse(&url).ok()) else {
            return refuse("The destination cannot take these times: it is too long.");
        };
        if self.destinations.check(&full_url).is_err() {
            return refuse("The destination cannot take these times: links may not lead there.");
        }
        let times = end.map_or_else(
            || show_time(start),
            |end| format!("{}–{}", show_time(start), show_time(end)),
        );
        let name = format!("{} ({times})", link.name.as_deref().unwrap_or(&link.system_name));
        let draft = Draft {
            added_by: signed_in.session.kind,
            partner_id: link.partner_id,
            user_id: link.user_id.clone(),
            name: Some(name.chars().take(NAME.max_chars).collect()),
            system_name: link.system_name.clone(),
            full_url,
            unique_id: None,
            status: link.status,
            starts_at: link.starts_at,
            expires_at: link.expires_at,
        };
        let new = self.add(draft, &[id, "playback"], form, signed_in).await?;
        Ok(self.done(&self.path(&format!("links/{}", new.id)), "created"))
    }

    /// The form of times with what was entered, and why it was not taken.
    pub(super) async fn refused_times(
        &self,
        id: LinkId,
        form: &Fields,
        signed_in: Option<&SignedIn>,
        problem: &Problem,
    ) -> Response {
        if let Some(signed_in) = signed_in
            && let Ok((link, usage)) = self.link(&id.to_string(), signed_in).await
            && link.status != Status::Deleted
            && Player::of(&link.full_url).is_some()
        {
            let frame = self.frame(Some(signed_in), Section::None);
            let error = format!("{}. {}", problem.title(), problem.explanation_with_form());
            let page = self.share_page(&link, &usage, frame, Some((form, error)));
            return html(problem.status(), &page);
        }
        let page = TimesPage {
            frame: self.frame(signed_in, Section::None),
            id,
            start: form.text("start").to_owned(),
            end: form.text("end").to_owned(),
            once: form.text("once").to_owned(),
            refusal: RefusalView::new(problem),
        };
        html(problem.status(), &page)
    }
}

/// A mail with the link, to nobody yet.
fn mail_to(link: &ShortLink, short_url: &str) -> String {
    let encode =
        |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
    let subject = link.name.as_deref().unwrap_or("A link for you");
    format!("mailto:?subject={}&body={}", encode(&plain(subject)), encode(short_url))
}
