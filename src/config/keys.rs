//! The settings: the one place where each is declared. Reading, `tinyd check`, reload, `tinyd serve --help`, the
//! reference in docs/configuration.md, tinyd.toml(5) and docs/tinyd.example.toml all follow this table.

use std::net::SocketAddr;
use std::ops::RangeInclusive;

use crate::acme;
use crate::cluster;
use crate::config::checks;
use crate::console;
use crate::fetch::FOLLOW_MAX;
use crate::model::{FULL_URL_MAX_BYTES, ID_MAX_BYTES, ID_MIN_BYTES};
use crate::redirect;

#[derive(Debug)]
pub struct Key {
    /// The sections that have it, each with its default as TOML. Without a default, the program works one out.
    pub sections: &'static [(&'static str, &'static str)],
    pub name: &'static str,
    pub kind: ValueKind,
    pub applies: Applies,
    /// The flag of `tinyd serve`, which overrides the file.
    pub flag: Option<&'static str>,
    pub doc: &'static str,
    /// Why the default is what it is.
    pub why: &'static str,
}

#[derive(Debug)]
pub enum ValueKind {
    Flag,
    /// A whole number of a unit.
    Number(RangeInclusive<u64>, &'static str),
    Choice(&'static [&'static str]),
    /// A string, in a form, with its check.
    Text(&'static str, Check),
    /// A string or a list of them, each in a form, with its check.
    Texts(&'static str, Check),
    /// A path, relative to the folder of the file.
    Path,
    /// A port or a list of them.
    Ports,
    /// A certificate with its key, or a list of them.
    Pairs,
    /// `off`, `all`, or one request of so many.
    Sample,
    /// A key of `[[partner]]`, which reads itself: its form.
    Partner(&'static str),
}

/// Refuses with what would be right.
pub type Check = fn(&str) -> Result<(), String>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applies {
    AtReload,
    /// After a reload, to connections that are accepted from then on.
    ToNewConnections,
    AfterRestart,
}

impl Key {
    /// The environment variable beside the flag.
    pub fn variable(&self) -> Option<String> {
        let name = |flag: &str| format!("TINYD_{}", flag.replace('-', "_").to_ascii_uppercase());
        self.flag.map(name)
    }

    /// The default in the first section, without quotes.
    pub fn default_text(&self) -> Option<&'static str> {
        let (_, default) = self.sections.first()?;
        Some(default.trim_matches('"')).filter(|default| !default.is_empty())
    }

    pub fn path(&self, section: &str) -> String {
        path(section, self.name)
    }
}

pub fn path(section: &str, key: &str) -> String {
    if section.is_empty() {
        key.to_owned()
    } else {
        format!("{section}.{key}")
    }
}

/// The sections but `[[partner]]`, which may stand there more than once, in the order of the documents.
pub const SECTIONS: [&str; 12] = [
    "",
    "public",
    "public.tls",
    "acme",
    "admin",
    "admin.tls",
    "console",
    "console.oidc",
    "links",
    "cluster",
    "fetch",
    "log",
];

/// The sections that stand in a section, by their last names.
pub fn subsections(section: &str) -> impl Iterator<Item = &'static str> {
    let inside = SECTIONS.into_iter().filter(|other| !other.is_empty());
    inside.filter_map(move |other| match section {
        "" => (!other.contains('.')).then_some(other),
        section => other.strip_prefix(section)?.strip_prefix('.'),
    })
}

/// The keys of a section, in their order here.
pub fn of_section(section: &str) -> impl Iterator<Item = (&'static Key, &'static str)> {
    ALL.iter().filter_map(move |key| {
        let (_, default) = key.sections.iter().find(|(name, _)| *name == section)?;
        Some((*key, *default))
    })
}

macro_rules! keys {
    ($($id:ident: $key:expr;)*) => {
        $(pub static $id: Key = $key;)*

        /// All of them, in the order of the documents.
        pub static ALL: &[&Key] = &[$(&$id),*];
    };
}

/// A day is longer than any timeout needs to be.
const SECONDS: ValueKind = ValueKind::Number(1..=86_400, "seconds");
/// Linux has no room for more descriptors in a process.
const CONNECTIONS: ValueKind = ValueKind::Number(1..=1_048_576, "");
/// 0 is no limit.
const ANY: ValueKind = ValueKind::Number(0..=1_000_000_000, "");
const PARTNER: ValueKind = ValueKind::Number(1..=u32::MAX as u64, "");
const ADDRESSES: ValueKind = ValueKind::Texts("`IP:PORT`", |text| checks::parsed::<SocketAddr>(text, checks::ADDRESS));
const NETWORKS: ValueKind = ValueKind::Texts("IP addresses or networks", checks::network);

/// Each add counts those before it, while other writes wait.
pub const LINKS_PER_DAY_MAX: u32 = 10_000;

const fn key(
    sections: &'static [(&'static str, &'static str)],
    name: &'static str,
    kind: ValueKind,
    applies: Applies,
    doc: &'static str,
    why: &'static str,
) -> Key {
    Key {
        sections,
        name,
        kind,
        applies,
        flag: None,
        doc,
        why,
    }
}

const fn with_flag(key: Key, flag: &'static str) -> Key {
    Key {
        flag: Some(flag),
        ..key
    }
}

use Applies::{AfterRestart, AtReload, ToNewConnections};

keys! {
    DATA_DIR: with_flag(key(&[("", "\"./tinyd-data\"")], "data_dir", ValueKind::Path, AfterRestart,
        "Data folder: the store and its journal.",
        "One process uses a folder at a time."), "data");
    REQUIRE_STORE: with_flag(key(&[("", "false")], "require_store", ValueKind::Flag, AfterRestart,
        "Whether the start fails where the data folder has no store, instead of making an empty one.",
        "The disk of the folder may not be mounted. The Debian package sets it once there is a store."),
        "require-store");
    DRAIN: key(&[("", "10")], "drain_seconds", ValueKind::Number(1..=3600, "seconds"), AfterRestart,
        "Time that requests in flight have during shutdown.",
        "Redirects are answered meanwhile.");

    PUBLIC_LISTEN: with_flag(key(&[("public", "\"127.0.0.1:8080\"")], "listen", ADDRESSES, AfterRestart,
        "Addresses that serve redirects.",
        "Only this machine reaches the default."), "public");
    TINY: with_flag(key(&[("public", "\"hop\"")], "tiny", ValueKind::Choice(&["hop", "direct"]), AfterRestart,
        "Response of `/tiny/ID`: `hop` sends a 301 to goto, as Kaltura does; `direct` sends the 302 at \
        once.", ""), "tiny");
    URL: key(&[("public", "")], "url", ValueKind::Text("an http or https URL", checks::base_url), AfterRestart,
        "Base of short URLs, shown by the command line. New links may not lead there. Default: the first listener.",
        "Set it behind a proxy or a load balancer.");
    THREADS: with_flag(key(&[("public", "")], "threads", ValueKind::Number(1..=256, ""), AfterRestart,
        "Threads for redirects. As many more serve all other requests. Default: one for each core.", ""), "threads");
    GUESSES: key(&[("public", "600")], "max_guesses_per_minute", ANY, AtReload,
        "Requests for unknown IDs allowed per client address and minute; more get 429. `0` disables the limit.",
        "People request a few unknown IDs a day; at this rate, no client finds a link by trying.");
    SHUT_OUT: key(&[("public", "true")], "shut_out_guessers", ValueKind::Flag, AfterRestart,
        "Whether a client address with twice as many gets 429 for every request until the minute ends.",
        "429 beside 302 would reveal which IDs exist.");
    FORGIVING: key(&[("public", "true")], "forgiving", ValueKind::Flag, AfterRestart,
        "Whether `/tiny/ID.`, `/tiny/ID)` and capitals find the link `ID`.",
        "People and chat programs add such characters.");
    ACME_WEBROOT: key(&[("public", "")], "acme_webroot", ValueKind::Path, AtReload,
        "Folder in which another ACME client leaves its http-01 challenges, as with `certbot --webroot -w FOLDER`. \
        tinyd serves `FOLDER/.well-known/acme-challenge/TOKEN`.", "");

    PLAIN: key(&[("public", "\"serve\"")], "plain", ValueKind::Choice(&["serve", "redirect"]), AfterRestart,
        "What plain HTTP answers where there is HTTPS: `serve` the same, `redirect` a 308 to the host of `url` or, \
        without `url`, to the requested host if a certificate has its name. Without a valid certificate, it serves.",
        "Kaltura's clients ask for `http://` links, and each redirect more takes time.");

    ADMIN_LISTEN: with_flag(key(&[("admin", "\"127.0.0.1:8081\"")], "listen", ADDRESSES, AfterRestart,
        "Addresses that serve the API.",
        "Keep it on the loopback address or in a private network."), "admin");
    BODY_BYTES: key(&[("admin", "1048576")], "max_body_bytes", ValueKind::Number(32 * 1024..=64 * 1024 * 1024, "bytes"),
        AfterRestart,
        "Largest request body; larger ones get 413.",
        "A multirequest of 100 links with long destinations fits.");
    BUFFERED_BYTES: key(&[("admin", "134217728")], "max_buffered_bytes",
        ValueKind::Number(64 * 1024 * 1024..=64 * 1024 * 1024 * 1024, "bytes"), AfterRestart,
        "Memory for requests and responses in flight; beyond it, requests get 503.",
        "Four of the largest responses. A client that reads slowly holds its response until it has read it.");
    BODY_TIMEOUT: key(&[("admin", "30")], "body_timeout_seconds", ValueKind::Number(1..=3600, "seconds"), AfterRestart,
        "Time for a request body to arrive; slower ones get 408.",
        "The largest default body at 35 kB/s.");

    HEAD_TIMEOUT: key(&[("public", "10"), ("admin", "30")], "head_timeout_seconds", SECONDS, ToNewConnections,
        "Time for the head of a request to arrive.",
        "A head arrives within that on a bad line.");
    IDLE_TIMEOUT: key(&[("public", "30"), ("admin", "60")], "idle_timeout_seconds", SECONDS, ToNewConnections,
        "Time that a connection may wait for its next request.",
        "Browsers rarely reuse an idle connection after 30 s; API clients do.");
    WRITE_TIMEOUT: key(&[("public", "30"), ("admin", "60")], "write_timeout_seconds", SECONDS, ToNewConnections,
        "Time that a client may read nothing of its response.",
        "A redirect has a kilobyte. On the admin listener the time starts anew with everything that the client reads.");
    LIFETIME: key(&[("public", "3600"), ("admin", "3600")], "lifetime_seconds", SECONDS, ToNewConnections,
        "Time that a connection may last; it ends after the request in flight.",
        "Clients move to other threads, and to a new server behind a load balancer, within an hour.");
    HEAD_BYTES: key(&[("public", "16384"), ("admin", "65536")], "max_head_bytes", ValueKind::Number(1024..=1024 * 1024,
        "bytes"),
        ToNewConnections,
        "Largest head of a request; larger ones get 431.",
        "Browsers send 2 KiB, and proxies add some.");
    TARGET_BYTES: key(&[("public", "8192"), ("admin", "57344")], "max_target_bytes", ValueKind::Number(256..=65_534,
        "bytes"),
        ToNewConnections,
        "Longest request target; longer ones get 414.",
        "An `add` by GET carries a percent-encoded destination.");
    HEADERS: key(&[("public", "64"), ("admin", "100")], "max_headers", ValueKind::Number(16..=100, ""),
        ToNewConnections,
        "Most header lines; more get 431.",
        "Browsers send 15, and proxies add some.");
    MAX_CONNECTIONS: key(&[("public", "20000"), ("admin", "1000")], "max_connections", CONNECTIONS, ToNewConnections,
        "Maximum concurrent connections, lowered to what `LimitNOFILE` allows. At the limit tinyd closes an idle \
        one, or answers 503.",
        "Twice what a load tester opens. API clients share a few.");
    PER_ADDRESS: key(&[("public", "0"), ("admin", "0")], "max_connections_per_address", ANY, ToNewConnections,
        "Maximum concurrent connections of one IPv4 address or one IPv6 /64; more get 429. `0` disables the limit.",
        "An office has one address, and so has a proxy that `trusted_proxies` does not name.");
    MAX_REQUESTS: key(&[("public", "100000"), ("admin", "100000")], "max_requests_per_connection", ANY,
        ToNewConnections,
        "Requests after which a connection ends. `0` disables the limit.",
        "One handshake in so many costs nothing, and spreads clients over the threads.");
    TRUSTED_PROXIES: key(&[("public", "[]"), ("admin", "[]")], "trusted_proxies", NETWORKS, ToNewConnections,
        "Proxies whose `X-Forwarded-For` names the client.",
        "Any other client could spoof an address.");
    PROXY_PROTOCOL: key(&[("public", "false"), ("admin", "false")], "proxy_protocol", ValueKind::Flag, ToNewConnections,
        "Whether trusted proxies begin each connection with the PROXY header, version 1 or 2.", "");

    TLS_LISTEN: key(&[("public.tls", "[]"), ("admin.tls", "[]")], "listen", ADDRESSES, AfterRestart,
        "Addresses that serve HTTPS, beside those of `listen`, which serve HTTP. Without one, there is no TLS.", "");
    CERTIFICATES: key(&[("public.tls", "[]"), ("admin.tls", "[]")], "certificates", ValueKind::Pairs, ToNewConnections,
        "Certificates with their keys, PEM files. `cert` has the full chain. tinyd chooses by the name that the client \
        asks for (SNI); the first is for all others. `cert_credential` and `key_credential` name credentials of \
        systemd. Changed files apply within ten seconds, without a reload.",
        "Two of the same names, ECDSA and RSA, serve old clients too.");
    MIN_VERSION: key(&[("public.tls", "\"1.2\""), ("admin.tls", "\"1.2\"")], "min_version",
        ValueKind::Choice(&["1.2", "1.3"]), ToNewConnections,
        "Oldest version of TLS.",
        "1.2 has no known flaw with the ciphers that tinyd has.");
    HANDSHAKE_TIMEOUT: key(&[("public.tls", "10"), ("admin.tls", "10")], "handshake_timeout_seconds", SECONDS,
        ToNewConnections,
        "Time for a TLS handshake.",
        "It takes two round trips.");
    HSTS: key(&[("public.tls", "0"), ("admin.tls", "0")], "hsts_seconds", ValueKind::Number(0..=63_072_000, "seconds"),
        AfterRestart,
        "`max-age` of `Strict-Transport-Security`, by which browsers use HTTPS only for that long. `0` sends no such \
        header.",
        "Browsers would not come back to plain HTTP.");
    CLIENT_CA: key(&[("admin.tls", "")], "client_ca", ValueKind::Path, ToNewConnections,
        "PEM file with the authorities of client certificates. With it, clients without a certificate are refused.",
        "");

    ACME_DOMAINS: key(&[("acme", "[]")], "domains", ValueKind::Texts("host names or IP addresses",
        acme::check_domain), AtReload,
        "Names for which tinyd orders a certificate for `[public.tls]` and renews it. With them you agree to the terms \
        of the certificate authority.", "");
    ACME_EMAIL: key(&[("acme", "")], "email", ValueKind::Text("a mail address", acme::check_email), AtReload,
        "Mail address of the account at the authority.", "");
    ACME_DIRECTORY: key(&[("acme", "\"https://acme-v02.api.letsencrypt.org/directory\"")], "directory",
        ValueKind::Text("an https URL", acme::check_directory), AtReload,
        "ACME directory of the certificate authority.",
        "Let's Encrypt. Each directory gets an account of its own.");
    ACME_CHALLENGE: key(&[("acme", "\"http-01\"")], "challenge", ValueKind::Choice(&["http-01", "tls-alpn-01"]),
        AtReload,
        "How the authority verifies the names: `http-01` by a request to port 80, `tls-alpn-01` by a TLS handshake on \
        port 443.",
        "`http-01` passes proxies, and people type short links without `https://`, so that port 80 is open anyway. \
        Use `tls-alpn-01` where it is closed.");
    ACME_PROFILE: key(&[("acme", "")], "profile", ValueKind::Text("a name", acme::check_profile), AtReload,
        "Profile of the authority. Let's Encrypt has `shortlived` with six days, the only one for IP addresses. \
        Default: the authority chooses.", "");
    ACME_CA_FILE: key(&[("acme", "")], "ca_file", ValueKind::Path, AtReload,
        "PEM file with certificate authorities to trust for the directory, beside those of the system.",
        "A private authority, such as step-ca.");

    CONSOLE_ENABLED: key(&[("console", "true")], "enabled", ValueKind::Flag, AfterRestart,
        "Whether the admin listener serves the web console at `/console/`.", "");
    CONSOLE_LISTEN: key(&[("console", "[]")], "listen", ADDRESSES, AfterRestart,
        "Addresses that serve the console and nothing else, such as one in an intranet, beside the admin listener, \
        whose limits they share.", "");
    CONSOLE_TLS_LISTEN: key(&[("console", "[]")], "tls_listen", ADDRESSES, AfterRestart,
        "The same with HTTPS, and with the certificates of `[admin.tls]`.", "");
    CONSOLE_URL: key(&[("console", "")], "url", ValueKind::Text("an http or https URL", console::check_url),
        AfterRestart,
        "Base of the console's pages as people reach them, such as `https://links.example.com/console`. Without it, \
        the console answers to IP addresses and `localhost` only.",
        "A page elsewhere whose host name is pointed at this server must not pass for the console.");
    CONSOLE_NAME: key(&[("console", "")], "name", ValueKind::Text("1 to 80 characters", redirect::check_name),
        AfterRestart,
        "Name of your organisation, for pages that people see, such as the one for an expired link.", "");
    CONSOLE_ACCENT: key(&[("console", "\"#2456b8\"")], "accent", ValueKind::Text("`#rrggbb`", |text| {
            text.parse::<redirect::Colour>().map(drop)
        }), AfterRestart,
        "Colour of your organisation, for these pages.",
        "tinyd chooses the colour of text on it, and darkens or lightens it where it is text itself, so that all \
        colours are legible.");
    CONSOLE_LOGO: key(&[("console", "")], "logo", ValueKind::Path, AfterRestart,
        "Logo of your organisation, for these pages: an SVG or PNG file of at most 64 KiB. It stands on white.",
        "Every page has it inside, so that visitors load nothing else.");

    CONSOLE_HEADER: key(&[("console", "")], "trusted_header", ValueKind::Text("the name of a header",
        console::check_header), AfterRestart,
        "Header in which a proxy of `admin.trusted_proxies` names the user that it has signed in, such as \
        `X-Forwarded-User`. It counts for the console only and at each request. The proxy must remove it from what \
        clients send.", "");
    CONSOLE_GROUPS_HEADER: key(&[("console", "")], "trusted_groups_header", ValueKind::Text("the name of a header",
        console::check_header), AfterRestart,
        "Header in which this proxy names the groups of the user, separated by `,` or `|`.", "");
    CONSOLE_ADMIN_GROUPS: key(&[("console", "[]")], "admin_groups", ValueKind::Texts("names of groups",
        console::check_group), AfterRestart,
        "Groups of that header whose members are administrators of the partner.", "");
    CONSOLE_PARTNER: key(&[("console", "")], "partner", PARTNER, AfterRestart,
        "Partner of users that the proxy has signed in. Default: the only partner.", "");

    OIDC_ISSUER: key(&[("console.oidc", "")], "issuer", ValueKind::Text("an https URL", console::check_issuer),
        AfterRestart,
        "OpenID provider with which people sign in to the console, as its discovery document has it in `issuer`. \
        Needs `console.url`; register `URL/sign-in/callback` there as the redirect URI, and `URL/sign-in` as the \
        redirect URI after logout.", "");
    OIDC_CLIENT_ID: key(&[("console.oidc", "")], "client_id", ValueKind::Text("a name", console::check_name),
        AfterRestart,
        "ID of the client that the provider has for the console.", "");
    OIDC_SECRET_FILE: key(&[("console.oidc", "")], "client_secret_file", ValueKind::Path, AfterRestart,
        "File with the secret of this client, one line. Without a secret, it is a public client, and PKCE alone \
        protects the codes.", "");
    OIDC_SECRET_CREDENTIAL: key(&[("console.oidc", "")], "client_secret_credential", ValueKind::Text("a file name",
        console::check_name), AfterRestart,
        "File with this secret in `$CREDENTIALS_DIRECTORY`, where `LoadCredential=` of systemd puts it.", "");
    OIDC_USER_CLAIM: key(&[("console.oidc", "\"sub\"")], "user_claim", ValueKind::Text("a name", console::check_name),
        AfterRestart,
        "Claim that is the user: `sub`, `preferred_username`, `email` or another. An `email` counts only if \
        `email_verified` is true. Dots lead into objects.",
        "`sub` never changes and is never given to somebody else.");
    OIDC_GROUPS_CLAIM: key(&[("console.oidc", "\"groups\"")], "groups_claim", ValueKind::Text("a name",
        console::check_name), AfterRestart,
        "Claim with the groups of a user, a string or a list. Dots lead into objects: `realm_access.roles`.", "");
    OIDC_ADMIN_GROUPS: key(&[("console.oidc", "[]")], "admin_groups", ValueKind::Texts("names of groups",
        console::check_group), AfterRestart,
        "Groups whose members are administrators of the partner. Everybody else is a user with links of their own.",
        "");
    OIDC_USER_GROUPS: key(&[("console.oidc", "[]")], "user_groups", ValueKind::Texts("names of groups",
        console::check_group), AfterRestart,
        "Groups whose members may sign in as users. Default: all accounts that the provider signs in.",
        "Set it, or restrict the client there, if the provider knows people from outside your organisation.");
    OIDC_SCOPES: key(&[("console.oidc", "[\"profile\", \"email\"]")], "scopes", ValueKind::Texts("names of scopes",
        console::check_name), AfterRestart,
        "Scopes to ask for, beside `openid`.", "Most providers give the claims of names and mail addresses for them.");
    OIDC_PARTNER: key(&[("console.oidc", "")], "partner", PARTNER, AfterRestart,
        "Partner whose links these people make and see. Default: the only partner.", "");
    OIDC_CA_FILE: key(&[("console.oidc", "")], "ca_file", ValueKind::Path, AfterRestart,
        "PEM file with certificate authorities to trust for the provider, beside those of the system.", "");

    ID_LENGTH: with_flag(key(&[("links", "8")], "id_length",
        ValueKind::Number(ID_MIN_BYTES as u64..=ID_MAX_BYTES as u64, "characters"),
        AfterRestart, "Length of new IDs.", ""), "id-length");
    DESTINATION_BYTES: key(&[("links", "8192")], "max_destination_bytes",
        ValueKind::Number(1024..=3 * FULL_URL_MAX_BYTES as u64, "bytes"), AfterRestart,
        "Longest destination of a new link, percent-encoded as in `Location`. The stored text has at most 8,192 bytes.",
        "nginx passes on a response head of 8 KB with the settings of the operating guide.");
    COUNT_CLICKS: key(&[("links", "true")], "count_clicks", ValueKind::Flag, AfterRestart,
        "Whether redirects are counted.", "");
    AUDIT_ENTRIES: key(&[("links", "100000")], "audit_entries", ValueKind::Number(0..=10_000_000, "entries"),
        AfterRestart, "Entries of the audit log to keep: each change with its actor and time. 0 records no new ones.",
        "An entry takes some 300 bytes.");

    CLUSTER_SERVERS: key(&[("cluster", "[]")], "servers", ValueKind::Texts("`tls://HOST:PORT` or `nats://HOST:PORT`",
        cluster::check_server), AfterRestart,
        "NATS servers through which this box shares its links with others. Empty: it is alone.", "");
    CLUSTER_ROLE: key(&[("cluster", "\"admin\"")], "role", ValueKind::Choice(&["admin", "edge"]), AfterRestart,
        "`admin`: this box takes writes. `edge`: it redirects, and follows what admin boxes write.", "");
    CLUSTER_NAME: key(&[("cluster", "\"main\"")], "name", ValueKind::Text("a name", cluster::check_name), AfterRestart,
        "Name of the cluster, the same on all its boxes: the stream is `TINYD_` and this.", "");
    CLUSTER_NODE: key(&[("cluster", "")], "node", ValueKind::Text("a name", cluster::check_name), AfterRestart,
        "Name of this box, another on each. Default: the host name.", "");
    CLUSTER_KEY_FILE: key(&[("cluster", "")], "key_file", ValueKind::Path, AfterRestart,
        "File with the seed of the NKEY of this box.", "");
    CLUSTER_CA_FILE: key(&[("cluster", "")], "ca_file", ValueKind::Path, AfterRestart,
        "PEM file with certificate authorities to trust for the servers, beside those of the system.", "");
    CLUSTER_PATIENCE: key(&[("cluster", "10")], "write_patience_seconds", ValueKind::Number(1..=60, "seconds"),
        AfterRestart, "How long a write waits for the servers; then its outcome is unknown.",
        "A new leader is elected within 4 to 6 seconds.");
    CLUSTER_READS: key(&[("cluster", "\"current\"")], "reads", ValueKind::Choice(&["current", "available"]),
        AfterRestart, "What an admin box answers to reads of the API while no server answers. `current`: 503. \
        `available`: what it has, which may lack the last changes.", "");
    CLUSTER_ADMIN_URL: key(&[("cluster", "")], "admin_url", ValueKind::Text("a URL", checks::base_url), AfterRestart,
        "API of an admin box. An edge names it to clients that want to write.", "");
    CLUSTER_LAZY: key(&[("cluster", "false")], "accept_lazy_fsync", ValueKind::Flag, AfterRestart,
        "Whether an admin box takes writes although servers do not sync each entry, or are fewer than three.",
        "Acknowledged writes may be lost in a power cut.");

    FETCH_ENABLED: key(&[("fetch", "true")], "enabled", ValueKind::Flag, AfterRestart,
        "Whether goto with `proxy=true` sends the content of the destination. If not, it redirects.",
        "Kaltura sends the content.");
    ALLOW: key(&[("fetch", "[]")], "allow", ValueKind::Texts("IP addresses or \
        networks", checks::allowed_network), AfterRestart,
        "Private networks that tinyd may fetch from. Its own listeners stay forbidden.",
        "Every link author can read what these networks serve.");
    PORTS: key(&[("fetch", "[80, 443]")], "ports", ValueKind::Ports, AfterRestart,
        "Ports that tinyd may fetch from.", "");
    FOLLOW: key(&[("fetch", "0")], "follow", ValueKind::Number(0..=FOLLOW_MAX as u64, ""), AfterRestart,
        "Redirects of a destination that tinyd follows; it passes the next one on.", "");
    CONNECT_TIMEOUT: key(&[("fetch", "2")], "connect_timeout_seconds", SECONDS, AfterRestart,
        "Time to look up the name, and again to connect.",
        "A connection around the world takes a third of a second.");
    FIRST_BYTE_TIMEOUT: key(&[("fetch", "5")], "first_byte_timeout_seconds", SECONDS, AfterRestart,
        "Time for the head of the response to arrive, TLS included.",
        "People leave a page that takes longer.");
    FETCH_IDLE_TIMEOUT: key(&[("fetch", "10")], "idle_timeout_seconds", SECONDS, AfterRestart,
        "Time for the next part of the body to arrive once the client wants it.",
        "A client that reads nothing has `public.write_timeout_seconds`.");
    TOTAL_TIMEOUT: key(&[("fetch", "3600")], "total_timeout_seconds", SECONDS, AfterRestart,
        "Time for a whole fetch. The three timeouts above are never longer.",
        "The largest body at 1.2 MB/s; slower clients continue with a `Range`.");
    FETCH_BYTES: key(&[("fetch", "4294967296")], "max_bytes", ValueKind::Number(1..=1 << 50, "bytes"), AfterRestart,
        "Largest body.",
        "A film.");
    MAX_FETCHES: key(&[("fetch", "256")], "max_fetches", CONNECTIONS, AfterRestart,
        "Maximum concurrent fetches; more get 503. Each takes two file descriptors, and all at most a quarter of \
        `LimitNOFILE`.",
        "Two connections and some 250 KB of memory each.");
    FETCHES_PER_CLIENT: key(&[("fetch", "16")], "max_fetches_per_client", CONNECTIONS, AfterRestart,
        "Maximum concurrent fetches for one IPv4 address or one IPv6 /64; more get 503.",
        "Browsers open six connections, and an office has one address.");
    TRUSTED_HOSTS: key(&[("fetch", "[]")], "trusted_hosts", ValueKind::Texts("`HOST` or \
        `*.DOMAIN`", checks::host), AfterRestart,
        "Hosts whose content is served without the sandbox. Their scripts run on your origin.", "");
    NAME_SERVERS: key(&[("fetch", "[]")], "name_servers", ValueKind::Texts("`IP:PORT`", checks::name_server),
        AfterRestart,
        "DNS servers. Default: those of `/etc/resolv.conf`.", "");
    CA_FILE: key(&[("fetch", "")], "ca_file", ValueKind::Path, AfterRestart,
        "PEM file with certificate authorities to trust beside those of the system.", "");

    LOG_LEVEL: with_flag(key(&[("log", "\"info\"")], "level",
        ValueKind::Text("`error`, `warn`, `info`, `debug`, `trace`, `off` or `TARGET=LEVEL,…`", checks::log_level),
        AtReload,
        "Log levels.", ""), "log");
    LOG_FORMAT: with_flag(key(&[("log", "\"text\"")], "format", ValueKind::Choice(&["text", "json"]), AfterRestart,
        "Format of log lines on standard error.", ""), "log-format");
    ACCESS: key(&[("log", "\"off\"")], "access", ValueKind::Sample, AfterRestart,
        "Access log: `off`, `all`, or a number N for one request of N.", "");
    ACCESS_ADDRESSES: key(&[("log", "\"prefix\"")], "access_addresses", ValueKind::Choice(&["prefix", "none", "full"]),
        AfterRestart,
        "How client addresses are logged: `prefix` (/24 or /48), `none`, `full`.", "");

    PARTNER_ID: key(&[("partner", "")], "id", ValueKind::Partner("a number from 1"), AtReload,
        "Number of the partner. Each partner has a section.", "");
    ADMIN_SECRET: key(&[("partner", "")], "admin_secret", ValueKind::Partner("a string or a list of strings"), AtReload,
        "Secrets for sessions of both types. The first one signs; all verify.", "");
    ADMIN_SECRET_FILE: key(&[("partner", "")], "admin_secret_file", ValueKind::Partner("a path"), AtReload,
        "File with these secrets, one a line.", "");
    ADMIN_SECRET_CREDENTIAL: key(&[("partner", "")], "admin_secret_credential", ValueKind::Partner("a file name"),
        AtReload,
        "File with these secrets in `$CREDENTIALS_DIRECTORY`, where `LoadCredential=` of systemd puts it.", "");
    USER_SECRET: key(&[("partner", "")], "user_secret", ValueKind::Partner("a string or a list of strings"), AtReload,
        "Secrets that verify user sessions only. Optional.", "");
    USER_SECRET_FILE: key(&[("partner", "")], "user_secret_file", ValueKind::Partner("a path"), AtReload,
        "File with these secrets, one a line.", "");
    USER_SECRET_CREDENTIAL: key(&[("partner", "")], "user_secret_credential", ValueKind::Partner("a file name"),
        AtReload,
        "File with these secrets in `$CREDENTIALS_DIRECTORY`.", "");
    OPERATOR: key(&[("partner", "")], "operator", ValueKind::Partner("`true` or `false`"), AtReload,
        "Whether its administrators may take backups, and export and import links of every partner. Default: \
         `true` for the \
         only partner.", "");
    DESTINATION_HOSTS: key(&[("partner", "[]")], "destination_hosts",
        ValueKind::Partner("`HOST` or `*.DOMAIN`: a string or a list"), AtReload,
        "Hosts that new destinations of links may have, on any port. `*.example.com` stands for all hosts below \
        `example.com`, not for `example.com` itself. Without one, any host.",
        "Links that exist keep their destinations. Imports through the API and the console obey it.");
    LINKS_PER_DAY: key(&[("partner", "0")], "links_per_user_and_day",
        ValueKind::Partner("0 to 10000 links"), AtReload,
        "Links that a user may add in one day (UTC). Deleted ones count, and those that administrators add for the \
        user. Administrators have no limit. `0` disables the limit.", "");
}
