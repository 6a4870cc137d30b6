//! `holdfast extent import`: an extent out of an image of a disk.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use holdfast_proto::admin::import_part::Part;
use holdfast_proto::admin::{
    CreateExtentRequest, ImportData, ImportEnd, ImportHead, ImportPart, ImportProgress,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::progress::{Progress, share};
use super::{Out, block_on};
use crate::admin::{AdminAddress, AdminClient};
use crate::image::Source;

/// Parts on their way: what memory holds.
const AHEAD: usize = 4;

/// What is imported, and how.
#[derive(Debug, clap::Args)]
pub(super) struct ImportArgs {
    /// The extent's name. One that is there and is no LUN is made equal to the image, with --confirm.
    name: String,
    /// A raw image of a disk: a file, or a block device. Read on this machine.
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// Logical block size in bytes: 512 or 4096. Default: 512, or what the extent has.
    #[arg(long)]
    block_size: Option<u32>,
    /// Data nodes that hold it; default: all.
    #[arg(long, value_delimiter = ',', value_name = "NODE,…")]
    replicas: Vec<String>,
    /// Node that is its primary to start with; default: the first replica.
    #[arg(long, value_name = "NODE")]
    preferred: Option<String>,
    /// Allocate all of its space now; otherwise space is taken where the image is not zeros.
    #[arg(long)]
    full: bool,
    /// Keep it on block devices that were given to its nodes, one on each.
    #[arg(long)]
    on_devices: bool,
    /// The name of an extent that is there, again: what is in it is replaced by the image, or an import goes on that was broken off.
    #[arg(long, value_name = "NAME")]
    confirm: Option<String>,
}

/// `holdfast extent import`
pub(super) fn run(args: ImportArgs, admin: &AdminAddress, out: Out) -> anyhow::Result<()> {
    if let Some(bytes) = args.block_size {
        anyhow::ensure!(
            bytes == 512 || bytes == 4096,
            "--block-size {bytes}: a logical block has 512 or 4096 bytes"
        );
    }
    if let Some(confirm) = &args.confirm {
        anyhow::ensure!(
            *confirm == args.name,
            "--confirm {confirm}: it is the extent's name again, {}",
            args.name
        );
    }
    let source = Source::open(&args.from)?;
    let head = ImportHead {
        image_bytes: source.bytes(),
        replace: args.confirm.is_some(),
        extent: Some(CreateExtentRequest {
            name: args.name.clone(),
            block_size: args.block_size.unwrap_or_default(),
            replicas: args.replicas,
            preferred: args.preferred.unwrap_or_default(),
            full: args.full,
            on_devices: args.on_devices,
            ..CreateExtentRequest::default()
        }),
    };
    let bytes = source.bytes();
    let last = block_on(import(source, head, admin, out))?;
    let document = serde_json::json!({
        "done": true, "extent": args.name, "image_bytes": bytes, "extent_bytes": last.done_bytes,
        "written_bytes": last.written_bytes, "message": last.message,
    });
    out.answer(&document, &last.message)
}

async fn import(
    source: Source,
    head: ImportHead,
    admin: &AdminAddress,
    out: Out,
) -> anyhow::Result<ImportProgress> {
    let total = head.image_bytes;
    let mut client = AdminClient::connect(admin).await?;
    let (parts, sent) = mpsc::channel(AHEAD);
    let reading = tokio::task::spawn_blocking(move || read(source, head, &parts));
    let told = client.import_extent(ReceiverStream::new(sent)).await;
    let last = match told {
        Ok(mut told) => {
            let progress = Progress::new(out);
            let began = Instant::now();
            let mut last = None;
            loop {
                match told.message().await {
                    Ok(Some(news)) => {
                        progress.set(
                            Some(share(news.done_bytes, total)),
                            line(&news, total, began.elapsed()),
                        );
                        last = Some(news);
                    }
                    Ok(None) => {
                        break last
                            .filter(|last| !last.message.is_empty())
                            .context("the node broke the import off: run it again, with --confirm");
                    }
                    Err(status) => break Err(anyhow!("{}", status.message())),
                }
            }
        }
        Err(error) => Err(error),
    };
    drop(client);
    match (reading.await, last) {
        // What is wrong with the image is the cause of what the node says.
        (Ok(Err(error)), Err(_)) => Err(error),
        (_, last) => last,
    }
}

/// Reads the image on a thread of its own, until nobody wants more.
fn read(mut source: Source, head: ImportHead, parts: &mpsc::Sender<ImportPart>) -> anyhow::Result<()> {
    let image_bytes = head.image_bytes;
    let send = |part| parts.blocking_send(ImportPart { part: Some(part) }).is_ok();
    if !send(Part::Head(head)) {
        return Ok(());
    }
    while let Some(piece) = source.next()? {
        let data = ImportData {
            offset: piece.offset,
            data: piece.data.into(),
        };
        if !send(Part::Data(data)) {
            return Ok(());
        }
    }
    send(Part::End(ImportEnd { image_bytes }));
    Ok(())
}

/// How far it is: bytes, rate, and the time left if it goes on so.
fn line(news: &ImportProgress, total: u64, passed: Duration) -> String {
    let done = news.done_bytes.min(total);
    let rate = u128::from(done) * 1000 / passed.as_millis().max(1);
    let left = u128::from(total - done) / rate.max(1);
    let mib = |bytes: u128| bytes >> 20;
    format!(
        "{} of {} MiB, {} MiB written, {} MiB/s, {left} s left",
        mib(done.into()),
        mib(total.into()),
        mib(news.written_bytes.into()),
        mib(rate)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_far_it_is_and_how_long_it_takes() {
        let news = ImportProgress {
            done_bytes: 256 << 20,
            written_bytes: 16 << 20,
            message: String::new(),
        };
        assert_eq!(
            line(&news, 1 << 30, Duration::from_secs(2)),
            "256 of 1024 MiB, 16 MiB written, 128 MiB/s, 6 s left"
        );
        let over = ImportProgress {
            done_bytes: 9 << 20,
            ..news
        };
        assert!(line(&over, 1 << 20, Duration::ZERO).starts_with("1 of 1 MiB"));
    }
}
