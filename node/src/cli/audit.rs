//! `holdfast audit`: who has asked for what.

use clap::Args;
use holdfast_raft::model::AuditEntry;
use holdfast_types::utc;

use super::usage::number;
use super::{Out, block_on};
use crate::admin::{AdminAddress, AdminClient};

/// `holdfast audit`
#[derive(Debug, Args)]
pub(super) struct AuditArgs {
    /// How many of the newest calls.
    #[arg(long, default_value_t = 20, value_parser = number::<u32>(1, 10_000))]
    last: u32,
}

/// `holdfast audit`
pub(super) fn run(args: &AuditArgs, admin: &AdminAddress, out: Out) -> anyhow::Result<()> {
    let entries = block_on(async { AdminClient::connect(admin).await?.audit_log(args.last).await })?;
    out.answer(&entries, &text(&entries))
}

fn text(entries: &[AuditEntry]) -> String {
    if entries.is_empty() {
        return "Nobody has changed anything yet.".to_owned();
    }
    let line = |entry: &AuditEntry| {
        format!(
            "{} {} {} ({}) {}: {} -> {}",
            utc(entry.at / 1000),
            entry.node,
            entry.who,
            entry.from,
            entry.method,
            entry.request,
            entry.outcome
        )
    };
    entries.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_is_one_line() {
        let entry = AuditEntry {
            id: 1,
            at: 1_000,
            node: "a".into(),
            who: "operator 'jane'".into(),
            from: "192.0.2.9:5000".into(),
            method: "switchover".into(),
            request: "SwitchoverRequest { extents: [], to: \"b\" }".into(),
            outcome: "done".into(),
        };
        let shown = text(&[entry.clone(), entry]);
        assert_eq!(shown.lines().count(), 2);
        let end = "a operator 'jane' (192.0.2.9:5000) switchover: SwitchoverRequest { extents: [], to: \"b\" } -> done";
        assert!(shown.ends_with(end), "{shown}");
        assert_eq!(text(&[]), "Nobody has changed anything yet.");
    }
}
