//! The session of a call, checked in the order of docs/kaltura-api.md#session-checks.

use crate::api::{Api, Caller, Params};
use crate::kaltura::ApiError;
use crate::kaltura::session::{self, InvalidKs, Kind, Session};
use crate::metrics::SessionFailure;
use crate::model::is_xml_char;

impl Api {
    /// The session of a call, which is counted where the session allows only so many.
    pub(super) async fn session(&self, params: &Params, caller: &Caller) -> Result<Session, ApiError> {
        let failed = |(why, fault): Refused| {
            self.metrics.calls.session_failed(why);
            fault
        };
        let session = self.check_session(params, caller).map_err(failed)?;
        // Another box may have ended it a moment ago. Strangers come no further.
        self.links.wait_until_current().await?;
        let revoked = |why| failed(invalid_ks(params, why));
        self.links.check_not_revoked(&session).map_err(revoked)?;
        if let Some(limit) = session.actions_limit()
            && !self.links.count_action(&session, limit).await?
        {
            return Err(failed(invalid_ks(params, InvalidKs::ActionsLimit)));
        }
        Ok(session)
    }

    /// The session of a call, with everything checked but how many calls it allows.
    pub(super) fn check_session(&self, params: &Params, caller: &Caller) -> Result<Session, Refused> {
        let given = params.given("ks").map_err(|fault| (SessionFailure::Malformed, fault))?;
        let text = given.ok_or((SessionFailure::Missing, ApiError::MissingKs))?;
        let invalid = |why| invalid_ks(params, why);
        let partners = self.starts.partners();
        let session = session::verify(text, &partners).map_err(|why| match self.edge() {
            // It may be of a partner whose secrets only admin boxes have.
            Some(edge) => (counted_as(why), edge),
            None => invalid(why),
        })?;
        // The user becomes the owner of links: every request and every format must be able to name it.
        if !session.user.as_deref().unwrap_or("").chars().all(is_xml_char) {
            let fault = ApiError::InvalidChar { field: "ks".to_owned() };
            return Err((SessionFailure::User, fault));
        }
        self.links.check_not_revoked(&session).map_err(invalid)?;
        session.check_expiry(self.links.clock().now()).map_err(invalid)?;
        session
            .check_restrictions(caller.address, &caller.uri)
            .map_err(invalid)?;
        Ok(session)
    }

    /// The session of a call that only an administrator may make.
    pub(super) async fn admin_session(
        &self,
        params: &Params,
        caller: &Caller,
        service: &str,
        action: &str,
    ) -> Result<Session, ApiError> {
        let session = self.session(params, caller).await?;
        match session.kind {
            Kind::Admin => Ok(session),
            Kind::User => Err(ApiError::forbidden(service, action)),
        }
    }
}

/// Why a session was not accepted: for the metrics, and for the client.
pub(super) type Refused = (SessionFailure, ApiError);

fn invalid_ks(params: &Params, why: InvalidKs) -> Refused {
    let text = params.text("ks").ok().flatten().unwrap_or("");
    let fault = ApiError::InvalidKs {
        end: session::redact(text).to_owned(),
        number: why as i8,
        description: why.to_string(),
    };
    (counted_as(why), fault)
}

const fn counted_as(why: InvalidKs) -> SessionFailure {
    match why {
        InvalidKs::Malformed => SessionFailure::Malformed,
        InvalidKs::Type => SessionFailure::Type,
        InvalidKs::Expired => SessionFailure::Expired,
        InvalidKs::Revoked => SessionFailure::Revoked,
        InvalidKs::ActionsLimit => SessionFailure::ActionsLimit,
        InvalidKs::RestrictedIp => SessionFailure::RestrictedIp,
        InvalidKs::RestrictedUri => SessionFailure::RestrictedUri,
    }
}
