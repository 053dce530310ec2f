//! The pages of links: the list, a new one, and each link's own.

mod bulk;
mod edit;
mod filter;
mod list;
mod share;

#[cfg(fuzzing)]
pub use filter::fuzz_filter;

use crate::console::cookie::SignedIn;
use crate::console::page::see_other;
use crate::console::problem::Problem;
use crate::console::request::{ConsoleRequest, Fields};
use crate::console::{Console, Page};
use crate::links::{Draft, Scope};
use crate::model::{Actor, LinkId, ShortLink, Status, Usage};

/// How long a deletion can be undone.
const UNDO_SECONDS: i64 = 10 * 60;

impl Console {
    pub(super) async fn show_links(&self, path: &[&str], request: &ConsoleRequest, signed_in: &SignedIn) -> Page {
        match *path {
            [] => self.my_links(request, signed_in).await,
            ["new"] => Ok(self.new_link_page(signed_in)),
            [id] => self.link_page(id, request, signed_in).await,
            [id, "edit"] => self.edit_page(id, signed_in).await,
            [id, "qr.svg"] => self.qr(id, true, request, signed_in).await,
            [id, "qr.png"] => self.qr(id, false, request, signed_in).await,
            _ => Err(Problem::NotFound),
        }
    }

    pub(super) async fn change_links(&self, path: &[&str], form: &Fields, signed_in: &SignedIn) -> Page {
        match self.try_to_change(path, form, signed_in).await {
            Err(problem) => self.with_entered(path, form, Some(signed_in), problem).await,
            done => done,
        }
    }

    /// The page of a problem, on which what was entered in a form is still there.
    pub(super) async fn with_entered(
        &self,
        path: &[&str],
        form: &Fields,
        signed_in: Option<&SignedIn>,
        problem: Problem,
    ) -> Page {
        match *path {
            _ if !problem.may_be_sent_again() => Err(problem),
            ["new"] => Ok(self.refused_link(None, form, signed_in, &problem)),
            [id, "edit"] => Ok(self.refused_link(Some(parse_id(id)?), form, signed_in, &problem)),
            [id, "playback"] => Ok(self.refused_times(parse_id(id)?, form, signed_in, &problem).await),
            _ => Err(problem),
        }
    }

    async fn try_to_change(&self, path: &[&str], form: &Fields, signed_in: &SignedIn) -> Page {
        let (scope, by) = (Scope::of(&signed_in.session), signed_in.actor());
        match *path {
            ["new"] => self.create(form, signed_in).await,
            [id, "edit"] => self.save(id, form, signed_in).await,
            [id, "playback"] => self.add_with_times(id, form, signed_in).await,
            [id, "disable"] => self.set_status(id, scope, by, Status::Disabled).await,
            [id, "enable"] => self.set_status(id, scope, by, Status::Enabled).await,
            [id, "delete"] => {
                let deleted = self.links.delete(parse_id(id)?, scope, by).await?;
                let until = self.links.clock().now().plus(UNDO_SECONDS);
                let undo = self.key.undo_mark(signed_in, &deleted, until);
                let id = deleted.link.id;
                Ok(see_other(&self.path(&format!("links?deleted={id}&undo={undo}"))))
            }
            [_, "new-id"] if form.text("confirm") != "yes" => Err(Problem::NotConfirmed),
            [id, "new-id"] => {
                let id = parse_id(id)?;
                let renewed = match self.key.once_seed(signed_in, path, form) {
                    Some(seed) => self.links.renew_id_once(id, seed, scope, by).await?,
                    None => self.links.renew_id(id, scope, by).await?,
                };
                Ok(self.done(&self.path(&format!("links/{}", renewed.id)), "renewed"))
            }
            [id, "restore"] => {
                let (mut link, _) = self.link(id, signed_in).await?;
                // Else the form was sent twice.
                if link.status == Status::Deleted {
                    let now = self.links.clock().now();
                    let undone = self.key.undone(signed_in, link.id, form.text("undo"), now);
                    // As by the API: users bring back only what they have just deleted themselves.
                    let status = match undone {
                        Some(was) => was,
                        None if signed_in.is_admin() => Status::Enabled,
                        None => return Err(Problem::AdministratorsOnly),
                    };
                    link = self.links.restore_as(link.id, link.partner_id, status, by).await?;
                }
                let done = if link.status == Status::Disabled {
                    "restored-off"
                } else {
                    "restored"
                };
                Ok(self.done(&self.path(&format!("links/{}", link.id)), done))
            }
            _ => Err(Problem::NotFound),
        }
    }

    /// Adds a link, once however often its form is sent.
    async fn add(
        &self,
        draft: Draft,
        path: &[&str],
        form: &Fields,
        signed_in: &SignedIn,
    ) -> Result<ShortLink, Problem> {
        let by = signed_in.actor();
        let added = match self.key.once_seed(signed_in, path, form) {
            Some(seed) => self.links.add_once(draft, seed, by).await,
            None => self.links.add(draft, by).await,
        };
        Ok(added?)
    }

    async fn set_status(&self, id: &str, scope: Scope, by: Actor, status: Status) -> Page {
        let edit = move |stored: &ShortLink| {
            Ok::<_, Problem>(ShortLink {
                status,
                ..stored.clone()
            })
        };
        let link = self.links.update(parse_id(id)?, scope, by, edit).await?;
        Ok(self.done(&self.path(&format!("links/{}", link.id)), status.name()))
    }

    /// A link, also a deleted one.
    async fn link(&self, id: &str, signed_in: &SignedIn) -> Result<(ShortLink, Usage), Problem> {
        let scope = Scope::of(&signed_in.session);
        Ok(self.links.find_with_usage(parse_id(id)?, scope).await?)
    }

    fn short_url(&self, id: LinkId) -> String {
        format!("{}/tiny/{id}", self.short_url_base)
    }
}

fn parse_id(text: &str) -> Result<LinkId, Problem> {
    text.parse().map_err(|_| Problem::NoSuchLink)
}
