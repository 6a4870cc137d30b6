//! Files that are ready to become segments, and the thread that fills new ones with zeros ahead of need.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::device::{FileName, LogDevice};

/// Creates a spare: filled under another name first, so that a spare always has its full size.
fn create(device: &dyn LogDevice, number: u64, size: u64) -> io::Result<()> {
    let filling = FileName::Filling(number);
    if let Err(error) = device.create(filling, size) {
        // Half a file is of no use, and on a full disk its room is wanted. It is removed at the next opening at the latest.
        if let Err(left) = device.remove(filling) {
            tracing::debug!(%left, "a half-filled segment was left behind");
        }
        return Err(error);
    }
    device.rename(filling, FileName::Spare(number))?;
    device.sync_dir()
}

#[derive(Default)]
struct Desk {
    /// Make one with this number.
    wanted: Option<u64>,
    done: Option<io::Result<u64>>,
    stop: bool,
}

/// The thread that fills files with zeros.
struct Preparer {
    desk: Arc<(Mutex<Desk>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Preparer {
    fn lock(&self) -> MutexGuard<'_, Desk> {
        self.desk.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(
        name: &str,
        device: Arc<dyn LogDevice>,
        size: u64,
        wake: impl Fn() + Send + 'static,
    ) -> io::Result<Preparer> {
        let desk: Arc<(Mutex<Desk>, Condvar)> = Arc::default();
        let theirs = desk.clone();
        let work = move || {
            let (lock, bell) = &*theirs;
            loop {
                let desk = lock.lock().unwrap_or_else(PoisonError::into_inner);
                let idle = |d: &mut Desk| d.wanted.is_none() && !d.stop;
                let mut desk = bell
                    .wait_while(desk, idle)
                    .unwrap_or_else(PoisonError::into_inner);
                let number = match desk.wanted {
                    Some(number) if !desk.stop => number,
                    _ => return,
                };
                drop(desk);
                let result = create(&*device, number, size).map(|()| number);
                desk = lock.lock().unwrap_or_else(PoisonError::into_inner);
                desk.wanted = None;
                desk.done = Some(result);
                drop(desk);
                wake();
            }
        };
        let thread = std::thread::Builder::new()
            .name(format!("{name}-fill"))
            .spawn(work)?;
        Ok(Preparer {
            desk,
            thread: Some(thread),
        })
    }
}

impl Drop for Preparer {
    fn drop(&mut self) {
        self.lock().stop = true;
        self.desk.1.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that prepares segments panicked");
        }
    }
}

/// The spares of one log.
pub(crate) struct Spares {
    ready: Vec<u64>,
    /// The next file's number.
    next: u64,
    size: u64,
    max: usize,
    preparer: Option<Preparer>,
    /// The disk was found full and this was said.
    full: bool,
}

impl Spares {
    /// Spares found at opening; `next` is a number that no file has.
    pub(crate) fn new(ready: Vec<u64>, next: u64, size: u64, max: u32) -> Self {
        Spares {
            ready,
            next,
            size,
            max: max as usize,
            preparer: None,
            full: false,
        }
    }

    /// Starts the background thread; without it [`take`](Spares::take) creates spares itself.
    pub(crate) fn prepare_ahead(
        &mut self,
        name: &str,
        device: Arc<dyn LogDevice>,
        wake: impl Fn() + Send + 'static,
    ) -> io::Result<()> {
        self.preparer = Some(Preparer::start(name, device, self.size, wake)?);
        self.order();
        Ok(())
    }

    /// Asks for one to be prepared if none is ready.
    fn order(&mut self) {
        let Some(preparer) = &self.preparer else { return };
        if self.ready.is_empty() {
            let mut desk = preparer.lock();
            if desk.wanted.is_none() && desk.done.is_none() {
                desk.wanted = Some(self.next);
                self.next += 1;
                drop(desk);
                preparer.desk.1.notify_one();
            }
        }
    }

    /// A spare, or `None` if none is ready yet or the disk is full.
    pub(crate) fn take(&mut self, device: &dyn LogDevice) -> io::Result<Option<u64>> {
        let done = self.preparer.as_ref().and_then(|p| p.lock().done.take());
        match done {
            Some(Ok(number)) => {
                self.full = false;
                self.ready.push(number);
            }
            Some(Err(error)) => self.note_full(error)?,
            None => {}
        }
        let mut taken = self.ready.pop();
        if taken.is_none() && self.preparer.is_none() {
            let number = self.next;
            self.next += 1;
            match create(device, number, self.size) {
                Ok(()) => taken = Some(number),
                Err(error) => self.note_full(error)?,
            }
        }
        self.order();
        Ok(taken)
    }

    /// A full disk is waited out and said once; any other error is final.
    fn note_full(&mut self, error: io::Error) -> io::Result<()> {
        if !matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        ) {
            return Err(error);
        }
        if !std::mem::replace(&mut self.full, true) {
            tracing::warn!(%error, "no room for another journal segment; waiting");
        }
        Ok(())
    }

    /// Turns a released segment into a spare, or removes it if there are enough.
    pub(crate) fn recycle(&mut self, device: &dyn LogDevice, sequence: u64) -> io::Result<()> {
        if self.ready.len() >= self.max {
            return device.remove(FileName::Segment(sequence));
        }
        let number = self.next;
        device.rename(FileName::Segment(sequence), FileName::Spare(number))?;
        self.next += 1;
        self.ready.push(number);
        Ok(())
    }
}
