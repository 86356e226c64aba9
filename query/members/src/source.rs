//! All that a tenant has, as one source: a snapshot's blocks, and what every member holds above its floor.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use model::exemplar::{Gathered, SeriesExemplars};
use model::labels::Labels;
use model::matcher::Matcher;
use model::sample::Metadata;
use model::source::merge::MergeCursor;
use model::source::merge::conflict::Origin;
use model::source::{Budget, LabelQuery, Selection, SeriesColumns, SeriesCursor, Source, SourceError};
use model::tenant::TenantId;
use parking_lot::Mutex;
use tsdb::catalog::Snapshot;

use crate::PROTOCOL;
use crate::ask::{self, Reply, SamplesAnswer, Waiting};
use crate::error::{AskError, MemberFailed, span_text};
use crate::ingesters::{Ingesters, KnownMembers};
use crate::roster::Member;
use crate::wire::request::{Label, Question, What, labels};

/// How often a query begins again because the bucket was ahead of its snapshot, or a member withdrew. Each
/// time is another's progress.
pub(crate) const ATTEMPTS: usize = 8;

/// What an answer that was to be given all the same lacks, a sentence for each part.
#[derive(Debug, Default)]
pub struct Missing(Mutex<BTreeSet<String>>);

impl Missing {
    fn note(&self, what: String) {
        self.0.lock().insert(what);
    }

    pub fn sentences(&self) -> Vec<String> {
        self.0.lock().iter().cloned().collect()
    }
}

/// What one query holds on to.
#[derive(Clone)]
struct Pinned {
    known: Arc<KnownMembers>,
    snapshot: Arc<Snapshot>,
}

/// See the module.
pub struct FreshSource {
    ingesters: Arc<Ingesters>,
    tenant: TenantId,
    pinned: Mutex<Pinned>,
    missing: Option<Arc<Missing>>,
}

/// What is asked of every member.
struct Asking {
    what: What,
    selectors: Vec<Vec<Label>>,
    range_ms: (i64, i64),
    budget: Arc<Budget>,
}

impl Asking {
    fn new(what: What, selectors: &[Vec<Matcher>], range_ms: (i64, i64), budget: &Arc<Budget>) -> Asking {
        let selectors = selectors.iter().map(|matchers| labels(matchers)).collect();
        Asking { what, selectors, range_ms, budget: budget.clone() }
    }

    /// Whether the answer follows from samples within the range.
    fn is_of_samples(&self) -> bool {
        !matches!(self.what, What::Exemplars | What::Metadata(_))
    }
}

/// A member that was asked.
struct Asked<'m> {
    member: &'m Member,
    question: Question,
    reply: Box<dyn Waiting>,
}

/// What came of asking all.
struct Gathering<T> {
    answers: Vec<(Member, T)>,
    failed: Vec<(Member, AskError)>,
    /// The newest snapshot that one of them wants to be read; 0: none.
    needs: u64,
}

/// What all members said, by name, and the state that it belongs to.
struct Answers<T> {
    pinned: Pinned,
    of_members: Vec<(String, T)>,
}

/// Who takes part and a snapshot, in this order: what a member withdrew is in a snapshot that is taken later.
fn pin(ingesters: &Ingesters, tenant: &TenantId) -> Pinned {
    let known = ingesters.known();
    Pinned { known, snapshot: ingesters.reader().snapshot(tenant) }
}

impl FreshSource {
    /// All that a tenant has, in the bucket and at all members. Without `missing` a member that does not
    /// answer fails the query, with it what is missing is noted there.
    pub fn new(ingesters: Arc<Ingesters>, tenant: TenantId, missing: Option<Arc<Missing>>) -> FreshSource {
        let pinned = Mutex::new(pin(&ingesters, &tenant));
        FreshSource { ingesters, tenant, pinned, missing }
    }

    fn question(&self, asking: &Asking, member: &Member, pinned: &Pinned) -> Question {
        let left = asking.budget.deadline().map(|at| at.saturating_duration_since(std::time::Instant::now()));
        Question {
            version: PROTOCOL,
            writer: member.name.clone(),
            tenant: self.tenant.to_string(),
            floor: pinned.snapshot.watermark(&member.name).unwrap_or(0),
            selectors: asking.selectors.clone(),
            min_t_ms: asking.range_ms.0,
            max_t_ms: asking.range_ms.1,
            timeout_ms: left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
            what: asking.what.clone(),
        }
    }

    /// Asks all members at once and takes what they say, again on a newer snapshot where that is needed.
    fn ask<T>(
        &self,
        asking: impl Fn(&Pinned) -> Asking,
        understand: impl Fn(Reply, &Question, &str) -> Result<T, AskError>,
    ) -> Result<Answers<T>, SourceError> {
        // Members that do not answer, and have nothing of the range.
        let mut excused = BTreeSet::new();
        for _ in 0..ATTEMPTS {
            let begun = Instant::now();
            let mut pinned = self.pinned.lock().clone();
            self.check_age(&mut pinned)?;
            let wanted = asking(&pinned);
            wanted.budget.check()?;
            let asked: Vec<Asked<'_>> = pinned
                .known
                .owing()
                .filter(|member| !excused.contains(&member.name))
                .map(|member| self.send(member, &wanted, &pinned))
                .collect();
            let Gathering { answers, failed, needs } = self.gather(asked, &understand)?;
            if needs > 0 {
                self.go_on(&pinned, needs)?;
                continue;
            }
            let uncovered = uncovered(failed, &answers);
            if !uncovered.is_empty() {
                let changed = self.ingesters.look_again(&pinned.known)?;
                let known = self.ingesters.known();
                let owes_nothing = |m: &Member| {
                    known.read_since(begun)
                        && wanted.is_of_samples()
                        && known.owes_nothing_to(&m.name, wanted.range_ms.1)
                };
                let more: Vec<_> = uncovered.iter().filter(|(m, _)| owes_nothing(m)).collect();
                excused.extend(more.iter().map(|(member, _)| member.name.clone()));
                if changed || !more.is_empty() {
                    // One that did not answer has flushed and withdrawn, or moved, or has nothing of it.
                    *self.pinned.lock() = pin(&self.ingesters, &self.tenant);
                    continue;
                }
            }
            for (member, why) in uncovered {
                let first_ms = wanted.range_ms.0.max(member.owes_from_ms.unwrap_or(i64::MIN));
                let span = span_text((first_ms, wanted.range_ms.1));
                let shown = shown(&self.ingesters, &member);
                match &self.missing {
                    None => return Err(why.of(&shown, span)),
                    Some(missing) => {
                        missing.note(MemberFailed { member: shown, why: why.sentence(), span }.to_string());
                    }
                }
            }
            let of_members = answers.into_iter().map(|(member, answer)| (member.name, answer)).collect();
            return Ok(Answers { pinned, of_members });
        }
        Err(SourceError::storage(format!(
            "members flushed {ATTEMPTS} times while a query began: try again, and look whether the bucket is slow"
        )))
    }

    fn send<'m>(&self, member: &'m Member, wanted: &Asking, pinned: &Pinned) -> Asked<'m> {
        let question = self.question(wanted, member, pinned);
        let address = &self.ingesters.address(member);
        let reply = self.ingesters.transport().send(address, question.to_text(), &wanted.budget);
        Asked { member, question, reply }
    }

    /// Waits for all that were asked. One that is slow is given up after a while where another of its
    /// replica group has answered: that one has the same.
    fn gather<T>(
        &self,
        asked: Vec<Asked<'_>>,
        understand: &impl Fn(Reply, &Question, &str) -> Result<T, AskError>,
    ) -> Result<Gathering<T>, SourceError> {
        let mut gathering = Gathering { answers: Vec::new(), failed: Vec::new(), needs: 0 };
        let patience = Instant::now() + self.ingesters.hedge_delay();
        let mut slow = Vec::new();
        for mut one in asked {
            let until = (!one.member.replica_group.is_empty()).then_some(patience);
            match one.reply.wait_until(until) {
                Some(reply) => self.take(&mut gathering, &one, reply, understand)?,
                None => slow.push(one),
            }
        }
        for mut one in slow {
            if is_covered(one.member, &gathering.answers) {
                tracing::debug!(member = one.member.name, "slow, and an equal one has answered");
                continue;
            }
            if let Some(reply) = one.reply.wait_until(None) {
                self.take(&mut gathering, &one, reply, understand)?;
            }
        }
        Ok(gathering)
    }

    fn take<T>(
        &self,
        gathering: &mut Gathering<T>,
        asked: &Asked<'_>,
        reply: Result<Reply, AskError>,
        understand: &impl Fn(Reply, &Question, &str) -> Result<T, AskError>,
    ) -> Result<(), SourceError> {
        let member = asked.member;
        let from = shown(&self.ingesters, member);
        match reply.and_then(|reply| understand(reply, &asked.question, &from)) {
            Ok(answer) => gathering.answers.push((member.clone(), answer)),
            Err(AskError::Query(e)) => return Err(e),
            Err(AskError::Committed { snapshot }) => gathering.needs = gathering.needs.max(snapshot),
            Err(e) => gathering.failed.push((member.clone(), e)),
        }
        Ok(())
    }

    /// A roster that is too old may lack a member that came since.
    fn check_age(&self, pinned: &mut Pinned) -> Result<(), SourceError> {
        if self.ingesters.known().is_stale().is_none() {
            return Ok(());
        }
        self.ingesters.look_again(&pinned.known)?;
        let Some(sentence) = too_old(&self.ingesters) else {
            *pinned = pin(&self.ingesters, &self.tenant);
            *self.pinned.lock() = pinned.clone();
            return Ok(());
        };
        match &self.missing {
            None => Err(SourceError::storage(sentence)),
            Some(missing) => {
                missing.note(sentence);
                Ok(())
            }
        }
    }

    /// Goes on with a snapshot that is at least as new as its number.
    fn go_on(&self, from: &Pinned, number: u64) -> Result<(), SourceError> {
        let snapshot = self.ingesters.newer(&self.tenant, number)?.ok_or_else(|| {
            SourceError::storage(format!(
                "a member has committed snapshot {number} of tenant {}, and the bucket does not show it: do all use the same bucket?",
                self.tenant
            ))
        })?;
        *self.pinned.lock() = Pinned { known: from.known.clone(), snapshot };
        Ok(())
    }

    fn look_up<T: Ord>(
        &self,
        query: &LabelQuery,
        what: What,
        of_bucket: impl Fn(&dyn Source) -> Result<Vec<T>, SourceError>,
        understand: impl Fn(Reply, &Question) -> Result<Vec<T>, AskError>,
    ) -> Result<Vec<T>, SourceError> {
        let range_ms = (query.min_t_ms, query.max_t_ms);
        let asking = |_: &Pinned| Asking::new(what.clone(), &query.selectors, range_ms, &query.budget);
        let answers = self.ask(asking, |reply, question, _| understand(reply, question))?;
        let mut all = match self.ingesters.reader().source(&self.tenant, &answers.pinned.snapshot) {
            Some(bucket) => of_bucket(&bucket)?,
            None => Vec::new(),
        };
        answers.of_members.into_iter().for_each(|(_, found)| all.extend(found));
        // Ascending runs: the stable sort merges them.
        all.sort();
        all.dedup();
        Ok(all)
    }

    /// Exemplars of series that match any of the selectors, from `range_ms.0` to `range_ms.1`, both included.
    pub fn exemplars(
        &self,
        selectors: &[Vec<Matcher>],
        range_ms: (i64, i64),
        budget: &Arc<Budget>,
    ) -> Result<Vec<SeriesExemplars>, SourceError> {
        let asking = |_: &Pinned| Asking::new(What::Exemplars, selectors, range_ms, budget);
        let answers = self.ask(asking, |reply, question, _| ask::exemplars(reply, question, budget))?;
        let mut all = Gathered::default();
        self.ingesters.reader().exemplars(&self.tenant, selectors, range_ms, budget, &mut all)?;
        for (_, found) in answers.of_members {
            found.into_iter().for_each(|s| all.add(&s.labels, s.exemplars));
        }
        Ok(all.finish())
    }

    /// What is known of metrics, by name; `metric` narrows it to one.
    pub fn metadata(
        &self,
        metric: Option<&str>,
        budget: &Arc<Budget>,
    ) -> Result<BTreeMap<String, Vec<Metadata>>, SourceError> {
        let what = What::Metadata(metric.map(str::to_owned));
        let asking = |_: &Pinned| Asking::new(what.clone(), &[], (i64::MIN, i64::MAX), budget);
        let answers = self.ask(asking, |reply, question, _| ask::metadata(reply, question, budget))?;
        let mut known: BTreeMap<String, BTreeSet<Metadata>> = BTreeMap::new();
        let mut add = |name: String, all: Vec<Metadata>| known.entry(name).or_default().extend(all);
        let stored = self.ingesters.reader().metadata(&self.tenant)?;
        let wanted = stored.into_iter().filter(|(name, _)| metric.is_none_or(|metric| name == metric));
        wanted.for_each(|(name, all)| add(name, all.into_keys().collect()));
        for (_, found) in answers.of_members {
            found.into_iter().for_each(|(name, all)| add(name, all));
        }
        Ok(known.into_iter().map(|(name, all)| (name, all.into_iter().collect())).collect())
    }
}

/// Failures of members whose samples nobody else has: those of a replica group are covered by any other of
/// it.
pub(crate) fn uncovered<T>(
    failed: Vec<(Member, AskError)>,
    answers: &[(Member, T)],
) -> Vec<(Member, AskError)> {
    failed.into_iter().filter(|(member, _)| !is_covered(member, answers)).collect()
}

/// Whether another of a member's replica group has answered.
fn is_covered<T>(member: &Member, answers: &[(Member, T)]) -> bool {
    let group = &member.replica_group;
    !group.is_empty() && answers.iter().any(|(answered, _)| answered.replica_group == *group)
}

/// Why an answer may lack a member, where the roster was read too long ago.
pub(crate) fn too_old(ingesters: &Ingesters) -> Option<String> {
    let age = ingesters.known().is_stale()?;
    let why = ingesters.failure().unwrap_or_else(|| "the bucket does not answer".to_owned());
    Some(format!(
        "who takes part could not be read for {age:.0?}, so a member that is new may be missing: {why}"
    ))
}

/// A member as errors and warnings name it.
pub(crate) fn shown(ingesters: &Ingesters, member: &Member) -> String {
    let seen_ms = ingesters.clock().now_ms().saturating_sub(member.beat_ms).max(0);
    format!("ingester {} at {} (last seen {} s ago)", member.name, ingesters.address(member), seen_ms / 1000)
}

impl Source for FreshSource {
    fn select(&self, selection: &Selection) -> Result<Box<dyn SeriesCursor + '_>, SourceError> {
        selection.budget.check()?;
        let selectors = [selection.matchers.clone()];
        let range_ms = (selection.min_t_ms, selection.max_t_ms);
        let asking = |pinned: &Pinned| {
            let bucket = self.ingesters.reader().source(&self.tenant, &pinned.snapshot);
            let windows = bucket.and_then(|b| b.windows_span_ms(range_ms.0, range_ms.1));
            let unsettled_in_ms = windows.map(|(first, last)| (first.max(range_ms.0), last.min(range_ms.1)));
            Asking::new(What::Samples { unsettled_in_ms }, &selectors, range_ms, &selection.budget)
        };
        let answers =
            self.ask(asking, |reply, question, from| ask::samples(reply, question, from, &selection.budget))?;
        let snapshot = &answers.pinned.snapshot;
        if answers.of_members.iter().any(|(_, begun)| begun.snapshot > snapshot.number) {
            self.ingesters.refresh_soon(&self.tenant);
        }
        let mut unsettled_ms: Vec<(i64, i64)> =
            answers.of_members.iter().flat_map(|(_, begun)| begun.unsettled_ms.iter().copied()).collect();
        unsettled_ms.sort_unstable();
        let mut fresh: Vec<(Origin, Box<dyn SeriesCursor>)> = Vec::new();
        for (name, SamplesAnswer { cursor, .. }) in answers.of_members {
            let cursor = match &self.missing {
                None => cursor,
                Some(missing) => Box::new(Tolerant { cursor, missing: missing.clone(), is_over: false }),
            };
            fresh.push((Origin::writer(&name), cursor));
        }
        match self.ingesters.reader().source(&self.tenant, snapshot) {
            Some(bucket) => bucket.select_beside(selection, &unsettled_ms, fresh),
            None => Ok(Box::new(MergeCursor::of_origins(fresh).charged(&selection.budget))),
        }
    }

    fn series(&self, query: &LabelQuery) -> Result<Vec<Labels>, SourceError> {
        let of_bucket = |bucket: &dyn Source| bucket.series(query);
        self.look_up(query, What::Series, of_bucket, |reply, q| ask::series(reply, q, &query.budget))
    }

    fn label_names(&self, query: &LabelQuery) -> Result<Vec<String>, SourceError> {
        let of_bucket = |bucket: &dyn Source| bucket.label_names(query);
        self.look_up(query, What::LabelNames, of_bucket, |reply, q| ask::texts(reply, q, &query.budget))
    }

    fn label_values(&self, name: &str, query: &LabelQuery) -> Result<Vec<String>, SourceError> {
        let of_bucket = |bucket: &dyn Source| bucket.label_values(name, query);
        let what = What::LabelValues(name.to_owned());
        self.look_up(query, what, of_bucket, |reply, q| ask::texts(reply, q, &query.budget))
    }
}

/// Ends where a member breaks off, and says so, for who wants a part rather than an error.
struct Tolerant {
    cursor: Box<dyn SeriesCursor>,
    missing: Arc<Missing>,
    is_over: bool,
}

impl SeriesCursor for Tolerant {
    fn next_batch(&mut self) -> Result<Option<Vec<SeriesColumns>>, SourceError> {
        if self.is_over {
            return Ok(None);
        }
        match self.cursor.next_batch() {
            Err(SourceError::Storage(why)) => {
                self.missing.note(why.to_string());
                self.is_over = true;
                Ok(None)
            }
            next => next,
        }
    }

    fn labels_to_come(&self) -> Option<Vec<Labels>> {
        if self.is_over { Some(Vec::new()) } else { self.cursor.labels_to_come() }
    }
}
