//! The services `session` and `user`.

use crate::access::Grant;
use crate::api::fields::{parse_integer, parse_partner};
use crate::api::{Api, Caller, Outcome, Params, transfer};
use crate::kaltura::ApiError;
use crate::kaltura::format::Value;
use crate::kaltura::session::{self, Claims, Kind, SESSION_MAX_SECONDS};
use crate::metrics::{StartMethod, StartOutcome};
use crate::model::validate::USER_ID;
use crate::model::whole_number;

/// How long a session lasts if nothing else is said, in seconds.
const EXPIRY_DEFAULT_SECONDS: i64 = 86_400;

/// `KalturaUserStatus::DELETED`.
const USER_DELETED: i64 = 2;

impl Api {
    pub(super) fn start_session(&self, params: &Params, caller: &Caller) -> Result<Outcome, ApiError> {
        let secret = params.required("secret")?;
        let partner_text = params.required("partnerId")?;
        let failed = |outcome| {
            self.starts.count(StartMethod::Api, outcome);
            ApiError::StartSession {
                partner: partner_text.to_owned(),
            }
        };
        let refused = || {
            let fault = failed(StartOutcome::Refused);
            // On an edge, it may be that only admin boxes have the secret.
            self.edge().unwrap_or(fault)
        };
        let id = parse_partner(partner_text).ok_or_else(refused)?;
        let kind = match params.given("type")?.map(whole_number) {
            None | Some(Some(0)) => Kind::User,
            Some(Some(2)) => Kind::Admin,
            Some(_) => return Err(refused()),
        };
        let seconds = match params.given("expiry")? {
            Some(text) => parse_integer("expiry", text)?,
            None => EXPIRY_DEFAULT_SECONDS,
        };
        if !(1..=SESSION_MAX_SECONDS).contains(&seconds) {
            let reason = format!("expected seconds from now, 1 to {SESSION_MAX_SECONDS}");
            return Err(ApiError::invalid("expiry", reason));
        }

        self.starts
            .check(caller.address, id, kind, secret)
            .map_err(|why| failed(why.into()))?;
        let claims = Claims {
            partner: id,
            user: params.text("userId")?.unwrap_or(""),
            kind,
            expiry: self.links.clock().now().plus(seconds),
            privileges: params.text("privileges")?.unwrap_or(""),
        };
        let minted = self
            .starts
            .partners()
            .get(id)
            .and_then(|partner| session::mint(&claims, partner, rand::random()));
        let ks = minted.ok_or_else(refused)?;
        self.starts.count(StartMethod::Api, StartOutcome::Started);
        Ok(Value::Text(ks).into())
    }

    /// tinyd's own: a link to the web console that signs in once, for whomever the administrator names.
    pub(super) async fn sign_in_link(&self, params: &Params, caller: &Caller) -> Result<Outcome, ApiError> {
        let session = self
            .admin_session(params, caller, transfer::SERVICE, "signInLink")
            .await?;
        // A session that ends in no day, and may be used from anywhere, must not come of one that is limited.
        if session.is_limited() {
            return Err(ApiError::forbidden(transfer::SERVICE, "signInLink"));
        }
        let links = self
            .starts
            .links()
            .ok_or_else(|| ApiError::forbidden(transfer::SERVICE, "signInLink"))?;
        let user = params.required("userId")?;
        if let Err(why) = USER_ID.check(user) {
            return Err(ApiError::invalid("userId", format!("expected {why}")));
        }
        let kind = match params.given("type")?.map(whole_number) {
            None | Some(Some(2)) => Kind::Admin,
            Some(Some(0)) => Kind::User,
            Some(_) => return Err(ApiError::invalid("type", "expected 0 (user) or 2 (admin)")),
        };
        let path = links.make(Grant {
            partner: session.partner,
            user: user.to_owned(),
            kind,
        });
        let fields = vec![("path", Value::Text(path))];
        Ok(Value::object("TinydSignInLink", fields).into())
    }

    pub(super) async fn end_session(&self, params: &Params, caller: &Caller) -> Result<Outcome, ApiError> {
        let session = self.session(params, caller).await?;
        self.links.revoke(&session, caller.actor(&session)).await?;
        Ok(Value::Null.into())
    }

    /// The cascade: every link that the user owns becomes deleted.
    pub(super) async fn delete_user(&self, params: &Params, caller: &Caller) -> Result<Outcome, ApiError> {
        let session = self.admin_session(params, caller, "user", "delete").await?;
        let user = params.required("userId")?;
        if user.chars().count() > USER_ID.max_chars {
            let reason = format!("a user has at most {} characters", USER_ID.max_chars);
            return Err(ApiError::invalid("userId", reason));
        }
        let by = caller.actor(&session);
        let links = self.links.delete_user(session.partner, user.to_owned(), by).await?;
        tracing::info!(partner = session.partner.0, links, "user deleted with all links");
        let fields = vec![
            ("id", Value::text(user)),
            ("partnerId", Value::Int(session.partner.0.into())),
            ("status", Value::Int(USER_DELETED)),
        ];
        Ok(Value::object("KalturaUser", fields).into())
    }
}
