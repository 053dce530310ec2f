//! The store against a naive model, and what it refuses.

use proptest::prelude::*;

use crate::model::{PartnerId, ShortLink, Status, Timestamp};

prop_compose! {
    /// A link with any content; the ids, names and times repeat often enough to collide.
    pub(crate) fn any_link()(
        id in "[a-c]{4}|[0-9a-z]{4,20}",
        partner in 1_u32..3,
        created in 0_i64..50,
        updated in 0_i64..50,
        expires in prop::option::of(-5_i64..50),
        user in prop::option::of("[xyz]|[xyz]{2}"),
        name in prop::option::of("\\PC{0,8}"),
        system_name in "[ab]{3}",
        tail in "\\PC{0,20}",
        unique_id in prop::option::of("[pq]{1,3}"),
        status in 1_i64..=3,
    ) -> ShortLink {
        ShortLink {
            id: id.parse().unwrap(),
            created_at: Timestamp::from_unix(created),
            updated_at: Timestamp::from_unix(updated),
            expires_at: expires.map(Timestamp::from_unix),
            partner_id: PartnerId(partner),
            user_id: user,
            name,
            system_name,
            full_url: format!("https://e.example/{tail}"),
            unique_id,
            status: Status::from_number(status).unwrap(),
        }
    }
}
