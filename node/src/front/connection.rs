//! One connection's task: it alone touches the socket.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use holdfast_iscsi::chap::Challenge;
use holdfast_iscsi::target::{Connection, Origin, PortalConfig};
use holdfast_types::{HOLD_LIMIT, Mono};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::registry::Inbound;
use super::session::{MustReset, Session};
use super::{Front, Held};

/// Read buffers grow by this much.
const READ_BYTES: usize = 256 << 10;
/// The same before the login is over: requests are short, and there may be many such connections.
const LOGIN_BYTES: usize = 9 << 10;
/// While this much waits to be written nothing is read: an initiator that does not listen is not served.
const OUTBOX_MAX: usize = 16 << 20;
/// How long what was answered may take to go out when a connection ends in order.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Between two looks at whether the session that an ending one was to replace is gone.
const ENDING_LOOK: Duration = Duration::from_millis(5);
/// Reads in a row before timers, changes of state and other connections get their turn.
const READS_MAX: usize = 64;
/// The same in bytes: what is taken in and handed to storage well within a millisecond.
const TURN_BYTES: usize = 512 << 10;

/// How a connection ended.
enum End {
    /// What was answered goes out, then the connection is closed.
    Closed(String),
    /// At once: the initiator hears a TCP reset (I8).
    Reset(&'static str),
}

/// What the other machine's TCP has not taken for so many milliseconds ends the connection: it is gone, or a path to it is. An initiator
/// whose machine is there has the longer time of a ping to answer; some sleep while they wait for something.
const UNACKNOWLEDGED_MS: u32 = 10_000;

/// Serves an accepted connection until it ends.
pub(super) async fn serve(
    front: Arc<Front>,
    config: Arc<PortalConfig>,
    mut stream: TcpStream,
    peer: SocketAddr,
) {
    let patience = rustix::net::sockopt::set_tcp_user_timeout(&stream, UNACKNOWLEDGED_MS);
    if stream.set_nodelay(true).is_err() || patience.is_err() {
        return;
    }
    let local = stream
        .local_addr()
        .map_or_else(|_| "?".to_owned(), |address| address.to_string());
    let (id, mut inbound) = front.registry.connect();
    let now = front.now();
    let directory = front.state.borrow().directory(front.lease.holds(now));
    let origin = Origin {
        peer: peer.ip(),
        challenge: Challenge::from_random(rand::random()),
    };
    let iscsi = Connection::new(Arc::clone(&config), directory, origin, now);
    let mut session = Session::new(
        Arc::clone(&front),
        id,
        iscsi,
        config.tpg,
        (local, peer.to_string()),
    );
    let end = run(&mut session, &mut stream, &mut inbound).await;
    session.abort_all();
    if matches!(end, End::Closed(_)) && session.holds_reservation() {
        // What cannot be confirmed is not waited for: the session has ended all the same.
        let released = async {
            settled(&mut session, &mut inbound).await;
            session.release(&mut inbound).await;
        };
        let _ = tokio::time::timeout(HOLD_LIMIT, released).await;
    }
    let why = match end {
        End::Closed(why) => {
            tracing::debug!(%peer, why, "connection closed");
            let last_words = async {
                while session.iscsi.outbox().has_remaining() {
                    stream.write_buf(session.iscsi.outbox()).await?;
                }
                stream.shutdown().await
            };
            // The initiator may be gone; then nobody misses them.
            let _ = tokio::time::timeout(LAST_WORDS, last_words).await;
            why
        }
        End::Reset(why) => {
            front.registry.traffic().reset();
            tracing::info!(%peer, why, "connection reset");
            let _ = stream.set_zero_linger();
            why.to_owned()
        }
    };
    drop(stream);
    front.registry.end(id);
    settled(&mut session, &mut inbound).await;
    // Before whoever replaces this session may go on.
    session.nexus_lost();
    session.statuses_lost();
    front.registry.disconnect(id, &why);
}

/// F2: who replaces this session, or has reset a unit, waits for what storage still has of it.
async fn settled(session: &mut Session, inbound: &mut mpsc::UnboundedReceiver<Inbound>) {
    while session.is_ending() {
        tokio::select! {
            message = inbound.recv() => match message {
                Some(message) => session.inbound_at_end(message),
                None => break,
            },
            () = tokio::time::sleep(ENDING_LOOK) => {}
        }
    }
}

/// The connection's loop: read, act, write, wait.
async fn run(
    session: &mut Session,
    stream: &mut TcpStream,
    inbound: &mut mpsc::UnboundedReceiver<Inbound>,
) -> End {
    let front = Arc::clone(&session.front);
    let mut state = front.state.clone();
    let mut buffer = BytesMut::with_capacity(LOGIN_BYTES);
    // When the socket was last known to be empty: nothing read since then can have waited longer (W1).
    let mut arrived = front.now();
    loop {
        let is_behind = match step(session, stream, inbound, &mut buffer, &mut arrived) {
            Ok(Next::Wait) => false,
            Ok(Next::Again) => {
                // A socket that is ready lets no other task in.
                tokio::task::yield_now().await;
                true
            }
            Ok(Next::Close(why)) => return End::Closed(why),
            Err(MustReset(why)) => return End::Reset(why),
        };
        let deadline = session.deadline();
        let writing = !session.iscsi.outbox().is_empty();
        let reading = session.iscsi.wanted(&buffer) > 0 && session.iscsi.outbox().bytes() < OUTBOX_MAX;
        let interest = interest(reading, writing);
        let now = front.now();
        let wait = deadline.map_or(Duration::from_secs(3600), |deadline| deadline.since(now));
        tokio::select! {
            biased;
            // Timers and state first: the others may be ready without end.
            changed = state.changed() => {
                if changed.is_err() {
                    return End::Reset("the node ends");
                }
                let authority = front.lease.holds(front.now());
                let directory = state.borrow_and_update().directory(authority);
                if !session.is_still_admitted(&directory) {
                    session.iscsi.announce_end();
                    return End::Closed("the initiator may not use the target any more".to_owned());
                }
                session.iscsi.set_directory(directory);
                session.ask_away();
                if let Err(MustReset(why)) = session.tick(front.now()) {
                    return End::Reset(why);
                }
            }
            () = tokio::time::sleep(wait) => {
                let now = front.now();
                if let Err(fatal) = session.iscsi.handle_timeout(now) {
                    return End::Closed(fatal.to_string());
                }
                if let Err(MustReset(why)) = session.tick(now) {
                    return End::Reset(why);
                }
            }
            message = inbound.recv() => {
                // The registry holds the other end as long as this connection is in it.
                let Some(message) = message else { return End::Reset("the node ends") };
                if let Err(MustReset(why)) = session.inbound(message, front.now()) {
                    return End::Reset(why);
                }
            }
            ready = stream.ready(interest), if reading || writing => {
                if ready.is_err() {
                    return End::Closed("the socket failed".to_owned());
                }
            }
        }
        if reading && !is_behind {
            // Whatever lies there now came while this task was waiting for it, so just now. A process that was stopped meanwhile is
            // noticed by the lease (L7).
            arrived = front.now();
        }
    }
}

const fn interest(reading: bool, writing: bool) -> Interest {
    match (reading, writing) {
        (true, true) => Interest::READABLE.add(Interest::WRITABLE),
        (false, true) => Interest::WRITABLE,
        // Readable also tells of the end of a connection that is not read from now.
        (_, false) => Interest::READABLE,
    }
}

/// What comes after a step.
enum Next {
    /// Waiting, until there is something to do.
    Wait,
    /// Another step, after a look at everything else: there is more to read.
    Again,
    /// The end, and why.
    Close(String),
}

/// Everything that can be done without waiting.
fn step(
    session: &mut Session,
    stream: &TcpStream,
    inbound: &mut mpsc::UnboundedReceiver<Inbound>,
    buffer: &mut BytesMut,
    arrived: &mut Mono,
) -> Result<Next, MustReset> {
    let front = Arc::clone(&session.front);
    let (mut reads, mut bytes) = (0, 0);
    while reads < READS_MAX && bytes < TURN_BYTES {
        // L7: before anything that was received is looked at. A pause shows in the lease until the reset is in the queue, so in this
        // order it cannot be missed.
        session.stands(front.now())?;
        let received = {
            // All commands that came in one read go on together.
            let _held = Held::new(&*front.backend);
            while let Ok(message) = inbound.try_recv() {
                session.inbound(message, front.now())?;
            }
            let received = session.iscsi.receive(buffer, *arrived);
            session.act(front.now())?;
            received
        };
        if let Err(fatal) = received {
            return Ok(Next::Close(fatal.to_string()));
        }
        if session.iscsi.is_finished() && session.holds_reservation() {
            // The answer to the logout is the last word: it says that what the nexus held is free.
            return Ok(Next::Close("done".to_owned()));
        }
        if let Err(error) = write(session, stream) {
            return Ok(Next::Close(error.to_string()));
        }
        let unsent = session.iscsi.outbox().bytes();
        session.tasks.unsent(unsent);
        if (session.iscsi.is_finished() || session.closing) && session.iscsi.outbox().is_empty() {
            return Ok(Next::Close("done".to_owned()));
        }
        if session.iscsi.outbox().bytes() >= OUTBOX_MAX {
            return Ok(Next::Wait);
        }
        match read(session, stream, buffer) {
            Ok(Read::Some(read)) => (reads, bytes) = (reads + 1, bytes + read),
            Ok(Read::Empty) => {
                *arrived = front.now();
                return Ok(Next::Wait);
            }
            Ok(Read::NotNow) => return Ok(Next::Wait),
            Ok(Read::End) => return Ok(Next::Close("the initiator closed it".to_owned())),
            Err(error) => return Ok(Next::Close(error.to_string())),
        }
    }
    Ok(Next::Again)
}

/// What a look into the socket found.
enum Read {
    /// So many bytes.
    Some(usize),
    Empty,
    NotNow,
    End,
}

fn read(session: &Session, stream: &TcpStream, buffer: &mut BytesMut) -> std::io::Result<Read> {
    let wanted = session.iscsi.wanted(buffer);
    if wanted == 0 {
        return Ok(Read::NotNow);
    }
    let missing = wanted.saturating_sub(buffer.len());
    if buffer.capacity() - buffer.len() < missing.max(4096) {
        let usual = if session.iscsi.parameters().is_some() {
            READ_BYTES
        } else {
            LOGIN_BYTES
        };
        buffer.reserve(missing.max(usual));
    }
    match stream.try_read_buf(buffer) {
        Ok(0) => Ok(Read::End),
        Ok(read) => Ok(Read::Some(read)),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(Read::Empty),
        Err(error) => Err(error),
    }
}

fn write(session: &mut Session, stream: &TcpStream) -> std::io::Result<()> {
    let outbox = session.iscsi.outbox();
    while outbox.has_remaining() {
        let mut slices = [std::io::IoSlice::new(&[]); 64];
        let used = outbox.chunks_vectored(&mut slices);
        match stream.try_write_vectored(&slices[..used]) {
            Ok(written) => outbox.advance(written),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
