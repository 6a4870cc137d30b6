//! Why two ends do not come together, in one line each, for people.

use std::io;

use rustls::{AlertDescription, CertificateError, Error};

use crate::{IssueError, Name};

/// Why there is no connection. The lines say "it" of the other end.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The connection broke.
    #[error("{0}")]
    Io(io::Error),
    /// Bytes that are not TLS.
    #[error(
        "it does not speak TLS: an older release, another program, or a node whose replication.tls is off"
    )]
    NotTls,
    /// The other end ended the connection in the middle of the handshake.
    #[error(
        "it ended the connection during the handshake: its log says why; do both run the same release, with the same replication.tls?"
    )]
    Ended,
    /// Issued by somebody else.
    #[error(
        "its certificate is not of this cluster's authority: another cluster, another cluster.key, or certificates of before a rotation"
    )]
    Authority,
    /// None was shown.
    #[error("it shows no certificate")]
    NoCertificate,
    /// It is somebody else.
    #[error("its certificate names {}, and {expected} was expected: check the configured addresses", list(.presented))]
    Name {
        /// Who was expected.
        expected: String,
        /// Who it is.
        presented: Vec<Name>,
    },
    /// The other end refuses this one's certificate, as far as TLS tells.
    #[error(
        "it does not take this node's certificate ({0}): another cluster, another cluster.key, or certificates of before a rotation"
    )]
    Alert(String),
    /// The other end says why it refuses.
    #[error("it refuses this node: {0}")]
    Refused(String),
    /// Anything else of TLS.
    #[error("TLS failed: {0}")]
    Tls(Error),
    /// This node has nothing to show yet.
    #[error("this node belongs to no cluster yet")]
    NoCluster,
    /// Nothing to show.
    #[error(transparent)]
    Issue(#[from] IssueError),
}

fn list(names: &[Name]) -> String {
    let shown: Vec<String> = names
        .iter()
        .filter(|name| !matches!(name, Name::Member { .. }))
        .map(ToString::to_string)
        .collect();
    if shown.is_empty() {
        "nobody".to_owned()
    } else {
        shown.join(" and ")
    }
}

impl HandshakeError {
    pub(crate) fn name(expected: impl std::fmt::Display, presented: Vec<Name>) -> Self {
        Self::Name {
            expected: expected.to_string(),
            presented,
        }
    }
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(tls) => tls.clone().into(),
            None if error.kind() == io::ErrorKind::UnexpectedEof => Self::Ended,
            None => Self::Io(error),
        }
    }
}

impl From<Error> for HandshakeError {
    fn from(error: Error) -> Self {
        match error {
            Error::InvalidMessage(_) | Error::InappropriateMessage { .. } => Self::NotTls,
            Error::NoCertificatesPresented => Self::NoCertificate,
            Error::InvalidCertificate(CertificateError::NotValidForNameContext { expected, presented }) => {
                let expected = expected.to_str();
                let expected =
                    Name::parse(&expected).map_or_else(|| expected.to_string(), |name| name.to_string());
                Self::name(expected, presented_names(&presented))
            }
            Error::InvalidCertificate(
                CertificateError::UnknownIssuer
                | CertificateError::BadSignature
                | CertificateError::BadEncoding,
            ) => Self::Authority,
            Error::AlertReceived(AlertDescription::ProtocolVersion | AlertDescription::DecodeError) => {
                Self::NotTls
            }
            Error::AlertReceived(alert) => Self::Alert(format!("{alert:?}")),
            other => Self::Tls(other),
        }
    }
}

/// rustls writes `DnsName("...")`.
fn presented_names(presented: &[String]) -> Vec<Name> {
    presented
        .iter()
        .filter_map(|text| Name::parse(text.trim_start_matches("DnsName(\"").trim_end_matches("\")")))
        .collect()
}
