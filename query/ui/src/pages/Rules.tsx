/** Groups of recording and alerting rules: what they ask, when they last ran, and whether that went well. */
import { useInAddress } from '../address';
import { useAsk } from '../ask';
import { count, grouped } from '../format';
import { never, type Group, type Rule, type Rules } from '../rules';
import { Got, Page } from '../Shell';
import { ago, formatDuration, spoken } from '../time';
import { queryLink } from '../url';

export function LabelList({ all, without = [] }: { all?: Record<string, string>; without?: string[] }) {
  const rows = Object.entries(all ?? {}).filter(([n]) => !without.includes(n));
  return rows.length ? <span class="labels">{rows.map(([n, v]) => <span key={n} title={v.length > 120 ? v.slice(0, 2000) : undefined}>{n}="{v.length > 120 ? v.slice(0, 120) + '…' : v}"</span>)}</span> : null;
}
const Text = ({ t }: { t: string }) => <>{t.length > 2000 ? t.slice(0, 2000) + '…' : t}</>;

function OneRule({ r }: { r: Rule }) {
  return <div class="rule">
    <p><b class="cut">{r.name}</b> <span class="soft">{r.type === 'alerting' ? 'alert' : 'records'}</span> {r.health === 'err' ? <span class="badge bad">failed</span> : r.health === 'unknown' ? <span class="badge">not run yet</span> : null} {r.state && r.state !== 'inactive' && r.state !== 'unknown' ? <span class={'badge ' + r.state}>{r.state}</span> : null}</p>
    <p><a class="mono cut" href={queryLink(r.query)}><Text t={r.query} /></a></p>
    <p class="soft">{[r.duration ? `for ${formatDuration(r.duration)}` : '', r.keepFiringFor ? `keeps firing for ${formatDuration(r.keepFiringFor)}` : '', never(r.lastEvaluation) ? '' : `${ago(Date.parse(r.lastEvaluation))}, took ${spoken(r.evaluationTime)}`].filter(Boolean).join(' · ')}</p>
    <LabelList all={r.labels} />
    {r.lastError && <p class="note bad"><Text t={r.lastError} /></p>}
  </div>;
}

export default function RulesPage() {
  const [search, setSearch] = useInAddress('search'), [health, setHealth] = useInAddress('health'), asked = useAsk<Rules>('rules', {}, 15_000);
  const fits = (r: Rule) => (!health || r.health === health) && (r.name + ' ' + r.query).toLowerCase().includes(search.toLowerCase());
  return <Page title="Rules">
    <Got asked={asked}>{({ groups }) => {
      const shown = groups.map(g => ({ ...g, rules: g.rules.filter(fits) })).filter(g => g.rules.length || !search && !health);
      if (!groups.length) return <div class="card empty"><strong>No rules</strong><p class="soft">This server evaluates none. Recording and alerting rules are read from rule files that its configuration names.</p></div>;
      const failed = groups.reduce((n, g) => n + g.rules.filter(r => r.health === 'err').length, 0);
      return <>
        <div class="filters"><input type="search" placeholder="Filter by name or query" aria-label="Filter rules" value={search} onInput={e => setSearch(e.currentTarget.value)} />
          <label class="check">health <select class="small" value={health} onChange={e => setHealth(e.currentTarget.value)}><option value="">any</option><option value="ok">ok</option><option value="err">failed</option><option value="unknown">not run yet</option></select></label>
          <span class="soft">{count(groups.length, 'group')}, {count(groups.reduce((n, g) => n + g.rules.length, 0), 'rule')}{failed ? `, ${failed} failed` : ''}</span></div>
        {shown.map(g => <OneGroup key={g.file + '\n' + g.name} g={g} />)}
        {!shown.length && <p class="soft">No rule like that.</p>}
      </>;
    }}</Got>
  </Page>;
}

/** What the last evaluation of a group cost, and whether it keeps up. */
function Cost({ g }: { g: Group }) {
  if (never(g.lastEvaluation) || g.samplesRead === undefined) return null;
  const lag = g.lag ?? 0, missed = g.slotsMissed ?? 0, filled = g.slotsFilled ?? 0;
  const facts = [`read ${count(g.samplesRead, 'sample')}`, `wrote ${count(g.seriesWritten ?? 0, 'series', 'series')}`, lag < 0.1 ? 'began in time' : `began ${spoken(lag)} late`];
  if (missed) facts.push(`${grouped(missed)} missed${filled ? `, ${grouped(filled)} filled later` : ''}`);
  return <div class="rule soft num cut">Last evaluation: {facts.join(' · ')}</div>;
}

function OneGroup({ g }: { g: Group }) {
  const bad = g.rules.filter(r => r.health === 'err').length, late = g.evaluationTime > g.interval;
  return <details class="card group" open>
    <summary><b>{g.name}</b> <span class="soft cut">{g.file}</span><span class="grow" />{bad > 0 && <span class="badge bad">{bad} failed</span>}{late && <span class="badge warn">slower than its interval</span>}
      <span class="soft num">every {formatDuration(g.interval)}{never(g.lastEvaluation) ? '' : `, ${ago(Date.parse(g.lastEvaluation))}, took ${spoken(g.evaluationTime)}`}</span></summary>
    <Cost g={g} />
    {g.rules.map((r, i) => <OneRule key={i} r={r} />)}
  </details>;
}
