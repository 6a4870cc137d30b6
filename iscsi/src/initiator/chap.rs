//! CHAP, the initiator's side (RFC 7143, 12.1.3).

use holdfast_types::Secret;

use super::InitiatorError;
use crate::chap::{self, Algorithm, Challenge};
use crate::negotiate::{Key, number};
use crate::text;

/// As whom to log in.
#[derive(Debug, Clone)]
pub struct ChapLogin {
    /// CHAP_N.
    pub user: String,
    /// Its secret.
    pub secret: Secret,
    /// What is offered in CHAP_A, best first.
    pub algorithms: Vec<Algorithm>,
    /// The target's secret and what it is asked, where it has to prove itself too.
    pub mutual: Option<(Secret, Challenge)>,
}

/// What comes after a response of the security stage.
#[derive(Debug)]
pub(super) enum Next {
    /// Say this and stay.
    Stay(Vec<u8>),
    /// Say this and go on to the next stage.
    Leave(Vec<u8>),
}

impl ChapLogin {
    /// Goes on with the exchange after the target has answered with `keys`.
    pub(super) fn step(&self, keys: &[(String, String)]) -> Result<Next, InitiatorError> {
        let mut text = Vec::new();
        match find(keys, Key::AuthMethod) {
            Some("CHAP") => {
                let offer: Vec<String> = self
                    .algorithms
                    .iter()
                    .map(|algorithm| algorithm.number().to_string())
                    .collect();
                text::put(&mut text, Key::ChapAlgorithm.name(), &offer.join(","));
                return Ok(Next::Stay(text));
            }
            Some("None") if self.mutual.is_none() => return Ok(Next::Leave(text)),
            Some(_) => return Err(InitiatorError::Protocol("target does not authenticate")),
            None => {}
        }
        let (algorithm, id, challenge) = question(keys).ok_or(InitiatorError::Protocol(
            "target asks nothing that can be answered",
        ))?;
        let response = algorithm.response(id, &self.secret, &challenge);
        text::put(&mut text, Key::ChapName.name(), &self.user);
        text::put(&mut text, Key::ChapResponse.name(), &chap::encode(&response));
        if let Some((_, challenge)) = &self.mutual {
            text::put(&mut text, Key::ChapIdentifier.name(), &challenge.id.to_string());
            text::put(
                &mut text,
                Key::ChapChallenge.name(),
                &chap::encode(&challenge.bytes),
            );
        }
        Ok(Next::Leave(text))
    }

    /// Whether the target has proven itself by what it said in the whole login, where it had to.
    pub(super) fn is_satisfied(&self, keys: &[(String, String)]) -> bool {
        let Some((secret, challenge)) = &self.mutual else {
            return true;
        };
        let algorithm = find(keys, Key::ChapAlgorithm).and_then(Algorithm::pick);
        let response = find(keys, Key::ChapResponse).and_then(chap::decode);
        match (algorithm, response) {
            (Some(algorithm), Some(response)) => challenge.is_answered(algorithm, secret, &response),
            _ => false,
        }
    }
}

fn find(keys: &[(String, String)], key: Key) -> Option<&str> {
    keys.iter()
        .find(|(name, _)| name == key.name())
        .map(|(_, value)| value.as_str())
}

fn question(keys: &[(String, String)]) -> Option<(Algorithm, u8, Vec<u8>)> {
    let algorithm = Algorithm::pick(find(keys, Key::ChapAlgorithm)?)?;
    let id = number(find(keys, Key::ChapIdentifier)?)?.try_into().ok()?;
    Some((algorithm, id, chap::decode(find(keys, Key::ChapChallenge)?)?))
}
