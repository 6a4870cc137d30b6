//! Hosts with reservations: each has a key and a session through a portal, retries what it is told to retry, and logs in again.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use holdfast_drill::cdb::{self, Cdb};
use holdfast_drill::error::{Error, SenseCode};
use holdfast_drill::initiator::{Dial, Session};
use holdfast_types::Lba;
use tokio::time::sleep;

/// A command that is not through after this long, with every retry, is a failure.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a command came to in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// GOOD, with what came back.
    Good(Bytes),
    /// RESERVATION CONFLICT.
    Conflict,
    /// CHECK CONDITION that is no unit attention and no transition.
    Sense(SenseCode),
}

impl End {
    /// Whether it ended in GOOD.
    pub const fn is_good(&self) -> bool {
        matches!(self, Self::Good(_))
    }
}

/// A host.
pub struct Host {
    dial: Dial,
    session: Option<Session>,
    /// Its reservation key.
    pub key: u64,
    /// Unit attentions that it was told since the last [`Host::attentions`].
    told: Vec<SenseCode>,
    /// Connections that were lost on the way.
    pub lost: usize,
    /// The longest that one command took, with its retries.
    pub slowest: Duration,
}

/// Type codes (SPC-4, 6.15.3.4), and whether who is not registered may read.
pub const TYPES: [(u8, bool); 6] = [
    (1, true),
    (3, false),
    (5, true),
    (6, false),
    (7, true),
    (8, false),
];

/// Whether a type gives access to whoever is registered.
pub const fn for_registrants(kind: u8) -> bool {
    kind >= 5
}

/// The 24 bytes of a basic parameter list.
pub fn parameter_list(key: u64, new_key: u64, flags: u8) -> Bytes {
    let mut list = vec![0; 24];
    list[..8].copy_from_slice(&key.to_be_bytes());
    list[8..16].copy_from_slice(&new_key.to_be_bytes());
    list[20] = flags;
    list.into()
}

impl Host {
    /// Logs in; unit attentions of the new session are cleared.
    ///
    /// # Errors
    /// The login does not come about.
    pub async fn new(dial: Dial, key: u64) -> Result<Self> {
        let mut host = Self {
            dial,
            session: None,
            key,
            told: Vec::new(),
            lost: 0,
            slowest: Duration::ZERO,
        };
        host.command([0; 16], None, None).await?;
        host.told.clear();
        Ok(host)
    }

    async fn session(&mut self, until: Instant) -> Result<&Session> {
        while self.session.is_none() {
            match Session::connect(&self.dial).await {
                Ok(session) => self.session = Some(session),
                Err(error) if Instant::now() >= until => return Err(error).context("no login in time"),
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
        self.session.as_ref().context("the session is there")
    }

    /// Sends a command until it ends: unit attentions and transitions are retried, lost connections made anew.
    ///
    /// # Errors
    /// It does not end in time, or in something that no initiator may ever see.
    pub async fn command(&mut self, cdb: Cdb, allocation: Option<u32>, data: Option<Bytes>) -> Result<End> {
        let began = Instant::now();
        let until = began + PATIENCE;
        loop {
            ensure!(Instant::now() < until, "command {:#04x} does not end", cdb[0]);
            let session = self.session(until).await?;
            let result = match &data {
                Some(data) => session
                    .command_out(cdb, data.clone())
                    .await
                    .map(|()| Bytes::new()),
                None => session.command(cdb, allocation).await,
            };
            let end = match result {
                Ok(data) => End::Good(data),
                Err(Error::Status(0x18)) => End::Conflict,
                Err(Error::CheckCondition(sense)) if sense.is_unit_attention() => {
                    self.told.push(sense);
                    continue;
                }
                Err(Error::CheckCondition(SenseCode::TRANSITION)) => {
                    sleep(Duration::from_millis(30)).await;
                    continue;
                }
                Err(Error::CheckCondition(sense)) => End::Sense(sense),
                Err(error) if error.is_unknown() => {
                    self.session = None;
                    self.lost += 1;
                    continue;
                }
                Err(error) => bail!("command {:#04x} came to {error}", cdb[0]),
            };
            self.slowest = self.slowest.max(began.elapsed());
            return Ok(end);
        }
    }

    /// Unit attentions as [`Host::attentions`], once `wanted` is among them; those so far after a second.
    ///
    /// # Errors
    /// As [`Host::command`].
    pub async fn hears(&mut self, wanted: SenseCode) -> Result<Vec<SenseCode>> {
        let until = Instant::now() + Duration::from_secs(1);
        let mut told = self.attentions().await?;
        while !told.contains(&wanted) && Instant::now() < until {
            sleep(Duration::from_millis(5)).await;
            told.extend(self.attentions().await?);
        }
        Ok(told)
    }

    /// PERSISTENT RESERVE OUT with a basic parameter list.
    ///
    /// # Errors
    /// As [`Host::command`].
    pub async fn out(&mut self, action: u8, kind: u8, key: u64, new_key: u64) -> Result<End> {
        self.out_with(action, kind, parameter_list(key, new_key, 0)).await
    }

    /// PERSISTENT RESERVE OUT with any parameter list.
    ///
    /// # Errors
    /// As [`Host::command`].
    pub async fn out_with(&mut self, action: u8, kind: u8, list: Bytes) -> Result<End> {
        let length = u32::try_from(list.len())?.to_be_bytes();
        let mut cdb = [0; 16];
        cdb[..3].copy_from_slice(&[0x5f, action, kind]);
        cdb[5..9].copy_from_slice(&length);
        self.command(cdb, None, Some(list)).await
    }

    /// Registers the host's key, whatever it was registered with before.
    ///
    /// # Errors
    /// It does not end in GOOD.
    pub async fn register(&mut self) -> Result<()> {
        let end = self.out(6, 0, 0, self.key).await?;
        ensure!(end.is_good(), "registering came to {end:?}");
        Ok(())
    }

    /// PERSISTENT RESERVE IN.
    ///
    /// # Errors
    /// It does not end in GOOD.
    pub async fn report(&mut self, action: u8) -> Result<Bytes> {
        let mut cdb = [0; 16];
        cdb[..2].copy_from_slice(&[0x5e, action]);
        cdb[7..9].copy_from_slice(&4096_u16.to_be_bytes());
        match self.command(cdb, Some(4096), None).await? {
            End::Good(data) => Ok(data),
            other => bail!("PERSISTENT RESERVE IN came to {other:?}"),
        }
    }

    /// PRGENERATION and the registered keys.
    ///
    /// # Errors
    /// As [`Host::report`].
    pub async fn keys(&mut self) -> Result<(u32, Vec<u64>)> {
        let data = self.report(0).await?;
        ensure!(data.len() >= 8, "READ KEYS gave {} bytes", data.len());
        let generation = u32::from_be_bytes(data[..4].try_into()?);
        let keys = data[8..].chunks_exact(8).map(|key| {
            let key: [u8; 8] = key.try_into().unwrap_or_default();
            u64::from_be_bytes(key)
        });
        Ok((generation, keys.collect()))
    }

    /// The reservation: its key and type.
    ///
    /// # Errors
    /// As [`Host::report`].
    pub async fn held(&mut self) -> Result<Option<(u64, u8)>> {
        let data = self.report(1).await?;
        if data.len() < 24 {
            return Ok(None);
        }
        Ok(Some((
            u64::from_be_bytes(data[8..16].try_into()?),
            data[21] & 0xf,
        )))
    }

    /// Whether a READ and a WRITE of one block get through.
    ///
    /// # Errors
    /// Anything but GOOD and RESERVATION CONFLICT.
    pub async fn access(&mut self) -> Result<(bool, bool)> {
        let read = self.command(cdb::read_16(Lba(8), 1), Some(512), None).await?;
        let data = Bytes::from(vec![0x5a; 512]);
        let write = self.command(cdb::write_16(Lba(8), 1), None, Some(data)).await?;
        for end in [&read, &write] {
            ensure!(
                end.is_good() || *end == End::Conflict,
                "a medium access came to {end:?}"
            );
        }
        Ok((read.is_good(), write.is_good()))
    }

    /// Unit attentions told so far and by a TEST UNIT READY now; they are forgotten here.
    ///
    /// # Errors
    /// As [`Host::command`].
    pub async fn attentions(&mut self) -> Result<Vec<SenseCode>> {
        self.command([0; 16], None, None).await?;
        Ok(std::mem::take(&mut self.told))
    }

    /// The session, for what is not a command.
    ///
    /// # Errors
    /// No login in time.
    pub async fn raw(&mut self) -> Result<&Session> {
        self.session(Instant::now() + PATIENCE).await
    }
}
