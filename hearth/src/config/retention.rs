//! How long samples are kept, as people write it: rules by selector and times of single tenants.

use std::collections::BTreeMap;
use std::fmt;

use compactor::settings::{TenantRetention, TenantRule};
use model::tenant::TenantId;
use query::parse::{ParseOptions, parse_metric_selector};
use tsdb::deletion::{RetentionRule, selector_text};

use super::value::{Span, Value};

/// Milliseconds to keep; 0 is written for ever.
fn keep_of(text: &str) -> Result<Option<i64>, String> {
    Span::parse(text).map(|s| (s.ms() > 0).then_some(s.ms())).map_err(|why| format!("{text:?} {why}"))
}

fn shown(keep_ms: Option<i64>) -> String {
    let ms = u64::try_from(keep_ms.unwrap_or(0)).unwrap_or(0);
    Span(std::time::Duration::from_millis(ms)).to_string()
}

/// Cuts a list at its commas, but not within braces or quotes.
fn items(text: &str) -> Vec<&str> {
    let (mut out, mut from, mut depth, mut quoted, mut escaped) = (Vec::new(), 0, 0usize, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '{' if !quoted => depth += 1,
            '}' if !quoted => depth = depth.saturating_sub(1),
            ',' if !quoted && depth == 0 => {
                out.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    out.push(&text[from..]);
    out.into_iter().map(str::trim).filter(|s| !s.is_empty()).collect()
}

/// Rules by selector: `{job="debug"}=3d`, or for one tenant `team-a{job="debug"}=3d`.
#[derive(Clone, Debug, Default)]
pub struct RetentionSelectors(pub Vec<TenantRule>);

impl Value for RetentionSelectors {
    const NAME: &'static str = "SELECTOR=DURATION,…";
    const LIST: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        const HOW: &str =
            "write {job=\"debug\"}=3d, or team-a{job=\"debug\"}=3d for one tenant; 0 keeps for ever";
        let one = |item: &str| -> Result<TenantRule, String> {
            let wrong = |why: String| format!("has {item:?}, {why}: {HOW}");
            let from = item.find('{').ok_or_else(|| wrong("which has no selector".into()))?;
            let to = item
                .rfind('}')
                .filter(|to| *to > from)
                .ok_or_else(|| wrong("whose selector has no end".into()))?;
            let keep = item[to + 1..].trim_start().strip_prefix('=');
            let keep = keep.ok_or_else(|| wrong("which does not say how long".into()))?;
            let keep_ms = keep_of(keep.trim()).map_err(wrong)?;
            let tenant = item[..from].trim();
            let tenant = (!tenant.is_empty()).then(|| TenantId::new(tenant)).transpose();
            let tenant = tenant.map_err(|e| wrong(format!("whose {e}")))?;
            let matchers = parse_metric_selector(&item[from..=to], &ParseOptions::default())
                .map_err(|e| wrong(format!("whose selector cannot be read ({e})")))?;
            Ok(TenantRule { tenant, rule: RetentionRule { matchers, keep_ms } })
        };
        items(text).into_iter().map(one).collect::<Result<_, _>>().map(RetentionSelectors)
    }
}

impl fmt::Display for RetentionSelectors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = |r: &TenantRule| {
            let tenant = r.tenant.as_ref().map_or("", TenantId::as_str);
            format!("{tenant}{}={}", selector_text(&r.rule.matchers), shown(r.rule.keep_ms))
        };
        f.write_str(&self.0.iter().map(one).collect::<Vec<_>>().join(","))
    }
}

/// Times of single tenants: `team-a=30d` for raw samples, `team-a=30d/1y/5y` for windows of 5 minutes and an
/// hour too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantRetentions(pub BTreeMap<TenantId, TenantRetention>);

/// The windows that the second and the third time are of.
const RESOLUTIONS_MS: [i64; 2] = [300_000, 3_600_000];

impl Value for TenantRetentions {
    const NAME: &'static str = "TENANT=DURATION,…";
    const LIST: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        const HOW: &str =
            "write team-a=30d, or team-a=30d/1y/5y for raw samples, 5 m and 1 h; 0 keeps for ever";
        let mut all = BTreeMap::new();
        for item in items(text) {
            let wrong = |why: String| format!("has {item:?}, {why}: {HOW}");
            let (tenant, times) =
                item.split_once('=').ok_or_else(|| wrong("which does not say how long".into()))?;
            let tenant = TenantId::new(tenant.trim()).map_err(|e| wrong(format!("whose {e}")))?;
            let times: Vec<Option<i64>> =
                times.split('/').map(|t| keep_of(t.trim())).collect::<Result<_, _>>().map_err(wrong)?;
            if times.len() > 1 + RESOLUTIONS_MS.len() {
                return Err(wrong("which has more than three times".into()));
            }
            let resolutions_ms = RESOLUTIONS_MS.into_iter().zip(times.iter().skip(1).copied()).collect();
            all.insert(tenant, TenantRetention { raw_ms: times.first().copied(), resolutions_ms });
        }
        Ok(TenantRetentions(all))
    }
}

impl fmt::Display for TenantRetentions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = |(tenant, keep): (&TenantId, &TenantRetention)| {
            let mut times = vec![shown(keep.raw_ms.flatten())];
            times.extend(keep.resolutions_ms.values().map(|k| shown(*k)));
            format!("{tenant}={}", times.join("/"))
        };
        f.write_str(&self.0.iter().map(one).collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_read_as_they_are_shown() {
        let text = r#"{job="debug",le!="a,b"}=3d,team-a{__name__=~"x.*"}=0"#;
        let rules = RetentionSelectors::parse(text).unwrap();
        assert_eq!(rules.0.len(), 2);
        assert_eq!(rules.0[0].rule.keep_ms, Some(3 * 86_400_000));
        assert_eq!((rules.0[1].tenant.as_ref().unwrap().as_str(), rules.0[1].rule.keep_ms), ("team-a", None));
        let again = RetentionSelectors::parse(&rules.to_string()).unwrap();
        assert_eq!(again.0, rules.0, "{rules}");
        for (bad, why) in [
            ("debug=3d", "no selector"),
            (r#"{job="x"}"#, "how long"),
            (r#"{job=}=3d"#, "cannot be read"),
            (r#"{job="x"}=soon"#, "not a duration"),
            (r#"a/b{job="x"}=1d"#, "not a valid name"),
        ] {
            let found = RetentionSelectors::parse(bad).unwrap_err();
            assert!(found.contains(why), "{bad}: {found}");
        }
    }

    #[test]
    fn times_of_tenants_read_as_they_are_shown() {
        let all = TenantRetentions::parse("team-a=30d/365d/0, b=7d").unwrap();
        assert_eq!(all.to_string(), "b=7d,team-a=30d/365d/0");
        assert_eq!(TenantRetentions::parse(&all.to_string()).unwrap(), all);
        let a = &all.0[&TenantId::new("team-a").unwrap()];
        assert_eq!((a.raw_ms, a.resolutions_ms[&3_600_000]), (Some(Some(30 * 86_400_000)), None));
        assert!(TenantRetentions::parse("a=1d/2d/3d/4d").unwrap_err().contains("more than three"));
    }
}
