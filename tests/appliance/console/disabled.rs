//! Appliances without a console, and those that write nothing.

use crate::console::{make_sign_in_link, sign_in_link};
use crate::support::browser::Browser;
use crate::support::fixture::{Appliance, code, serve};

#[test]
fn disabled_console_leaves_no_trace() {
    let appliance = Appliance::start_with("[console]\nenabled = false\n");
    let unknown = appliance.get_admin("/nowhere/");
    for path in ["", "/", "/sign-in", "/links", "/assets/x.css"] {
        let answer = Browser::new(&appliance).get(path);
        assert_eq!((answer.status, &answer.body), (404, &unknown.body), "{path}");
        assert_eq!(
            answer.header("content-security-policy"),
            unknown.header("content-security-policy")
        );
    }
    let answer = Browser::new(&appliance).post("/sign-in", &[]);
    assert_eq!((answer.status / 100, answer.header("set-cookie")), (4, ""));
    let made = make_sign_in_link(&appliance, &appliance.admin_ks(), "admin", "2");
    assert_eq!(code(&made), "SERVICE_FORBIDDEN", "{made}");
    assert!(!appliance.tinyd(&["console"]).status.success());
    assert!(!appliance.folder.path().join("data/console.key").exists());
}

#[test]
fn read_only_console_shows_links_and_keeps_them() {
    let mut appliance = Appliance::start();
    let mut jane = Browser::of_user(&appliance, "jane");
    let id = jane.create(&[("name", "kept"), ("full_url", "https://youtu.be/x")]);
    assert!(appliance.terminate().success());
    let key = appliance.folder.path().join("data/console.key");
    std::fs::remove_file(&key).unwrap();
    let mut command = serve();
    command.arg("--read-only");
    let folder = std::mem::replace(&mut appliance.folder, tempfile::tempdir().unwrap());
    std::fs::write(appliance.folder.path().join("log"), "").unwrap();
    drop(appliance);
    let appliance = Appliance::start_by(command, folder);
    let mut jane = Browser::of_user(&appliance, "jane");
    let page = jane.get(&format!("/links/{id}"));
    assert!(page.status == 200 && page.text().contains("kept"), "{}", page.text());
    for (path, fields) in [
        ("/links/new".to_owned(), &[("full_url", "https://example.com/")][..]),
        (format!("/links/{id}/edit"), &[("full_url", "https://example.com/")]),
        (format!("/links/{id}/playback"), &[("start", "1:30")]),
        (format!("/links/{id}/disable"), &[]),
        (format!("/links/{id}/delete"), &[]),
    ] {
        let answer = jane.submit(&path, fields);
        assert_eq!(answer.status, 503, "{path}");
        assert!(answer.text().contains("This server is read-only."), "{}", answer.text());
        for (name, value) in fields {
            let kept = answer.text().contains(&format!("value=\"{value}\""));
            assert!(kept, "{path}: {name} is lost: {}", answer.text());
        }
    }
    let answer = jane.submit("/sign-out", &[]);
    assert_eq!((answer.status, answer.header("location")), (303, "/console/sign-in"));
    assert_eq!(jane.cookie, "");
    let link = sign_in_link(&appliance, "john", "0");
    assert_eq!(Browser::new(&appliance).post(&link, &[]).status, 303);
    assert!(!key.exists(), "a read-only server writes nothing");
}
