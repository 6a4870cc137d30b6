//! Handshakes over loopback: who comes in, who does not, and what each side is told.

use tokio::net::TcpListener;

use super::*;
use crate::Generation;

const CLUSTER: u128 = 0xc1;
const KEY: [u8; 32] = [7; 32];

fn generation(number: u64) -> Generation {
    Generation {
        number,
        salt: if number == 1 {
            String::new()
        } else {
            format!("salt{number}")
        },
    }
}

fn generations(present: u64, also: Option<u64>) -> Generations {
    Generations {
        present: generation(present),
        also: also.map(generation),
    }
}

fn node(id: u64) -> Arc<Trust> {
    Trust::new(NodeId(id), &[CLUSTER], &Key::new(KEY), &Generations::default()).unwrap()
}

/// The tokens that members know here.
fn no_token(_: &str) -> Option<Key> {
    None
}

type Ends = (
    Result<ClientStream, HandshakeError>,
    Result<(ServerStream, Peer), HandshakeError>,
);

async fn meet<F>(server: &Trust, port: Port, dial: impl FnOnce(TcpStream) -> F) -> Ends
where
    F: Future<Output = Result<ClientStream, HandshakeError>>,
{
    meet_with(server, port, &no_token, dial).await
}

async fn meet_with<F>(
    server: &Trust,
    port: Port,
    token: &(dyn Fn(&str) -> Option<Key> + Send + Sync),
    dial: impl FnOnce(TcpStream) -> F,
) -> Ends
where
    F: Future<Output = Result<ClientStream, HandshakeError>>,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let dialled = async { dial(TcpStream::connect(address).await.unwrap()).await };
    let taken = async {
        let stream = listener.accept().await.unwrap().0;
        server.accept_with(port, stream, token).await
    };
    tokio::join!(dialled, taken)
}

/// What both sides say of it.
fn lines(ends: Ends) -> (String, String) {
    let (dialled, taken) = ends;
    let line =
        |error: Option<HandshakeError>| error.map_or_else(|| "in".to_owned(), |error| error.to_string());
    (line(dialled.err()), line(taken.err()))
}

#[tokio::test]
async fn two_nodes_know_each_other_and_bytes_pass() {
    let (a, b) = (node(1), node(2));
    for port in [Port::Raft, Port::Link] {
        let (dialled, taken) = meet(&b, port, |stream| async {
            a.connect(port, NodeId(2), stream).await
        })
        .await;
        let (mut dialled, (mut taken, peer)) = (dialled.unwrap(), taken.unwrap());
        assert!(peer.is_node(CLUSTER, NodeId(1)));
        assert!(!peer.is_node(CLUSTER, NodeId(2)) && !peer.is_node(CLUSTER + 1, NodeId(1)));
        dialled.write_all(b"block").await.unwrap();
        dialled.flush().await.unwrap();
        let mut got = [0; 5];
        taken.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"block");
    }
}

#[tokio::test]
async fn somebody_else_at_the_address_is_refused_by_name() {
    let (a, c) = (node(1), node(3));
    let (client, server) = lines(
        meet(&c, Port::Raft, |s| async {
            a.connect(Port::Raft, NodeId(2), s).await
        })
        .await,
    );
    assert!(
        client.contains("names node 3 of cluster") && client.contains("node 2 of cluster"),
        "{client}"
    );
    assert!(
        server.contains("does not take this node's certificate"),
        "{server}"
    );
}

#[tokio::test]
async fn another_authority_another_cluster_and_no_certificate_are_refused_on_both_sides() {
    let b = node(2);
    let other_key = Trust::new(NodeId(1), &[CLUSTER], &Key::new([8; 32]), &Generations::default()).unwrap();
    let (client, server) = lines(
        meet(&b, Port::Link, |s| async {
            other_key.connect(Port::Link, NodeId(2), s).await
        })
        .await,
    );
    assert!(client.contains("not of this cluster's authority"), "{client}");
    assert!(
        server.contains("does not take this node's certificate"),
        "{server}"
    );

    // The same key, as nobody but a node of before a takeover has it; here b was never that cluster.
    let other_cluster =
        Trust::new(NodeId(1), &[CLUSTER + 1], &Key::new(KEY), &Generations::default()).unwrap();
    let name = Name::Node {
        cluster: CLUSTER,
        node: NodeId(2),
    };
    let config = other_cluster.now().client(Port::Link).unwrap();
    let (client, server) = lines(meet(&b, Port::Link, |s| connect(config, &name, s, true)).await);
    assert!(
        client.contains("refuses this node: this is node 2 of cluster"),
        "{client}"
    );
    assert!(
        server.contains("names node 1 of cluster 000000000000000000000000000000c2"),
        "{server}"
    );

    let anonymous =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates({
                let mut roots = rustls::RootCertStore::empty();
                roots.add(b.now().authority.root().clone()).unwrap();
                roots
            })
            .with_no_client_auth();
    for port in [Port::Raft, Port::Link, Port::Admin] {
        let mut config = anonymous.clone();
        config.alpn_protocols = vec![
            b"h2".to_vec(),
            b"holdfast-raft/1".to_vec(),
            b"holdfast-link/1".to_vec(),
        ];
        let (client, server) = lines(meet(&b, port, |s| connect(Arc::new(config), &name, s, true)).await);
        assert!(
            client.contains("does not take this node's certificate"),
            "{client}"
        );
        assert!(server.contains("shows no certificate"), "{server}");
    }
}

#[tokio::test]
async fn what_is_for_one_port_is_refused_at_another() {
    let (a, b) = (node(1), node(2));
    let (client, server) = lines(
        meet(&b, Port::Raft, |s| async {
            a.connect(Port::Link, NodeId(2), s).await
        })
        .await,
    );
    assert!(client != "in" && server != "in", "{client}; {server}");
    // A node is no administrator, nor the other way round.
    assert!(b.issue_admin(AdminRole::Admin, "Jane Doe").is_err());
    let pem = b.issue_admin(AdminRole::Operator, "jane").unwrap();
    let admin = Credentials::from_pem(pem.as_bytes()).unwrap();
    let (_, taken) = meet(&b, Port::Admin, |s| admin.connect(s)).await;
    let peer = Peer::Admin {
        role: AdminRole::Operator,
        name: "jane".into(),
    };
    assert_eq!(taken.unwrap().1, peer);
    let config = a.now().client(Port::Raft).unwrap();
    let mut config = (*config).clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = Name::Member { cluster: CLUSTER };
    let (_, server) = lines(meet(&b, Port::Admin, |s| connect(Arc::new(config), &name, s, false)).await);
    assert!(server.contains("an administrator was expected"), "{server}");
    let mut config = (*admin.config).clone();
    config.alpn_protocols = vec![b"holdfast-link/1".to_vec()];
    let (client, _) = lines(meet(&b, Port::Link, |s| connect(Arc::new(config), &name, s, true)).await);
    assert!(client.contains("refuses this node"), "{client}");
}

#[tokio::test]
async fn a_token_opens_the_raft_port_and_no_other() {
    let b = node(2);
    let (id, key) = ("00ff".to_owned(), Key::new([9; 32]));
    let (client, server) = lines(meet(&b, Port::Raft, |s| ask_with_token(&id, &key, s)).await);
    assert!(
        client != "in" && server.contains("token 00ff is not known"),
        "{client}; {server}"
    );
    let known = {
        let key = key.clone();
        move |id: &str| (id == "00ff").then(|| key.clone())
    };
    let (dialled, taken) = meet_with(&b, Port::Raft, &known, |s| ask_with_token(&id, &key, s)).await;
    dialled.unwrap();
    assert_eq!(taken.unwrap().1, Peer::Joiner(id.clone()));
    for (port, key) in [(Port::Link, &key), (Port::Raft, &Key::new([10; 32]))] {
        let (client, server) = lines(meet_with(&b, port, &known, |s| ask_with_token(&id, key, s)).await);
        assert!(client != "in" && server != "in", "{client}; {server}");
    }
}

#[tokio::test]
async fn a_rotation_step_by_step_keeps_everybody_in_and_then_the_old_ones_out() {
    let (a, b) = (node(1), node(2));
    let key = Key::new(KEY);
    let steps = [
        generations(1, Some(2)),
        generations(2, Some(1)),
        generations(2, None),
    ];
    let old = node(1);
    for step in &steps {
        // One node is a step ahead of the other, both ways.
        for (first, second, to) in [(&a, &b, 2), (&b, &a, 1)] {
            first.renew(&[CLUSTER], &key, step).unwrap();
            let (client, server) = lines(
                meet(second, Port::Raft, |s| async {
                    first.connect(Port::Raft, NodeId(to), s).await
                })
                .await,
            );
            assert_eq!((client.as_str(), server.as_str()), ("in", "in"), "{step:?}");
            let mac = first.macs().sign(b"alive");
            assert!(second.macs().verify(b"alive", &mac), "{step:?}");
            let mac = second.macs().sign(b"alive");
            assert!(first.macs().verify(b"alive", &mac), "{step:?}");
        }
    }
    let (client, server) = lines(
        meet(&b, Port::Raft, |s| async {
            old.connect(Port::Raft, NodeId(2), s).await
        })
        .await,
    );
    assert!(client != "in" && server != "in", "{client}; {server}");
    assert!(!b.macs().verify(b"alive", &old.macs().sign(b"alive")));
}

#[tokio::test]
async fn what_is_not_tls_is_told_so() {
    let b = node(2);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut plain = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    plain
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    let taken = b.accept(Port::Raft, listener.accept().await.unwrap().0).await;
    let line = taken.err().unwrap().to_string();
    assert!(line.contains("does not speak TLS"), "{line}");
    for pem in [
        "",
        "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n",
    ] {
        assert!(Credentials::from_pem(pem.as_bytes()).is_err());
    }
}
