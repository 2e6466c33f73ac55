//! `concord lease`: to edit a document alone, for as long as a relay says so.

use std::{process::Stdio, time::Duration};

use clap::{Args, Subcommand};
use concord::peer::{
    Document, Lease, LeaseError, LeaseHolder, LeaseOptions, LeaseStanding, Peer, Status,
};
use concord_protocol::SessionId;
use serde_json::{Value as Json, json};
use tokio::{process::Command as Process, time::timeout};

use super::{
    Failure,
    open::{self, Common},
    output, waiting,
};

/// What holds longer than relays wait for who is gone.
const UNANSWERED: &str = "no relay has answered for 15 s: somebody else may hold the lease";

#[derive(Debug, Args)]
pub(super) struct LeaseArgs {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(subcommand)]
    command: LeaseCommand,
}

#[derive(Debug, Subcommand)]
enum LeaseCommand {
    /// Hold the lease of a document until Ctrl-C, or until somebody takes it over
    Acquire(HoldArgs),
    /// Take the lease from whoever holds it, and hold it
    TakeOver(HoldArgs),
    /// Go on with the lease of a session that an earlier command began (--session)
    Renew(HoldArgs),
    /// Give the lease of a session back that an earlier command began (--session)
    Release {
        /// The document's id or automerge: URL, or TYPE/KEY of an entity
        doc: String,
        /// The session that holds it
        #[arg(long, value_name = "NAME")]
        session: SessionId,
    },
    /// Say who holds the lease of a document
    Show {
        /// The document's id or automerge: URL, or TYPE/KEY of an entity
        doc: String,
    },
    /// Run a command while holding the lease; it is ended if somebody takes over, or may: after 15 s
    /// without a relay
    Hold {
        /// The document's id or automerge: URL, or TYPE/KEY of an entity
        doc: String,
        /// Take the lease from whoever holds it
        #[arg(long)]
        take_over: bool,
        /// What to run, and its arguments
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

#[derive(Debug, Args)]
struct HoldArgs {
    /// The document's id or automerge: URL, or TYPE/KEY of an entity
    doc: String,
    /// Seconds that the relay grants at a time, 10 to 600
    #[arg(long = "for", value_name = "SECONDS", default_value_t = 30)]
    length: u64,
    /// End at once, and leave the lease to this session, which later commands name again. Without a
    /// connection a relay keeps it for 15 s
    #[arg(long, value_name = "NAME")]
    session: Option<SessionId>,
}

pub(super) async fn run(args: LeaseArgs) -> Result<(), Failure> {
    let LeaseArgs { common, command } = args;
    if !common.has_relay() {
        return Err(Failure::usage(
            "leases are given by a relay: give --url ws://host:port or CONCORD_URL",
        ));
    }
    let session = match &command {
        LeaseCommand::Acquire(hold) | LeaseCommand::TakeOver(hold) => hold.session.clone(),
        LeaseCommand::Renew(hold) => {
            if hold.session.is_none() {
                return Err(Failure::usage("say whose lease: --session NAME, as it was acquired"));
            }
            hold.session.clone()
        }
        LeaseCommand::Release { session, .. } => Some(session.clone()),
        LeaseCommand::Show { .. } | LeaseCommand::Hold { .. } => None,
    };
    let peer = open::peer_of(&common, session).await?;
    let done = act(&peer, &common, command).await;
    peer.close().await?;
    done
}

async fn act(peer: &Peer, common: &Common, command: LeaseCommand) -> Result<(), Failure> {
    match command {
        LeaseCommand::Acquire(hold) | LeaseCommand::Renew(hold) => {
            let document = find(peer, common, &hold.doc).await?;
            keep(common, &document, &hold, options(&hold)).await
        }
        LeaseCommand::TakeOver(hold) => {
            let document = find(peer, common, &hold.doc).await?;
            keep(common, &document, &hold, options(&hold).take_over()).await
        }
        LeaseCommand::Release { doc, .. } => {
            let document = find(peer, common, &doc).await?;
            let holder = document.release_lease().await?;
            say(common, &document, holder.as_ref())
        }
        LeaseCommand::Show { doc } => {
            let document = find(peer, common, &doc).await?;
            let holder = document.lease_holder().await?;
            say(common, &document, holder.as_ref())
        }
        LeaseCommand::Hold { doc, take_over, command } => {
            let document = find(peer, common, &doc).await?;
            let options = LeaseOptions::default();
            let options = if take_over { options.take_over() } else { options };
            let lease = document.lease_with(options).await?;
            run_under(lease, &command).await
        }
    }
}

/// The document, and a relay that can be asked.
async fn find(peer: &Peer, common: &Common, doc: &str) -> Result<Document, Failure> {
    let document = waiting::find(peer, common, doc).await?;
    let mut status = peer.status();
    let online = timeout(common.within(), status.wait_for(Status::is_online));
    if waiting::for_relay(peer, common, online).await.is_err() {
        return Err(LeaseError::Offline.into());
    }
    Ok(document)
}

fn options(hold: &HoldArgs) -> LeaseOptions {
    LeaseOptions::default().length(Duration::from_secs(hold.length))
}

async fn keep(
    common: &Common,
    document: &Document,
    hold: &HoldArgs,
    options: LeaseOptions,
) -> Result<(), Failure> {
    let lease = document.lease_with(options).await?;
    let session = document_session(document);
    if hold.session.is_some() {
        if common.json {
            output::json(&stands(document, &lease))?;
        } else {
            output::line(format_args!(
                "{session} holds the lease, number {}; without a connection for 15 s: renew or hold it",
                lease.fence()
            ))?;
        }
        lease.leave();
        return Ok(());
    }
    tokio::select! {
        ended = tell(common, document, &lease) => return ended,
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    lease.release().await?;
    Ok(())
}

/// Says how a lease stands, now and whenever it is different, until it is over.
async fn tell(common: &Common, document: &Document, lease: &Lease) -> Result<(), Failure> {
    let mut standing = lease.standing();
    let mut is_again = "";
    loop {
        let stands_so = standing.borrow_and_update().clone();
        let number = lease.fence();
        match &stands_so {
            LeaseStanding::Held | LeaseStanding::Lapsed if common.json => {
                output::json(&stands(document, lease))?;
            }
            LeaseStanding::Held => output::line(format_args!(
                "holding the lease{is_again}, number {number} (Ctrl-C gives it back)"
            ))?,
            LeaseStanding::Lapsed => {
                output::line(format_args!("{UNANSWERED}; one is asked as soon as it is there"))?;
            }
            over => return Err(ended(over)),
        }
        is_again = " again";
        standing.changed().await.map_err(|_| LeaseError::Closed)?;
    }
}

fn stands(document: &Document, lease: &Lease) -> Json {
    json!({
        "document": document.id().as_str(),
        "held": lease.is_held(),
        "fence": lease.fence(),
        "session": document_session(document),
    })
}

fn document_session(document: &Document) -> String {
    document.session().id.as_str().to_owned()
}

async fn run_under(lease: Lease, command: &[String]) -> Result<(), Failure> {
    let Some((program, args)) = command.split_first() else {
        return Err(Failure::usage("say what to run: concord lease hold DOC -- COMMAND"));
    };
    let mut child = Process::new(program)
        .args(args)
        .stdin(Stdio::inherit())
        .env("CONCORD_LEASE", lease.fence().to_string())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| Failure::usage(format!("cannot run {program}: {error}")))?;
    let status = tokio::select! {
        status = child.wait() => status?,
        standing = lease.ended() => {
            child.kill().await?;
            return Err(ended(&standing).and(&format!("{program} was ended")));
        }
    };
    lease.release().await?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::failed(format!("{program} ended with {status}")))
}

fn ended(standing: &LeaseStanding) -> Failure {
    match standing {
        LeaseStanding::Lost(by) => Failure::failed(format!("{by} has taken the lease over")),
        _ => Failure::failed(UNANSWERED),
    }
}

fn say(common: &Common, document: &Document, holder: Option<&LeaseHolder>) -> Result<(), Failure> {
    if common.json {
        let holder = holder.map(holder_json);
        return output::json(&json!({ "document": document.id().as_str(), "holder": holder }));
    }
    match holder {
        None => output::line("nobody holds the lease"),
        Some(holder) => output::line(format_args!(
            "{} holds the lease, number {}, for {} s more unless it is renewed",
            output::short(&holder.to_string(), 80),
            holder.fence,
            holder.left.as_secs()
        )),
    }
}

fn holder_json(holder: &LeaseHolder) -> Json {
    json!({
        "user": holder.user,
        "device": holder.device,
        "session": holder.session.as_str(),
        "fence": holder.fence,
        "left_ms": u64::try_from(holder.left.as_millis()).unwrap_or(u64::MAX),
    })
}
