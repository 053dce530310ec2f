//! The command line over HTTPS.

use std::process::Output;

use crate::support::certificates::Authority;
use crate::support::fixture::{ADMIN_SECRET, Appliance, PARTNER, configuration, folder, tinyd};
use crate::support::tls::{settings, write_pair};

/// An appliance with a certificate for the address that it listens on.
fn start(authority: &Authority, more: &str) -> Appliance {
    let folder = folder(&configuration(&(settings("") + more)));
    write_pair(folder.path(), &authority.issue(&["127.0.0.1"], |_| {}));
    Appliance::start_in(folder)
}

fn run(appliance: &Appliance, args: &[&str]) -> Output {
    let url = format!("https://{}", appliance.admin_tls);
    let of_partner = ["--partner", PARTNER];
    let more = if args[0] == "status" { &[][..] } else { &of_partner };
    appliance.tinyd(&[args, &["--url", &url], more].concat())
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn commands_trust_the_authority_that_is_named() {
    let authority = Authority::new();
    let appliance = start(&authority, "");
    let ca = authority.file();
    let ca = ca.to_str().unwrap();
    let add = ["link", "add", "https://example.com/", "--system-name", "ONE"];
    for args in [&add[..], &["link", "list"], &["status"]] {
        let output = run(&appliance, &[args, &["--ca", ca]].concat());
        assert!(output.status.success(), "{args:?} {}", said(&output));
        // The authority is none of the system's.
        let output = run(&appliance, args);
        assert_eq!(output.status.code(), Some(6), "{args:?}");
        let expected = "its certificate is of an authority that is not trusted here";
        assert!(said(&output).contains(expected), "{}", said(&output));
    }
    let (_, total) = appliance.list(&appliance.admin_ks(), &[]);
    assert_eq!(total, 1);
    let output = run(&appliance, &["status", "--ca", "/nonexistent/ca.pem"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        said(&output).contains("--ca /nonexistent/ca.pem: No such file"),
        "{}",
        said(&output)
    );
}

#[test]
fn commands_show_their_certificate() {
    let authority = Authority::new();
    let appliance = start(&authority, &format!("client_ca = {:?}\n", authority.file()));
    let ca = authority.file();
    let ca = ca.to_str().unwrap();
    let (chain, key) = authority.issue(&["operator"], |_| {});
    let path = |name: &str, text: &str| {
        let path = appliance.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (chain, key) = (path("client.pem", &chain), path("client.key", &key));
    let own = ["--client-cert", &chain, "--client-key", &key];
    let output = run(&appliance, &[&["status", "--ca", ca][..], &own].concat());
    assert!(output.status.success(), "{}", said(&output));
    let output = run(&appliance, &["status", "--ca", ca]);
    assert_eq!(output.status.code(), Some(6));
    assert!(said(&output).contains("no secure connection"), "{}", said(&output));
    let of_server = appliance.folder.path().join("key.pem");
    let foreign = ["--client-cert", &chain, "--client-key", of_server.to_str().unwrap()];
    let output = run(&appliance, &[&["status", "--ca", ca][..], &foreign].concat());
    assert_eq!(output.status.code(), Some(2));
    assert!(
        said(&output).contains("is not that of the certificate in"),
        "{}",
        said(&output)
    );
}

#[test]
fn kaltura_is_trusted_by_the_authority_that_is_named() {
    let authority = Authority::new();
    let appliance = start(&authority, "");
    let id = appliance.add(&appliance.admin_ks(), &[]);
    let store = appliance.folder.path().join("moved.redb");
    let url = format!("https://{}", appliance.admin_tls);
    let import = |more: &[&str]| {
        let mut command = tinyd();
        command
            .args(["import", "--from-kaltura", &url, "--partner", PARTNER])
            .args(["--store", store.to_str().unwrap()])
            .args(more)
            .env("TINYD_KALTURA_SECRET", ADMIN_SECRET);
        command.output().unwrap()
    };
    let untrusted = import(&[]);
    assert_eq!(untrusted.status.code(), Some(6));
    let expected = format!("no secure connection to {url}/api_v3: its certificate is of an authority");
    assert!(said(&untrusted).contains(&expected), "{}", said(&untrusted));
    let trusted = import(&["--ca", authority.file().to_str().unwrap()]);
    assert!(trusted.status.success(), "{}", said(&trusted));
    let found = tinyd()
        .args(["link", "get", &id, "--store", store.to_str().unwrap()])
        .output();
    assert!(found.unwrap().status.success());
}
