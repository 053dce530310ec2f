//! The guide's curl examples, unchanged except for host and secrets (`tests/guide`).

use std::process::Command;

use serde_json::Value;

use crate::support::fixture::{ADMIN_SECRET, Appliance, PARTNER};

/// A shell with the guide's variables, which runs one example after the other.
struct Shell<'a> {
    appliance: &'a Appliance,
    ks: String,
    short_link_id: String,
}

impl Shell<'_> {
    /// Runs an example and returns its output.
    fn run(&self, script: &str) -> String {
        let mut command = Command::new("bash");
        command
            .args(["-euo", "pipefail", "-c", script])
            .env("KALTURA_SERVICE_URL", format!("{}/api_v3", self.appliance.admin))
            .env("KALTURA_PARTNER_ID", PARTNER)
            .env("KALTURA_ADMIN_SECRET", ADMIN_SECRET)
            .env("KALTURA_USER_ID", "user@example.com")
            .env("KALTURA_ENTRY_ID", "1_abc123")
            .env("KALTURA_PLAYER_ID", "56732362")
            .env("KALTURA_KS", &self.ks)
            .env("SHORT_LINK_ID", &self.short_link_id);
        let output = command.output().expect("bash, with curl: apt-get install bash curl");
        assert!(output.status.success(), "{script}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, script: &str) -> Value {
        serde_json::from_str(&self.run(script)).unwrap()
    }
}

const PREVIEW: &str = "https://www.kaltura.com/index.php/extwidget/preview/partner_id/1234567/uiconf_id/56732362/entry_id/1_abc123/embed/dynamic";

pub fn guide_examples_work_word_for_word() {
    let appliance = Appliance::start();
    let mut shell = Shell {
        appliance: &appliance,
        ks: String::new(),
        short_link_id: String::new(),
    };
    let session = [include_str!("../guide/2-session.sh"), "echo -n \"$KALTURA_KS\""].concat();
    shell.ks = shell.run(&session);
    assert!(shell.ks.starts_with("djJ8"), "{}", shell.ks);

    let created = shell.json(include_str!("../guide/3-create.sh"));
    assert_eq!(
        (&created["userId"], &created["systemName"]),
        (&"user@example.com".into(), &"PREVIEW-ENTRY-1_abc123".into())
    );
    assert_eq!((&created["fullUrl"], &created["status"]), (&PREVIEW.into(), &2.into()));
    let expiring = shell.json(include_str!("../guide/3.1-create-expiring.sh"));
    let days = (expiring["expiresAt"].as_i64().unwrap() - expiring["createdAt"].as_i64().unwrap()) as f64 / 86_400.0;
    assert!((6.9..7.1).contains(&days), "{expiring}");

    shell.short_link_id = created["id"].as_str().unwrap().to_owned();
    let goto = include_str!("../guide/4.2-goto.sh");
    assert_eq!(shell.run(goto), format!("302 {PREVIEW}"));

    let list = include_str!("../guide/5-list.sh");
    let listing = shell.json(list);
    assert_eq!(
        (&listing["totalCount"], &listing["objectType"]),
        (&2.into(), &"KalturaShortLinkListResponse".into())
    );
    assert!(listing["objects"].as_array().unwrap().contains(&created));

    let disabled = shell.json(include_str!("../guide/6-update.sh"));
    assert_eq!((&disabled["id"], &disabled["status"]), (&created["id"], &1.into()));
    assert_eq!(shell.run(goto), "404 ");
    let deleted = shell.json(include_str!("../guide/7-delete.sh"));
    assert_eq!(deleted["status"], 3);
    assert_eq!(shell.run(goto), "410 ");
    assert_eq!(shell.json(list)["totalCount"], 1);

    let shared = shell.json(include_str!("../guide/8-preview-and-share.sh"));
    assert_eq!(
        (&shared["systemName"], &shared["fullUrl"]),
        (&"KMC-PREVIEW".into(), &PREVIEW.into())
    );
    let campaign = shell.json(include_str!("../guide/8-campaign.sh"));
    assert_eq!(campaign["name"], "Q4 Campaign Video");
    let found = shell.json(include_str!("../guide/8-lookup.sh"));
    assert_eq!((&found["totalCount"], &found["objects"][0]), (&1.into(), &campaign));

    // The clean-up of the guide: list expired links and delete each, until none is left.
    for number in 0..7 {
        let past = (1_000_000 + number).to_string();
        appliance.add(&shell.ks, &[("shortLink[expiresAt]", &past)]);
    }
    let expired = include_str!("../guide/8-expired.sh");
    let delete = include_str!("../guide/7-delete.sh");
    let mut rounds = 0;
    loop {
        let listing = shell.json(expired);
        let objects = listing["objects"].as_array().unwrap();
        assert_eq!(listing["totalCount"], objects.len());
        if objects.is_empty() {
            break;
        }
        rounds += 1;
        assert_eq!((rounds, objects.len()), (1, 7));
        for link in objects {
            shell.short_link_id = link["id"].as_str().unwrap().to_owned();
            assert_eq!(shell.json(delete)["status"], 3);
        }
    }
    assert_eq!(
        shell.json(list)["totalCount"],
        3,
        "links that have not expired are still there"
    );
}
