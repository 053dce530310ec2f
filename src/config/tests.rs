use std::fs;

use super::*;

fn load(text: &str) -> Result<Settings, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tinyd.toml");
    fs::write(&path, text).unwrap();
    fs::write(
        folder.path().join("secrets"),
        "the secret of the file\n\nthe one before it\n",
    )
    .unwrap();
    let overrides = Overrides {
        config: Some(path),
        credentials: vec![folder.path().to_owned()],
        ..Overrides::default()
    };
    Settings::load(&overrides).map_err(|error| error.to_string())
}

const PARTNER: &str = "[[partner]]\nid = 7\nadmin_secret = \"hush hush hush hush\"\n";

#[test]
fn the_documented_file_is_read() {
    let settings = load(
        r#"
        data_dir = "/var/lib/tinyd"
        [public]
        listen = ["0.0.0.0:8080", "[::]:8080"]
        tiny = "direct"
        url = "https://go.example.com/"
        threads = 3
        [admin]
        listen = "127.0.0.1:8081"
        max_body_bytes = 65536
        [links]
        id_length = 10
        count_clicks = false
        [log]
        level = "debug"
        format = "json"
        [[partner]]
        id = 1234567
        admin_secret = ["new new new new new", "old old old old old"]
        user_secret_file = "secrets"
        "#,
    )
    .unwrap();
    assert_eq!(settings.data_dir, Path::new("/var/lib/tinyd"));
    assert_eq!(settings.public_listen.len(), 2);
    assert_eq!(settings.tiny, Tiny::Direct);
    assert_eq!(settings.short_url_base(), "https://go.example.com");
    assert_eq!((settings.id_length, settings.body_max_bytes), (10, 65_536));
    assert_eq!(settings.threads, 3);
    assert!(!settings.count_clicks);
    assert_eq!(settings.log_format, LogFormat::Json);
    let partner = settings.partners.get(PartnerId(1_234_567)).unwrap();
    assert_eq!((partner.admin_secrets.len(), partner.user_secrets.len()), (2, 2));
    assert!(partner.user_secrets[1].matches("the one before it"));
}

#[test]
fn unset_keys_have_their_default() {
    let settings = load(PARTNER).unwrap();
    assert_eq!(settings.short_url_base(), "http://127.0.0.1:8080");
    assert_eq!(settings.admin_url(), "http://127.0.0.1:8081");
    assert_eq!((settings.id_length, settings.body_max_bytes), (8, 1_048_576));
    assert_eq!(settings.tiny, Tiny::Hop);
    assert!(settings.threads >= 1);
    assert!(settings.count_clicks);
    assert_eq!(settings.default_partner(), Some(PartnerId(7)));
}

#[test]
fn every_mistake_is_named_with_key_value_and_reason() {
    for (text, parts) in [
        (
            "[public]\nlisten = \"localhost:8080\"",
            ["public.listen", "\"localhost:8080\"", "IP:PORT"],
        ),
        ("[public]\nlisten = []", ["public.listen", "[]", "a list of strings"]),
        (
            "[public]\nlisten = 8080",
            ["public.listen", "8080", "expected a string"],
        ),
        ("[public]\ntiny = \"fast\"", ["public.tiny", "\"fast\"", "hop, direct"]),
        (
            "[public]\nurl = \"go.example.com\"",
            ["public.url", "\"go.example.com\"", "http or https"],
        ),
        (
            "[public]\nport = 1",
            ["public.port", "unknown key", "listen, tiny, url"],
        ),
        ("colour = 1", ["colour", "unknown key", "data_dir"]),
        ("public = 3", ["public", "integer", "[public]"]),
        ("[public]\nthreads = 0", ["public.threads", "0", "from 1 to 256"]),
        ("[links]\nid_length = 3", ["links.id_length", "3", "from 4 to 20"]),
        (
            "[links]\nid_length = \"8\"",
            ["links.id_length", "\"8\"", "whole number"],
        ),
        ("[links]\nid_length = -8", ["links.id_length", "-8", "whole number"]),
        (
            "[links]\ncount_clicks = \"yes\"",
            ["links.count_clicks", "\"yes\"", "true or false"],
        ),
        (
            "[admin]\nmax_body_bytes = 1",
            ["admin.max_body_bytes", "1", "from 32768"],
        ),
        (
            "[admin]\nlisten = \"127.0.0.1:8080\"",
            ["listen", "127.0.0.1:8080", "named twice"],
        ),
        ("[log]\nlevel = \"loud\"", ["log.level", "\"loud\"", "error, warn"]),
        ("[log]\nlevel = \"lo=ud\"", ["log.level", "\"lo=ud\"", "error, warn"]),
        (
            "[[partner]]\nid = 1",
            ["partner[0].admin_secret", "(missing)", "admin_secret_file"],
        ),
        (
            "[[partner]]\nid = \"x\"\nadmin_secret = \"y\"",
            ["partner[0].id", "\"x\"", "partner's number"],
        ),
        (
            "[[partner]]\nadmin_secret = \"y\"",
            ["partner[0].id", "(missing)", "partner's number"],
        ),
        (
            "[[partner]]\nid = 1\nadmin_secret = \"\"",
            ["partner[0].admin_secret", "(secret)", "empty"],
        ),
        (
            "[[partner]]\nid = 1\nadmin_secret = 4711",
            ["partner[0].admin_secret", "(secret)", "a string"],
        ),
        (
            "[[partner]]\nid = 1\nadmin_secret_file = \"none\"",
            ["none", "cannot read", "No such file"],
        ),
        (
            "[[partner]]\nid = 1\nadmin_secret = \"4711\"\nadmin_secret_file = \"secrets\"",
            ["partner[0].admin_secret", "(secret)", "not several"],
        ),
        (
            "[[partner]]\nid = 1\nadmin_secret_file = \"secrets\"\nadmin_secret_credential = \"secrets\"",
            ["partner[0].admin_secret", "admin_secret_credential", "not several"],
        ),
        (
            "[[partner]]\nid = 1\nadmin_secret_credential = \"none\"",
            ["none", "cannot read", "No such file"],
        ),
        (
            "[[partner]]\nid = 1\nadmin_secret_credential = \"../secrets\"",
            [
                "partner[0].admin_secret_credential",
                "\"../secrets\"",
                "without a folder",
            ],
        ),
        (
            "[[partner]]\nid = 1\nadmin_secret_credential = \"..\"",
            ["partner[0].admin_secret_credential", "\"..\"", "name of a credential"],
        ),
        (
            "[[partner]]\nid = 1\nadmin_secret = \"a\"\nuser_secret_credential = 12",
            ["partner[0].user_secret_credential", "12", "a string in quotes"],
        ),
        (
            "[[partner]]\nid = 1\nadmin_secret = \"a\"\ndestination_hosts = [\"https://a.example\"]",
            [
                "partner[0].destination_hosts",
                "\"https://a.example\"",
                "a host such as",
            ],
        ),
        (
            "[[partner]]\nid = 1\nadmin_secret = \"a\"\ndestination_hosts = 12",
            ["partner[0].destination_hosts", "12", "a list of strings"],
        ),
        (
            "[[partner]]\nid = 1\nadmin_secret = \"a\"\nlinks_per_user_and_day = 10001",
            [
                "partner[0].links_per_user_and_day",
                "10001",
                "from 0 (no limit) to 10000",
            ],
        ),
        (
            "[[partner]]\nid = 1\nadmin_secret = \"a\"\nlinks_per_user_and_day = -1",
            ["partner[0].links_per_user_and_day", "-1", "from 0 (no limit) to 10000"],
        ),
        (
            "[[partner]]\nid = 1\nadmin_secret = \"a\"\n[[partner]]\nid = 1\nadmin_secret = \"b\"",
            ["partner[1].id", "1", "already"],
        ),
        (
            "[[partner]]\nid = 1\nadmin_secret = \"4711",
            ["tinyd.toml:3", "not valid TOML", ""],
        ),
    ] {
        let error = load(text).unwrap_err();
        for part in parts {
            assert!(error.contains(part), "{text:?} gives {error:?}, without {part:?}");
        }
        assert!(!error.contains("4711"), "a secret in {error:?}");
    }
}

#[test]
fn flags_override_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tinyd.toml");
    fs::write(
        &path,
        format!("[public]\ntiny = \"hop\"\nlisten = \"127.0.0.1:1\"\n{PARTNER}"),
    )
    .unwrap();
    let overrides = Overrides {
        config: Some(path),
        data: Some("elsewhere".into()),
        flags: BTreeMap::from(
            [
                ("public", "127.0.0.1:2,127.0.0.1:3"),
                ("tiny", "direct"),
                ("id-length", "12"),
                ("threads", "5"),
            ]
            .map(|(flag, value)| (flag, value.to_owned())),
        ),
        ..Overrides::default()
    };
    let settings = Settings::load(&overrides).unwrap();
    assert_eq!(
        settings.public_listen,
        ["127.0.0.1:2".parse().unwrap(), "127.0.0.1:3".parse().unwrap()]
    );
    assert_eq!(
        (settings.tiny, settings.id_length, settings.threads),
        (Tiny::Direct, 12, 5)
    );
    assert_eq!(settings.data_dir, Path::new("elsewhere"));
    for (flag, value) in [("tiny", "x"), ("public", "x"), ("id-length", "x"), ("threads", "257")] {
        let mut wrong = overrides.clone();
        wrong.flags.insert(flag, value.to_owned());
        assert!(Settings::load(&wrong).unwrap_err().to_string().contains("TINYD_"));
    }
}

#[test]
fn the_first_start_makes_a_private_file_that_is_valid() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let overrides = Overrides {
        data: Some(folder.path().join("a \"quoted\" folder")),
        ..Overrides::default()
    };
    assert!(Settings::load(&overrides).is_err());
    let (settings, created) = Settings::load_or_create(&overrides).unwrap();
    assert!(created);
    assert_eq!(settings.warnings, Vec::<String>::new());
    assert_eq!(
        fs::metadata(&settings.config).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let (again, created) = Settings::load_or_create(&overrides).unwrap();
    assert!(!created);
    assert_eq!(again, settings);
}

#[test]
fn credentials_come_from_the_folder_of_the_service_manager() {
    let text = "[[partner]]\nid = 7\nadmin_secret_credential = \"secrets\"\nuser_secret_credential = \"secrets\"";
    let settings = load(text).unwrap();
    let partner = settings.partners.get(PartnerId(7)).unwrap();
    assert!(partner.admin_secrets[0].matches("the secret of the file"));
    assert!(partner.user_secrets[1].matches("the one before it"));

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tinyd.toml");
    fs::write(&path, text).unwrap();
    let overrides = Overrides {
        config: Some(path),
        ..Overrides::default()
    };
    let error = Settings::load(&overrides).unwrap_err().to_string();
    for part in [
        "partner[0].admin_secret_credential",
        "\"secrets\"",
        "CREDENTIALS_DIRECTORY",
    ] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn readable_files_with_secrets_are_warned_of_once() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let (config, secret) = (folder.path().join("tinyd.toml"), folder.path().join("secret"));
    fs::write(&secret, "hush hush hush hush").unwrap();
    let set_mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let overrides = Overrides {
        config: Some(config.clone()),
        credentials: vec![folder.path().to_owned()],
        ..Overrides::default()
    };
    let inline = [PARTNER, "user_secret = \"hush hush hush hush\"\n"].concat();
    let of_file = "[[partner]]\nid = 7\nadmin_secret_file = \"secret\"\nuser_secret_file = \"secret\"\n";
    let of_credential = of_file.replace("_file", "_credential");
    for (text, mode_of_config, mode_of_secret, warned) in [
        (inline.as_str(), 0o644, 0o600, Some(&config)),
        (inline.as_str(), 0o640, 0o644, None),
        (of_file, 0o644, 0o600, None),
        (of_file, 0o644, 0o604, Some(&secret)),
        (&of_credential, 0o644, 0o400, None),
        (&of_credential, 0o600, 0o644, Some(&secret)),
    ] {
        fs::write(&config, text).unwrap();
        set_mode(&config, mode_of_config);
        set_mode(&secret, mode_of_secret);
        let warnings = Settings::load(&overrides).unwrap().warnings;
        let expected = warned.map(|path| {
            let path = path.display();
            format!("{path} is readable by other users: run chmod 600 {path}")
        });
        assert_eq!(warnings, Vec::from_iter(expected), "{text}");
    }
}

#[test]
fn effective_settings_have_every_key_and_no_secret() {
    let settings = load(
        &[
            PARTNER,
            "user_secret = [\"4711 4711 4711 4711\", \"4712 4712 4712 4712\"]",
        ]
        .concat(),
    )
    .unwrap();
    let text = settings.effective().join(", ");
    for key in keys::ALL {
        for (section, _) in key.sections.iter().filter(|(section, _)| *section != "partner") {
            let path = key.path(section);
            assert!(text.contains(&format!("{path} = ")), "{path} not in {text}");
        }
    }
    assert!(
        text.contains("partner.id = 7, partner.admin_secret = (1), partner.user_secret = (2), partner.operator = true")
    );
    assert!(!text.contains("hush") && !text.contains("471"), "{text}");
}

#[test]
fn an_exposed_listener_without_declared_proxies_is_warned_of() {
    for (text, is_warned) in [
        ("", false),
        ("listen = \"[::1]:8080\"", false),
        ("listen = \"0.0.0.0:8080\"", true),
        ("listen = [\"127.0.0.1:8080\", \"[::]:8080\"]", true),
        ("listen = \"203.0.113.7:80\"", true),
        ("listen = \"0.0.0.0:8080\"\ntrusted_proxies = \"10.0.0.1\"", false),
        ("listen = \"0.0.0.0:8080\"\nshut_out_guessers = false", false),
        ("listen = \"0.0.0.0:8080\"\nshut_out_guessers = true", false),
        ("listen = \"0.0.0.0:8080\"\nmax_guesses_per_minute = 0", false),
        ("listen = \"0.0.0.0:8080\"\nmax_guesses_per_minute = 60", true),
    ] {
        let warnings = load(&format!("[public]\n{text}\n")).unwrap().warnings;
        let found = warnings
            .iter()
            .find(|warning| warning.contains("public.trusted_proxies") && warning.contains("public.shut_out_guessers"));
        assert_eq!(found.is_some(), is_warned, "{text}: {warnings:?}");
    }
}

#[test]
fn short_urls_do_not_name_the_port_that_browsers_leave_out() {
    for (text, base) in [
        ("listen = \"192.0.2.1:80\"", "http://192.0.2.1"),
        ("listen = \"[2001:db8::80]:80\"", "http://[2001:db8::80]"),
        ("listen = \"0.0.0.0:80\"", "http://127.0.0.1"),
        ("listen = \"192.0.2.1:8080\"", "http://192.0.2.1:8080"),
        ("listen = \"192.0.2.1:443\"", "http://192.0.2.1:443"),
        ("url = \"https://go.example.com:443/\"", "https://go.example.com"),
        ("url = \"HTTPS://go.example.com:443/s\"", "HTTPS://go.example.com/s"),
        ("url = \"http://go.example.com:80\"", "http://go.example.com"),
        ("url = \"http://go.example.com:443\"", "http://go.example.com:443"),
        ("url = \"https://go.example.com:80\"", "https://go.example.com:80"),
        ("url = \"https://go.example.com:8443\"", "https://go.example.com:8443"),
        ("url = \"https://[2001:db8::443]\"", "https://[2001:db8::443]"),
    ] {
        let settings = load(&format!("[public]\n{text}\n")).unwrap();
        assert_eq!(settings.short_url_base(), base, "{text}");
    }
    let settings = load("[admin]\nlisten = \"127.0.0.1:80\"\n").unwrap();
    assert_eq!(settings.admin_url(), "http://127.0.0.1");
}

#[test]
fn acme_is_read_and_its_mistakes_are_named() {
    let with = |tls: &str, acme: &str| load(&format!("[public.tls]\n{tls}\n[acme]\n{acme}\n{PARTNER}"));
    let listen = "listen = \"0.0.0.0:443\"";
    let settings = with(
        listen,
        "domains = [\"GO.example.com\", \"go.example.com\", \"192.0.2.7\"]",
    )
    .unwrap();
    let acme = settings.acme.unwrap();
    assert_eq!(acme.domains, ["go.example.com", "192.0.2.7"]);
    assert_eq!(acme.directory, "https://acme-v02.api.letsencrypt.org/directory");
    assert_eq!(settings.public_tls.unwrap().certificates, []);
    let warning = settings
        .warnings
        .iter()
        .find(|warning| warning.starts_with("acme.challenge"));
    let warning = warning.unwrap();
    assert!(
        warning.contains("connects to port 80, which no address of public.listen has"),
        "{warning}"
    );
    let settings = with(listen, "domains = \"a.example\"\nchallenge = \"tls-alpn-01\"").unwrap();
    assert!(
        !settings
            .warnings
            .iter()
            .any(|warning| warning.starts_with("acme.challenge"))
    );
    assert!(
        load(&format!("[acme]\nemail = \"a@b\"\n{PARTNER}"))
            .unwrap()
            .acme
            .is_none()
    );
    let many: Vec<_> = (0..101).map(|number| format!("\"n{number}.example\"")).collect();
    for (tls, acme, reason) in [
        (
            "",
            "domains = \"a.example\"",
            "acme.domains = a.example: a certificate needs a listener",
        ),
        (listen, "domains = \"*.example.com\"", "proves control of a wildcard"),
        (
            listen,
            "",
            "public.tls.certificates = (missing): HTTPS needs a certificate",
        ),
        (
            listen,
            &format!("domains = [{}]", many.join(",")),
            "expected at most 100 names",
        ),
        (
            listen,
            "domains = \"a\"\ndirectory = \"http://ca.example/\"",
            "expected the https URL",
        ),
        (
            listen,
            "domains = \"a\"\nemail = \"admin\"",
            "expected one mail address",
        ),
        (
            listen,
            "domains = \"a\"\nprofile = \"\"",
            "expected the name of a profile",
        ),
        (
            listen,
            "domains = \"a\"\nca_file = \"none.pem\"",
            "certificates of acme.ca_file",
        ),
    ] {
        let error = with(tls, acme).unwrap_err();
        assert!(error.contains(reason), "{tls} {acme}: {error}");
    }
}

#[test]
fn first_folder_that_has_a_credential_counts() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(
        one.path().join("tinyd.toml"),
        "[[partner]]\nid = 7\nadmin_secret_credential = \"secret\"\n",
    )
    .unwrap();
    let load = || {
        let folders = [one.path().join("none"), one.path().to_owned(), other.path().to_owned()];
        let overrides = Overrides {
            config: Some(one.path().join("tinyd.toml")),
            credentials: folders.to_vec(),
            ..Overrides::default()
        };
        Settings::load(&overrides)
    };
    let said = load().unwrap_err().to_string();
    assert!(said.starts_with(one.path().join("secret").to_str().unwrap()), "{said}");
    for (folder, text) in [(&other, "the secret of the second"), (&one, "the secret of the first")] {
        fs::write(folder.path().join("secret"), text).unwrap();
        let settings = load().unwrap();
        let partner = settings.partners.get(PartnerId(7)).unwrap();
        assert!(partner.admin_secrets[0].matches(text), "{text}");
        assert_eq!(settings.credentials, ["secret"]);
    }
}

#[test]
fn missing_file_beside_a_service_names_what_to_run() {
    let folder = tempfile::tempdir().unwrap();
    let overrides = Overrides {
        config: Some(folder.path().join("tinyd.toml")),
        ..Overrides::default()
    };
    let error = || Settings::load(&overrides).unwrap_err();
    let service = folder.path().join("service.toml");
    assert!(!error().beside_service(&service).to_string().contains("tinyd-admin"));
    fs::write(&service, "").unwrap();
    let said = error().beside_service(&service).to_string();
    let hint = format!(
        "(run tinyd-admin, or name the configuration of the service: --config {})",
        service.display()
    );
    assert!(said.ends_with(&hint), "{said}");
}

#[test]
fn several_partners_without_an_operator_are_warned_of() {
    let other = "[[partner]]\nid = 8\nadmin_secret = \"hush hush hush hush\"\n";
    for (more, is_warned) in [
        ("", false),
        (other, true),
        (&format!("{other}operator = true\n"), false),
    ] {
        let warnings = load(&format!("{PARTNER}{more}")).unwrap().warnings;
        let found = warnings
            .iter()
            .any(|warning| warning.starts_with("partner.operator: true for none"));
        assert_eq!(found, is_warned, "{more}: {warnings:?}");
    }
}
