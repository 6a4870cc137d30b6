//! The cluster's own certificate authority. Its private key is derived, so that each member has it and none has to hand it on.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use crate::{Generation, Key, Name};

/// An Ed25519 private key in PKCS #8 (RFC 8410, section 7) before its 32 bytes.
const PKCS8_HEAD: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// A certificate could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a certificate could not be made: {0}")]
pub struct IssueError(pub(crate) String);

impl IssueError {
    pub(crate) fn of(error: &impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// A certificate and its private key, made for one process and never stored; but for administrators', which go into a file.
#[derive(Debug)]
pub struct Leaf {
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// Its private key.
    pub key: PrivatePkcs8KeyDer<'static>,
    pem: (String, Zeroizing<String>),
}

/// An authority, able to issue.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    root_pem: String,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority")
    }
}

impl Authority {
    /// That of a cluster in a generation.
    ///
    /// # Errors
    /// [`IssueError`].
    pub fn of_cluster(key: &Key, generation: &Generation) -> Result<Self, IssueError> {
        let title = format!("Holdfast cluster, generation {}", generation.number);
        Self::derived(&key.of_authority(generation), &title)
    }

    /// That of a token, for the call with which a node joins.
    ///
    /// # Errors
    /// [`IssueError`].
    pub fn of_token(key: &Key) -> Result<Self, IssueError> {
        Self::derived(&key.of_join(), "Holdfast token")
    }

    fn derived(seed: &Key, title: &str) -> Result<Self, IssueError> {
        let der = Zeroizing::new([PKCS8_HEAD.as_slice(), seed.expose()].concat());
        let der = PrivatePkcs8KeyDer::from(der.to_vec());
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ED25519)
            .map_err(|error| IssueError::of(&error))?;
        let mut params = params(Vec::new(), title)?;
        // Two authorities never have the same name: who gets a certificate knows at once whether he knows its issuer.
        let print = blake3::hash(pair.public_key_raw()).to_hex();
        params
            .distinguished_name
            .push(DnType::OrganizationalUnitName, &print[..16]);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let root = params
            .self_signed(&pair)
            .map_err(|error| IssueError::of(&error))?;
        Ok(Self {
            root: root.der().clone(),
            root_pem: root.pem(),
            issuer: Issuer::new(params, pair),
        })
    }

    /// Its own certificate.
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// A certificate for somebody who has all these names, with a fresh private key.
    ///
    /// # Errors
    /// [`IssueError`].
    pub fn issue(&self, names: &[Name], title: &str) -> Result<Leaf, IssueError> {
        let dns = names.iter().map(Name::dns).collect();
        let mut params = params(dns, title)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        let pair = fresh()?;
        let certificate = params
            .signed_by(&pair, &self.issuer)
            .map_err(|error| IssueError::of(&error))?;
        Ok(Leaf {
            certificate: certificate.der().clone(),
            key: PrivatePkcs8KeyDer::from(pair.serialized_der().to_vec()),
            pem: (certificate.pem(), Zeroizing::new(pair.serialize_pem())),
        })
    }

    /// A certificate, its private key and the authority's certificate as one PEM file.
    pub fn bundle(&self, leaf: &Leaf) -> Zeroizing<String> {
        Zeroizing::new([leaf.pem.0.as_str(), leaf.pem.1.as_str(), self.root_pem.as_str()].concat())
    }
}

/// A fresh key pair. Its PKCS #8 is of version 1, without the public key: OpenSSL 3.0, and so curl, reads no other.
fn fresh() -> Result<KeyPair, IssueError> {
    let drawn = KeyPair::generate_for(&PKCS_ED25519).map_err(|error| IssueError::of(&error))?;
    let seed = seed_of(drawn.serialized_der()).ok_or_else(|| IssueError("a key of another form".into()))?;
    let der = Zeroizing::new([PKCS8_HEAD.as_slice(), seed].concat());
    let der = PrivatePkcs8KeyDer::from(der.to_vec());
    KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ED25519).map_err(|error| IssueError::of(&error))
}

/// The private key's 32 bytes in PKCS #8 of either version, which differ before them in a length and a number alone.
fn seed_of(der: &[u8]) -> Option<&[u8]> {
    let head = PKCS8_HEAD.len();
    let same = |at: std::ops::Range<usize>| der.get(at.clone()) == PKCS8_HEAD.get(at);
    (same(2..4) && same(5..head)).then(|| der.get(head..head + 32))?
}

fn params(dns: Vec<String>, title: &str) -> Result<CertificateParams, IssueError> {
    let mut params = CertificateParams::new(dns).map_err(|error| IssueError::of(&error))?;
    // No end by a date: a clock that is wrong by years must cut nobody off. The generation ends (see the crate).
    params.not_before = date_time_ymd(1970, 1, 1);
    params.not_after = date_time_ymd(9999, 12, 31);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, title);
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_derives_the_same_authority() {
        let key = Key::new([7; 32]);
        let one = Authority::of_cluster(&key, &Generation::first()).unwrap();
        let again = Authority::of_cluster(&key, &Generation::first()).unwrap();
        let two = Generation {
            number: 2,
            salt: "ab".into(),
        };
        let two = Authority::of_cluster(&key, &two).unwrap();
        let public = |authority: &Authority| authority.issuer.key().public_key_raw().to_vec();
        assert_eq!(public(&one), public(&again));
        assert_ne!(public(&one), public(&two));
        assert_ne!(public(&one), public(&Authority::of_token(&key).unwrap()));
    }

    #[test]
    fn a_certificate_holds_its_names_and_a_key_of_its_own() {
        let authority = Authority::of_cluster(&Key::new([7; 32]), &Generation::first()).unwrap();
        let name = Name::Admin {
            cluster: 5,
            role: crate::AdminRole::Viewer,
            name: "nagios".into(),
        };
        let leaf = authority.issue(std::slice::from_ref(&name), "admin").unwrap();
        let other = authority.issue(std::slice::from_ref(&name), "admin").unwrap();
        assert_ne!(leaf.key.secret_pkcs8_der(), other.key.secret_pkcs8_der());
        let key = leaf.key.secret_pkcs8_der();
        assert!(
            key.starts_with(&PKCS8_HEAD) && key.len() == PKCS8_HEAD.len() + 32,
            "version 1"
        );
        let parsed = webpki::EndEntityCert::try_from(&leaf.certificate).unwrap();
        let names: Vec<_> = parsed.valid_dns_names().filter_map(Name::parse).collect();
        assert_eq!(names, [name]);
        assert_eq!(authority.bundle(&leaf).matches("-----BEGIN").count(), 3);
    }
}
