//! What ends a connection.

use holdfast_types::IscsiName;

use crate::frame::FrameError;
use crate::pdu::{LoginStatus, Opcode};

/// The connection is lost. What is left in the outbox (a Reject, a Login Response) should be written if that works at once, then
/// the connection is closed.
/// Other connections are not concerned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fatal {
    /// The bytes are no PDUs.
    #[error("framing: {0}")]
    Frame(#[from] FrameError),
    /// A PDU that the protocol does not allow here.
    #[error("{opcode}: {problem}")]
    Protocol {
        /// The PDU.
        opcode: Opcode,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The login was refused; its response is in the outbox.
    #[error("login refused ({status}): {reason}")]
    LoginRefused {
        /// As sent.
        status: LoginStatus,
        /// Why.
        reason: String,
    },
    /// The target of the login is not known here, and this node cannot say for sure that it does not exist (I8).
    #[error("login to {0}, which this node does not know (yet)")]
    TargetUnknown(IscsiName),
    /// The login needs secrets that this node cannot read (I8).
    #[error("login that needs secrets which this node cannot read")]
    SecretsUnreadable,
    /// No end of the login in time.
    #[error("login not finished in time")]
    LoginTimeout,
    /// Nothing heard after a ping.
    #[error("initiator does not answer a ping")]
    PeerSilent,
    /// The connection had ended before.
    #[error("the connection is over")]
    Over,
}
