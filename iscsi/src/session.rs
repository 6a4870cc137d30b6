//! Which sessions a node has: TSIHs and reinstatement. Shared by all portals of a node, without I/O.

use std::collections::HashMap;
use std::net::IpAddr;

use holdfast_types::{IscsiName, Isid, Nexus, TpgId};

use crate::directory::GroupName;
use crate::pdu::LoginStatus;

/// The target's part of a session id (RFC 7143, 11.13.3). Not 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tsih(pub u16);

/// A session of this run of this node. Never used again; the `serial` of a `SessionInstance` (F1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionSerial(pub u64);

/// What kind of session a login asks for, and of what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionKind {
    /// SCSI commands to this target.
    Normal {
        /// The target.
        target: IscsiName,
    },
    /// Discovery only (RFC 7143, 4.3).
    Discovery,
}

/// A login that is through its negotiation and waits for the owner's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginRequested {
    /// Who.
    pub initiator: IscsiName,
    /// InitiatorAlias, where given.
    pub initiator_alias: Option<String>,
    /// The initiator's part of the session id.
    pub isid: Isid,
    /// What for.
    pub kind: SessionKind,
    /// The portal group it came in through.
    pub tpg: TpgId,
    /// TSIH of the session that it wants to be part of; `None` for a new session.
    pub tsih: Option<Tsih>,
    /// Connection id.
    pub cid: u16,
    /// Where it came from.
    pub peer: IpAddr,
    /// The initiator group that lets it in; `None` where everyone may use the target.
    pub group: Option<GroupName>,
    /// The CHAP user that it has proven to be.
    pub user: Option<String>,
}

impl LoginRequested {
    /// The I_T nexus of a normal session.
    pub fn nexus(&self) -> Option<Nexus> {
        match &self.kind {
            SessionKind::Normal { target } => Some(Nexus {
                initiator: self.initiator.clone(),
                isid: self.isid,
                target: target.clone(),
                tpg: self.tpg,
            }),
            SessionKind::Discovery => None,
        }
    }
}

/// What is to be done with a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Accept it.
    New {
        /// The session's name in this run.
        session: SessionSerial,
        /// Its TSIH.
        tsih: Tsih,
    },
    /// Session reinstatement (RFC 7143, 6.3.5): close `old`, with its tasks, and accept only then (F2).
    Reinstate {
        /// The session that the initiator replaces.
        old: SessionSerial,
        /// The new session's name in this run.
        session: SessionSerial,
        /// Its TSIH.
        tsih: Tsih,
    },
    /// Refuse it with this status.
    Refuse(LoginStatus),
    /// All 65,535 TSIHs are in use: drop the connection (I8 leaves no status for it).
    Full,
}

#[derive(Debug, Clone)]
struct Entry {
    tsih: Tsih,
    cid: u16,
    nexus: Option<Nexus>,
}

/// All sessions of a node.
#[derive(Debug, Default)]
pub struct SessionTable {
    sessions: HashMap<SessionSerial, Entry>,
    by_nexus: HashMap<Nexus, SessionSerial>,
    by_tsih: HashMap<Tsih, SessionSerial>,
    last_serial: u64,
    last_tsih: u16,
}

impl SessionTable {
    /// An empty table: a node's run begins.
    pub fn new() -> Self {
        Self::default()
    }

    /// Judges a login and enters it. From here on the new session owns its nexus: a second login of the same nexus, however
    /// early, replaces it in turn.
    /// Whoever is entered must be [ended](Self::end), whether its login went well or not.
    pub fn begin(&mut self, login: &LoginRequested) -> Admission {
        if let Some(tsih) = login.tsih {
            return Admission::Refuse(self.refusal(login, tsih));
        }
        let Some(tsih) = self.free_tsih() else {
            return Admission::Full;
        };
        self.last_serial += 1;
        let session = SessionSerial(self.last_serial);
        let nexus = login.nexus();
        let old = nexus
            .as_ref()
            .and_then(|nexus| self.by_nexus.insert(nexus.clone(), session));
        self.by_tsih.insert(tsih, session);
        let cid = login.cid;
        self.sessions.insert(session, Entry { tsih, cid, nexus });
        match old {
            Some(old) => Admission::Reinstate { old, session, tsih },
            None => Admission::New { session, tsih },
        }
    }

    /// Whether a new session would be one too many for its target, which has `most` of them at most. One that takes another's place is not.
    pub fn is_full_for(&self, login: &LoginRequested, most: Option<u32>) -> bool {
        let (Some(most), Some(nexus)) = (most, login.nexus()) else {
            return false;
        };
        if self.by_nexus.contains_key(&nexus) {
            return false;
        }
        let of_target = self.by_nexus.keys().filter(|other| other.target == nexus.target);
        u32::try_from(of_target.count()).is_ok_and(|count| count >= most)
    }

    /// Why a login into an existing session is refused: sessions have one connection (MaxConnections=1) and ErrorRecoveryLevel is 0.
    fn refusal(&self, login: &LoginRequested, tsih: Tsih) -> LoginStatus {
        let entry = self
            .by_tsih
            .get(&tsih)
            .and_then(|session| self.sessions.get(session));
        match entry {
            Some(entry) if entry.nexus.is_some() && entry.nexus == login.nexus() => {
                if entry.cid == login.cid {
                    LoginStatus::CANNOT_INCLUDE
                } else {
                    LoginStatus::TOO_MANY_CONNECTIONS
                }
            }
            _ => LoginStatus::NO_SUCH_SESSION,
        }
    }

    fn free_tsih(&mut self) -> Option<Tsih> {
        for _ in 0..u16::MAX {
            self.last_tsih = self.last_tsih.checked_add(1).unwrap_or(1);
            let tsih = Tsih(self.last_tsih);
            if !self.by_tsih.contains_key(&tsih) {
                return Some(tsih);
            }
        }
        None
    }

    /// Takes a session out. Its nexus stays with the session that replaced it, if any. Ending twice does nothing.
    pub fn end(&mut self, session: SessionSerial) {
        let Some(entry) = self.sessions.remove(&session) else {
            return;
        };
        self.by_tsih.remove(&entry.tsih);
        if let Some(nexus) = entry.nexus
            && self.by_nexus.get(&nexus) == Some(&session)
        {
            self.by_nexus.remove(&nexus);
        }
    }

    /// The session that has this nexus.
    pub fn of_nexus(&self, nexus: &Nexus) -> Option<SessionSerial> {
        self.by_nexus.get(nexus).copied()
    }

    /// The nexus of a normal session.
    pub fn nexus(&self, session: SessionSerial) -> Option<&Nexus> {
        self.sessions.get(&session)?.nexus.as_ref()
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }
}

#[cfg(test)]
#[path = "session_test.rs"]
mod tests;
