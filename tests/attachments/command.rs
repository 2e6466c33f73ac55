//! `concord attach`, also when it is killed.

use std::{fs, process::Stdio};

use crate::{
    cli,
    proxy::Proxy,
    support,
    world::{MIB, SOON, bytes_of, home, noise, until},
};

const SCHEMA: &str = r#"
[types.task.fields]
title = "string"
photo = "attachment"
files = { kind = "list", items = "attachment" }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn files_are_attached_named_listed_got_and_removed() {
    let (_relay, url) = cli::relay_under(Some(SCHEMA)).await;
    let (hers, his) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let files = tempfile::tempdir().unwrap();
    let at = |name: &str| files.path().join(name).display().to_string();
    let schema = at("schema.toml");
    fs::write(&schema, SCHEMA).unwrap();
    let (photo, more) = (at("a photo.png"), at("more.txt"));
    fs::write(&photo, noise(100_000, 13)).unwrap();
    fs::write(&more, "more").unwrap();

    let to = ["--to", "task/42.photo", "--schema", &schema];
    let hers = hers.path();
    let attached = cli::json_of(hers, &[&["attach", &photo, "--json"][..], &to].concat());
    let hash = attached["attached"][0]["hash"].as_str().unwrap().to_owned();
    assert_eq!(hash, blake3::hash(&noise(100_000, 13)).to_string());
    let named = attached["attached"][0]["attachment"].as_str().unwrap();
    assert!(named.ends_with("&type=image%2Fpng&name=a%20photo.png"), "{named}");
    let listed = cli::json_of(hers, &["attach", "ls", "--json"]);
    assert_eq!((&listed[0]["whole"], &listed[0]["confirmed"]), (&true.into(), &false.into()));
    let to = ["--to", "task/42.files", "--schema", &schema, "--url", &url];
    for _ in 0..2 {
        let attached = cli::json_of(hers, &[&["attach", &more, "--json"][..], &to].concat());
        assert_eq!(attached["confirmed"], true, "also what was attached before");
    }
    assert!(cli::ok(hers, &["attach", "ls"]).contains(&hash[..16]));
    let status = cli::json_of(hers, &["status", "--json"]);
    assert_eq!(status["attachments"]["waiting"], 0);

    let got = at("got.png");
    let his = his.path();
    cli::ok(
        his,
        &["attach", "get", "task/42.photo", "-o", &got, "--schema", &schema, "--url", &url],
    );
    assert!(fs::read(&got).unwrap() == noise(100_000, 13));
    let (code, words) = cli::fails(his, &["attach", "get", &hash, "-o", &got]);
    assert!(code == 2 && words.contains("--force"), "{words}");
    let printed = cli::run(his, &["attach", "get", &hash[..8], "-o", "-"]);
    assert!(printed.stdout == noise(100_000, 13));
    let several = ["attach", "get", "task/42.files", "--schema", &schema, "--url", &url];
    let (code, words) = cli::fails(his, &several);
    assert!(code == 2 && words.contains("names 2 attachments"), "{words}");

    let swept = cli::json_of(hers, &["attach", "gc", "--grace", "0", "--dry-run", "--json"]);
    assert_eq!(swept["removed"].as_array().unwrap().len(), 0, "all are named: {swept}");
    let (_, words) = cli::fails(hers, &["attach", &at("none")]);
    assert!(words.contains("cannot read"), "{words}");
    let (code, words) =
        cli::fails(hers, &["attach", &more, "--to", "task/42.title", "--schema", &schema]);
    assert!(code == 2 && words.contains("kind `attachment`"), "{words}");
    cli::ok(hers, &["attach", "rm", &hash[..10]]);
    assert!(!cli::ok(hers, &["attach", "ls"]).contains(&hash[..16]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_killed_goes_on_where_it_was() {
    let (data, hers) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let relay = support::Relay::start(&[], data.path());
    let addr = relay.url().trim_start_matches("ws://").parse().unwrap();
    let proxy = Proxy::to(addr).await;
    let length = 20 * MIB;
    let bytes = noise(length, 14);
    let file = hers.path().join("large");
    fs::write(&file, &bytes).unwrap();
    let (replica, url) = (hers.path().join("replica"), proxy.url());
    let args = ["attach", file.to_str().unwrap(), "--url", &url, "--deadline", "60"];
    let mut command = cli::concord(&replica);
    let mut child = command.args(args).stdout(Stdio::null()).spawn().unwrap();
    until("half of it", || async { proxy.up.bytes() > 8 * MIB as u64 }).await;
    child.kill().unwrap();
    child.wait().unwrap();
    let printed = tokio::task::spawn_blocking({
        let args = args.map(str::to_owned);
        move || cli::ok(&replica, &args.each_ref().map(String::as_str))
    });
    let printed = printed.await.unwrap();
    assert!(printed.contains(&blake3::hash(&bytes).to_string()), "{printed}");
    let up = proxy.up.bytes();
    assert!(up < (length + 3 * MIB) as u64, "{up} bytes went up");
    let bob = home(&relay.url());
    let hash = blake3::hash(&bytes).to_string().parse().unwrap();
    let attachment = concord::entity::Attachment::new(hash, length as u64);
    assert!(bytes_of(&bob.peer, &attachment).await.unwrap() == bytes);
    bob.peer.flush(SOON).await.unwrap();
}
