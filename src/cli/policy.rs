//! `concord policy simulate`: what the policies of a schema would have done with what is stored here.

use std::{cell::Cell, collections::BTreeMap, path::PathBuf};

use clap::{Args, Subcommand};
use concord::{
    entity::Schema,
    peer::Peer,
    review::simulate::{self, Verdict},
};
use serde_json::json;

use super::{
    Failure,
    open::{self, Common},
    output, schema, waiting,
};

#[derive(Debug, Args)]
pub(super) struct PolicyArgs {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// Try every policy that a field may have on the conflicts about it that people decided, and on
    /// those that are open. Nothing is changed.
    Simulate {
        /// The schema file that says which documents are of which type
        #[arg(long, env = "CONCORD_SCHEMA", value_name = "FILE")]
        schema: PathBuf,
        /// Only of this type, or of this field of one, as in task.status
        #[arg(long, value_name = "TYPE[.FIELD]")]
        field: Option<String>,
        /// Only what was decided since: a time as in 2026-11-21, or how long ago, as in 30d
        #[arg(long, value_name = "WHEN")]
        since: Option<String>,
    },
}

/// What a policy would have done with the conflicts about one field.
#[derive(Debug, Default)]
struct Tally {
    is_declared: bool,
    verdicts: BTreeMap<Verdict, usize>,
}

impl Tally {
    fn count(&self, verdict: Verdict) -> usize {
        self.verdicts.get(&verdict).copied().unwrap_or_default()
    }

    fn decided(&self) -> usize {
        [Verdict::Same, Verdict::Other, Verdict::Undecided].map(|of| self.count(of)).iter().sum()
    }

    fn open(&self) -> usize {
        self.count(Verdict::Closes) + self.count(Verdict::StaysOpen)
    }
}

/// By type and field, then by policy.
type Tallies = BTreeMap<(String, String), Tally>;

pub(super) async fn run(args: PolicyArgs) -> Result<(), Failure> {
    let PolicyArgs { common, command } = args;
    let PolicyCommand::Simulate { schema, field, since } = command;
    let schema = schema::read(&schema)?;
    let since_s = since.as_deref().map(moment).transpose()?.unwrap_or(i64::MIN);
    if let Some(field) = &field {
        known(&schema, field)?;
    }
    let peer = open::peer(&common).await?;
    let tallied = tally(&peer, &common, &schema, field.as_deref(), since_s).await;
    peer.close().await?;
    let (tallies, failed) = tallied?;
    show(&common, &tallies)?;
    failed.map_or(Ok(()), Err)
}

async fn tally(
    peer: &Peer,
    common: &Common,
    schema: &Schema,
    only: Option<&str>,
    since_s: i64,
) -> Result<(Tallies, Option<Failure>), Failure> {
    let (mut tallies, mut failed) = (Tallies::new(), None);
    let documents = peer.documents().await?;
    let (done, total) = (Cell::new(0), documents.len());
    let trying = async {
        for id in documents {
            let trials = async {
                let document = peer.find_within(id.as_str(), common.within()).await?;
                let tried =
                    document.read(|doc| simulate::simulate(doc, document.id(), schema, since_s))?;
                tried.map_err(|error| Failure::failed(format!("document {id}: {error}")))
            };
            match trials.await {
                Ok(trials) => {
                    for trial in trials {
                        let field = format!("{}.{}", trial.type_name, trial.field);
                        if only.is_some_and(|only| only != field && only != trial.type_name) {
                            continue;
                        }
                        let tally: &mut Tally =
                            tallies.entry((field, trial.policy.to_string())).or_default();
                        tally.is_declared |= trial.is_declared;
                        *tally.verdicts.entry(trial.verdict).or_default() += 1;
                    }
                }
                // One that cannot be opened does not hide the others.
                Err(failure) => failed = Some(failure),
            }
            done.set(done.get() + 1);
        }
    };
    let words = || format!("tried on {} of {total} documents", done.get());
    waiting::with(common, words, trying).await;
    Ok((tallies, failed))
}

fn show(common: &Common, tallies: &Tallies) -> Result<(), Failure> {
    if common.json {
        let shown = tallies.iter().map(|((field, policy), tally)| {
            json!({
                "field": field,
                "policy": policy,
                "in_force": tally.is_declared,
                "decided": tally.decided(),
                "as_people": tally.count(Verdict::Same),
                "otherwise": tally.count(Verdict::Other),
                "undecided": tally.count(Verdict::Undecided),
                "open": tally.open(),
                "closes": tally.count(Verdict::Closes),
            })
        });
        return output::json(&json!(shown.collect::<Vec<_>>()));
    }
    if tallies.is_empty() {
        return output::line(
            "people decided no conflict that a policy could have decided, and none is open",
        );
    }
    let of = |count: usize, all: usize| match all {
        0 => "-".to_owned(),
        all => format!("{count} of {all}"),
    };
    let rows = tallies.iter().map(|((field, policy), tally)| {
        let in_force = if tally.is_declared { " (in force)" } else { "" };
        vec![
            field.clone(),
            format!("{policy}{in_force}"),
            of(tally.count(Verdict::Same), tally.decided()),
            of(tally.count(Verdict::Other), tally.decided()),
            of(tally.count(Verdict::Undecided), tally.decided()),
            of(tally.count(Verdict::Closes), tally.open()),
        ]
    });
    let headings = ["FIELD", "POLICY", "AS PEOPLE DID", "OTHERWISE", "NOT AT ALL", "OPEN, DECIDED"];
    output::table(&headings, &rows.collect::<Vec<_>>())
}

/// A time, or how long ago, in seconds since 1970.
fn moment(text: &str) -> Result<i64, Failure> {
    let ago = || {
        let span: jiff::Span = text.parse().ok()?;
        Some(jiff::Zoned::now().checked_sub(span).ok()?.timestamp().as_second())
    };
    output::time(text).or_else(ago).ok_or_else(|| {
        Failure::usage(format!(
            "{text:?} is no time: write one as in 2026-11-21 or '2026-11-21 18:30', or how long ago, \
             as in 30d or 6h"
        ))
    })
}

fn known(schema: &Schema, field: &str) -> Result<(), Failure> {
    let (type_name, name) = field.split_once('.').unwrap_or((field, ""));
    let Some(of) = schema.types.get(type_name) else {
        let types: Vec<&str> = schema.types.keys().map(String::as_str).collect();
        let types = types.join(", ");
        return Err(Failure::usage(format!(
            "the schema has no type {type_name:?}: it has {types}"
        )));
    };
    let first = name.split('.').next().unwrap_or_default();
    if !first.is_empty() && !of.fields.contains_key(first) {
        let fields: Vec<&str> = of.fields.keys().map(String::as_str).collect();
        let fields = fields.join(", ");
        return Err(Failure::usage(format!(
            "type {type_name} has no field {first:?}: it has {fields}"
        )));
    }
    Ok(())
}
