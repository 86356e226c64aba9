/** What the series are made of: by metric, label and pair, in series and in bytes, and what grew since a day before. */
import { useState } from 'preact/hooks';
import { useAsk } from '../ask';
import type { QueryData } from '../api';
import { bytes, grouped, toNumber } from '../format';
import { Got, Meter, Page, QuickGraph } from '../Shell';
import { ago } from '../time';
import { queryLink } from '../url';

interface Count { name: string; value: number }
interface Status {
  headStats: { numSeries: number; numLabelPairs: number; chunkCount: number; minTime: number; maxTime: number };
  seriesCountByMetricName: Count[]; labelValueCountByLabelName: Count[]; memoryInBytesByLabelName: Count[]; seriesCountByLabelValuePair: Count[];
  headMemoryInBytes?: Record<string, number>;
}
const MEMORY: Record<string, string> = { labels: 'names and values', series: 'series', postings: 'index', chunks: 'samples', outOfOrder: 'late samples' };

function List({ title, rows, total, show = grouped, link, hint }: { title: string; rows: Count[]; total?: number; show?(n: number): string; link?(name: string): string; hint: string }) {
  const top = rows[0]?.value || 1;
  return <section class="card block"><h2>{title}</h2><p class="soft">{hint}</p>
    <table><tbody>{rows.map(r => <tr key={r.name}><td><Meter share={r.value / top}>{link ? <a class="mono" href={link(r.name)}>{r.name || '(none)'}</a> : <span class="mono">{r.name}</span>}</Meter></td><td class="v">{show(r.value)}</td>{total ? <td class="v soft">{(100 * r.value / total).toFixed(1)} %</td> : null}</tr>)}</tbody></table>
    {!rows.length && <p class="soft">Nothing yet.</p>}</section>;
}
const pairOf = (pair: string) => { const i = pair.indexOf('='); return `{${pair.slice(0, i)}=${JSON.stringify(pair.slice(i + 1))}}`; };

export default function Cardinality() {
  const [limit, setLimit] = useState(15), asked = useAsk<Status>('status/tsdb', { limit });
  return <Page title="Cardinality">
    <div class="filters"><label class="check">show <select class="small" value={String(limit)} onChange={e => setLimit(Number(e.currentTarget.value))}>{[10, 15, 50, 200, 1000].map(n => <option key={n}>{n}</option>)}</select> of each</label><span class="soft">of the series that are active now</span></div>
    <Got asked={asked}>{s => {
      const h = s.headStats, memory = Object.entries(s.headMemoryInBytes ?? {}), all = memory.reduce((n, [, v]) => n + v, 0);
      return <>
        <div class="tiles">
          <div class="card tile"><b>{grouped(h.numSeries)}</b><span>active series</span></div>
          <div class="card tile"><b>{grouped(h.numLabelPairs)}</b><span>label pairs</span></div>
          {all > 0 && <div class="card tile"><b>{bytes(all)}</b><span>memory of the head</span></div>}
          {all > 0 && h.numSeries > 0 && <div class="card tile"><b>{bytes(all / h.numSeries)}</b><span>a series</span></div>}
          {h.numSeries > 0 && <div class="card tile"><b>{ago(h.minTime)}</b><span>oldest sample of the head</span></div>}
        </div>
        <Grew />
        <div class="halves">
          <List title="Metrics" hint="Series of each name." rows={s.seriesCountByMetricName} total={h.numSeries} link={n => 'explore?metric=' + encodeURIComponent(n)} />
          <List title="Labels" hint="Different values of each label: many, and unbounded, is what makes series explode." rows={s.labelValueCountByLabelName} link={n => queryLink(`topk(20, count by (${n}) ({${n}!=""}))`, { tab: 'table', sort: '-value' })} />
          <List title="Label pairs" hint="Series that have this label with this value." rows={s.seriesCountByLabelValuePair} total={h.numSeries} link={n => queryLink(`topk(20, count by (__name__) (${pairOf(n)}))`, { tab: 'table', sort: '-value' })} />
          <List title="Bytes of labels" hint="What the values of each label take, all series together." rows={s.memoryInBytesByLabelName} show={bytes} />
          {memory.length > 0 && <List title="Memory of the head" hint="What it is made of." rows={memory.map(([name, value]) => ({ name: MEMORY[name] ?? name, value })).sort((a, b) => b.value - a.value)} total={all} show={bytes} />}
        </div>
        <h2 style={{ marginTop: '18px' }}>Over the last day</h2>
        <QuickGraph expr="sum(hearth_tsdb_head_series)" range={86_400} />
      </>;
    }}</Got>
  </Page>;
}

function Grew() {
  const [on, setOn] = useState(false), [by, setBy] = useState('1d');
  const query = `topk(15, count by (__name__) ({__name__!=""}) - count by (__name__) ({__name__!=""} offset ${by}) > 0)`;
  const fresh = `topk(15, count by (__name__) ({__name__!=""}) unless count by (__name__) ({__name__!=""} offset ${by}))`;
  const grown = useAsk<QueryData>(on ? 'query' : null, { query }), added = useAsk<QueryData>(on ? 'query' : null, { query: fresh });
  const rows = (d: QueryData) => d.resultType === 'vector' ? d.result.map(s => ({ name: s.metric.__name__ ?? '', value: toNumber(s.value?.[1] ?? '0') })).sort((a, b) => b.value - a.value) : [];
  return <section class="card block"><h2>What grew</h2>
    <p class="filters"><label class="check">since <select class="small" value={by} onChange={e => setBy(e.currentTarget.value)}>{['1h', '1d', '1w'].map(b => <option key={b} value={b}>{b} before</option>)}</select></label><button type="button" class="small" onClick={() => setOn(true)} disabled={on}>Count</button><span class="soft">looks at every series of both moments</span></p>
    {on && <div class="halves"><div><h3>Metrics with more series</h3><Got asked={grown}>{d => <table><tbody>{rows(d).map(r => <tr key={r.name}><td><a class="mono cut" href={'explore?metric=' + encodeURIComponent(r.name)}>{r.name}</a></td><td class="v">+{grouped(r.value)}</td></tr>)}{!rows(d).length && <tr><td class="soft">None grew.</td></tr>}</tbody></table>}</Got></div>
      <div><h3>Metrics that were not there</h3><Got asked={added}>{d => <table><tbody>{rows(d).map(r => <tr key={r.name}><td><a class="mono cut" href={'explore?metric=' + encodeURIComponent(r.name)}>{r.name}</a></td><td class="v">{grouped(r.value)}</td></tr>)}{!rows(d).length && <tr><td class="soft">All were there before.</td></tr>}</tbody></table>}</Got></div></div>}
  </section>;
}
