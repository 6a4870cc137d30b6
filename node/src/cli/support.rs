//! `holdfast support`: what somebody needs who is to find out what happened here, in one archive. No secrets are in it, and no data.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow};
use clap::Args;
use flate2::Compression;
use flate2::write::GzEncoder;
use holdfast_types::{UnixMillis, utc_to_the_millisecond};
use serde::Serialize;

use super::{Out, block_on, new_file};
use crate::admin::{AdminAddress, AdminClient};

/// Longest wait for one program of the system; a disk that hangs holds up what looks at it.
const PROGRAM: Duration = Duration::from_secs(10);
/// Most bytes of what one of them prints that are kept: the last ones.
const PRINTED_MAX: usize = 4 << 20;
/// More than a node keeps.
const ALL: u32 = 100_000;

/// What the machine says about itself: the name in the archive, and what is run.
const PROGRAMS: [(&str, &str); 12] = [
    ("kernel.txt", "uname -a"),
    ("release.txt", "cat /etc/os-release"),
    ("uptime.txt", "uptime"),
    ("memory.txt", "free -m"),
    ("room.txt", "df -h"),
    (
        "disks.txt",
        "lsblk -o NAME,TYPE,SIZE,MODEL,ROTA,FSTYPE,MOUNTPOINTS",
    ),
    ("addresses.txt", "ip address"),
    ("routes.txt", "ip route show table all"),
    ("sockets.txt", "ss -tunap"),
    ("service.txt", "systemctl status holdfast --no-pager --lines 0"),
    (
        "log.txt",
        "journalctl -u holdfast -n 20000 --no-pager -o short-iso-precise",
    ),
    (
        "kernel-log.txt",
        "journalctl -k -n 5000 --no-pager -o short-iso-precise",
    ),
];

/// Arguments of `holdfast support`.
#[derive(Debug, Args)]
pub(super) struct SupportArgs {
    /// The archive to write (.tar.gz); default: holdfast-support-NODE-TIME.tar.gz in the present directory.
    file: Option<PathBuf>,
    /// The node's configuration file; it is put into the archive, too.
    #[arg(long, default_value = "/etc/holdfast/node.toml")]
    config: PathBuf,
}

/// An archive in the making, and what is missing in it.
struct Bundle {
    archive: tar::Builder<GzEncoder<Vec<u8>>>,
    /// Folder that everything is in.
    top: String,
    at: SystemTime,
    files: Vec<String>,
    missing: Vec<String>,
}

impl Bundle {
    fn new(top: String, at: SystemTime) -> Self {
        Self {
            archive: tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default())),
            top,
            at,
            files: Vec::new(),
            missing: Vec::new(),
        }
    }

    fn put(&mut self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let mut head = tar::Header::new_gnu();
        head.set_size(bytes.len() as u64);
        head.set_mode(0o600);
        head.set_mtime(UnixMillis::from(self.at).0 / 1000);
        let path = format!("{}/{name}", self.top);
        self.archive.append_data(&mut head, path, bytes)?;
        self.files.push(name.to_owned());
        Ok(())
    }

    /// Puts what was found, or notes why there is nothing.
    fn found(&mut self, name: &str, found: anyhow::Result<Vec<u8>>) -> anyhow::Result<()> {
        match found {
            Ok(bytes) => self.put(name, &bytes),
            Err(error) => {
                self.missing.push(format!("{name}: {error:#}"));
                Ok(())
            }
        }
    }

    /// The archive, with a page about what is in it.
    fn finish(mut self) -> anyhow::Result<(Vec<u8>, Vec<String>, Vec<String>)> {
        let mut page = format!(
            "Made by holdfast {} at {}, on one machine: what other nodes have recorded is theirs to tell.\n\n",
            env!("CARGO_PKG_VERSION"),
            utc_to_the_millisecond(self.at)
        );
        page += "It has names, addresses and IQNs; no secrets, and nothing of what is on the extents.\n";
        if !self.missing.is_empty() {
            page += "\nMissing:\n";
            for line in &self.missing {
                page += &format!("  {}\n", line.replace('\n', " "));
            }
        }
        self.put("README.txt", page.as_bytes())?;
        let bytes = self.archive.into_inner()?.finish()?;
        Ok((bytes, self.files, self.missing))
    }
}

fn json(document: anyhow::Result<impl Serialize>) -> anyhow::Result<Vec<u8>> {
    Ok(serde_json::to_vec_pretty(&document?)?)
}

/// What the node has to tell. One that does not answer is a line, not the end.
async fn ask(bundle: &mut Bundle, client: &mut AdminClient) -> anyhow::Result<()> {
    let status = client.status().await;
    let text = status.as_ref().map(crate::status::text);
    let text = text.map(String::into_bytes).map_err(|error| anyhow!("{error:#}"));
    bundle.found("status.txt", text)?;
    bundle.found("status.json", json(status))?;
    bundle.found("events.json", json(client.events(ALL, true).await))?;
    bundle.found("audit.json", json(client.audit_log(ALL).await))?;
    bundle.found("settings.json", json(client.settings().await))?;
    let configuration = super::configuration::present(client).await;
    let configuration = configuration.map(|(_, present)| present.configuration.to_toml().into_bytes());
    bundle.found("configuration.toml", configuration)?;
    bundle.found("metrics.txt", client.page("/metrics").await)?;
    bundle.found("check.json", json(client.check().await))
}

/// What a program prints, the last of it.
async fn run_program(line: &str) -> anyhow::Result<Vec<u8>> {
    let mut words = line.split(' ');
    let program = words.next().unwrap_or_default();
    let running = tokio::process::Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let done = tokio::time::timeout(PROGRAM, running)
        .await
        .map_err(|_| anyhow!("'{line}' took longer than {} s", PROGRAM.as_secs()))?;
    let done = done.with_context(|| format!("'{line}'"))?;
    let mut printed = format!("$ {line}\n").into_bytes();
    let from = done.stdout.len().saturating_sub(PRINTED_MAX);
    printed.extend_from_slice(&done.stdout[from..]);
    printed.extend_from_slice(&done.stderr);
    Ok(printed)
}

/// What the machine says of itself, and what it is configured as.
async fn look_around(bundle: &mut Bundle, config: &Path) -> anyhow::Result<()> {
    let read = std::fs::read(config).with_context(|| format!("cannot read {}", config.display()));
    bundle.found("node.toml", read)?;
    for (name, line) in PROGRAMS {
        let printed = run_program(line).await;
        bundle.found(&format!("machine/{name}"), printed)?;
    }
    Ok(())
}

async fn collect(
    args: &SupportArgs,
    admin: &AdminAddress,
    at: SystemTime,
) -> anyhow::Result<(Bundle, String)> {
    let connected = AdminClient::connect(admin).await;
    let mut name = "unknown".to_owned();
    let mut client = match connected {
        Ok(mut client) => {
            if let Ok(identity) = client.identify().await {
                name = identity.name;
            }
            Ok(client)
        }
        Err(error) => Err(error),
    };
    let top = format!("holdfast-support-{name}-{}", stamp(at));
    let mut bundle = Bundle::new(top.clone(), at);
    match &mut client {
        Ok(client) => ask(&mut bundle, client).await?,
        Err(error) => bundle.missing.push(format!("all that the node tells: {error:#}")),
    }
    match admin {
        AdminAddress::Unix(_) => look_around(&mut bundle, &args.config).await?,
        AdminAddress::Tcp(_) => bundle
            .missing
            .push("all of the machine: the node was asked over TCP; run 'holdfast support' there".to_owned()),
    }
    Ok((bundle, top))
}

/// `20261130T002031Z`
fn stamp(at: SystemTime) -> String {
    let text = utc_to_the_millisecond(at);
    let digits: String = text
        .chars()
        .take(19)
        .filter(|c| c.is_ascii_digit() || *c == ' ')
        .collect();
    format!("{}Z", digits.replace(' ', "T"))
}

/// `holdfast support`
pub(super) fn run(args: &SupportArgs, admin: &AdminAddress, out: Out) -> anyhow::Result<()> {
    if let Some(file) = &args.file {
        new_file::must_be_new(file)?;
    }
    out.narrate("Collecting, which takes some seconds …");
    let at = SystemTime::now();
    let (bundle, top) = block_on(collect(args, admin, at))?;
    let (bytes, files, missing) = bundle.finish()?;
    let path = args
        .file
        .clone()
        .unwrap_or_else(|| PathBuf::from(format!("{top}.tar.gz")));
    new_file::write(&path, &bytes)?;
    let mut text = format!(
        "{} has {} files, {} KiB. It has names, addresses and IQNs; no secrets, and no data. Other nodes have recorded other things.",
        path.display(),
        files.len(),
        bytes.len().div_ceil(1024)
    );
    for line in &missing {
        text += &format!("\nmissing: {line}");
    }
    let document = serde_json::json!({
        "file": path, "bytes": bytes.len(), "files": files, "missing": missing,
    });
    out.answer(&document, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_has_the_time_and_nothing_that_a_shell_minds() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_796_000_000_123);
        assert_eq!(stamp(at), "20261130T005320Z");
    }

    #[test]
    fn what_is_missing_is_told_in_the_archive() {
        let mut bundle = Bundle::new("top".into(), SystemTime::UNIX_EPOCH);
        bundle.found("a.txt", Ok(b"is here".to_vec())).unwrap();
        bundle.found("b.txt", Err(anyhow!("gone\nfor good"))).unwrap();
        let (bytes, files, missing) = bundle.finish().unwrap();
        assert_eq!((files.len(), missing.len()), (2, 1));
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&bytes[..]));
        let mut texts = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let text = std::io::read_to_string(&mut entry).unwrap();
            texts.push((path, text));
        }
        assert_eq!(texts[0], ("top/a.txt".to_owned(), "is here".to_owned()));
        assert_eq!(texts[1].0, "top/README.txt");
        assert!(texts[1].1.contains("b.txt: gone for good"), "{}", texts[1].1);
    }

    #[tokio::test]
    async fn a_program_that_is_missing_is_an_error_and_not_the_end() {
        assert!(run_program("no-such-program-at-all x").await.is_err());
        let printed = run_program("uname -s").await.unwrap();
        assert!(printed.starts_with(b"$ uname -s\n"));
    }
}
