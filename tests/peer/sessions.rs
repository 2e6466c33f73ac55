//! Who is here, and who edits alone: peers over real sockets, with a relay of this process.

#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

use std::{sync::Arc, time::Duration};

use automerge::{ROOT, ReadDoc as _, transaction::Transactable as _};
use concord::{
    entity::Schema,
    peer::{
        ChangeError, Document, DocumentEvent, LeaseError, LeaseOptions, LeaseStanding, Peer,
        Present, Request, Showing, Status,
    },
    relay::{Relay, RelayConfig},
    store::{self, Store},
    worker::{InProcess, WorkerLimits},
};
use concord_protocol::RefuseCode;
use serde_json::json;
use tokio::time::timeout;

use crate::http_common::{Http, SOON};

const SCHEMA: &str = r#"
[types.page]
lease = "required"
[types.page.fields]
title = "string"
"#;

fn peer(name: &str, device: &str) -> Peer {
    let builder = Peer::builder("memory").store(store::memory().unwrap());
    builder.author(name).device(device).open().unwrap()
}

async fn relay(store: Arc<dyn Store>, port: u16) -> (Relay, String) {
    let schema = Some(SCHEMA.to_owned());
    let config = RelayConfig { port, admin: None, schema, ..RelayConfig::default() };
    let worker = Arc::new(InProcess::start(WorkerLimits::default()).unwrap());
    let relay = Relay::start(config, store, worker).await.unwrap();
    let url = format!("ws://{}", relay.addr());
    (relay, url)
}

async fn online(peer: &Peer, url: &str) {
    peer.connect(url).unwrap();
    let mut status = peer.status();
    timeout(SOON, status.wait_for(Status::is_online)).await.unwrap().unwrap();
}

/// A page that two peers have open.
async fn page(url: &str, ann: &Peer, ben: &Peer) -> [Document; 2] {
    online(ann, url).await;
    online(ben, url).await;
    let schema = Schema::parse(SCHEMA).unwrap();
    let hers = ann.entity(&schema.types["page"], "home").await.unwrap();
    title(&hers, "Home").await.unwrap();
    hers.wait_confirmed(SOON).await.unwrap();
    let his = ben.find_within(hers.id().as_str(), SOON).await.unwrap();
    let mut schemas = ben.watch_schema();
    let is_told = schemas.wait_for(|status| status.in_force.is_some());
    timeout(SOON, is_told).await.unwrap().unwrap();
    [hers, his]
}

async fn title(document: &Document, title: &str) -> Result<(), ChangeError> {
    document.change(|tx| Ok(tx.put(ROOT, "title", title)?)).await.map(|_| ())
}

fn title_of(document: &Document) -> String {
    let read =
        document.read(|doc| doc.get(ROOT, "title").unwrap().unwrap().0.as_str().map(str::to_owned));
    read.unwrap().unwrap_or_default()
}

async fn until_titled(document: &Document, wanted: &str) {
    let mut watcher = document.watch();
    let waiting = async {
        while title_of(document) != wanted {
            watcher.next().await;
        }
    };
    timeout(SOON, waiting).await.unwrap();
}

async fn stands(lease: &concord::peer::Lease, so: impl Fn(&LeaseStanding) -> bool) {
    let mut standing = lease.standing();
    timeout(SOON, standing.wait_for(|standing| so(standing))).await.unwrap().unwrap();
}

/// Waits until somebody else is known to hold it, or nobody.
async fn known(document: &Document, is_held: bool) {
    let mut other = document.leased_to();
    let known = other.wait_for(|other| other.is_some() == is_held);
    timeout(SOON, known).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sessions_of_one_user_take_over_from_one_another() {
    let (_relay, url) = relay(store::memory().unwrap(), 0).await;
    let (desk, phone) = (peer("ann", "desk"), peer("ann", "phone"));
    let [at_desk, at_phone] = page(&url, &desk, &phone).await;

    let first = at_desk.lease().await.unwrap();
    known(&at_phone, true).await;
    let Err(LeaseError::Held(holder)) = at_phone.lease().await else { panic!("two hold it") };
    assert_eq!((holder.user.as_deref(), holder.device.as_deref()), (Some("ann"), Some("desk")));
    assert_eq!((holder.session, holder.fence), (desk.session().id, first.fence()));
    // Where the schema requires it, who does not hold it is told at once, and nothing is changed.
    let refused = title(&at_phone, "Phone").await.unwrap_err();
    assert!(matches!(&refused, ChangeError::Leased(by) if by.device.as_deref() == Some("desk")));
    assert_eq!(
        refused.to_string(),
        "ann on desk edits the document alone: wait until the lease is given back, or take it over"
    );

    let mut fence = first.fence();
    let mut lease = first;
    for round in 0..4 {
        let (from, to) = if round % 2 == 0 { (&at_desk, &at_phone) } else { (&at_phone, &at_desk) };
        // What is written just before is the holder's still, and is taken.
        let (last, next) = (format!("last {round}"), format!("next {round}"));
        title(from, &last).await.unwrap();
        let taken = to.lease_with(LeaseOptions::default().take_over()).await.unwrap();
        assert!(taken.fence() > fence, "fences go up");
        stands(&lease, |standing| matches!(standing, LeaseStanding::Lost(_))).await;
        assert!(!lease.is_held() && taken.is_held());
        assert!(matches!(title(from, "not any more").await, Err(ChangeError::Leased(_))));
        until_titled(to, &last).await;
        title(to, &next).await.unwrap();
        until_titled(from, &next).await;
        (fence, lease) = (taken.fence(), taken);
    }
    // Given back, anybody may write.
    lease.release().await.unwrap();
    known(&at_phone, false).await;
    title(&at_phone, "free").await.unwrap();
    until_titled(&at_desk, "free").await;
    for peer in [&desk, &phone] {
        peer.flush(SOON).await.unwrap();
        assert!(peer.dead_letters().await.unwrap().is_empty(), "nothing was lost on the way");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_offline_while_somebody_edits_alone_is_a_dead_letter() {
    let (_relay, url) = relay(store::memory().unwrap(), 0).await;
    let (ann, ben) = (peer("ann", "desk"), peer("ben", "desk"));
    let [hers, _] = page(&url, &ann, &ben).await;

    // Carl writes without a relay: at once, and nobody is asked.
    let apart = peer("carl", "train");
    let schema = Schema::parse(SCHEMA).unwrap();
    let offline = apart.entity(&schema.types["page"], "home").await.unwrap();
    assert_eq!(offline.id(), hers.id());
    title(&offline, "Carl's").await.unwrap();
    let lease = hers.lease().await.unwrap();
    let mut events = offline.watch();
    online(&apart, &url).await;
    let refused = async {
        loop {
            if let DocumentEvent::Refused { code, reason, .. } = events.next().await {
                return (code, reason);
            }
        }
    };
    let (code, reason) = timeout(SOON, refused).await.unwrap();
    assert_eq!(code, RefuseCode::Leased);
    assert!(reason.starts_with("ann on desk holds the lease"), "{reason}");
    let letters = apart.dead_letters().await.unwrap();
    assert_eq!(letters.iter().map(|letter| letter.code).collect::<Vec<_>>(), [RefuseCode::Leased]);

    // The holder goes on, and what was refused can be sent again when it is over.
    title(&hers, "Ann's").await.unwrap();
    hers.wait_confirmed(SOON).await.unwrap();
    lease.release().await.unwrap();
    known(&offline, false).await;
    apart.retry(offline.id()).unwrap();
    apart.flush(SOON).await.unwrap();
    assert!(apart.dead_letters().await.unwrap().is_empty());
    let all = async {
        let mut watcher = hers.watch();
        while hers.heads().unwrap() != offline.heads().unwrap() {
            tokio::select! { _ = watcher.next() => {}, _ = events.next() => {} }
        }
    };
    timeout(SOON, all).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_starts_again_gives_it_to_who_held_it_and_to_nobody_else() {
    let disk = tempfile::tempdir().unwrap();
    let open =
        || store::open(disk.path(), store::Engine::Fjall, &store::Options::default()).unwrap();
    let (first, url) = relay(open(), 0).await;
    let port = first.addr().port();
    let (ann, ben) = (peer("ann", "desk"), peer("ben", "desk"));
    let [hers, his] = page(&url, &ann, &ben).await;
    let options = LeaseOptions::default().length(Duration::from_mins(10));
    let lease = hers.lease_with(options).await.unwrap();
    let before = lease.fence();
    first.shutdown().await.unwrap();
    let mut offline = ben.status();
    timeout(SOON, offline.wait_for(|status| !status.is_online())).await.unwrap().unwrap();
    assert!(lease.is_held(), "nobody waits for the network");

    let (_second, url) = relay(open(), port).await;
    online(&ben, &url).await;
    // Whether she is back already or not: it is not his.
    let refused = his.lease().await.unwrap_err();
    assert!(matches!(refused, LeaseError::Settling | LeaseError::Held(_)), "{refused}");
    online(&ann, &url).await;
    let is_hers = async {
        loop {
            match his.lease_holder().await {
                Ok(Some(holder)) => return holder,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let holder = timeout(SOON, is_hers).await.unwrap();
    assert_eq!(holder.session, ann.session().id);
    assert!(holder.fence > before, "a fence is above all of earlier runs");
    assert!(lease.is_held());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_is_gone_without_a_word_is_waited_for_and_then_not() {
    let (_relay, url) = relay(store::memory().unwrap(), 0).await;
    let (ann, ben) = (peer("ann", "desk"), peer("ben", "desk"));
    let [hers, his] = page(&url, &ann, &ben).await;
    let lease = hers.lease().await.unwrap();
    known(&his, true).await;
    lease.leave();
    ann.close().await.unwrap();
    assert!(matches!(his.lease().await, Err(LeaseError::Held(_))), "she may be back");
    // Told as soon as the relay no longer waits for her, and not after the 30 s of the lease.
    known(&his, false).await;
    let lease = his.lease().await.unwrap();
    assert!(lease.is_held());
}

/// Waits until this is so of who else is here.
async fn here(document: &Document, so: impl FnMut(&Vec<Present>) -> bool) -> Vec<Present> {
    let mut present = document.presence();
    let found = timeout(SOON, present.wait_for(so)).await;
    found.unwrap_or_else(|_| panic!("{:?}", document.presence().borrow())).unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn those_in_a_document_see_where_the_others_are() {
    let (relay, url) = relay(store::memory().unwrap(), 0).await;
    let (ann, ben) = (peer("ann", "desk"), peer("ben", "phone"));
    let [hers, his] = page(&url, &ann, &ben).await;
    hers.set_presence(&Showing::field("title").at(json!({"from": 1, "to": 3}))).unwrap();
    let seen = here(&his, |present| present.len() == 1).await;
    assert_eq!((seen[0].user.as_deref(), seen[0].device.as_deref()), (Some("ann"), Some("desk")));
    assert_eq!(seen[0].session.as_deref(), Some(ann.session().id.as_str()));
    assert_eq!(seen[0].field.as_deref(), Some("title"));
    assert_eq!(seen[0].cursor, Some(json!({"from": 1, "to": 3})));
    assert!(here(&hers, |_| true).await.is_empty(), "who looks is not shown for that");

    // Moves, and a newcomer, who sees both without their doing anything.
    his.set_presence(&Showing::field("notes")).unwrap();
    here(&hers, |present| present.iter().any(|p| p.field.as_deref() == Some("notes"))).await;
    hers.set_presence(&Showing::field("notes")).unwrap();
    here(&his, |present| present.iter().all(|p| p.field.as_deref() == Some("notes"))).await;
    let carl = peer("carl", "train");
    online(&carl, &url).await;
    let at_carls = carl.find_within(hers.id().as_str(), SOON).await.unwrap();
    let seen = here(&at_carls, |present| present.len() == 2).await;
    let mut users: Vec<&str> = seen.iter().filter_map(|p| p.user.as_deref()).collect();
    users.sort_unstable();
    assert_eq!(users, ["ann", "ben"]);

    // The relay says who is connected, over HTTP and over the socket.
    let (status, body) = Http(relay.addr()).get("/v1/sessions").await;
    assert_eq!(status, 200, "{body}");
    let of = |user: &str| {
        let sessions = body["sessions"].as_array().unwrap();
        sessions.iter().find(|session| session["user"] == user).unwrap().clone()
    };
    assert_eq!((&of("ann")["device"], &of("ann")["present"]), (&json!("desk"), &json!(1)));
    assert_eq!((&of("ben")["documents"], &of("ben")["concord"]), (&json!(1), &json!(true)));
    assert_eq!(of("carl")["session"], json!(carl.session().id.as_str()));
    let answer = carl.call(Request::get("/v1/sessions?limit=2")).await.unwrap();
    let page = answer.json().unwrap();
    assert_eq!(page["sessions"].as_array().unwrap().len(), 2);
    let next = format!("/v1/sessions?after={}", page["next"].as_str().unwrap());
    let rest = carl.call(Request::get(next)).await.unwrap().json().unwrap();
    assert_eq!((rest["sessions"].as_array().unwrap().len(), &rest["next"]), (1, &json!(null)));

    // Goodbyes: by word, by closing, and by letting go.
    his.clear_presence();
    here(&at_carls, |present| present.len() == 1).await;
    ann.close().await.unwrap();
    here(&at_carls, Vec::is_empty).await;
    his.set_presence(&Showing::here()).unwrap();
    here(&at_carls, |present| present.len() == 1).await;
    drop(his);
    here(&at_carls, Vec::is_empty).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_shown_is_bounded() {
    let peer = peer("ann", "desk");
    let document = peer.create().await.unwrap();
    let much = Showing::here().at("x".repeat(10_000));
    let error = document.set_presence(&much).unwrap_err();
    assert!(error.bytes > 10_000, "{error}");
    document.set_presence(&Showing::here()).unwrap();
    assert!(matches!(document.lease().await, Err(LeaseError::Offline)));
}
