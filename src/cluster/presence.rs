//! Where each box of a cluster is in the log: they say so every few seconds.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::cluster::Role;
use crate::metrics::MemberState;
use crate::model::unix_milliseconds;
use crate::store::replication::Position;

/// How often a box says where it is.
pub const INTERVAL: Duration = Duration::from_secs(5);
/// One that has been silent for so long is gone.
const SILENT: Duration = Duration::from_secs(16);
/// Boxes that have not been heard for so long are forgotten.
const FORGOTTEN: Duration = Duration::from_secs(24 * 60 * 60);
/// A clock that is wrong by so many milliseconds is worth a warning.
pub const SKEW_WARNED: u64 = 1_000;
/// With one that is wrong by so many, a box takes no writes: it would date links wrongly, and expire sessions.
const SKEW_REFUSED: u64 = 5_000;
/// Boxes that are remembered.
const MEMBERS_MAX: usize = 10_000;

/// What a box says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub node: String,
    pub role: String,
    pub version: String,
    pub cluster: String,
    pub epoch: u32,
    pub sequence: u64,
    pub chain: String,
    pub digest: String,
    /// By its clock, in milliseconds since 1970.
    pub at: i64,
    pub halted: Option<String>,
}

/// Longest position that is read.
const SAID_MAX_BYTES: usize = 4 * 1024;

impl Member {
    /// Where a box says this, behind the name of the cluster: servers grant the subject to it alone.
    pub fn subject(role: &str, node: &str) -> String {
        format!("pos.{role}.{node}")
    }

    /// What a box says of itself; none if it says it where another box does.
    pub fn read(subject: &str, said: &[u8]) -> Option<Self> {
        let said = said.get(..).filter(|said| said.len() <= SAID_MAX_BYTES)?;
        let member: Self = serde_json::from_slice(said).ok()?;
        let own = Self::subject(&member.role, &member.node);
        subject.strip_suffix(&own)?.ends_with('.').then_some(member)
    }

    pub fn at(position: &Position, node: &str, role: &str, halted: Option<String>) -> Self {
        Self {
            node: node.to_owned(),
            role: role.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cluster: position.cluster_text(),
            epoch: position.epoch,
            sequence: position.sequence,
            chain: position.chain.to_string(),
            digest: position.digest.to_string(),
            at: unix_milliseconds(),
            halted,
        }
    }
}

impl Member {
    /// Where it is; none if it says something else.
    pub fn position(&self) -> Option<Position> {
        Position::from_text(&self.cluster, self.epoch, self.sequence, &self.chain, &self.digest)
    }
}

/// A time, by this box.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    pub instant: Instant,
    /// By its clock, in milliseconds since 1970.
    pub clock: i64,
}

impl Moment {
    pub fn now() -> Self {
        Self {
            instant: Instant::now(),
            clock: unix_milliseconds(),
        }
    }
}

/// What a box has said last.
#[derive(Debug)]
struct Heard {
    member: Member,
    at: Moment,
    /// How far the log went then, as far as was known.
    head: u64,
    /// Whether it has not come to where the log was when it was heard before.
    is_behind: bool,
}

impl Heard {
    fn is_silent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at.instant) > SILENT
    }

    /// How far this box's clock was ahead of its own, in milliseconds.
    const fn offset(&self) -> i64 {
        self.at.clock.saturating_sub(self.member.at)
    }

    fn state(&self, different: &BTreeSet<String>, now: Instant) -> MemberState {
        if self.is_silent(now) {
            MemberState::Silent
        } else if different.contains(&self.member.node) {
            MemberState::Different
        } else if self.member.halted.is_some() {
            MemberState::Halted
        } else if self.is_behind {
            MemberState::Behind
        } else {
            MemberState::Current
        }
    }
}

/// Which boxes are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Among {
    Admins,
    All,
}

/// The boxes that have been heard.
#[derive(Debug, Default)]
pub struct Members(Mutex<BTreeMap<String, Heard>>);

impl Members {
    /// A box has said where it is, while the log went to `head` as far as is known.
    pub fn note(&self, member: Member, head: u64, now: Moment) {
        let mut members = self.0.lock();
        members.retain(|_, heard| now.instant.saturating_duration_since(heard.at.instant) < FORGOTTEN);
        let before = members.get(&member.node);
        if before.is_some() || members.len() < MEMBERS_MAX {
            let is_behind = before.is_some_and(|before| member.sequence < before.head);
            let heard = Heard {
                is_behind,
                at: now,
                head,
                member,
            };
            members.insert(heard.member.node.clone(), heard);
        }
    }

    /// How many boxes are in each state, in the order of [`MemberState::ALL`].
    pub fn counted(&self, own: &Member, now: Instant) -> [u64; MemberState::ALL.len()] {
        let members = self.0.lock();
        let heard = members.values().filter(|heard| !heard.is_silent(now));
        let others = heard
            .map(|heard| &heard.member)
            .filter(|member| member.node != own.node);
        let different = different(others.chain([own]), &own.cluster);
        MemberState::ALL.map(|state| {
            let in_state = members.values().filter(|heard| heard.state(&different, now) == state);
            in_state.count() as u64
        })
    }

    /// How many boxes have an entry, of how many that are heard; this one is among them.
    pub fn reached(&self, sequence: u64, own: &Member, now: Instant) -> (usize, usize) {
        let members = self.0.lock();
        let heard = members.values().filter(|heard| !heard.is_silent(now));
        let others = heard
            .map(|heard| &heard.member)
            .filter(|member| member.node != own.node);
        let all: Vec<_> = others.chain([own]).collect();
        let has = |member: &&&Member| (member.epoch, member.sequence) >= (own.epoch, sequence);
        (all.iter().filter(has).count(), all.len())
    }

    /// How far this box's clock is ahead of the median of the admin boxes that are heard, in milliseconds. Of two in
    /// the middle, the one that is further away counts: which of two clocks is wrong, nobody knows.
    pub fn skew(&self, own: &str, now: Instant) -> Option<i64> {
        let members = self.0.lock();
        let others = members.values().filter(|heard| {
            let member = &heard.member;
            member.role == Role::Admin.name() && member.node != own && !heard.is_silent(now)
        });
        let mut offsets: Vec<_> = others.map(Heard::offset).collect();
        if offsets.is_empty() {
            return None;
        }
        offsets.push(0);
        offsets.sort_unstable();
        let last = offsets.len() - 1;
        let middle = [last / 2, last.div_ceil(2)].map(|at| offsets.get(at).copied().unwrap_or_default());
        middle.into_iter().max_by_key(|offset| offset.unsigned_abs())
    }

    /// The boxes whose clocks are wrong, with how far each is ahead, in milliseconds.
    pub fn skewed(&self, own: &str, now: Instant) -> Vec<(String, i64)> {
        let skew = self.skew(own, now).unwrap_or_default();
        let members = self.0.lock();
        let others = members
            .values()
            .filter(|heard| heard.member.node != own && !heard.is_silent(now));
        let ahead = others.map(|heard| (heard.member.node.clone(), skew.saturating_sub(heard.offset())));
        ahead.filter(|(_, ahead)| ahead.unsigned_abs() >= SKEW_WARNED).collect()
    }

    /// The box that has gone furthest in the log that this position is of, among admin boxes or all.
    pub fn furthest(&self, position: &Position, among: Among) -> Option<(String, u64)> {
        let members = self.0.lock();
        let now = Instant::now();
        let same_log = members
            .values()
            .filter(|heard| !heard.is_silent(now))
            .map(|heard| &heard.member)
            .filter(|member| among == Among::All || member.role == Role::Admin.name())
            .filter(|member| member.position().is_some_and(|at| at.cluster == position.cluster))
            .filter(|member| member.epoch == position.epoch);
        let furthest = same_log.max_by_key(|member| member.sequence)?;
        Some((furthest.node.clone(), furthest.sequence))
    }

    /// Each with how long ago it was heard, and whether it is silent.
    pub fn list(&self) -> Vec<(Member, Duration, bool)> {
        let members = self.0.lock();
        let list = members.values().map(|heard| {
            let since = heard.at.instant.elapsed();
            (heard.member.clone(), since, since > SILENT)
        });
        list.collect()
    }
}

/// The boxes of another cluster, and those whose history or links are not those that most have at the same entry.
fn different<'m>(members: impl Iterator<Item = &'m Member>, cluster: &str) -> BTreeSet<String> {
    let mut at_entries = BTreeMap::<_, BTreeMap<_, Vec<&str>>>::new();
    let mut different = BTreeSet::new();
    for member in members {
        if member.cluster == cluster {
            let at_entry = at_entries.entry((member.epoch, member.sequence)).or_default();
            let same = at_entry.entry((&member.chain, &member.digest)).or_default();
            same.push(&member.node);
        } else {
            different.insert(member.node.clone());
        }
    }
    for at_entry in at_entries.into_values() {
        let mut groups: Vec<_> = at_entry.into_values().collect();
        groups.sort_by_key(Vec::len);
        // Where none are more than others, none are known to be right.
        let are_most = groups.iter().rev().nth(1).map(Vec::len) != groups.last().map(Vec::len);
        if are_most {
            groups.pop();
        }
        different.extend(groups.into_iter().flatten().map(str::to_owned));
    }
    different
}

/// Why a box takes no writes with a clock that is so many milliseconds ahead.
pub fn clock_refusal(skew: Option<i64>) -> Option<String> {
    let skew = skew.filter(|skew| skew.unsigned_abs() >= SKEW_REFUSED)?;
    // To the second, because it is logged when it changes.
    let wrong = in_words(skew / 1_000 * 1_000);
    Some(format!(
        "the clock of this box is {wrong} those of the other admin boxes: set it, best by NTP"
    ))
}

/// How far ahead a clock is.
pub fn in_words(skew: i64) -> String {
    let seconds = skew.unsigned_abs() as f64 / 1e3;
    let direction = if skew < 0 { "behind" } else { "ahead of" };
    format!("{seconds:.1} s {direction}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::replication::{Chain, ContentDigest};

    const NOW: i64 = 1_800_000_000_000;

    fn position(sequence: u64) -> Position {
        Position {
            cluster: [7; 16],
            epoch: 1,
            sequence,
            chain: Chain::default(),
            digest: ContentDigest::default(),
        }
    }

    fn member(node: &str, sequence: u64) -> Member {
        Member {
            at: NOW,
            ..Member::at(&position(sequence), node, "admin", None)
        }
    }

    /// Time that passes only where a test says so.
    struct Time(Instant);

    impl Time {
        fn after(&self, milliseconds: u64) -> Moment {
            Moment {
                instant: self.0 + Duration::from_millis(milliseconds),
                clock: NOW + i64::try_from(milliseconds).unwrap(),
            }
        }
    }

    fn count_of(state: MemberState, members: &Members, own: &Member, now: Moment) -> u64 {
        members.counted(own, now.instant)[state as usize]
    }

    #[test]
    fn box_that_keeps_up_is_not_behind_on_a_busy_log() {
        let (time, members, own) = (Time(Instant::now()), Members::default(), member("a", 1_000));
        for (milliseconds, sequence, head, behind) in [
            (0, 100, 103, 0),
            // It is at every statement where the log was at the one before, and never where it is now.
            (5_000, 200, 205, 0),
            (10_000, 205, 300, 0),
            (15_000, 299, 400, 1),
            (20_000, 400, 400, 0),
        ] {
            let now = time.after(milliseconds);
            members.note(member("b", sequence), head, now);
            assert_eq!(
                count_of(MemberState::Behind, &members, &own, now),
                behind,
                "{milliseconds}"
            );
            assert_eq!(count_of(MemberState::Current, &members, &own, now), 1 - behind);
        }
    }

    #[test]
    fn box_that_says_nothing_is_silent_and_forgotten_after_a_day() {
        let (time, members, own) = (Time(Instant::now()), Members::default(), member("a", 5));
        members.note(member("b", 5), 5, time.after(0));
        assert_eq!(count_of(MemberState::Silent, &members, &own, time.after(16_000)), 0);
        assert_eq!(count_of(MemberState::Silent, &members, &own, time.after(16_001)), 1);
        let day = 24 * 60 * 60 * 1_000;
        members.note(member("c", 5), 5, time.after(day));
        assert_eq!(members.counted(&own, time.after(day).instant), [1, 0, 0, 0, 0]);
    }

    #[test]
    fn halted_box_is_counted_as_such() {
        let (time, members) = (Time(Instant::now()), Members::default());
        let halted = Member {
            halted: Some("a fork".to_owned()),
            ..member("b", 3)
        };
        members.note(halted, 9, time.after(0));
        assert_eq!(members.counted(&member("a", 9), time.after(0).instant), [0, 0, 1, 0, 0]);
    }

    #[test]
    fn box_with_other_links_at_the_same_entry_differs() {
        let other_links = |node| Member {
            digest: "ff".repeat(32),
            ..member(node, 5)
        };
        let other_history = |node| Member {
            chain: "ee".repeat(32),
            ..member(node, 5)
        };
        let other_cluster = |node| Member {
            cluster: "09".repeat(16),
            ..member(node, 77)
        };
        let names = |members: &[Member], own: &Member| {
            let names: Vec<_> = different(members.iter(), &own.cluster).into_iter().collect();
            names.join(" ")
        };
        let own = member("a", 5);
        for (members, expected) in [
            (vec![member("a", 5), member("b", 5), member("c", 5)], ""),
            (vec![member("a", 5), member("b", 5), other_links("c")], "c"),
            (vec![member("a", 5), other_history("b"), member("c", 5)], "b"),
            // Of two, nobody knows which is right.
            (vec![member("a", 5), other_links("b")], "a b"),
            // At other entries, other links are expected.
            (vec![member("a", 6), member("b", 6), other_links("c")], ""),
            (vec![member("a", 5), other_cluster("d")], "d"),
            // The one that is asked may be the one that is wrong.
            (vec![other_links("a"), member("b", 5), member("c", 5)], "a"),
        ] {
            assert_eq!(names(&members, &own), expected);
        }
        let (time, all) = (Time(Instant::now()), Members::default());
        for member in [own.clone(), member("b", 5), other_links("c")] {
            all.note(member, 5, time.after(0));
        }
        assert_eq!(all.counted(&own, time.after(0).instant), [2, 0, 0, 1, 0]);
    }

    #[test]
    fn box_speaks_for_itself_only() {
        let said = serde_json::to_vec(&member("a", 5)).unwrap();
        let read = |subject| Member::read(subject, &said).is_some();
        assert!(read("tinyd.main.pos.admin.a"));
        for other in [
            "tinyd.main.pos.admin.b",
            "tinyd.main.pos.edge.a",
            "tinyd.main.repos.admin.a",
        ] {
            assert!(!read(other), "{other}");
        }
    }

    #[test]
    fn edge_is_no_admin_box_that_has_gone_furthest() {
        let (time, members) = (Time(Instant::now()), Members::default());
        let edge = Member {
            role: "edge".to_owned(),
            ..member("e", 9)
        };
        for member in [member("a", 7), edge] {
            members.note(member, 9, time.after(0));
        }
        let furthest = |among| members.furthest(&position(5), among).unwrap().1;
        assert_eq!((furthest(Among::Admins), furthest(Among::All)), (7, 9));
    }

    #[test]
    fn clock_is_measured_against_the_median_of_admin_boxes() {
        let ahead = |node: &str, milliseconds: i64| Member {
            at: NOW + milliseconds,
            ..member(node, 1)
        };
        let skew = |others: &[i64]| {
            let (time, members) = (Time(Instant::now()), Members::default());
            for (number, milliseconds) in others.iter().enumerate() {
                members.note(ahead(&format!("b{number}"), *milliseconds), 1, time.after(0));
            }
            // Its own statement, and that of an edge, are no witnesses.
            members.note(ahead("a", 0), 1, time.after(0));
            let edge = Member {
                role: "edge".to_owned(),
                ..ahead("e", 60_000)
            };
            members.note(edge, 1, time.after(0));
            members.skew("a", time.after(0).instant)
        };
        assert_eq!(skew(&[]), None);
        assert_eq!(skew(&[300]), Some(-300));
        assert_eq!(skew(&[-6_000]), Some(6_000));
        // One wrong clock of three is that of one box only, as the two others see it, and as it sees itself.
        assert_eq!(skew(&[0, 6_000]), Some(0));
        assert_eq!(skew(&[6_000, 6_010]), Some(-6_000));
        // Two against two: all four stop.
        assert_eq!(skew(&[0, 6_000, 6_000]), Some(-6_000));
    }

    #[test]
    fn clock_of_a_silent_box_counts_no_more() {
        let (time, members) = (Time(Instant::now()), Members::default());
        let wrong = Member {
            at: NOW + 9_000,
            ..member("b", 1)
        };
        members.note(wrong, 1, time.after(0));
        assert_eq!(members.skew("a", time.after(16_000).instant), Some(-9_000));
        assert_eq!(members.skew("a", time.after(16_001).instant), None);
    }

    #[test]
    fn wrong_clocks_of_others_are_named() {
        let (time, members) = (Time(Instant::now()), Members::default());
        for (node, milliseconds) in [("b", 10), ("c", -20), ("e", 3_000)] {
            let said = Member {
                at: NOW + milliseconds,
                ..member(node, 1)
            };
            members.note(said, 1, time.after(0));
        }
        assert_eq!(
            members.skewed("a", time.after(0).instant),
            [("e".to_owned(), 3_000 - 10)]
        );
    }

    #[test]
    fn writes_are_refused_from_five_seconds_of_skew() {
        for skew in [None, Some(0), Some(4_999), Some(-4_999)] {
            assert_eq!(clock_refusal(skew), None);
        }
        let refusal = |skew| clock_refusal(Some(skew)).unwrap();
        assert!(refusal(5_000).starts_with("the clock of this box is 5.0 s ahead of those"));
        assert!(refusal(-7_250).starts_with("the clock of this box is 7.0 s behind those"));
    }

    #[test]
    fn entry_is_visible_where_it_has_been_reached() {
        let (time, members) = (Time(Instant::now()), Members::default());
        for (node, sequence) in [("a", 7), ("b", 9), ("c", 8), ("d", 9)] {
            members.note(member(node, sequence), 9, time.after(0));
        }
        // This box knows where it is itself, before it hears it.
        let own = member("a", 9);
        assert_eq!(members.reached(9, &own, time.after(0).instant), (3, 4));
        members.note(member("c", 10), 9, time.after(10_000));
        assert_eq!(members.reached(9, &own, time.after(16_001).instant), (2, 2));
    }
}
