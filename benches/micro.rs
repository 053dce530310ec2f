//! Micro-benchmarks of what a request is made of: the answer from the map, parameters, sessions, records, and of
//! writing clicks to the store.

#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use criterion::{BatchSize, Criterion, Throughput};
use tinyd::internals::{
    AccessLog, Actor, ActorKind, Ahead, Asker, Call, Claims, Clock, Destination, Draft, FastPath, HeadLimits, Kind,
    LinkId, LinkPolicy, LinkRef, Links, LoggedAddress, Now, Partner, PartnerId, Partners, Peer, ReadLimit, Secret,
    ShortLink, Status, StoreError, Target, Timestamp, Tiny, Transaction, UnknownIdLimit, Visit, Visitor, Way, mint,
    mint_v1, verify,
};

/// Links in the map.
const LINKS: u64 = 100_000;
/// Links that one transaction writes.
const BATCH: u64 = 10_000;
/// Links that are added at once.
const TOGETHER: u64 = 64;
const GOTO: &str = "/api_v3/service/shortlink_shortlink/action/goto/id/";

fn main() -> Result<()> {
    // `cargo test --all-targets` runs benchmarks too, without the argument.
    if !std::env::args().any(|arg| arg == "--bench") {
        return Ok(());
    }
    let mut criterion = Criterion::default().configure_from_args();
    let folder = tempfile::tempdir()?;
    let links = Arc::new(filled(folder.path())?);
    redirects(&mut criterion, &links);
    parameters(&mut criterion)?;
    sessions(&mut criterion)?;
    records(&mut criterion, &links)?;
    clicks(&mut criterion, &links)?;
    adds(&mut criterion)?;
    criterion.final_summary();
    Ok(())
}

fn id(number: u64) -> Result<LinkId> {
    // Has no factor in common with the space, so ids differ and neighbours are far apart.
    let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{:0>13x}", spread >> 12)
        .parse()
        .context("an id of hexadecimal digits")
}

fn filled(folder: &std::path::Path) -> Result<Links> {
    let links = Links::open(folder, Clock::system(), 8)?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    for start in (0..LINKS).step_by(usize::try_from(BATCH)?) {
        let some = (start..start + BATCH).map(|number| {
            Ok(ShortLink {
                id: id(number)?,
                created_at: Timestamp::from_unix(1_700_000_000),
                updated_at: Timestamp::from_unix(1_700_000_000),
                starts_at: None,
                expires_at: None,
                partner_id: PartnerId(1),
                user_id: Some("user@example.com".to_owned()),
                name: Some(format!("link number {number}")),
                system_name: "BENCHMARK".to_owned(),
                full_url: format!("https://video.example.com/watch/{number:0>80}"),
                unique_id: None,
                status: Status::Enabled,
            })
        });
        let some: Vec<_> = some.collect::<Result<_>>()?;
        let put =
            move |transaction: &mut Transaction<'_>| some.into_iter().try_for_each(|link| transaction.put(None, link));
        runtime.block_on(links.store().write(put))?;
    }
    links.load()?;
    Ok(links)
}

/// A flush of the clicks of many links, until it is on disk.
fn clicks(criterion: &mut Criterion, links: &Arc<Links>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let recorder = links.recorder();
    let ids: Vec<_> = (0..BATCH).map(id).collect::<Result<_>>()?;
    let clock = Clock::system();
    let mut group = criterion.benchmark_group("clicks");
    group.sample_size(20).throughput(Throughput::Elements(BATCH));
    group.bench_function("flush", |bencher| {
        let record = || {
            ids.iter()
                .for_each(|id| recorder.record(*id, Visit::Click, clock.now()))
        };
        let flush = |()| runtime.block_on(links.flush_clicks()).is_ok();
        bencher.iter_batched(record, flush, BatchSize::PerIteration);
    });
    group.finish();
    Ok(())
}

/// Links that clients add at once, until they are on disk, with the audit log and without it.
fn adds(criterion: &mut Criterion) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let by = Actor {
        partner: Some(PartnerId(1)),
        user: Some("user@example.com".to_owned()),
        kind: ActorKind::Admin,
        way: Way::Api,
    };
    let draft = Draft {
        partner_id: PartnerId(1),
        added_by: Kind::Admin,
        user_id: by.user.clone(),
        name: Some("a link of a benchmark".to_owned()),
        system_name: "BENCHMARK".to_owned(),
        full_url: Destination::parse("https://video.example.com/watch/0123456789?autoplay=1&quality=high")?,
        unique_id: None,
        status: Status::Enabled,
        starts_at: None,
        expires_at: None,
    };
    let mut group = criterion.benchmark_group("add");
    group.throughput(Throughput::Elements(TOGETHER));
    for (name, entries) in [("without the audit log", 0), ("with the audit log", 100_000)] {
        let folder = tempfile::tempdir()?;
        let links = Links::open(folder.path(), Clock::system(), 8)?.auditing(entries);
        links.load()?;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let adds = (0..TOGETHER).map(|_| links.add(draft.clone(), by.clone()));
                let added = runtime.block_on(futures_util::future::join_all(adds));
                assert!(added.iter().all(Result::is_ok), "{added:?}");
            });
        });
    }
    group.finish();
    Ok(())
}

fn redirects(criterion: &mut Criterion, links: &Arc<Links>) {
    let access_log = Arc::new(AccessLog::new(None, LoggedAddress::None));
    let fast_path = FastPath::new(
        Arc::clone(links),
        Tiny::Hop,
        Arc::new(UnknownIdLimit::new(Arc::default(), true, Arc::default())),
        Arc::default(),
        access_log,
    );
    let peer = Peer::new(std::net::Ipv4Addr::LOCALHOST.into(), &Arc::default());
    let head = HeadLimits {
        head_bytes: 16 * 1024,
        target_bytes: 8 * 1024,
        headers: 64,
    };
    let asker = Asker {
        peer: &peer,
        head: &head,
        is_last: false,
    };
    let mut now = Now::default();
    now.refresh(fast_path.clock(), std::time::Instant::now());
    let mut group = criterion.benchmark_group("redirect");
    let requests = |path: &str, first: u64| -> Vec<String> {
        let ids = (first..first + LINKS).filter_map(|number| id(number).ok());
        ids.map(|id| format!("GET {path}{id} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
            .collect()
    };
    for (name, requests) in [
        ("goto", requests(GOTO, 0)),
        ("hop", requests("/tiny/", 0)),
        ("unknown id", requests(GOTO, LINKS)),
    ] {
        let (mut next, mut out) = (requests.iter().cycle(), Vec::with_capacity(4096));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                out.clear();
                let request = next.next().map_or(&[][..], |request| request.as_bytes());
                fast_path.answer(black_box(request), &mut Ahead::default(), &now, &asker, &mut out)
            });
        });
    }
    let ids: Vec<_> = (0..LINKS).filter_map(|number| id(number).ok()).collect();
    let (mut next, time) = (ids.iter().cycle(), fast_path.clock().now());
    group.bench_function("lookup alone", |bencher| {
        bencher.iter(|| {
            let id = next.next().copied();
            id.map(|id| links.index().look_up_with(id, time, <[u8]>::len))
        });
    });
    group.finish();
}

fn parameters(criterion: &mut Criterion) -> Result<()> {
    let mut group = criterion.benchmark_group("parameters");
    for (name, uri) in [
        ("in the path", format!("{GOTO}67mk41xj")),
        (
            "in the query",
            "/api_v3/?service=shortlink_shortlink&action=goto&id=67mk41xj&format=1&clientTag=x%3A1".to_owned(),
        ),
    ] {
        let uri: hyper::Uri = uri.parse()?;
        group.bench_function(name, |bencher| {
            bencher.iter(|| Target::from_uri(black_box(&uri)).map(|target| Call::from_target(target).is_goto()));
        });
    }
    group.finish();
    Ok(())
}

fn sessions(criterion: &mut Criterion) -> Result<()> {
    let partner = Partner {
        admin_secrets: vec![Secret::new("0123456789abcdef0123456789abcdef".to_owned())],
        user_secrets: Vec::new(),
        is_operator: true,
        policy: LinkPolicy::default(),
    };
    let claims = Claims {
        partner: PartnerId(1),
        user: "user@example.com",
        kind: Kind::Admin,
        expiry: Timestamp::from_unix(4_000_000_000),
        privileges: "*",
    };
    let minted = [
        ("v1", mint_v1(&claims, &partner, 7)),
        ("v2", mint(&claims, &partner, [7; 16])),
    ];
    let partners = Partners(HashMap::from([(PartnerId(1), partner)]));
    let mut group = criterion.benchmark_group("verify a session");
    for (name, session) in minted {
        let session = session.context("minting a session")?;
        group.bench_function(name, |bencher| {
            bencher.iter(|| verify(black_box(&session), &partners));
        });
    }
    group.finish();
    Ok(())
}

/// Looks at every record and forgets it.
struct Forgetful;

impl Visitor for Forgetful {
    fn visit(&mut self, id: LinkId, link: std::result::Result<LinkRef<'_>, StoreError>) {
        let _ = black_box((id, link.is_ok()));
    }
}

fn records(criterion: &mut Criterion, links: &Arc<Links>) -> Result<()> {
    let snapshot = links.store().snapshot()?;
    let mut group = criterion.benchmark_group("read all records");
    group.throughput(Throughput::Elements(LINKS)).sample_size(20);
    group.bench_function("one thread", |bencher| {
        bencher.iter_batched(
            || (),
            |()| snapshot.scan(1, &ReadLimit::default(), || Forgetful).is_ok(),
            BatchSize::PerIteration,
        );
    });
    group.finish();
    Ok(())
}
