//! Failing disks: each operation of a life fails, in each way that it can, and the store says so,
//! has changed nothing, and goes on without being opened again.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use fastrand::Rng;
use parallax_store::{CommitError, Store};

use crate::Share;
use crate::disk::{Disk, Failure, Fault, Operation};
use crate::images::write_lock_file;
use crate::life::{Act, Life};
use crate::medium::Medium;
use crate::state::{State, check_integrity};
use crate::vfs::{Shared, locked, mount};

/// Lets every operation of a share of a life fail, a trial each, and returns how many that were.
pub(crate) fn check(seed: u64, share: Share, directory: &Path) -> Result<u64> {
    let life = Life::random(seed, 2..=3)?;
    let operations = Trial::new(&life, None, directory).run()?;
    let mut trials = 0;
    let operations = operations.into_iter().enumerate();
    for (at, operation) in operations.skip(share.nth).step_by(share.of) {
        for failure in Failure::ALL.into_iter().filter(|f| f.befalls(operation)) {
            for lasts in [false, true] {
                let fault = Fault { failure, at, lasts };
                Trial::new(&life, Some(fault), directory)
                    .run()
                    .with_context(|| format!("{operation:?} {at} fails: {fault:?}"))?;
                trials += 1;
            }
        }
    }
    Ok(trials)
}

/// A life on a disk with a fault.
struct Trial<'a> {
    life: &'a Life,
    fault: Option<Fault>,
    path: PathBuf,
    /// Where the images of power cuts are.
    image_path: PathBuf,
    disk: Shared,
    store: Option<Store>,
    /// What the store shows.
    shown: &'a State,
    /// Whether the store was ever open.
    is_created: bool,
}

impl<'a> Trial<'a> {
    fn new(life: &'a Life, fault: Option<Fault>, directory: &Path) -> Self {
        let path = directory.join("trial.db");
        let mut disk = Disk::default();
        disk.record();
        if let Some(fault) = fault {
            disk.set_fault(fault);
        }
        Self {
            life,
            fault,
            disk: mount(&path.display().to_string(), disk),
            path,
            image_path: directory.join("image.db"),
            store: None,
            shown: &life.shown_at_first,
            is_created: false,
        }
    }

    /// Lives the life until the fault has struck, and then for one more act; returns what was
    /// asked of the disk.
    fn run(mut self) -> Result<Vec<Operation>> {
        let mut rest = self.life.acts.iter().enumerate();
        for (number, act) in rest.by_ref() {
            let is_struck = self.act(act).with_context(|| format!("act {number}"))?;
            if is_struck {
                break;
            }
        }
        if let Some((number, act)) = rest.next() {
            self.act(act).with_context(|| format!("act {number}"))?;
        }
        drop(self.store.take());
        let store = self.life.open(&self.path)?;
        self.life.check_shown(&store, self.shown)?;
        check_integrity(&self.path.display().to_string())?;
        let operations = locked(&self.disk).operations().to_vec();
        Ok(operations)
    }

    /// Does one act, again if the disk failed, and returns whether it did.
    fn act(&mut self, act: &'a Act) -> Result<bool> {
        let before = self.shown;
        if let Act::Commit(commit) = act {
            self.shown = &commit.shown;
        }
        // Not before every act: reading takes longer than most.
        let soon = locked(&self.disk).operations().len() + 500;
        let may_strike = self.fault.is_some_and(|fault| fault.at < soon);
        let store = self.store.as_ref().filter(|_| may_strike);
        let state = store.map(|store| self.life.state(store));
        let strikes = locked(&self.disk).strikes();
        locked(&self.disk).arm();
        let mut result = self.life.act(act, &mut self.store, &self.path);
        locked(&self.disk).disarm();
        let is_struck = locked(&self.disk).strikes() > strikes;

        if let Err(error) = &result {
            ensure!(is_struck, "an error without a fault: {error}");
            check_error(error)?;
            if let Some(store) = &self.store {
                let state = state.context("struck too late")?;
                let is_unchanged = self.life.state(store)? == state?;
                ensure!(is_unchanged, "an error, and yet a change: {error}");
            }
            // SQLite deletes the journal of a file that is being created once the file is empty
            // again, without minding whether that was synced. Nothing is in it that could be lost.
            let lasts = self.fault.is_some_and(|fault| fault.lasts);
            if self.is_created || !lasts {
                // What failed may have been written whole, only not acknowledged.
                self.cut_power(&[before, self.shown])?;
            }
            result = self.life.act(act, &mut self.store, &self.path);
        }
        let result = result.context("the disk is well again, and yet")?;
        if let (Act::Commit(commit), Some(result)) = (act, result) {
            let expected = commit.stats;
            ensure!(result.stats == expected, "the model expects {expected:?}");
            ensure!(!result.replayed, "what failed had been committed");
        }
        self.is_created = true;
        if is_struck {
            if let Some(store) = &self.store {
                self.life.check_shown(store, self.shown)?;
            }
            self.cut_power(&[self.shown])?;
        }
        Ok(is_struck)
    }

    /// Checks what a power cut would leave now: a store that shows one of `expected`.
    fn cut_power(&self, expected: &[&State]) -> Result<()> {
        let mut medium = Medium::default();
        let mut rng = Rng::with_seed(self.fault.map_or(0, |fault| fault.at as u64));
        for (name, change) in locked(&self.disk).log() {
            medium.apply(*name, change, &mut rng);
        }
        // The worst, and something else.
        let image = match rng.bool() {
            true => medium.synced(),
            false => medium.image(&mut rng),
        };
        mount(&self.image_path.display().to_string(), Disk::with(image));
        write_lock_file(&self.image_path, "")?;
        let store = self.life.open(&self.image_path);
        let store = store.context("unopenable after a power cut")?;
        let mut shown = expected
            .iter()
            .map(|expected| self.life.check_shown(&store, expected));
        ensure!(
            shown.any(|shown| shown.is_ok()),
            "lost or mixed after a power cut"
        );
        Ok(())
    }
}

/// An error is typed as what it is, and is none of those that tell of another cause.
fn check_error(error: &CommitError) -> Result<()> {
    let message = error.to_string();
    match error.code() {
        "store_failed" | "store_full" | "store_permission" if !message.contains("panicked") => {
            Ok(())
        }
        code => bail!("the disk failed, and the error is {code}: {message}"),
    }
}
