//! Why PEM cannot be read, without a word of it: there may be a key in it.

use rustls::pki_types::pem::Error;

pub(super) const fn fault(error: &Error) -> &'static str {
    match error {
        Error::MissingSectionEnd { .. } => "not PEM: there is no line -----END after that with -----BEGIN",
        Error::IllegalSectionStart { .. } => "not PEM: a line that starts with -----BEGIN has no ----- at its end",
        Error::Base64Decode(_) => "not PEM: what is between -----BEGIN and -----END is no base64",
        _ => "not PEM",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;

    #[test]
    fn faults_hold_nothing_of_the_text() {
        for (text, said) in [
            (
                "-----BEGIN PRIVATE KEY----- MC4CAQ -----END PRIVATE KEY----- x\n",
                "has no -----",
            ),
            ("-----BEGIN CERTIFICATE-----\nMC4CAQ\n", "no line -----END"),
            (
                "-----BEGIN CERTIFICATE-----\nMC4\u{fc}CAQ\n-----END CERTIFICATE-----\n",
                "no base64",
            ),
        ] {
            let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
            let fault = fault(&read.unwrap_err());
            assert!(fault.contains(said), "{fault}");
        }
    }
}
