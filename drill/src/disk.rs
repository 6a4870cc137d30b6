//! A logical unit as workloads see it, whatever brings the commands there.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use holdfast_types::{BlockSize, Lba};
use tokio::time::sleep;

use crate::error::{Error, SenseCode};

/// More unit attentions than any logical unit has for one nexus.
const ATTENTIONS_MAX: usize = 16;
const TRANSITION_PAUSE: Duration = Duration::from_millis(30);
/// 30 seconds, twice the longest transition that nodes tell initiators of.
const TRANSITIONS_MAX: usize = 1000;

/// Gives a command again behind unit attentions, and while the unit changes its state (02/04/0A), as initiators do: a nexus is told of what
/// happened before its first command, too, however new it is.
///
/// # Errors
/// Whatever the command came to otherwise; the last of 16 unit attentions, and of transitions after half a minute.
pub async fn persistently<T, F>(mut command: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let (mut attentions, mut transitions) = (0, 0);
    loop {
        match command().await {
            Err(Error::CheckCondition(sense)) if sense.is_unit_attention() && attentions < ATTENTIONS_MAX => {
                attentions += 1;
            }
            Err(Error::CheckCondition(SenseCode::TRANSITION)) if transitions < TRANSITIONS_MAX => {
                transitions += 1;
                sleep(TRANSITION_PAUSE).await;
            }
            other => return other,
        }
    }
}

/// Reads and writes whole blocks. Any number of commands may be on their way at once.
pub trait Disk: Send + Sync + 'static {
    /// Size of a block.
    fn block_size(&self) -> BlockSize;

    /// How many blocks.
    fn blocks(&self) -> u64;

    /// Reads `blocks` blocks from `lba` on.
    ///
    /// # Errors
    /// Whatever the command came to.
    fn read(&self, lba: Lba, blocks: u32) -> impl Future<Output = Result<Bytes, Error>> + Send;

    /// Writes whole blocks from `lba` on; `Ok` is GOOD.
    ///
    /// # Errors
    /// Whatever the command came to; see [`Error::is_unknown`].
    fn write(&self, lba: Lba, data: Bytes) -> impl Future<Output = Result<(), Error>> + Send;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a command comes to that is answered in this order, the last one for ever, and how often it was given.
    async fn comes_to(answers: &[Result<u8, SenseCode>]) -> (Result<u8, Error>, usize) {
        let mut given = 0;
        let result = persistently(|| {
            let answer = answers[given.min(answers.len() - 1)];
            given += 1;
            async move { answer.map_err(Error::CheckCondition) }
        });
        let result = result.await;
        (result, given)
    }

    #[tokio::test]
    async fn attentions_and_transitions_are_got_over_and_nothing_else() {
        let (changed, transition) = (SenseCode::GROUP_STATE_CHANGED, SenseCode::TRANSITION);
        let (result, given) = comes_to(&[Err(changed), Err(transition), Err(changed), Ok(7)]).await;
        assert_eq!((result.ok(), given), (Some(7), 4));
        let (result, given) = comes_to(&[Err(changed), Err(SenseCode::STANDBY), Ok(7)]).await;
        assert_eq!(
            (result.err().and_then(|error| error.sense()), given),
            (Some(SenseCode::STANDBY), 2)
        );
        let (result, given) = comes_to(&[Err(changed)]).await;
        assert_eq!(
            (result.err().and_then(|error| error.sense()), given),
            (Some(changed), 17)
        );
    }
}
