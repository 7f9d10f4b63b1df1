use std::collections::HashMap;

use parallax_core::SyncReport;
use serde_json::Value as Json;
use xxhash_rust::xxh3::xxh3_64;

/// The place of a claim set in a [`ClaimSets`].
pub(crate) type SetNo = u32;

/// A claim: a step, and the scope if there was one, that emitted a record.
type Claim = (String, Option<String>);

/// Claims and sets of claims, each held once.
///
/// A source has few sets: about one per step and scope. So records carry a small number, and what
/// a set means is worked out once, not once per record.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClaimSets {
    claims: Vec<Claim>,
    claim_nos: HashMap<Claim, u32>,
    sets: Vec<Vec<u32>>,
    /// Of the texts of the sets.
    hashes: Vec<u64>,
    set_nos: HashMap<Vec<u32>, SetNo>,
    unions: HashMap<(SetNo, SetNo), SetNo>,
}

impl ClaimSets {
    /// Returns the set of one claim.
    pub(crate) fn single(&mut self, step_id: &str, scope: Option<&str>) -> SetNo {
        let claim = self.claim((step_id.to_owned(), scope.map(str::to_owned)));
        self.set(vec![claim])
    }

    /// Returns the set of the claims of both.
    pub(crate) fn union(&mut self, a: SetNo, b: SetNo) -> SetNo {
        if a == b || self.members(b).is_empty() {
            return a;
        }
        if let Some(&union) = self.unions.get(&(a, b)) {
            return union;
        }
        let mut claims = self.members(a).to_vec();
        claims.extend_from_slice(self.members(b));
        let union = self.set(claims);
        self.unions.insert((a, b), union);
        union
    }

    /// Takes in the sets of others. Returns the number of each, by the number it has there.
    pub(crate) fn take(&mut self, others: &Self) -> Vec<SetNo> {
        let claims = others.claims.iter();
        let claims: Vec<u32> = claims.map(|claim| self.claim(claim.clone())).collect();
        let sets = others.sets.iter().map(|set| {
            let set = set.iter().filter_map(|no| claims.get(*no as usize));
            self.set(set.copied().collect())
        });
        sets.collect()
    }

    /// Reads a set from its canonical text; `None` if it is none.
    pub(crate) fn parse(&mut self, text: &str) -> Option<SetNo> {
        let Ok(Json::Array(claims)) = serde_json::from_str(text) else {
            return None;
        };
        let mut set = Vec::with_capacity(claims.len());
        for claim in &claims {
            let step_id = claim.get(0)?.as_str()?;
            let scope = claim.get(1)?;
            if !scope.is_null() && !scope.is_string() {
                return None;
            }
            set.push(self.claim((step_id.to_owned(), scope.as_str().map(str::to_owned))));
        }
        Some(self.set(set))
    }

    /// Returns a set's canonical text: a JSON array of `[step, scope]`, sorted.
    pub(crate) fn text(&self, set: SetNo) -> String {
        let mut claims: Vec<&Claim> = self
            .members(set)
            .iter()
            .filter_map(|&claim| self.claims.get(claim as usize))
            .collect();
        claims.sort_unstable();
        let claims = claims.into_iter().map(|(step, scope)| {
            Json::Array(vec![
                Json::from(step.as_str()),
                Json::from(scope.as_deref()),
            ])
        });
        Json::Array(claims.collect()).to_string()
    }

    /// Returns the hash of a set's text: the same in every process.
    pub(crate) fn hash(&self, set: SetNo) -> u64 {
        self.hashes.get(set as usize).copied().unwrap_or_default()
    }

    /// Returns every claim.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        let claims = self.claims.iter();
        claims.map(|(step_id, scope)| (step_id.as_str(), scope.as_deref()))
    }

    /// Returns the claims of a set.
    pub(crate) fn claims(&self, set: SetNo) -> impl Iterator<Item = (&str, Option<&str>)> {
        let claims = self.members(set).iter();
        claims
            .filter_map(|&claim| self.claims.get(claim as usize))
            .map(|(step_id, scope)| (step_id.as_str(), scope.as_deref()))
    }

    fn members(&self, set: SetNo) -> &[u32] {
        self.sets.get(set as usize).map_or(&[], Vec::as_slice)
    }

    fn claim(&mut self, claim: Claim) -> u32 {
        if let Some(&no) = self.claim_nos.get(&claim) {
            return no;
        }
        let no = number(self.claims.len());
        self.claims.push(claim.clone());
        self.claim_nos.insert(claim, no);
        no
    }

    fn set(&mut self, mut claims: Vec<u32>) -> SetNo {
        claims.sort_unstable();
        claims.dedup();
        if let Some(&no) = self.set_nos.get(&claims) {
            return no;
        }
        let no = number(self.sets.len());
        self.sets.push(claims.clone());
        self.set_nos.insert(claims, no);
        self.hashes.push(xxh3_64(self.text(no).as_bytes()));
        no
    }
}

#[expect(clippy::cast_possible_truncation, reason = "memory ends long before")]
fn number(count: usize) -> u32 {
    count as u32
}

/// What the claims of stored records mean in one sync.
#[derive(Debug)]
pub(crate) struct Judge<'a> {
    report: &'a SyncReport,
    /// Whether every declared step has looked everywhere: only then nobody misses a step that is
    /// no longer declared.
    every_step_looked: bool,
    /// By the number of the set: asked once per record.
    verdicts: Vec<Option<Verdict>>,
}

/// What becomes of a set of claims in one sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The claims that could not be checked, and so stand.
    pub(crate) standing: SetNo,
    /// Whether a record with these claims that nobody emitted is earned as a delete.
    pub(crate) earned: bool,
    /// Whether a step that claims it is no longer declared.
    pub(crate) vanished: bool,
    /// Whether all that claim it are steps whose records come and go.
    pub(crate) ephemeral: bool,
}

impl<'a> Judge<'a> {
    pub(crate) fn new(report: &'a SyncReport) -> Self {
        let mut steps = report.steps().iter();
        let looked = steps.all(|step| report.has_looked_everywhere(&step.step_id, None));
        Self {
            report,
            // Of no steps all have.
            every_step_looked: looked && !report.is_failed(),
            verdicts: Vec::new(),
        }
    }

    pub(crate) fn verdict(&mut self, sets: &mut ClaimSets, set: SetNo) -> Verdict {
        if let Some(&Some(verdict)) = self.verdicts.get(set as usize) {
            return verdict;
        }
        let mut standing = Vec::new();
        let mut vanished = false;
        let mut ephemeral = true;
        for &no in sets.members(set) {
            let Some((step_id, scope)) = sets.claims.get(no as usize) else {
                continue;
            };
            let step = self.report.step(step_id);
            vanished |= step.is_none();
            ephemeral &= step.is_some_and(|step| step.ephemeral);
            if self.missed(step_id, scope.as_deref()).is_some() {
                standing.push(no);
            }
        }
        let verdict = Verdict {
            earned: standing.is_empty(),
            standing: sets.set(standing),
            vanished,
            ephemeral,
        };
        let known = self.verdicts.len().max(set as usize + 1);
        self.verdicts.resize(known, None);
        if let Some(slot) = self.verdicts.get_mut(set as usize) {
            *slot = Some(verdict);
        }
        verdict
    }

    /// Returns the sets that it was asked about.
    pub(crate) fn judged(&self) -> impl Iterator<Item = SetNo> {
        let verdicts = (0..).zip(&self.verdicts);
        verdicts.filter_map(|(set, verdict)| verdict.map(|_| set))
    }

    /// Returns why a claim stands, in words, if it does.
    pub(crate) fn missed(&self, step_id: &str, scope: Option<&str>) -> Option<String> {
        let missed = self.report.missed(step_id, scope)?;
        // Where everyone else has looked everywhere, nobody misses a step that is gone.
        let is_gone = self.report.step(step_id).is_none();
        (!is_gone || !self.every_step_looked).then_some(missed)
    }
}

#[cfg(test)]
mod tests {
    use parallax_core::{StepReport, StepStatus};

    use super::*;

    fn report(steps: &[(&str, StepStatus)]) -> SyncReport {
        let steps = steps.iter().map(|&(id, status)| {
            let mut step = StepReport::new(id, id);
            step.status = status;
            step
        });
        SyncReport::new(steps.collect())
    }

    #[test]
    fn a_set_is_the_same_however_it_came_about() {
        let mut sets = ClaimSets::default();
        let a = sets.single("a", None);
        let b = sets.single("b", Some("eu"));
        let ab = sets.union(a, b);
        assert_eq!(sets.union(b, a), ab);
        assert_eq!(sets.union(ab, a), ab);
        assert_eq!(sets.text(ab), r#"[["a",null],["b","eu"]]"#);
        assert_eq!(sets.parse(r#"[["b","eu"],["a",null]]"#), Some(ab));
        assert_eq!(sets.parse(r#"[["b"]]"#), None);
        assert_eq!(sets.parse("{}"), None);
    }

    #[test]
    fn a_delete_is_earned_when_every_claim_falls() {
        use StepStatus::{Completed, Failed};
        let mut sets = ClaimSets::default();
        let a = sets.single("a", None);
        let b = sets.single("b", None);
        let ab = sets.union(a, b);
        let gone = sets.single("gone", None);

        let all = report(&[("a", Completed), ("b", Completed)]);
        let mut judge = Judge::new(&all);
        assert!(judge.verdict(&mut sets, ab).earned);
        let verdict = judge.verdict(&mut sets, gone);
        assert!(
            verdict.earned && verdict.vanished,
            "earned, but to be held: {verdict:?}"
        );

        let half = report(&[("a", Completed), ("b", Failed)]);
        let mut judge = Judge::new(&half);
        assert!(judge.verdict(&mut sets, a).earned);
        let verdict = judge.verdict(&mut sets, ab);
        assert!(!verdict.earned);
        assert_eq!(verdict.standing, b);
        assert_eq!(judge.verdict(&mut sets, gone).standing, gone);
    }

    /// All of no steps had looked everywhere, once: a run of nothing deleted everything.
    #[test]
    fn run_without_steps_earns_nothing() {
        let mut sets = ClaimSets::default();
        let gone = sets.single("gone", None);
        let none = report(&[]);
        let verdict = Judge::new(&none).verdict(&mut sets, gone);
        assert!(!verdict.earned, "{verdict:?}");
    }
}
