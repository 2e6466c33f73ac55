//! `concord serve` as a process: what it prints, and how it ends.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use crate::client::Client;

fn serve(directory: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_concord"));
    command
        .arg("serve")
        .args(["--port", "0", "--no-admin"])
        .args(args)
        .current_dir(directory)
        .env_remove("PORT")
        .env_remove("DATA_DIR")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs a server that cannot start; gives what it said.
fn refused(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let told = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(2), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(told.starts_with("concord: "), "{told}");
    assert!(stdout.is_empty());
    told
}

/// A server that is killed if its test fails.
struct Server {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Server {
    fn start(command: &mut Command) -> (Self, String) {
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        let begin = concat!("concord ", env!("CARGO_PKG_VERSION"), " listening on ");
        let url = first.strip_prefix(begin).unwrap_or_else(|| panic!("{first}")).to_owned();
        (Self { child, lines }, url)
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    fn end(mut self) -> (Option<i32>, String) {
        let mut told = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
        (self.child.wait().unwrap().code(), told)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn what_cannot_be_served_is_one_line_and_code_2() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();

    let told = refused(&mut serve(dir, &["--store", "memory", "--host", "0.0.0.0"]));
    assert!(told.contains("--allow-anonymous"), "{told}");
    let told = refused(serve(dir, &["--store", "memory"]).env("CONCORD_PONG_TIMEOUT_MS", "5"));
    assert!(told.contains("CONCORD_PONG_TIMEOUT_MS"), "{told}");
    fs::write(dir.join("concord.toml"), "[serve]\n\nprot = 3030\n").unwrap();
    let told = refused(&mut serve(dir, &["--store", "memory"]));
    assert!(told.contains("concord.toml:3:"), "{told}");
    fs::remove_file(dir.join("concord.toml")).unwrap();
    let told = refused(&mut serve(dir, &["--config", "none.toml"]));
    assert!(told.contains("none.toml"), "{told}");
    let told = refused(&mut serve(dir, &["--store", "memory", "--log", "concord=loud"]));
    assert!(told.contains("--log"), "{told}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_concord"));
    let command = command.args(["serve", "--no-admin", "--store", "memory", "--port", &port]);
    let told = refused(command.current_dir(dir));
    assert!(told.contains(&port) && told.contains("another port"), "{told}");
}

#[tokio::test]
async fn a_signal_ends_it_with_code_0_and_the_directory_is_locked_meanwhile() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path();
    let (mut server, url) = Server::start(&mut serve(dir, &[]));
    let data = server.lines.next().unwrap().unwrap();
    assert_eq!(data, "data in concord-data (sled)");
    let mut client = Client::join(&url, "ann").await;
    client.is_served().await;

    let told = refused(&mut serve(dir, &[]));
    assert!(told.contains("concord-data"), "{told}");

    server.signal("TERM");
    assert_eq!(client.closed().await.0, concord_protocol::CloseCode::Draining.code());
    let (code, told) = server.end();
    assert_eq!(code, Some(0), "{told}");

    let (server, _) = Server::start(&mut serve(dir, &[]));
    server.signal("INT");
    let (code, told) = server.end();
    assert_eq!(code, Some(0), "{told}");
}

#[test]
fn what_is_in_force_is_printed_with_its_source() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("concord.toml"), "[serve]\nshards = 3\n").unwrap();
    let output = serve(directory.path(), &["--print-config"]).env("DATA_DIR", "here").output();
    let printed = String::from_utf8(output.unwrap().stdout).unwrap();
    for (value, source) in [
        ("port = 0", "--port"),
        ("data-dir = \"here\"", "DATA_DIR"),
        ("shards = 3", "concord.toml:2"),
        ("ping-ms = 15000", "default"),
    ] {
        let mut lines = printed.lines().filter_map(|line| line.split_once('#'));
        let found = lines.find(|(there, _)| there.trim() == value);
        assert_eq!(found.map(|(_, from)| from.trim()), Some(source), "{printed}");
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_idle_connection_costs_at_most_20_kb() {
    const CONNECTIONS: u64 = 1_000;
    fn resident_kb(pid: u32) -> u64 {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
    let directory = tempfile::tempdir().unwrap();
    let (server, url) = Server::start(&mut serve(directory.path(), &["--store", "memory"]));
    let mut clients = Vec::new();
    // What the first connections cost is the program's, not theirs.
    for n in 0..20 {
        clients.push(Client::join(&url, &format!("early-{n}")).await);
    }
    let before = resident_kb(server.child.id());
    for n in 0..CONNECTIONS {
        clients.push(Client::join(&url, &format!("peer-{n}")).await);
    }
    let each = (resident_kb(server.child.id()) - before) * 1_024 / CONNECTIONS;
    println!("an idle connection costs {each} bytes");
    assert!(each <= 20_000, "an idle connection costs {each} bytes");
}
