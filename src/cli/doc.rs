//! `concord doc`: list, show, create, export and import documents. Their history is in `past`.

use std::{
    cell::Cell,
    fs,
    io::{self, IsTerminal as _, Read as _, Write as _},
    path::{Path, PathBuf},
};

use automerge::{Automerge, ObjType, ROOT, ReadDoc as _, Value};
use clap::{Args, Subcommand, ValueEnum};
use concord::{
    json,
    peer::{Document, Peer},
};
use concord_protocol::DocumentId;
use serde_json::{Value as Json, json};

use super::{
    Failure, deletion,
    entity::{self, EntityArgs},
    open::{self, Common},
    output, past,
    path::DocPath,
    waiting, write,
};

/// The first bytes of every Automerge chunk.
const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
/// Largest file that is imported, in bytes: that of a document.
const IMPORT_BYTES_MAX: u64 = concord_protocol::limits::DOCUMENT_BYTES_MAX as u64;

#[derive(Debug, Args)]
pub(super) struct DocArgs {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(subcommand)]
    command: DocCommand,
}

#[derive(Debug, Subcommand)]
enum DocCommand {
    /// List the documents that are stored here
    Ls {
        /// Only the ids, without opening the documents
        #[arg(long)]
        ids: bool,
    },
    /// Show a document, or a part of it, as JSON
    Get {
        /// The document's id or automerge: URL, or TYPE/KEY of an entity
        doc: String,
        /// What in it, as in items[0].title
        #[arg(default_value = "")]
        path: DocPath,
    },
    /// Show a document as its type has it: its fields, which of them are in review, what is wrong, and
    /// what is parked because it is of another version
    Entity(EntityArgs),
    /// Make a document, empty or of a JSON object
    Create {
        /// Its content, as in '{"title": "Shopping"}'
        content: Option<String>,
    },
    /// Write a document to a file or to standard output
    Export {
        /// The document's id or automerge: URL, or TYPE/KEY of an entity
        doc: String,
        /// Where to; its ending chooses the format
        #[arg(short, long)]
        output: Option<PathBuf>,
        /// With its whole history (automerge) or only what it says now (json)
        #[arg(short, long)]
        format: Option<Format>,
    },
    /// Store a file (.automerge or .json; - for standard input) as a new document
    Import {
        /// The file
        file: PathBuf,
    },
    #[command(flatten)]
    Past(past::PastCommand),
    #[command(flatten)]
    Deletion(deletion::DeletionCommand),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Automerge,
    Json,
}

pub(super) async fn run(args: DocArgs) -> Result<(), Failure> {
    let DocArgs { common, command } = args;
    if let DocCommand::Entity(args) = &command {
        return entity::run(&common, args).await;
    }
    let schema = match &command {
        DocCommand::Deletion(command) => command.schema()?,
        _ => None,
    };
    let peer = open::peer_under(&common, schema).await?;
    let done = match command {
        // See above.
        DocCommand::Entity(_) => Ok(()),
        DocCommand::Ls { ids } => list(&peer, &common, ids).await,
        DocCommand::Get { doc, path } => get(&peer, &common, &doc, &path).await,
        DocCommand::Create { content } => create(&peer, &common, content).await,
        DocCommand::Export { doc, output, format } => {
            export(&peer, &common, &doc, output.as_deref(), format).await
        }
        DocCommand::Import { file } => import(&peer, &common, &file).await,
        DocCommand::Past(command) => past::run(&peer, &common, command).await,
        DocCommand::Deletion(command) => deletion::run(&peer, &common, command).await,
    };
    peer.close().await?;
    done
}

async fn list(peer: &Peer, common: &Common, only_ids: bool) -> Result<(), Failure> {
    let ids = peer.documents().await?;
    if only_ids {
        if common.json {
            return output::json(&json!(ids.iter().map(DocumentId::as_str).collect::<Vec<_>>()));
        }
        return ids.iter().try_for_each(output::line);
    }
    let (done, total) = (Cell::new(0), ids.len());
    let opening = async {
        let mut rows = Vec::with_capacity(total);
        for id in ids {
            let row = match peer.find_within(id.as_str(), common.within()).await {
                Ok(document) => document.read(Row::of)?,
                Err(error) => Row { preview: format!("({error})"), ..Row::default() },
            };
            rows.push((id, row));
            done.set(rows.len());
        }
        Ok::<_, Failure>(rows)
    };
    let words = || format!("opened {} of {total} documents", done.get());
    let found = waiting::with(common, words, opening).await?;
    let (mut rows, mut items) = (Vec::new(), Vec::new());
    for (id, row) in found {
        if common.json {
            items.push(json!({
                "document": id.as_str(),
                "changes": row.changes,
                "time": row.time,
                "preview": row.preview,
                "deleted": row.is_deleted,
            }));
        } else {
            let changed = if row.changes == 0 {
                "-".to_owned()
            } else {
                output::ago(row.time, output::now())
            };
            rows.push(vec![id.to_string(), row.changes.to_string(), changed, row.preview]);
        }
    }
    if common.json {
        return output::json(&Json::Array(items));
    }
    if rows.is_empty() {
        return output::line(
            "no documents here yet: concord doc create '{\"title\": \"Shopping\"}'",
        );
    }
    output::table(&["DOCUMENT", "CHANGES", "CHANGED", "CONTENT"], &rows)
}

#[derive(Default)]
struct Row {
    changes: usize,
    time: i64,
    preview: String,
    is_deleted: bool,
}

impl Row {
    fn of(doc: &Automerge) -> Self {
        let heads = doc.get_heads();
        let latest = heads.iter().filter_map(|head| doc.get_change_meta_by_hash(head));
        let time = latest.map(|change| change.timestamp).max().unwrap_or(0);
        let changes = usize::try_from(doc.stats().num_changes).unwrap_or(usize::MAX);
        let is_deleted = concord::entity::is_deleted(doc);
        let is_review = concord::review::triage::is_review_document(doc);
        let preview = if is_review { "(notes on conflicts)".to_owned() } else { preview(doc) };
        let preview = if is_deleted { format!("(deleted) {preview}") } else { preview };
        Self { changes, time, preview, is_deleted }
    }
}

/// What a person would know the document by: its title or name, else what fields it has.
fn preview(doc: &Automerge) -> String {
    const WIDTH: usize = 40;
    for key in ["title", "name"] {
        let text = match doc.get(ROOT, key) {
            Ok(Some((Value::Object(ObjType::Text), id))) => doc.text(&id).ok(),
            Ok(Some((Value::Scalar(scalar), _))) => scalar.as_str().map(str::to_owned),
            _ => None,
        };
        if let Some(text) = text.filter(|text| !text.trim().is_empty()) {
            return output::short(&text, WIDTH);
        }
    }
    let keys: Vec<String> = doc.keys(ROOT).take(8).collect();
    if keys.is_empty() {
        "(empty)".to_owned()
    } else {
        output::short(&format!("{{{}}}", keys.join(", ")), WIDTH)
    }
}

async fn get(peer: &Peer, common: &Common, doc: &str, path: &DocPath) -> Result<(), Failure> {
    let document = waiting::find(peer, common, doc).await?;
    let json = read(&document, path)?;
    if common.json { output::json(&json) } else { output::line(pretty(&json)) }
}

fn read(document: &Document, path: &DocPath) -> Result<Json, Failure> {
    document.read(|doc| {
        let (found, id) = path.find(doc)?;
        Ok(json::to_json(doc, &found, &id)?)
    })?
}

fn pretty(json: &Json) -> String {
    format!("{json:#}")
}

async fn create(peer: &Peer, common: &Common, content: Option<String>) -> Result<(), Failure> {
    let content = content.as_deref().map(object).transpose()?;
    let document = peer.create().await?;
    if let Some(content) = content {
        write::document(&document, content, "create").await?;
    }
    made(peer, common, &document).await
}

/// JSON that was given by hand, checked before a document is made for it.
fn object(text: &str) -> Result<Json, Failure> {
    let json: Json = serde_json::from_str(text)
        .map_err(|error| Failure::usage(format!("the content is not JSON: {error}")))?;
    if json.is_object() {
        Ok(json)
    } else {
        Err(Failure::usage("a document is a JSON object, as in {\"title\": \"Shopping\"}"))
    }
}

/// Says what was made, and whether a relay has it.
async fn made(peer: &Peer, common: &Common, document: &Document) -> Result<(), Failure> {
    let confirmed = super::sync::confirm(peer, common, document).await;
    if common.json {
        output::json(&json!({
            "document": document.id().as_str(),
            "url": document.url().to_string(),
            "confirmed": confirmed.as_ref().map(Result::is_ok),
        }))?;
    } else {
        output::line(document.url())?;
    }
    confirmed.unwrap_or(Ok(()))
}

async fn export(
    peer: &Peer,
    common: &Common,
    doc: &str,
    to: Option<&Path>,
    format: Option<Format>,
) -> Result<(), Failure> {
    let is_json = |path: &Path| path.extension().is_some_and(|ending| ending == "json");
    let format = format.unwrap_or(match to {
        Some(path) if is_json(path) => Format::Json,
        _ => Format::Automerge,
    });
    if to.is_none() && format == Format::Automerge && io::stdout().is_terminal() {
        return Err(Failure::usage(
            "not writing bytes to a terminal: give -o FILE, or --format json",
        ));
    }
    let document = waiting::find(peer, common, doc).await?;
    let bytes = match format {
        Format::Automerge => document.read(Automerge::save)?,
        Format::Json => {
            let mut text = pretty(&read(&document, &DocPath::default())?);
            text.push('\n');
            text.into_bytes()
        }
    };
    let Some(path) = to else {
        return output::raw(&bytes);
    };
    save(path, &bytes)
        .map_err(|error| Failure::failed(format!("cannot write {}: {error}", path.display())))?;
    if common.json {
        return output::json(&json!({ "file": path.display().to_string(), "bytes": bytes.len() }));
    }
    output::line(format_args!("wrote {} ({} bytes)", path.display(), bytes.len()))
}

/// The whole file or none of it: an interrupted export does not leave half a document.
pub(super) fn save(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::other("it has no file name"))?;
    let mut part = name.to_owned();
    part.push(format!(".{}.part", std::process::id()));
    let part = path.with_file_name(part);
    let written = fs::File::create_new(&part).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    let renamed = written.and_then(|()| fs::rename(&part, path));
    if renamed.is_err() {
        // It may never have been made.
        let _ = fs::remove_file(&part);
    }
    renamed
}

async fn import(peer: &Peer, common: &Common, file: &Path) -> Result<(), Failure> {
    let name = file.display();
    let bytes =
        slurp(file).map_err(|error| Failure::failed(format!("cannot read {name}: {error}")))?;
    let document = if bytes.starts_with(&MAGIC) {
        waiting::here(common, "storing the document", peer.import(bytes.into())).await?
    } else {
        let text = String::from_utf8(bytes).map_err(|_| {
            Failure::usage(format!("{name} is neither an Automerge document nor JSON"))
        })?;
        let content = object(&text)?;
        let document = peer.create().await?;
        let writing = write::document(&document, content, "import");
        waiting::here(common, "writing the document", writing).await?;
        document
    };
    made(peer, common, &document).await
}

fn slurp(file: &Path) -> io::Result<Vec<u8>> {
    let input: Box<dyn io::Read> = if file == Path::new("-") {
        Box::new(io::stdin())
    } else {
        Box::new(fs::File::open(file)?)
    };
    let mut bytes = Vec::new();
    input.take(IMPORT_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > IMPORT_BYTES_MAX {
        return Err(io::Error::other(format!("it is larger than {IMPORT_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}
