//! Who an initiator is, proven or not: AuthMethod and CHAP, target side (RFC 7143, 12.1).

use super::login::{Failure, Refusal};
use crate::chap::{self, Algorithm, Challenge};
use crate::directory::{Authentication, Chap, GroupName, Way};
use crate::error::Fatal;
use crate::negotiate::{Key, number};
use crate::pdu::LoginStatus;
use crate::text;

/// Longest user name in bytes that is compared; longer ones are nobody's.
const NAME_MAX: usize = 255;

/// As whom the initiator came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entered {
    /// The initiator group that lets it in; `None` where everyone may.
    pub(super) group: Option<GroupName>,
    /// The CHAP user that it has proven to be.
    pub(super) user: Option<String>,
}

#[derive(Debug)]
enum State {
    /// Nothing was said.
    Start,
    /// AuthMethod=CHAP: CHAP_A is to come.
    Chosen,
    /// The challenge is out: CHAP_N and CHAP_R are to come.
    Challenged(Algorithm),
    /// Through.
    Entered(Entered),
}

/// The authentication of one login.
#[derive(Debug)]
pub(super) struct Authenticator {
    /// How this initiator may come in, best first.
    ways: Vec<Way>,
    challenge: Challenge,
    state: State,
}

fn refused(reason: impl Into<String>) -> Failure {
    Refusal::new(LoginStatus::AUTHENTICATION_FAILED, reason).into()
}

fn out_of_order(reason: &'static str) -> Failure {
    Refusal::new(LoginStatus::INITIATOR_ERROR, reason).into()
}

impl Authenticator {
    pub(super) const fn new(ways: Vec<Way>, challenge: Challenge) -> Self {
        Self {
            ways,
            challenge,
            state: State::Start,
        }
    }

    /// As whom the initiator came in, once it did.
    pub(super) const fn entered(&self) -> Option<&Entered> {
        match &self.state {
            State::Entered(entered) => Some(entered),
            _ => None,
        }
    }

    /// Answers the keys of one request that have to do with authentication.
    pub(super) fn answer(&mut self, keys: &[(Key, &str)], text: &mut Vec<u8>) -> Result<(), Failure> {
        let find = |wanted: Key| {
            let mut found = keys.iter().filter(|(key, _)| *key == wanted);
            match (found.next(), found.next()) {
                (first, None) => Ok(first.map(|(_, value)| *value)),
                _ => Err(out_of_order("an authentication key is given twice")),
            }
        };
        if let Some(list) = find(Key::AuthMethod)? {
            self.method(list, text)?;
        }
        if let Some(list) = find(Key::ChapAlgorithm)? {
            self.algorithm(list, text)?;
        }
        match (find(Key::ChapName)?, find(Key::ChapResponse)?) {
            (None, None) => Ok(()),
            (Some(name), Some(response)) => {
                let wish = match (find(Key::ChapIdentifier)?, find(Key::ChapChallenge)?) {
                    (None, None) => None,
                    (Some(id), Some(challenge)) => Some((id, challenge)),
                    _ => return Err(out_of_order("CHAP_I and CHAP_C come together")),
                };
                self.response(name, response, wish, text)
            }
            _ => Err(out_of_order("CHAP_N and CHAP_R come together")),
        }
    }

    /// The first method of the initiator's list by which it may come in (RFC 7143, 6.2.1).
    fn method(&mut self, list: &str, text: &mut Vec<u8>) -> Result<(), Failure> {
        if !matches!(self.state, State::Start) {
            return Err(out_of_order("AuthMethod is negotiated twice"));
        }
        for method in list.split(',') {
            match method {
                "None" if self.enter_unproven() => {}
                "CHAP" if self.ways.iter().any(|way| way.authentication.wants_proof()) => {
                    self.state = State::Chosen;
                }
                _ => continue,
            }
            text::put(text, Key::AuthMethod.name(), method);
            return Ok(());
        }
        Err(refused(format!("no common authentication method in '{list}'")))
    }

    fn enter_unproven(&mut self) -> bool {
        let open = self.ways.iter().find(|way| !way.authentication.wants_proof());
        let Some(way) = open else { return false };
        self.state = State::Entered(Entered {
            group: way.group.clone(),
            user: None,
        });
        true
    }

    fn algorithm(&mut self, list: &str, text: &mut Vec<u8>) -> Result<(), Failure> {
        if !matches!(self.state, State::Chosen) {
            return Err(out_of_order("CHAP_A out of turn"));
        }
        let algorithm =
            Algorithm::pick(list).ok_or_else(|| refused(format!("no common CHAP algorithm in '{list}'")))?;
        text::put(text, Key::ChapAlgorithm.name(), &algorithm.number().to_string());
        text::put(text, Key::ChapIdentifier.name(), &self.challenge.id.to_string());
        text::put(
            text,
            Key::ChapChallenge.name(),
            &chap::encode(&self.challenge.bytes),
        );
        self.state = State::Challenged(algorithm);
        Ok(())
    }

    fn response(
        &mut self,
        name: &str,
        response: &str,
        wish: Option<(&str, &str)>,
        text: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        let State::Challenged(algorithm) = self.state else {
            return Err(out_of_order("CHAP_R out of turn"));
        };
        let response = chap::decode(response).ok_or_else(|| out_of_order("CHAP_R cannot be read"))?;
        let (entered, chap) = self.prove(algorithm, name, &response)?;
        if let Some((id, challenge)) = wish {
            let id = number(id)
                .and_then(|id| u8::try_from(id).ok())
                .ok_or_else(|| out_of_order("CHAP_I is not between 0 and 255"))?;
            let challenge = chap::decode(challenge).ok_or_else(|| out_of_order("CHAP_C cannot be read"))?;
            self.prove_ourselves(&chap, name, algorithm, (id, &challenge), text)?;
        }
        self.state = State::Entered(entered);
        Ok(())
    }

    /// The way whose user of this name gives this response. An unknown name costs as much time as a wrong secret.
    fn prove(
        &self,
        algorithm: Algorithm,
        name: &str,
        response: &[u8],
    ) -> Result<(Entered, std::sync::Arc<Chap>), Failure> {
        for way in &self.ways {
            let Authentication::Chap(chap) = &way.authentication else {
                continue;
            };
            if let Some(secret) = chap.users.get(name)
                && self.challenge.is_answered(algorithm, secret, response)
            {
                let entered = Entered {
                    group: way.group.clone(),
                    user: Some(name.to_owned()),
                };
                return Ok((entered, std::sync::Arc::clone(chap)));
            }
        }
        let unreadable = |way: &Way| matches!(way.authentication, Authentication::Unreadable);
        if self.ways.iter().any(unreadable) {
            // I8: it may well be right; this node cannot tell.
            return Err(Failure::Drop(Fatal::SecretsUnreadable));
        }
        let shown: String = name.chars().take(NAME_MAX).collect();
        Err(refused(format!(
            "CHAP user {shown:?} is unknown, or its secret is wrong"
        )))
    }

    /// Mutual CHAP: the initiator wants to know that we are who it thinks (RFC 7143, 12.1.3 and 9.2.1).
    fn prove_ourselves(
        &self,
        chap: &Chap,
        user: &str,
        algorithm: Algorithm,
        (id, challenge): (u8, &[u8]),
        text: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        if challenge == self.challenge.bytes {
            return Err(refused("the initiator sends our own challenge back"));
        }
        let Some(mutual) = &chap.mutual else {
            return Err(refused(
                "the initiator wants the target to prove itself, which has no secret for that",
            ));
        };
        if chap.users.get(user) == Some(&mutual.secret) {
            return Err(refused("the same secret is set for both directions"));
        }
        let response = algorithm.response(id, &mutual.secret, challenge);
        text::put(text, Key::ChapName.name(), &mutual.name);
        text::put(text, Key::ChapResponse.name(), &chap::encode(&response));
        Ok(())
    }

    /// The initiator wants to leave the security stage, or never was in it. Whether it may: no, while an exchange is under way.
    pub(super) fn leave(&mut self) -> Result<bool, Failure> {
        match self.state {
            State::Entered(_) => Ok(true),
            State::Chosen | State::Challenged(_) => Ok(false),
            State::Start => {
                if self.enter_unproven() {
                    Ok(true)
                } else {
                    Err(refused("the initiator has to authenticate itself"))
                }
            }
        }
    }
}
