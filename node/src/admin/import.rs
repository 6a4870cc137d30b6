//! Filling an extent with an image. Pieces of it come in order; each is compared with what is there, and only what differs is written, by
//! the path that initiators' writes take. So an import that was broken off is begun again, and one that is done changes nothing.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use holdfast_proto::admin::import_part::Part;
use holdfast_proto::admin::{CreateExtentRequest, ImportData, ImportHead, ImportPart, ImportProgress};
use holdfast_raft::model::{AdminCommand, Command, Extent, Importing, Refusal, Reply};
use holdfast_types::{
    BlockOp, BlockRange, BlockSize, EXTENT_BYTES_MIN, ExtentId, Lba, LeaseGeneration, MAP_RUNS_MAX,
    OpOutcome, PHYSICAL_BYTES,
};
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::server::{failed, fault, invalid, new_extent, refused};
use crate::image::differences;
use crate::runtime::Running;

/// What the caller hears.
pub(crate) type ImportStream = ReceiverStream<Result<ImportProgress, Status>>;

/// Largest part.
const PART_MAX: usize = 1 << 20;
/// Parts that are compared and written at a time.
const AT_A_TIME: usize = 4;
/// How long the first message may take.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// How long storage may not be there, as in a failover, before the import is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two tries of that.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// Between two words on how far it is.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// The first message.
pub(super) async fn head(parts: &mut Streaming<ImportPart>) -> Result<ImportHead, Status> {
    let first = timeout(HEAD_WITHIN, parts.message())
        .await
        .map_err(|_| invalid("an import begins with what it is, and nothing came"))??;
    match first.and_then(|first| first.part) {
        Some(Part::Head(head)) => Ok(head),
        _ => Err(invalid(
            "an import begins with what it is; do both sides run the same release?",
        )),
    }
}

/// Bytes of an extent that holds so many of an image.
fn extent_bytes(image_bytes: u64, block: BlockSize) -> Option<u64> {
    image_bytes
        .max(EXTENT_BYTES_MIN)
        .checked_next_multiple_of(block.bytes().into())
}

fn block_size(bytes: u32, name: &str) -> Result<BlockSize, Status> {
    BlockSize::try_from(bytes).map_err(|error| invalid(format!("extent '{name}': {error}")))
}

/// Whether the image may go into an extent that is there.
fn fits(
    running: &Running,
    extent: &Extent,
    asked: &CreateExtentRequest,
    image_bytes: u64,
) -> Result<(), Status> {
    let name = &extent.name;
    let block = extent.block_size.bytes();
    if asked.block_size != 0 && asked.block_size != block {
        return Err(failed(format!(
            "extent '{name}' is there with blocks of {block} bytes: leave --block-size out, or take another name"
        )));
    }
    if !asked.replicas.is_empty() {
        let state = running.state();
        let nodes: Vec<&str> = extent
            .replicas
            .iter()
            .filter_map(|node| Some(state.node(*node)?.name.as_str()))
            .collect();
        let mut wanted: Vec<&str> = asked.replicas.iter().map(String::as_str).collect();
        wanted.sort_unstable();
        let mut there = nodes.clone();
        there.sort_unstable();
        if wanted != there {
            return Err(failed(format!(
                "extent '{name}' is there with replicas on {}: leave --replicas out, or take another name",
                nodes.join(", ")
            )));
        }
    }
    let wanted = extent_bytes(image_bytes, extent.block_size);
    if wanted != Some(extent.size_bytes) {
        return Err(failed(format!(
            "extent '{name}' is there with {} bytes, and the image has {image_bytes}: take another name",
            extent.size_bytes
        )));
    }
    if extent.unit.sanitize.running().is_some() {
        return Err(failed(format!(
            "extent '{name}' is being sanitized: try again when that is over"
        )));
    }
    Ok(())
}

/// Makes the extent if it is not there, and begins to fill it.
pub(super) async fn begin(
    running: Arc<Running>,
    head: ImportHead,
    parts: Streaming<ImportPart>,
) -> Result<ImportStream, Status> {
    let ImportHead {
        extent,
        image_bytes,
        replace,
    } = head;
    let mut asked = extent.ok_or_else(|| invalid("an import names an extent"))?;
    if image_bytes == 0 {
        return Err(invalid("image_bytes = 0: an image has at least one byte"));
    }
    if !running.has_storage() {
        return Err(failed("a witness holds no data: ask a data node (--admin)"));
    }
    let state = running.state();
    let there = state.extent_named(&asked.name);
    let id = if let Some(id) = there {
        fits(&running, &state.extents[&id], &asked, image_bytes)?;
        id
    } else {
        if asked.block_size == 0 {
            asked.block_size = 512;
        }
        let block = block_size(asked.block_size, &asked.name)?;
        asked.size_bytes = extent_bytes(image_bytes, block)
            .ok_or_else(|| invalid(format!("image_bytes = {image_bytes}: no extent is that large")))?;
        let new = new_extent(&state, asked)?;
        let id = new.id;
        let command = Command::CreateExtent(new);
        // What is unsure shows itself by the import.
        super::devices::check_room(&running, &state, &command).await?;
        match running.propose(command).await.map_err(fault)? {
            Reply::Refused { refusal } => return Err(refused(&refusal)),
            _ => id,
        }
    };
    let state = running.state();
    let extent = state
        .extents
        .get(&id)
        .ok_or_else(|| failed("the extent was deleted meanwhile"))?;
    let import = Arc::new(Import {
        id,
        name: extent.name.clone(),
        block: extent.block_size,
        extent_bytes: extent.size_bytes,
        image_bytes,
        may_replace: replace || there.is_none(),
        written: AtomicU64::new(0),
        number: rand::random(),
        claimed: Mutex::default(),
        running,
    });
    let (told, stream) = mpsc::channel(4);
    tokio::spawn(async move {
        let ended = Arc::clone(&import).run(parts, &told).await;
        import.release().await;
        if let Err(why) = ended {
            // Whoever asked may be gone.
            let _ = told.send(Err(why)).await;
        }
    });
    Ok(ReceiverStream::new(stream))
}

/// One import.
struct Import {
    running: Arc<Running>,
    id: ExtentId,
    name: String,
    block: BlockSize,
    extent_bytes: u64,
    image_bytes: u64,
    /// The extent was made for it, or whoever asked has typed its name again.
    may_replace: bool,
    written: AtomicU64,
    /// Tells it from others.
    number: u64,
    /// What the cluster was told of it.
    claimed: Mutex<Option<Importing>>,
}

/// What one message brings: zeros up to a place, and data from there on.
struct Step {
    zeros: Range<u64>,
    data: Bytes,
}

impl Step {
    fn end(&self) -> u64 {
        self.zeros.end + self.data.len() as u64
    }
}

impl Import {
    async fn run(
        self: Arc<Self>,
        parts: Streaming<ImportPart>,
        told: &mpsc::Sender<Result<ImportProgress, Status>>,
    ) -> Result<(), Status> {
        let came = futures::stream::try_unfold((parts, Some(0)), |(mut parts, at)| {
            let import = Arc::clone(&self);
            async move {
                let Some(at) = at else { return Ok(None) };
                let (step, is_last) = import.step(parts.message().await?, at)?;
                let next = (!is_last).then_some(step.end());
                Ok::<_, Status>(Some((step, (parts, next))))
            }
        });
        let put = came
            .map_ok(|step| {
                let import = Arc::clone(&self);
                async move {
                    import.put(&step).await?;
                    Ok(step.end())
                }
            })
            .try_buffered(AT_A_TIME);
        futures::pin_mut!(put);
        let mut last = Instant::now();
        while let Some(done) = put.next().await {
            let done_bytes = done?;
            if last.elapsed() >= TELL_EVERY {
                last = Instant::now();
                let told = told.send(Ok(self.progress(done_bytes, String::new()))).await;
                told.map_err(|_| failed("whoever asked is gone"))?;
            }
        }
        self.storage(|| BlockOp::Flush).await?;
        // Whoever hears that it is done may map the extent.
        self.release().await;
        let _ = told.send(Ok(self.progress(self.extent_bytes, self.over()))).await;
        Ok(())
    }

    fn progress(&self, done_bytes: u64, message: String) -> ImportProgress {
        ImportProgress {
            done_bytes,
            written_bytes: self.written.load(Ordering::Relaxed),
            message,
        }
    }

    fn over(&self) -> String {
        let Self {
            name,
            extent_bytes,
            image_bytes,
            ..
        } = self;
        let what = match self.written.load(Ordering::Relaxed) {
            0 => format!("Extent {name} is equal to the image already: nothing was written."),
            written => format!("Extent {name} is equal to the image: {written} bytes were written."),
        };
        if extent_bytes == image_bytes {
            return what;
        }
        format!(
            "{what} The image has {image_bytes} bytes; the extent has {extent_bytes}, and zeros behind the image."
        )
    }

    /// Checks a message; whether it is the last one.
    fn step(&self, message: Option<ImportPart>, at: u64) -> Result<(Step, bool), Status> {
        let part =
            message.ok_or_else(|| failed("the import was broken off: run it again with --confirm and the extent's name, and it goes on"))?;
        let block = u64::from(self.block.bytes());
        match part.part {
            Some(Part::Data(ImportData { offset, data })) => {
                let end = offset.saturating_add(data.len() as u64);
                let is_whole = end.is_multiple_of(block) || end == self.image_bytes;
                if data.is_empty() || data.len() > PART_MAX {
                    return Err(invalid(format!(
                        "a part of {} bytes: 1 to {PART_MAX}",
                        data.len()
                    )));
                }
                if offset < at || end > self.image_bytes || !offset.is_multiple_of(block) || !is_whole {
                    return Err(invalid(format!(
                        "a part from {offset} to {end}: whole blocks, in order, within the image's {} bytes",
                        self.image_bytes
                    )));
                }
                let zeros = at..offset;
                Ok((
                    Step {
                        zeros,
                        data: self.padded(data),
                    },
                    false,
                ))
            }
            Some(Part::End(end)) if end.image_bytes == self.image_bytes => {
                let zeros = at..self.extent_bytes;
                Ok((
                    Step {
                        zeros,
                        data: Bytes::new(),
                    },
                    true,
                ))
            }
            Some(Part::End(end)) => Err(failed(format!(
                "the image ended after {} bytes, though {} were announced: what came before is written",
                end.image_bytes, self.image_bytes
            ))),
            _ => Err(invalid(
                "a part that is none; do both sides run the same release?",
            )),
        }
    }

    /// With zeros up to the end of its last block.
    fn padded(&self, data: Bytes) -> Bytes {
        let block = self.block.bytes() as usize;
        if data.len().is_multiple_of(block) {
            return data;
        }
        let mut whole = data.to_vec();
        whole.resize(data.len().next_multiple_of(block), 0);
        whole.into()
    }

    /// A range of bytes that are whole blocks.
    fn blocks(&self, range: Range<u64>) -> Result<BlockRange, Status> {
        let shift = self.block.shift();
        BlockRange::new(Lba(range.start >> shift), (range.end - range.start) >> shift)
            .map_err(|error| Status::internal(format!("no range of blocks: {error}")))
    }

    async fn put(&self, step: &Step) -> Result<(), Status> {
        self.clear(step.zeros.clone()).await?;
        if step.data.is_empty() {
            return Ok(());
        }
        self.make_equal(step.zeros.end, &step.data).await
    }

    /// Makes bytes from `offset` on equal to `wanted`: at most a part.
    async fn make_equal(&self, offset: u64, wanted: &Bytes) -> Result<(), Status> {
        let range = self.blocks(offset..offset + wanted.len() as u64)?;
        let found = match self.storage(|| BlockOp::Read { range }).await? {
            OpOutcome::Data(found) => found,
            // What nobody can read any more is made good by being written.
            OpOutcome::Unreadable { .. } => Bytes::new(),
            other => return Err(Status::internal(format!("a read ended so: {other:?}"))),
        };
        for part in differences(&found, wanted, PHYSICAL_BYTES as usize) {
            let from = offset + part.range.start as u64;
            self.may_write(from)?;
            let range = self.blocks(from..offset + part.range.end as u64)?;
            let data = wanted.slice(part.range.clone());
            let done = self
                .write(|| match part.zeros {
                    true => BlockOp::Zero { ranges: vec![range] },
                    false => BlockOp::Write {
                        range,
                        data: data.clone(),
                        fua: false,
                    },
                })
                .await?;
            if done != OpOutcome::Done {
                return Err(Status::internal(format!("a write ended so: {done:?}")));
            }
            self.written.fetch_add(part.range.len() as u64, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Makes a range zeros. What has no space of its own is zeros already, and is not looked at.
    async fn clear(&self, range: Range<u64>) -> Result<(), Status> {
        let shift = self.block.shift();
        let zeros = Bytes::from_static(&[0; PART_MAX]);
        let mut at = range.start;
        while at < range.end {
            let from = Lba(at >> shift);
            let runs = MAP_RUNS_MAX;
            let runs = match self.storage(|| BlockOp::Map { from, runs }).await? {
                OpOutcome::Map(runs) if !runs.is_empty() => runs,
                other => return Err(Status::internal(format!("a map ended so: {other:?}"))),
            };
            for run in runs {
                let end = (run.range.end().0 << shift).min(range.end);
                while run.mapped && at < end {
                    let len = (end - at).min(PART_MAX as u64);
                    // At most a part.
                    self.make_equal(at, &zeros.slice(..usize::try_from(len).unwrap_or(PART_MAX)))
                        .await?;
                    at += len;
                }
                at = at.max(end);
            }
        }
        Ok(())
    }

    /// From now on the cluster shows the extent to nobody until this import is over; the lease generation in which that holds.
    async fn claim(&self) -> Result<LeaseGeneration, Status> {
        let mut claimed = self.claimed.lock().await;
        let mark = self.running.import_mark(self.number);
        if let Some(known) = &*claimed
            && known.generation == mark.generation
        {
            return Ok(known.generation);
        }
        let (extent, on) = (self.id, true);
        let command = AdminCommand::SetImporting { extent, mark, on };
        match self.running.propose(command.into()).await.map_err(fault)? {
            // This node was counted as lost, and has not caught up with that yet.
            Reply::Refused {
                refusal: refusal @ Refusal::Invalid(_),
            } => Err(Status::unavailable(refusal.to_string())),
            Reply::Refused { refusal } => Err(refused(&refusal)),
            _ => {
                *claimed = Some(mark);
                Ok(mark.generation)
            }
        }
    }

    /// It is over.
    async fn release(&self) {
        let Some(mark) = self.claimed.lock().await.take() else {
            return;
        };
        let (extent, on) = (self.id, false);
        let command = AdminCommand::SetImporting { extent, mark, on };
        if let Err(error) = self.running.propose(command.into()).await {
            tracing::warn!(extent = %self.name, "the end of an import could not be told: {error:#}");
        }
    }

    /// Hosts may see the extent only while nothing of it is changed here; and what somebody has stored is replaced only if he says so.
    fn may_write(&self, offset: u64) -> Result<(), Status> {
        let name = &self.name;
        match self.running.state().shown_as(self.id) {
            None if self.may_replace => Ok(()),
            None => Err(failed(format!(
                "extent '{name}' is there, and differs from the image at byte {offset}: to go on with an import that was broken off, or to \
                 replace what is in it, type its name again: --confirm {name}"
            ))),
            Some(by) => Err(failed(format!(
                "extent '{name}' is {by}, and differs from the image at byte {offset}: it is in use, so nothing is written to it; take the \
                 LUN away first ('holdfast lun delete'), or take another name"
            ))),
        }
    }

    /// Has something read, here or on the extent's primary.
    async fn storage(&self, op: impl Fn() -> BlockOp) -> Result<OpOutcome, Status> {
        self.insist(false, op).await
    }

    /// Has something written, while nobody sees the extent.
    async fn write(&self, op: impl Fn() -> BlockOp) -> Result<OpOutcome, Status> {
        self.insist(true, op).await
    }

    async fn once(&self, writes: bool, op: BlockOp) -> Result<OpOutcome, Status> {
        if !writes {
            return Ok(self.running.on_storage(self.id, op).await);
        }
        match self.claim().await {
            Ok(generation) => Ok(self.running.on_storage_in(generation, self.id, op).await),
            Err(why) if why.code() == Code::Unavailable => Ok(OpOutcome::Transitioning),
            Err(why) => Err(why),
        }
    }

    /// Tries again while the extent, or the cluster's leader, moves.
    async fn insist(&self, writes: bool, op: impl Fn() -> BlockOp) -> Result<OpOutcome, Status> {
        let name = &self.name;
        let until = Instant::now() + PATIENCE;
        loop {
            if !self.running.state().extents.contains_key(&self.id) {
                return Err(failed(format!("extent '{name}' was deleted meanwhile")));
            }
            match self.once(writes, op()).await? {
                OpOutcome::NoSpace => {
                    return Err(failed(format!(
                        "a disk under extent '{name}' is full: make room, and run it again with --confirm {name}: it goes on where it ended"
                    )));
                }
                OpOutcome::ReservationConflict => {
                    return Err(failed(format!(
                        "extent '{name}' is reserved: see 'holdfast reservation show'"
                    )));
                }
                // In a failover, or not open yet; a write that took effect all the same puts the same bytes.
                OpOutcome::Transitioning | OpOutcome::Standby | OpOutcome::Reset | OpOutcome::Aborted => {}
                done => return Ok(done),
            }
            if Instant::now() >= until {
                return Err(Status::unavailable(format!(
                    "extent '{name}' is not served at present: run it again later with --confirm {name}: it goes on where it ended"
                )));
            }
            sleep(AGAIN_AFTER).await;
        }
    }
}
