//! The settings in force as text, for the log: every key, and no secret.

use std::fmt::Display;
use std::net::SocketAddr;
use std::num::NonZero;
use std::time::Duration;

use crate::config::{LogFormat, Settings, fetch};
use crate::http::Limits;
use crate::kaltura::LoggedAddress;
use crate::redirect::Tiny;

impl Settings {
    /// A line for each section of the configuration, with every key and its value. Of secrets, it says how many there are.
    #[must_use]
    pub fn in_force(&self) -> Vec<String> {
        let tiny = match self.tiny {
            Tiny::Hop => "hop",
            Tiny::Direct => "direct",
        };
        let format = match self.log_format {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        };
        let access = match self.access_log.map(NonZero::get) {
            None => "off".to_owned(),
            Some(1) => "all".to_owned(),
            Some(every) => every.to_string(),
        };
        let access_addresses = match self.access_addresses {
            LoggedAddress::Prefix => "prefix",
            LoggedAddress::None => "none",
            LoggedAddress::Full => "full",
        };
        let mut lines = vec![
            line("data_dir", &[("", &self.data_dir.display())]),
            line("drain_seconds", &[("", &self.drain.as_secs())]),
            line(
                "public",
                &[
                    ("listen", &addresses(&self.public_listen)),
                    ("tiny", &tiny),
                    ("url", &self.short_url_base()),
                    ("threads", &self.threads),
                    ("max_guesses_per_minute", &self.guesses_per_minute),
                    ("shut_out_guessers", &self.shut_out_guessers),
                    ("forgiving", &self.forgiving),
                ],
            ),
            self.public_limits.in_force("public"),
            line(
                "admin",
                &[
                    ("listen", &addresses(&self.admin_listen)),
                    ("max_body_bytes", &self.body_max_bytes),
                    ("max_buffered_bytes", &self.buffered_bytes),
                    ("body_timeout_seconds", &self.body_timeout.as_secs()),
                ],
            ),
            self.admin_limits.in_force("admin"),
            line(
                "links",
                &[
                    ("id_length", &self.id_length),
                    ("max_destination_bytes", &self.destination_max_bytes),
                    ("count_clicks", &self.count_clicks),
                ],
            ),
            fetch::in_force(self.fetch.as_ref()),
            line(
                "log",
                &[
                    ("level", &self.log),
                    ("format", &format),
                    ("access", &access),
                    ("access_addresses", &access_addresses),
                ],
            ),
        ];
        let mut ids: Vec<_> = self.partners.ids().collect();
        ids.sort();
        for partner in ids.into_iter().filter_map(|id| Some((id, self.partners.get(id)?))) {
            let (id, partner) = partner;
            let secrets = |number: usize| format!("({number})");
            lines.push(line(
                "partner",
                &[
                    ("id", &id),
                    ("admin_secret", &secrets(partner.admin_secrets.len())),
                    ("user_secret", &secrets(partner.user_secrets.len())),
                    ("operator", &partner.is_operator),
                ],
            ));
        }
        lines
    }
}

impl Limits {
    fn in_force(&self, section: &str) -> String {
        let seconds = |time: Duration| time.as_secs();
        let proxies: Vec<_> = self.trusted_proxies.iter().map(ToString::to_string).collect();
        line(
            section,
            &[
                ("head_timeout_seconds", &seconds(self.head_timeout)),
                ("idle_timeout_seconds", &seconds(self.idle_timeout)),
                ("write_timeout_seconds", &seconds(self.write_timeout)),
                ("lifetime_seconds", &seconds(self.lifetime)),
                ("max_head_bytes", &self.head_bytes),
                ("max_target_bytes", &self.target_bytes),
                ("max_headers", &self.headers),
                ("max_connections", &self.connections),
                (
                    "max_connections_per_address",
                    &self.connections_per_address.unwrap_or(0),
                ),
                ("max_requests_per_connection", &self.requests.unwrap_or(0)),
                ("trusted_proxies", &proxies.join(" ")),
                ("proxy_protocol", &self.proxy_protocol),
            ],
        )
    }
}

pub(super) fn line(section: &str, values: &[(&str, &dyn Display)]) -> String {
    let values = values.iter().map(|(key, value)| match *key {
        "" => format!("{section} = {value}"),
        key => format!("{section}.{key} = {value}"),
    });
    values.collect::<Vec<_>>().join(", ")
}

pub(super) fn addresses(addresses: &[SocketAddr]) -> String {
    let texts: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    texts.join(" ")
}
