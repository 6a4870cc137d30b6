//! What a path says about the logical unit behind it.

use anyhow::{Context, Result, ensure};
use holdfast_drill::initiator::Session;

/// Names and numbers of a logical unit and of the port it was asked through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Vendor and product of standard INQUIRY data, blanks at the end cut.
    pub product: (String, String),
    /// Unit serial number (VPD page 80h).
    pub serial: String,
    /// NAA designators of the logical unit (VPD page 83h).
    pub naa: Vec<Vec<u8>>,
    /// Relative target port identifier of the port.
    pub port: u16,
    /// Target port group of the port.
    pub group: u16,
}

const NAA: u8 = 3;
const RELATIVE_PORT: u8 = 4;
const PORT_GROUP: u8 = 5;
const ASSOCIATION_UNIT: u8 = 0;
const ASSOCIATION_PORT: u8 = 1;

/// One designator: its type, its association, and its bytes (SPC-5, 7.8.6.1).
fn designators(page: &[u8]) -> Result<Vec<(u8, u8, &[u8])>> {
    let length = page.get(2..4).context("a page of four bytes at least")?;
    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
    let mut rest = page.get(4..4 + length).context("page 83h is cut short")?;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let head = rest.get(..4).context("a designator of four bytes at least")?;
        let end = 4 + usize::from(head[3]);
        let bytes = rest.get(4..end).context("a designator is cut short")?;
        found.push((head[1] & 0xf, head[1] >> 4 & 3, bytes));
        rest = &rest[end..];
    }
    Ok(found)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}

/// Asks one path.
///
/// # Errors
/// A command fails, or a page is not laid out as SPC says.
pub async fn identity(session: &Session) -> Result<Identity> {
    let standard = session.inquiry(None).await?;
    ensure!(
        standard.len() >= 36,
        "standard INQUIRY data of {} bytes",
        standard.len()
    );
    let serial = session.inquiry(Some(0x80)).await?;
    let page = session.inquiry(Some(0x83)).await?;
    let all = designators(&page)?;
    let number = |kind: u8| -> Result<u16> {
        let mut ports = all
            .iter()
            .filter(|entry| entry.0 == kind && entry.1 == ASSOCIATION_PORT);
        let (.., bytes) = ports
            .next()
            .with_context(|| format!("page 83h has a designator of type {kind}"))?;
        ensure!(bytes.len() == 4, "a designator of type {kind} has four bytes");
        Ok(u16::from_be_bytes([bytes[2], bytes[3]]))
    };
    let of_unit = all
        .iter()
        .filter(|entry| entry.0 == NAA && entry.1 == ASSOCIATION_UNIT);
    Ok(Identity {
        product: (text(&standard[8..16]), text(&standard[16..32])),
        serial: text(serial.get(4..).unwrap_or_default()),
        naa: of_unit.map(|(.., bytes)| bytes.to_vec()).collect(),
        port: number(RELATIVE_PORT)?,
        group: number(PORT_GROUP)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn designators_are_taken_apart() {
        let page = [0, 0x83, 0, 14, 1, 3, 0, 2, 0x60, 0x01, 1, 0x14, 0, 4, 0, 0, 0, 7];
        let wanted: [(u8, u8, &[u8]); 2] = [(3, 0, &[0x60, 0x01]), (4, 1, &[0, 0, 0, 7])];
        assert_eq!(designators(&page).unwrap(), wanted);
        assert!(designators(&page[..17]).is_err());
        assert!(designators(&[0, 0x83, 0, 2, 1, 3]).is_err());
        assert!(designators(&[]).is_err());
    }
}
