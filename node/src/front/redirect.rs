//! Logins that are made elsewhere: a node that drains, leaves or stops helps initiators that know only its portal to another one, for
//! targets that want it.
//!
//! Only where all is said: who may come in has been judged, and the session whose place the login takes is gone with all that storage
//! had of it (F2). So no command of the old session takes effect after one that the initiator sends through the other node.

use std::net::{IpAddr, SocketAddr};

use holdfast_iscsi::session::{SessionKind, Tsih};
use holdfast_types::Mono;

use super::session::Session;

/// Seconds in which an initiator is asked to log out of a node that has given its extents away. It is served on if it does not.
const LOGOUT_WITHIN: u16 = 10;

/// The portal whose address is most like the one at which the initiator came in, of the same kind in any case; the first of several.
pub(super) fn closest(portals: &[SocketAddr], local: IpAddr) -> Option<SocketAddr> {
    let alike = portals
        .iter()
        .filter_map(|portal| Some((common_bits(portal.ip(), local)?, portal)));
    let (_, portal) = alike.min_by_key(|(bits, _)| std::cmp::Reverse(*bits))?;
    Some(*portal)
}

/// How many bits two addresses have in common from the first one on; `None` where they are of different kinds.
fn common_bits(a: IpAddr, b: IpAddr) -> Option<u32> {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => Some((a.to_bits() ^ b.to_bits()).leading_zeros()),
        (IpAddr::V6(a), IpAddr::V6(b)) => Some((a.to_bits() ^ b.to_bits()).leading_zeros()),
        _ => None,
    }
}

impl Session {
    /// Where the initiator is to log in instead, where this node is `stopping` or not.
    fn elsewhere(&self, stopping: bool) -> Option<SocketAddr> {
        let SessionKind::Normal { target } = &self.logged_in.as_ref()?.login.kind else {
            return None;
        };
        let local: IpAddr = self.ends.0.parse::<SocketAddr>().ok()?.ip();
        let state = self.front.state.borrow();
        state.elsewhere(target, self.front.node, stopping, local)
    }

    /// A login may be let in: it is, unless it is to be made elsewhere.
    pub(super) fn let_in(&mut self, tsih: Tsih, now: Mono) {
        match self.elsewhere(self.front.registry.is_stopping()) {
            Some(portal) => {
                tracing::info!(peer = self.ends.1, %portal, "a login is sent elsewhere");
                self.iscsi.redirect_login(portal);
            }
            None => drop(self.iscsi.accept_login(tsih, now)),
        }
    }

    /// Committed state has changed: an initiator that would be sent elsewhere now is asked to log out, once. A node that stops asks all of
    /// them.
    pub(super) fn ask_away(&mut self) {
        let away = self.elsewhere(false).is_some();
        // Before it is let in nothing can be asked of it.
        let in_session = self.iscsi.parameters().is_some();
        if let Some(session) = &mut self.logged_in
            && in_session
            && std::mem::replace(&mut session.asked_away, away) != away
            && away
        {
            self.iscsi.request_logout(LOGOUT_WITHIN);
        }
    }
}
