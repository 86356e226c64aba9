/** What the series are made of: by metric, label and pair, in series and in bytes, and what grew since a day before. */
import { useEffect, useState } from 'preact/hooks';
import { useInAddress } from '../address';
import { useAsk } from '../ask';
import { serves, type QueryData } from '../api';
import { bytes, count, grouped, short, toNumber } from '../format';
import { go, place } from '../route';
import { Got, Meter, Page, QuickGraph, Words } from '../Shell';
import { useCell, zone } from '../store';
import { ago, date } from '../time';
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
    <table><tbody>{rows.map(r => <tr key={r.name}><td><Meter share={r.value / top}>{link ? <a class="mono" href={link(r.name)}><Words t={r.name || '(none)'} /></a> : <span class="mono"><Words t={r.name} /></span>}</Meter></td><td class="v">{show(r.value)}</td>{total ? <td class="v soft">{(100 * r.value / total).toFixed(1)} %</td> : null}</tr>)}</tbody></table>
    {!rows.length && <p class="soft">Nothing yet.</p>}</section>;
}
const pairOf = (pair: string) => { const i = pair.indexOf('='); return `{${pair.slice(0, i)}=${JSON.stringify(pair.slice(i + 1))}}`; };

const SHOWN = ['10', '15', '50', '200', '1000'];
export default function Cardinality() {
  const [most, setMost] = useInAddress('show', '15', SHOWN), limit = Number(most), at = useCell(place), stored = serves('cardinality') && new URLSearchParams(at.search).get('of') === 'history';
  const tab = (history: boolean, text: string) => <button type="button" class={stored === history ? 'on' : ''} aria-pressed={stored === history} onClick={() => go('cardinality' + (history ? '?of=history' : ''))}>{text}</button>;
  return <Page title="Cardinality">
    <div class="filters">{serves('cardinality') && <div class="tabs small" role="group" aria-label="Of what">{tab(false, 'Active now')}{tab(true, 'All of history')}</div>}
      <label class="check">show <select class="small" value={most} onChange={e => setMost(e.currentTarget.value)}>{SHOWN.map(n => <option key={n}>{n}</option>)}</select> of each</label><span class="soft">{stored ? 'of every block that is stored' : 'of the series that are active now'}</span></div>
    {stored ? <Stored limit={limit} /> : <Active limit={limit} />}
  </Page>;
}

function Active({ limit }: { limit: number }) {
  const asked = useAsk<Status>('status/tsdb', { limit });
  return <Got asked={asked}>{s => {
      const h = s.headStats, memory = Object.entries(s.headMemoryInBytes ?? {}), all = memory.reduce((n, [, v]) => n + v, 0);
      return <>
        <div class="tiles">
          <div class="card tile"><b>{grouped(h.numSeries)}</b><span>active series</span></div>
          <div class="card tile"><b>{grouped(h.numLabelPairs)}</b><span>label pairs</span></div>
          {all > 0 && <div class="card tile"><b>{bytes(all)}</b><span>memory of the head</span></div>}
          {all > 0 && h.numSeries > 0 && <div class="card tile"><b>{bytes(all / h.numSeries)}</b><span>a series</span></div>}
          {h.numSeries > 0 && h.minTime > 0 && <div class="card tile"><b>{ago(h.minTime)}</b><span>oldest sample of the head</span></div>}
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
    }}</Got>;
}

interface StoredCount {
  counting: { blocks: number; ofBlocks: number } | null; error: string | null;
  counted: { at: number; blocks: number; ofBlocks: number; series: number; samples: number; bytes: number; metrics: { name: string; series: number; samples: number; bytes: number }[]; labels: { name: string; values: number; series: number; bytes: number }[] } | null;
}

/** What everything that is stored costs, as the server counts it beside its work: the lists come when it has read all labels. */
function Stored({ limit }: { limit: number }) {
  const [by, setBy] = useInAddress('by', 'bytes', ['bytes', 'series']), asked = useAsk<StoredCount>('storage/cardinality', { limit, by });
  const counting = asked.data?.counting ?? null;
  useEffect(() => { if (!counting || asked.loading) return; const t = setTimeout(asked.again, 1000); return () => clearTimeout(t); }, [asked.data, asked.loading]);
  return <Got asked={asked}>{d => {
    const c = d.counted;
    return <>
      {d.error && <div class="note warn"><b>The last count came to nothing</b><p class="cut">{d.error.slice(0, 2000)}</p></div>}
      {counting && <p class="soft num" role="status">{c ? 'Being counted anew' : 'Being counted'}: the labels of {counting.blocks} of {count(counting.ofBlocks, 'block')} are read. <progress max={Math.max(1, counting.ofBlocks)} value={counting.blocks} aria-label="Blocks read" /></p>}
      {(!c && !counting && !d.error || c?.blocks === 0) && <div class="card empty"><strong>No blocks yet</strong><p class="soft">Samples become blocks every two hours. Until then <a href="cardinality">what is active now</a> is all there is.</p></div>}
      {c && c.blocks > 0 && <>
        <div class="tiles">
          <div class="card tile"><b>{grouped(c.series)}</b><span>series that ever were</span></div>
          <div class="card tile"><b>{bytes(c.bytes)}</b><span>in {count(c.blocks, 'block')}{c.blocks < c.ofBlocks ? ` of ${c.ofBlocks}: counting ended early` : ''}</span></div>
          <div class="card tile"><b>{short(c.samples)}</b><span>samples and rollup windows</span></div>
          {c.samples > 0 && <div class="card tile"><b>{(c.bytes / c.samples).toFixed(2)} B</b><span>each of them</span></div>}
          <div class="card tile"><b>{ago(c.at)}</b><span>counted</span></div>
        </div>
        <History />
        <div class="filters"><label class="check">order <select class="small" value={by} onChange={e => setBy(e.currentTarget.value)}><option value="bytes">bytes</option><option value="series">series, values</option></select></label></div>
        <div class="halves">
          <section class="card block"><h2>Metrics</h2><p class="soft">What each has cost, rollups included.</p><table><thead><tr><th>Metric</th><th class="v">Series</th><th class="v wide">Samples</th><th class="v">Bytes</th><th class="v wide">Share</th></tr></thead><tbody>{c.metrics.map(m => <tr key={m.name}><td><Meter share={(by === 'bytes' ? m.bytes : m.series) / ((by === 'bytes' ? c.metrics[0].bytes : c.metrics[0].series) || 1)}><a class="mono cut" href={'explore?metric=' + encodeURIComponent(m.name)}><Words t={m.name || '(none)'} /></a></Meter></td><td class="v">{grouped(m.series)}</td><td class="v wide">{short(m.samples)}</td><td class="v">{bytes(m.bytes)}</td><td class="v soft wide">{(100 * m.bytes / (c.bytes || 1)).toFixed(1)} %</td></tr>)}</tbody></table></section>
          <section class="card block"><h2>Labels</h2><p class="soft">A series' bytes fall to its labels alike: this says which labels sit on what is dear.</p><table><thead><tr><th>Label</th><th class="v">Values</th><th class="v wide">Series</th><th class="v">Bytes</th></tr></thead><tbody>{c.labels.map(l => <tr key={l.name}><td><Meter share={(by === 'bytes' ? l.bytes : l.values) / ((by === 'bytes' ? c.labels[0].bytes : c.labels[0].values) || 1)}><span class="mono cut"><Words t={l.name} /></span></Meter></td><td class="v">{grouped(l.values)}</td><td class="v wide">{grouped(l.series)}</td><td class="v">{bytes(l.bytes)}</td></tr>)}</tbody></table></section>
        </div>
      </>}
    </>;
  }}</Got>;
}

interface StoredBlock { minTime: number; maxTime: number; resolutionMs: number; series: number; bytes: number }
/** Raw blocks over time, in even stretches: a block's bytes fall evenly on its time, the largest number of series counts. */
export function overTime(blocks: StoredBlock[], stretches: number): { from: number; width: number; rows: { bytes: number; series: number }[] } | null {
  const raw = blocks.filter(b => !b.resolutionMs);
  if (!raw.length) return null;
  const from = Math.min(...raw.map(b => b.minTime)), to = Math.max(...raw.map(b => b.maxTime)), width = Math.max(1, (to - from) / stretches), rows = Array.from({ length: stretches }, () => ({ bytes: 0, series: 0 }));
  for (const b of raw) {
    const long = Math.max(1, b.maxTime - b.minTime);
    for (let i = Math.floor((b.minTime - from) / width); i < stretches && from + i * width < b.maxTime + 1; i++) {
      const inside = Math.min(b.maxTime, from + (i + 1) * width) - Math.max(b.minTime, from + i * width);
      rows[i].bytes += b.bytes * Math.max(0, inside) / long;
      rows[i].series = Math.max(rows[i].series, b.series);
    }
  }
  return { from, width, rows };
}

function History() {
  const asked = useAsk<{ blocks: StoredBlock[] }>(serves('storage') ? 'storage' : null), inZone = useCell(zone), all = asked.data ? overTime(asked.data.blocks, 60) : null;
  if (!all) return null;
  const at = (i: number) => date((all.from + i * all.width) / 1000, inZone), day = 86_400_000 / all.width;
  const bars = (title: string, of: (r: { bytes: number; series: number }) => number, show: (n: number) => string) => {
    const most = Math.max(...all.rows.map(of), 1e-9);
    return <section class="card block"><h2>{title}</h2><svg class="bars" viewBox="0 0 600 110" role="img" aria-label={`${title}: at most ${show(most)}, lately ${show(of(all.rows[all.rows.length - 1]))}`} preserveAspectRatio="none">{all.rows.map((r, i) => { const h = of(r) / most * 108; return <rect key={i} x={i * 10} y={110 - h} width="9" height={h}><title>{`${at(i)}: ${show(of(r))}`}</title></rect>; })}</svg>
      <p class="key"><span>{at(0)}</span><span class="grow" /><span>at most {show(most)}</span><span class="grow" /><span>{at(60)}</span></p></section>;
  };
  return <div class="halves" style={{ marginBottom: '16px' }}>{bars('Raw bytes a day', r => r.bytes * day, bytes)}{bars('Series of a block', r => r.series, grouped)}</div>;
}


function Grew() {
  const [on, setOn] = useState(false), [by, setBy] = useInAddress('since', '1d', ['1h', '1d', '1w']);
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
