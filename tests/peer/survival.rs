//! Offline survival: edit, stop, start, edit, come back, and have the same as everybody else.

#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

use std::{collections::BTreeMap, path::Path};

use crate::cli_common::{json_of, ok};
use crate::support::Relay;
use serde_json::{Value as Json, json};

/// What a person has of a document, read in a process of its own without a network.
fn shown(home: &Path, document: &str) -> Json {
    json_of(home, &["doc", "get", document, "--json"])
}

/// Two people, each with a replica of their own and a process for each thing that they do, edit one
/// document while there is no relay; one of them makes another document. When there is one again,
/// both have everything, and nothing is on its way any more.
#[test]
fn two_who_edit_alone_over_restarts_have_the_same_when_they_come_back() {
    let homes = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let [ann, ben, relay_home] = homes.each_ref().map(tempfile::TempDir::path);
    let mut relay = Relay::start(&[], relay_home);
    let url = relay.url();
    let sync = |home: &Path| ok(home, &["sync", "--url", &url, "--deadline", "60"]);
    let document = ok(ann, &["doc", "create", r#"{"title":"Trip"}"#]);
    sync(ann);
    assert_eq!(json_of(ben, &["doc", "get", &document, "--json", "--url", &url])["title"], "Trip");
    relay.terminate();

    // Each command is a start and a stop.
    let mut made = BTreeMap::from([("title".to_owned(), json!("Trip"))]);
    for n in 0..5 {
        for (who, home) in [("ann", ann), ("ben", ben)] {
            let key = format!("{who} {n}");
            ok(home, &["edit", &document, &key, &n.to_string()]);
            made.insert(key.clone(), json!(n));
            assert_eq!(shown(home, &document)[&key], n, "after a restart");
        }
    }
    let other = ok(ben, &["doc", "create", r#"{"title":"Packing"}"#]);
    let pending = |home: &Path| json_of(home, &["outbox", "--json"]).as_array().unwrap().clone();
    assert_eq!((pending(ann).len(), pending(ben).len()), (1, 2));
    assert!(pending(ben).iter().all(|entry| entry["state"] == "pending"));
    assert_ne!(shown(ann, &document), shown(ben, &document), "they have not met yet");

    relay.restart();
    for home in [ann, ben, ann] {
        sync(home);
    }
    let all: Json = made.into_iter().collect::<serde_json::Map<_, _>>().into();
    assert_eq!(shown(ann, &document), all);
    assert_eq!(shown(ben, &document), all);
    let packing = json_of(ann, &["doc", "get", &other, "--json", "--url", &url]);
    assert_eq!(packing, json!({ "title": "Packing" }));
    for home in [ann, ben] {
        assert_eq!(pending(home), Vec::<Json>::new());
        assert_eq!(ok(home, &["dead-letters", "ls"]), "nothing was refused");
    }
}
