//! `holdfast events` and `holdfast why`: what a node has recorded.

use anyhow::bail;
use clap::Args;

use super::usage::number;
use super::{Out, block_on};
use crate::admin::{AdminAddress, AdminClient};
use crate::events::{Event, EventsDocument, why};
use crate::status::StatusDocument;

/// More than a node keeps.
const ALL: u32 = 100_000;

/// Arguments of `holdfast events`.
#[derive(Debug, Args)]
pub(super) struct EventsArgs {
    /// How many, the newest ones.
    #[arg(long, default_value_t = 50, value_parser = number::<u32>(1, u64::from(ALL)))]
    last: u32,
    /// Only of this extent, and of what concerns all.
    #[arg(long, value_name = "EXTENT")]
    extent: Option<String>,
    /// The other lines of the node's log, too: for support.
    #[arg(long)]
    all: bool,
}

/// Arguments of `holdfast why`.
#[derive(Debug, Args)]
pub(super) struct WhyArgs {
    /// The extent; default: all that have moved.
    extent: Option<String>,
}

/// `holdfast events`
pub(super) fn list(args: EventsArgs, admin: &AdminAddress, out: Out) -> anyhow::Result<()> {
    let EventsArgs { last, extent, all } = args;
    let asked = if extent.is_some() { ALL } else { last };
    let mut document = block_on(async {
        let mut client = AdminClient::connect(admin).await?;
        if let Some(extent) = &extent {
            find(&client.status().await?, extent)?;
        }
        client.events(asked, all).await
    })?;
    if let Some(extent) = &extent {
        let concerns = |event: &Event| event.extent.as_ref().is_none_or(|name| name == extent);
        document.events.retain(concerns);
        let first = document.events.len().saturating_sub(last as usize);
        document.events.drain(..first);
    }
    out.answer(&document, &text(&document))
}

fn text(document: &EventsDocument) -> String {
    let mut lines: Vec<String> = document.events.iter().map(Event::line).collect();
    if lines.is_empty() {
        lines.push(format!("{} has recorded nothing yet.", document.recorded_by));
    }
    if document.not_filed > 0 {
        lines.push(format!(
            "{} events are in the memory of {} alone: its disk was too slow for them",
            document.not_filed, document.recorded_by
        ));
    }
    lines.join("\n")
}

fn find(status: &StatusDocument, extent: &str) -> anyhow::Result<()> {
    if status.extents.iter().any(|known| known.name == extent) {
        return Ok(());
    }
    bail!("there is no extent '{extent}'; see 'holdfast extent list'")
}

/// `holdfast why`
pub(super) fn explain(args: WhyArgs, admin: &AdminAddress, out: Out) -> anyhow::Result<()> {
    let (status, document) = block_on(async {
        let mut client = AdminClient::connect(admin).await?;
        let status = client.status().await?;
        anyhow::Ok((status, client.events(ALL, false).await?))
    })?;
    let names = match args.extent {
        Some(extent) => {
            find(&status, &extent)?;
            vec![extent]
        }
        None => status.extents.iter().map(|extent| extent.name.clone()).collect(),
    };
    let stories: Vec<(String, Vec<String>)> = names
        .into_iter()
        .filter_map(|name| why(&document.events, &name).map(|story| (name, story)))
        .collect();
    let text = match stories.is_empty() {
        true => format!(
            "{} has recorded no change of a primary. The other nodes may have: holdfast why --admin ADDRESS",
            document.recorded_by
        ),
        false => {
            let stories: Vec<String> = stories.iter().map(|(_, story)| story.join("\n")).collect();
            stories.join("\n\n")
        }
    };
    let json = serde_json::json!({
        "recorded_by": document.recorded_by,
        "extents": stories
            .iter()
            .map(|(name, story)| serde_json::json!({"extent": name, "story": story}))
            .collect::<Vec<_>>(),
    });
    out.answer(&json, &text)
}
