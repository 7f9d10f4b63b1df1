//! Power cuts: whatever a disk makes of what was not synced, the store opens, has lost nothing
//! that was acknowledged, and is as it was between two acts of its life.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use fastrand::Rng;

use crate::Share;
use crate::disk::Disk;
use crate::life::{Act, Commit, Life};
use crate::medium::{Change, Files, Medium, Name};
use crate::state::{State, check_integrity};
use crate::vfs::{locked, mount};

/// How many images are made of one life.
const IMAGES: usize = 500;

/// A life as it went, and all that it did to the disk.
struct Recording {
    life: Life,
    log: Vec<(Name, Change)>,
    moments: Vec<Moment>,
}

/// An act, and what was there after it.
struct Moment {
    /// How long the log was when it began, and when it was acknowledged.
    begun: usize,
    done: usize,
    state: State,
    /// What the lock file said.
    lock: String,
}

/// Cuts the power of a store in `directory` again and again, and returns how often.
pub(crate) fn check(seed: u64, _share: Share, directory: &Path) -> Result<u64> {
    let recording = Recording::make(seed, &directory.join("recorded.db"))?;
    let mut rng = Rng::with_seed(seed);
    let mut cuts: Vec<usize> = (0..IMAGES)
        .map(|_| rng.usize(..=recording.log.len()))
        .collect();
    cuts.sort_unstable();

    let mut medium = Medium::default();
    let mut images = 0;
    let mut applied = 0;
    for cut in cuts {
        for (name, change) in &recording.log[applied..cut] {
            medium.apply(*name, change, &mut rng);
        }
        applied = cut;
        // One image is all there is to see while everything is synced.
        if medium.is_settled() && rng.u8(..4) > 0 {
            continue;
        }
        let image = medium.image(&mut rng);
        let goes_on = rng.u8(..8) == 0;
        recording
            .check_image(cut, &image, goes_on, &directory.join("image.db"))
            .with_context(|| {
                format!(
                    "the power went after {cut} of {} operations; {}",
                    recording.log.len(),
                    keep(&image, seed)
                )
            })?;
        images += 1;
    }
    Ok(images)
}

/// Keeps an image that broke a promise, and says where.
fn keep(image: &Files, seed: u64) -> String {
    let mut kept = Vec::new();
    for (name, content) in Name::ALL.into_iter().zip(image) {
        let path = std::env::temp_dir().join(format!("parallax-{seed}.db{}", name.suffix()));
        if let Some(content) = content {
            match fs::write(&path, content) {
                Ok(()) => kept.push(path.display().to_string()),
                Err(error) => return format!("its image cannot be kept: {error}"),
            }
        }
    }
    format!("its image is {}", kept.join(", "))
}

impl Recording {
    fn make(seed: u64, path: &Path) -> Result<Self> {
        let life = Life::random(seed, 3..=7)?;
        let path_text = path.display().to_string();
        let mut disk = Disk::default();
        disk.record();
        let disk = mount(&path_text, disk);
        let length = || locked(&disk).log().len();
        let mut store = None;
        let mut moments: Vec<Moment> = Vec::new();
        for (number, act) in life.acts.iter().enumerate() {
            let begun = length();
            let result = match (act, &store) {
                (Act::Commit(commit), Some(store)) if number % 2 == 0 => {
                    Some(life.commit(store, commit)?)
                }
                _ => life.act(act, &mut store, path)?,
            };
            let done = length();
            if let (Act::Commit(commit), Some(result)) = (act, result) {
                let expected = commit.stats;
                ensure!(result.stats == expected, "the model expects {expected:?}");
            }
            let state = match (&store, moments.last()) {
                (Some(store), _) => life.state(store)?,
                (None, Some(last)) => last.state.clone(),
                (None, None) => bail!("a life begins with opening"),
            };
            moments.push(Moment {
                begun,
                done,
                state,
                lock: fs::read_to_string(lock_path(path))?,
            });
        }
        let log = locked(&disk).log().to_vec();
        Ok(Self { life, log, moments })
    }

    /// Checks what opens after the power went when the log was `cut` long, and with `goes_on` that
    /// the life goes on from there.
    fn check_image(&self, cut: usize, image: &Files, goes_on: bool, path: &Path) -> Result<()> {
        let acknowledged = self.moments.iter().rposition(|moment| moment.done <= cut);
        let begun = self.moments.iter().rposition(|moment| moment.begun < cut);
        let first = acknowledged.unwrap_or(0);
        let last = begun.unwrap_or(0).max(first);

        let path_text = path.display().to_string();
        mount(&path_text, Disk::with(image.clone()));
        // It is not synced: it may be any that was, and says the most if it is the newest.
        let lock = acknowledged.map_or("", |place| &self.moments[place].lock);
        write_lock_file(path, lock)?;
        let store = self.life.open(path).context("unopenable")?;
        let state = self.life.state(&store)?;
        let found = (first..=last)
            .rev()
            .find(|&place| self.moments[place].state == state);
        let is_new = acknowledged.is_none() && state.is_new();
        if found.is_none() && !is_new {
            let earlier = (0..first).find(|&place| self.moments[place].state == state);
            match earlier {
                Some(earlier) => {
                    bail!("lost: act {first} was acknowledged, and act {earlier} is there")
                }
                None => bail!(
                    "mixed: neither as after act {first} nor as after act {last}; other than \
                     after the first: {}",
                    state.differences(&self.moments[first].state)
                ),
            }
        }
        if !goes_on {
            return Ok(());
        }

        let rest = found.map_or(0, |place| place + 1);
        let mut commits = self.life.acts.iter().filter_map(Act::commit);
        let next = self.life.acts[rest..].iter().find_map(Act::commit);
        // Where the life is over, its last commit is repeated.
        let commit: &Commit = match next {
            Some(commit) => commit,
            None => commits.next_back().context("a life without a commit")?,
        };
        let result = self.life.commit(&store, commit);
        let result = result.context("the next commit fails")?;
        ensure!(
            result.stats == commit.stats && result.replayed == next.is_none(),
            "the next commit does something else: {:?}",
            result.stats
        );
        self.life.check_shown(&store, &commit.shown)?;
        let before = self.life.state(&store)?;
        drop(store);
        let store = self.life.open(path);
        let store = store.context("unopenable the second time")?;
        ensure!(
            self.life.state(&store)? == before,
            "closing and opening changes what is there"
        );
        check_integrity(&path_text)
    }
}

/// Puts a lock file beside a store on a disk in memory, as a power cut would leave it.
pub(crate) fn write_lock_file(store: &Path, text: &str) -> Result<()> {
    fs::write(lock_path(store), text).context("the lock file cannot be written")
}

fn lock_path(store: &Path) -> PathBuf {
    store.with_extension("db.lock")
}
