//! The document that a trace leads to.

use automerge::{
    Automerge, ObjType, ROOT, ReadDoc, TextEncoding,
    transaction::{CommitOptions, Transactable},
};

use super::{
    BenchError,
    changes::{Document, saved},
    trace::{Patch, Trace, TraceError},
};

/// Replays a sequential trace into one document, with so many transactions a change. The same
/// trace gives the same bytes.
pub(super) fn build(trace: &Trace, transactions_per_change: usize) -> Result<Document, BenchError> {
    let failed = |error: automerge::AutomergeError| BenchError::Document(error.to_string());
    if trace.is_concurrent() {
        return Err(BenchError::Document(
            "the trace has several authors; give a sequential one".to_owned(),
        ));
    }
    let mut document = automerge::AutoCommit::new_with_encoding(TextEncoding::UnicodeCodePoint)
        .with_actor(automerge::ActorId::from(&[0xA0_u8; 16][..]));
    let text = document.put_object(ROOT, "text", ObjType::Text).map_err(failed)?;
    document.splice_text(&text, 0, 0, &trace.start_content).map_err(failed)?;
    for (index, transaction) in trace.transactions.iter().enumerate() {
        for Patch(at, deleted, inserted) in &transaction.patches {
            let deleted = isize::try_from(*deleted).map_err(|_| TraceError::Position(index))?;
            document
                .splice_text(&text, *at, deleted, inserted)
                .map_err(|_| TraceError::Position(index))?;
        }
        if (index + 1) % transactions_per_change.max(1) == 0 {
            document.commit_with(CommitOptions::default().with_time(0));
        }
    }
    document.commit_with(CommitOptions::default().with_time(0));
    trace.check_end(&document.text(&text).map_err(failed)?)?;
    let document: &Automerge = document.document();
    Ok(saved(document))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_up_trace_ends_as_it_says() {
        let trace = Trace::generate(1, 2_000);
        let document = build(&trace, 10).unwrap();
        assert_eq!(document.heads.len(), 1);
        assert_eq!(document.chunk, build(&trace, 10).unwrap().chunk);
        let loaded = Automerge::load(&document.chunk).unwrap();
        let (_, text) = loaded.get(ROOT, "text").unwrap().unwrap();
        assert_eq!(loaded.text(&text).unwrap(), trace.end_content);
    }

    #[test]
    fn a_wrong_end_is_noticed() {
        let mut trace = Trace::generate(1, 50);
        trace.end_content.push('!');
        let found = build(&trace, 10);
        assert!(matches!(found, Err(BenchError::Trace(TraceError::EndContent(_)))));
    }
}
