//! Registrations and the persistent reservation, and what each service action of PERSISTENT RESERVE OUT does to them (SPC-4, 5.12).

use holdfast_types::{IscsiName, Isid, Nexus, TpgId, UnitVersion};
use serde::{Deserialize, Serialize};

use super::notices::Notices;
use super::out::PersistentOut;
use super::state::UnitOutcome;

/// Registrations of a unit, at most; one more gets 05/55/04.
const REGISTRATIONS_MAX: usize = 1024;

/// Type of a persistent reservation (SPC-4, 6.15.3.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReservationType {
    /// 1h: the holder writes.
    WriteExclusive,
    /// 3h: the holder reads and writes.
    ExclusiveAccess,
    /// 5h: who is registered writes.
    WriteExclusiveRegistrants,
    /// 6h: who is registered reads and writes.
    ExclusiveAccessRegistrants,
    /// 7h: as 5h, and everybody registered is a holder.
    WriteExclusiveAll,
    /// 8h: as 6h, and everybody registered is a holder.
    ExclusiveAccessAll,
}

impl ReservationType {
    /// All of them, by code.
    pub const ALL: [Self; 6] = [
        Self::WriteExclusive,
        Self::ExclusiveAccess,
        Self::WriteExclusiveRegistrants,
        Self::ExclusiveAccessRegistrants,
        Self::WriteExclusiveAll,
        Self::ExclusiveAccessAll,
    ];

    /// The four-bit code.
    pub const fn code(self) -> u8 {
        match self {
            Self::WriteExclusive => 1,
            Self::ExclusiveAccess => 3,
            Self::WriteExclusiveRegistrants => 5,
            Self::ExclusiveAccessRegistrants => 6,
            Self::WriteExclusiveAll => 7,
            Self::ExclusiveAccessAll => 8,
        }
    }

    /// Of a code; `None` for reserved ones.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// Whether others may not even read.
    pub const fn excludes_reads(self) -> bool {
        matches!(
            self,
            Self::ExclusiveAccess | Self::ExclusiveAccessRegistrants | Self::ExclusiveAccessAll
        )
    }

    /// Whether everybody registered holds it.
    pub const fn all_registrants(self) -> bool {
        matches!(self, Self::WriteExclusiveAll | Self::ExclusiveAccessAll)
    }

    /// Whether everybody registered has access: registrants only, and all registrants.
    pub const fn for_registrants(self) -> bool {
        !matches!(self, Self::WriteExclusive | Self::ExclusiveAccess)
    }
}

/// Service action of PERSISTENT RESERVE OUT (SPC-4, 6.16).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceAction {
    /// 00h.
    Register,
    /// 01h.
    Reserve,
    /// 02h.
    Release,
    /// 03h.
    Clear,
    /// 04h.
    Preempt,
    /// 05h.
    PreemptAndAbort,
    /// 06h.
    RegisterAndIgnore,
    /// 07h.
    RegisterAndMove,
}

/// A registered nexus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// Who.
    pub nexus: Nexus,
    /// Its reservation key, not 0.
    pub key: u64,
}

/// A persistent reservation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Its type.
    pub kind: ReservationType,
    /// Who holds it; `None` where everybody registered does.
    pub by: Option<Nexus>,
}

/// The persistent reservations of one logical unit. Holders are always registered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservations {
    generation: u32,
    /// As the newest registration wants it. What it asks for is given anyway: see [`Reservations::aptpl`].
    aptpl: bool,
    registrations: Vec<Registration>,
    held: Option<Held>,
}

/// What a change happens to, besides the table.
pub(super) struct Scene<'a> {
    /// Who asks.
    pub(super) by: &'a Nexus,
    /// The version that the change makes.
    pub(super) version: UnitVersion,
    /// Every target port of the unit (ALL_TG_PT).
    pub(super) ports: &'a [TpgId],
    pub(super) notices: &'a mut Notices,
}

impl Reservations {
    /// PRGENERATION: counts changes of registrations, never goes back but by its wrap.
    pub const fn generation(&self) -> u32 {
        self.generation
    }

    /// PTPL_A: whether the newest registration asked for reservations to outlive a loss of power. They always do: a cluster forgets
    /// nothing while one of its disks remembers, and a fence that is still there when the power comes back harms nobody.
    pub const fn aptpl(&self) -> bool {
        self.aptpl
    }

    /// Who is registered, oldest first.
    pub fn registrations(&self) -> &[Registration] {
        &self.registrations
    }

    /// The reservation.
    pub const fn held(&self) -> Option<&Held> {
        self.held.as_ref()
    }

    /// Whether there is nothing at all.
    pub const fn is_empty(&self) -> bool {
        self.registrations.is_empty() && self.held.is_none()
    }

    /// Whether `nexus` holds the reservation.
    pub fn holds(&self, nexus: &Nexus) -> bool {
        self.held.as_ref().is_some_and(|held| match &held.by {
            Some(holder) => holder == nexus,
            None => self.key(nexus).is_some(),
        })
    }

    /// The key of the reservation as READ RESERVATION gives it: 0 where everybody registered holds it.
    pub fn held_key(&self) -> Option<u64> {
        let held = self.held.as_ref()?;
        Some(held.by.as_ref().and_then(|holder| self.key(holder)).unwrap_or(0))
    }

    /// Whether the reservation lets `nexus` do everything.
    pub fn may_access(&self, nexus: &Nexus) -> bool {
        match &self.held {
            None => true,
            Some(held) if held.kind.for_registrants() => self.key(nexus).is_some(),
            Some(_) => self.holds(nexus),
        }
    }

    /// Whom the reservation lets do everything; nobody where there is none.
    pub fn holders(&self) -> impl Iterator<Item = &Nexus> {
        let held = self.held.as_ref();
        self.registrations
            .iter()
            .map(|registration| &registration.nexus)
            .filter(move |nexus| {
                held.is_some_and(|held| held.kind.for_registrants() || held.by.as_ref() == Some(*nexus))
            })
    }

    /// The key that `nexus` is registered with.
    pub fn key(&self, nexus: &Nexus) -> Option<u64> {
        self.registrations
            .iter()
            .find(|registration| registration.nexus == *nexus)
            .map(|registration| registration.key)
    }

    /// Carries a service action out.
    pub(super) fn apply(&mut self, out: &PersistentOut, scene: &mut Scene<'_>) -> UnitOutcome {
        let own = self.key(scene.by);
        // Who is not registered may register; everybody else must name the own key (SPC-4, table "PERSISTENT RESERVE OUT commands
        // allowed"), but for REGISTER AND IGNORE EXISTING KEY.
        let named = match out.action {
            ServiceAction::RegisterAndIgnore => true,
            ServiceAction::Register => own.unwrap_or(0) == out.key,
            _ => own == Some(out.key),
        };
        if !named {
            return UnitOutcome::Conflict;
        }
        match out.action {
            ServiceAction::Register | ServiceAction::RegisterAndIgnore => self.register(out, scene),
            ServiceAction::Reserve => self.reserve(out, scene),
            ServiceAction::Release => self.release_asked(out, scene),
            ServiceAction::Clear => self.clear(scene),
            ServiceAction::Preempt => self.preempt(out, scene, false),
            ServiceAction::PreemptAndAbort => self.preempt(out, scene, true),
            ServiceAction::RegisterAndMove => self.register_and_move(out, scene),
        }
    }

    fn counted(&mut self) -> UnitOutcome {
        self.generation = self.generation.wrapping_add(1);
        UnitOutcome::Good
    }

    fn register(&mut self, out: &PersistentOut, scene: &mut Scene<'_>) -> UnitOutcome {
        let known = self.key(scene.by).is_some();
        if known && !out.ports.is_empty() {
            // SPEC_I_PT is for who is not registered yet.
            return UnitOutcome::InvalidCdb { byte: 1 };
        }
        if !known && out.new_key == 0 {
            return UnitOutcome::Good;
        }
        // ALL_TG_PT: as if it had come through each port.
        let target_ports: Vec<TpgId> = if out.all_target_ports {
            let mut ports = scene.ports.to_vec();
            if !ports.contains(&scene.by.tpg) {
                ports.push(scene.by.tpg);
            }
            ports
        } else {
            vec![scene.by.tpg]
        };
        let mut initiators: Vec<(IscsiName, Isid)> = vec![(scene.by.initiator.clone(), scene.by.isid)];
        initiators.extend(out.ports.iter().cloned());
        for (initiator, isid) in initiators {
            for tpg in &target_ports {
                let nexus = Nexus {
                    initiator: initiator.clone(),
                    isid,
                    target: scene.by.target.clone(),
                    tpg: *tpg,
                };
                match self.registrations.iter_mut().find(|known| known.nexus == nexus) {
                    _ if out.new_key == 0 => self.unregister(&nexus, scene),
                    Some(registration) => registration.key = out.new_key,
                    None => {
                        let key = out.new_key;
                        self.registrations.push(Registration { nexus, key });
                    }
                }
            }
        }
        if self.registrations.len() > REGISTRATIONS_MAX {
            return UnitOutcome::NoRegistrationResources;
        }
        self.aptpl = out.aptpl;
        self.counted()
    }

    /// A nexus takes its own registration away; the reservation goes with its (last) holder.
    fn unregister(&mut self, nexus: &Nexus, scene: &mut Scene<'_>) {
        let held = self.holds(nexus);
        self.registrations
            .retain(|registration| registration.nexus != *nexus);
        let Some(kind) = self.held.as_ref().filter(|_| held).map(|held| held.kind) else {
            return;
        };
        if kind.all_registrants() && !self.registrations.is_empty() {
            return;
        }
        self.held = None;
        if kind.for_registrants() {
            self.tell_released(scene);
        }
    }

    fn tell_released(&self, scene: &mut Scene<'_>) {
        for registration in &self.registrations {
            if registration.nexus != *scene.by {
                let version = scene.version;
                scene.notices.note(&registration.nexus, |notices| {
                    notices.reservations_released = version;
                });
            }
        }
    }

    fn reserve(&mut self, out: &PersistentOut, scene: &Scene<'_>) -> UnitOutcome {
        let Some(kind) = out.kind else {
            return UnitOutcome::InvalidCdb { byte: 2 };
        };
        match &self.held {
            Some(held) if held.kind == kind && self.holds(scene.by) => UnitOutcome::Good,
            Some(_) => UnitOutcome::Conflict,
            None => {
                self.take(kind, scene.by);
                UnitOutcome::Good
            }
        }
    }

    fn take(&mut self, kind: ReservationType, by: &Nexus) {
        let by = (!kind.all_registrants()).then(|| by.clone());
        self.held = Some(Held { kind, by });
    }

    fn release_asked(&mut self, out: &PersistentOut, scene: &mut Scene<'_>) -> UnitOutcome {
        let Some(kind) = self.held.as_ref().map(|held| held.kind) else {
            return UnitOutcome::Good;
        };
        if !self.holds(scene.by) {
            return UnitOutcome::Good;
        }
        if out.kind != Some(kind) {
            return UnitOutcome::InvalidRelease;
        }
        self.held = None;
        if kind.for_registrants() {
            self.tell_released(scene);
        }
        UnitOutcome::Good
    }

    fn clear(&mut self, scene: &mut Scene<'_>) -> UnitOutcome {
        self.forget(Some(scene.by), scene.version, scene.notices);
        self.counted()
    }

    /// Everything goes, and everybody who was registered, but for `but`, hears of it.
    fn forget(&mut self, but: Option<&Nexus>, version: UnitVersion, notices: &mut Notices) {
        for registration in &self.registrations {
            if Some(&registration.nexus) != but {
                notices.note(&registration.nexus, |notices| {
                    notices.reservations_preempted = version
                });
            }
        }
        self.registrations.clear();
        self.held = None;
    }

    /// An administrator clears everything.
    pub(super) fn clear_all(&mut self, version: UnitVersion, notices: &mut Notices) {
        self.forget(None, version, notices);
        self.generation = self.generation.wrapping_add(1);
    }

    fn preempt(&mut self, out: &PersistentOut, scene: &mut Scene<'_>, abort: bool) -> UnitOutcome {
        let victim = out.new_key;
        let (all, of_holder) = match &self.held {
            None => (false, false),
            Some(held) if held.kind.all_registrants() => (victim == 0, victim == 0),
            Some(_) => (false, self.held_key() == Some(victim)),
        };
        if victim == 0 && !all {
            return UnitOutcome::InvalidParameter { byte: 8 };
        }
        let kind = match (of_holder, out.kind) {
            (false, _) => None,
            (true, Some(kind)) => Some(kind),
            (true, None) => return UnitOutcome::InvalidCdb { byte: 2 },
        };
        if !of_holder && !self.registrations.iter().any(|known| known.key == victim) {
            return UnitOutcome::Conflict;
        }
        // Who takes the reservation over keeps its own registration, whatever its key is.
        let spared = |registration: &Registration| of_holder && registration.nexus == *scene.by;
        let (gone, stay): (Vec<_>, Vec<_>) = std::mem::take(&mut self.registrations)
            .into_iter()
            .partition(|registration| !spared(registration) && (all || registration.key == victim));
        self.registrations = stay;
        let version = scene.version;
        for registration in gone.iter().filter(|one| one.nexus != *scene.by) {
            scene.notices.note(&registration.nexus, |notices| {
                notices.registrations_preempted = version;
                if abort {
                    notices.tasks_aborted = version;
                }
            });
        }
        if let Some(kind) = kind {
            let changed = self.held.as_ref().is_some_and(|held| held.kind != kind);
            self.take(kind, scene.by);
            if changed {
                self.tell_released(scene);
            }
        } else if self.registrations.is_empty() {
            self.held = None;
        }
        self.counted()
    }

    fn register_and_move(&mut self, out: &PersistentOut, scene: &mut Scene<'_>) -> UnitOutcome {
        let Some(held) = self.held.clone().filter(|_| self.holds(scene.by)) else {
            return UnitOutcome::Conflict;
        };
        if held.kind.all_registrants() {
            return UnitOutcome::Conflict;
        }
        if out.new_key == 0 {
            return UnitOutcome::InvalidParameter { byte: 8 };
        }
        let ([(initiator, isid)], Some(tpg)) = (out.ports.as_slice(), out.move_to) else {
            return UnitOutcome::InvalidParameter { byte: 24 };
        };
        if !scene.ports.contains(&tpg) {
            return UnitOutcome::InvalidParameter { byte: 18 };
        }
        let to = Nexus {
            initiator: initiator.clone(),
            isid: *isid,
            target: scene.by.target.clone(),
            tpg,
        };
        if to == *scene.by {
            return UnitOutcome::InvalidParameter { byte: 24 };
        }
        let full = self.registrations.len() >= REGISTRATIONS_MAX;
        match self.registrations.iter_mut().find(|known| known.nexus == to) {
            Some(registration) => registration.key = out.new_key,
            None if full => {
                return UnitOutcome::NoRegistrationResources;
            }
            None => self.registrations.push(Registration {
                nexus: to.clone(),
                key: out.new_key,
            }),
        }
        let kind = held.kind;
        self.held = Some(Held { kind, by: Some(to) });
        if out.unregister {
            self.registrations
                .retain(|registration| registration.nexus != *scene.by);
        }
        self.aptpl = out.aptpl;
        self.counted()
    }
}
