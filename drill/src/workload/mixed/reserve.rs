//! Persistent reservations among the calls: who registers, reserves, preempts, and looks.

use bytes::{BufMut, Bytes, BytesMut};
use rand::RngExt;
use rand::rngs::StdRng;

use super::{Command, Wants};
use crate::cdb::Cdb;
use crate::checker::{Access, Admits, Call, Outcome, Reserve};

const OUT: u8 = 0x5f;
const IN: u8 = 0x5e;
/// Length of the basic parameter list.
const LIST_BYTES: u32 = 24;
/// What a report may take.
pub(super) const REPORT_BYTES: u16 = 4096;

/// The types that there are (SPC-5, 5.14.7), by their codes.
const TYPES: [(u8, Access); 6] = [
    (1, access(false, Admits::Holder)),
    (3, access(true, Admits::Holder)),
    (5, access(false, Admits::Registrants)),
    (6, access(true, Admits::Registrants)),
    (7, access(false, Admits::AllRegistrants)),
    (8, access(true, Admits::AllRegistrants)),
];

const fn access(excludes_readers: bool, admits: Admits) -> Access {
    Access {
        excludes_readers,
        admits,
    }
}

/// What a nexus believes of the reservations. It may be wrong: others change them.
#[derive(Debug, Default)]
pub(super) struct Belief {
    /// Its own key; 0 for none.
    key: u64,
    /// Keys that it gave itself, so that each is new.
    given: u64,
    /// All keys, as last seen.
    keys: Vec<u64>,
    /// The reservation, as last seen.
    held: Option<Access>,
}

impl Belief {
    /// Whether a call changes reservations: one that is lost may do so later.
    pub(super) const fn changes(call: &Call) -> bool {
        matches!(call, Call::Reserve(reserve) if !matches!(reserve, Reserve::ReadKeys | Reserve::ReadReservation))
    }

    /// The next call. With `looks`, one that changes nothing. `number` is the nexus's, whose keys are nobody else's.
    pub(super) fn draw(&mut self, random: &mut StdRng, number: usize, looks: bool) -> Command {
        let kind = random.random_range(0..if looks { 40 } else { 100 });
        let any = TYPES[random.random_range(0..TYPES.len())];
        let held = self
            .held
            .and_then(|held| TYPES.into_iter().find(|(_, access)| *access == held));
        let key = self.key;
        match kind {
            0..20 => report(0, Reserve::ReadKeys, Wants::Keys),
            20..40 => report(1, Reserve::ReadReservation, Wants::Reservation),
            40..58 => {
                self.given += 1;
                let new = (number as u64 + 1) << 32 | self.given;
                let ignores = random.random_range(0..2) == 0;
                let action = if ignores { 6 } else { 0 };
                change(action, 0, (key, new), Reserve::Register { key, new, ignores })
            }
            58..62 => {
                let register = Reserve::Register {
                    key,
                    new: 0,
                    ignores: false,
                };
                change(0, 0, (key, 0), register)
            }
            62..80 => change(1, any.0, (key, 0), Reserve::Take { key, access: any.1 }),
            80..88 => {
                let (code, access) = held.unwrap_or(any);
                change(2, code, (key, 0), Reserve::Release { key, access })
            }
            88..98 => {
                let at = random.random_range(0..self.keys.len().max(1));
                let victim = self.keys.get(at).copied().unwrap_or(1);
                let (code, access) = any;
                let action = if random.random_range(0..2) == 0 { 4 } else { 5 };
                change(
                    action,
                    code,
                    (key, victim),
                    Reserve::Preempt { key, victim, access },
                )
            }
            _ => change(3, 0, (key, 0), Reserve::Clear { key }),
        }
    }

    /// Takes down what an answer told.
    pub(super) fn learn(&mut self, call: &Call, outcome: &Outcome) {
        match (call, outcome) {
            (Call::Reserve(Reserve::Register { new, .. }), Outcome::Done) => self.key = *new,
            (_, Outcome::Keys(keys)) => {
                if !keys.contains(&self.key) {
                    self.key = 0;
                }
                self.keys.clone_from(keys);
            }
            (_, Outcome::Held(held)) => self.held = held.map(|(_, access)| access),
            _ => {}
        }
    }
}

fn report(action: u8, reserve: Reserve, wants: Wants) -> Command {
    let mut cdb: Cdb = [0; 16];
    (cdb[0], cdb[1]) = (IN, action);
    cdb[7..9].copy_from_slice(&REPORT_BYTES.to_be_bytes());
    Command {
        call: Call::Reserve(reserve),
        cdb,
        wants,
        data: Bytes::new(),
    }
}

fn change(action: u8, code: u8, (key, service_key): (u64, u64), reserve: Reserve) -> Command {
    let mut cdb: Cdb = [0; 16];
    (cdb[0], cdb[1], cdb[2]) = (OUT, action, code);
    cdb[5..9].copy_from_slice(&LIST_BYTES.to_be_bytes());
    let mut list = BytesMut::with_capacity(LIST_BYTES as usize);
    list.put_u64(key);
    list.put_u64(service_key);
    list.put_u64(0);
    Command {
        call: Call::Reserve(reserve),
        cdb,
        wants: Wants::Nothing,
        data: list.freeze(),
    }
}

/// The keys of READ KEYS (SPC-5, 6.15.2); `None` if it is none.
pub(super) fn keys(data: &[u8]) -> Option<Vec<u64>> {
    let length = u32::from_be_bytes(data.get(4..8)?.try_into().ok()?) as usize;
    let list = data.get(8..8 + length)?;
    let key = |bytes: &[u8]| bytes.try_into().map(u64::from_be_bytes).ok();
    list.chunks(8).map(key).collect()
}

/// The reservation of READ RESERVATION (SPC-5, 6.15.3): key and type; the outer `None` if it is none.
pub(super) fn held(data: &[u8]) -> Option<Option<(u64, Access)>> {
    if data.get(4..8)? == [0; 4] {
        return Some(None);
    }
    let key = u64::from_be_bytes(data.get(8..16)?.try_into().ok()?);
    let code = data.get(21)? & 0xf;
    let (_, access) = TYPES.into_iter().find(|(other, _)| *other == code)?;
    Some(Some((key, access)))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn reports_are_read_and_bad_ones_refused() {
        let mut data = vec![0, 0, 0, 9, 0, 0, 0, 16];
        data.extend_from_slice(&7_u64.to_be_bytes());
        data.extend_from_slice(&8_u64.to_be_bytes());
        assert_eq!(keys(&data), Some(vec![7, 8]));
        assert_eq!((keys(&data[..20]), keys(&[])), (None, None));
        assert_eq!(held(&[0; 8]), Some(None));
        let mut data = vec![0, 0, 0, 9, 0, 0, 0, 16];
        data.extend_from_slice(&7_u64.to_be_bytes());
        data.extend_from_slice(&[0, 0, 0, 0, 0, 5, 0, 0]);
        assert_eq!(held(&data), Some(Some((7, access(false, Admits::Registrants)))));
        data[21] = 4;
        assert_eq!(held(&data), None, "a type that there is not");
    }

    #[test]
    fn whoever_only_looks_changes_nothing() {
        let mut random = StdRng::seed_from_u64(1);
        let mut belief = Belief::default();
        let changes = |command: &Command| Belief::changes(&command.call);
        assert!((0..1000).all(|_| !changes(&belief.draw(&mut random, 0, true))));
        assert!((0..1000).any(|_| changes(&belief.draw(&mut random, 0, false))));
    }
}
