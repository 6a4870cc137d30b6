//! What TLS is told: version 1.3 alone, certificates on both sides, nothing that outlives a connection.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::{Authority, HandshakeError, IssueError, Leaf, Name};

/// What a connection is for. What is meant for one port is refused at another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// Raft, and the call with which a node joins.
    Raft,
    /// Replication and forwarded commands.
    Link,
    /// Administration.
    Admin,
}

impl Port {
    /// For people.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Raft => "Raft",
            Self::Link => "replication",
            Self::Admin => "admin",
        }
    }

    /// Protocols as TLS negotiates them (ALPN). The admin port speaks what everybody speaks.
    fn protocols(self) -> Vec<Vec<u8>> {
        let names: &[&str] = match self {
            Self::Raft => &["holdfast-raft/1"],
            Self::Link => &["holdfast-link/1"],
            Self::Admin => &["h2", "http/1.1"],
        };
        names.iter().map(|name| name.as_bytes().to_vec()).collect()
    }

    /// Whether a connection was made for this port: both sides have agreed on its protocol.
    pub(crate) fn is_agreed(self, agreed: Option<&[u8]>) -> bool {
        self == Self::Admin || agreed.is_some_and(|agreed| self.protocols().iter().any(|name| name == agreed))
    }
}

fn provider() -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    // Replication moves gigabytes: where the processor has AES, the shorter key is the faster one, and strong enough.
    provider.cipher_suites = vec![
        ring::cipher_suite::TLS13_AES_128_GCM_SHA256,
        ring::cipher_suite::TLS13_AES_256_GCM_SHA384,
        ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(provider)
}

fn store<'a>(
    roots: impl IntoIterator<Item = &'a CertificateDer<'static>>,
) -> Result<RootCertStore, IssueError> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).map_err(|error| IssueError::of(&error))?;
    }
    Ok(store)
}

fn clone_key(leaf: &Leaf) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Pkcs8(leaf.key.clone_key())
}

/// For a side that dials: shows `leaf`, takes what `roots` have issued.
pub(crate) fn client<'a>(
    port: Port,
    roots: impl IntoIterator<Item = &'a Authority>,
    leaf: &Leaf,
) -> Result<Arc<ClientConfig>, IssueError> {
    let roots = store(roots.into_iter().map(Authority::root))?;
    client_with(port, roots, leaf.certificate.clone(), clone_key(leaf))
}

fn client_with(
    port: Port,
    roots: RootCertStore,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ClientConfig>, IssueError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| IssueError::of(&error))?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate], key)
        .map_err(|error| IssueError::of(&error))?;
    config.alpn_protocols = port.protocols();
    // A session taken up again would show a certificate of before a rotation.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// For a side that listens: shows `leaf`, wants a certificate that `roots` have issued.
pub(crate) fn server<'a>(
    port: Port,
    roots: impl IntoIterator<Item = &'a Authority>,
    leaf: &Leaf,
) -> Result<Arc<ServerConfig>, IssueError> {
    let roots = store(roots.into_iter().map(Authority::root))?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|error| IssueError::of(&error))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| IssueError::of(&error))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![leaf.certificate.clone()], clone_key(leaf))
        .map_err(|error| IssueError::of(&error))?;
    config.alpn_protocols = port.protocols();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Whom a certificate names.
pub(crate) fn names_in(certificate: &CertificateDer<'_>) -> Vec<Name> {
    // It was verified before, so it can be read.
    webpki::EndEntityCert::try_from(certificate)
        .map(|parsed| parsed.valid_dns_names().filter_map(Name::parse).collect())
        .unwrap_or_default()
}

/// What an administrator's file holds: a certificate, its private key, and the authority's certificate.
#[derive(Debug, Clone)]
pub struct Credentials {
    pub(crate) config: Arc<ClientConfig>,
    /// The cluster that they are for.
    pub cluster: u128,
}

impl Credentials {
    /// Reads a file's contents.
    ///
    /// # Errors
    /// One line: what is missing in it.
    pub fn from_pem(pem: &[u8]) -> Result<Self, HandshakeError> {
        let wrong = |what: &str| HandshakeError::Issue(IssueError(what.to_owned()));
        let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<_, _>>()
            .map_err(|_| wrong("the file holds no certificates"))?;
        let [leaf, root] = &certificates[..] else {
            return Err(wrong(
                "the file must hold a certificate and that of its authority",
            ));
        };
        let key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| wrong("the file holds no private key"))?;
        let cluster = names_in(leaf).into_iter().find_map(|name| match name {
            Name::Admin { cluster, .. } => Some(cluster),
            _ => None,
        });
        let cluster = cluster.ok_or_else(|| wrong("the certificate is no administrator's"))?;
        let config = client_with(Port::Admin, store([root])?, leaf.clone(), key)?;
        Ok(Self { config, cluster })
    }
}
