//! Which role each request takes: the one table, for gRPC and for REST.

use holdfast_proto::admin::change_request::Change;
use holdfast_trust::AdminRole;
use tonic::Status;

use super::caller::Caller;

/// What a method takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rule {
    /// The method, as the trait spells it.
    pub(crate) method: &'static str,
    /// Which of the kinds of one method; empty where there is one only.
    pub(crate) kind: &'static str,
    /// Who may.
    pub(crate) least: AdminRole,
    /// What it does, for refusals: "may not …".
    pub(crate) what: &'static str,
}

const fn rule(method: &'static str, least: AdminRole, what: &'static str) -> Rule {
    Rule {
        method,
        kind: "",
        least,
        what,
    }
}

const fn change(kind: &'static str, least: AdminRole, what: &'static str) -> Rule {
    Rule {
        method: "change",
        kind,
        least,
        what,
    }
}

use AdminRole::{Admin, Operator, Viewer};

/// Every method, and every kind of change.
pub(crate) const RULES: &[Rule] = &[
    rule("status", Viewer, "see the status"),
    rule("identify", Viewer, "see who a node is"),
    rule("settings", Viewer, "see the settings"),
    rule("events", Viewer, "see the events"),
    rule("check", Viewer, "check the cluster"),
    rule("api_tokens", Viewer, "see the API tokens"),
    rule("audit_log", Viewer, "see the audit log"),
    rule("devices", Viewer, "see the devices"),
    rule("switchover", Operator, "switch over"),
    rule("close_session", Operator, "end sessions"),
    rule("clear_reservations", Operator, "clear reservations"),
    rule("scrub_extent", Operator, "have replicas compared"),
    rule("heal", Operator, "heal faults"),
    change("drain", Operator, "drain nodes"),
    rule("adopt", Admin, "give a node to a cluster"),
    rule("initialize", Admin, "make a cluster"),
    rule("create_extent", Admin, "create extents"),
    rule("import_extent", Admin, "import images"),
    rule("set_confirmed_reads", Admin, "change extents"),
    rule("set_write_cache", Admin, "change extents"),
    rule("add_device", Admin, "give devices to nodes"),
    rule("remove_device", Admin, "take devices from nodes"),
    rule("create_target", Admin, "create targets"),
    rule("map_lun", Admin, "map LUNs"),
    rule(
        "change_access",
        Admin,
        "change who may use what, or delete anything",
    ),
    rule("token", Admin, "let nodes join"),
    rule("join", Admin, "let a node join"),
    rule("readdress", Admin, "change a node's addresses"),
    rule("certificate", Admin, "make certificates"),
    rule("create_api_token", Admin, "make API tokens"),
    rule("takeover", Admin, "take a cluster over"),
    rule("accept_data_loss", Admin, "accept the loss of data"),
    rule("inject", Admin, "hurt nodes"),
    change("setting", Admin, "change settings"),
    change("resize_extent", Admin, "resize extents"),
    change("set_extent", Admin, "change extents"),
    change("set_replicas", Admin, "move replicas"),
    change("leave", Admin, "take nodes out of the cluster"),
    change("isns_server", Admin, "change iSNS servers"),
    change("rotate_certificates", Admin, "rotate certificates"),
    change("revoke_api_token", Admin, "revoke API tokens"),
];

/// What is in no row is for who may do everything.
const ANYTHING_ELSE: Rule = rule("", Admin, "do that");

/// The kind of a change, as the table has it.
pub(crate) const fn kind_of(change: Option<&Change>) -> &'static str {
    match change {
        Some(Change::Setting(_)) => "setting",
        Some(Change::Drain(_)) => "drain",
        Some(Change::ResizeExtent(_)) => "resize_extent",
        Some(Change::SetExtent(_)) => "set_extent",
        Some(Change::SetReplicas(_)) => "set_replicas",
        Some(Change::Leave(_)) => "leave",
        Some(Change::IsnsServer(_)) => "isns_server",
        Some(Change::RotateCertificates(_)) => "rotate_certificates",
        Some(Change::RevokeApiToken(_)) => "revoke_api_token",
        None => "",
    }
}

/// The row of a request.
pub(crate) fn of(method: &str, kind: &str) -> Rule {
    let is_it = |rule: &&Rule| rule.method == method && rule.kind == kind;
    RULES.iter().find(is_it).copied().unwrap_or(ANYTHING_ELSE)
}

impl Rule {
    /// Whether it is a matter for the audit log: whatever takes more than looking.
    pub(crate) fn changes(&self) -> bool {
        self.least > Viewer
    }

    /// Whether whoever asks may.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`, with one line: what he may not, and whom it takes.
    pub(crate) fn judge(&self, caller: &Caller) -> Result<(), Status> {
        if caller.role() >= self.least {
            return Ok(());
        }
        let article = match self.least {
            AdminRole::None | Viewer => "a",
            Operator | Admin => "an",
        };
        Err(Status::permission_denied(format!(
            "{caller} may not {}; it takes {article} {}",
            self.what, self.least
        )))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use holdfast_proto::{ADMIN_CHANGES, ADMIN_METHODS};

    use super::*;

    fn snake(name: &str) -> String {
        let mut made = String::new();
        for letter in name.chars() {
            if letter.is_ascii_uppercase() && !made.is_empty() {
                made.push('_');
            }
            made.push(letter.to_ascii_lowercase());
        }
        made
    }

    /// The table has a row for each method and each kind of change that the protocol's file names, and for nothing else.
    #[test]
    fn every_method_of_the_service_is_in_the_table() {
        let methods = ADMIN_METHODS.iter().map(|name| snake(name));
        let mut wanted: BTreeSet<(String, &str)> = methods
            .filter(|name| name != "change")
            .map(|name| (name, ""))
            .collect();
        wanted.extend(ADMIN_CHANGES.iter().map(|kind| ("change".to_owned(), *kind)));
        let rows: BTreeSet<(String, &str)> = RULES
            .iter()
            .map(|rule| (rule.method.to_owned(), rule.kind))
            .collect();
        assert_eq!(rows, wanted);
        assert_eq!(rows.len(), RULES.len(), "a row twice");
        assert!(wanted.len() > 25, "{wanted:?}");
    }

    #[test]
    fn a_refusal_names_who_what_and_whom_it_takes() {
        let caller = |role| Caller::Certificate {
            role,
            name: "nagios".into(),
        };
        let rule = of("switchover", "");
        let refused = rule.judge(&caller(Viewer)).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::PermissionDenied);
        assert_eq!(
            refused.message(),
            "viewer 'nagios' may not switch over; it takes an operator"
        );
        for caller in [
            caller(Operator),
            caller(Admin),
            Caller::Loopback,
            Caller::Socket(None),
        ] {
            rule.judge(&caller).unwrap();
        }
        let refused = of("change", "leave").judge(&caller(Operator)).unwrap_err();
        assert!(refused.message().ends_with("it takes an admin"), "{refused}");
    }

    #[test]
    fn what_no_row_names_takes_an_admin() {
        for (method, kind) in [
            ("later", ""),
            ("change", ""),
            ("change", "later"),
            ("status", "later"),
        ] {
            assert_eq!(of(method, kind).least, Admin, "{method} {kind}");
        }
    }
}
