//! Signing in and out with an OpenID provider: the authorization code flow with PKCE.

mod flow;
mod identity;
mod provider;
mod settings;

use std::collections::{HashMap, VecDeque};

use hyper::StatusCode;
use hyper::header::SET_COOKIE;
use parking_lot::Mutex;

pub use settings::{OidcSecret, OidcSettings, check_group, check_issuer, check_name};

use crate::access::Grant;
use crate::console::cookie::{SignInMethod, SignedIn};
use crate::console::oidc::flow::{Flow, SpentFlows};
use crate::console::oidc::identity::NoIdentity;
use crate::console::oidc::provider::{OidcError, Provider};
use crate::console::oidc::settings::START_PATH;
use crate::console::page::{GoOnPage, Section, html, see_other};
use crate::console::problem::Problem;
use crate::console::request::ConsoleRequest;
use crate::console::view::plain;
use crate::console::{Console, Page};
use crate::http::Response;
use crate::kaltura::session::Kind;
use crate::metrics::StartMethod;
use crate::model::{Digest, PartnerId, shown};

/// Sessions whose ID tokens are kept, the newest; others are signed out at the provider without.
const ID_TOKENS_MAX: usize = 1000;
/// An ID token in a URL, which has some 8 KB.
const ID_TOKEN_MAX_BYTES: usize = 6 * 1024;

/// Signing in with the provider of the settings.
#[derive(Debug)]
pub struct Oidc {
    provider: Provider,
    issuer: String,
    partner: PartnerId,
    /// Where signing in begins and ends, as browsers open it.
    start_url: String,
    sign_in_url: String,
    spent: SpentFlows,
    id_tokens: Mutex<IdTokens>,
}

/// The ID tokens of sessions, by which the provider knows whom to sign out. They end with the process.
#[derive(Default)]
struct IdTokens {
    by_session: HashMap<Digest, String>,
    /// The oldest first.
    order: VecDeque<Digest>,
}

impl std::fmt::Debug for IdTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IdTokens({})", self.by_session.len())
    }
}

impl IdTokens {
    fn keep(&mut self, session: Digest, id_token: String) {
        if id_token.len() > ID_TOKEN_MAX_BYTES {
            return;
        }
        if self.order.len() >= ID_TOKENS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_session.remove(&oldest);
        }
        self.order.push_back(session);
        self.by_session.insert(session, id_token);
    }
}

impl Oidc {
    pub fn new(settings: OidcSettings) -> Result<Self, String> {
        Ok(Self {
            issuer: settings.issuer.clone(),
            partner: settings.partner,
            start_url: settings.url_of(START_PATH),
            sign_in_url: settings.url_of("sign-in"),
            provider: Provider::new(settings)?,
            spent: SpentFlows::default(),
            id_tokens: Mutex::default(),
        })
    }

    /// The link that begins a sign-in: at the address to which the provider sends people back.
    pub fn start_url(&self, next: &str) -> String {
        let next: String = url::form_urlencoded::byte_serialize(next.as_bytes()).collect();
        format!("{}?next={next}", self.start_url)
    }
}

impl Console {
    fn oidc(&self) -> Result<&Oidc, Problem> {
        self.oidc.as_ref().ok_or(Problem::NotFound)
    }

    /// Sends the browser to the provider.
    pub(super) async fn begin_at_provider(&self, request: &ConsoleRequest) -> Page {
        let oidc = self.oidc()?;
        let next = request.query.text("next");
        let flow = Flow::begin(next, self.links.clock().now());
        let proof = flow.proof(&self.key);
        let url = match oidc.provider.authorization_url(&proof, request.client).await {
            Ok(url) => url,
            Err(error) => return self.counted(StartMethod::Oidc, Err(error.into())),
        };
        let mut response = see_other(url.as_str());
        if let Some(cookie) = flow.cookie(&self.key, request.is_secure) {
            response.headers_mut().append(SET_COOKIE, cookie);
        }
        Ok(response)
    }

    /// Signs in who comes back from the provider.
    pub(super) async fn return_from_provider(&self, request: &ConsoleRequest) -> Page {
        let oidc = self.oidc()?;
        let answered = self.counted(StartMethod::Oidc, self.end_of_sign_in(oidc, request).await);
        let mut response = answered.unwrap_or_else(|problem| self.problem(&problem, None));
        if let Some(cookie) = Flow::cleared(request.is_secure) {
            response.headers_mut().append(SET_COOKIE, cookie);
        }
        Ok(response)
    }

    async fn end_of_sign_in(&self, oidc: &Oidc, request: &ConsoleRequest) -> Page {
        let now = self.links.clock().now();
        let flow = Flow::find(&self.key, &request.headers, request.is_secure, now).ok_or(Problem::StaleSignIn)?;
        let proof = flow.proof(&self.key);
        let given = |name| request.query.text(name);
        if !proof.is_state(given("state")) || !oidc.spent.spend(&flow, now) {
            return Err(Problem::StaleSignIn);
        }
        // RFC 9207: another provider may have sent the browser here.
        if !given("iss").is_empty() && given("iss") != oidc.issuer {
            tracing::warn!(issuer = %shown::line(given("iss")), "sign-in ended at another OpenID provider");
            return Err(Problem::SignInUnverified);
        }
        if !given("error").is_empty() {
            let error = [given("error"), given("error_description")].map(plain);
            tracing::info!(
                error = error[0],
                description = error[1],
                "OpenID provider signed nobody in"
            );
            return Err(Problem::SignInDenied(
                error.into_iter().find(|text| !text.is_empty()).unwrap_or_default(),
            ));
        }
        let code = given("code");
        if code.is_empty() {
            return Err(Problem::StaleSignIn);
        }
        let authenticated = oidc.provider.redeem(code.to_owned(), &proof, request.client).await?;
        if self.starts.partners().get(oidc.partner).is_none() {
            tracing::warn!(
                partner = oidc.partner.0,
                "console.oidc.partner has no section [[partner]]"
            );
            return Err(Problem::Internal);
        }
        let identity = authenticated.identity;
        let grant = Grant {
            partner: oidc.partner,
            user: identity.user,
            kind: if identity.is_admin { Kind::Admin } else { Kind::User },
        };
        // A new one each time, so that nobody can plant theirs.
        let signed_in = SignedIn::begin(grant, SignInMethod::Provider, now);
        let digest = signed_in.session.digest;
        oidc.id_tokens.lock().keep(digest, authenticated.id_token);
        let page = GoOnPage {
            frame: self.frame(None, Section::None),
            title: "Signed in",
            words: format!("You are signed in as {}.", plain(&signed_in.user)),
            link: "Go on",
            url: self.next_path(&flow.next),
        };
        let mut response = html(StatusCode::OK, &page);
        if let Some(cookie) = self.key.set_cookie(&signed_in, request.is_secure) {
            response.headers_mut().append(SET_COOKIE, cookie);
        }
        Ok(response)
    }

    /// The page that goes on to sign out at the provider, if this session is of it.
    pub(super) async fn leave_provider(&self, signed_in: &SignedIn) -> Option<Response> {
        let oidc = self.oidc.as_ref()?;
        if signed_in.method != SignInMethod::Provider {
            return None;
        }
        let id_token = oidc.id_tokens.lock().by_session.remove(&signed_in.session.digest);
        let url = oidc
            .provider
            .end_session_url(id_token.as_deref(), &oidc.sign_in_url)
            .await?;
        let page = GoOnPage {
            frame: self.frame(None, Section::None),
            title: "Signed out",
            words: "You are signed out here. Next, you sign out of your organisation's account.".to_owned(),
            link: "Sign out there too",
            url: url.into(),
        };
        Some(html(StatusCode::OK, &page))
    }
}

impl From<OidcError> for Problem {
    fn from(error: OidcError) -> Self {
        match error {
            OidcError::Unavailable => Self::ProviderDown,
            OidcError::Busy => Self::ProviderBusy,
            OidcError::CodeRefused => Self::StaleSignIn,
            OidcError::Unverified => Self::SignInUnverified,
            OidcError::NoIdentity(reason) => Self::NoIdentity(match reason {
                NoIdentity::Missing(claim) => format!(
                    "The sign-in service does not say who you are: the claim {claim} is missing. The operator finds \
                     it in console.oidc.user_claim."
                ),
                NoIdentity::UnverifiedEmail => {
                    "The sign-in service has not verified your mail address. Verify it there, and sign in again."
                        .to_owned()
                }
                NoIdentity::Invalid(claim, reason) => {
                    format!("Your {claim} at the sign-in service cannot be a user here: expected {reason}.")
                }
                NoIdentity::NotAllowed => "Your account is in none of the groups that may use this console.".to_owned(),
            }),
        }
    }
}
