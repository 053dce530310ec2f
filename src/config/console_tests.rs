use std::fs;
use std::path::Path;

use crate::config::{Overrides, Settings, read};
use crate::console::ConsoleSettings;
use crate::model::PartnerId;

const OIDC: &str = "[console]\nurl = \"https://links.example.com/console\"\n[console.oidc]\n\
                    issuer = \"https://login.example.com\"\nclient_id = \"tinyd\"\n";

const HEADER: &str = "[admin]\ntrusted_proxies = \"10.0.0.5\"\n[console]\ntrusted_header = \"X-Forwarded-User\"\n";

fn load_in(folder: &Path, text: &str, partners: &[u32]) -> Result<Settings, String> {
    let partner = |id| format!("[[partner]]\nid = {id}\nadmin_secret = \"hush hush hush hush\"\n");
    let partners: String = partners.iter().map(partner).collect();
    let overrides = Overrides {
        credentials: vec![folder.to_owned()],
        ..Overrides::default()
    };
    let text = format!("{text}\n{partners}");
    read::parse(&text, &folder.join("tinyd.toml"), &overrides).map_err(|error| error.to_string())
}

fn console(text: &str) -> ConsoleSettings {
    load_in(Path::new("."), text, &[7]).unwrap().console.unwrap()
}

#[test]
fn openid_provider_is_read() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("secret"), "hush of the client\n").unwrap();
    let defaults = console(OIDC).oidc.unwrap();
    assert_eq!(
        (defaults.user_claim.as_str(), defaults.groups_claim.as_str()),
        ("sub", "groups")
    );
    assert_eq!(
        (defaults.scopes, defaults.partner),
        (vec!["profile".to_owned(), "email".to_owned()], PartnerId(7))
    );
    assert_eq!(defaults.secret, None);
    for key in ["client_secret_file", "client_secret_credential"] {
        let text = format!("{OIDC}{key} = \"secret\"\npartner = 8\nadmin_groups = [\"a\", \"b c\"]\n");
        let settings = load_in(folder.path(), &text, &[7, 8]).unwrap();
        let lines = settings.effective();
        assert!(
            lines.contains(&"console.oidc.issuer = https://login.example.com".to_owned()),
            "{lines:?}"
        );
        assert!(
            lines.iter().all(|line| !line.contains("hush of the client")),
            "{lines:?}"
        );
        let oidc = settings.console.clone().unwrap().oidc.unwrap();
        assert!(oidc.secret.is_some());
        assert_eq!((oidc.partner, oidc.admin_groups.len()), (PartnerId(8), 2));
        assert!(!format!("{settings:?}").contains("hush of the client"));
        // Another secret counts after a restart.
        fs::write(folder.path().join("secret"), "another one\n").unwrap();
        let changed = load_in(folder.path(), &text, &[7, 8]).unwrap();
        assert_eq!(
            settings.fixed_differences(&changed),
            ["console.oidc.client_secret_file"]
        );
        fs::write(folder.path().join("secret"), "hush of the client\n").unwrap();
    }
}

#[test]
fn mistakes_of_the_provider_are_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("empty"), "\n").unwrap();
    fs::write(folder.path().join("two"), "one\ntwo\n").unwrap();
    for (text, partners, key, reason) in [
        (
            "[console.oidc]\nclient_id = \"x\"\n",
            &[7][..],
            "console.oidc.issuer = (missing)",
            "no issuer",
        ),
        (
            "[console.oidc]\nissuer = \"https://login.example.com\"\n",
            &[7],
            "console.oidc.client_id = (missing)",
            "expected the ID of the client",
        ),
        (
            "[console.oidc]\nissuer = \"https://login.example.com\"\nclient_id = \"x\"\n",
            &[7],
            "console.url = (missing)",
            "sends people back to this URL",
        ),
        (
            "[console.oidc]\nissuer = \"http://login.example.com\"\n",
            &[7],
            "console.oidc.issuer = \"http://login.example.com\"",
            "expected the https URL",
        ),
        (
            OIDC,
            &[7, 8],
            "console.oidc.partner = (missing)",
            "expected one of 7, 8",
        ),
        (
            OIDC,
            &[],
            "console.oidc.partner = (missing)",
            "a section [[partner]] first",
        ),
        (
            &format!("{OIDC}partner = 9\n"),
            &[7],
            "console.oidc.partner = 9",
            "expected 7",
        ),
        (
            &format!("{OIDC}partner = 0\n"),
            &[7],
            "console.oidc.partner = 0",
            "from 1",
        ),
        (
            &format!("{OIDC}user_claim = \"\"\n"),
            &[7],
            "console.oidc.user_claim",
            "expected a name",
        ),
        (
            &format!("{OIDC}scopes = \"a b\"\n"),
            &[7],
            "console.oidc.scopes",
            "without blanks",
        ),
        (
            &format!("{OIDC}admin_groups = [\"\"]\n"),
            &[7],
            "console.oidc.admin_groups",
            "name of a group",
        ),
        (
            &format!("{OIDC}client_secret_file = \"empty\"\n"),
            &[7],
            "console.oidc.client_secret_file",
            "expected one line",
        ),
        (
            &format!("{OIDC}client_secret_file = \"two\"\n"),
            &[7],
            "console.oidc.client_secret_file",
            "expected one line",
        ),
        (
            &format!("{OIDC}client_secret_file = \"two\"\nclient_secret_credential = \"two\"\n"),
            &[7],
            "console.oidc.client_secret_file",
            "not both",
        ),
        (
            &format!("{OIDC}client_secret_file = \"none\"\n"),
            &[7],
            "none",
            "cannot read the secret",
        ),
        (
            &format!("{OIDC}client_secret = \"hush\"\n"),
            &[7],
            "console.oidc.client_secret",
            "client_secret_file",
        ),
    ] {
        let error = load_in(folder.path(), text, partners).unwrap_err();
        assert!(error.contains(key) && error.contains(reason), "{text}: {error}");
    }
}

#[test]
fn trusted_header_needs_a_trusted_proxy() {
    let header = console(HEADER).header.unwrap();
    assert_eq!(
        (header.user.as_str(), header.partner),
        ("x-forwarded-user", PartnerId(7))
    );
    let groups = format!("{HEADER}trusted_groups_header = \"X-Groups\"\nadmin_groups = \"admins\"\n");
    assert_eq!(console(&groups).header.unwrap().admin_groups, ["admins"]);
    assert_eq!(console("").header, None);
    for (text, partners, key, reason) in [
        (
            "[console]\ntrusted_header = \"X-Forwarded-User\"\n",
            &[7][..],
            "console.trusted_header = x-forwarded-user",
            "admin.trusted_proxies",
        ),
        (
            "[console]\npartner = 7\n",
            &[7],
            "console.trusted_header = (missing)",
            "console.partner",
        ),
        (
            "[console]\nadmin_groups = \"a\"\n",
            &[7],
            "console.trusted_header = (missing)",
            "console.admin_groups",
        ),
        (
            &format!("{HEADER}admin_groups = \"a\"\n"),
            &[7],
            "console.trusted_groups_header = (missing)",
            "admin_groups",
        ),
        (
            &format!("{HEADER}trusted_groups_header = \"X-Groups\"\n"),
            &[7],
            "console.admin_groups = (missing)",
            "trusted_groups_header",
        ),
        (
            &format!("{HEADER}trusted_groups_header = \"x-forwarded-user\"\nadmin_groups = \"a\"\n"),
            &[7],
            "console.trusted_groups_header",
            "expected another",
        ),
        (
            &HEADER.replace("X-Forwarded-User", "Cookie"),
            &[7],
            "console.trusted_header",
            "X-Forwarded-User",
        ),
        (HEADER, &[7, 8], "console.partner = (missing)", "expected one of 7, 8"),
    ] {
        let error = load_in(Path::new("."), text, partners).unwrap_err();
        assert!(error.contains(key) && error.contains(reason), "{text}: {error}");
    }
}
