use std::collections::BTreeSet;
use std::sync::Mutex;

use axum::body::{Body, to_bytes};
use axum::http::Method;
use holdfast_trust::{AdminRole, Known, Peer};
use serde_json::{Value, json};
use tonic::{Code, Status};
use tower::ServiceExt as _;

use super::*;
use crate::admin::access::AccessRequest;
use crate::admin::rules::RULES;
use crate::config::NodeConfig;
use crate::runtime::Node;

/// Methods without a route, and why.
const NO_ROUTE: [(&str, &str); 4] = [
    (
        "adopt",
        "a step of 'cluster init', which goes from machine to machine and hands the cluster's key over",
    ),
    ("initialize", "the last step of the same"),
    (
        "import_extent",
        "a stream in both directions, of any length; 'holdfast extent import' reads the image where it is",
    ),
    (
        "add_device",
        "a stream for as long as it takes to write a whole disk, and what it destroys is to be typed by a person",
    ),
];

/// Kinds of requests about access that a handler has made.
static MADE: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

/// All of the kinds below.
const KINDS: usize = 14;

/// Whoever adds a kind adds a route for it, and counts it.
pub(super) fn note(request: &AccessRequest) {
    let kind = match request {
        AccessRequest::CreateGroup { .. } => "create group",
        AccessRequest::ChangeGroup { .. } => "change group",
        AccessRequest::DeleteGroup { .. } => "delete group",
        AccessRequest::SetUser { .. } => "set user",
        AccessRequest::SetMutual { .. } => "set mutual",
        AccessRequest::Allow { .. } => "allow",
        AccessRequest::Deny { .. } => "deny",
        AccessRequest::ChangeTarget { .. } => "change target",
        AccessRequest::MapGroupLun { .. } => "map group LUN",
        AccessRequest::UnmapLun { .. } => "unmap LUN",
        AccessRequest::ShareLuns { .. } => "share LUNs",
        AccessRequest::SetLunReadOnly { .. } => "set LUN read-only",
        AccessRequest::DeleteTarget { .. } => "delete target",
        AccessRequest::DeleteExtent { .. } => "delete extent",
    };
    MADE.lock().unwrap().insert(kind);
}

/// A node that belongs to no cluster, under its routes.
struct Rig {
    guard: Arc<Guard>,
    router: Router,
    _dir: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let text = format!(
            "name = \"a\"\nrole = \"data\"\ndir = \"{}\"\n[listen]\nraft = \"127.0.0.1:1\"\nheartbeat = \"127.0.0.1:1\"\n",
            dir.path().display()
        );
        let config: NodeConfig = toml::from_str(&text).unwrap();
        let guard = Arc::new(Guard::new(Node::idle(config), None));
        let router = routes(Arc::clone(&guard));
        Self {
            guard,
            router,
            _dir: dir,
        }
    }

    async fn ask(
        &self,
        role: Option<AdminRole>,
        method: &str,
        path: &str,
        body: impl Into<Body>,
    ) -> (u16, String, Value) {
        let mut request = axum::http::Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(path)
            .body(body.into())
            .unwrap();
        if let Some(role) = role {
            let name = "nagios".to_owned();
            request.extensions_mut().insert(Known {
                peer: Arc::new(Peer::Admin { role, name }),
                from: "192.0.2.1:5000".parse().unwrap(),
            });
        }
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let status = answer.status().as_u16();
        let kind = answer
            .headers()
            .get(CONTENT_TYPE)
            .map(|kind| kind.to_str().unwrap().to_owned());
        let bytes = to_bytes(answer.into_body(), 1 << 22).await.unwrap();
        let value = serde_json::from_slice(&bytes).unwrap_or_default();
        (status, kind.unwrap_or_default(), value)
    }

    async fn refused(&self, method: &str, path: &str, body: impl Into<Body>) -> (u16, String) {
        let (status, kind, value) = self.ask(Some(AdminRole::Admin), method, path, body).await;
        assert_eq!(kind, PROBLEM_JSON, "{method} {path}: {status} {value}");
        assert_eq!(value["status"], status, "{value}");
        (status, value["detail"].as_str().unwrap().to_owned())
    }
}

/// The least that a schema of the document allows.
fn sample(document: &Value, schema: &Value) -> Value {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.strip_prefix("#/components/schemas/").unwrap();
        return sample(document, &document["components"]["schemas"][name]);
    }
    match schema["type"].as_str() {
        Some("object") => {
            let required = schema["required"].as_array().cloned().unwrap_or_default();
            let fields = required.iter().map(|field| field.as_str().unwrap().to_owned());
            let value = |field: &String| sample(document, &schema["properties"][field.as_str()]);
            fields.map(|field| (field.clone(), value(&field))).collect()
        }
        Some("string") => json!("x"),
        Some("boolean") => json!(false),
        Some("integer") => json!(1),
        Some("array") => json!([]),
        other => panic!("no sample of {other:?}: {schema}"),
    }
}

/// Method, path with something in it, and body of every operation of the document.
fn operations(document: &Value) -> Vec<(String, String, String)> {
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let filled = path
            .replace("{lun}", "1")
            .replace("{session}", "1")
            .replace(['{', '}'], "");
        for (method, operation) in item.as_object().unwrap() {
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            let body = if schema.is_null() {
                String::new()
            } else {
                sample(document, schema).to_string()
            };
            all.push((method.to_uppercase(), filled.clone(), body));
        }
    }
    all
}

/// Walks the document, as somebody without a name, as a viewer and as an admin: every route is judged, and every method of the service has
/// one.
#[tokio::test]
async fn every_route_is_described_and_judged_and_every_method_has_one() {
    let rig = Rig::new();
    let (status, _, document) = rig.ask(None, "GET", "/v1/openapi.json", "").await;
    assert_eq!(status, 200);
    let operations = operations(&document);
    assert!(operations.len() > 50, "{operations:?}");
    for (method, path, body) in &operations {
        let (status, kind, value) = rig.ask(None, method, path, body.clone()).await;
        assert_eq!(
            (status, kind.as_str()),
            (401, PROBLEM_JSON),
            "{method} {path} {value}"
        );
        let viewer = rig.ask(Some(AdminRole::Viewer), method, path, body.clone()).await;
        if method == "GET" {
            assert!(matches!(viewer.0, 200 | 404 | 503), "{path}: {viewer:?}");
        } else {
            let line = viewer.2["detail"].as_str().unwrap_or_default();
            assert_eq!(viewer.0, 403, "{method} {path}: {viewer:?}");
            assert!(
                line.starts_with("viewer 'nagios' may not "),
                "{method} {path}: {line}"
            );
        }
        let admin = rig.ask(Some(AdminRole::Admin), method, path, body.clone()).await;
        assert!(
            matches!(admin.0, 200 | 400 | 404 | 409 | 503),
            "{method} {path}: {admin:?}"
        );
    }
    let asked = rig.guard.asked.lock().unwrap().clone();
    for rule in RULES {
        let has_none = NO_ROUTE.iter().any(|(method, _)| *method == rule.method);
        let is_asked = asked.contains(&(rule.method, rule.kind));
        assert_ne!(is_asked, has_none, "{} {}", rule.method, rule.kind);
    }
    let made = MADE.lock().unwrap();
    assert_eq!(made.len(), KINDS, "{made:?}");
}

/// What a generator of clients trips over: operations of one name, and schemas that are not there.
#[test]
fn the_document_is_whole() {
    let text = all().1.to_json().unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            assert!(
                ids.insert(operation["operationId"].to_string()),
                "{method} {path}"
            );
            assert!(
                operation["summary"].is_string(),
                "{method} {path} says nothing about itself"
            );
            assert!(operation["responses"]["200"].is_object(), "{method} {path}");
            assert!(operation["responses"]["403"]["content"][PROBLEM_JSON].is_object());
        }
    }
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for (at, _) in text.match_indices("#/components/schemas/") {
        let name = text[at..].split('"').next().unwrap().rsplit('/').next().unwrap();
        assert!(schemas.contains_key(name), "{name}");
    }
}

#[tokio::test]
async fn wrong_requests_get_one_line_that_says_what_to_do() {
    let rig = Rig::new();
    let new = r#"{"name": "d", "size_bytes": 1048576, "colour": 1}"#;
    let (status, line) = rig.refused("POST", "/v1/extents", new).await;
    assert_eq!(status, 400);
    assert!(
        line.contains("unknown field `colour`") && line.contains("`full`"),
        "{line}"
    );
    for (body, word) in [
        ("{\"name\": \"d\"}", "size_bytes"),
        ("", "name"),
        ("{", "EOF"),
        ("[[[", ""),
    ] {
        let (status, line) = rig.refused("POST", "/v1/extents", body).await;
        assert!(
            status == 400 && line.contains(word) && !line.contains('\n'),
            "{line}"
        );
    }
    let long = vec![b' '; asked::BODY_MAX + 1];
    assert_eq!(rig.refused("POST", "/v1/extents", long).await.0, 413);
    let deep = "[".repeat(100_000);
    assert_eq!(rig.refused("POST", "/v1/extents", deep).await.0, 400);
    for (method, path, status) in [
        ("GET", "/v1", 404),
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/extents/d/nothing", 404),
        ("PATCH", "/v1/extents", 405),
        ("DELETE", "/v1/sessions/me", 400),
        ("DELETE", "/v1/targets/t/luns/-1", 400),
        ("GET", "/v1/extents/%ff", 400),
        ("GET", "/v1/extents/d", 404),
        ("GET", "/v1/audit?last=0", 400),
        ("GET", "/v1/audit?first=1", 400),
        ("GET", "/v1/events?last=-1", 400),
    ] {
        assert_eq!(rig.refused(method, path, "").await.0, status, "{method} {path}");
    }
    let secret = r#"{"secret": "correct horse", "correct horse": 1}"#;
    let (status, line) = rig.refused("PUT", "/v1/groups/g/users/u", secret).await;
    assert!(status == 400 && !line.contains("horse"), "{line}");
}

#[test]
fn codes_of_the_service_become_those_of_http_in_one_place() {
    for (code, status) in [
        (Code::InvalidArgument, 400),
        (Code::Unauthenticated, 401),
        (Code::PermissionDenied, 403),
        (Code::NotFound, 404),
        (Code::AlreadyExists, 409),
        (Code::FailedPrecondition, 409),
        (Code::Unavailable, 503),
        (Code::Internal, 500),
        (Code::Unknown, 500),
    ] {
        let problem = serde_json::to_value(Problem::from(Status::new(code, "the line"))).unwrap();
        assert_eq!(
            (&problem["status"], &problem["detail"]),
            (&json!(status), &json!("the line"))
        );
        assert_eq!(problem["type"], "about:blank");
    }
}
