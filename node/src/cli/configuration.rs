//! `holdfast export` and `holdfast apply`: the configuration of a cluster as one document.

use std::collections::BTreeMap;
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail, ensure};
use clap::{Args, Subcommand};
use holdfast_proto::admin::Done;
use holdfast_types::Secret;
use serde::Serialize;

use super::access::read_secret;
use super::{Out, block_on};
use crate::admin::access::SecretText;
use crate::admin::{AdminAddress, AdminClient};
use crate::configuration::{
    Call, Configuration, Difference, Plan, Present, SecretPlace, lio, plan, read, scst,
};
use crate::status::StatusDocument;

/// Bytes of a document at most; far above what the limits of a cluster allow.
const DOCUMENT_BYTES_MAX: u64 = 64 << 20;

/// `holdfast export`
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// Write it to this file, which is replaced as a whole; default: standard output.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// `holdfast apply`
#[derive(Debug, Args)]
pub(super) struct ApplyArgs {
    /// The document, as 'holdfast export' writes it; '-' is standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Carry the difference out without asking.
    #[arg(long)]
    yes: bool,
    /// Delete what the document does not have: LUNs, targets, groups, CHAP users, iSNS servers; settings go back to their defaults. Extents
    /// stay all the same: 'holdfast extent delete' deletes data, and nothing else does.
    #[arg(long)]
    prune: bool,
}

/// `holdfast import`
#[derive(Debug, Subcommand)]
pub(super) enum ImportCommand {
    /// Make a document of LIO's configuration, as targetcli saves it.
    Lio {
        /// /etc/rtslib-fb-target/saveconfig.json or /etc/target/saveconfig.json; '-' is standard input.
        file: PathBuf,
    },
    /// Make a document of SCST's configuration, as scstadmin writes it.
    Scst {
        /// /etc/scst.conf; '-' is standard input.
        file: PathBuf,
    },
}

/// What `apply --json` prints.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    /// Whether all is as the document says.
    done: bool,
    changes: &'a [Difference],
    notes: &'a [String],
    /// Requests to the cluster.
    steps: usize,
    steps_done: usize,
    warnings: Vec<String>,
}

impl<'a> Answer<'a> {
    fn of(plan: &'a Plan) -> Self {
        Self {
            done: false,
            changes: &plan.differences,
            notes: &plan.notes,
            steps: plan.steps.len(),
            steps_done: 0,
            warnings: Vec::new(),
        }
    }
}

/// What is configured, and the status that it was read from.
pub(super) async fn present(client: &mut AdminClient) -> anyhow::Result<(StatusDocument, Present)> {
    let settings = client.settings().await?;
    let status = client.status().await?;
    let present = Present::of(&status, settings).map_err(anyhow::Error::msg)?;
    Ok((status, present))
}

/// `holdfast export`
pub(super) fn export(args: &ExportArgs, admin: &AdminAddress, out: Out) -> anyhow::Result<()> {
    let (status, present) = block_on(async { present(&mut AdminClient::connect(admin).await?).await })?;
    if !status.quorum {
        let node = &status.answered_by;
        out.failed(&anyhow!(
            "warning: {node} knows of no quorum: this is the last state that it knows, and may be old"
        ));
    }
    let configuration = &present.configuration;
    let text = configuration.to_toml();
    let Some(path) = &args.output else {
        return out.answer(configuration, &text);
    };
    write(path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    let message = format!("The configuration is in {}.", path.display());
    out.answer(&serde_json::json!({"done": true, "message": message}), &message)
}

/// `holdfast import`
pub(super) fn import(command: &ImportCommand, out: Out) -> anyhow::Result<()> {
    let (ImportCommand::Lio { file } | ImportCommand::Scst { file }) = command;
    let (text, name, _) = document(file)?;
    let made = match command {
        ImportCommand::Lio { .. } => lio(&text),
        ImportCommand::Scst { .. } => scst(&text),
    };
    let made = made.map_err(|fault| anyhow!("{name}: {fault}"))?;
    out.answer(&made, &made.text(&name))
}

/// Replaces a file as a whole: whoever keeps the last export never has half of one.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let mut file = tempfile::NamedTempFile::new_in(dir.unwrap_or(Path::new(".")))?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// The text of the document, its name for people, and the directory that files are named from.
fn document(path: &Path) -> anyhow::Result<(String, String, PathBuf)> {
    let mut bytes = Vec::new();
    let is_stdin = path == Path::new("-");
    let name = if is_stdin {
        "standard input".to_owned()
    } else {
        path.display().to_string()
    };
    let cannot = || format!("cannot read {name}");
    let limit = DOCUMENT_BYTES_MAX + 1;
    if is_stdin {
        io::stdin()
            .take(limit)
            .read_to_end(&mut bytes)
            .with_context(cannot)?;
    } else {
        let file = std::fs::File::open(path).with_context(cannot)?;
        file.take(limit).read_to_end(&mut bytes).with_context(cannot)?;
    }
    ensure!(
        bytes.len() as u64 <= DOCUMENT_BYTES_MAX,
        "{name} is no configuration: it has more than {} MiB",
        DOCUMENT_BYTES_MAX >> 20
    );
    let text = String::from_utf8(bytes).map_err(|_| anyhow!("{name} is no configuration: it is not text"))?;
    let dir = path.parent().filter(|_| !is_stdin).unwrap_or(Path::new(""));
    Ok((text, name, dir.to_owned()))
}

/// Every fault on a line of its own; the last one is the command's failure.
fn refused(name: &str, mut faults: Vec<String>, out: Out) -> anyhow::Error {
    let last = faults.pop().unwrap_or_default();
    for fault in faults {
        out.failed(&anyhow!("{name}: {fault}"));
    }
    anyhow!("{name}: {last}; nothing was changed")
}

/// Reads the secrets that a plan asks for, and checks them.
fn secrets(plan: &Plan, dir: &Path) -> Result<BTreeMap<SecretPlace, SecretText>, Vec<String>> {
    let mut found: BTreeMap<SecretPlace, SecretText> = BTreeMap::new();
    let mut faults = Vec::new();
    for step in &plan.steps {
        let Call::Secret(place) = &step.call else { continue };
        let read = read_secret(Some(&dir.join(&place.file))).and_then(|text| {
            Secret::new(text.0.as_bytes().to_vec())?;
            let mut others = found.iter();
            let other_way = |other: &SecretPlace| other.group == place.group && other.mutual != place.mutual;
            let clash = others.any(|(other, known)| other_way(other) && known.0 == text.0);
            ensure!(
                !clash,
                "this secret is used in the other direction already: RFC 7143 wants two"
            );
            Ok(text)
        });
        match read {
            Ok(text) => drop(found.insert(place.clone(), text)),
            Err(error) => faults.push(format!(
                "{}: secret_file = '{}': {error:#}",
                step.object, place.file
            )),
        }
    }
    if faults.is_empty() { Ok(found) } else { Err(faults) }
}

/// Shows the difference; what `--json` shows at the end.
fn show(plan: &Plan, out: Out) -> anyhow::Result<()> {
    if out.json() {
        return Ok(());
    }
    let notes = plan.notes.iter().cloned();
    let lines: Vec<String> = notes
        .chain(plan.differences.iter().map(ToString::to_string))
        .collect();
    if lines.is_empty() {
        return Ok(());
    }
    out.text(&lines.join("\n"))
}

/// Whether a terminal says yes; `None` where there is nobody to ask.
fn asked(args: &ApplyArgs, out: Out) -> anyhow::Result<Option<bool>> {
    if out.json() || args.file == Path::new("-") || !io::stdin().is_terminal() || !io::stderr().is_terminal()
    {
        return Ok(None);
    }
    write!(io::stderr(), "Carry this out? [y/N] ")?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(Some(matches!(line.trim(), "y" | "Y" | "yes")))
}

/// `holdfast apply`
pub(super) fn apply(args: &ApplyArgs, admin: &AdminAddress, out: Out) -> anyhow::Result<()> {
    let (text, name, dir) = document(&args.file)?;
    let wanted = read(&text).map_err(|faults| refused(&name, faults, out))?;
    let make = || block_on(async { planned(&wanted, args.prune, &name, admin, out).await });
    let plan = make()?;
    let secrets = secrets(&plan, &dir).map_err(|faults| refused(&name, faults, out))?;
    show(&plan, out)?;
    let mut answer = Answer::of(&plan);
    if plan.differences.is_empty() {
        answer.done = true;
        return out.answer(&answer, "Nothing is to change.");
    }
    if !args.yes {
        match asked(args, out)? {
            Some(true) => ensure!(
                make()?.differences == plan.differences,
                "nothing was changed: somebody else has changed the cluster meanwhile; look at the new difference first"
            ),
            Some(false) => bail!("nothing was changed"),
            None => {
                if out.json() {
                    out.document(&answer)?;
                }
                bail!("nothing was changed: add --yes to carry this out");
            }
        }
    }
    let ended = block_on(async {
        let mut client = AdminClient::connect(admin).await?;
        carry_out(&plan, &secrets, &mut client, &mut answer, out).await
    });
    answer.done = ended.is_ok();
    match ended {
        Ok(()) => {
            let text = format!("Done: {} changes.", plan.differences.len());
            out.answer(&answer, &text)
        }
        Err(error) => {
            if out.json() {
                out.document(&answer)?;
            }
            Err(error)
        }
    }
}

async fn planned(
    wanted: &Configuration,
    prune: bool,
    name: &str,
    admin: &AdminAddress,
    out: Out,
) -> anyhow::Result<Plan> {
    let (status, present) = present(&mut AdminClient::connect(admin).await?).await?;
    ensure!(
        status.quorum,
        "nothing was changed: {} knows of no quorum, so nothing can be changed there; see 'holdfast status'",
        status.answered_by
    );
    plan(wanted, &present, prune).map_err(|faults| refused(name, faults, out))
}

/// Makes one request after the other. What was done before one fails stays.
async fn carry_out(
    plan: &Plan,
    secrets: &BTreeMap<SecretPlace, SecretText>,
    client: &mut AdminClient,
    answer: &mut Answer<'_>,
    out: Out,
) -> anyhow::Result<()> {
    for (number, step) in plan.steps.iter().enumerate() {
        let done = request(&step.call, secrets, client).await.with_context(|| {
            let all = plan.steps.len();
            format!(
                "{number} of {all} steps are done, and run again this goes on from there; it stopped at {}",
                step.object
            )
        })?;
        answer.steps_done = number + 1;
        out.narrate(&done.message);
        for warning in &done.warnings {
            out.narrate(&format!("Warning: {warning}"));
        }
        answer.warnings.extend(done.warnings);
    }
    Ok(())
}

async fn request(
    call: &Call,
    secrets: &BTreeMap<SecretPlace, SecretText>,
    client: &mut AdminClient,
) -> anyhow::Result<Done> {
    match call {
        Call::CreateExtent(request) => client.create_extent(request.clone()).await,
        Call::ConfirmedReads(request) => client.set_confirmed_reads(request.clone()).await,
        Call::WriteCache(request) => client.set_write_cache(request.clone()).await,
        Call::CreateTarget(request) => client.create_target(request.clone()).await,
        Call::MapLun(request) => client.map_lun(request.clone()).await,
        Call::Change(change) => client.change(change.clone()).await,
        Call::Access(request) => client.change_access(request).await,
        Call::Secret(place) => {
            let secret = secrets.get(place).context("its secret was not read")?;
            client.change_access(&place.request(secret.clone())).await
        }
    }
}
