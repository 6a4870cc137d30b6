//! A machine that boots from a disk and works on it: QEMU, and a boot sector that writes, reads and compares blocks until it is told to
//! stop. It tells what it does on its serial port. QEMU emulates the processor, so that it runs anywhere.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use holdfast_drill::disk::{Disk, persistently};
use holdfast_types::Lba;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::tools;

/// Bytes of a block.
const BLOCK: usize = 512;
/// The block that tells the machine to stop: as soon as its first four bytes are not zero.
const STOP: Lba = Lba(1);
/// The blocks that it works on.
const FIRST: u64 = 2048;
const BLOCKS: u32 = 1024;
/// It starts within seconds on an idle machine.
const BOOT_LIMIT: Duration = Duration::from_secs(120);

/// The boot sector, 16-bit code at 0000:7C00. Counts up from 0: each number fills a block (2048 + number modulo 1024, by INT 13h, AH=43h),
/// which is read back (AH=42h) and compared. Says `B` at the start, a dot after every 16 blocks, and at the end `D` where it was told to
/// stop, `E` where a call failed or something else came back.
///
/// Variables: the BIOS's number of the disk at 600h, the number at 604h, the disk address packet at 610h; blocks at 8000h and 9000h.
const CODE: &[(&[u8], &str)] = &[
    // start:
    (&[0x31, 0xc0], "xor %ax,%ax"),
    (&[0x8e, 0xd8], "mov %ax,%ds"),
    (&[0x8e, 0xc0], "mov %ax,%es"),
    (&[0x8e, 0xd0], "mov %ax,%ss"),
    (&[0xbc, 0x00, 0x7c], "mov $0x7c00,%sp"),
    (&[0xfc], "cld"),
    (&[0x88, 0x16, 0x00, 0x06], "mov %dl,0x600"),
    (&[0x66, 0x31, 0xc0], "xor %eax,%eax"),
    (&[0x66, 0xa3, 0x04, 0x06], "mov %eax,0x604"),
    (&[0xb0, 0x42], "mov $0x42,%al"),
    (&[0xe8, 0x9b, 0x00], "call b7 <put>"),
    // next:
    (&[0x66, 0xa1, 0x04, 0x06], "mov 0x604,%eax"),
    (&[0xbf, 0x00, 0x80], "mov $0x8000,%di"),
    (&[0xb9, 0x80, 0x00], "mov $0x80,%cx"),
    (&[0x66, 0xf3, 0xab], "rep stos %eax,%es:(%di)"),
    (&[0x66, 0x25, 0xff, 0x03, 0x00, 0x00], "and $0x3ff,%eax"),
    (&[0x66, 0x05, 0x00, 0x08, 0x00, 0x00], "add $0x800,%eax"),
    (&[0x66, 0xa3, 0x18, 0x06], "mov %eax,0x618"),
    (&[0xbf, 0x00, 0x80], "mov $0x8000,%di"),
    (&[0xb4, 0x43], "mov $0x43,%ah"),
    (&[0xe8, 0x4c, 0x00], "call 8d <disk>"),
    (&[0xbf, 0x00, 0x90], "mov $0x9000,%di"),
    (&[0xb4, 0x42], "mov $0x42,%ah"),
    (&[0xe8, 0x44, 0x00], "call 8d <disk>"),
    (&[0xbe, 0x00, 0x80], "mov $0x8000,%si"),
    (&[0xbf, 0x00, 0x90], "mov $0x9000,%di"),
    (&[0xb9, 0x00, 0x01], "mov $0x100,%cx"),
    (&[0xf3, 0xa7], "repz cmpsw %es:(%di),%ds:(%si)"),
    (&[0x75, 0x2f], "jne 85 <wrong>"),
    (&[0x66, 0xff, 0x06, 0x04, 0x06], "incl 0x604"),
    (&[0xf6, 0x06, 0x04, 0x06, 0x0f], "testb $0xf,0x604"),
    (&[0x75, 0xba], "jne 1c <next>"),
    (&[0xb0, 0x2e], "mov $0x2e,%al"),
    (&[0xe8, 0x50, 0x00], "call b7 <put>"),
    (&[0x66, 0xb8, 0x01, 0x00, 0x00, 0x00], "mov $0x1,%eax"),
    (&[0x66, 0xa3, 0x18, 0x06], "mov %eax,0x618"),
    (&[0xbf, 0x00, 0x90], "mov $0x9000,%di"),
    (&[0xb4, 0x42], "mov $0x42,%ah"),
    (&[0xe8, 0x14, 0x00], "call 8d <disk>"),
    (&[0x66, 0x83, 0x3e, 0x00, 0x90, 0x00], "cmpl $0x0,-0x7000"),
    (&[0x74, 0x9b], "je 1c <next>"),
    (&[0xb0, 0x44], "mov $0x44,%al"),
    (&[0xeb, 0x02], "jmp 87 <last>"),
    // wrong:
    (&[0xb0, 0x45], "mov $0x45,%al"),
    // last:
    (&[0xe8, 0x2d, 0x00], "call b7 <put>"),
    // hang:
    (&[0xf4], "hlt"),
    (&[0xeb, 0xfd], "jmp 8a <hang>"),
    // disk:
    (
        &[0x66, 0xc7, 0x06, 0x10, 0x06, 0x10, 0x00, 0x01, 0x00],
        "movl $0x10010,0x610",
    ),
    (&[0x89, 0x3e, 0x14, 0x06], "mov %di,0x614"),
    (&[0xc7, 0x06, 0x16, 0x06, 0x00, 0x00], "movw $0x0,0x616"),
    (
        &[0x66, 0xc7, 0x06, 0x1c, 0x06, 0x00, 0x00, 0x00, 0x00],
        "movl $0x0,0x61c",
    ),
    (&[0xb0, 0x00], "mov $0x0,%al"),
    (&[0x8a, 0x16, 0x00, 0x06], "mov 0x600,%dl"),
    (&[0xbe, 0x10, 0x06], "mov $0x610,%si"),
    (&[0xcd, 0x13], "int $0x13"),
    (&[0x72, 0xcf], "jb 85 <wrong>"),
    (&[0xc3], "ret"),
    // put:
    (&[0x88, 0xc4], "mov %al,%ah"),
    // wait:
    (&[0xba, 0xfd, 0x03], "mov $0x3fd,%dx"),
    (&[0xec], "in (%dx),%al"),
    (&[0xa8, 0x20], "test $0x20,%al"),
    (&[0x74, 0xf8], "je b9 <wait>"),
    (&[0x88, 0xe0], "mov %ah,%al"),
    (&[0xba, 0xf8, 0x03], "mov $0x3f8,%dx"),
    (&[0xee], "out %al,(%dx)"),
    (&[0xc3], "ret"),
];

/// The boot sector with its signature.
fn boot_sector() -> Vec<u8> {
    let mut sector: Vec<u8> = CODE.iter().flat_map(|(bytes, _)| bytes.iter().copied()).collect();
    sector.resize(BLOCK - 2, 0);
    sector.extend([0x55, 0xaa]);
    sector
}

/// Makes a disk bootable.
///
/// # Errors
/// A write fails.
pub async fn install(disk: &impl Disk) -> Result<()> {
    let (sector, zeros) = (Bytes::from(boot_sector()), Bytes::from(vec![0; BLOCK]));
    persistently(|| disk.write(Lba(0), sector.clone())).await?;
    Ok(persistently(|| disk.write(STOP, zeros.clone())).await?)
}

/// Tells the machine that works on a disk to stop.
///
/// # Errors
/// The write fails.
pub async fn stop(disk: &impl Disk) -> Result<()> {
    let one = Bytes::from_static(&[1; BLOCK]);
    Ok(persistently(|| disk.write(STOP, one.clone())).await?)
}

/// Whether the disk holds what a machine has left that stopped: the newest number that belongs into each block. How many it has written.
///
/// # Errors
/// A read fails, or something else is there.
pub async fn verify(disk: &impl Disk) -> Result<u32> {
    let data = persistently(|| disk.read(Lba(FIRST), BLOCKS)).await?;
    let mut numbers = Vec::new();
    for block in data.chunks(BLOCK) {
        let words: Vec<u32> = block
            .as_chunks::<4>()
            .0
            .iter()
            .map(|word| u32::from_le_bytes(*word))
            .collect();
        let number = words.first().copied().unwrap_or_default();
        ensure!(
            words.iter().all(|word| *word == number),
            "a block holds {words:?}"
        );
        numbers.push(number);
    }
    let last = numbers.iter().copied().max().unwrap_or_default();
    for (at, number) in (0_u32..).zip(numbers) {
        // The largest number up to the last that belongs into this block; none yet in the first round.
        let newest = last.checked_sub((last.wrapping_sub(at)) % BLOCKS);
        ensure!(
            newest.unwrap_or(0) == number,
            "block {at} holds {number}, and the last number is {last}"
        );
    }
    Ok(last + 1)
}

/// The machine. Dropping it ends QEMU.
#[derive(Debug)]
pub struct Machine {
    qemu: Child,
    dir: TempDir,
}

impl Machine {
    /// Starts QEMU with a serial port, and what `arguments` adds.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(qemu: &Path, arguments: &[&str]) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("holdfast-boot-").tempdir()?;
        let log = std::fs::File::create(dir.path().join("qemu.log"))?;
        let serial = format!("file:{}", dir.path().join("serial.log").display());
        let mut command = Command::new(qemu);
        command.args([
            "-accel",
            "tcg",
            "-m",
            "128",
            "-display",
            "none",
            "-nodefaults",
            "-no-reboot",
        ]);
        command.args(["-serial", &serial]).args(arguments);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(Self {
            qemu: command.kill_on_drop(true).spawn()?,
            dir,
        })
    }

    /// What it has said.
    pub fn said(&self) -> String {
        let serial = std::fs::read(self.dir.path().join("serial.log")).unwrap_or_default();
        String::from_utf8_lossy(&serial).into_owned()
    }

    /// Waits until it says more than it has said until now; how long that took.
    ///
    /// # Errors
    /// It does not within `limit`, has met an error, or QEMU has ended.
    pub async fn goes_on(&mut self, limit: Duration) -> Result<Duration> {
        let before = self.said().len();
        self.until(limit, |said| said.len() > before).await
    }

    /// Waits until it has booted, and works.
    ///
    /// # Errors
    /// As [`Self::goes_on`].
    pub async fn works(&mut self) -> Result<Duration> {
        self.until(BOOT_LIMIT, |said| said.starts_with("B.")).await
    }

    /// Waits until it has stopped, as it was told to.
    ///
    /// # Errors
    /// As [`Self::goes_on`].
    pub async fn stopped(&mut self) -> Result<Duration> {
        self.until(BOOT_LIMIT, |said| said.ends_with('D')).await
    }

    async fn until(&mut self, limit: Duration, is: impl Fn(&str) -> bool) -> Result<Duration> {
        let start = Instant::now();
        loop {
            let said = self.said();
            let ended = self.qemu.try_wait()?;
            let log = || std::fs::read_to_string(self.dir.path().join("qemu.log")).unwrap_or_default();
            ensure!(
                !said.contains('E') && ended.is_none(),
                "it said {said}; QEMU: {ended:?}\n{}",
                log()
            );
            if is(&said) {
                return Ok(start.elapsed());
            }
            ensure!(
                start.elapsed() < limit,
                "after {limit:?} it has said {said}; QEMU:\n{}",
                log()
            );
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Where QEMU is, or a line that says what is left out without it.
pub fn qemu() -> Option<std::path::PathBuf> {
    tools::find("qemu-system-x86_64", "qemu-system-x86")
}
