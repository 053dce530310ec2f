//! What a partner allows new links, beyond what holds for all.

use url::Url;

use crate::model::{Destination, HostPattern};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkPolicy {
    /// Hosts that destinations may have; empty: any.
    pub destination_hosts: Vec<HostPattern>,
    /// Links that a user may add in one day; 0: any number.
    pub links_per_user_and_day: u32,
}

/// A destination has a host that the partner does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("links to host {host} are not allowed (expected one of {allowed})")]
pub struct ForbiddenHost {
    pub host: String,
    pub allowed: String,
}

impl LinkPolicy {
    /// Checks a new destination. The host counts as browsers find it, and only if all programs find the same; the port
    /// does not count.
    pub fn check_destination(&self, full_url: &str) -> Result<(), ForbiddenHost> {
        if self.destination_hosts.is_empty() {
            return Ok(());
        }
        let url = Url::parse(full_url).ok();
        let host = url.as_ref().and_then(Url::host_str).unwrap_or_default();
        // Other characters may stand in a host too, but some programs might take them for its end.
        let is_plain = host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte));
        let is_clear = Destination::parse(full_url).is_ok_and(|destination| destination.check_new(usize::MAX).is_ok());
        if is_plain && is_clear && self.destination_hosts.iter().any(|allowed| allowed.matches(host)) {
            return Ok(());
        }
        Err(ForbiddenHost {
            host: host.to_owned(),
            allowed: self.hosts(", "),
        })
    }

    /// The hosts that destinations may have, in one text.
    pub fn hosts(&self, separator: &str) -> String {
        let hosts: Vec<_> = self.destination_hosts.iter().map(ToString::to_string).collect();
        hosts.join(separator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(hosts: &[&str]) -> LinkPolicy {
        LinkPolicy {
            destination_hosts: hosts.iter().map(|host| host.parse().unwrap()).collect(),
            links_per_user_and_day: 0,
        }
    }

    #[test]
    fn allowed_hosts_are_allowed_however_they_are_written() {
        let policy = policy(&[
            "example.org",
            "*.Example.com",
            "München.example",
            "192.0.2.7",
            "[2001:db8::1]",
        ]);
        for url in [
            "https://example.org",
            "http://EXAMPLE.org:8443/a?b=https://evil.example/#c",
            "https://example.org./",
            "https://user:password@example.org/",
            "https://evil.example@example.org/",
            "https://www.example.com/",
            "https://a.b.example.com/",
            "https://münchen.example/",
            "https://xn--mnchen-3ya.example/",
            "https://192.0.2.7/",
            "https://[2001:db8:0::1]/",
        ] {
            assert_eq!(policy.check_destination(url), Ok(()), "{url}");
        }
        assert_eq!(LinkPolicy::default().check_destination("https://evil.example/"), Ok(()));
    }

    #[test]
    fn no_spelling_leads_to_a_host_that_is_not_allowed() {
        let policy = policy(&["example.org", "*.example.com", "127.0.0.1"]);
        for url in [
            "https://evil.example/",
            // Neither below nor above.
            "https://www.example.org/",
            "https://example.com/",
            "https://evilexample.com/",
            "https://example.com.evil.example/",
            "https://example.org.evil.example/",
            "https://.example.com/",
            // Users.
            "https://example.org@evil.example/",
            "https://example.org:443@evil.example/",
            "https://example.org%40evil.example/",
            "https://a@example.org@evil.example/",
            // Backslashes, and other ends of a host.
            "https://evil.example\\@example.org/",
            "https://example.org\\@evil.example/",
            "https://evil.example\\.example.com/",
            "https://evil.example#.example.com/",
            "https://evil.example?.example.com/",
            "https://evil.example/.example.com/",
            "https://evil.example;.example.com/",
            "https://evil.example,.example.com/",
            "https://evil.example&.example.com/",
            "https:evil.example/",
            "https:///evil.example/",
            "https:\\\\evil.example/",
            "//example.org/",
            // Encoded, full-width, look-alike and soft characters.
            "https://evil%2eexample/",
            "https://ex%61mple.org/",
            "https://ｅxample.org/",
            "https://example。org/",
            "https://ехample.org/",
            "https://exam\u{ad}ple.org/",
            "https://exampleß.example.com/",
            "https://example.org../",
            // Addresses.
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://127.1/",
            "https://127.0.0.2/",
            // Other schemes.
            "javascript://example.org/%0aalert(1)",
            "ftp://example.org/",
            "",
        ] {
            let ForbiddenHost { allowed, .. } = policy.check_destination(url).expect_err(url);
            assert_eq!(allowed, "example.org, *.example.com, 127.0.0.1");
        }
    }
}
