//! What compaction is about to do and does, kept for people to look at; nothing is decided by it.

use std::collections::BTreeMap;

use model::tenant::TenantId;

use crate::plan::Job;

/// A job that is planned or under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobOutlook {
    pub tenant: TenantId,
    pub why: &'static str,
    /// Ends of the span (the first excluded), in milliseconds.
    pub start_ms: i64,
    pub end_ms: i64,
    pub inputs: u64,
    pub input_bytes: u64,
    /// It failed, and is not tried again before this time, in milliseconds.
    pub waits_until_ms: Option<i64>,
}

impl JobOutlook {
    pub(crate) fn of(tenant: &TenantId, job: &Job, waits_until_ms: Option<i64>) -> JobOutlook {
        JobOutlook {
            tenant: tenant.clone(),
            why: job.kind.as_str(),
            start_ms: job.span.start_ms,
            end_ms: job.span.end_ms,
            inputs: job.inputs.len() as u64,
            input_bytes: job.inputs.iter().map(|block| block.files.bytes()).sum(),
            waits_until_ms,
        }
    }
}

/// What rounds left behind.
#[derive(Clone, Debug, Default)]
pub struct Outlook {
    /// As last planned, the most useful first. Tenants without jobs have none.
    pub planned: BTreeMap<TenantId, Vec<JobOutlook>>,
    /// The job under way, and since when, in milliseconds.
    pub working: Option<(JobOutlook, i64)>,
    /// When the last round over all tenants ended, in milliseconds, and what went wrong in it.
    pub last_round: Option<(i64, Vec<String>)>,
}

/// Planned jobs that are remembered of each tenant.
const REMEMBERED_JOBS: usize = 100;

impl Outlook {
    /// A tenant was planned anew.
    pub(crate) fn plan(&mut self, tenant: &TenantId, jobs: impl Iterator<Item = JobOutlook>) {
        let jobs: Vec<_> = jobs.take(REMEMBERED_JOBS).collect();
        match jobs.is_empty() {
            true => self.planned.remove(tenant),
            false => self.planned.insert(tenant.clone(), jobs),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outlook_forgets_a_tenant_that_has_nothing_to_do() {
        let tenant = TenantId::single();
        let job = JobOutlook {
            tenant: tenant.clone(),
            why: "merge",
            start_ms: 0,
            end_ms: 1,
            inputs: 2,
            input_bytes: 10,
            waits_until_ms: None,
        };
        let mut outlook = Outlook::default();
        outlook.plan(&tenant, std::iter::repeat_n(job, 2 * REMEMBERED_JOBS));
        assert_eq!(outlook.planned[&tenant].len(), REMEMBERED_JOBS);
        outlook.plan(&tenant, std::iter::empty());
        assert!(outlook.planned.is_empty());
    }
}
