use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::cluster::{Reads, Role};
use crate::config::{Overrides, Settings, read};

const SERVERS: &str = "[cluster]\nservers = [\"tls://n1.example.com:4222\", \"nats://127.0.0.1:4222\"]\n";
const PARTNER: &str = "[[partner]]\nid = 7\nadmin_secret = \"hush hush hush hush\"\n";

fn load_in(folder: &Path, text: &str) -> Result<Settings, String> {
    let overrides = Overrides::default();
    read::parse(text, &folder.join("tinyd.toml"), &overrides).map_err(|error| error.to_string())
}

fn load(text: &str) -> Result<Settings, String> {
    load_in(Path::new("."), text)
}

#[test]
fn box_of_a_cluster_is_read() {
    assert!(load(PARTNER).unwrap().cluster.is_none());
    let text = format!("{SERVERS}node = \"a-1\"\n{PARTNER}");
    let cluster = load(&text).unwrap().cluster.unwrap();
    assert_eq!((cluster.role, cluster.reads), (Role::Admin, Reads::Current));
    assert_eq!(
        (cluster.node.as_str(), cluster.stream().as_str()),
        ("a-1", "TINYD_main")
    );
    assert_eq!((cluster.servers.len(), cluster.write_patience.as_secs()), (2, 10));
    assert_eq!((cluster.admin_box(), &cluster.seed), ("an admin box", &None));
    let more = "role = \"edge\"\nreads = \"available\"\nadmin_url = \"https://a.example.com\"\nname = \"test\"\n";
    let cluster = load(&format!("{SERVERS}node = \"e\"\n{more}"))
        .unwrap()
        .cluster
        .unwrap();
    assert_eq!((cluster.role, cluster.reads), (Role::Edge, Reads::Available));
    assert_eq!(
        (cluster.admin_box(), cluster.stream().as_str()),
        ("https://a.example.com", "TINYD_test")
    );
}

#[test]
fn edge_needs_no_partner_and_has_no_console() {
    let warnings = |text: &str| load(text).unwrap().warnings;
    assert!(warnings("").iter().any(|warning| warning.starts_with("no [[partner]]")));
    let edge = format!("{SERVERS}node = \"e\"\nrole = \"edge\"\n");
    assert_eq!(warnings(&edge), Vec::<String>::new());
    assert!(load(&edge).unwrap().console.is_none());
    assert!(load(&format!("{SERVERS}node = \"a\"\n")).unwrap().console.is_some());
    let error = load(&format!("{edge}[console]\nlisten = \"127.0.0.1:8090\"\n")).unwrap_err();
    assert!(
        error.contains("console.listen") && error.contains("use that of an admin box"),
        "{error}"
    );
}

#[test]
fn mistakes_of_the_cluster_are_named() {
    for (text, key, reason) in [
        (
            "[cluster]\nservers = \"n1:4222\"\n",
            "cluster.servers",
            "tls://nats1.example.com:4222",
        ),
        (
            "[cluster]\nservers = \"nats://me:hush@n1\"\n",
            "cluster.servers",
            "without a password",
        ),
        (
            "[cluster]\nservers = \"http://n1:4222\"\n",
            "cluster.servers",
            "expected the address of a NATS server",
        ),
        ("[cluster]\nserver = \"nats://n1\"\n", "cluster.server", "servers"),
        (
            "[cluster]\nrole = \"edge\"\n",
            "cluster.servers = (missing)",
            "has role and no servers",
        ),
        (
            "[cluster]\nnode = \"a\"\n",
            "cluster.servers = (missing)",
            "has node and no servers",
        ),
        (
            "[cluster]\nservers = []\nkey_file = \"seed\"\n",
            "cluster.servers = (missing)",
            "has key_file",
        ),
        (
            "[cluster]\nservers = \"nats://n1\"\nrole = \"leader\"\n",
            "cluster.role",
            "admin",
        ),
        (
            "[cluster]\nservers = \"nats://n1\"\nnode = \"a.b\"\n",
            "cluster.node",
            "1 to 32 letters",
        ),
        (
            "[cluster]\nservers = \"nats://n1\"\nname = \"a b\"\n",
            "cluster.name",
            "1 to 32 letters",
        ),
        (
            "[cluster]\nservers = \"nats://n1\"\nadmin_url = \"a\"\n",
            "cluster.admin_url",
            "URL",
        ),
        (
            "[cluster]\nservers = \"nats://n1\"\nreads = \"old\"\n",
            "cluster.reads",
            "available",
        ),
        (
            "[cluster]\nservers = \"nats://n1\"\nwrite_patience_seconds = 0\n",
            "write_patience_seconds",
            "1 to 60",
        ),
        (
            "[cluster]\nservers = \"nats://n1\"\naccept_lazy_fsync = 1\n",
            "accept_lazy_fsync",
            "true or false",
        ),
        (
            "[cluster]\nservers = \"nats://n1\"\nca_file = \"gone.pem\"\n",
            "cluster.ca_file",
            "gone.pem",
        ),
        (
            "[cluster]\nservers = \"nats://n1\"\nkey_file = \"gone\"\n",
            "cluster.key_file",
            "cannot be read",
        ),
    ] {
        let error = load(text).unwrap_err();
        assert!(error.contains(key) && error.contains(reason), "{text}: {error}");
        assert!(!error.contains("hush"), "{error}");
    }
}

#[test]
fn seed_is_checked_and_shown_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let user = nkeys::KeyPair::new_user().seed().unwrap();
    let (path, text) = (
        folder.path().join("seed"),
        format!("{SERVERS}node = \"a\"\nkey_file = \"seed\"\n{PARTNER}"),
    );
    let write = |seed: &str, mode| {
        fs::write(&path, seed).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    write(&format!("{user}\n"), 0o600);
    let settings = load_in(folder.path(), &text).unwrap();
    assert_eq!(settings.warnings, Vec::<String>::new());
    assert_eq!(settings.cluster.as_ref().unwrap().seed.as_deref(), Some(user.as_str()));
    assert!(settings.effective().iter().all(|line| !line.contains(&user)));
    assert!(!format!("{settings:?}").contains(&user));
    // Another seed counts after a restart.
    let mut other = settings.clone();
    other.cluster.as_mut().unwrap().seed = None;
    assert_eq!(settings.fixed_differences(&other), ["cluster.key_file"]);

    write(&user, 0o644);
    let warnings = load_in(folder.path(), &text).unwrap().warnings;
    assert!(
        warnings.len() == 1 && warnings[0].contains("readable by other users"),
        "{warnings:?}"
    );

    // A typing error, the seed of an account, and what is no seed at all.
    let last = if user.ends_with('A') { 'B' } else { 'A' };
    let typo = format!("{}{last}", &user[..user.len() - 1]);
    let account = nkeys::KeyPair::new_account().seed().unwrap();
    for seed in [typo.as_str(), &account, "hush hush", ""] {
        write(seed, 0o600);
        let error = load_in(folder.path(), &text).unwrap_err();
        assert!(
            error.contains("cluster.key_file") && error.contains("begins with SU"),
            "{error}"
        );
        assert!(seed.is_empty() || !error.contains(seed), "{error}");
    }
}
