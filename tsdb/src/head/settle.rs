//! Regular expressions that take long are matched before the index is asked: nobody who writes waits for
//! them.

use std::borrow::Cow;

use super::{Head, TenantHead};
use model::matcher::Matcher;
use model::source::at_once::may_wait;
use model::source::{Budget, SourceError};

/// Values that are matched between two looks at the clock.
const LOOKED_AT: usize = 64;

impl Head {
    /// The matchers with slow expressions replaced by the values that they match. Series that come meanwhile
    /// may be missed: they are newer than the question.
    pub fn settled<'m>(
        &self,
        tenant: &TenantHead,
        matchers: &'m [Matcher],
        budget: &Budget,
    ) -> Result<Cow<'m, [Matcher]>, SourceError> {
        let mut settled = Cow::Borrowed(matchers);
        for (i, m) in matchers.iter().enumerate() {
            let Some(texts) = self.texts_for(tenant, m)? else { continue };
            let bytes = texts.iter().map(|text| (text.len() + size_of::<String>()) as u64).sum::<u64>();
            budget.reserve(bytes)?;
            let found = matching(m, texts, budget);
            budget.release(bytes);
            settled.to_mut()[i] = m.with_values(found?);
        }
        Ok(settled)
    }

    /// The values of a matcher's label that its expression may match, if it takes long to look at so many.
    fn texts_for(&self, tenant: &TenantHead, m: &Matcher) -> Result<Option<Vec<String>>, SourceError> {
        let Some(re) = m.regex() else { return Ok(None) };
        let sets = match self.labels.try_read() {
            Some(sets) => sets,
            None => {
                may_wait()?;
                self.labels.read()
            }
        };
        let symbols = sets.symbols();
        let postings = tenant.postings.read();
        let values = symbols.find(&m.name).and_then(|name| postings.values(name));
        let Some(values) = values else { return Ok(None) };
        // A thread that has other things to do leaves much less than that to another.
        if re.is_slow_for(values.len().saturating_mul(64)) {
            may_wait()?;
        }
        if !re.is_slow_for(values.len()) {
            return Ok(None);
        }
        let prefixes = re.prefixes();
        let may = |text: &&str| prefixes.is_empty() || prefixes.iter().any(|p| text.starts_with(p.as_str()));
        Ok(Some(values.keys().map(|value| symbols.text(*value)).filter(may).map(String::from).collect()))
    }
}

/// Those of the texts, and the empty one, that a matcher's expression matches.
fn matching(m: &Matcher, texts: Vec<String>, budget: &Budget) -> Result<Vec<String>, SourceError> {
    let Some(re) = m.regex() else { return Ok(texts) };
    let mut found = Vec::new();
    if re.is_match("") {
        found.push(String::new());
    }
    for (i, text) in texts.into_iter().enumerate() {
        if i % LOOKED_AT == 0 {
            budget.check()?;
        }
        if re.is_match(&text) {
            found.push(text);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use model::matcher::MatchOp;
    use model::tenant::TenantId;

    fn head_of(values: usize) -> (Head, std::sync::Arc<TenantHead>) {
        let head = Head::with_metadata_bytes(1 << 20);
        let tenant = head.tenant(&TenantId::single());
        for i in 0..values {
            head.series(&tenant, &[("__name__", "m"), ("pod", &format!("pod-{i}-abc"))]);
        }
        (head, tenant)
    }

    #[test]
    fn slow_expression_selects_what_it_selects_in_the_index() {
        let (head, tenant) = head_of(300);
        let slow = (0..2000).map(|i| format!(".*pod-[{i}]+[{}]?-a.*", i % 7)).collect::<Vec<_>>().join("|");
        for op in [MatchOp::Regex, MatchOp::NotRegex] {
            for expr in [slow.clone(), format!("{slow}|"), ".*-2.*".to_string()] {
                let matchers = [Matcher::equal("__name__", "m"), Matcher::new(op, "pod", &expr).unwrap()];
                let settled = head.settled(&tenant, &matchers, &Budget::unlimited()).unwrap();
                assert_eq!(matches!(settled, Cow::Owned(_)), expr != ".*-2.*", "the slow ones are replaced");
                assert_eq!(settled[1].matches_empty(), matchers[1].matches_empty());
                let ids = |matchers: &[Matcher]| -> Vec<u32> {
                    let found = head.picked(&tenant, matchers).unwrap();
                    found.into_iter().map(|series| series.id).collect()
                };
                assert_eq!(ids(&settled), ids(&matchers));
                // All there are match, so that the contrary finds none.
                assert_eq!(ids(&matchers).is_empty(), op == MatchOp::NotRegex && expr != ".*-2.*");
            }
        }
    }

    #[test]
    fn slow_expression_ends_when_its_time_is_over() {
        let (head, tenant) = head_of(300);
        let slow = (0..2000).map(|i| format!(".*a[b-x]{i}.*")).collect::<Vec<_>>().join("|");
        let matchers = [Matcher::new(MatchOp::Regex, "pod", &slow).unwrap()];
        let over = Budget::new(u64::MAX, u64::MAX, Some(Instant::now() - Duration::from_secs(1)));
        assert!(matches!(head.settled(&tenant, &matchers, &over), Err(SourceError::TimedOut)));
    }
}
