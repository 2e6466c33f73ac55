//! Document chunks that clients upload: opened by a materialiser, then taken in as changes or as a
//! snapshot.

use bytes::Bytes;
use concord_protocol::{
    ChangeHash, CloseCode, RefuseCode,
    guard::{self, ChangeHeader},
};

use super::{
    ConnectionId, Job, JobError, JobOutput,
    core::{Core, Wake, refused},
    document::{Document, Inbound, free_if_empty},
    graph::Graph,
    jobs::{EXPLODE_FIRST_MAX, EXPLODE_MAX, Purpose, RETRY_MS, UPLOADS_MAX, sources},
};
use std::collections::VecDeque;

/// Changes with what the guard read of them.
pub(super) type Changes = VecDeque<(ChangeHeader, Bytes)>;

/// What somebody sent in one message.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) from: ConnectionId,
    /// What it is said to lead to.
    pub(super) heads: Vec<ChangeHash>,
    /// Document chunks.
    pub(super) chunks: Vec<Bytes>,
    /// Changes that came with them. They build on them, and are judged after them: before, all of
    /// them would wait, and there may be more than may wait.
    pub(super) tail: Changes,
}

impl Upload {
    pub(super) fn bytes(&self) -> usize {
        let tail = self.tail.iter().map(|(_, bytes)| bytes);
        self.chunks.iter().chain(tail).map(Bytes::len).sum()
    }
}

impl Document {
    /// Somebody sent a document chunk.
    pub(super) fn upload(&mut self, core: &mut Core, upload: Upload) {
        if self.is_purged() {
            // What it is said to lead to is refused when that is said.
            return;
        }
        let (from, heads) = (upload.from, &upload.heads);
        let known =
            |graph: &Graph| heads.iter().all(|head| matches!(graph.position(head), Ok(Some(_))));
        if !heads.is_empty() && self.graph().is_some_and(known) {
            mark!(UploadKnown);
            return;
        }
        if self.jobs.uploads.len() >= UPLOADS_MAX {
            core.close(from, CloseCode::Backpressure, "too many uploads of one document wait");
            return;
        }
        if let Some(reader) = self.readers.get_mut(&from) {
            reader.uploading = true;
        }
        self.jobs.uploads.push_back(upload);
        self.start_upload(core);
    }

    /// Opens the next upload, if the document is free for it.
    pub(super) fn start_upload(&mut self, core: &mut Core) {
        if self.jobs.running.is_some()
            || self.jobs.adopting.is_some()
            || self.jobs.uploads.is_empty()
            || core.now.mono_ms < self.jobs.upload_not_before_ms
        {
            mark!(UploadQueued, if !self.jobs.uploads.is_empty());
            return;
        }
        let Some(graph) = self.graph() else {
            self.ensure_loading(core);
            return;
        };
        if !core.take_upload_slot(&self.id) {
            return;
        }
        let base = sources(graph, |_| true);
        let explode_max = if core.leases.is_held(core.now.mono_ms, &self.id) {
            // So that each change is judged as one that comes alone.
            u32::MAX
        } else if graph.is_empty() {
            EXPLODE_FIRST_MAX
        } else {
            EXPLODE_MAX
        };
        let Some(upload) = self.jobs.uploads.pop_front() else {
            return;
        };
        free_if_empty(&mut self.jobs.uploads);
        let job = Job::Build { base, incoming: upload.chunks.clone(), explode_max };
        self.start(core, Purpose::Upload(upload), job);
    }

    pub(super) fn upload_done(
        &mut self,
        core: &mut Core,
        mut upload: Upload,
        result: Result<JobOutput, JobError>,
    ) {
        let from = upload.from;
        let mut done = true;
        match result {
            Ok(JobOutput::Changes(chunks)) => {
                let mut changes = VecDeque::with_capacity(chunks.len());
                for chunk in chunks {
                    match guard::check_change(&chunk, &core.config.limits) {
                        Ok(header) => changes.push_back((header, chunk)),
                        Err(error) => self.refuse_malformed(core, from, &chunk, &error, &[]),
                    }
                }
                self.put_back_tail(from, upload.tail);
                self.put_back(Inbound::Changes { from: Some(from), changes, checked: true });
            }
            Ok(JobOutput::Built { snapshot, index }) => {
                // Until it is on disk the uploader is asked for nothing of it.
                done = !self.write_snapshot(core, snapshot, &index, Some(from), &mut upload.tail);
                if done {
                    self.put_back_tail(from, upload.tail);
                }
            }
            Err(JobError::Unavailable(_) | JobError::Storage(_)) => {
                // Not its fault: try again.
                mark!(UploadAgain);
                self.jobs.uploads.push_front(upload);
                // Where the document is being read again, as soon as it is there.
                if self.graph().is_some() {
                    self.jobs.upload_not_before_ms = core.now.mono_ms + RETRY_MS;
                    core.wake_at(self.jobs.upload_not_before_ms, &self.id, Wake::Check);
                }
                done = false;
            }
            Err(JobError::Base(_)) if !self.jobs.searched => {
                // Not its fault either: somebody else's change has to be found first.
                self.jobs.uploads.push_front(upload);
                self.search(core);
                done = false;
            }
            Err(error) => {
                mark!(UploadRefused);
                tracing::info!(document = %self.id, %error, "refused an uploaded document");
                let code = match &error {
                    JobError::OverLimit(_) => RefuseCode::Quota,
                    JobError::Incoming(_) => RefuseCode::Malformed,
                    _ => RefuseCode::Unmaterialisable,
                };
                if let Some(reader) = self.readers.get_mut(&from) {
                    reader.refuse(upload.heads);
                }
                core.refuse(from, &self.id, refused(None, code, error.to_string()), self.durable());
                self.put_back_tail(from, upload.tail);
            }
            Ok(_) => self.put_back_tail(from, upload.tail),
        }
        if done && let Some(reader) = self.readers.get_mut(&from) {
            reader.uploading = false;
            reader.dirty = true;
        }
    }

    /// Has changes judged that came with a document chunk.
    pub(super) fn put_back_tail(&mut self, from: ConnectionId, changes: Changes) {
        if !changes.is_empty() {
            self.put_back(Inbound::Changes { from: Some(from), changes, checked: false });
        }
    }
}
