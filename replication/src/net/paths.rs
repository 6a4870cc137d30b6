//! Which of several pairs of addresses a link runs over. No I/O, no clock: reports and ticks in, orders out.
//!
//! A *path* is the k-th address of one node with the k-th of the other; the first is preferred. Both ends judge whether a path works by
//! what they hear over it, and give it up on their own: whoever gives up cuts the connection, so the other end notices too. The end that
//! dials decides which path is used; the other one follows it.
//!
//! Silence of the path in use counts only while another one is heard: where all are silent at once, the peer is, and moving helps nobody.
//! Time is counted in ticks of whoever drives this, so that no path is blamed for a pause of this process.

use std::time::Duration;

/// Between two ticks.
pub(crate) const TICK: Duration = Duration::from_millis(50);

/// Times, in ticks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The path in use is given up after so much silence, while another one is heard.
    pub silent: u32,
    /// Any path is given up after so much silence.
    pub dead: u32,
    /// A path that was silent for no longer is heard.
    pub fresh: u32,
    /// How long a path that failed while another one worked must work before it is used in place of that one. Doubles with each relapse.
    pub proving: u32,
    /// The most that becomes of it.
    pub proving_max: u32,
    /// A failure after so much work is no relapse.
    pub stable: u32,
    /// A path that is down for so long, while another one works, is told to people.
    pub told: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            silent: 6,
            dead: 20,
            fresh: 2,
            proving: 200,
            proving_max: 6000,
            stable: 1200,
            told: 20,
        }
    }
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Send over this path from now on.
    Use(usize),
    /// Cut the connection over this path.
    GiveUp(usize),
}

/// How a path stands, for people.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PathReport {
    /// A connection is up and heard.
    pub up: bool,
    /// The pair's traffic runs over it.
    pub used: bool,
    /// It has been down, while another one worked, for long enough to tell somebody.
    pub failed: bool,
    /// Why it failed last.
    pub why: Option<String>,
}

#[derive(Debug, Clone, Default)]
struct Path {
    up: bool,
    /// Since something was heard.
    silent: u32,
    /// In which something was heard, since it came up.
    worked: u32,
    /// How long it must work before it takes over from a path that works.
    proving: u32,
    /// Since it went down, while another one was in use.
    down: u32,
    why: Option<String>,
}

/// All paths between two nodes.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    limits: Limits,
    /// Decides; otherwise follows.
    leads: bool,
    paths: Vec<Path>,
    used: Option<usize>,
    moves: u64,
}

impl Paths {
    /// `count` paths, all down.
    pub(crate) fn new(count: usize, leads: bool, limits: Limits) -> Self {
        Self {
            limits,
            leads,
            paths: vec![Path::default(); count.max(1)],
            used: None,
            moves: 0,
        }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.paths.len()
    }

    /// How often a link has moved from one path to another.
    pub(crate) fn moves(&self) -> u64 {
        self.moves
    }

    /// The path in use.
    pub(crate) fn used(&self) -> Option<usize> {
        self.used
    }

    /// Whether a connection is up over a path.
    pub(crate) fn is_up(&self, path: usize) -> bool {
        self.paths.get(path).is_some_and(|path| path.up)
    }

    /// Why a path failed last.
    pub(crate) fn why(&self, path: usize) -> Option<&str> {
        self.paths.get(path)?.why.as_deref()
    }

    /// How each stands, the preferred one first.
    pub(crate) fn report(&self) -> Vec<PathReport> {
        let report = |(at, path): (usize, &Path)| PathReport {
            up: path.up,
            used: self.used == Some(at),
            failed: !path.up && path.down >= self.limits.told,
            why: path.why.clone(),
        };
        self.paths.iter().enumerate().map(report).collect()
    }

    /// A new link begins over `path`: the connections of any older one are gone.
    pub(crate) fn begin(&mut self, path: usize) {
        for path in &mut self.paths {
            (path.up, path.down) = (false, 0);
        }
        self.used = None;
        if self.raise(path) {
            self.used = Some(path);
        }
    }

    /// A connection came up, beside others of the same link.
    pub(crate) fn up(&mut self, path: usize) -> Vec<Order> {
        if !self.raise(path) {
            return Vec::new();
        }
        match self.used {
            None => self.choose(),
            Some(_) => self.better(),
        }
    }

    fn raise(&mut self, path: usize) -> bool {
        let Some(path) = self.paths.get_mut(path) else {
            return false;
        };
        (path.up, path.silent, path.worked, path.down) = (true, 0, 0, 0);
        true
    }

    /// A connection has ended, or none can be made.
    pub(crate) fn down(&mut self, path: usize, why: &str) -> Vec<Order> {
        let others = self.others_work(path);
        let Limits {
            proving,
            proving_max,
            stable,
            ..
        } = self.limits;
        let Some(failed) = self.paths.get_mut(path) else {
            return Vec::new();
        };
        failed.why = Some(why.to_owned());
        if others {
            failed.proving = match failed.up {
                true if failed.worked < stable && failed.proving > 0 => {
                    failed.proving.saturating_mul(2).clamp(proving, proving_max)
                }
                true => proving,
                false => failed.proving.max(proving),
            };
        }
        failed.up = false;
        if self.used == Some(path) {
            self.used = None;
        }
        if self.paths.iter().any(|path| path.up) {
            return if self.used.is_none() {
                self.choose()
            } else {
                Vec::new()
            };
        }
        // All are gone, so it was the peer. What failed a moment before the last one failed with it, and need prove nothing.
        for path in &mut self.paths {
            if path.proving <= proving {
                path.proving = 0;
            }
        }
        Vec::new()
    }

    /// The other end sends over `path` from now on, and so must this one.
    pub(crate) fn follow(&mut self, path: usize) {
        if self.used != Some(path) && self.paths.get(path).is_some_and(|path| path.up) {
            self.used = Some(path);
            self.moves += 1;
        }
    }

    /// A tick of the connection over `path`; whether anything was heard over it since the one before.
    pub(crate) fn tick(&mut self, path: usize, heard: bool) -> Vec<Order> {
        let in_use = self.used == Some(path);
        let another = self.others_work(path);
        let Some(ticked) = self.paths.get_mut(path).filter(|path| path.up) else {
            return Vec::new();
        };
        if heard {
            ticked.silent = 0;
            ticked.worked = ticked.worked.saturating_add(1);
        } else {
            ticked.silent = ticked.silent.saturating_add(1);
        }
        let silent = ticked.silent;
        if silent >= self.limits.dead || (in_use && another && silent >= self.limits.silent) {
            let mut orders = vec![Order::GiveUp(path)];
            orders.extend(self.down(path, "does not answer"));
            return orders;
        }
        if self.used.is_none() {
            return self.choose();
        }
        if !in_use {
            return Vec::new();
        }
        for path in self.paths.iter_mut().filter(|path| !path.up) {
            path.down = path.down.saturating_add(1);
        }
        self.better()
    }

    fn is_fresh(&self, path: &Path) -> bool {
        path.up && path.silent <= self.limits.fresh
    }

    /// Whether a path other than `path` is heard.
    fn others_work(&self, path: usize) -> bool {
        let mut others = self.paths.iter().enumerate().filter(|(at, _)| *at != path);
        others.any(|(_, other)| self.is_fresh(other))
    }

    /// Nothing is in use: the first that is heard. If none is, whichever is heard next.
    fn choose(&mut self) -> Vec<Order> {
        let best = self.paths.iter().position(|path| self.is_fresh(path));
        self.take(best.filter(|_| self.leads))
    }

    /// A path that is preferred to the one in use, is heard, and has proved itself.
    fn better(&mut self) -> Vec<Order> {
        let Some(used) = self.used.filter(|_| self.leads) else {
            return Vec::new();
        };
        let proved = |path: &&Path| self.is_fresh(path) && path.worked >= path.proving;
        let best = self.paths[..used].iter().position(|path| proved(&path));
        self.take(best)
    }

    fn take(&mut self, path: Option<usize>) -> Vec<Order> {
        let Some(path) = path else { return Vec::new() };
        self.used = Some(path);
        self.moves += 1;
        vec![Order::Use(path)]
    }
}

#[cfg(test)]
#[path = "paths_test.rs"]
mod tests;
