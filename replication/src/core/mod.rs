//! One extent's replication, as a state machine without I/O.
pub mod api;
mod front;
mod log;
mod rejoin;

use api::{Command, Config, Ctx, Event, Identity, Recovered, Status};
use holdfast_types::{ExtentId, Mono};

/// One extent on one node.
#[derive(Debug)]
pub struct ExtentCore {
    me: Identity,
    extent: ExtentId,
    config: Config,
}

impl ExtentCore {
    /// A core for `extent` on `me`, from what its disk holds.
    pub fn new(me: Identity, extent: ExtentId, config: Config, _recovered: Recovered) -> Self {
        Self { me, extent, config }
    }

    /// Takes in one event; what is to be done comes out, in order.
    pub fn handle(&mut self, _ctx: &Ctx, _event: Event, _out: &mut Vec<Command>) {}

    /// When [`Event::Tick`] is wanted next, if nothing happens before.
    pub fn deadline(&self) -> Option<Mono> {
        None
    }

    /// The core at a glance.
    pub fn status(&self) -> Option<Status> {
        None
    }
}
