//! Bare Debian machines: a root directory each, entered with chroot on a machine of a [`Network`], with the project's own package to be
//! installed. There is no systemd in them: `systemctl` of tests/bare writes down what it is asked for, and a service that is to be started
//! is started here as its unit says: `ExecStart` word for word, as `User` and `Group`, with `StateDirectory` and `RuntimeDirectory`, and
//! only where `AssertPathExists` holds. What else a unit asks of systemd (limits, sandbox, priorities) is not tried by this.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use holdfast_drill::ground::Network;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::tools::{self, Finished};
use crate::{say, tree};

/// One minute on an idle machine.
const BUILD_LIMIT: Duration = Duration::from_secs(1200);
/// For any command, the installation of a package and a stop of a node among them.
const COMMAND_LIMIT: Duration = Duration::from_secs(180);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Where the package's unit is.
const UNIT: &str = "usr/lib/systemd/system/holdfast.service";
/// Enters a root: directory, then program and arguments. `ip netns exec` gives every process its own mounts, so this leaves none behind.
const ENTER: &str = "mount -t proc proc \"$0/proc\" && exec chroot \"$@\"";

/// Machines with their roots. Dropping it ends what runs in them.
#[derive(Debug)]
pub struct Roots {
    machines: BTreeMap<String, Machine>,
    dir: TempDir,
    network: Network,
}

#[derive(Debug)]
struct Machine {
    root: PathBuf,
    node: Option<Child>,
    /// How many requests to systemd are answered.
    answered: usize,
}

/// The bare root that all are copies of, made where it is not there; `None`, and a line that says why, where it cannot be made.
async fn bare() -> Result<Option<PathBuf>> {
    let build = tree::root().join("tests/bare/build");
    let mut hasher = DefaultHasher::new();
    std::fs::read(&build)?.hash(&mut hasher);
    let place = std::env::var_os("HOLDFAST_ROOT_DIR").unwrap_or_else(|| "/var/tmp/holdfast-root".into());
    let dir = Path::new(&place).join(format!("{:016x}", hasher.finish()));
    if dir.join("tree").is_dir() {
        return Ok(Some(dir.join("tree")));
    }
    if tools::find("mmdebstrap", "mmdebstrap").is_none() {
        return Ok(None);
    }
    say("a bare Debian is built, which takes a minute or two");
    let built = tools::run(&build, &[dir.as_os_str()], BUILD_LIMIT).await?;
    if let Err(error) = built.success() {
        say(&format!(
            "left out: a bare Debian cannot be built here ({error:#})"
        ));
        return Ok(None);
    }
    Ok(Some(dir.join("tree")))
}

/// `cargo deb`: on the path, or where tests/prepare puts it.
fn cargo_deb() -> Option<PathBuf> {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| tree::root().join("target"), PathBuf::from);
    let own = target.join("tools/bin/cargo-deb");
    own.is_file()
        .then_some(own)
        .or_else(|| tools::find("cargo-deb", "none: cargo install cargo-deb"))
}

/// Makes the package of the binary under test, in `dir`; `None`, and a line that says why, where the tool is missing.
///
/// # Errors
/// The tool fails.
pub async fn package(dir: &Path) -> Result<Option<PathBuf>> {
    let Some(program) = cargo_deb() else {
        return Ok(None);
    };
    // Where the tool looks for what was built.
    let release = dir.join("target/release");
    std::fs::create_dir_all(&release)?;
    std::fs::copy(tools::holdfast()?, release.join("holdfast"))?;
    let mut command = Command::new(program);
    command
        .args(["-p", "holdfast", "--no-build", "--fast", "--output"])
        .arg(dir)
        .env("CARGO_TARGET_DIR", dir.join("target"))
        .current_dir(tree::root())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = timeout(COMMAND_LIMIT, command.output())
        .await
        .context("cargo deb")??;
    let err = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo deb: {err}");
    let files = std::fs::read_dir(dir)?
        .filter_map(Result::ok)
        .map(|file| file.path());
    let mut packages = files.filter(|file| file.extension().is_some_and(|end| end == "deb"));
    Ok(Some(
        packages.next().with_context(|| format!("no package: {err}"))?,
    ))
}

impl Roots {
    /// A root for each of these machines of a network, with the package's file in /tmp, where commands are typed; `None`, and a line that
    /// says why, where there can be none.
    ///
    /// # Errors
    /// The package cannot be made, or a root cannot be copied.
    pub async fn make(network: Network, machines: &[&str]) -> Result<Option<Self>> {
        let Some(bare) = bare().await? else {
            return Ok(None);
        };
        let dir = tempfile::Builder::new().prefix("holdfast-roots-").tempdir()?;
        let Some(package) = package(dir.path()).await? else {
            return Ok(None);
        };
        let mut roots = Self {
            machines: BTreeMap::new(),
            dir,
            network,
        };
        for name in machines {
            let root = roots.dir.path().join(name);
            let copy = ["-a".as_ref(), bare.as_os_str(), root.as_os_str()];
            tools::run(Path::new("cp"), &copy, COMMAND_LIMIT)
                .await?
                .success()?;
            std::fs::create_dir_all(root.join("run/systemd/system"))?;
            std::fs::copy(
                tree::root().join("tests/bare/systemctl"),
                root.join("usr/bin/systemctl"),
            )?;
            let file = package.file_name().context("a file's name")?;
            std::fs::copy(&package, root.join("tmp").join(file))?;
            let (node, answered) = (None, 0);
            roots
                .machines
                .insert((*name).to_owned(), Machine { root, node, answered });
        }
        Ok(Some(roots))
    }

    /// The network that they are on.
    pub const fn network(&self) -> &Network {
        &self.network
    }

    /// A path in a machine's root.
    ///
    /// # Errors
    /// There is no such machine.
    pub fn path(&self, machine: &str, path: &str) -> Result<PathBuf> {
        Ok(self.machine(machine)?.root.join(path))
    }

    /// Gives a machine one more address.
    ///
    /// # Errors
    /// It cannot have it.
    pub async fn add_address(&self, machine: &str, address: &str) -> Result<()> {
        let (program, mut arguments) = self.network.on(machine);
        arguments.extend(["ip", "addr", "add", address, "dev", "eth0"].map(str::to_owned));
        tools::run(&program, &arguments, COMMAND_LIMIT).await?.success()?;
        Ok(())
    }

    fn machine(&self, name: &str) -> Result<&Machine> {
        self.machines
            .get(name)
            .with_context(|| format!("no machine {name}"))
    }

    fn machine_mut(&mut self, name: &str) -> Result<&mut Machine> {
        self.machines
            .get_mut(name)
            .with_context(|| format!("no machine {name}"))
    }

    /// A program in a machine's root, as one of its users (`USER:GROUP`).
    fn inside(&self, machine: &str, user: &str) -> Result<Command> {
        let (program, arguments) = self.network.on(machine);
        let root = &self.machine(machine)?.root;
        let mut command = Command::new(program);
        command.args(arguments).args(["sh", "-c", ENTER]).arg(root);
        command.arg(format!("--userspec={user}")).arg(root);
        command.env_clear().env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command.kill_on_drop(true);
        Ok(command)
    }

    /// Runs what root types in /tmp on a machine to its end, and what it asks of systemd meanwhile.
    ///
    /// # Errors
    /// It cannot be started, or does not end.
    pub async fn run(&mut self, machine: &str, typed: &str) -> Result<Finished> {
        let mut command = self.inside(machine, "root:root")?;
        command.args(["/bin/bash", "-c", &format!("cd /tmp\n{typed}")]);
        let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output();
        let mut output = std::pin::pin!(output);
        let start = Instant::now();
        loop {
            ensure!(start.elapsed() < COMMAND_LIMIT, "not done on {machine}: {typed}");
            if let Ok(output) = timeout(LOOK_EVERY, output.as_mut()).await {
                let output = output?;
                return Ok(Finished {
                    code: output.status.code(),
                    out: String::from_utf8_lossy(&output.stdout).into_owned(),
                    err: String::from_utf8_lossy(&output.stderr).into_owned(),
                });
            }
            self.answer(machine).await?;
        }
    }

    /// Does what systemd was asked for since the last look, and answers with a status.
    async fn answer(&mut self, machine: &str) -> Result<()> {
        let Machine { root, answered, .. } = self.machine(machine)?;
        let (root, mut answered) = (root.clone(), *answered);
        let asked = std::fs::read_to_string(root.join("run/asked")).unwrap_or_default();
        for request in asked.lines().skip(answered) {
            let done = self.carry_out(machine, request).await;
            let status = u8::from(done.is_err());
            if let Err(error) = done {
                say(&format!("systemctl {request} on {machine}: {error:#}"));
            }
            answered += 1;
            self.machine_mut(machine)?.answered = answered;
            let before = std::fs::read_to_string(root.join("run/answered")).unwrap_or_default();
            std::fs::write(root.join("run/answered"), format!("{before}{status}\n"))?;
        }
        Ok(())
    }

    async fn carry_out(&mut self, machine: &str, request: &str) -> Result<()> {
        let words: Vec<&str> = request
            .split(' ')
            .filter(|word| !word.starts_with("--"))
            .collect();
        match words.as_slice() {
            ["daemon-reload"] => Ok(()),
            ["start", "holdfast" | "holdfast.service"] => self.start(machine).await,
            ["stop", "holdfast" | "holdfast.service"] => self.end(machine, Signal::TERM).await,
            ["restart", "holdfast" | "holdfast.service"] => {
                self.end(machine, Signal::TERM).await?;
                self.start(machine).await
            }
            // The unit has `Restart=on-failure`.
            ["kill", "KILL", "holdfast" | "holdfast.service"] => {
                self.end(machine, Signal::KILL).await?;
                sleep(Duration::from_secs(1)).await;
                self.start(machine).await
            }
            _ => bail!("this is not known here"),
        }
    }

    /// Starts the node as its unit says.
    async fn start(&mut self, machine: &str) -> Result<()> {
        ensure!(self.machine(machine)?.node.is_none(), "it runs already");
        let root = self.machine(machine)?.root.clone();
        let unit = Unit::read(&root.join(UNIT))?;
        let needed = unit.value("AssertPathExists")?;
        ensure!(
            root.join(needed.trim_start_matches('/')).exists(),
            "AssertPathExists={needed} was not met"
        );
        let owner = format!("{}:{}", unit.value("User")?, unit.value("Group")?);
        for (kind, place) in [("State", "/var/lib"), ("Runtime", "/run")] {
            let (name, mode) = (
                unit.value(&format!("{kind}Directory"))?,
                unit.value(&format!("{kind}DirectoryMode"))?,
            );
            let mut make = self.inside(machine, "root:root")?;
            let script = "mkdir -p \"$0\" && chown \"$1\" \"$0\" && chmod \"$2\" \"$0\"";
            make.args(["sh", "-c", script, &format!("{place}/{name}"), &owner, mode]);
            ensure!(make.status().await?.success(), "{place}/{name} cannot be made");
        }
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.log(machine))?;
        let mut command = self.inside(machine, &owner)?;
        command.args(unit.value("ExecStart")?.split_whitespace());
        command.stdout(log.try_clone()?).stderr(log);
        let node = command.spawn()?;
        std::fs::write(root.join("run/active"), "")?;
        self.machine_mut(machine)?.node = Some(node);
        Ok(())
    }

    /// Sends the node a signal and waits until it is gone.
    async fn end(&mut self, machine: &str, signal: Signal) -> Result<()> {
        let Some(mut node) = self.machine_mut(machine)?.node.take() else {
            return Ok(());
        };
        let pid = node.id().and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            kill_process(pid, signal)?;
        }
        timeout(COMMAND_LIMIT, node.wait())
            .await
            .context("it does not end")??;
        Ok(std::fs::remove_file(self.path(machine, "run/active")?)?)
    }

    /// Whether a machine's node was started and has not ended.
    ///
    /// # Errors
    /// There is no such machine, or its process cannot be looked at.
    pub fn is_running(&mut self, machine: &str) -> Result<bool> {
        let node = self.machine_mut(machine)?.node.as_mut();
        node.map_or(Ok(false), |node| Ok(node.try_wait()?.is_none()))
    }

    fn log(&self, machine: &str) -> PathBuf {
        self.dir.path().join(format!("{machine}.log"))
    }

    /// What the nodes said.
    pub fn logs(&self) -> String {
        let log = |name: &String| {
            let last = tools::last_lines(&self.log(name), 20);
            format!("--- {name}\n{last}\n")
        };
        self.machines.keys().map(log).collect()
    }
}

/// What a unit file says.
#[derive(Debug)]
pub struct Unit(BTreeMap<String, String>);

impl Unit {
    /// Reads a file in which no name comes twice that matters.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let pairs = lines.filter_map(|line| line.split_once('='));
        Ok(Self(
            pairs
                .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
                .collect(),
        ))
    }

    /// A value that must be there.
    ///
    /// # Errors
    /// It is not.
    pub fn value(&self, name: &str) -> Result<&str> {
        let value = self
            .0
            .get(name)
            .with_context(|| format!("the unit has no {name}"))?;
        Ok(value.as_str())
    }
}
