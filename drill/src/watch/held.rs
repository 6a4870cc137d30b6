//! One path that several users share.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_types::{BlockSize, Lba};
use tokio::sync::watch;

use crate::disk::Disk;
use crate::error::Error;
use crate::multipath::{Connect, Path};

/// Waits until somebody else has dialled a path, and uses it with him.
#[derive(Debug)]
pub(super) struct Follow<P> {
    name: String,
    now: watch::Receiver<Option<Arc<P>>>,
}

impl<P> Follow<P> {
    pub(super) const fn new(name: String, now: watch::Receiver<Option<Arc<P>>>) -> Self {
        Self { name, now }
    }
}

impl<P> Clone for Follow<P> {
    fn clone(&self) -> Self {
        Self::new(self.name.clone(), self.now.clone())
    }
}

/// A path that somebody else has dialled.
#[derive(Debug)]
pub struct Held<P>(Arc<P>);

impl<P: Path> Connect for Follow<P> {
    type Path = Held<P>;

    async fn connect(&self) -> Result<Held<P>, Error> {
        let gone = || Error::Lost("nobody dials any more".to_owned());
        let mut now = self.now.clone();
        let path = now.wait_for(Option::is_some).await.map_err(|_| gone())?;
        path.clone().map(Held).ok_or_else(gone)
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

impl<P: Path> Path for Held<P> {
    async fn ended(&self) {
        self.0.ended().await;
    }

    fn close(&self) {
        self.0.close();
    }
}

impl<P: Path> Disk for Held<P> {
    fn block_size(&self) -> BlockSize {
        self.0.block_size()
    }

    fn blocks(&self) -> u64 {
        self.0.blocks()
    }

    async fn read(&self, lba: Lba, blocks: u32) -> Result<Bytes, Error> {
        self.0.read(lba, blocks).await
    }

    async fn write(&self, lba: Lba, data: Bytes) -> Result<(), Error> {
        self.0.write(lba, data).await
    }
}
