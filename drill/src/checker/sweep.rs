//! Whether the history of one block is linearizable: a sweep over its events that keeps every state the block may be in.
//!
//! What is known of a block is a set of [`Config`]s: a value, and which of the steps that are under way have taken effect. A step is
//! put into order only when it must be: when it is answered, or when the time in which it may have taken effect ends ("just in time"
//! linearization). Steps that only look take effect as soon as the value fits, since that never hurts. States that cannot lead anywhere
//! are dropped early: a value is not overwritten while somebody has yet to see it and nobody will put it again. With unique values
//! hardly ever more than a few states are left, so that the time is linear in the length of the history.

use std::collections::HashSet;

/// A value nobody will ask for any more.
const NOBODY: u32 = u32::MAX;

/// What a step does to its block. Values are small numbers, given out per block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Puts the value.
    Put(u32),
    /// Saw the value.
    See(u32),
    /// Saw any other value.
    SeeNot(u32),
    /// Found the first and put the second, in one step.
    Swap(u32, u32),
}

/// One call's part in the history of one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    /// The call, for reports.
    pub(super) call: usize,
    pub(super) kind: Kind,
    /// The first and the last moment at which it may take effect, in nanoseconds.
    pub(super) from: u64,
    pub(super) to: u64,
    /// It did take effect; otherwise it may have. What only looks is always required.
    pub(super) required: bool,
}

/// What a sweep came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Legal,
    /// No order explains the steps up to the answer of this one (an index into the steps).
    Impossible(usize),
    /// Too many states to look at.
    Undecided,
}

/// A state that the block may be in: what it holds, and which steps under way have taken effect, in ascending order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Config {
    value: u32,
    done: Vec<u32>,
}

impl Config {
    fn has(&self, step: u32) -> bool {
        self.done.binary_search(&step).is_ok()
    }

    fn mark(&mut self, step: u32) {
        if let Err(at) = self.done.binary_search(&step) {
            self.done.insert(at, step);
        }
    }

    fn forget(&mut self, step: u32) -> bool {
        let at = self.done.binary_search(&step);
        if let Ok(at) = at {
            self.done.remove(at);
        }
        at.is_ok()
    }
}

/// Per value, how many steps that are not over yet ask for it or put it.
#[derive(Debug, Clone, Copy, Default)]
struct Demand {
    /// Steps that find it: those that must, and those that may.
    must: i32,
    may: i32,
    /// Steps that put it.
    sources: i32,
    /// Steps that found something else.
    not: i32,
}

struct Sweep<'a> {
    steps: &'a [Step],
    demand: Vec<Demand>,
    /// Steps not over yet that found any other value than theirs.
    others: i32,
    pending: Vec<u32>,
    configs: Vec<Config>,
    /// Whether states that lead nowhere are dropped early.
    prunes: bool,
    limit: usize,
}

/// Judges one block that first held one of `initial` (`None`: something nobody put or saw).
pub(super) fn judge(steps: &[Step], initial: &[Option<u32>], limit: usize) -> Verdict {
    let verdict = judge_once(steps, initial, limit, true);
    // The early end is not where the fault shows: look again, patiently.
    match verdict {
        Verdict::Impossible(_) => match judge_once(steps, initial, limit, false) {
            Verdict::Undecided => verdict,
            late => late,
        },
        _ => verdict,
    }
}

/// One sweep, with or without dropping states early.
pub(super) fn judge_once(steps: &[Step], initial: &[Option<u32>], limit: usize, prunes: bool) -> Verdict {
    Sweep::new(steps, initial, prunes, limit).run()
}

impl<'a> Sweep<'a> {
    fn new(steps: &'a [Step], initial: &[Option<u32>], prunes: bool, limit: usize) -> Self {
        let mut sweep = Self {
            steps,
            demand: Vec::new(),
            others: 0,
            pending: Vec::new(),
            configs: Vec::new(),
            prunes,
            limit,
        };
        for step in steps {
            sweep.count(*step, true);
        }
        for value in initial {
            let done = Vec::new();
            let value = value.unwrap_or(NOBODY);
            let mut config = Config { value, done };
            sweep.settle(&mut config);
            sweep.configs.push(config);
        }
        sweep
    }

    fn run(mut self) -> Verdict {
        // At the same moment: who begins, who must be over, who may be over.
        let mut events: Vec<(u64, u8, u32)> = Vec::with_capacity(self.steps.len() * 2);
        for (at, step) in (0..).zip(self.steps) {
            events.push((step.from, 0, at));
            if step.required {
                events.push((step.to, 1, at));
            } else if step.to < u64::MAX {
                events.push((step.to, 2, at));
            }
        }
        events.sort_unstable();
        for (_, class, step) in events {
            if class == 0 {
                self.begin(step);
            } else if !self.end(step, class == 1) {
                return Verdict::Undecided;
            }
            if self.configs.is_empty() {
                return Verdict::Impossible(step as usize);
            }
        }
        Verdict::Legal
    }

    fn step(&self, step: u32) -> Step {
        self.steps[step as usize]
    }

    /// Takes a step into account until it is over, or (`adds` false) no longer.
    fn count(&mut self, step: Step, adds: bool) {
        let by = if adds { 1 } else { -1 };
        match step.kind {
            Kind::Put(value) => self.demand(value).sources += by,
            Kind::See(value) => self.demand(value).must += by,
            Kind::SeeNot(value) => {
                self.demand(value).not += by;
                self.others += by;
            }
            Kind::Swap(old, new) => {
                let demand = self.demand(old);
                *if step.required {
                    &mut demand.must
                } else {
                    &mut demand.may
                } += by;
                self.demand(new).sources += by;
            }
        }
    }

    fn demand(&mut self, value: u32) -> &mut Demand {
        let index = value as usize;
        if self.demand.len() <= index {
            self.demand.resize(index + 1, Demand::default());
        }
        &mut self.demand[index]
    }

    /// The demand for a value in a state: what has taken effect there asks for nothing any more.
    fn demand_in(&self, config: &Config, value: u32) -> Demand {
        let mut demand = self.demand.get(value as usize).copied().unwrap_or_default();
        for step in config.done.iter().map(|step| self.step(*step)) {
            match step.kind {
                Kind::Put(put) if put == value => demand.sources -= 1,
                Kind::See(seen) if seen == value => demand.must -= 1,
                Kind::SeeNot(other) if other == value => demand.not -= 1,
                Kind::Swap(old, new) => {
                    if old == value && step.required {
                        demand.must -= 1;
                    } else if old == value {
                        demand.may -= 1;
                    }
                    if new == value {
                        demand.sources -= 1;
                    }
                }
                _ => {}
            }
        }
        demand
    }

    /// What only looks and fits takes effect, and a value that nobody can tell from others becomes [`NOBODY`].
    fn settle(&self, config: &mut Config) {
        for at in &self.pending {
            let fits = match self.step(*at).kind {
                Kind::See(value) => value == config.value,
                Kind::SeeNot(value) => value != config.value,
                Kind::Put(_) | Kind::Swap(..) => false,
            };
            if fits {
                config.mark(*at);
            }
        }
        if config.value != NOBODY {
            let demand = self.demand_in(config, config.value);
            if demand.must == 0 && demand.may == 0 && demand.not == 0 {
                config.value = NOBODY;
            }
        }
    }

    /// The state after a step took effect in it; `None` when it does not fit or leads nowhere.
    fn apply(&self, config: &Config, at: u32) -> Option<Config> {
        let (old, new) = match self.step(at).kind {
            Kind::Put(new) => (None, new),
            Kind::Swap(old, new) => (Some(old), new),
            Kind::See(_) | Kind::SeeNot(_) => return None,
        };
        if old.is_some_and(|old| old != config.value) {
            return None;
        }
        let mut next = config.clone();
        next.mark(at);
        if self.prunes && config.value != NOBODY && new != config.value {
            let demand = self.demand_in(&next, config.value);
            if demand.must > 0 && demand.sources == 0 {
                return None;
            }
        }
        // Values that nobody asks for hide before this one; unless somebody saw "something else", which any value may have been.
        if self.prunes && self.others == 0 && old.is_none() {
            for hidden in &self.pending {
                let step = self.step(*hidden);
                if let Kind::Put(value) = step.kind
                    && step.required
                    && !next.has(*hidden)
                    && !self.is_wanted(&next, value)
                {
                    next.mark(*hidden);
                }
            }
        }
        next.value = new;
        self.settle(&mut next);
        Some(next)
    }

    fn is_wanted(&self, config: &Config, value: u32) -> bool {
        let demand = self.demand_in(config, value);
        demand.must > 0 || demand.may > 0
    }

    fn begin(&mut self, at: u32) {
        self.pending.push(at);
        if matches!(self.step(at).kind, Kind::See(_) | Kind::SeeNot(_)) {
            let mut configs = std::mem::take(&mut self.configs);
            for config in &mut configs {
                self.settle(config);
            }
            self.configs = configs;
        }
    }

    /// A step's time is over: it has taken effect in every state that is left if it must have (`required`). False: too many states.
    fn end(&mut self, at: u32, required: bool) -> bool {
        let mut results: HashSet<Config> = HashSet::new();
        for config in std::mem::take(&mut self.configs) {
            if config.has(at) {
                results.insert(config);
                continue;
            }
            if !self.search(&config, at, &mut results) {
                return false;
            }
            if !required {
                results.insert(config);
            }
        }
        self.pending.retain(|step| *step != at);
        self.count(self.step(at), false);
        let mut configs: Vec<Config> = results.into_iter().collect();
        for config in &mut configs {
            config.forget(at);
            self.settle(config);
        }
        configs.sort_unstable_by(|a, b| (a.value, &a.done).cmp(&(b.value, &b.done)));
        configs.dedup();
        self.configs = self.undominated(configs);
        self.retire();
        true
    }

    /// All states in which `goal` has just taken effect, from this one on.
    fn search(&self, from: &Config, goal: u32, results: &mut HashSet<Config>) -> bool {
        let mut visited: HashSet<Config> = HashSet::from([from.clone()]);
        let mut open = vec![from.clone()];
        while let Some(config) = open.pop() {
            if visited.len() + results.len() > self.limit {
                return false;
            }
            for at in self.candidates(&config, goal) {
                let Some(next) = self.apply(&config, at) else {
                    continue;
                };
                if next.has(goal) {
                    results.insert(next);
                } else if visited.insert(next.clone()) {
                    open.push(next);
                }
            }
        }
        true
    }

    /// What may take effect next on the way to `goal`. Of steps that may and need not take effect, one that puts what nobody is waiting
    /// to see is left for later, and of several that put the same the one that has least time comes first.
    fn candidates(&self, config: &Config, goal: u32) -> Vec<u32> {
        let mut chosen: Vec<u32> = Vec::new();
        let mut optional: Vec<(u32, u32)> = Vec::new();
        for at in self.pending.iter().copied().filter(|at| !config.has(*at)) {
            let step = self.step(at);
            let Kind::Put(value) = step.kind else {
                if let Kind::Swap(_, value) = step.kind
                    && (at == goal || step.required || self.enables(config, at, value))
                {
                    chosen.push(at);
                }
                continue;
            };
            if at == goal || step.required {
                chosen.push(at);
            } else if self.enables(config, at, value) {
                let demand = self.demand_in(config, value);
                let is_known = demand.must + demand.may + demand.not > 0;
                let class = if is_known { value } else { NOBODY };
                match optional.iter_mut().find(|(other, _)| *other == class) {
                    Some((_, best)) if self.steps[*best as usize].to <= step.to => {}
                    Some((_, best)) => *best = at,
                    None => optional.push((class, at)),
                }
            }
        }
        chosen.extend(optional.into_iter().map(|(_, at)| at));
        chosen
    }

    /// Whether somebody under way could go on if `at` put `value` now.
    fn enables(&self, config: &Config, at: u32, value: u32) -> bool {
        self.pending
            .iter()
            .filter(|other| **other != at && !config.has(**other))
            .any(|other| match self.step(*other).kind {
                Kind::See(wanted) | Kind::Swap(wanted, _) => wanted == value,
                Kind::SeeNot(found) => found == config.value && found != value,
                Kind::Put(_) => false,
            })
    }

    /// Leaves states out from which nothing is possible that is not possible from another one, too: the same value, the same steps
    /// that must take effect, fewer of those that may, more of those that only look.
    fn undominated(&self, configs: Vec<Config>) -> Vec<Config> {
        const PAIRS_MAX: usize = 64;
        if configs.len() < 2 || configs.len() > PAIRS_MAX {
            return configs;
        }
        let is_better = |better: &Config, worse: &Config| {
            let fits = |at: &u32, in_better: bool| match self.step(*at) {
                Step {
                    kind: Kind::See(_) | Kind::SeeNot(_),
                    ..
                } => in_better,
                step => !step.required && !in_better,
            };
            better.value == worse.value
                && better.done.iter().all(|at| worse.has(*at) || fits(at, true))
                && worse.done.iter().all(|at| better.has(*at) || fits(at, false))
        };
        let mut kept: Vec<Config> = Vec::with_capacity(configs.len());
        for config in configs {
            if kept.iter().any(|other| is_better(other, &config)) {
                continue;
            }
            kept.retain(|other| !is_better(&config, other));
            kept.push(config);
        }
        kept
    }

    /// Steps without an end that have taken effect in every state are over.
    fn retire(&mut self) {
        let Some(first) = self.configs.first() else { return };
        let is_over = |at: &u32| {
            let step = self.step(*at);
            !step.required && step.to == u64::MAX && self.configs.iter().all(|config| config.has(*at))
        };
        let over: Vec<u32> = first.done.iter().copied().filter(is_over).collect();
        for at in over {
            self.pending.retain(|step| *step != at);
            self.count(self.step(at), false);
            for config in &mut self.configs {
                config.forget(at);
            }
        }
    }
}
