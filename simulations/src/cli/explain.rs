//! `explain`: a world as a picture, in one HTML file that needs nothing else.

mod data;

use std::{
    fs,
    io::{self, Write as _},
    path::PathBuf,
};

use clap::Args;

use self::data::Picture;
use super::{Error, Outcome, source::Source, text::count};

const PAGE: &str = include_str!("explain/page.html");
const STYLE: &str = include_str!("explain/page.css");
/// In the order in which they use each other.
const SCRIPTS: [&str; 4] = [
    include_str!("explain/time.js"),
    include_str!("explain/world.js"),
    include_str!("explain/draw.js"),
    include_str!("explain/page.js"),
];

/// Entries of a picture at most; a browser has to hold them.
const ENTRIES_MAX: usize = 100_000;

/// Which world, what of it, and where to.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    #[command(flatten)]
    source: Source,
    /// Where the picture goes
    #[arg(short, long, value_name = "FILE", default_value = "world.html")]
    output: PathBuf,
    /// From this millisecond of the world on
    #[arg(long, value_name = "MS")]
    from: Option<u64>,
    /// Up to this millisecond of the world
    #[arg(long, value_name = "MS")]
    to: Option<u64>,
}

pub(crate) fn run(args: &ExplainArgs) -> Result<Outcome, Error> {
    let plan = args.source.plan()?;
    let report = args.source.run(&plan, true);
    let range = args.from.unwrap_or(0)..=args.to.unwrap_or(u64::MAX);
    let picture = Picture::new(&plan, &report, &range, ENTRIES_MAX);
    let json = serde_json::to_string(&picture).map_err(io::Error::from)?;
    // Inside a script element only `<` could end it.
    let json = json.replace('<', "\\u003c");
    // The data comes last: a text in it that looks like a place to fill stays as it is.
    let page = PAGE
        .replace("/*style*/", STYLE)
        .replace("/*scripts*/", &SCRIPTS.concat())
        .replace("/*world*/", &json);
    fs::write(&args.output, page)
        .map_err(|error| Error::Usage(format!("{}: {error}", args.output.display())))?;
    let mut out = io::stdout().lock();
    writeln!(out, "{}", picture.title)?;
    if let Some(failure) = &report.failure {
        let rule = failure.invariant.as_str();
        writeln!(out, "FAILED {rule} at {} ms: {}", failure.at_ms, failure.detail)?;
    }
    writeln!(out, "{} entries in {}", count(picture.entries), args.output.display())?;
    if picture.omitted > 0 {
        writeln!(
            out,
            "{} earlier entries are left out; --from and --to choose others",
            count(picture.omitted)
        )?;
    }
    Ok(if report.failure.is_some() { Outcome::Broken } else { Outcome::Kept })
}
