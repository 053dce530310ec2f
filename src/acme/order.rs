//! One order: from the account to a certificate that can be served.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    Account as Client, AccountBuilder, AccountCredentials, AuthorizationHandle, AuthorizationStatus,
    CertificateIdentifier, ChallengeType, Error, Identifier, NewAccount, NewOrder, Order as Process, OrderStatus,
    RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::Der;

use crate::acme::challenges::{PublishedToken, is_token};
use crate::acme::exchange::Exchange;
use crate::acme::folder::{Account, AcmeFolder};
use crate::acme::problem::{OrderFailure, printable};
use crate::acme::schedule::RenewalWindow;
use crate::acme::settings::normal_domain;
use crate::acme::{AcmeSettings, ChallengeKind, Challenges};
use crate::model::{Clock, Timestamp};
use crate::tls::{Certificate, CertificateIdentity, PairFiles, Proof, TlsServer};

/// For the authority to validate all names, and again to issue.
const POLL: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(250))
    .backoff(1.5)
    .timeout(Duration::from_secs(180));
/// How often `newAccount` is tried in an order: once more if the account of before is unknown.
const ACCOUNT_TRIES: usize = 2;
/// By how much the clock of an authority may be ahead, in seconds.
const CLOCK_SKEW_MAX: i64 = 5 * 60;

/// What an order needs.
#[derive(Clone)]
pub(super) struct Orderer {
    pub(super) clock: Clock,
    pub(super) settings: AcmeSettings,
    pub(super) folder: AcmeFolder,
    pub(super) exchange: Exchange,
    pub(super) challenges: Arc<Challenges>,
    pub(super) tls: Arc<TlsServer>,
}

/// What an order led to.
pub(super) struct Issued {
    pub(super) certificate: Certificate,
    /// As PEM.
    pub(super) key: String,
    pub(super) chain: String,
}

/// Withdraws the answer to a challenge when it is dropped.
enum Shown {
    Token { _token: PublishedToken },
    Proof { tls: Arc<TlsServer>, name: String },
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let Self::Proof { tls, name } = self {
            tls.prove(name, None);
        }
    }
}

fn identifier_of(identity: &CertificateIdentity) -> CertificateIdentifier<'static> {
    let (key, serial) = (&identity.authority_key, &identity.serial);
    CertificateIdentifier::new(Der::from_slice(key), Der::from_slice(serial)).into_owned()
}

impl Orderer {
    /// A certificate in place of the one with this identity.
    pub(super) async fn order(self, replaces: Option<CertificateIdentity>) -> Result<Issued, OrderFailure> {
        let mut tries = 0;
        loop {
            tries += 1;
            let ordered = match self.account().await {
                Ok(client) => self.order_as(&client, replaces.as_ref()).await,
                Err(failure) => Err(failure),
            };
            match ordered {
                Err(failure) if failure.is_account_unknown && tries < ACCOUNT_TRIES => {
                    tracing::info!(reason = failure.reason, "the account cannot be used; making another");
                    self.on_disk(|folder, directory| folder.remove_account(directory))
                        .await?;
                }
                ordered => return ordered,
            }
        }
    }

    /// When the authority wants this certificate to be renewed, and after how many seconds to ask again. `None`: it
    /// does not say such things, or does not know this server.
    pub(super) async fn window(
        self,
        identity: CertificateIdentity,
    ) -> Result<Option<(RenewalWindow, i64)>, OrderFailure> {
        let directory = self.settings.directory.clone();
        let Some(account) = self.on_disk(move |folder, _| folder.account(&directory)).await? else {
            return Ok(None);
        };
        let client = self.restore(account).await?;
        let asked = client.renewal_info(&identifier_of(&identity)).await;
        let (info, pause) = match asked {
            Ok(told) => told,
            Err(Error::Unsupported(_)) => return Ok(None),
            Err(error) => return Err(OrderFailure::of("renewal information", &error, &[])),
        };
        if let Some(url) = &info.explanation_url {
            tracing::debug!(url = printable(url), "the authority explains its renewal information");
        }
        let at = |time: i64| Timestamp::from_unix(time);
        let window = RenewalWindow {
            start: at(info.suggested_window.start.unix_timestamp()),
            end: at(info.suggested_window.end.unix_timestamp()),
        };
        Ok(Some((window, i64::try_from(pause.as_secs()).unwrap_or(i64::MAX))))
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&AcmeFolder, &str) -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, OrderFailure> {
        let (folder, directory) = (self.folder.clone(), self.settings.directory.clone());
        let worked = tokio::task::spawn_blocking(move || work(&folder, &directory)).await;
        let failed = |error: &dyn std::fmt::Display| OrderFailure::new(format!("cannot use the data folder: {error}"));
        worked.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
    }

    fn contact(&self) -> Option<String> {
        self.settings.email.as_ref().map(|email| format!("mailto:{email}"))
    }

    async fn restore(&self, account: Account) -> Result<Client, OrderFailure> {
        let credentials: Result<AccountCredentials, _> = serde_json::from_value(account.credentials);
        let Ok(credentials) = credentials else {
            return Err(OrderFailure::of_damaged_account());
        };
        match self.builder().from_credentials(credentials).await {
            Ok(client) => Ok(client),
            Err(Error::KeyRejected | Error::Crypto) => Err(OrderFailure::of_damaged_account()),
            Err(error) => Err(OrderFailure::of("cannot read the directory", &error, &[])),
        }
    }

    fn builder(&self) -> AccountBuilder {
        Client::builder_with_http(Box::new(self.exchange.clone()))
    }

    /// The account of this directory, with the address of the settings; a new one if there is none yet.
    async fn account(&self) -> Result<Client, OrderFailure> {
        let contact = self.contact();
        let contacts: Vec<_> = contact.as_deref().into_iter().collect();
        let email = self.settings.email.clone();
        if let Some(mut account) = self.on_disk(|folder, directory| folder.account(directory)).await? {
            let is_changed = account.email != email;
            let credentials = account.credentials.clone();
            let client = self
                .restore(Account {
                    email: None,
                    credentials,
                })
                .await?;
            if is_changed {
                let updated = client.update_contacts(&contacts).await;
                updated.map_err(|error| OrderFailure::of("cannot change the mail address", &error, &[]))?;
                account.email = email;
                self.on_disk(move |folder, directory| folder.store_account(directory, &account))
                    .await?;
            }
            return Ok(client);
        }
        let new = NewAccount {
            contact: &contacts,
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let created = self.builder().create(&new, self.settings.directory.clone(), None).await;
        let (client, credentials) = created.map_err(|error| OrderFailure::of("cannot make an account", &error, &[]))?;
        let credentials = serde_json::to_value(credentials).map_err(OrderFailure::new)?;
        let account = Account { email, credentials };
        self.on_disk(move |folder, directory| folder.store_account(directory, &account))
            .await?;
        tracing::info!(directory = self.settings.directory, "account made");
        Ok(client)
    }

    async fn order_as(&self, client: &Client, replaces: Option<&CertificateIdentity>) -> Result<Issued, OrderFailure> {
        self.check_profile(client)?;
        let mut process = self.begin(client, replaces).await?;
        let (mut shown, mut secrets) = (Vec::new(), Vec::new());
        let mut authorizations = process.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let authorization =
                authorization.map_err(|error| OrderFailure::of("cannot read an authorization", &error, &[]))?;
            shown.extend(self.prove(authorization, &mut secrets).await?);
        }
        if process.state().status == OrderStatus::Pending {
            let ready = process.poll_ready(&POLL).await;
            let status = ready.map_err(|error| OrderFailure::of("the validation failed", &error, &secrets));
            if !matches!(status, Ok(OrderStatus::Ready)) {
                let reason = refusals(&mut process, &secrets).await;
                return Err(reason.map_or_else(|| status.err().unwrap_or_else(unready), OrderFailure::new));
            }
        }
        drop(shown);
        let (key, request) = request_for(&self.settings.domains).map_err(OrderFailure::new)?;
        let finalized = process.finalize_csr(&request).await;
        finalized.map_err(|error| OrderFailure::of("the authority refuses the request", &error, &secrets))?;
        let chain = process.poll_certificate(&POLL).await;
        let chain = chain.map_err(|error| OrderFailure::of("no certificate", &error, &secrets))?;
        let certificate = judge(&self.settings, &chain, &key, self.clock.now()).map_err(OrderFailure::new)?;
        Ok(Issued {
            certificate,
            key,
            chain,
        })
    }

    fn check_profile(&self, client: &Client) -> Result<(), OrderFailure> {
        let Some(wanted) = &self.settings.profile else {
            return Ok(());
        };
        let known: Vec<_> = client.profiles().map(|profile| profile.name.to_owned()).collect();
        if known.contains(wanted) {
            return Ok(());
        }
        let known = if known.is_empty() {
            "none".to_owned()
        } else {
            known.join(", ")
        };
        Err(OrderFailure::new(format!(
            "the authority has no profile {wanted}; its profiles: {known}"
        )))
    }

    async fn begin(&self, client: &Client, replaces: Option<&CertificateIdentity>) -> Result<Process, OrderFailure> {
        let identifier = |domain: &String| match domain.parse::<IpAddr>() {
            Ok(address) => Identifier::Ip(address),
            Err(_) => Identifier::Dns(domain.clone()),
        };
        let identifiers: Vec<_> = self.settings.domains.iter().map(identifier).collect();
        let order = || {
            let order = NewOrder::new(&identifiers);
            match &self.settings.profile {
                Some(profile) => order.profile(profile),
                None => order,
            }
        };
        if let Some(replaces) = replaces {
            match client.new_order(&order().replaces(identifier_of(replaces))).await {
                Ok(process) => return Ok(process),
                // The predecessor has been replaced already, or is unknown: the name is what counts.
                Err(error) => tracing::debug!(%error, "the authority does not take the order as a renewal"),
            }
        }
        let ordered = client.new_order(&order()).await;
        ordered.map_err(|error| OrderFailure::of("the authority refuses the order", &error, &[]))
    }

    /// Shows the proof for a name, and has it validated. Nothing is shown for a name that was proved before.
    async fn prove(
        &self,
        mut authorization: AuthorizationHandle<'_>,
        secrets: &mut Vec<String>,
    ) -> Result<Option<Shown>, OrderFailure> {
        let name = printable(&authorization.identifier().to_string());
        match authorization.status {
            AuthorizationStatus::Valid => return Ok(None),
            AuthorizationStatus::Pending => {}
            status => {
                return Err(OrderFailure::new(format!(
                    "{name}: the authorization is {status:?} already"
                )));
            }
        }
        if !self.settings.domains.contains(&normal_domain(&name)) {
            return Err(OrderFailure::new(format!(
                "the authority wants proof for {name}, which was not ordered"
            )));
        }
        let wanted = match self.settings.challenge {
            ChallengeKind::Http01 => ChallengeType::Http01,
            ChallengeKind::TlsAlpn01 => ChallengeType::TlsAlpn01,
        };
        let Some(mut challenge) = authorization.challenge(wanted) else {
            let wanted = self.settings.challenge.name();
            return Err(OrderFailure::new(format!(
                "{name}: the authority offers no {wanted} challenge"
            )));
        };
        if !is_token(&challenge.token) {
            return Err(OrderFailure::new(format!(
                "{name}: the authority sent a token that is none"
            )));
        }
        let authorized = challenge.key_authorization();
        // The longer one first, so that nothing of it remains when they are cut out.
        secrets.extend([authorized.as_str().to_owned(), challenge.token.clone()]);
        let shown = match self.settings.challenge {
            ChallengeKind::Http01 => Shown::Token {
                _token: self.challenges.publish(&challenge.token, authorized.as_str()),
            },
            ChallengeKind::TlsAlpn01 => {
                let proof = proof(&name, authorized.digest().as_ref()).map_err(OrderFailure::new)?;
                let name = asked_name(&name);
                self.tls.prove(&name, Some(proof));
                Shown::Proof {
                    tls: Arc::clone(&self.tls),
                    name,
                }
            }
        };
        let begun = challenge.set_ready().await;
        begun.map_err(|error| OrderFailure::of(&format!("{name}: the challenge failed"), &error, secrets))?;
        Ok(Some(shown))
    }
}

fn unready() -> OrderFailure {
    OrderFailure::new("the authority did not validate the names and does not say why")
}

/// What the authority says of the names that it did not validate.
async fn refusals(process: &mut Process, secrets: &[String]) -> Option<String> {
    let mut reasons = Vec::new();
    let mut authorizations = process.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else {
            continue;
        };
        let name = state.identifier().to_string();
        let problems = state.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
        reasons.extend(problems.map(|problem| {
            let problem = Error::Api(problem.clone());
            OrderFailure::of(&format!("{name} was not validated"), &problem, secrets).reason
        }));
    }
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

/// A new key as PEM, and the request (PKCS #10) for it.
fn request_for(domains: &[String]) -> Result<(String, Vec<u8>), rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(domains.to_vec())?;
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key)?;
    Ok((key.serialize_pem(), request.der().to_vec()))
}

/// The certificate that a validation by tls-alpn-01 gets.
fn proof(domain: &str, digest: &[u8]) -> Result<Proof, String> {
    let make = || {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::new(vec![domain.to_owned()])?;
        params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
        let certificate = params.self_signed(&key)?;
        Ok::<_, rcgen::Error>((certificate.der().to_vec(), key.serialize_der()))
    };
    let (certificate, key) = make().map_err(|error| error.to_string())?;
    Proof::from_der(certificate, key)
}

/// The name in the client hello of a validation: for an address, that of the reverse zone (RFC 8738, section 6).
fn asked_name(domain: &str) -> String {
    match domain.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        Ok(IpAddr::V6(address)) => {
            let nibbles = address
                .octets()
                .into_iter()
                .rev()
                .flat_map(|octet| [octet & 15, octet >> 4]);
            nibbles.map(|nibble| format!("{nibble:x}.")).collect::<String>() + "ip6.arpa"
        }
        Err(_) => domain.to_ascii_lowercase(),
    }
}

/// Takes a chain only if clients can use it: its key is ours, it has the names, and it is valid now. Not whether it
/// leads to a known root: the authority may be a private one.
fn judge(settings: &AcmeSettings, chain: &str, key: &str, now: Timestamp) -> Result<Certificate, String> {
    let files = PairFiles {
        certificate: "the certificate that was issued".into(),
        key: "the request for it".into(),
    };
    let certificate = Certificate::from_pem(&files, chain.as_bytes(), key.as_bytes());
    let certificate = certificate.map_err(|error| error.to_string())?;
    let missing: Vec<_> = settings
        .domains
        .iter()
        .filter(|domain| !certificate.names.contains(domain))
        .collect();
    if let Some(missing) = missing.first() {
        return Err(format!("the certificate that was issued is not for {missing}"));
    }
    if let Some(fault) = certificate.broken_chain() {
        return Err(format!("no client can use the certificate that was issued: {fault}"));
    }
    if now.plus(CLOCK_SKEW_MAX) < certificate.not_before || now >= certificate.not_after {
        let (from, until) = (certificate.not_before, certificate.not_after);
        let (from, until) = (crate::tls::UtcTime(from), crate::tls::UtcTime(until));
        return Err(format!(
            "the certificate that was issued is valid from {from} to {until}, which is not now"
        ));
    }
    Ok(certificate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::Authorities;
    use crate::tls::testing::Authority;

    #[test]
    fn validations_ask_for_names_and_reverse_addresses() {
        assert_eq!(asked_name("Go.example"), "go.example");
        assert_eq!(asked_name("192.0.2.7"), "7.2.0.192.in-addr.arpa");
        let six = asked_name("2001:db8::1");
        assert!(
            six.starts_with("1.0.0.0.") && six.ends_with("8.b.d.0.1.0.0.2.ip6.arpa"),
            "{six}"
        );
        assert!(proof("192.0.2.7", &[7; 32]).is_ok());
    }

    #[test]
    fn chains_that_clients_cannot_use_are_refused() {
        let settings = AcmeSettings {
            domains: vec!["a.example".to_owned(), "192.0.2.7".to_owned()],
            email: None,
            directory: String::new(),
            challenge: ChallengeKind::Http01,
            profile: None,
            authorities: Authorities::default(),
        };
        let root = Authority::new("private");
        let names = ["a.example", "192.0.2.7"];
        let ((chain, key), (_, other)) = (root.issue(&names, 1_000, 2_000), root.issue(&names, 1_000, 2_000));
        let (fewer, its_key) = root.issue(&names[..1], 1_000, 2_000);
        let disordered = chain.replacen(&root.pem(), &Authority::new("other").pem(), 1);
        let endless = chain.clone() + &root.pem().repeat(20);
        let no_certificate = chain.clone() + "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n";
        let judged = |chain: &str, key: &str, now| judge(&settings, chain, key, Timestamp::from_unix(now));
        assert!(judged(&chain, &key, 1_500).is_ok());
        for (chain, key, now, reason) in [
            (&*chain, &*other, 1_500, "is not that of the certificate"),
            (&fewer, &its_key, 1_500, "is not for 192.0.2.7"),
            (&chain, &key, 699, "which is not now"),
            (&chain, &key, 2_000, "which is not now"),
            ("garbage", &key, 1_500, "holds no certificate"),
            (&disordered, &key, 1_500, "did not issue certificate 1"),
            (&endless, &key, 1_500, "which clients refuse"),
            (&no_certificate, &key, 1_500, "is none of X.509"),
        ] {
            let error = judged(chain, key, now).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn every_request_has_a_key_of_its_own() {
        let domains = ["a.example".to_owned(), "2001:db8::1".to_owned()];
        let ((one, _), (other, _)) = (request_for(&domains).unwrap(), request_for(&domains).unwrap());
        assert_ne!(one, other);
    }
}
