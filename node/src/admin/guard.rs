//! The admin service as it is served: who asks is judged here, before any request is looked at, and nowhere else. REST goes through the
//! same functions.

use std::sync::Arc;
use std::time::SystemTime;

use holdfast_proto::admin::ImportPart;
use holdfast_proto::admin::admin_server::Admin;
use holdfast_proto::admin::{
    AcceptDataLossRequest, AccessRequest, AddDeviceRequest, AdoptRequest, ApiTokensRequest, AuditLogRequest,
    CertificateReply, CertificateRequest, ChangeRequest, CheckRequest, ClearReservationsRequest,
    CloseSessionRequest, CreateApiTokenReply, CreateApiTokenRequest, CreateExtentRequest,
    CreateTargetRequest, DevicesRequest, Document, Done, EventsRequest, HealRequest, IdentifyRequest,
    Identity, InitializeRequest, InjectRequest, JoinRequest, MapLunRequest, ReaddressRequest,
    RemoveDeviceRequest, ScrubExtentRequest, SetConfirmedReadsRequest, SetWriteCacheRequest, SettingsRequest,
    StatusRequest, SwitchoverRequest, TakeoverRequest, TokenReply, TokenRequest,
};
use holdfast_types::unix_seconds;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request, Response, Status, Streaming};

use super::audit::{Audit, Call};
use super::caller::Caller;
use super::devices::DeviceStream;
use super::import::{self, ImportStream};
use super::rules::{self, Rule};
use super::server::Service;
use super::told::Told;
use crate::runtime::Node;

/// The admin service of a node, for whoever may use it.
pub(crate) struct Guard {
    service: Service,
    node: Arc<Node>,
    audit: Option<Audit>,
    /// What was asked for, for tests of what reaches it.
    #[cfg(test)]
    pub(crate) asked: std::sync::Mutex<std::collections::BTreeSet<(&'static str, &'static str)>>,
}

impl Guard {
    /// Of this node; with an audit log, all that changes something is put there.
    pub(crate) fn new(node: Arc<Node>, audit: Option<Audit>) -> Self {
        Self {
            service: Service::new(Arc::clone(&node)),
            node,
            audit,
            #[cfg(test)]
            asked: std::sync::Mutex::default(),
        }
    }
}

/// What is behind `authorization: Bearer`; `None` where there is no such head.
fn bearer(head: &MetadataMap) -> Result<Option<&str>, Status> {
    let mut all = head.get_all("authorization").iter();
    let Some(first) = all.next() else {
        return Ok(None);
    };
    let wrong = || Status::unauthenticated("'authorization' must be 'Bearer' and an API token, once");
    let text = first.to_str().map_err(|_| wrong())?;
    let (scheme, token) = text.split_once(' ').ok_or_else(wrong)?;
    if all.next().is_some() || !scheme.eq_ignore_ascii_case("bearer") {
        return Err(wrong());
    }
    Ok(Some(token))
}

impl Guard {
    /// Whoever asks: as his API token says where he shows one, or else as his connection does.
    async fn caller(&self, head: &MetadataMap, connection: &Extensions) -> Result<Caller, Status> {
        let connected = Caller::of(connection)
            .ok_or_else(|| Status::unauthenticated("this connection does not say who asks"))?;
        let Some(token) = bearer(head)? else {
            return Ok(connected);
        };
        let running = self.node.running().await.ok_or_else(|| {
            Status::unauthenticated("this node belongs to no cluster yet, so it knows no API token")
        })?;
        let now = unix_seconds(SystemTime::now());
        let state = running.state();
        let known = state.api_token(token, now).map_err(Status::unauthenticated)?;
        Ok(Caller::Token {
            role: known.role,
            name: known.name.clone(),
        })
    }

    /// Whether whoever asks may.
    fn judge(caller: &Result<Caller, Status>, rule: Rule) -> Result<(), Status> {
        let judged = match caller {
            Ok(caller) => rule.judge(caller),
            Err(unknown) => Err(unknown.clone()),
        };
        if let Err(refused) = &judged {
            tracing::warn!("refused: {}", refused.message());
        }
        judged
    }

    /// Judges a call, has it answered, and puts it into the audit log where it changes something.
    async fn guarded<T: Told, A>(
        &self,
        (method, kind): (&'static str, &'static str),
        request: Request<T>,
        answer: impl AsyncFnOnce(Request<T>) -> Result<Response<A>, Status>,
    ) -> Result<Response<A>, Status> {
        let rule = rules::of(method, kind);
        let caller = self.caller(request.metadata(), request.extensions()).await;
        let audited = self.audit.as_ref().filter(|_| rule.changes());
        let told = audited.map(|_| (Caller::place(request.extensions()), request.get_ref().told()));
        let answered = match Self::judge(&caller, rule) {
            Ok(()) => answer(request).await,
            Err(refused) => Err(refused),
        };
        if let (Some(audit), Some((from, request))) = (audited, told) {
            let method = match kind {
                "" => method.to_owned(),
                kind => format!("{method}/{kind}"),
            };
            audit.note(call(caller, from, method, request, &answered));
        }
        answered
    }

    /// The same of an import, of which the first message says what it is about.
    async fn guarded_import(
        &self,
        request: Request<Streaming<ImportPart>>,
    ) -> Result<Response<ImportStream>, Status> {
        const METHOD: &str = "import_extent";
        let caller = self.caller(request.metadata(), request.extensions()).await;
        let from = Caller::place(request.extensions());
        let mut parts = request.into_inner();
        let mut told = String::new();
        let answered = match Self::judge(&caller, rules::of(METHOD, "")) {
            Ok(()) => match import::head(&mut parts).await {
                Ok(head) => {
                    told = head.told();
                    self.service.import(head, parts).await
                }
                Err(wrong) => Err(wrong),
            },
            Err(refused) => Err(refused),
        };
        if let Some(audit) = &self.audit {
            audit.note(call(caller, from, METHOD.to_owned(), told, &answered));
        }
        answered
    }

    /// Who asks, for logs.
    pub(crate) async fn who(&self, head: &MetadataMap, connection: &Extensions) -> String {
        let caller = self.caller(head, connection).await;
        caller.map_or_else(|_| "nobody".to_owned(), |caller| caller.to_string())
    }

    /// Whether whoever asks may see what is served beside the service, as the metrics are.
    ///
    /// # Errors
    /// As of a method that shows the status.
    pub(crate) async fn may_see(&self, head: &MetadataMap, connection: &Extensions) -> Result<(), Status> {
        Self::judge(&self.caller(head, connection).await, rules::of("status", ""))
    }
}

/// A call as the audit log has it.
fn call<A>(
    caller: Result<Caller, Status>,
    from: String,
    method: String,
    request: String,
    answered: &Result<Response<A>, Status>,
) -> Call {
    Call {
        who: caller.map_or_else(|_| "nobody".to_owned(), |caller| caller.to_string()),
        from,
        method,
        request,
        outcome: match answered {
            Ok(_) => "done".to_owned(),
            Err(refused) => refused.message().to_owned(),
        },
    }
}

fn kind_of_change(request: &ChangeRequest) -> &'static str {
    rules::kind_of(request.change.as_ref())
}

/// Each method of the service, judged; one that is left out here does not compile.
macro_rules! guarded {
    ($($method:ident: $request:ty => $reply:ty $(, by $kind:path)?;)*) => {
        #[tonic::async_trait]
        impl Admin for Guard {
            $(async fn $method(&self, request: Request<$request>) -> Result<Response<$reply>, Status> {
                let [kind, ..] = [$($kind(request.get_ref()),)? ""];
                #[cfg(test)]
                self.asked.lock().unwrap().insert((stringify!($method), kind));
                let answer = async |request| self.service.$method(request).await;
                self.guarded((stringify!($method), kind), request, answer).await
            })*

            type AddDeviceStream = DeviceStream;
            type ImportExtentStream = ImportStream;

            async fn import_extent(
                &self,
                request: Request<Streaming<ImportPart>>,
            ) -> Result<Response<ImportStream>, Status> {
                self.guarded_import(request).await
            }
        }
    };
}

guarded! {
    status: StatusRequest => Document;
    identify: IdentifyRequest => Identity;
    adopt: AdoptRequest => Identity;
    initialize: InitializeRequest => Done;
    create_extent: CreateExtentRequest => Done;
    set_confirmed_reads: SetConfirmedReadsRequest => Done;
    set_write_cache: SetWriteCacheRequest => Done;
    create_target: CreateTargetRequest => Done;
    map_lun: MapLunRequest => Done;
    change_access: AccessRequest => Done;
    close_session: CloseSessionRequest => Done;
    switchover: SwitchoverRequest => Done;
    change: ChangeRequest => Done, by kind_of_change;
    settings: SettingsRequest => Document;
    token: TokenRequest => TokenReply;
    join: JoinRequest => Done;
    readdress: ReaddressRequest => Done;
    certificate: CertificateRequest => CertificateReply;
    create_api_token: CreateApiTokenRequest => CreateApiTokenReply;
    api_tokens: ApiTokensRequest => Document;
    audit_log: AuditLogRequest => Document;
    events: EventsRequest => Document;
    check: CheckRequest => Document;
    clear_reservations: ClearReservationsRequest => Done;
    scrub_extent: ScrubExtentRequest => Done;
    takeover: TakeoverRequest => Document;
    accept_data_loss: AcceptDataLossRequest => Done;
    inject: InjectRequest => Done;
    heal: HealRequest => Done;
    add_device: AddDeviceRequest => DeviceStream;
    remove_device: RemoveDeviceRequest => Done;
    devices: DevicesRequest => Document;
}

#[cfg(test)]
mod tests {
    use holdfast_trust::{AdminRole, Known, Peer};

    use super::*;

    use crate::config::NodeConfig;

    fn known(peer: Peer) -> Known {
        let from = "192.0.2.1:5000".parse().unwrap();
        Known {
            peer: Arc::new(peer),
            from,
        }
    }

    fn guard() -> (Guard, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let text = format!(
            "name = \"a\"\nrole = \"data\"\ndir = \"{}\"\n[listen]\nraft = \"127.0.0.1:1\"\nheartbeat = \"127.0.0.1:1\"\n",
            dir.path().display()
        );
        let config: NodeConfig = toml::from_str(&text).unwrap();
        (Guard::new(Node::idle(config), None), dir)
    }

    async fn judge(
        guard: &Guard,
        (method, kind): (&str, &str),
        head: &MetadataMap,
        connection: &Extensions,
    ) -> Result<(), Status> {
        Guard::judge(&guard.caller(head, connection).await, rules::of(method, kind))
    }

    #[tokio::test]
    async fn who_is_at_the_other_end_decides_and_nobody_may_nothing() {
        let (guard, _dir) = guard();
        let head = MetadataMap::new();
        let nobody = Extensions::new();
        let refused = judge(&guard, ("status", ""), &head, &nobody).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unauthenticated);
        let with = |peer: Peer| {
            let mut connection = Extensions::new();
            connection.insert(known(peer));
            connection
        };
        let admin = |role| {
            with(Peer::Admin {
                role,
                name: "nagios".into(),
            })
        };
        let viewer = admin(AdminRole::Viewer);
        judge(&guard, ("status", ""), &head, &viewer).await.unwrap();
        let refused = judge(&guard, ("change", "drain"), &head, &viewer)
            .await
            .unwrap_err();
        assert_eq!(refused.code(), tonic::Code::PermissionDenied);
        // A certificate without a role opens the connection, and nothing more.
        let refused = guard.may_see(&head, &admin(AdminRole::None)).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::PermissionDenied);
        assert!(refused.message().contains("shows no API token"), "{refused}");
        // Certificates of other ports do not come in; where one did, it would open nothing.
        for other in [Peer::Node(Vec::new()), Peer::Joiner("x".into())] {
            assert!(judge(&guard, ("status", ""), &head, &with(other)).await.is_err());
        }
    }

    #[tokio::test]
    async fn a_token_that_is_none_opens_nothing_whatever_the_connection() {
        let (guard, _dir) = guard();
        let mut connection = Extensions::new();
        connection.insert(known(Peer::Admin {
            role: AdminRole::Admin,
            name: "jane".into(),
        }));
        for (value, word) in [
            ("Bearer x", "no cluster"),
            ("Basic eDp4", "once"),
            ("Bearer", "once"),
            ("", "once"),
        ] {
            let mut head = MetadataMap::new();
            head.insert("authorization", value.parse().unwrap());
            let refused = judge(&guard, ("status", ""), &head, &connection)
                .await
                .unwrap_err();
            assert_eq!(refused.code(), tonic::Code::Unauthenticated, "{value}");
            assert!(refused.message().contains(word), "{value}: {refused}");
        }
        let mut twice = MetadataMap::new();
        twice.append("authorization", "Bearer x".parse().unwrap());
        twice.append("authorization", "Bearer y".parse().unwrap());
        assert!(judge(&guard, ("status", ""), &twice, &connection).await.is_err());
    }
}
