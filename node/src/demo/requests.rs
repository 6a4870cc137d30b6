//! Requests to a running demo: typed on its standard input, or sent by `holdfast demo restart` through a socket in its directory.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

use crate::socket::Reach;

/// A request, and where its answer goes.
pub(super) struct Request {
    pub(super) line: String,
    /// None when it was typed.
    pub(super) answer: Option<oneshot::Sender<Result<String, String>>>,
}

/// Longest line that is read.
const LINE_MAX: usize = 256;

fn socket_path(dir: &Path) -> PathBuf {
    dir.join("demo.sock")
}

/// Listens in the demo's directory. A demo that runs there already is left alone.
pub(super) fn listen(dir: &Path) -> anyhow::Result<UnixListener> {
    let path = socket_path(dir);
    let reach = Reach::new(&path).with_context(|| format!("cannot use {}", dir.display()))?;
    if std::os::unix::net::UnixStream::connect(reach.path()).is_ok() {
        bail!("a demo runs in {} already", dir.display());
    }
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", path.display()));
        }
        _ => {}
    }
    UnixListener::bind(reach.path()).with_context(|| format!("cannot listen on {}", path.display()))
}

/// Takes requests from the socket until the demo ends.
pub(super) async fn serve(listener: UnixListener, requests: mpsc::Sender<Request>) {
    while let Ok((stream, _)) = listener.accept().await {
        let requests = requests.clone();
        tokio::spawn(async move {
            // A client that goes away takes only its own request with it.
            let _ = serve_one(stream, requests).await;
        });
    }
}

async fn serve_one(stream: UnixStream, requests: mpsc::Sender<Request>) -> anyhow::Result<()> {
    let (read, mut write) = stream.into_split();
    let Some(line) = read_line(&mut BufReader::new(read)).await? else {
        return Ok(());
    };
    let (answer, answered) = oneshot::channel();
    requests
        .send(Request {
            line,
            answer: Some(answer),
        })
        .await?;
    let reply = match answered.await? {
        Ok(text) => format!("ok {text}\n"),
        Err(text) => format!("failed {text}\n"),
    };
    Ok(write.write_all(reply.as_bytes()).await?)
}

/// Takes what is typed. On a thread of its own, since a terminal cannot be read otherwise; it ends with the process.
pub(super) fn read_typed(requests: mpsc::Sender<Request>) {
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            let Ok(line) = line else { return };
            if !line.trim().is_empty() && requests.blocking_send(Request { line, answer: None }).is_err() {
                return;
            }
        }
    });
}

async fn read_line(reader: &mut (impl AsyncBufReadExt + Unpin)) -> anyhow::Result<Option<String>> {
    let mut line = Vec::new();
    let mut limited = tokio::io::AsyncReadExt::take(reader, LINE_MAX as u64);
    limited.read_until(b'\n', &mut line).await?;
    let text = String::from_utf8_lossy(&line).trim().to_owned();
    Ok((!text.is_empty()).then_some(text))
}

/// Sends one request to the demo that runs in `dir`, and returns its answer.
pub(super) async fn ask(dir: &Path, line: &str) -> anyhow::Result<String> {
    let none = || format!("no demo runs in {}", dir.display());
    let reach = Reach::new(&socket_path(dir)).with_context(none)?;
    let stream = UnixStream::connect(reach.path()).await.with_context(none)?;
    let (read, mut write) = stream.into_split();
    write.write_all(format!("{line}\n").as_bytes()).await?;
    let answer = read_line(&mut BufReader::new(read))
        .await?
        .context("the demo ended before it answered")?;
    match answer.split_once(' ') {
        Some(("ok", text)) => Ok(text.to_owned()),
        Some((_, text)) => bail!("{text}"),
        None => bail!("the demo answered '{answer}'"),
    }
}
