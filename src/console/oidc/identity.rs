//! Who somebody is by the claims of the provider.

use serde_json::{Map, Value};

use crate::console::oidc::settings::OidcSettings;
use crate::model::validate::USER_ID;

pub type OidcClaims = Map<String, Value>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub user: String,
    pub is_admin: bool,
}

/// Why nobody can be signed in by these claims, for the one who tries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoIdentity {
    /// The claim is not there, or not a text.
    Missing(String),
    UnverifiedEmail,
    /// Not what a user id may be.
    Invalid(String, String),
    NotAllowed,
}

impl OidcSettings {
    /// Whether these claims say nothing of what is asked for, which the provider may say elsewhere.
    pub(super) fn lacks(&self, claims: &OidcClaims) -> bool {
        let needs_groups = !self.admin_groups.is_empty() || !self.user_groups.is_empty();
        let needed = [
            (true, self.user_claim.as_str()),
            (needs_groups, &self.groups_claim),
            (self.user_claim == EMAIL, EMAIL_VERIFIED),
        ];
        let mut needed = needed.into_iter().filter(|(is_needed, _)| *is_needed);
        needed.any(|(_, name)| find(claims, name).is_none())
    }

    pub(super) fn identify(&self, claims: &OidcClaims) -> Result<Identity, NoIdentity> {
        let name = &self.user_claim;
        let user = find(claims, name).and_then(Value::as_str).unwrap_or_default();
        if user.is_empty() {
            return Err(NoIdentity::Missing(name.clone()));
        }
        if name == EMAIL && !find(claims, EMAIL_VERIFIED).is_some_and(is_true) {
            return Err(NoIdentity::UnverifiedEmail);
        }
        USER_ID
            .check(user)
            .map_err(|error| NoIdentity::Invalid(name.clone(), error.to_string()))?;
        let groups = find(claims, &self.groups_claim);
        let is_in = |wanted: &[String]| groups.is_some_and(|groups| texts(groups).any(|group| wanted.contains(group)));
        let is_admin = is_in(&self.admin_groups);
        if !is_admin && !self.user_groups.is_empty() && !is_in(&self.user_groups) {
            return Err(NoIdentity::NotAllowed);
        }
        Ok(Identity {
            user: user.to_owned(),
            is_admin,
        })
    }
}

const EMAIL: &str = "email";
const EMAIL_VERIFIED: &str = "email_verified";

/// A claim by its name or, where there is none of that name, by a path through objects: `realm_access.roles`.
fn find<'c>(claims: &'c OidcClaims, name: &str) -> Option<&'c Value> {
    if let Some(claim) = claims.get(name) {
        return Some(claim);
    }
    let mut parts = name.split('.');
    let first = claims.get(parts.next()?)?;
    parts.try_fold(first, |value, part| value.get(part))
}

/// One text or a list of them.
fn texts(value: &Value) -> impl Iterator<Item = &String> {
    let items = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    items.iter().filter_map(|item| match item {
        Value::String(text) => Some(text),
        _ => None,
    })
}

/// Some providers write booleans as texts.
fn is_true(value: &Value) -> bool {
    value.as_bool() == Some(true) || value.as_str() == Some("true")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::PartnerId;

    fn settings(user_claim: &str) -> OidcSettings {
        OidcSettings {
            issuer: "https://login.example.com".to_owned(),
            client_id: "tinyd".to_owned(),
            secret: None,
            user_claim: user_claim.to_owned(),
            groups_claim: "groups".to_owned(),
            admin_groups: vec!["admins".to_owned()],
            user_groups: Vec::new(),
            scopes: Vec::new(),
            partner: PartnerId(1),
            authorities: crate::tls::Authorities::default(),
            console: url::Url::parse("https://links.example.com/console").unwrap(),
        }
    }

    fn claims(value: Value) -> OidcClaims {
        value.as_object().unwrap().clone()
    }

    fn identity(user: &str, is_admin: bool) -> Result<Identity, NoIdentity> {
        Ok(Identity {
            user: user.to_owned(),
            is_admin,
        })
    }

    #[test]
    fn configured_claim_says_who_somebody_is() {
        let given = claims(
            json!({"sub": "s-1", "preferred_username": "anna", "n": 7, "empty": "", "a": {"b": "deep"},
                                  "x.y": "flat", "x": {"y": "deep"}}),
        );
        for (claim, expected) in [
            ("sub", identity("s-1", false)),
            ("preferred_username", identity("anna", false)),
            ("a.b", identity("deep", false)),
            ("x.y", identity("flat", false)),
            ("a", Err(NoIdentity::Missing("a".to_owned()))),
            ("n", Err(NoIdentity::Missing("n".to_owned()))),
            ("empty", Err(NoIdentity::Missing("empty".to_owned()))),
            ("upn", Err(NoIdentity::Missing("upn".to_owned()))),
        ] {
            assert_eq!(settings(claim).identify(&given), expected, "{claim}");
        }
        for wrong in ["x".repeat(101), "a\u{1}".to_owned()] {
            let refused = settings("sub").identify(&claims(json!({"sub": wrong})));
            assert!(matches!(refused, Err(NoIdentity::Invalid(..))), "{refused:?}");
        }
    }

    #[test]
    fn email_counts_only_if_it_is_verified() {
        let of = |verified: Value| {
            let given = claims(json!({"email": "anna@example.com", "email_verified": verified}));
            settings("email").identify(&given)
        };
        assert_eq!(of(json!(true)), identity("anna@example.com", false));
        assert_eq!(of(json!("true")), identity("anna@example.com", false));
        for unverified in [json!(false), json!("false"), json!(1), json!(null), json!([true])] {
            assert_eq!(of(unverified.clone()), Err(NoIdentity::UnverifiedEmail), "{unverified}");
        }
        let alone = claims(json!({"email": "anna@example.com"}));
        assert_eq!(settings("email").identify(&alone), Err(NoIdentity::UnverifiedEmail));
        assert!(settings("email").lacks(&alone));
    }

    #[test]
    fn groups_say_who_is_an_administrator() {
        for (groups, is_admin) in [
            (json!(["staff", "admins"]), true),
            (json!("admins"), true),
            (json!("admins staff"), false),
            (json!(["Admins", "admins2", 7, ["admins"], null]), false),
            (json!({"admins": true}), false),
        ] {
            let given = claims(json!({"sub": "s", "groups": groups}));
            assert_eq!(settings("sub").identify(&given), identity("s", is_admin), "{given:?}");
        }
        assert_eq!(
            settings("sub").identify(&claims(json!({"sub": "s"}))),
            identity("s", false)
        );
        let nested = OidcSettings {
            groups_claim: "realm_access.roles".to_owned(),
            ..settings("sub")
        };
        let given = claims(json!({"sub": "s", "realm_access": {"roles": ["admins"]}}));
        assert_eq!(nested.identify(&given), identity("s", true));
        assert!(!nested.lacks(&given) && settings("sub").lacks(&given));
    }

    #[test]
    fn only_allowed_groups_sign_in() {
        let settings = OidcSettings {
            user_groups: vec!["staff".to_owned()],
            ..settings("sub")
        };
        let of = |groups: Value| settings.identify(&claims(json!({"sub": "s", "groups": groups})));
        assert_eq!(of(json!(["staff"])), identity("s", false));
        assert_eq!(of(json!(["admins"])), identity("s", true));
        assert_eq!(of(json!(["students"])), Err(NoIdentity::NotAllowed));
        assert_eq!(
            settings.identify(&claims(json!({"sub": "s"}))),
            Err(NoIdentity::NotAllowed)
        );
    }
}
