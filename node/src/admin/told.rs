//! Requests as the audit log has them: short, and without secrets.

use holdfast_proto::admin::{
    AcceptDataLossRequest, AccessRequest as AccessMessage, AddDeviceRequest, AdoptRequest, ApiTokensRequest,
    AuditLogRequest, CertificateRequest, ChangeRequest, CheckRequest, ClearReservationsRequest,
    CloseSessionRequest, CreateApiTokenRequest, CreateExtentRequest, CreateTargetRequest, DevicesRequest,
    EventsRequest, HealRequest, IdentifyRequest, InitializeRequest, InjectRequest, JoinRequest,
    MapLunRequest, ReaddressRequest, RemoveDeviceRequest, ScrubExtentRequest, SetConfirmedReadsRequest,
    SetWriteCacheRequest, SettingsRequest, StatusRequest, SwitchoverRequest, TakeoverRequest, TokenRequest,
};

use holdfast_proto::admin::ImportHead;

use super::access::AccessRequest;

/// A request that can be told.
pub(super) trait Told {
    /// What is asked for, without secrets.
    fn told(&self) -> String;
}

/// Requests without secrets. Each is named, so that one that is added later is thought about.
macro_rules! whole {
    ($($request:ty),* $(,)?) => {
        $(impl Told for $request {
            fn told(&self) -> String {
                format!("{self:?}")
            }
        })*
    };
}

whole! {
    StatusRequest,
    IdentifyRequest,
    SettingsRequest,
    ApiTokensRequest,
    AuditLogRequest,
    EventsRequest,
    CheckRequest,
    InitializeRequest,
    CreateExtentRequest,
    ImportHead,
    SetConfirmedReadsRequest,
    SetWriteCacheRequest,
    CreateTargetRequest,
    MapLunRequest,
    CloseSessionRequest,
    SwitchoverRequest,
    TokenRequest,
    CertificateRequest,
    CreateApiTokenRequest,
    ClearReservationsRequest,
    ScrubExtentRequest,
    TakeoverRequest,
    AcceptDataLossRequest,
    InjectRequest,
    HealRequest,
    ReaddressRequest,
    AddDeviceRequest,
    RemoveDeviceRequest,
    DevicesRequest,
}

impl Told for ChangeRequest {
    fn told(&self) -> String {
        self.change
            .as_ref()
            .map_or_else(String::new, |change| format!("{change:?}"))
    }
}

impl Told for AdoptRequest {
    fn told(&self) -> String {
        format!("node {} of cluster {}", self.node_id, self.cluster_id)
    }
}

impl Told for JoinRequest {
    fn told(&self) -> String {
        match self.replaces.as_str() {
            "" => "a token".to_owned(),
            node => format!("a token, in place of {node}"),
        }
    }
}

impl Told for AccessMessage {
    fn told(&self) -> String {
        // Read again: its secrets show themselves to nobody then.
        let request = serde_json::from_str::<AccessRequest>(&self.json);
        request.map_or_else(
            |_| "what cannot be read".to_owned(),
            |request| format!("{request:?}"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_left_out() {
        let secret = "correct horse battery staple";
        let json =
            format!("{{\"set_user\": {{\"group\": \"g\", \"user\": \"u\", \"secret\": \"{secret}\"}}}}");
        let told = AccessMessage { json }.told();
        assert!(told.contains("SetUser") && told.contains("\"u\""), "{told}");
        let json = format!("{{\"later\": \"{secret}\"}}");
        let strange = AccessMessage { json }.told();
        let adopt = AdoptRequest {
            cluster_id: "c".into(),
            node_id: 7,
            cluster_key: secret.into(),
        };
        let join = JoinRequest {
            token: secret.into(),
            replaces: "b".into(),
            force: false,
        };
        for told in [told, strange, adopt.told(), join.told()] {
            assert!(!told.contains("horse"), "{told}");
        }
    }
}
