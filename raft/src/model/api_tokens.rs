//! Tokens with which programs use the admin service: each has a name and a role. The cluster keeps a hash of the secret alone.

use std::fmt;
use std::str::FromStr;

use holdfast_trust::{AdminRole, check_admin_name};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::reply::{Refusal, Reply};
use super::state::ClusterState;
use holdfast_types::{hex, unhex};

/// API tokens of a cluster at most.
pub const API_TOKENS_MAX: usize = 256;
const CONTEXT: &str = "holdfast 2026 token for the admin service";
const PREFIX: &str = "holdfast-api";
/// Hexadecimal digits of a secret, and of its hash.
const DIGITS: usize = 64;

/// What is kept of an API token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiToken {
    /// Names it; not secret.
    pub name: String,
    /// What its owner may do.
    pub role: AdminRole,
    /// [`ApiSecret::hash`] of its secret: 64 hexadecimal digits. The secret has 256 random bits, so nobody finds it by trying.
    pub hash: String,
    /// When it was made: seconds since 1970, by the clock of the node that was asked.
    pub created: u64,
    /// Seconds since 1970 after which it opens nothing, by the clock of the node that judges it; `None`: until it is revoked.
    #[serde(default)]
    pub expires: Option<u64>,
}

/// An API token as its owner has it: `holdfast-api.NAME.SECRET`. Shown when it is made, and never again.
pub struct ApiSecret {
    name: String,
    secret: Zeroizing<[u8; 32]>,
}

/// Never the secret: it would end up in a log.
impl fmt::Debug for ApiSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiSecret({})", self.name)
    }
}

impl ApiSecret {
    /// Of 256 random bits.
    ///
    /// # Errors
    /// One line: the name is none.
    pub fn from_random(name: &str, secret: [u8; 32]) -> Result<Self, String> {
        check_admin_name(name)?;
        Ok(Self {
            name: name.to_owned(),
            secret: Zeroizing::new(secret),
        })
    }

    /// What the cluster keeps of the secret.
    pub fn hash(&self) -> String {
        hex(&blake3::derive_key(CONTEXT, self.secret.as_slice()))
    }

    /// As its owner gets it.
    pub fn to_text(&self) -> Zeroizing<String> {
        let secret = Zeroizing::new(hex(self.secret.as_slice()));
        Zeroizing::new(format!("{PREFIX}.{}.{}", self.name, secret.as_str()))
    }
}

impl FromStr for ApiSecret {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || "that is no token of 'holdfast api-token create': give the whole line".to_owned();
        let parts: Vec<&str> = text.trim().split('.').collect();
        let [PREFIX, name, digits] = parts[..] else {
            return Err(wrong());
        };
        let digits = Zeroizing::new(unhex(digits).ok_or_else(wrong)?);
        let secret = digits.as_slice().try_into().map_err(|_| wrong())?;
        Self::from_random(name, secret).map_err(|_| wrong())
    }
}

impl ClusterState {
    /// The API token that somebody shows, if it opens anything at `now`, in seconds since 1970.
    ///
    /// # Errors
    /// One line: why it does not.
    pub fn api_token(&self, text: &str, now: u64) -> Result<&ApiToken, String> {
        let shown: ApiSecret = text.parse()?;
        let kept = self.api_tokens.get(&shown.name);
        let hash = blake3::Hash::from_hex(shown.hash()).ok();
        // These compare in constant time.
        let is_it = |kept: &&ApiToken| hash.is_some() && blake3::Hash::from_hex(&kept.hash).ok() == hash;
        let kept = kept.filter(is_it).ok_or_else(|| {
            format!(
                "API token '{}' is not known: it was revoked, or is another cluster's",
                shown.name
            )
        })?;
        if kept.expires.is_some_and(|end| end <= now) {
            return Err(format!(
                "API token '{}' has expired: revoke it, and make a new one",
                kept.name
            ));
        }
        Ok(kept)
    }

    pub(super) fn add_api_token(&mut self, token: &ApiToken) -> Result<Reply, Refusal> {
        check_admin_name(&token.name).map_err(Refusal::Invalid)?;
        if token.hash.len() != DIGITS || !token.hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Refusal::Invalid(format!(
                "the hash of an API token has {DIGITS} hexadecimal digits"
            )));
        }
        if let Some(known) = self.api_tokens.get(&token.name) {
            // The same again is no error.
            return if known == token {
                Ok(Reply::DONE)
            } else {
                Err(Refusal::Exists {
                    what: format!("API token '{}'", token.name),
                })
            };
        }
        if self.api_tokens.len() >= API_TOKENS_MAX {
            return Err(Refusal::Invalid(format!(
                "there are {API_TOKENS_MAX} API tokens, which is the most: revoke some"
            )));
        }
        self.api_tokens.insert(token.name.clone(), token.clone());
        Ok(Reply::DONE)
    }

    pub(super) fn revoke_api_token(&mut self, name: &str) -> Result<Reply, Refusal> {
        let known = self.api_tokens.remove(name).is_some();
        let warnings = if known {
            Vec::new()
        } else {
            vec![format!("there was no API token '{name}'")]
        };
        Ok(Reply::Done { warnings })
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{go, must, trio};
    use super::super::{AdminCommand, Command};
    use super::*;

    fn kept(name: &str, byte: u8, expires: Option<u64>) -> (ApiSecret, ApiToken) {
        let secret = ApiSecret::from_random(name, [byte; 32]).unwrap();
        let token = ApiToken {
            name: name.to_owned(),
            role: AdminRole::Operator,
            hash: secret.hash(),
            created: 5,
            expires,
        };
        (secret, token)
    }

    fn add(token: ApiToken) -> Command {
        AdminCommand::AddApiToken(token).into()
    }

    #[test]
    fn a_token_opens_until_it_expires_or_is_revoked_and_its_secret_is_kept_nowhere() {
        let mut state = trio(0);
        let (secret, token) = kept("backup", 7, Some(100));
        must(&add(token.clone()), &mut state);
        must(&add(token), &mut state);
        let text = secret.to_text();
        assert_eq!(state.api_token(&text, 99).unwrap().role, AdminRole::Operator);
        assert!(state.api_token(&text, 100).unwrap_err().contains("expired"));
        let digits = text.rsplit('.').next().unwrap();
        assert!(!serde_json::to_string(&state).unwrap().contains(digits));
        assert!(!format!("{secret:?}").contains(digits));
        let (other, another) = kept("backup", 8, None);
        assert!(
            state
                .api_token(&other.to_text(), 1)
                .unwrap_err()
                .contains("not known")
        );
        assert!(matches!(
            go(&add(another), &mut state),
            Reply::Refused {
                refusal: Refusal::Exists { .. }
            }
        ));
        let revoke = Command::from(AdminCommand::RevokeApiToken {
            name: "backup".into(),
        });
        must(&revoke, &mut state);
        assert!(state.api_token(&text, 1).unwrap_err().contains("revoked"));
        assert!(matches!(go(&revoke, &mut state), Reply::Done { warnings } if warnings.len() == 1));
    }

    #[test]
    fn what_is_no_token_is_told_so_without_being_shown() {
        let state = trio(0);
        let (secret, _) = kept("a", 9, None);
        let text = secret.to_text();
        for bad in [
            "",
            "x",
            &text[1..],
            &text[..text.len() - 1],
            &text.replace(".a.", ".A."),
            &text.replace("0909", "zz09"),
            &format!("{}.x", *text),
        ] {
            let line = state.api_token(bad, 1).unwrap_err();
            assert!(
                line.contains("whole line") && !line.contains("0909"),
                "{bad}: {line}"
            );
        }
    }

    #[test]
    fn there_is_an_end_to_their_number() {
        let mut state = trio(0);
        for number in 0..API_TOKENS_MAX {
            must(&add(kept(&format!("t{number}"), 1, None).1), &mut state);
        }
        let refused = go(&add(kept("more", 1, None).1), &mut state);
        assert!(refused.refusal().unwrap().to_string().contains("revoke some"));
        for wrong in ["", "A", "a.b"] {
            let mut token = kept("t", 1, None).1;
            token.name = wrong.into();
            assert!(go(&add(token), &mut state).refusal().is_some());
        }
        let mut token = kept("t0", 1, None).1;
        token.hash.pop();
        assert!(go(&add(token), &mut state).refusal().is_some());
    }
}
