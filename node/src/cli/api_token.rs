//! `holdfast api-token`: tokens with which programs use the admin service.

use std::time::SystemTime;

use clap::Subcommand;
use holdfast_proto::admin::change_request::Change;
use holdfast_proto::admin::{CreateApiTokenRequest, RevokeApiToken};
use holdfast_trust::AdminRole;
use holdfast_types::{unix_seconds, utc};

use super::usage::number;
use super::{Out, block_on};
use crate::admin::{AdminAddress, AdminClient, ApiTokenStatus};

/// `holdfast api-token …`
#[derive(Debug, Subcommand)]
pub(super) enum ApiTokenCommand {
    /// Make an API token. It is shown once, and kept nowhere.
    Create {
        /// How it is called in lists, refusals and logs: a-z, 0-9 and -.
        name: String,
        /// What it lets its owner do: viewer, operator or admin.
        #[arg(long)]
        role: AdminRole,
        /// For how many days it is good; default: until it is revoked.
        #[arg(long, value_name = "DAYS", value_parser = number::<u32>(1, 3650))]
        days: Option<u32>,
    },
    /// List the API tokens, without their secrets.
    List,
    /// Take an API token back: it opens nothing any more.
    Revoke {
        /// Its name.
        name: String,
    },
}

/// `holdfast api-token …`
pub(super) fn run(command: ApiTokenCommand, admin: &AdminAddress, out: Out) -> anyhow::Result<()> {
    match command {
        ApiTokenCommand::Create { name, role, days } => {
            let request = CreateApiTokenRequest {
                name: name.clone(),
                role: role.to_string(),
                valid_days: days.unwrap_or_default(),
            };
            let reply =
                block_on(async { AdminClient::connect(admin).await?.create_api_token(request).await })?;
            let expires = (reply.expires > 0).then_some(reply.expires);
            let document = serde_json::json!({
                "name": name, "role": role, "token": reply.token, "expires_unix_seconds": expires
            });
            let until = expires.map_or_else(
                || "until it is revoked".to_owned(),
                |end| format!("until {}", utc(end)),
            );
            let text = format!(
                "{}\n\nWhoever shows it is {role} '{name}' of the cluster, {until}. It is not shown again. In each request: \
                 'Authorization: Bearer TOKEN'.",
                reply.token
            );
            out.answer(&document, &text)
        }
        ApiTokenCommand::List => {
            let tokens = block_on(async { AdminClient::connect(admin).await?.api_tokens().await })?;
            out.answer(&tokens, &list_text(&tokens, unix_seconds(SystemTime::now())))
        }
        ApiTokenCommand::Revoke { name } => {
            super::objects::change(Change::RevokeApiToken(RevokeApiToken { name }), admin, out)
        }
    }
}

fn list_text(tokens: &[ApiTokenStatus], now: u64) -> String {
    if tokens.is_empty() {
        return "There are no API tokens.".to_owned();
    }
    let mut text = format!("{:<34}{:<10}{:<26}{}", "TOKEN", "ROLE", "MADE", "GOOD UNTIL");
    for token in tokens {
        let until = match token.expires_unix_seconds {
            None => "it is revoked".to_owned(),
            Some(end) if end <= now => format!("{}: expired", utc(end)),
            Some(end) => utc(end),
        };
        let (role, made) = (token.role.word(), utc(token.created_unix_seconds));
        text.push_str(&format!("\n{:<34}{role:<10}{made:<26}{until}", token.name));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_in_words() {
        let token = |name: &str, end| ApiTokenStatus {
            name: name.to_owned(),
            role: AdminRole::Viewer,
            created_unix_seconds: 0,
            expires_unix_seconds: end,
        };
        let text = list_text(
            &[token("a", None), token("b", Some(10)), token("c", Some(20))],
            10,
        );
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[1].starts_with("a ") && lines[1].ends_with("it is revoked"),
            "{text}"
        );
        assert!(
            lines[2].ends_with("expired") && lines[3].starts_with("c "),
            "{text}"
        );
        assert!(!lines[3].ends_with("expired"), "{text}");
        assert_eq!(list_text(&[], 0), "There are no API tokens.");
    }
}
