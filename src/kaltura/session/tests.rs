use proptest::prelude::*;

use super::*;
use crate::model::work::assert_is_linear;

const SECRET: &str = "f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0";

fn partners() -> Partners {
    let secrets = |texts: &[&str]| texts.iter().map(|&text| Secret::new(text.into())).collect();
    Partners(HashMap::from([(
        PartnerId(1_234_567),
        Partner {
            admin_secrets: secrets(&[SECRET, "the secret before it"]),
            user_secrets: secrets(&["a user's secret"]),
            is_operator: false,
            policy: LinkPolicy::default(),
        },
    )]))
}

fn claims<'a>(user: &'a str, privileges: &'a str) -> Claims<'a> {
    Claims {
        partner: PartnerId(1_234_567),
        user,
        kind: Kind::Admin,
        expiry: Timestamp::from_unix(1_900_000_000),
        privileges,
    }
}

/// Minted by Kaltura's own Python client (`generateSession`, `generateSessionV2`), so that the two sides of this file
/// cannot be wrong in the same way.
#[test]
fn sessions_minted_by_the_python_client_verify() {
    let v1 = include_str!("testdata/python_v1.txt").trim();
    let v2 = include_str!("testdata/python_v2.txt").trim();
    for ks in [v1, v2] {
        let session = verify(ks, &partners()).unwrap();
        assert_eq!(session.user.as_deref(), Some("ünal@example.com"));
        assert_eq!(session.kind, Kind::Admin);
        assert_eq!(session.expiry, Timestamp::from_unix(1_900_000_000));
        assert_eq!(session.privileges.get("sessionid"), Some("abc"));
        assert_eq!(session.privileges.get("all"), Some("*"));
    }
}

#[test]
fn any_admin_secret_verifies_and_the_first_one_signs() {
    let old = Partner {
        admin_secrets: vec![Secret::new("the secret before it".into())],
        user_secrets: vec![],
        is_operator: false,
        policy: LinkPolicy::default(),
    };
    for ks in [
        mint(&claims("me", ""), &old, [7; 16]).unwrap(),
        mint_v1(&claims("me", ""), &old, 7).unwrap(),
    ] {
        assert!(verify(&ks, &partners()).is_ok());
    }
    let new_only = Partners(HashMap::from([(
        PartnerId(1_234_567),
        Partner {
            admin_secrets: vec![Secret::new(SECRET.into())],
            user_secrets: vec![],
            is_operator: false,
            policy: LinkPolicy::default(),
        },
    )]));
    let both = partners();
    let rotated = both.get(PartnerId(1_234_567)).unwrap();
    assert!(verify(&mint(&claims("me", ""), rotated, [7; 16]).unwrap(), &new_only).is_ok());
}

#[test]
fn padding_may_be_missing_or_percent_encoded() {
    let all = partners();
    let partner = all.get(PartnerId(1_234_567)).unwrap();
    for user in ["a", "ab", "abc"] {
        let ks = mint_v1(&claims(user, ""), partner, 1).unwrap();
        for spelling in [
            ks.clone(),
            ks.replace('=', ""),
            ks.replace('=', "%3D"),
            format!("{ks}\n"),
        ] {
            assert_eq!(verify(&spelling, &all).unwrap().user.as_deref(), Some(user));
        }
    }
}

#[test]
fn a_changed_character_is_noticed() {
    let all = partners();
    let partner = all.get(PartnerId(1_234_567)).unwrap();
    for ks in [
        mint(&claims("me", "edit:*"), partner, [9; 16]).unwrap(),
        mint_v1(&claims("me", "edit:*"), partner, 9).unwrap(),
    ] {
        let unpadded = ks.trim_end_matches('=');
        // The last character may carry bits that decode to nothing.
        for index in 0..unpadded.len() - 1 {
            let mut forged = ks.clone().into_bytes();
            forged[index] = if forged[index] == b'A' { b'B' } else { b'A' };
            let forged = String::from_utf8(forged).unwrap();
            assert_eq!(verify(&forged, &all), Err(InvalidKs::Malformed), "at {index}");
        }
    }
}

#[test]
fn widget_sessions_and_unknown_partners_are_refused() {
    let all = partners();
    let partner = all.get(PartnerId(1_234_567)).unwrap();
    let unknown = Claims {
        partner: PartnerId(7),
        ..claims("me", "")
    };
    assert_eq!(
        verify(&mint(&unknown, partner, [1; 16]).unwrap(), &all),
        Err(InvalidKs::Malformed)
    );
    assert_eq!(parse_kind("1"), Err(InvalidKs::Type));
    assert_eq!(parse_kind("-1"), Err(InvalidKs::Type));
    assert_eq!(parse_kind("3"), Ok(Kind::Admin));
}

#[test]
fn restrictions_hold() {
    let all = partners();
    let partner = all.get(PartnerId(1_234_567)).unwrap();
    let session = |privileges| verify(&mint(&claims("me", privileges), partner, [1; 16]).unwrap(), &all).unwrap();
    let home: IpAddr = "127.0.0.1".parse().unwrap();
    let mapped: IpAddr = "::ffff:127.0.0.1".parse().unwrap();
    let away: IpAddr = "192.0.2.1".parse().unwrap();

    let by_ip = session("iprestrict:127.0.0.1/::1");
    assert_eq!(by_ip.check_restrictions(home, "/"), Ok(()));
    assert_eq!(by_ip.check_restrictions(mapped, "/"), Ok(()));
    assert_eq!(by_ip.check_restrictions(away, "/"), Err(InvalidKs::RestrictedIp));
    assert_eq!(
        session("iprestrict:nonsense").check_restrictions(home, "/"),
        Err(InvalidKs::RestrictedIp)
    );

    let by_uri = session("urirestrict:/api_v3/service/a*|/exact");
    assert_eq!(by_uri.check_restrictions(home, "/api_v3/service/abc"), Ok(()));
    assert_eq!(by_uri.check_restrictions(home, "/exact"), Ok(()));
    assert_eq!(
        by_uri.check_restrictions(home, "/exact/more"),
        Err(InvalidKs::RestrictedUri)
    );
    assert_eq!(by_uri.check_restrictions(home, "/other"), Err(InvalidKs::RestrictedUri));

    assert_eq!(session("actionslimit:3").actions_limit(), Some(3));
    assert_eq!(session("actionslimit:many").actions_limit(), Some(0));
    // A restriction without a value restricts everything: it is a mistake, not a permission.
    assert_eq!(session("actionslimit").actions_limit(), Some(0));
    assert_eq!(
        session("iprestrict:").check_restrictions(home, "/"),
        Err(InvalidKs::RestrictedIp)
    );
    assert_eq!(
        session("urirestrict").check_restrictions(home, "/"),
        Err(InvalidKs::RestrictedUri)
    );
    assert_eq!(session("sessionid").session_id_digest(), None);
    assert_eq!(session("").actions_limit(), None);
    assert_eq!(by_uri.check_expiry(Timestamp::from_unix(1_899_999_999)), Ok(()));
    assert_eq!(
        by_uri.check_expiry(Timestamp::from_unix(1_900_000_000)),
        Err(InvalidKs::Expired)
    );
}

#[test]
fn secrets_start_what_they_may() {
    let all = partners();
    let own = PartnerId(1_234_567);
    assert!(all.may_start(own, Kind::Admin, SECRET));
    assert!(all.may_start(own, Kind::User, SECRET));
    assert!(all.may_start(own, Kind::User, "a user's secret"));
    assert!(!all.may_start(own, Kind::Admin, "a user's secret"));
    assert!(!all.may_start(own, Kind::User, ""));
    assert!(!all.may_start(PartnerId(1), Kind::User, SECRET));
    assert_eq!(format!("{all:?}").matches(SECRET).count(), 0);
}

#[test]
fn only_the_end_of_a_session_is_shown() {
    assert_eq!(redact("djJ8MTIzNDU2N3w"), "DU2N3w");
    assert_eq!(redact("short"), "");
    assert_eq!(redact("äöüäöüäöü"), "äöüäöü");
}

proptest! {
    #[test]
    fn verifying_is_total(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in ".*") {
        let all = partners();
        let _ = verify(&text, &all);
        let _ = verify(&BASE64.encode(&bytes), &all);
        let _ = verify(&BASE64.encode([b"v2|1234567|".as_slice(), &bytes].concat()), &all);
        let _ = verify(&BASE64.encode([b"x|1234567;".as_slice(), &bytes].concat()), &all);
    }

    #[test]
    fn what_is_minted_verifies(
        user in "\\PC{0,30}",
        names in proptest::collection::btree_map("[a-z]{1,12}", "[^,]{0,12}", 0..4),
        salt in any::<[u8; 16]>(),
    ) {
        let all = partners();
        let partner = all.get(PartnerId(1_234_567)).unwrap();
        let text: Vec<String> = names.iter().map(|(name, value)| format!("{name}:{}", value.trim())).collect();
        let text = text.join(",");
        let claims = claims(&user, &text);
        let session = verify(&mint(&claims, partner, salt).unwrap(), &all).unwrap();
        prop_assert_eq!(session.user.as_deref().unwrap_or(""), &user);
        prop_assert_eq!(&session.privileges, &Privileges::parse(&text));
        match mint_v1(&claims, partner, 1) {
            Some(ks) => {
                let first = verify(&ks, &all).unwrap();
                prop_assert_eq!(first.user, session.user);
                prop_assert_eq!(first.privileges, session.privileges);
            }
            None => prop_assert!(user.contains(';') || text.contains(';')),
        }
    }
}

#[test]
fn sessions_take_work_in_proportion() {
    let partners = partners();
    let partner = partners.get(PartnerId(1_234_567)).unwrap();
    let make = |size: usize| {
        let privileges = ["a:b,*,", "iprestrict:1/"].map(|text| text.repeat(size)).concat();
        let claims = claims("me", &privileges);
        [
            mint(&claims, partner, [7; 16]).unwrap(),
            mint_v1(&claims, partner, 7).unwrap(),
            "%3D".repeat(size * 10),
            "QUFB".repeat(size * 10),
        ]
    };
    assert_is_linear(15, make, |texts| {
        texts.map(|text| {
            assert!(text.len() <= KS_MAX_BYTES);
            let _ = redact(&text);
            verify(&text, &partners)
        })
    });
}
