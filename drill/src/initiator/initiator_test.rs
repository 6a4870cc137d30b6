//! Sessions with targets that are absent, silent or mad. What a sound target answers is tested against the real one.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::*;

async fn listener() -> (TcpListener, Dial) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let url = format!("iscsi://127.0.0.1:{port}/iqn.2026-11.example:a/0");
    let name = "iqn.2026-11.example:drill".parse().unwrap();
    let mut dial = Dial::new(url.parse().unwrap(), name, 1);
    dial.login_timeout = Duration::from_millis(300);
    (listener, dial)
}

#[tokio::test]
async fn nobody_there_is_a_connect_error() {
    let (listener, dial) = listener().await;
    drop(listener);
    assert!(matches!(
        Session::connect(&dial).await,
        Err(Error::Connect { .. })
    ));
}

#[tokio::test]
async fn a_target_that_hangs_up_is_a_lost_connection() {
    let (listener, mut dial) = listener().await;
    dial.login_timeout = Duration::from_secs(20);
    let target = tokio::spawn(async move { drop(listener.accept().await.unwrap()) });
    let error = Session::connect(&dial).await.unwrap_err();
    assert!(error.is_unknown(), "{error}");
    target.await.unwrap();
}

#[tokio::test]
async fn a_silent_target_runs_into_the_timer() {
    let (listener, dial) = listener().await;
    let target = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        sleep(Duration::from_secs(2)).await;
        drop(stream);
    });
    let error = Session::connect(&dial).await.unwrap_err();
    assert!(matches!(error, Error::Timeout(_)), "{error}");
    target.abort();
}

#[tokio::test]
async fn a_target_that_talks_nonsense_is_left() {
    let (listener, mut dial) = listener().await;
    dial.login_timeout = Duration::from_secs(20);
    let target = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.write_all(&[0x5a; 4096]).await;
        sleep(Duration::from_secs(20)).await;
    });
    let error = Session::connect(&dial).await.unwrap_err();
    assert!(matches!(error, Error::Protocol(_)), "{error}");
    target.abort();
}
