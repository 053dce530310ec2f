//! The OpenID provider: its metadata, and its claims about an account.

use std::error::Error;
use std::net::IpAddr;
use std::pin::Pin;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use hyper::http::uri::Scheme;
use hyper::{Request, StatusCode};
use openidconnect::core::{
    CoreAuthenticationFlow, CoreClient, CoreClientAuthMethod, CoreIdToken, CoreIdTokenVerifier,
    CoreJwsSigningAlgorithm as Signature,
};
use openidconnect::{
    AccessToken, AsyncHttpClient, AuthType, AuthorizationCode, ClaimsVerificationError, ClientId, ClientSecret,
    CsrfToken, EndpointMaybeSet, EndpointNotSet, EndpointSet, HttpRequest, HttpResponse, IssuerUrl, LogoutRequest,
    Nonce, OAuth2TokenResponse as _, PkceCodeChallenge, PkceCodeVerifier, PostLogoutRedirectUrl,
    ProviderMetadataWithLogout as Metadata, RedirectUrl, RequestTokenError, Scope, SignatureVerificationError,
    TokenResponse as _,
};
use tokio::sync::Mutex;
use tokio::time::timeout;
use url::Url;

use crate::console::oidc::flow::FlowProof;
use crate::console::oidc::identity::{Identity, NoIdentity, OidcClaims};
use crate::console::oidc::settings::OidcSettings;
use crate::http::per_client::{Slot, Slots};
use crate::model::{client_network, shown};
use crate::tls::HttpsClient;

/// How long a page waits for the provider.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often what the provider says of itself is read anew.
const REFRESH_INTERVAL: Duration = Duration::from_secs(60 * 60);
/// How long that counts while the provider does not say it again.
const KEEP: Duration = Duration::from_secs(24 * 60 * 60);
/// After a failure, and after new keys.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);
/// People who wait for the provider, in all and of one network.
const WAITING_MAX: usize = 64;
const WAITING_EACH_MAX: usize = 8;
/// What a log line quotes of the provider.
const QUOTED_MAX_CHARS: usize = 300;

/// With a key that everybody may know. Not HS256, whose key is a secret that people may have chosen.
const SIGNATURES: [Signature; 9] = [
    Signature::RsaSsaPkcs1V15Sha256,
    Signature::RsaSsaPkcs1V15Sha384,
    Signature::RsaSsaPkcs1V15Sha512,
    Signature::RsaSsaPssSha256,
    Signature::RsaSsaPssSha384,
    Signature::RsaSsaPssSha512,
    Signature::EcdsaP256Sha256,
    Signature::EcdsaP384Sha384,
    Signature::EdDsa,
];

/// Why somebody is not signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OidcError {
    /// The provider cannot be reached, or says nothing that can be used.
    Unavailable,
    /// Too many wait for it.
    Busy,
    /// The provider did not take the code.
    CodeRefused,
    /// The ID token is not for us, not now, or not of the provider.
    Unverified,
    NoIdentity(NoIdentity),
}

/// An account that the provider has signed in.
pub struct Authenticated {
    pub identity: Identity,
    /// Signed by the provider.
    pub id_token: String,
}

type Client =
    CoreClient<EndpointSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointMaybeSet, EndpointMaybeSet>;

#[derive(Debug)]
pub struct Provider {
    settings: OidcSettings,
    requests: Requests,
    /// Held while it is read, so that it is read once for all who wait.
    known: Mutex<Known>,
    waiting: Arc<Slots<IpAddr>>,
}

#[derive(Debug, Default)]
struct Known {
    metadata: Option<(Arc<Metadata>, Instant)>,
    failed: Option<Instant>,
    keys_renewed: Option<Instant>,
}

impl Known {
    fn metadata(&self, within: Duration) -> Option<Arc<Metadata>> {
        let (metadata, since) = self.metadata.as_ref()?;
        (since.elapsed() < within).then(|| Arc::clone(metadata))
    }
}

fn is_recent(time: Option<Instant>) -> bool {
    time.is_some_and(|time| time.elapsed() < RETRY_INTERVAL)
}

impl Provider {
    pub fn new(settings: OidcSettings) -> Result<Self, String> {
        Ok(Self {
            requests: Requests {
                client: HttpsClient::new(&settings.authorities)?,
                may_be_plain: settings.is_plain(),
            },
            settings,
            known: Mutex::default(),
            waiting: Arc::default(),
        })
    }

    /// Where somebody signs in.
    pub async fn authorization_url(&self, proof: &FlowProof, client: IpAddr) -> Result<Url, OidcError> {
        let _slot = self.slot(client)?;
        let metadata = self.metadata().await?;
        let client = self.client(&metadata)?;
        let (state, nonce) = (CsrfToken::new(proof.state.clone()), Nonce::new(proof.nonce.clone()));
        let verifier = PkceCodeVerifier::new(proof.verifier.clone());
        let scopes = self.settings.scopes.iter().cloned().map(Scope::new);
        let request = client
            .authorize_url(CoreAuthenticationFlow::AuthorizationCode, || state, || nonce)
            .add_scopes(scopes)
            .set_pkce_challenge(PkceCodeChallenge::from_code_verifier_sha256(&verifier));
        Ok(request.url().0)
    }

    /// Who has come back with a code.
    pub async fn redeem(&self, code: String, proof: &FlowProof, client: IpAddr) -> Result<Authenticated, OidcError> {
        let _slot = self.slot(client)?;
        let redeemed = timeout(PATIENCE, self.redeem_in_time(code, proof)).await;
        redeemed.unwrap_or_else(|_| {
            tracing::warn!("OpenID provider did not answer within {PATIENCE:?}");
            Err(OidcError::Unavailable)
        })
    }

    async fn redeem_in_time(&self, code: String, proof: &FlowProof) -> Result<Authenticated, OidcError> {
        let metadata = self.metadata().await?;
        let client = self.client(&metadata)?;
        let request = client.exchange_code(AuthorizationCode::new(code));
        let request = request.map_err(|error| unavailable("has no token endpoint", &error))?;
        let request = request.set_pkce_verifier(PkceCodeVerifier::new(proof.verifier.clone()));
        let response = request
            .request_async(&self.requests)
            .await
            .map_err(|error| match error {
                RequestTokenError::ServerResponse(error) => {
                    tracing::warn!(error = quoted(&error.to_string()), "OpenID provider refused a code");
                    OidcError::CodeRefused
                }
                error => unavailable("gave no tokens", &error),
            })?;
        let Some(id_token) = response.id_token() else {
            tracing::warn!("OpenID provider sent no ID token");
            return Err(OidcError::Unverified);
        };
        self.verify(id_token, proof, &metadata).await?;
        let id_token = id_token.to_string();
        let mut claims = claims_of(&id_token).ok_or(OidcError::Unverified)?;
        if self.settings.lacks(&claims) {
            self.ask_for_more(&metadata, response.access_token(), &mut claims)
                .await?;
        }
        let identity = self.settings.identify(&claims).map_err(OidcError::NoIdentity)?;
        Ok(Authenticated { identity, id_token })
    }

    /// Verifies signature, issuer, audience, expiry and nonce.
    async fn verify(
        &self,
        id_token: &CoreIdToken,
        proof: &FlowProof,
        metadata: &Arc<Metadata>,
    ) -> Result<(), OidcError> {
        let nonce = Nonce::new(proof.nonce.clone());
        let check = |metadata: &Metadata| -> Result<(), ClaimsVerificationError> {
            let supported = metadata.id_token_signing_alg_values_supported();
            let signatures = SIGNATURES.into_iter().filter(|signature| supported.contains(signature));
            let issuer = metadata.issuer().clone();
            let client_id = ClientId::new(self.settings.client_id.clone());
            let verifier = CoreIdTokenVerifier::new_public_client(client_id, issuer, metadata.jwks().clone());
            id_token
                .claims(&verifier.set_allowed_algs(signatures), &nonce)
                .map(drop)
        };
        let mut checked = check(metadata);
        if has_other_key(&checked)
            && let Some(renewed) = self.metadata_with_new_keys(metadata).await
        {
            checked = check(&renewed);
        }
        checked.map_err(|error| {
            tracing::warn!(error = described(&error), "ID token not verified");
            OidcError::Unverified
        })
    }

    /// Adds the claims that the provider has at another place only.
    async fn ask_for_more(
        &self,
        metadata: &Metadata,
        token: &AccessToken,
        claims: &mut OidcClaims,
    ) -> Result<(), OidcError> {
        let Some(url) = metadata.userinfo_endpoint() else {
            return Ok(());
        };
        let mut authorization = HeaderValue::try_from(format!("Bearer {}", token.secret()))
            .map_err(|error| unavailable("sent an access token that no header can carry", &error))?;
        authorization.set_sensitive(true);
        let request = Request::get(url.as_str())
            .header(ACCEPT, "application/json")
            .header(AUTHORIZATION, authorization)
            .body(Vec::new());
        let request = request.map_err(|error| unavailable("has a wrong userinfo endpoint", &error))?;
        let response = self.requests.call(request).await;
        let response = response.map_err(|error| unavailable("gave no claims", &error))?;
        let more: Option<OidcClaims> = serde_json::from_slice(response.body()).ok();
        let more = more.filter(|_| response.status() == StatusCode::OK);
        // Others than those of the ID token would be of somebody else.
        let Some(more) = more.filter(|more| more.get("sub") == claims.get("sub")) else {
            tracing::warn!(status = %response.status(), "OpenID provider sent no claims of the one who signs in");
            return Err(OidcError::Unavailable);
        };
        for (name, value) in more {
            claims.entry(name).or_insert(value);
        }
        Ok(())
    }

    /// Where to sign out at the provider, if that is possible.
    pub async fn end_session_url(&self, id_token: Option<&str>, back: &str) -> Option<Url> {
        let metadata = self.metadata().await.ok()?;
        let endpoint = metadata.additional_metadata().end_session_endpoint.clone()?;
        let request = LogoutRequest::from(endpoint).set_client_id(ClientId::new(self.settings.client_id.clone()));
        let request = request.set_post_logout_redirect_uri(PostLogoutRedirectUrl::new(back.to_owned()).ok()?);
        let hint = id_token.and_then(|id_token| CoreIdToken::from_str(id_token).ok());
        let request = match &hint {
            Some(hint) => request.set_id_token_hint(hint),
            None => request,
        };
        Some(request.http_get_url()).filter(|url| self.may_open(url))
    }

    /// Whether a browser may be sent there.
    fn may_open(&self, url: &Url) -> bool {
        url.scheme() == "https" || url.scheme() == "http" && self.settings.is_plain()
    }

    fn slot(&self, client: IpAddr) -> Result<Slot<IpAddr>, OidcError> {
        let slot = self.waiting.take(client_network(client), WAITING_EACH_MAX, WAITING_MAX);
        slot.ok_or(OidcError::Busy)
    }

    fn client(&self, metadata: &Metadata) -> Result<Client, OidcError> {
        let OidcSettings { client_id, secret, .. } = &self.settings;
        if !self.may_open(metadata.authorization_endpoint().url()) {
            tracing::warn!("OpenID provider has an authorization_endpoint that is no https URL");
            return Err(OidcError::Unavailable);
        }
        let redirect = RedirectUrl::new(self.settings.redirect_url());
        let redirect = redirect.map_err(|error| unavailable("has no way back", &error))?;
        let secret = secret
            .as_ref()
            .map(|secret| ClientSecret::new(secret.text().to_owned()));
        let client = CoreClient::from_provider_metadata(metadata.clone(), ClientId::new(client_id.clone()), secret);
        let methods = metadata.token_endpoint_auth_methods_supported();
        let takes = |method| methods.is_some_and(|methods| methods.contains(&method));
        let is_in_body =
            takes(CoreClientAuthMethod::ClientSecretPost) && !takes(CoreClientAuthMethod::ClientSecretBasic);
        let method = if is_in_body {
            AuthType::RequestBody
        } else {
            AuthType::BasicAuth
        };
        Ok(client.set_auth_type(method).set_redirect_uri(redirect))
    }

    /// What the provider says of itself, with its keys.
    async fn metadata(&self) -> Result<Arc<Metadata>, OidcError> {
        let mut known = self.known.lock().await;
        if let Some(metadata) = known.metadata(REFRESH_INTERVAL) {
            return Ok(metadata);
        }
        if !is_recent(known.failed) {
            self.read(&mut known).await;
        }
        known.metadata(KEEP).ok_or(OidcError::Unavailable)
    }

    /// The same, if the provider has other keys now. Asks it now and then only.
    async fn metadata_with_new_keys(&self, old: &Arc<Metadata>) -> Option<Arc<Metadata>> {
        let mut known = self.known.lock().await;
        let is_new = |metadata: &Arc<Metadata>| !Arc::ptr_eq(metadata, old);
        if known.metadata(KEEP).as_ref().is_none_or(is_new) || is_recent(known.keys_renewed) {
            return known.metadata(KEEP).filter(is_new);
        }
        known.keys_renewed = Some(Instant::now());
        self.read(&mut known).await;
        known.metadata(KEEP).filter(is_new)
    }

    async fn read(&self, known: &mut Known) {
        // Checked with the settings.
        let Ok(issuer) = IssuerUrl::new(self.settings.issuer.clone()) else {
            return;
        };
        let error = match timeout(PATIENCE, Metadata::discover_async(issuer, &self.requests)).await {
            Ok(Ok(metadata)) => {
                known.failed = None;
                known.metadata = Some((Arc::new(metadata), Instant::now()));
                return;
            }
            Ok(Err(error)) => described(&error),
            Err(_) => format!("no answer within {PATIENCE:?}"),
        };
        tracing::warn!(issuer = self.settings.issuer, error, "cannot read the OpenID provider");
        known.failed = Some(Instant::now());
    }
}

/// Whether a signature may be of a key that was not known yet.
const fn has_other_key(checked: &Result<(), ClaimsVerificationError>) -> bool {
    matches!(
        checked,
        Err(ClaimsVerificationError::SignatureVerification(
            SignatureVerificationError::NoMatchingKey | SignatureVerificationError::CryptoError(_)
        ))
    )
}

/// The claims of an ID token that has been verified.
fn claims_of(id_token: &str) -> Option<OidcClaims> {
    let payload = id_token.split('.').nth(1)?;
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

fn unavailable(what: &str, error: &(dyn Error + 'static)) -> OidcError {
    tracing::warn!(error = described(error), "OpenID provider {what}");
    OidcError::Unavailable
}

/// An error with its causes.
fn described(error: &(dyn Error + 'static)) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    quoted(&text)
}

fn quoted(text: &str) -> String {
    shown::line(text).chars().take(QUOTED_MAX_CHARS).collect()
}

/// How the crate of OpenID Connect sends its requests.
#[derive(Debug)]
struct Requests {
    client: HttpsClient,
    may_be_plain: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct RequestFailed(String);

impl<'c> AsyncHttpClient<'c> for Requests {
    type Error = RequestFailed;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, RequestFailed>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(async move {
            if !self.may_be_plain && request.uri().scheme() != Some(&Scheme::HTTPS) {
                return Err(RequestFailed(format!("{} is no https URL", request.uri())));
            }
            let request = request.map(|body| Full::new(Bytes::from(body)));
            let response = self.client.send(request).await.map_err(RequestFailed)?;
            Ok(response.map(Vec::from))
        })
    }
}
