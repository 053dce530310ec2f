//! HTTPS of the commands: whom they trust, and who they are.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use ureq::tls::{Certificate as TrustedCertificate, ClientCert, PrivateKey, RootCerts, TlsConfig, TlsProvider};

use crate::api::COMMAND_LINE;
use crate::cli::exit::{CliError, Failure};
use crate::tls::{self, Authorities, Certificate, PairFiles};

#[derive(Debug, Clone, Args)]
pub(super) struct TlsArgs {
    /// PEM file with certificate authorities to trust beside those of the system
    #[arg(long, value_name = "FILE", env = "TINYD_CA", hide_env_values = true, global = true)]
    ca: Option<PathBuf>,

    /// PEM file with a client certificate and its chain
    #[arg(
        long,
        value_name = "FILE",
        env = "TINYD_CLIENT_CERT",
        hide_env_values = true,
        requires = "client_key",
        global = true
    )]
    client_cert: Option<PathBuf>,

    /// PEM file with the key of the client certificate
    #[arg(
        long,
        value_name = "FILE",
        env = "TINYD_CLIENT_KEY",
        hide_env_values = true,
        requires = "client_cert",
        global = true
    )]
    client_key: Option<PathBuf>,
}

impl TlsArgs {
    /// A client of a URL that waits so long for an answer, and takes every status for one.
    pub(super) fn agent(&self, url: &str, timeout: Duration) -> Result<ureq::Agent, CliError> {
        self.agent_with(self.client_certificate()?, url, timeout)
    }

    /// The same for a server that is not to see our certificate.
    pub(super) fn agent_without_certificate(&self, url: &str, timeout: Duration) -> Result<ureq::Agent, CliError> {
        self.agent_with(None, url, timeout)
    }

    fn agent_with(
        &self,
        certificate: Option<ClientCert>,
        url: &str,
        timeout: Duration,
    ) -> Result<ureq::Agent, CliError> {
        let is_https = url.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:"));
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(tls::provider())
            .root_certs(self.roots(is_https)?)
            .client_cert(certificate);
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            .user_agent(format!("{COMMAND_LINE}{}", env!("CARGO_PKG_VERSION")))
            // The API never redirects, and a session must not follow where somebody else sends it.
            .max_redirects(0)
            .tls_config(tls.build());
        Ok(config.proxy(None).build().into())
    }

    fn roots(&self, is_https: bool) -> Result<RootCerts, CliError> {
        let more = match &self.ca {
            None => Authorities::default(),
            Some(path) => {
                let wrong = |reason: String| Failure::Usage.error(format!("--ca {}: {reason}", path.display()));
                let pem = fs::read(path).map_err(|error| wrong(error.to_string()))?;
                Authorities::from_pem(&pem).map_err(wrong)?
            }
        };
        let trusted = if is_https {
            more.certificates_with_those_of_system()
        } else {
            Vec::new()
        };
        if trusted.is_empty() {
            // Of Mozilla, where the system has none.
            return Ok(RootCerts::WebPki);
        }
        Ok(trusted
            .iter()
            .map(|der| TrustedCertificate::from_der(der).to_owned())
            .into())
    }

    fn client_certificate(&self) -> Result<Option<ClientCert>, CliError> {
        let (Some(certificate), Some(key)) = (&self.client_cert, &self.client_key) else {
            return Ok(None);
        };
        let files = PairFiles {
            certificate: certificate.clone(),
            key: key.clone(),
        };
        let wrong = |reason: String| Failure::Usage.error(format!("--client-cert and --client-key: {reason}"));
        let read =
            |path: &PathBuf| fs::read(path).map_err(|error| wrong(format!("cannot read {}: {error}", path.display())));
        let (chain, key) = (read(certificate)?, read(key)?);
        // Key and certificate must fit.
        Certificate::from_pem(&files, &chain, &key).map_err(|error| wrong(error.to_string()))?;
        let items: Result<Vec<_>, _> = ureq::tls::parse_pem(&chain).collect();
        let items = items.map_err(|error| wrong(error.to_string()))?;
        let chain: Vec<_> = items
            .into_iter()
            .filter_map(|item| match item {
                ureq::tls::PemItem::Certificate(certificate) => Some(certificate),
                _ => None,
            })
            .collect();
        let key = PrivateKey::from_pem(&key).map_err(|error| wrong(error.to_string()))?;
        Ok(Some(ClientCert::new_with_certs(&chain, key)))
    }
}
