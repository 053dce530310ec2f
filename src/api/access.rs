//! Who is calling: the session of a call, checked in the contract's order (section 8).

use crate::api::{Api, Caller, Params};
use crate::http::Fault;
use crate::ks::{self, InvalidKs, Kind, Session};
use crate::links::Scope;
use crate::metrics::SessionFailure;
use crate::wire::is_xml_char;

impl Api {
    /// The session of a call.
    pub(super) async fn session(&self, params: &Params, caller: &Caller) -> Result<Session, Fault> {
        let failed = |why| self.metrics.calls.session_failed(why);
        let text = params.given("ks")?.ok_or_else(|| {
            failed(SessionFailure::Missing);
            Fault::MissingKs
        })?;
        let invalid = |why: InvalidKs| {
            failed(counted_as(why));
            Fault::InvalidKs {
                end: ks::shown(text).to_owned(),
                number: why.number(),
                description: why.to_string(),
            }
        };
        let partners = self.partners.borrow().clone();
        let session = ks::verify(text, &partners).map_err(invalid)?;
        // The user becomes the owner of links, whom every request and every format must be able to name.
        if !session.user.as_deref().unwrap_or("").chars().all(is_xml_char) {
            failed(SessionFailure::User);
            return Err(Fault::InvalidChar { field: "ks".to_owned() });
        }
        self.links.check_not_revoked(&session).map_err(invalid)?;
        session.check_expiry(self.links.clock().now()).map_err(invalid)?;
        session
            .check_restrictions(caller.address, &caller.uri)
            .map_err(invalid)?;
        if let Some(limit) = session.actions_limit() {
            self.links.count_action(&session, limit).await?.map_err(invalid)?;
        }
        Ok(session)
    }

    /// The session of a call that only an administrator may make.
    pub(super) async fn admin_session(
        &self,
        params: &Params,
        caller: &Caller,
        service: &str,
        action: &str,
    ) -> Result<Session, Fault> {
        let session = self.session(params, caller).await?;
        match session.kind {
            Kind::Admin => Ok(session),
            Kind::User => Err(Fault::ServiceForbidden {
                service: service.to_owned(),
                action: action.to_owned(),
            }),
        }
    }
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

/// The links that a session may touch: all of the partner's, or its user's own (contract, section 9).
pub(super) fn scope_of(session: &Session) -> Scope {
    Scope {
        partner: session.partner,
        owner: match session.kind {
            Kind::Admin => None,
            // A session without a user owns nothing: no link has an empty owner.
            Kind::User => Some(session.user.clone().unwrap_or_default()),
        },
    }
}
