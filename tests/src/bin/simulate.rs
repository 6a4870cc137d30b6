//! Runs whole clusters under seeds: `make simulate SEEDS=N`, `make simulate SEED=S`.

use std::collections::BTreeMap;
use std::io::Write;
use std::num::NonZero;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use holdfast_tests::sim::{self, Options, Outcome, Scenario};

/// Whole clusters of Holdfast's cores in one thread, under one seed and a virtual clock.
#[derive(Debug, Parser)]
#[command(name = "simulate")]
struct Arguments {
    /// How many seeds to run
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Run this seed alone
    #[arg(long)]
    seed: Option<u64>,
    /// Print what happens, a line for each event
    #[arg(long)]
    trace: bool,
    /// Play this scenario, whatever the seed says
    #[arg(long, value_parser = scenario)]
    scenario: Option<Scenario>,
    /// Seeds at a time; as many as there are cores by default
    #[arg(long)]
    jobs: Option<usize>,
    /// Break every rule in turn, and print after how many seeds that is noticed
    #[cfg(feature = "faults")]
    #[arg(long)]
    mutations: bool,
    /// Break this rule, by its name in the table of `--mutations`
    #[cfg(feature = "faults")]
    #[arg(long, value_parser = broken)]
    broken: Option<sim::Broken>,
}

fn scenario(name: &str) -> Result<Scenario, String> {
    Scenario::named(name).ok_or_else(|| {
        let all: Vec<String> = Scenario::ALL.iter().map(|one| format!("{one:?}")).collect();
        format!("no such scenario; there are None, {}", all.join(", "))
    })
}

#[cfg(feature = "faults")]
fn broken(name: &str) -> Result<sim::Broken, String> {
    sim::Broken::named(name).ok_or_else(|| "no such rule; see --mutations".to_owned())
}

impl Arguments {
    fn options(&self, seed: u64) -> Options {
        Options {
            scenario: self.scenario,
            trace: self.trace,
            ..Options::seed(seed)
        }
    }

    fn run(&self, seed: u64) -> Outcome {
        let options = self.options(seed);
        #[cfg(feature = "faults")]
        if let Some(broken) = self.broken {
            return sim::run_broken(&options, broken);
        }
        sim::run(&options)
    }

    fn jobs(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        self.jobs.unwrap_or(cores).max(1)
    }
}

/// A line on standard output; a reader that went away is no trouble.
fn print(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // A panic is a finding, told like every other one.
    std::panic::set_hook(Box::new(|_| {}));
    if let Some(seed) = arguments.seed {
        return one(&arguments, seed);
    }
    #[cfg(feature = "faults")]
    if arguments.mutations {
        return mutations(&arguments);
    }
    many(&arguments)
}

fn one(arguments: &Arguments, seed: u64) -> ExitCode {
    let start = Instant::now();
    let outcome = arguments.run(seed);
    for line in &outcome.trace {
        print(line);
    }
    print(&outcome.plan);
    print(&format!("{:?}", outcome.notes));
    print(&format!(
        "{} events, digest {:016x}, {:.3} s",
        outcome.events,
        outcome.digest,
        start.elapsed().as_secs_f64()
    ));
    if let Some(finding) = &outcome.finding {
        print(&format!("FINDING: {finding}"));
    }
    summary(1, start.elapsed(), usize::from(outcome.finding.is_some()))
}

fn summary(seeds: u64, took: Duration, findings: usize) -> ExitCode {
    let minutes = took.as_secs_f64() / 60.0;
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = seeds as f64 / minutes.max(1e-9);
    print(&format!(
        "{seeds} seeds run, {rate:.0} seeds a minute, {findings} findings"
    ));
    if findings == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// What all seeds together have come to.
#[derive(Debug, Default)]
struct Sum {
    notes: BTreeMap<&'static str, u64>,
    findings: Vec<(u64, String)>,
}

fn many(arguments: &Arguments) -> ExitCode {
    let (start, next, done) = (Instant::now(), AtomicU64::new(arguments.from), AtomicU64::new(0));
    let end = arguments.from + arguments.seeds;
    let sum = Mutex::new(Sum::default());
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs() {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let outcome = arguments.run(seed);
                    let mut sum = sum.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    for (note, count) in outcome.notes {
                        *sum.notes.entry(note).or_default() += count;
                    }
                    if let Some(finding) = outcome.finding {
                        print(&format!("seed {seed}: {finding}\n  {}", outcome.plan));
                        print(&format!("  replay: make simulate SEED={seed}"));
                        sum.findings.push((seed, finding));
                    }
                    drop(sum);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        scope.spawn(|| progress(&done, arguments.seeds, start));
    });
    let sum = sum
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    print(&format!("{:?}", sum.notes));
    summary(arguments.seeds, start.elapsed(), sum.findings.len())
}

/// A line every two seconds, on standard error.
fn progress(done: &AtomicU64, all: u64, start: Instant) {
    let mut told = Instant::now();
    loop {
        let count = done.load(Ordering::Relaxed);
        if count >= all {
            return;
        }
        if told.elapsed() >= Duration::from_secs(2) {
            told = Instant::now();
            let seconds = start.elapsed().as_secs();
            let _ = writeln!(std::io::stderr().lock(), "{count} of {all} seeds, {seconds} s");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What noticed a broken rule: seeds, play, and what was seen; `None` if nothing did.
#[cfg(feature = "faults")]
fn noticed(rule: &sim::Rule, seeds: u64) -> Option<[String; 3]> {
    let none = || "-".to_owned();
    let seen = |caught: sim::Caught| {
        let play = format!("{:?}", caught.scenario);
        [caught.seeds.to_string(), play, caught.what]
    };
    match (rule.shown, rule.broken) {
        (sim::Shown::Trace(file, test), _) => Some([none(), none(), format!("the trace `{test}` in {file}")]),
        (sim::Shown::NotNeeded(why), _) => Some([none(), none(), format!("not needed: {why}")]),
        (sim::Shown::Seeds, Some(broken)) => sim::hunt(broken, seeds).map(seen),
        (sim::Shown::Play(play), Some(broken)) => (1..=seeds)
            .find_map(|seed| sim::look(broken, seed, Some(play)))
            .map(seen),
        (_, None) => None,
    }
}

/// Every rule broken in turn.
#[cfg(feature = "faults")]
fn mutations(arguments: &Arguments) -> ExitCode {
    let (start, next) = (Instant::now(), AtomicU64::new(0));
    let all: Vec<&sim::Rule> = sim::rules().collect();
    let rows = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs() {
            scope.spawn(|| {
                while let Ok(number) = usize::try_from(next.fetch_add(1, Ordering::Relaxed))
                    && let Some(rule) = all.get(number)
                {
                    let noticed = noticed(rule, arguments.seeds);
                    let _ = writeln!(std::io::stderr().lock(), "{}: {noticed:?}", rule.text);
                    rows.lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner)
                        .insert(number, noticed);
                }
            });
        }
    });
    let rows = rows
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    print("| rule that is broken | fault | seeds | play | noticed as |\n|---|---|---|---|---|");
    let missed = rows.values().filter(|row| row.is_none()).count();
    for (rule, row) in all.iter().zip(rows.into_values()) {
        let fault = rule.broken.map_or_else(|| "-".to_owned(), sim::Broken::name);
        let nothing = || {
            [
                format!("more than {}", arguments.seeds),
                "-".to_owned(),
                "nothing".to_owned(),
            ]
        };
        let [seeds, play, what] = row.unwrap_or_else(nothing);
        print(&format!(
            "| {} | {fault} | {seeds} | {play} | {what} |",
            rule.text
        ));
    }
    let count = |which: fn(&sim::Shown) -> bool| all.iter().filter(|rule| which(&rule.shown)).count();
    print(&format!(
        "{} rules broken in simulated clusters, {} in traces, {missed} not noticed, {} not needed, {:.0} s",
        count(|shown| matches!(shown, sim::Shown::Seeds | sim::Shown::Play(_))),
        count(|shown| matches!(shown, sim::Shown::Trace(..))),
        count(|shown| matches!(shown, sim::Shown::NotNeeded(_))),
        start.elapsed().as_secs_f64()
    ));
    if missed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
