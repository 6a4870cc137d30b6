//! Who logs in, where, and how.

use holdfast_types::{IscsiName, Isid};

use super::ChapLogin;
use crate::serial::Sn;

/// Who logs in, where, and with what keys.
#[derive(Debug, Clone)]
pub struct Settings {
    /// InitiatorName.
    pub name: IscsiName,
    /// The initiator's part of the session id.
    pub isid: Isid,
    /// The target; `None` for a discovery session.
    pub target: Option<IscsiName>,
    /// The keys of the operational stage, in order. Numbers and digests in them are what this side offers or declares.
    pub keys: Vec<(String, String)>,
    /// AuthMethod to offer in the security stage; `None` skips that stage.
    pub auth_method: Option<String>,
    /// As whom to authenticate, where `auth_method` offers CHAP.
    pub chap: Option<ChapLogin>,
    /// CmdSN of the login.
    pub cmd_sn: Sn,
    /// TSIH of the login; 0 for a new session.
    pub tsih: u16,
    /// Connection id.
    pub cid: u16,
    /// Whether writes send unsolicited Data-Out where InitialR2T=No allows it.
    pub unsolicited: bool,
}

impl Settings {
    /// Usual keys: large segments, immediate and unsolicited data, no digests. Add to or change `keys` as needed.
    pub fn new(name: IscsiName, target: Option<IscsiName>) -> Self {
        let keys = [
            ("HeaderDigest", "None"),
            ("DataDigest", "None"),
            ("InitialR2T", "No"),
            ("ImmediateData", "Yes"),
            ("MaxRecvDataSegmentLength", "262144"),
            ("MaxBurstLength", "1048576"),
            ("FirstBurstLength", "262144"),
            ("MaxOutstandingR2T", "1"),
            ("MaxConnections", "1"),
            ("DataPDUInOrder", "Yes"),
            ("DataSequenceInOrder", "Yes"),
            ("ErrorRecoveryLevel", "0"),
            ("DefaultTime2Wait", "2"),
            ("DefaultTime2Retain", "0"),
        ];
        Self {
            name,
            isid: Isid([0x80, 0, 0, 0, 0, 1]),
            target,
            keys: keys
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            auth_method: Some("None".to_owned()),
            chap: None,
            cmd_sn: Sn(1),
            tsih: 0,
            cid: 0,
            unsolicited: true,
        }
    }

    /// Offers CHAP, and None for targets that want no proof.
    #[must_use]
    pub fn with_chap(mut self, chap: ChapLogin) -> Self {
        self.auth_method = Some("CHAP,None".to_owned());
        self.chap = Some(chap);
        self
    }

    /// Replaces a key's value, or adds the key.
    #[must_use]
    pub fn with_key(mut self, key: &str, value: &str) -> Self {
        match self.keys.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) => value.clone_into(old),
            None => self.keys.push((key.to_owned(), value.to_owned())),
        }
        self
    }
}
