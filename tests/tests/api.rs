//! The admin service of real nodes: who may do what by the role of his certificate, and REST on the socket and over TLS.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use holdfast_tests::cluster;
use holdfast_tests::machines::{Machines, in_sync};
use holdfast_tests::tools::Finished;
use holdfast_trust::Credentials;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

const ADMIN: &str = "[admin]\ntcp = \"ADMIN\"\n";
/// Of a node's ports, by its offset.
const TCP_ADMIN: u16 = 3;

/// Somebody with a certificate of a role.
struct Owner {
    file: String,
    address: SocketAddr,
}

impl Owner {
    async fn new(machines: &Machines, role: &str, name: &str) -> Result<Self> {
        let path = machines.path(&format!("{name}.pem"));
        let file = path.to_str().context("a path in UTF-8")?.to_owned();
        let ask = ["cluster", "certificate", &file, "--role", role, "--name", name];
        machines.ask("a", &ask).await?;
        let address = machines.address(1, TCP_ADMIN);
        Ok(Self { file, address })
    }

    async fn ask(&self, arguments: &[&str]) -> Result<Finished> {
        let address = self.address.to_string();
        let mut all = vec!["--admin", &address, "--certificate", &self.file];
        all.extend(arguments);
        cluster::holdfast(&all).await
    }

    async fn may(&self, arguments: &[&str]) -> Result<()> {
        let done = self.ask(arguments).await?;
        ensure!(done.code == Some(0), "{arguments:?}: {}", done.err);
        Ok(())
    }

    async fn may_not(&self, arguments: &[&str], line: &str) -> Result<()> {
        let done = self.ask(arguments).await?;
        ensure!(
            done.code == Some(1) && done.err.trim() == format!("holdfast: {line}"),
            "{arguments:?}: {}{}",
            done.out,
            done.err
        );
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_may_do_what_they_say_and_nothing_more() -> Result<()> {
    let machines = Machines::trio_with(ADMIN).await?;
    machines
        .ask("a", &["extent", "create", "d", "--size", "64MiB"])
        .await?;
    machines
        .until("a", "d is in sync", |status| in_sync(status) == ["a", "b"])
        .await?;
    let viewer = Owner::new(&machines, "viewer", "nagios").await?;
    let operator = Owner::new(&machines, "operator", "jane").await?;
    let admin = Owner::new(&machines, "admin", "root").await?;
    for one in [&viewer, &operator, &admin] {
        for sees in [
            &["status"][..],
            &["cluster", "show"],
            &["export"],
            &["session", "list"],
        ] {
            one.may(sees).await?;
        }
    }
    let switch = ["switchover", "d", "--to", "b"];
    let line = "viewer 'nagios' may not switch over; it takes an operator";
    viewer.may_not(&switch, line).await?;
    let drain = ["cluster", "drain", "b"];
    let line = "viewer 'nagios' may not drain nodes; it takes an operator";
    viewer.may_not(&drain, line).await?;
    operator.may(&switch).await?;
    operator.may(&drain).await?;
    operator.may(&["cluster", "undrain", "b"]).await?;
    let create = ["extent", "create", "e", "--size", "64MiB"];
    let line = "operator 'jane' may not create extents; it takes an admin";
    operator.may_not(&create, line).await?;
    let mine = machines.path("mine.pem");
    let more = [
        "cluster",
        "certificate",
        mine.to_str().context("a path in UTF-8")?,
    ];
    let line = "operator 'jane' may not make certificates; it takes an admin";
    operator.may_not(&more, line).await?;
    ensure!(!mine.exists(), "no certificate for who may not make one");
    let set = ["cluster", "set", "lease-time", "1s"];
    let line = "operator 'jane' may not change settings; it takes an admin";
    operator.may_not(&set, line).await?;
    admin.may(&create).await?;
    admin.may(&set).await?;
    let status = machines.status("a").await?;
    ensure!(status.extents.len() == 2, "{status:?}");
    for (arguments, word) in [
        (["--role", "root"], "viewer, operator or admin"),
        (["--name", "Jane Doe"], "a-z, 0-9 and -"),
    ] {
        let mut all = more.to_vec();
        all.extend(arguments);
        let refused = machines.refused("a", &all).await?;
        ensure!(refused.contains(word), "{refused}");
    }
    Ok(())
}

/// One request in HTTP/1.1; the status and the JSON.
async fn http(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    method: &str,
    path: &str,
    body: &Value,
) -> Result<(u16, Value)> {
    http_with(stream, (method, path), body, "").await
}

/// The same with more lines in the head, each with its end.
async fn http_with(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    (method, path): (&str, &str),
    body: &Value,
    more: &str,
) -> Result<(u16, Value)> {
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: holdfast\r\nConnection: close\r\nContent-Length: {length}\r\n{more}\r\n{body}"
    );
    stream.write_all(head.as_bytes()).await?;
    let mut answer = Vec::new();
    // TLS may end without a farewell; what counts is whether the answer is whole.
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .with_context(|| format!("no answer: {answer:?}"))?;
    let status = head.split(' ').nth(1).context("a status line")?.parse()?;
    let is_json = head.to_lowercase().contains("json");
    let value = if is_json {
        serde_json::from_str(body)?
    } else {
        body.into()
    };
    Ok((status, value))
}

struct Rest<'a>(&'a Machines);

impl Rest<'_> {
    async fn socket(&self, name: &str, method: &str, path: &str, body: Value) -> Result<(u16, Value)> {
        let stream = UnixStream::connect(self.0.path(name).join("admin.sock")).await?;
        http(stream, method, path, &body).await
    }

    async fn done(&self, method: &str, path: &str, body: Value) -> Result<()> {
        let (status, value) = self.socket("a", method, path, body).await?;
        ensure!(
            status == 200 && value["message"].is_string(),
            "{method} {path}: {status} {value}"
        );
        Ok(())
    }

    async fn refused(&self, method: &str, path: &str, body: Value, status: u16, word: &str) -> Result<()> {
        let (got, value) = self.socket("a", method, path, body).await?;
        let line = value["detail"].as_str().unwrap_or_default();
        ensure!(
            got == status && line.contains(word) && !line.contains('\n'),
            "{method} {path}: {got} {value}"
        );
        Ok(())
    }

    async fn seen(&self, path: &str) -> Result<Value> {
        let (status, value) = self.socket("a", "GET", path, Value::Null).await?;
        ensure!(status == 200, "{path}: {status} {value}");
        Ok(value)
    }
}

/// A LUN from nothing to in use by a group, and away again, by REST alone; what the commands show is the same.
#[tokio::test(flavor = "multi_thread")]
async fn everything_is_made_and_taken_away_again_by_rest() -> Result<()> {
    let machines = Machines::trio_with(ADMIN).await?;
    let rest = Rest(&machines);
    let target = "iqn.2026-11.example:rest";
    made(&rest, target).await?;
    machines
        .until("a", "d is in sync", |status| in_sync(status) == ["a", "b"])
        .await?;
    rest.done("POST", "/v1/switchover", json!({"to": "b"})).await?;
    ensure!(rest.seen("/v1/extents/d").await?["primary"] == "b");
    rest.refused("DELETE", "/v1/extents/d", Value::Null, 409, "in use")
        .await?;
    the_same_is_shown(&machines).await?;
    for (method, path) in [
        ("DELETE", format!("/v1/targets/{target}/groups/hosts")),
        ("DELETE", "/v1/groups/hosts".to_owned()),
        ("DELETE", format!("/v1/targets/{target}/luns/0")),
        ("DELETE", format!("/v1/targets/{target}")),
        ("DELETE", "/v1/extents/d".to_owned()),
        ("DELETE", "/v1/settings/lease-time".to_owned()),
    ] {
        rest.done(method, &path, Value::Null).await?;
    }
    let after = rest.seen("/v1/status").await?;
    ensure!(
        after["extents"] == json!([]) && after["targets"] == json!([]),
        "{after}"
    );
    over_tls(&machines).await
}

/// An extent, a target, a LUN, a group that may use it, and a setting; with a wrong word for each.
async fn made(rest: &Rest<'_>, target: &str) -> Result<()> {
    let new = json!({"name": "d", "size_bytes": 64 << 20, "replicas": ["a", "b"]});
    rest.done("POST", "/v1/extents", new.clone()).await?;
    rest.refused("POST", "/v1/extents", new, 409, "exists already")
        .await?;
    let small = json!({"name": "e", "size_bytes": 1});
    rest.refused("POST", "/v1/extents", small, 400, "an extent has")
        .await?;
    let nobody = json!({"name": "e", "size_bytes": 64 << 20, "replicas": ["x"]});
    rest.refused("POST", "/v1/extents", nobody, 404, "the nodes are a, b, w")
        .await?;
    rest.done("POST", "/v1/targets", json!({"iqn": target})).await?;
    let lun = format!("/v1/targets/{target}/luns/0");
    rest.done("PUT", &lun, json!({"extent": "d"})).await?;
    rest.refused("PUT", &lun, json!({"extent": "x"}), 404, "no extent 'x'")
        .await?;
    rest.done("PUT", &format!("{lun}/read-only"), json!({"on": true}))
        .await?;
    rest.done(
        "POST",
        "/v1/groups",
        json!({"name": "hosts", "any_initiator": true}),
    )
    .await?;
    let secret = json!({"secret": "correct horse battery"});
    rest.done("PUT", "/v1/groups/hosts/users/u", secret.clone())
        .await?;
    rest.refused(
        "PUT",
        "/v1/groups/none/users/u",
        secret,
        404,
        "no initiator group 'none'",
    )
    .await?;
    rest.done("PUT", &format!("/v1/targets/{target}/groups/hosts"), Value::Null)
        .await?;
    rest.done("PUT", "/v1/settings/lease-time", json!({"value": "1s"}))
        .await?;
    rest.refused(
        "PUT",
        "/v1/settings/lease-time",
        json!({"value": "1ms"}),
        400,
        "300ms to 5s",
    )
    .await
}

/// REST shows what commands show, and no secret.
async fn the_same_is_shown(machines: &Machines) -> Result<()> {
    let rest = Rest(machines);
    let status: Value = serde_json::from_str(&machines.ask("a", &["status", "--json"]).await?)?;
    let seen = rest.seen("/v1/status").await?;
    for part in ["nodes", "targets", "access", "portals", "cluster_id"] {
        ensure!(
            seen[part] == status[part],
            "{part}: {} {}",
            seen[part],
            status[part]
        );
    }
    ensure!(!seen.to_string().contains("horse"), "a secret is shown");
    let exported = machines.ask("a", &["export"]).await?;
    let document = rest.seen("/v1/configuration").await?;
    ensure!(
        document.as_str().map(str::trim) == Some(exported.trim()),
        "{document}"
    );
    Ok(())
}

/// The same over TCP, by the role of the certificate.
async fn over_tls(machines: &Machines) -> Result<()> {
    let viewer = Owner::new(machines, "viewer", "nagios").await?;
    let pem = std::fs::read(&viewer.file)?;
    let credentials = Credentials::from_pem(&pem)?;
    let ask = async |method: &str, path: &str, body: Value| {
        let stream = TcpStream::connect(viewer.address).await?;
        http(credentials.connect(stream).await?, method, path, &body).await
    };
    let (status, value) = ask("GET", "/v1/nodes", Value::Null).await?;
    ensure!(status == 200 && value[0]["name"] == "a", "{status} {value}");
    let (status, value) = ask("POST", "/v1/switchover", json!({"to": "a"})).await?;
    ensure!(
        status == 403 && value["detail"] == "viewer 'nagios' may not switch over; it takes an operator",
        "{status} {value}"
    );
    // Without a certificate nothing is answered, not even that.
    let plain = TcpStream::connect(viewer.address).await?;
    ensure!(http(plain, "GET", "/v1/status", &Value::Null).await.is_err());
    Ok(())
}

/// What a token's owner gets, on a connection of its own each time.
struct Bearer<'a> {
    machines: &'a Machines,
    token: String,
    /// Without: over a's socket.
    certificate: Option<Owner>,
}

impl Bearer<'_> {
    async fn ask(&self, method: &str, path: &str, body: Value) -> Result<(u16, Value)> {
        let more = format!("Authorization: Bearer {}\r\n", self.token);
        let Some(owner) = &self.certificate else {
            let stream = UnixStream::connect(self.machines.path("a").join("admin.sock")).await?;
            return http_with(stream, (method, path), &body, &more).await;
        };
        let credentials = Credentials::from_pem(&std::fs::read(&owner.file)?)?;
        let stream = TcpStream::connect(owner.address).await?;
        http_with(credentials.connect(stream).await?, (method, path), &body, &more).await
    }

    async fn expects(&self, method: &str, path: &str, body: Value, status: u16, word: &str) -> Result<()> {
        let (got, value) = self.ask(method, path, body).await?;
        let fits = got == status && value.to_string().contains(word);
        ensure!(fits, "{method} {path}: {got} {value}");
        Ok(())
    }
}

/// A token's role counts instead of the connection's, more or less than that may do; and it counts no more once it is revoked.
#[tokio::test(flavor = "multi_thread")]
async fn an_api_token_says_who_asks_until_it_is_revoked() -> Result<()> {
    let machines = Machines::trio_with(ADMIN).await?;
    let create = async |name: &str, role: &str| -> Result<String> {
        let text = machines
            .ask("a", &["api-token", "create", name, "--role", role, "--json"])
            .await?;
        let made: Value = serde_json::from_str(&text)?;
        Ok(made["token"].as_str().context("a token")?.to_owned())
    };
    let viewer = Bearer {
        machines: &machines,
        token: create("nagios", "viewer").await?,
        certificate: None,
    };
    let drain = "/v1/nodes/b/drain";
    // Root's socket, and yet a viewer.
    viewer
        .expects("GET", "/v1/nodes", Value::Null, 200, "witness")
        .await?;
    let line = "viewer 'nagios' (API token) may not drain nodes; it takes an operator";
    viewer.expects("PUT", drain, Value::Null, 403, line).await?;
    shown_by_a_command(&machines, &viewer.token, line).await?;
    let nobody = gate(&machines).await?;
    let operator = Bearer {
        machines: &machines,
        token: create("backup", "operator").await?,
        certificate: Some(nobody),
    };
    operator
        .expects("PUT", drain, Value::Null, 200, "b drains")
        .await?;
    operator
        .expects("DELETE", drain, Value::Null, 200, "takes extents again")
        .await?;
    let more = json!({"name": "more", "role": "admin"});
    operator
        .expects("POST", "/v1/api-tokens", more, 403, "it takes an admin")
        .await?;
    let listed = machines.ask("b", &["api-token", "list", "--json"]).await?;
    let secret = operator.token.rsplit('.').next().context("a secret")?;
    ensure!(listed.contains("backup") && !listed.contains(secret), "{listed}");
    machines
        .refused("a", &["api-token", "create", "backup", "--role", "admin"])
        .await?;
    machines
        .refused("a", &["api-token", "create", "none", "--role", "none"])
        .await?;
    for directory in ["a", "b", "w"] {
        ensure!(
            !holds(&machines.path(directory), secret.as_bytes())?,
            "the secret is on {directory}'s disk"
        );
    }
    machines.ask("b", &["api-token", "revoke", "backup"]).await?;
    machines.ask("b", &["api-token", "revoke", "backup"]).await?;
    let listed = machines.ask("b", &["api-token", "list"]).await?;
    ensure!(!listed.contains("backup"), "{listed}");
    operator
        .expects("GET", "/v1/nodes", Value::Null, 401, "revoked")
        .await?;
    viewer
        .expects("GET", "/v1/api-tokens", Value::Null, 200, "nagios")
        .await
}

/// The same token, shown by commands.
async fn shown_by_a_command(machines: &Machines, token: &str, refusal: &str) -> Result<()> {
    let file = machines.path("nagios.token");
    std::fs::write(&file, format!("{token}\n"))?;
    let shown = ["--api-token", file.to_str().context("a path in UTF-8")?];
    machines.ask("a", &[&["status"], &shown[..]].concat()).await?;
    let refused = machines
        .refused("a", &[&["cluster", "drain", "b"], &shown[..]].concat())
        .await?;
    ensure!(refused.contains(refusal), "{refused}");
    std::fs::write(&file, "two words")?;
    let wrong = machines.refused("a", &[&["status"], &shown[..]].concat()).await?;
    ensure!(wrong.contains("an API token is one word"), "{wrong}");
    Ok(())
}

/// A certificate without a role opens the connection, and nothing more.
async fn gate(machines: &Machines) -> Result<Owner> {
    let nobody = Owner::new(machines, "none", "gate").await?;
    let done = nobody.ask(&["status"]).await?;
    ensure!(
        done.code == Some(1) && done.err.contains("no API token"),
        "{}",
        done.err
    );
    let credentials = Credentials::from_pem(&std::fs::read(&nobody.file)?)?;
    for path in ["/v1/status", "/metrics"] {
        let stream = credentials
            .connect(TcpStream::connect(nobody.address).await?)
            .await?;
        let (status, value) = http(stream, "GET", path, &Value::Null).await?;
        ensure!(status == 403, "{path}: {status} {value}");
    }
    Ok(nobody)
}

/// Whether a file somewhere below has these bytes in it.
fn holds(dir: &std::path::Path, bytes: &[u8]) -> Result<bool> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let found = if kind.is_dir() {
            holds(&entry.path(), bytes)?
        } else {
            kind.is_file()
                && std::fs::read(entry.path())?
                    .windows(bytes.len())
                    .any(|window| window == bytes)
        };
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Done or refused, over either protocol, through any node: it is in the log, which all nodes have, and in the file of the node that was
/// asked; and no secret is.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_for_is_in_the_audit_log_of_all_nodes() -> Result<()> {
    let mut machines = Machines::trio_with(ADMIN).await?;
    let viewer = Owner::new(&machines, "viewer", "nagios").await?;
    viewer.may(&["status"]).await?;
    let line = "viewer 'nagios' may not drain nodes; it takes an operator";
    viewer.may_not(&["cluster", "drain", "b"], line).await?;
    let rest = Rest(&machines);
    rest.done("POST", "/v1/groups", json!({"name": "hosts"})).await?;
    let secret = json!({"secret": "correct horse battery"});
    rest.done("PUT", "/v1/groups/hosts/users/u", secret).await?;
    rest.refused("DELETE", "/v1/extents/x", Value::Null, 404, "no extent 'x'")
        .await?;
    machines.ask("w", &["cluster", "set", "lease-time", "1s"]).await?;
    let uid = format!("user {} on the socket", rustix::process::getuid().as_raw());
    let wanted = [
        ("a", "admin 'nobody'", "", "", "", 0),
        (
            "b",
            "viewer 'nagios'",
            "127.0.0.1:",
            "change/drain",
            "it takes an operator",
            1,
        ),
        ("a", uid.as_str(), "socket", "change_access", "done", 2),
        ("a", uid.as_str(), "socket", "change_access", "no extent 'x'", 1),
        ("w", uid.as_str(), "socket", "change/setting", "done", 1),
        ("b", "viewer 'nagios'", "", "status", "", 0),
    ];
    for name in ["a", "b", "w"] {
        logged(&machines, name, &wanted).await?;
    }
    let file = std::fs::read_to_string(machines.path("b").join("audit.jsonl"))?;
    let lines: Vec<Value> = file.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    ensure!(lines.iter().all(|entry| entry["node"] == "b"), "{file}");
    ensure!(
        file.contains("it takes an operator") && !file.contains("see the status"),
        "{file}"
    );
    // The log outlives a node, and its start anew.
    let before = machines.ask("a", &["audit", "--json", "--last", "5"]).await?;
    machines.kill("w").await?;
    machines.start("w", "witness", 2)?;
    machines
        .until("w", "w is back", |status| !status.nodes.is_empty())
        .await?;
    let after = machines.ask("w", &["audit", "--json", "--last", "5"]).await?;
    ensure!(before == after, "{before} {after}");
    let text = machines.ask("w", &["audit"]).await?;
    ensure!(text.contains("lease-time"), "{text}");
    Ok(())
}

/// Node, who, from, method and outcome of entries, in part, and how many there are.
type Row<'a> = (&'a str, &'a str, &'a str, &'a str, &'a str, usize);

/// Waits until the audit log of a node is as wanted.
async fn logged(machines: &Machines, name: &str, wanted: &[Row<'_>]) -> Result<()> {
    let start = tokio::time::Instant::now();
    loop {
        let entries: Value =
            serde_json::from_str(&machines.ask(name, &["audit", "--last", "1000", "--json"]).await?)?;
        let all = entries.as_array().context("entries")?;
        let is = |entry: &Value, field: &str, text: &str| {
            entry[field].as_str().is_some_and(|value| value.contains(text))
        };
        let count = |(node, who, from, method, outcome, _): &Row<'_>| {
            let fits = |entry: &&Value| {
                entry["node"] == *node
                    && is(entry, "who", who)
                    && is(entry, "from", from)
                    && is(entry, "method", method)
                    && is(entry, "outcome", outcome)
            };
            all.iter().filter(fits).count()
        };
        if wanted.iter().all(|row| count(row) == row.5) {
            ensure!(!entries.to_string().contains("horse"), "a secret is in the log");
            return Ok(());
        }
        let late = start.elapsed() > holdfast_tests::machines::LONG;
        ensure!(
            !late,
            "not in the log of {name}: {entries:#}\n{}",
            machines.logs()
        );
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}
