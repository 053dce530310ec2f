//! The settings in force as text, for the log: every key, and no secret.

use std::fmt::Display;
use std::net::SocketAddr;

use crate::config::{LogFormat, Settings};
use crate::public::Tiny;

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
        let mut lines = vec![
            line("data_dir", &[("", &self.data_dir.display())]),
            line(
                "public",
                &[
                    ("listen", &addresses(&self.public_listen)),
                    ("tiny", &tiny),
                    ("url", &self.short_url_base()),
                    ("threads", &self.threads),
                ],
            ),
            line(
                "admin",
                &[
                    ("listen", &addresses(&self.admin_listen)),
                    ("max_body_bytes", &self.body_max_bytes),
                ],
            ),
            line("links", &[("id_length", &self.id_length)]),
            line("log", &[("level", &self.log), ("format", &format)]),
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

fn line(section: &str, values: &[(&str, &dyn Display)]) -> String {
    let values = values.iter().map(|(key, value)| match *key {
        "" => format!("{section} = {value}"),
        key => format!("{section}.{key} = {value}"),
    });
    values.collect::<Vec<_>>().join(", ")
}

fn addresses(addresses: &[SocketAddr]) -> String {
    let texts: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    texts.join(" ")
}
