//! A virtual machine with Debian's kernel, open-iscsi and dm-multipath as one more machine in a [`Network`]: a real Linux host.
//!
//! tests/multipath/build makes its disk once; the machine itself keeps nothing. QEMU emulates the processor, so that it runs anywhere.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use holdfast_drill::ground::Network;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::{say, tools, tree};

/// Where the guest's agent listens.
const AGENT_PORT: u16 = 7777;
/// 20 s on an idle machine.
const BOOT_LIMIT: Duration = Duration::from_secs(240);
/// One and a half minutes on an idle machine.
const BUILD_LIMIT: Duration = Duration::from_secs(1200);
/// For multipathd to find all paths and to put them in order.
const MAPS_LIMIT: Duration = Duration::from_secs(60);

/// The machine at work. Dropping it ends QEMU.
#[derive(Debug)]
pub struct Guest {
    qemu: Child,
    agent: SocketAddr,
    dir: TempDir,
}

/// Where disk, kernel and initial file system are. Other scripts make another guest.
fn image_dir() -> Result<PathBuf> {
    let scripts = tree::root().join("tests/multipath");
    let mut hasher = DefaultHasher::new();
    let shipped = ["iscsid.conf", "multipath.conf"].map(|name| tree::root().join("deploy").join(name));
    let mut files = vec![scripts.join("build")];
    files.extend(shipped);
    for entry in std::fs::read_dir(scripts.join("guest"))? {
        files.push(entry?.path());
    }
    files.sort();
    for file in files {
        std::fs::read(&file)?.hash(&mut hasher);
    }
    let place = std::env::var_os("HOLDFAST_GUEST_DIR").unwrap_or_else(|| "/var/tmp/holdfast-guest".into());
    Ok(Path::new(&place).join(format!("{:016x}", hasher.finish())))
}

/// The guest's files, made where they are not there; `None`, and a line that says why, where they cannot be made.
async fn image() -> Result<Option<PathBuf>> {
    let dir = image_dir()?;
    if dir.join("disk.img").is_file() {
        return Ok(Some(dir));
    }
    if tools::find("mmdebstrap", "mmdebstrap").is_none() || tools::find("mkfs.ext4", "e2fsprogs").is_none() {
        return Ok(None);
    }
    say("the guest is built, which takes some minutes");
    let build = tree::root().join("tests/multipath/build");
    let built = tools::run(&build, &[dir.as_os_str()], BUILD_LIMIT).await?;
    if let Err(error) = built.success() {
        say(&format!(
            "left out: a Linux guest cannot be built here ({error:#})"
        ));
        return Ok(None);
    }
    Ok(Some(dir))
}

impl Guest {
    /// Boots the guest as one more machine, `guest`; `None`, and a line that says why, where there can be none.
    ///
    /// # Errors
    /// It does not come up.
    pub async fn boot(network: &mut Network) -> Result<Option<Self>> {
        let Some(qemu) = tools::find("qemu-system-x86_64", "qemu-system-x86") else {
            return Ok(None);
        };
        let Some(image) = image().await? else {
            return Ok(None);
        };
        let dir = tempfile::Builder::new().prefix("holdfast-guest-").tempdir()?;
        let (tap, address) = network.add_tap("guest")?;
        let (program, arguments) = network.on_switch();
        let log = std::fs::File::create(dir.path().join("qemu.log"))?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .arg(qemu)
            .args(machine(&image, dir.path(), &tap, address));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // Its snapshots of the disk.
        command.env("TMPDIR", dir.path());
        let guest = Self {
            qemu: command.kill_on_drop(true).spawn()?,
            agent: (address, AGENT_PORT).into(),
            dir,
        };
        guest.wait_until_up().await
    }

    async fn wait_until_up(mut self) -> Result<Option<Self>> {
        let start = Instant::now();
        while !self.console().contains("GUEST-READY") {
            let ended = self.qemu.try_wait()?;
            ensure!(
                ended.is_none() && start.elapsed() < BOOT_LIMIT,
                "the guest did not come up ({ended:?}):\n{}",
                self.console()
            );
            sleep(Duration::from_millis(200)).await;
        }
        Ok(Some(self))
    }

    /// What the guest's kernel and first process wrote, and QEMU.
    pub fn console(&self) -> String {
        let files = ["console.log", "qemu.log"].map(|name| self.dir.path().join(name));
        files
            .map(|file| String::from_utf8_lossy(&std::fs::read(file).unwrap_or_default()).into_owned())
            .concat()
    }

    /// Runs a shell command to its end; tells what it printed, both streams together.
    ///
    /// # Errors
    /// It ends with another status than 0, or not within `limit`, when it is killed.
    pub async fn run(&self, command: &str, limit: Duration) -> Result<String> {
        carry_out(self.agent, command, limit).await
    }

    /// The same beside everything else.
    pub fn spawn(&self, command: &str, limit: Duration) -> JoinHandle<Result<String>> {
        let (agent, command) = (self.agent, command.to_owned());
        tokio::spawn(async move { carry_out(agent, &command, limit).await })
    }

    /// Waits until there are so many maps of two paths each, the primary's in use: multipathd puts groups in order with the checks that it
    /// makes every few seconds, and on a busy machine a map may have been made of the other path.
    ///
    /// # Errors
    /// They are not like that within a minute; the text says what is missing.
    pub async fn has_maps(&self, count: usize) -> Result<()> {
        // A group becomes the active one with the first command that goes there.
        let look = "for map in /dev/mapper/mpath?; do dd if=$map of=/dev/null bs=4096 count=1 iflag=direct status=none || exit 1; done; \
                    multipath -ll";
        let start = Instant::now();
        loop {
            let shown = self.run(look, MAPS_LIMIT).await?;
            let wrong = [
                ("HOLDFAST,VDISK", count),
                ("hwhandler='1 alua'", count),
                ("active ready running", 2 * count),
                ("prio=50 status=active", count),
                ("prio=10 status=enabled", count),
            ]
            .into_iter()
            .find(|(what, count)| shown.matches(what).count() != *count);
            let Some((what, count)) = wrong else {
                return Ok(());
            };
            ensure!(start.elapsed() < MAPS_LIMIT, "not {count} times {what}:\n{shown}");
            sleep(Duration::from_millis(500)).await;
        }
    }
}

async fn carry_out(agent: SocketAddr, command: &str, limit: Duration) -> Result<String> {
    let (status, text) = timeout(limit, ask(agent, command))
        .await
        .with_context(|| format!("not done within {limit:?} in the guest: {command}"))??;
    ensure!(status == 0, "status {status} in the guest of {command}:\n{text}");
    Ok(text)
}

/// QEMU's arguments.
fn machine(image: &Path, dir: &Path, tap: &str, address: Ipv4Addr) -> Vec<String> {
    let file = |name: &str| image.join(name).display().to_string();
    let append = format!(
        "console=ttyS0 root=/dev/vda rw init=/guest/init panic=-1 mitigations=off guest.address={address}/24"
    );
    let text = [
        "-accel",
        "tcg,thread=multi",
        "-cpu",
        "max",
        "-smp",
        "2",
        "-m",
        "1024",
        "-display",
        "none",
        "-nodefaults",
        "-no-reboot",
    ];
    let mut arguments: Vec<String> = text.map(str::to_owned).to_vec();
    let pairs = [
        ("-serial", format!("file:{}", dir.join("console.log").display())),
        ("-kernel", file("vmlinuz")),
        ("-initrd", file("initrd.img")),
        ("-append", append),
        (
            "-drive",
            format!("file={},if=virtio,format=raw,snapshot=on", file("disk.img")),
        ),
        (
            "-netdev",
            format!("tap,id=n0,ifname={tap},script=no,downscript=no"),
        ),
        ("-device", "virtio-net-pci,netdev=n0".to_owned()),
    ];
    for (name, value) in pairs {
        arguments.extend([name.to_owned(), value]);
    }
    arguments
}

/// Has the agent carry out a command: its exit status and what it printed.
async fn ask(agent: SocketAddr, command: &str) -> Result<(i32, String)> {
    let mut stream = TcpStream::connect(agent).await.context("the guest's agent")?;
    let request = format!("{}\n{command}", command.len());
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let Some((text, status)) = answer.rsplit_once("\nSTATUS ") else {
        bail!("the guest's agent broke off: {answer}");
    };
    Ok((status.trim().parse()?, text.to_owned()))
}
