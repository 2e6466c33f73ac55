//! JSON into documents: large values go in over several changes, each within the limits of a
//! change.

use concord::{json::Writer, peer::Document};
use serde_json::Value as Json;

use super::Failure;

/// Operations of one change; well below `CHANGE_OPS_MAX`, and as many characters stay below
/// `CHANGE_BYTES_MAX`.
const OPS_MAX: usize = 50_000;

/// Writes the fields of a JSON object into an empty document.
pub(super) async fn document(
    document: &Document,
    fields: Json,
    message: &str,
) -> Result<(), Failure> {
    let Json::Object(fields) = fields else {
        return Err(Failure::usage("a document is a JSON object, as in {\"title\": \"Shopping\"}"));
    };
    let mut writer = Writer::new(fields);
    while !writer.is_done() {
        document.change_with(Some(message), |tx| Ok(writer.write(tx, OPS_MAX)?)).await?;
    }
    Ok(())
}
