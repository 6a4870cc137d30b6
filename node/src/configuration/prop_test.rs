//! Random documents on random clusters. The seed is printed; `HOLDFAST_SEED` takes it again.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::document::{
    Chap, ChapName, Configuration, Extent, Grant, Group, Isns, LunOf, NOBODY, Size, Target,
};
use super::plan::plan;
use super::read;
use super::rig::Rig;
use crate::status::Secondary;

const ROUNDS: u32 = 300;

fn seed() -> u64 {
    let given = std::env::var("HOLDFAST_SEED").ok();
    let seed = given.map_or_else(rand::random, |text| {
        text.parse().expect("HOLDFAST_SEED is a number")
    });
    eprintln!("HOLDFAST_SEED={seed}");
    seed
}

/// Draws documents: with `all`, every key is given.
struct Draw {
    rng: StdRng,
    all: bool,
}

impl Draw {
    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    fn maybe<T>(&mut self, value: T) -> Option<T> {
        (self.all || self.chance(60)).then_some(value)
    }

    fn flag(&mut self) -> Option<bool> {
        let value = self.chance(40);
        self.maybe(value)
    }

    fn some(&mut self, names: &[&str], percent: u32) -> Vec<String> {
        let picked = names.iter().filter(|_| self.chance(percent));
        picked.map(|name| (*name).to_owned()).collect()
    }

    fn chap(&mut self) -> Chap {
        let secret_file = Some("file".to_owned());
        let users = self.some(&["u1", "u2", "u 3"], 30);
        let mutual = self.chance(30).then(|| if self.chance(50) { "t1" } else { "t2" });
        Chap {
            users: users
                .into_iter()
                .map(|name| ChapName {
                    name,
                    secret_file: secret_file.clone(),
                })
                .collect(),
            mutual: mutual.map(|name| ChapName {
                name: name.to_owned(),
                secret_file,
            }),
        }
    }

    fn group(&mut self, name: String) -> Group {
        let initiators = self.some(
            &["eui.0123456789abcdef", "iqn.2026-11.e:a", "iqn.2026-11.e:b"],
            50,
        );
        let networks = self.some(&["10.0.0.0/8", "2001:db8::/32"], 30);
        let Chap { users, mutual } = self.chap();
        Group {
            name,
            any_initiator: self.flag(),
            initiators: self.maybe(initiators),
            networks: self.maybe(networks),
            read_only: self.flag(),
            users,
            mutual,
        }
    }

    /// What never changes goes with the name, so that most documents can be carried out.
    fn extent(&mut self, name: String) -> Extent {
        let odd = name.ends_with('1');
        let mut replicas = self.some(&["a", "b", "c"], 70);
        if replicas.is_empty() {
            replicas.push("b".to_owned());
        }
        let holders = self.maybe(replicas.clone());
        let preferred = if self.chance(30) { NOBODY } else { &replicas[0] }.to_owned();
        let megabytes = if self.chance(90) { 64 } else { 128 };
        Extent {
            size: Some(Size(megabytes << 20)),
            block_size: Some(if odd { 4096 } else { 512 }),
            // Of unknown replicas nobody is surely one.
            preferred: match &holders {
                Some(_) => self.maybe(preferred),
                None => None,
            },
            replicas: holders,
            secondary: if self.chance(30) {
                self.maybe(Secondary::Standby)
            } else {
                self.maybe(Secondary::NonOptimized)
            },
            thin: Some(odd),
            on_devices: (!odd).then_some(true),
            confirmed_reads: self.flag(),
            // Off takes a primary that says that all is stable, which is nobody here.
            write_cache: self.maybe(odd),
            name,
        }
    }

    fn luns(&mut self, extents: &[Extent]) -> Vec<LunOf> {
        let mut luns = Vec::new();
        for (number, extent) in (0..).zip(extents) {
            if self.chance(50) {
                // Seldom elsewhere: that is refused, or takes a prune.
                let lun = number + if self.chance(5) { 10 } else { 0 };
                luns.push(LunOf {
                    lun: lun + u32::from(extent.name.as_bytes()[1]),
                    extent: extent.name.clone(),
                    read_only: self.flag(),
                });
            }
        }
        luns
    }

    fn target(&mut self, iqn: String, extents: &[Extent], groups: &[Group]) -> Target {
        let mut grants = Vec::new();
        for group in groups {
            if self.chance(50) {
                let luns = if self.chance(50) {
                    self.luns(extents)
                } else {
                    Vec::new()
                };
                let own = !luns.is_empty();
                grants.push(Grant {
                    name: group.name.clone(),
                    own_luns: self.maybe(own),
                    luns,
                });
            }
        }
        let most = self.rng.random_range(0..4);
        Target {
            iqn,
            restricted: self.flag(),
            max_sessions: self.maybe(most),
            redirect: self.flag(),
            luns: self.luns(extents),
            groups: grants,
        }
    }

    fn document(&mut self) -> Configuration {
        let mut document = Configuration::empty();
        for (key, values) in [
            ("lease-time", ["600ms", "900ms"]),
            ("failback-after", ["off", "60s"]),
        ] {
            let value = values[usize::from(self.chance(50))].to_owned();
            if let Some(value) = self.maybe(value) {
                document.settings.insert(key.to_owned(), value);
            }
        }
        let servers = self.some(&["192.0.2.5:3205", "[2001:db8::5]:3205"], 50);
        document.isns = servers.into_iter().map(|server| Isns { server }).collect();
        document.discovery = self.chap();
        let groups = self.some(&["g1", "g2", "g3"], 60);
        document.groups = groups.into_iter().map(|name| self.group(name)).collect();
        let extents = self.some(&["e1", "e2", "e3", "e4"], 70);
        document.extents = extents.into_iter().map(|name| self.extent(name)).collect();
        for iqn in self.some(&["iqn.2026-11.e:t1", "iqn.2026-11.e:t2"], 70) {
            let (extents, groups) = (document.extents.clone(), document.groups.clone());
            let target = self.target(iqn, &extents, &groups);
            document.targets.push(target);
        }
        document.sort();
        document
    }
}

/// Without the files that secrets came from: nobody can read those back.
fn exported(document: &Configuration) -> Configuration {
    let mut document = document.clone();
    let groups = document.groups.iter_mut();
    let chaps = groups.flat_map(|group| group.users.iter_mut().chain(&mut group.mutual));
    let discovery = &mut document.discovery;
    for name in chaps.chain(&mut discovery.users).chain(&mut discovery.mutual) {
        name.secret_file = None;
    }
    document
}

/// What a cluster has beyond its document: extents that were not pruned.
fn without_others(mut configuration: Configuration, document: &Configuration) -> Configuration {
    let known = |name: &str| document.extents.iter().any(|extent| extent.name == name);
    configuration.extents.retain(|extent| known(&extent.name));
    configuration
}

/// Whatever a cluster is, a whole document that can be carried out becomes true of it, also when the one who does it dies on the way; what
/// is refused changes nothing; and the second time nothing is left to do.
#[test]
fn a_document_that_is_carried_out_is_true_and_done() {
    let seed = seed();
    let mut carried_out = 0;
    for round in 0..ROUNDS {
        let mut draw = Draw {
            rng: StdRng::seed_from_u64(seed.wrapping_add(u64::from(round))),
            all: false,
        };
        let (mut rig, first) = (Rig::new(), draw.document());
        if let Ok(plan) = plan(&first, &rig.present(), false) {
            rig.carry_out(&plan);
            let second = super::plan(&first, &rig.present(), false).unwrap();
            assert!(
                second.steps.is_empty() && second.differences.is_empty(),
                "{round}: {second:?}"
            );
        }
        let configuration = rig.configuration();
        assert_eq!(
            read(&configuration.to_toml()).as_ref(),
            Ok(&configuration),
            "{round}"
        );
        draw.all = true;
        let wanted = draw.document();
        assert!(
            read(&wanted.to_toml()).is_ok(),
            "{round}: {:?}",
            read(&wanted.to_toml())
        );
        let Ok(whole) = plan(&wanted, &rig.present(), true) else {
            continue;
        };
        // Killed in the middle, and asked again.
        let stop = draw.rng.random_range(0..=whole.steps.len());
        for step in &whole.steps[..stop] {
            rig.step(step);
        }
        let rest = plan(&wanted, &rig.present(), true).unwrap();
        rig.carry_out(&rest);
        let after = rig.present();
        let second = plan(&wanted, &after, true).unwrap();
        assert!(
            second.steps.is_empty() && second.differences.is_empty(),
            "{round}: {second:?}"
        );
        assert_eq!(
            without_others(after.configuration, &wanted),
            exported(&wanted),
            "{round}"
        );
        carried_out += 1;
    }
    assert!(
        carried_out > ROUNDS / 4,
        "only {carried_out} documents could be carried out"
    );
}
