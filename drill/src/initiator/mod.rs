//! One iSCSI session over TCP: a task that owns the socket, and handles through which commands are sent at any queue depth.

mod driver;

use std::time::Duration;

use bytes::Bytes;
use holdfast_iscsi::chap::Algorithm;
use holdfast_iscsi::initiator::{ChapLogin, ScsiRequest, ScsiResult, Settings, Tag};
use holdfast_iscsi::out::Payload;
use holdfast_iscsi::pdu::{
    Cdb, Direction, LogoutReason, ScsiStatus, ServiceResponse, TaskAttribute, TaskFunction, TaskResult,
};
use holdfast_iscsi::serial::Sn;
use holdfast_types::{BlockSize, IscsiName, Isid, Lba, Lun};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use crate::cdb::{self, Capacity, PortGroup};
use crate::disk::{Disk, persistently};
use crate::error::{Error, SenseCode};
use crate::multipath::{Connect, Path};
use crate::url::IscsiUrl;
use driver::Request;

/// Requests that may wait for the driver's task.
const REQUESTS_MAX: usize = 1024;
/// How often a login is sent elsewhere before that is given up.
const REDIRECTS_MAX: usize = 4;
/// Parameter data that a session asks for at most.
const PARAMETER_BYTES: u32 = 4096;

/// Who connects where, and how long it waits.
#[derive(Debug, Clone)]
pub struct Dial {
    /// The logical unit.
    pub url: IscsiUrl,
    /// Our name.
    pub initiator: IscsiName,
    /// Our part of the session id; another session of the same name needs another one.
    pub isid: Isid,
    /// For the TCP connection, the login and the first commands together.
    pub login_timeout: Duration,
    /// For each command after that: the path timer. It must be longer than the target's hold limit.
    pub command_timeout: Duration,
    /// Whether headers and data carry CRC32C digests.
    pub digests: bool,
}

impl Dial {
    /// With usual waits (5 s for login and commands) and without digests. `number` makes the session id unique.
    pub const fn new(url: IscsiUrl, initiator: IscsiName, number: u16) -> Self {
        let [high, low] = number.to_be_bytes();
        Self {
            url,
            initiator,
            // Type 10b: random, so that no number has to be registered (RFC 7143, 11.12.5).
            isid: Isid([0x80, 0x48, 0x46, 0, high, low]),
            login_timeout: Duration::from_secs(5),
            command_timeout: Duration::from_secs(5),
            digests: false,
        }
    }

    fn settings(&self, target: Option<IscsiName>) -> Settings {
        let digest = if self.digests { "CRC32C,None" } else { "None" };
        let keys = [
            ("HeaderDigest", digest),
            ("DataDigest", digest),
            ("MaxRecvDataSegmentLength", "262144"),
            ("InitialR2T", "No"),
            ("ImmediateData", "Yes"),
            ("MaxBurstLength", "1048576"),
            ("FirstBurstLength", "262144"),
            ("MaxOutstandingR2T", "1"),
            ("MaxConnections", "1"),
            ("ErrorRecoveryLevel", "0"),
            ("DefaultTime2Wait", "0"),
            ("DefaultTime2Retain", "0"),
            ("DataPDUInOrder", "Yes"),
            ("DataSequenceInOrder", "Yes"),
        ];
        // A discovery session knows none of the keys about SCSI data (RFC 7143, section 13: "irrelevant when").
        let kept = if target.is_some() { keys.len() } else { 3 };
        let settings = Settings {
            name: self.initiator.clone(),
            isid: self.isid,
            target,
            keys: keys[..kept]
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            auth_method: Some("None".to_owned()),
            chap: None,
            cmd_sn: Sn(1),
            tsih: 0,
            cid: 0,
            unsolicited: true,
        };
        match &self.url.chap {
            Some((user, secret)) => settings.with_chap(ChapLogin {
                user: user.clone(),
                secret: secret.clone(),
                algorithms: Algorithm::ALL.into_iter().rev().collect(),
                mutual: None,
            }),
            None => settings,
        }
    }
}

/// Which way a command moves data, and how much.
fn way_of(allocation: Option<u32>, data: &Bytes) -> (Direction, u32) {
    match allocation {
        Some(length) => (Direction::Read, length),
        None if data.is_empty() => (Direction::None, 0),
        None => (Direction::Write, u32::try_from(data.len()).unwrap_or(u32::MAX)),
    }
}

/// A session in its full feature phase. Dropping it closes the connection.
#[derive(Debug)]
pub struct Session {
    requests: mpsc::Sender<Request>,
    task: AbortHandle,
    lun: Lun,
    portal: String,
    command_timeout: Duration,
    capacity: Capacity,
}

/// A command on its way; see [`Session::start`].
#[derive(Debug)]
pub struct Pending {
    /// Names it in task management.
    pub tag: Tag,
    reply: oneshot::Receiver<ScsiResult>,
}

impl Session {
    /// Logs in, clears unit attentions and learns the capacity.
    ///
    /// # Errors
    /// No connection, a refused login, or a logical unit that does not become ready in time.
    pub async fn connect(dial: &Dial) -> Result<Self, Error> {
        let limit = dial.login_timeout;
        let work = async {
            let mut session = Self::log_in(dial, Some(dial.url.target.clone())).await?;
            session.capacity = session.learn_capacity().await?;
            Ok(session)
        };
        timeout(limit, work).await.map_err(|_| Error::Timeout(limit))?
    }

    /// Asks a portal for its targets: (name, addresses) each (RFC 7143, appendix C).
    ///
    /// # Errors
    /// No connection or a refused login.
    pub async fn discover(dial: &Dial) -> Result<Vec<(String, Vec<String>)>, Error> {
        let limit = dial.login_timeout;
        let work = async {
            let session = Self::log_in(dial, None).await?;
            let (reply, answer) = oneshot::channel();
            session
                .request(Request::Text(
                    vec![("SendTargets".to_owned(), "All".to_owned())],
                    reply,
                ))
                .await?;
            let keys = answer.await.map_err(|_| session.lost())?;
            let mut targets: Vec<(String, Vec<String>)> = Vec::new();
            for (key, value) in keys {
                match (key.as_str(), targets.last_mut()) {
                    ("TargetName", _) => targets.push((value, Vec::new())),
                    ("TargetAddress", Some((_, addresses))) => addresses.push(value),
                    _ => {}
                }
            }
            Ok(targets)
        };
        timeout(limit, work).await.map_err(|_| Error::Timeout(limit))?
    }

    /// Logs in, wherever the target sends the login. The next session begins at the address that the dial names again, whatever kind of
    /// redirection it was.
    async fn log_in(dial: &Dial, target: Option<IscsiName>) -> Result<Self, Error> {
        let mut portal = dial.url.portal();
        for _ in 0..REDIRECTS_MAX {
            match Self::log_in_at(portal, dial, target.clone()).await {
                Err(Error::Redirected(to)) => portal = to.to_string(),
                other => return other,
            }
        }
        Self::log_in_at(portal, dial, target).await
    }

    async fn log_in_at(portal: String, dial: &Dial, target: Option<IscsiName>) -> Result<Self, Error> {
        let connect_error = |source| Error::Connect {
            portal: portal.clone(),
            source,
        };
        let stream = TcpStream::connect(&portal).await.map_err(connect_error)?;
        stream.set_nodelay(true).map_err(connect_error)?;
        let (requests, inbox) = mpsc::channel(REQUESTS_MAX);
        let (ready, login) = oneshot::channel();
        let task = tokio::spawn(driver::drive(stream, dial.settings(target), inbox, ready)).abort_handle();
        let session = Self {
            requests,
            task,
            lun: dial.url.lun,
            portal,
            command_timeout: dial.command_timeout,
            capacity: Capacity {
                blocks: 0,
                block_size: BlockSize::B512,
            },
        };
        login.await.map_err(|_| session.lost())??;
        Ok(session)
    }

    /// READ CAPACITY(16), behind whatever unit attentions a new session is told.
    async fn learn_capacity(&self) -> Result<Capacity, Error> {
        let data = persistently(|| self.command(cdb::read_capacity_16(32), Some(32))).await?;
        let bad = || Error::Protocol("READ CAPACITY(16) makes no sense".to_owned());
        Capacity::parse(&data).ok_or_else(bad)
    }

    /// `HOST:PORT` of the portal that it has logged in at.
    pub fn portal(&self) -> &str {
        &self.portal
    }

    /// Size of the logical unit.
    pub const fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// Sends a command that returns at most `allocation` bytes, or none.
    ///
    /// # Errors
    /// Whatever the command came to; the path timer is the session's.
    pub async fn command(&self, cdb: cdb::Cdb, allocation: Option<u32>) -> Result<Bytes, Error> {
        let direction = if allocation.is_some() {
            Direction::Read
        } else {
            Direction::None
        };
        let request = self.scsi(cdb, direction, allocation.unwrap_or(0), Bytes::new());
        self.finish(self.submit(request).await?, self.command_timeout)
            .await
    }

    /// Sends a command with data for the target.
    ///
    /// # Errors
    /// Whatever the command came to, also when the target did not take all data.
    pub async fn command_out(&self, cdb: cdb::Cdb, data: Bytes) -> Result<(), Error> {
        let length =
            u32::try_from(data.len()).map_err(|_| Error::Usage("4 GiB in one command".to_owned()))?;
        let request = self.scsi(cdb, Direction::Write, length, data);
        self.finish(self.submit(request).await?, self.command_timeout)
            .await
            .map(drop)
    }

    /// Sends a command to another logical unit of the same target. `allocation` bytes may come back; without it `data` goes out.
    ///
    /// # Errors
    /// Whatever the command came to, also when the target did not take all data.
    pub async fn command_on(
        &self,
        lun: Lun,
        cdb: cdb::Cdb,
        allocation: Option<u32>,
        data: Bytes,
    ) -> Result<Bytes, Error> {
        let (direction, length) = way_of(allocation, &data);
        let request = ScsiRequest {
            lun: lun.to_field(),
            ..self.scsi(cdb, direction, length, data)
        };
        self.finish(self.submit(request).await?, self.command_timeout)
            .await
    }

    /// Sends a command and does not wait for its end. `allocation` bytes may come back.
    ///
    /// # Errors
    /// [`Error::Lost`].
    pub async fn start(&self, cdb: cdb::Cdb, allocation: Option<u32>, data: Bytes) -> Result<Pending, Error> {
        let (direction, length) = way_of(allocation, &data);
        let (tagged, tag) = oneshot::channel();
        let (reply, answer) = oneshot::channel();
        let request = self.scsi(cdb, direction, length, data);
        self.request(Request::Command(request, Some(tagged), reply))
            .await?;
        let tag = tag.await.map_err(|_| self.lost())?;
        Ok(Pending { tag, reply: answer })
    }

    /// Waits for a command of [`Session::start`], `limit` at most.
    ///
    /// # Errors
    /// Whatever the command came to.
    pub async fn wait(&self, pending: Pending, limit: Duration) -> Result<Bytes, Error> {
        self.finish(pending.reply, limit).await
    }

    /// Sends a task management function (RFC 7143, 11.5) and waits for its answer.
    ///
    /// # Errors
    /// [`Error::Lost`] or [`Error::Timeout`].
    pub async fn task_management(
        &self,
        function: TaskFunction,
        task: Option<Tag>,
    ) -> Result<TaskResult, Error> {
        let (reply, answer) = oneshot::channel();
        self.request(Request::Task(function, self.lun.to_field(), task, reply))
            .await?;
        self.bounded(answer).await
    }

    /// Sends a ping (NOP-Out) and waits for its answer; tells how long that took.
    ///
    /// # Errors
    /// [`Error::Lost`] or [`Error::Timeout`].
    pub async fn ping(&self) -> Result<Duration, Error> {
        let start = Instant::now();
        let (reply, answer) = oneshot::channel();
        self.request(Request::Ping(reply)).await?;
        self.bounded(answer).await?;
        Ok(start.elapsed())
    }

    /// Logs out and closes the connection.
    ///
    /// # Errors
    /// [`Error::Lost`] or [`Error::Timeout`]; the connection is closed in any case.
    pub async fn log_out(self) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.request(Request::Logout(LogoutReason::SESSION, reply))
            .await?;
        self.bounded(answer).await
    }

    /// REPORT TARGET PORT GROUPS.
    ///
    /// # Errors
    /// Whatever the command came to.
    pub async fn port_groups(&self) -> Result<Vec<PortGroup>, Error> {
        let cdb = cdb::report_target_port_groups(PARAMETER_BYTES);
        let data = self.told(cdb).await?;
        cdb::parse_port_groups(&data).ok_or_else(|| Error::Protocol("port groups cut short".to_owned()))
    }

    /// INQUIRY: standard data, or a vital product data page.
    ///
    /// # Errors
    /// Whatever the command came to.
    pub async fn inquiry(&self, page: Option<u8>) -> Result<Bytes, Error> {
        let length = u16::try_from(PARAMETER_BYTES).unwrap_or(u16::MAX);
        self.told(cdb::inquiry(page, length)).await
    }

    /// A command for parameter data.
    async fn told(&self, cdb: cdb::Cdb) -> Result<Bytes, Error> {
        persistently(|| self.command(cdb, Some(PARAMETER_BYTES))).await
    }

    const fn scsi_length(&self, blocks: u32) -> Option<u32> {
        blocks.checked_mul(self.capacity.block_size.bytes())
    }

    fn scsi(&self, cdb: cdb::Cdb, direction: Direction, length: u32, data: Bytes) -> ScsiRequest {
        ScsiRequest {
            lun: self.lun.to_field(),
            cdb: Cdb::Short(cdb),
            attribute: TaskAttribute::SIMPLE,
            direction,
            expected_length: length,
            data: Payload::from(data),
            immediate: false,
        }
    }

    async fn submit(&self, request: ScsiRequest) -> Result<oneshot::Receiver<ScsiResult>, Error> {
        let (reply, answer) = oneshot::channel();
        self.request(Request::Command(request, None, reply)).await?;
        Ok(answer)
    }

    async fn request(&self, request: Request) -> Result<(), Error> {
        self.requests.send(request).await.map_err(|_| self.lost())
    }

    async fn bounded<T>(&self, answer: oneshot::Receiver<T>) -> Result<T, Error> {
        let limit = self.command_timeout;
        timeout(limit, answer)
            .await
            .map_err(|_| Error::Timeout(limit))?
            .map_err(|_| self.lost())
    }

    async fn finish(&self, answer: oneshot::Receiver<ScsiResult>, limit: Duration) -> Result<Bytes, Error> {
        let result = timeout(limit, answer)
            .await
            .map_err(|_| Error::Timeout(limit))?
            .map_err(|_| self.lost())?;
        judge(result)
    }

    fn lost(&self) -> Error {
        Error::Lost(format!("the connection to {} ended", self.portal))
    }
}

fn judge(result: ScsiResult) -> Result<Bytes, Error> {
    if result.response != ServiceResponse::COMPLETED {
        return Err(Error::Response(result.response.0));
    }
    match result.status {
        ScsiStatus::GOOD => Ok(result.data),
        ScsiStatus::CHECK_CONDITION => {
            let sense = SenseCode::parse(&result.sense).map(Error::CheckCondition);
            Err(sense.unwrap_or(Error::Status(result.status.0)))
        }
        other => Err(Error::Status(other.0)),
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Disk for Session {
    fn block_size(&self) -> BlockSize {
        self.capacity.block_size
    }

    fn blocks(&self) -> u64 {
        self.capacity.blocks
    }

    async fn read(&self, lba: Lba, blocks: u32) -> Result<Bytes, Error> {
        let too_long = || Error::Usage("4 GiB in one command".to_owned());
        let length = self.scsi_length(blocks).ok_or_else(too_long)?;
        let data = self.command(cdb::read_16(lba, blocks), Some(length)).await?;
        if data.len() == length as usize {
            Ok(data)
        } else {
            Err(Error::Protocol(format!(
                "a READ of {length} bytes ended GOOD with {}",
                data.len()
            )))
        }
    }

    async fn write(&self, lba: Lba, data: Bytes) -> Result<(), Error> {
        let block = self.capacity.block_size.bytes() as usize;
        let blocks = u32::try_from(data.len() / block)
            .ok()
            .filter(|_| data.len().is_multiple_of(block));
        let blocks =
            blocks.ok_or_else(|| Error::Usage(format!("{} bytes are not whole blocks", data.len())))?;
        self.command_out(cdb::write_16(lba, blocks), data).await
    }
}

impl Path for Session {
    async fn ended(&self) {
        self.requests.closed().await;
    }

    fn close(&self) {
        self.task.abort();
    }
}

impl Connect for Dial {
    type Path = Session;

    async fn connect(&self) -> Result<Session, Error> {
        Session::connect(self).await
    }

    fn name(&self) -> String {
        self.url.portal()
    }
}

#[cfg(test)]
mod target_test;
#[cfg(test)]
#[path = "initiator_test.rs"]
mod tests;
