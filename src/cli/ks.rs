//! `tinyd ks`: prints a KS.

use std::io::{self, Write as _};

use clap::Args;

use crate::cli::ConfigArgs;
use crate::cli::exit::{CliError, Failure};
use crate::cluster::ClusterSettings;
use crate::config::Settings;
use crate::kaltura::session::{self, Claims, Kind};
use crate::model::shown;
use crate::model::{Clock, PartnerId};

const EXAMPLES: &str = "\
The secret comes from the configuration, never from an argument.

Examples:
  tinyd ks --partner 1234567 --user me --type admin
  tinyd ks --user editor@example.com --expiry 3600 --privileges actionslimit:10
  tinyd ks --type admin | curl -s --data-urlencode ks@- -d format=1 \\
    http://127.0.0.1:8081/api_v3/service/shortlink_shortlink/action/list";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct KsArgs {
    #[command(flatten)]
    config: ConfigArgs,

    /// Partner ID [default: the only partner, or the only operator]
    #[arg(long, value_name = "ID")]
    partner: Option<u32>,

    /// User ID of the session
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    user: String,

    /// Access to the user's own links, or to all of the partner's
    #[arg(long, value_name = "TYPE", value_parser = ["user", "admin"], default_value = "user")]
    r#type: String,

    /// Lifetime in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 86_400, value_parser = clap::value_parser!(i64).range(1..))]
    expiry: i64,

    /// Privileges: sessionid:X,actionslimit:N,iprestrict:ADDRESS,urirestrict:/PATH*
    #[arg(long, value_name = "PRIVILEGES", default_value = "", hide_default_value = true)]
    privileges: String,

    /// Version of the KS format
    #[arg(long, value_name = "VERSION", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=2))]
    ks_version: u8,
}

pub(super) fn run(args: &KsArgs) -> Result<(), CliError> {
    let settings = Settings::load(&args.config.overrides())?;
    let claims = Claims {
        partner: chosen_partner(&settings, args.partner)?,
        user: &args.user,
        kind: match args.r#type.as_str() {
            "admin" => Kind::Admin,
            _ => Kind::User,
        },
        expiry: Clock::system().now().plus(args.expiry),
        privileges: &args.privileges,
    };
    let partner = settings.partners.get(claims.partner);
    let minted = partner.and_then(|partner| match args.ks_version {
        1 => session::mint_v1(&claims, partner, rand::random()),
        _ => session::mint(&claims, partner, rand::random()),
    });
    let minted = minted.ok_or_else(|| {
        Failure::Usage.error("a KS of version 1 cannot hold a semicolon in the user or the privileges")
    })?;
    writeln!(io::stdout(), "{minted}")?;
    Ok(())
}

/// The partner that is meant: the one named, or the only one there is.
pub(super) fn chosen_partner(settings: &Settings, named: Option<u32>) -> Result<PartnerId, CliError> {
    let known = || {
        let mut ids: Vec<_> = settings.partners.ids().map(|id| id.to_string()).collect();
        ids.sort();
        shown::joined(ids.into_iter(), "none")
    };
    let config = settings.config.display();
    let is_edge = settings.cluster.as_ref().is_some_and(ClusterSettings::is_edge);
    if is_edge && settings.partners.ids().next().is_none() {
        let reason = format!(
            "{config} is of an edge of a cluster, which has no secrets of partners: use --config with that of an \
             admin box"
        );
        return Err(Failure::Usage.error(reason));
    }
    match named.map(PartnerId) {
        Some(id) if settings.partners.get(id).is_some() => Ok(id),
        Some(id) => Err(Failure::Usage.error(format!("--partner {id}: not in {config}, which defines {}", known()))),
        None => settings.default_partner().ok_or_else(|| {
            let known = known();
            Failure::Usage.error(format!(
                "--partner is required: {config} defines {known}, and not one of them with operator = true"
            ))
        }),
    }
}
