//! The sections `[console]` and `[console.oidc]`.

use std::fs;

use url::Url;

use crate::config::ConfigError;
use crate::config::keys::{self, Key};
use crate::config::values::{Reader, Values};
use crate::console::{ConsoleSettings, HeaderSettings, OidcSecret, OidcSettings};
use crate::http::connection::Scheme;
use crate::kaltura::session::Partners;
use crate::model::PartnerId;

const SECTION: &str = "console";
const OIDC: &str = "console.oidc";

const MISSING: &str = "(missing)";

/// The settings, which must be right even where the console is off; `None`: there is no console.
pub fn read(
    values: &Values,
    reader: &mut Reader,
    partners: &Partners,
    has_tls: bool,
) -> Result<Option<ConsoleSettings>, ConfigError> {
    let addresses = |key| values.list(SECTION, key, |text| text.parse().ok());
    let (plain, secure) = (addresses(&keys::CONSOLE_LISTEN), addresses(&keys::CONSOLE_TLS_LISTEN));
    if let Some(address) = secure.first().filter(|_| !has_tls) {
        let reason = "HTTPS needs a certificate: expected listen and certificates in [admin.tls]";
        return Err(reader.wrong(keys::CONSOLE_TLS_LISTEN.path(SECTION), address, reason));
    }
    let plain = plain.into_iter().map(|address| (Scheme::Http, address));
    let secure = secure.into_iter().map(|address| (Scheme::Https, address));
    let text = values.text(SECTION, &keys::CONSOLE_URL);
    let url = text.and_then(|text| Url::parse(text).ok());
    let oidc = oidc(values, reader, partners, url.as_ref())?;
    let header = header(values, reader, partners)?;
    Ok(values.flag(SECTION, &keys::CONSOLE_ENABLED).then(|| ConsoleSettings {
        listen: plain.chain(secure).collect(),
        url,
        oidc,
        header,
    }))
}

/// `None`: no proxy says who has signed in.
fn header(values: &Values, reader: &Reader, partners: &Partners) -> Result<Option<HeaderSettings>, ConfigError> {
    let (user, groups, admins) = (
        &keys::CONSOLE_HEADER,
        &keys::CONSOLE_GROUPS_HEADER,
        &keys::CONSOLE_ADMIN_GROUPS,
    );
    let admin_groups = values.list(SECTION, admins, |text| Some(text.to_owned()));
    let missing = |key: &Key, reason: String| Err(reader.wrong(key.path(SECTION), MISSING, reason));
    let name = |key| values.text(SECTION, key).and_then(|text| text.parse().ok());
    let Some(header) = name(user) else {
        let given = [groups, &keys::CONSOLE_PARTNER]
            .into_iter()
            .find(|key| values.is_set(SECTION, key))
            .or((!admin_groups.is_empty()).then_some(admins));
        return given.map_or(Ok(None), |key| {
            let key = key.path(SECTION);
            missing(
                user,
                format!("{key} is for users that a proxy has signed in: expected the name of its header"),
            )
        });
    };
    if values
        .list("admin", &keys::TRUSTED_PROXIES, |text| Some(text.to_owned()))
        .is_empty()
    {
        let reason = "no proxy is trusted: name the proxies in admin.trusted_proxies";
        return Err(reader.wrong(user.path(SECTION), header, reason));
    }
    let groups_header = name(groups);
    if groups_header.is_none() && !admin_groups.is_empty() {
        return missing(
            groups,
            format!("expected the header with the groups of {}", admins.path(SECTION)),
        );
    }
    if groups_header.is_some() && admin_groups.is_empty() {
        return missing(
            admins,
            format!(
                "expected the groups of {} whose members administer",
                groups.path(SECTION)
            ),
        );
    }
    if groups_header.as_ref() == Some(&header) {
        let reason = format!("the same header as {}: expected another", user.path(SECTION));
        return Err(reader.wrong(groups.path(SECTION), header, reason));
    }
    Ok(Some(HeaderSettings {
        user: header,
        groups: groups_header,
        admin_groups,
        partner: partner(values, reader, partners, SECTION, &keys::CONSOLE_PARTNER)?,
    }))
}

/// `None`: nobody signs in with OpenID Connect.
fn oidc(
    values: &Values,
    reader: &mut Reader,
    partners: &Partners,
    console: Option<&Url>,
) -> Result<Option<OidcSettings>, ConfigError> {
    let text = |key| values.text(OIDC, key).map(str::to_owned);
    let Some(issuer) = text(&keys::OIDC_ISSUER) else {
        // A default that is written down asks for nothing.
        let mut keys = keys::of_section(OIDC).filter(|(_, default)| default.is_empty());
        let given = keys.find(|(key, _)| values.is_set(OIDC, key));
        return given.map_or(Ok(None), |(key, _)| {
            let reason = format!(
                "[{OIDC}] has {} and no issuer: expected the URL of the OpenID provider",
                key.name
            );
            Err(reader.wrong(keys::OIDC_ISSUER.path(OIDC), MISSING, reason))
        });
    };
    let Some(client_id) = text(&keys::OIDC_CLIENT_ID) else {
        let reason = "expected the ID of the client that the provider has for this console";
        return Err(reader.wrong(keys::OIDC_CLIENT_ID.path(OIDC), MISSING, reason));
    };
    let Some(console) = console else {
        let reason = "the OpenID provider sends people back to this URL: expected one such as \
                      https://links.example.com/console, or no [console.oidc]";
        return Err(reader.wrong(keys::CONSOLE_URL.path(SECTION), MISSING, reason));
    };
    let groups = |key| values.list(OIDC, key, |text| Some(text.to_owned()));
    Ok(Some(OidcSettings {
        issuer,
        client_id,
        secret: secret(values, reader)?,
        user_claim: text(&keys::OIDC_USER_CLAIM).unwrap_or_default(),
        groups_claim: text(&keys::OIDC_GROUPS_CLAIM).unwrap_or_default(),
        admin_groups: groups(&keys::OIDC_ADMIN_GROUPS),
        user_groups: groups(&keys::OIDC_USER_GROUPS),
        scopes: groups(&keys::OIDC_SCOPES),
        partner: partner(values, reader, partners, OIDC, &keys::OIDC_PARTNER)?,
        authorities: reader.authorities(values, OIDC, &keys::OIDC_CA_FILE)?,
        console: console.clone(),
    }))
}

/// The secret of the client, of a file or a credential.
fn secret(values: &Values, reader: &mut Reader) -> Result<Option<OidcSecret>, ConfigError> {
    let (file, credential) = (&keys::OIDC_SECRET_FILE, &keys::OIDC_SECRET_CREDENTIAL);
    let path = match (values.path(OIDC, file, reader), values.text(OIDC, credential)) {
        (None, None) => return Ok(None),
        (Some(path), None) => path,
        (None, Some(name)) => reader.credential(credential.path(OIDC), name)?,
        (Some(path), Some(_)) => {
            let reason = format!("give one of {} and {}, not both", file.name, credential.name);
            return Err(reader.wrong(file.path(OIDC), path.display(), reason));
        }
    };
    reader.check_mode(&path);
    let text = fs::read_to_string(&path).map_err(|cause| ConfigError::File {
        path: path.clone(),
        action: "cannot read the secret",
        cause,
    })?;
    let text = text.trim();
    if text.is_empty() || text.lines().count() > 1 {
        let reason = "expected one line with the secret of the client";
        return Err(reader.wrong(file.path(OIDC), path.display(), reason));
    }
    Ok(Some(OidcSecret::new(text.to_owned())))
}

/// The partner that a key names, or the only one.
fn partner(
    values: &Values,
    reader: &Reader,
    partners: &Partners,
    section: &'static str,
    key: &Key,
) -> Result<PartnerId, ConfigError> {
    let wrong = |value: String, reason: String| Err(reader.wrong(key.path(section), value, reason));
    let mut ids: Vec<_> = partners.ids().collect();
    ids.sort();
    if values.is_set(section, key) {
        let id = PartnerId(u32::try_from(values.number(section, key)).unwrap_or_default());
        if partners.get(id).is_some() {
            return Ok(id);
        }
        return wrong(
            id.to_string(),
            format!("no [[partner]] has this id: expected {}", one_of(&ids)),
        );
    }
    match ids.as_slice() {
        [only] => Ok(*only),
        ids => wrong(MISSING.to_owned(), format!("expected {}", one_of(ids))),
    }
}

fn one_of(ids: &[PartnerId]) -> String {
    let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
    match ids.as_slice() {
        [] => "a section [[partner]] first".to_owned(),
        [only] => only.clone(),
        ids => format!("one of {}", ids.join(", ")),
    }
}
