//! `holdfast reservation`: who has reserved what, and clearing it.

use anyhow::Context;
use clap::Subcommand;
use holdfast_proto::admin::ClearReservationsRequest;
use holdfast_types::IscsiName;

use super::objects::print_done;
use super::usage::number;
use super::{Out, block_on};
use crate::admin::{AdminAddress, AdminClient};
use crate::status::{ReservationStatus, StatusDocument};

/// `holdfast reservation …`
#[derive(Debug, Subcommand)]
pub(super) enum ReservationCommand {
    /// List the extents that somebody has registered with or reserved.
    List,
    /// Show one extent's registrations and reservation.
    Show {
        /// The extent's name.
        extent: String,
    },
    /// Take all registrations and reservations of a LUN away: for hosts that are gone for good. Hosts that are still there hear 06/2A/03.
    Clear {
        /// The target.
        iqn: IscsiName,
        /// The LUN.
        #[arg(long, value_parser = number::<u32>(0, 16383))]
        lun: u32,
    },
}

/// Extents with something to show.
fn reserved(status: &StatusDocument) -> Vec<(&str, &ReservationStatus)> {
    let found = status.extents.iter();
    found
        .filter_map(|extent| Some((extent.name.as_str(), extent.reservation.as_ref()?)))
        .collect()
}

fn list_text(reserved: &[(&str, &ReservationStatus)]) -> String {
    if reserved.is_empty() {
        return "Nothing is reserved.".to_owned();
    }
    let mut text = format!("{:<20} {:<34} {}", "EXTENT", "RESERVATION", "REGISTRATIONS");
    for (name, reservation) in reserved {
        let kind = reservation.kind.as_deref().unwrap_or("none");
        text.push_str(&format!(
            "\n{name:<20} {kind:<34} {}",
            reservation.registrations.len()
        ));
    }
    text
}

fn show_text(name: &str, reservation: &ReservationStatus) -> String {
    let mut text = match &reservation.kind {
        Some(kind) => format!("Extent {name} is reserved: {kind}."),
        None => format!("Extent {name} has registrations and no reservation."),
    };
    text.push_str(&format!("\nGeneration {}.", reservation.generation));
    for one in &reservation.registrations {
        let holder = if one.holder { ", holder" } else { "" };
        text.push_str(&format!(
            "\n  {} through {}, key {}{holder}",
            one.initiator, one.port, one.key
        ));
    }
    text
}

/// `holdfast reservation …`
pub(super) fn run(command: ReservationCommand, admin: &AdminAddress, out: Out) -> anyhow::Result<()> {
    match command {
        ReservationCommand::List => {
            let status = block_on(async { AdminClient::connect(admin).await?.status().await })?;
            let reserved = reserved(&status);
            let text = list_text(&reserved);
            let document: std::collections::BTreeMap<_, _> = reserved.into_iter().collect();
            out.answer(&document, &text)
        }
        ReservationCommand::Show { extent } => {
            let status = block_on(async { AdminClient::connect(admin).await?.status().await })?;
            let found = status.extents.iter().find(|one| one.name == extent);
            let found = found
                .with_context(|| format!("there is no extent '{extent}'; see 'holdfast extent list'"))?;
            let text = match &found.reservation {
                Some(reservation) => show_text(&extent, reservation),
                None => format!("Nobody has registered with extent {extent} or reserved it."),
            };
            out.answer(&found.reservation, &text)
        }
        ReservationCommand::Clear { iqn, lun } => {
            let iqn = iqn.to_string();
            let request = ClearReservationsRequest { iqn, lun };
            let done = block_on(async {
                AdminClient::connect(admin)
                    .await?
                    .clear_reservations(request)
                    .await
            })?;
            print_done(&done, out)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::RegistrationStatus;

    #[test]
    fn reservations_in_words() {
        let reservation = ReservationStatus {
            kind: Some("write exclusive, registrants only".to_owned()),
            generation: 7,
            aptpl: true,
            registrations: vec![RegistrationStatus {
                initiator: "iqn.2026-11.example:host,i,0x800000000001".to_owned(),
                port: "iqn.2026-11.example:disk,t,0x0001".to_owned(),
                key: "0x0000000000001234".to_owned(),
                holder: true,
            }],
        };
        let text = show_text("disk", &reservation);
        assert!(
            text.starts_with("Extent disk is reserved: write exclusive, registrants only.\nGeneration 7.")
        );
        assert!(text.ends_with("key 0x0000000000001234, holder"), "{text}");
        let list = list_text(&[("disk", &reservation)]);
        assert!(list.contains("disk") && list.ends_with('1'), "{list}");
        assert_eq!(list_text(&[]), "Nothing is reserved.");
    }
}
