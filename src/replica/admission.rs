//! The structural check that needs the graph: does this change fit the document?

use concord_protocol::{ChangeHash, RefuseCode, guard::ChangeHeader, limits::CHANGE_DEPS_MAX};

use super::{graph::Graph, index::Missing};

/// Heads a document may have at once. The next change of an honest peer depends on all of them,
/// so there must never be more than a change may depend on.
pub(super) const HEADS_MAX: usize = 1_000;
const _: () = assert!(HEADS_MAX < CHANGE_DEPS_MAX);

/// What is to be done with a change.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is here already.
    Known,
    /// It fits; its dependencies are at these positions.
    Accept(Vec<u32>),
    /// It builds on changes that are not here.
    Orphan(Vec<ChangeHash>),
    /// It cannot be part of this document.
    Refuse(RefuseCode, String),
}

/// Decides about a change that passed the guard.
pub(super) fn judge(graph: &Graph, header: &ChangeHeader) -> Result<Verdict, Missing> {
    use Verdict::{Accept, Known, Orphan, Refuse};

    let writer = graph.actor(&header.actor);
    let last_seq = writer.map_or(0, |(_, seq)| seq);
    if graph.node_by_hash(&header.hash).is_some() {
        return Ok(Known);
    }
    // A change that is in the snapshot is not newer than its writer's last one there, so that
    // a new change costs no look into the index.
    if header.seq <= last_seq {
        return Ok(match graph.position(&header.hash)? {
            Some(_) => Known,
            None if missing_deps(graph, header)?.is_empty() => Refuse(
                RefuseCode::Equivocation,
                format!(
                    "actor {} already wrote another change with sequence number {}",
                    header.actor, header.seq
                ),
            ),
            None => Orphan(missing_deps(graph, header)?),
        });
    }
    let missing = missing_deps(graph, header)?;
    if !missing.is_empty() {
        return Ok(Orphan(missing));
    }
    if header.seq != last_seq + 1 {
        return Ok(Refuse(
            RefuseCode::OutOfSequence,
            format!(
                "sequence number {} of actor {} does not follow {last_seq}, though its dependencies are here",
                header.seq, header.actor
            ),
        ));
    }

    let mut deps = Vec::with_capacity(header.deps.len());
    for dep in &header.deps {
        let Some(position) = graph.position(dep)? else {
            continue;
        };
        if graph.max_op_bound(position, header.start_op)? >= header.start_op {
            return Ok(Refuse(
                RefuseCode::OutOfSequence,
                format!("its first operation {} is not above those of {dep}", header.start_op),
            ));
        }
        deps.push(position);
    }
    let new_head = graph.heads().len() + 1
        - header.deps.iter().filter(|dep| graph.heads().contains(dep)).count().min(1);
    if new_head > HEADS_MAX {
        return Ok(Refuse(
            RefuseCode::Quota,
            format!("the document has {HEADS_MAX} concurrent heads; merge some first"),
        ));
    }
    if let Some(reason) = dangling(graph, header) {
        return Ok(Refuse(RefuseCode::DanglingName, reason));
    }
    Ok(Accept(deps))
}

/// Dependencies of a change that are not here.
pub(super) fn missing_deps(
    graph: &Graph,
    header: &ChangeHeader,
) -> Result<Vec<ChangeHash>, Missing> {
    let mut missing = Vec::new();
    for dep in &header.deps {
        if graph.position(dep)?.is_none() && !mutant!(ForgetDependency) {
            missing.push(*dep);
        }
    }
    Ok(missing)
}

/// The first actor or object that the change names and that does not exist.
fn dangling(graph: &Graph, header: &ChangeHeader) -> Option<String> {
    let mut others = Vec::with_capacity(header.other_actors.len());
    for actor in &header.other_actors {
        match graph.actor(actor) {
            Some((position, _)) => others.push(position),
            None => return Some(format!("it names actor {actor}, who wrote nothing here")),
        }
    }
    let own = graph.actor(&header.actor).map(|(position, _)| position);
    header.objects_named.iter().find_map(|&(counter, actor)| {
        // In the order of the operations, so sorted.
        let made_here = actor == 0 && header.objects_made.binary_search(&counter).is_ok();
        let position = match actor.checked_sub(1) {
            None => own,
            Some(other) => others.get(other as usize).copied(),
        };
        let exists = made_here || position.is_some_and(|p| graph.has_object((counter, p)));
        (!exists).then(|| format!("it names an object ({counter}) that does not exist"))
    })
}
