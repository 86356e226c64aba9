/** All metrics: found by name, type and help among a hundred thousand, each with a preview; and the page of one. */
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import { useInAddress } from '../address';
import { useAsk } from '../ask';
import { cached, soft, type Metadata, type QueryData } from '../api';
import { count, grouped, toNumber, short } from '../format';
import { go, place } from '../route';
import { Got, Meter, Page, QuickGraph } from '../Shell';
import { whenNear } from '../panel/Empty';
import { dark, useCell, zone } from '../store';
import { stamp } from '../time';
import { queryLink } from '../url';
import { guess, Marked, matching, MOST_NAMES, useMetrics, wordsOf } from '../metrics';
import { selectorOf } from '../selector';
import { useRows } from '../virtual';
import { metadataOf } from '../editor/source';

export default function Explore() {
  const at = useCell(place), metric = new URLSearchParams(at.search).get('metric');
  return metric ? <Metric key={metric} name={metric} /> : <Finder />;
}

interface Status { seriesCountByMetricName: { name: string; value: number }[]; headStats: { numSeries: number } }
const ROW = 58;

/** Within which time names were last seen, the shortest first; what is in none of them was seen longer ago. */
const SEEN: [number, string][] = [[3600, 'within the hour'], [86_400, 'within a day'], [604_800, 'within a week'], [2_592_000, 'within a month'], [31_536_000, 'within a year']];
/** For each name the first of these that it is in. Longer ones are asked for only while names are left that no shorter one has. */
function useLastSeen(names: string[] | null): Map<string, number> | null {
  const [seen, setSeen] = useState<Map<string, number> | null>(null);
  useEffect(() => {
    if (!names) return;
    let on = true;
    void (async () => {
      const found = new Map<string, number>(), end = Math.ceil(Date.now() / 60_000) * 60;
      for (const [i, [span]] of SEEN.entries()) {
        const these = await soft<string[]>('label/__name__/values', { start: end - span, end, limit: MOST_NAMES });
        if (!on || !these) return;
        for (const n of these) if (!found.has(n)) found.set(n, i);
        setSeen(new Map(found));
        if (found.size >= names.length) return;
      }
    })();
    return () => { on = false; };
  }, [names]);
  return seen;
}
const seenText = (seen: number) => SEEN[seen]?.[1] ?? 'longer ago';

function Finder() {
  const [search, setSearch] = useInAddress('search'), [type, setType] = useInAddress('type'), [order, setOrder] = useInAddress('order', 'name');
  const [help, setHelp] = useInAddress('help', '1'), inHelp = help !== '0', [preview, setPreview] = useInAddress('previews', '1'), previews = preview !== '0';
  const { names, rows } = useMetrics(), seen = useLastSeen(names.data), [head, setHead] = useState<Status | null>(null);
  useEffect(() => { void soft<Status>('status/tsdb', { limit: 10_000 }).then(setHead); }, []);
  const now = useMemo(() => {
    const all = head?.seriesCountByMetricName ?? [], by = new Map(all.map(s => [s.name, s.value]));
    // The server tells the largest: what is not among them has none in the head, unless the list was cut.
    const whole = head !== null && all.reduce((n, s) => n + s.value, 0) >= head.headStats.numSeries;
    return (name: string) => by.get(name) ?? (whole ? 0 : null);
  }, [head]);
  // -1 while it is not known.
  const seenOf = (name: string) => seen ? seen.get(name) ?? SEEN.length : -1;
  const words = useMemo(() => wordsOf(search), [search]);
  const matched = useMemo(() => matching(rows, words, type, inHelp), [rows, words, type, inHelp]);
  const found = useMemo(() => order === 'seen' ? [...matched].sort((a, b) => seenOf(b.name) - seenOf(a.name)) : order === 'series' ? [...matched].sort((a, b) => (now(b.name) ?? 0) - (now(a.name) ?? 0)) : matched,
    [matched, order, order === 'seen' ? seen : now]);
  const { root, from, to } = useRows(found.length, ROW, JSON.stringify([search, type, order, inHelp]));
  const types = useMemo(() => [...new Set(rows.map(r => r.type).filter(Boolean))].sort(), [rows]);
  return <Page title="Metrics">
    <div class="filters">
      <input type="search" placeholder="Words of name or help, in any order" aria-label="Search metrics" value={search} autofocus onInput={e => setSearch(e.currentTarget.value)} onKeyDown={e => { if (e.key === 'Enter' && found[0]) go('explore?metric=' + encodeURIComponent(found[0].name)); }} />
      <label class="check">type <select class="small" value={type} onChange={e => setType(e.currentTarget.value)}><option value="">any</option>{types.slice(0, 50).map(t => <option key={t} value={t}>{t.slice(0, 40)}</option>)}</select></label>
      <label class="check">order <select class="small" value={order} onChange={e => setOrder(e.currentTarget.value)}><option value="name">name</option><option value="series">series now</option><option value="seen">longest not seen</option></select></label>
      <label class="check"><input type="checkbox" checked={inHelp} onChange={e => setHelp(e.currentTarget.checked ? '1' : '0')} />in help texts too</label>
      <label class="check"><input type="checkbox" checked={previews} onChange={e => setPreview(e.currentTarget.checked ? '1' : '0')} />previews</label>
    </div>
    <Got asked={names}>{() => <>
      <p class="soft num" role="status">{found.length === rows.length ? count(rows.length, 'metric') : `${grouped(found.length)} of ${count(rows.length, 'metric')}`}</p>
      <div class="card finder" ref={root} tabIndex={0} role="region" aria-label="Metrics">
        <div class="inner" style={{ height: found.length * ROW + 'px' }}>{found.slice(from, to).map((r, i) => { const series = now(r.name), last = seenOf(r.name); return <a class="metric-row" key={r.name} href={'explore?metric=' + encodeURIComponent(r.name)} style={{ top: (from + i) * ROW + 'px' }}>
            <span><span class="mono"><Marked text={r.name.slice(0, 300)} words={words} /></span><small>{r.help.slice(0, 300)}</small></span>
            <span class="soft cut-off">{r.type.slice(0, 40)}</span>
            <span class="soft num">{series ? count(series, 'series', 'series') : series === 0 || last > 0 ? last < 0 ? 'not now' : 'seen ' + seenText(last) : ''}</span>
            <span class="preview">{previews && series !== 0 && (series ?? 0) <= 5000 && <Preview name={r.name} type={r.type} />}</span>
          </a>; })}</div>
        {!found.length && <div class="empty"><strong>No metric like that</strong><p class="soft">{rows.length ? 'Fewer words, or another type, find more.' : 'This server holds none yet.'} {!rows.length && <a href="connect">Connect something</a>}</p></div>}
      </div>
    </>}</Got>
  </Page>;
}

/** The question that suits a metric by its type. */
export function suited(name: string, type: string, window = '5m'): string {
  const s = selectorOf(name);
  if (/_bucket$/.test(name)) return `histogram_quantile(0.9, sum by (le) (rate(${s}[${window}])))`;
  if (type === 'counter' || /_(total|count|sum)$/.test(name)) return `sum(rate(${s}[${window}]))`;
  if (type === 'histogram') return `histogram_quantile(0.9, sum(rate(${s}[${window}])))`;
  return `avg(${s})`;
}

/** Few at a time, the newest asked first: what was scrolled past is dropped. */
const waiting: { run(): Promise<void>; gone: boolean }[] = [];
let busy = 0;
function later(job: { run(): Promise<void>; gone: boolean }) {
  waiting.push(job);
  next();
}
function next() {
  while (busy < 2 && waiting.length) {
    const job = waiting.pop()!;
    if (job.gone) continue;
    busy++;
    void job.run().finally(() => { busy--; next(); });
  }
}
const drawn = new Map<string, { at: number; points: [number, number][] }>();
function Preview({ name, type }: { name: string; type: string }) {
  const canvas = useRef<HTMLCanvasElement>(null), isDark = useCell(dark), [points, setPoints] = useState(drawn.get(name)?.points);
  useEffect(() => {
    const known = drawn.get(name);
    if (known && Date.now() - known.at < 120_000) return;
    const abort = new AbortController();
    const job = { gone: false, async run() {
      const end = Math.floor(Date.now() / 60_000) * 60;
      const data = await soft<QueryData>('query_range', { query: suited(name, type), start: end - 3600, end, step: 60, timeout: '5s' }, { method: 'POST', signal: abort.signal });
      const found = data?.resultType === 'matrix' ? (data.result[0]?.values ?? []).map(([t, v]): [number, number] => [(t - end + 3600) / 3600, toNumber(v)]).filter(p => Number.isFinite(p[1])) : [];
      if (data) drawn.set(name, { at: Date.now(), points: found });
      if (drawn.size > 2000) drawn.delete(drawn.keys().next().value!);
      if (!job.gone) setPoints(found);
    } };
    const t = setTimeout(() => later(job), 120);
    return () => { clearTimeout(t); job.gone = true; abort.abort(); };
  }, [name]);
  useEffect(() => {
    const c = canvas.current?.getContext('2d');
    if (!c || !points?.length) return;
    const dpr = devicePixelRatio, w = 170, h = 40;
    c.canvas.width = w * dpr; c.canvas.height = h * dpr; c.scale(dpr, dpr);
    const ys = points.map(p => p[1]), low = Math.min(...ys), high = Math.max(...ys), y = (v: number) => high === low ? h / 2 : h - 4 - (v - low) / (high - low) * (h - 8);
    c.strokeStyle = isDark ? '#ff8038' : '#d9480f'; c.lineWidth = 1.4; c.beginPath();
    points.forEach(([x, v], i) => i && x - points[i - 1][0] < 0.05 ? c.lineTo(x * w, y(v)) : c.moveTo(x * w, y(v)));
    c.stroke();
  }, [points, isDark]);
  return points?.length ? <canvas ref={canvas} role="img" aria-label={`The last hour: ${short(points[0][1])} to ${short(points[points.length - 1][1])}`} /> : null;
}

interface LabelRow { label: string; values: number; more: boolean }
function Metric({ name }: { name: string }) {
  const sel = selectorOf(name), [meta, setMeta] = useState<(Metadata & { of: string }) | null>(null), [by, setBy] = useInAddress('by'), [labels, setLabels] = useState<LabelRow[] | null>(null);
  const [total, setTotal] = useState<number | null>(null), [last, setLast] = useState<number | null>(null), inZone = useCell(zone);
  useEffect(() => {
    let on = true;
    void metadataOf(name).then(m => on && setMeta(m));
    void (async () => {
      const all = (await soft<string[]>('labels', { 'match[]': sel, limit: 100 }) ?? []).filter(l => l !== '__name__');
      const rows = await Promise.all(all.map(async label => { const v = await soft<string[]>(`label/${encodeURIComponent(label)}/values`, { 'match[]': sel, limit: 1001 }); return { label, values: Math.min(1000, v?.length ?? 0), more: (v?.length ?? 0) > 1000 }; }));
      if (on) setLabels(rows.sort((a, b) => a.values - b.values || (a.label < b.label ? -1 : 1)));
      const n = await soft<QueryData>('query', { query: `count(${sel})` });
      if (!on || n?.resultType !== 'vector') return;
      setTotal(n.result[0]?.value ? toNumber(n.result[0].value[1]) : 0);
      const now = Date.now() / 1000;
      if (!n.result.length) void whenNear(sel.startsWith('{') ? sel : `{__name__="${sel}"}`, now - 300, now).then(at => on && setLast(at));
    })();
    return () => { on = false; };
  }, [name]);
  const type = meta?.type && meta.type !== 'unknown' ? meta.type : guess(name);
  const counter = type === 'counter' || /_(total|count|sum)$/.test(name), buckets = /_bucket$/.test(name);
  const expr = by ? buckets ? `histogram_quantile(0.9, sum by (le, ${by}) (rate(${sel}[5m])))` : counter ? `sum by (${by}) (rate(${sel}[5m]))` : type === 'histogram' ? `histogram_quantile(0.9, sum by (${by}) (rate(${sel}[5m])))` : `avg by (${by}) (${sel})` : suited(name, type);
  const ideas = buckets || type === 'histogram'
    ? [0.5, 0.9, 0.99].map(q => [`${q * 100} % are faster or smaller`, buckets ? `histogram_quantile(${q}, sum by (le) (rate(${sel}[5m])))` : `histogram_quantile(${q}, sum(rate(${sel}[5m])))`]).concat([['How they are spread', buckets ? `sum by (le) (rate(${sel}[5m]))` : `sum(rate(${sel}[5m]))`]])
    : counter ? [['Per second, together', `sum(rate(${sel}[5m]))`], ['Per second, each', `rate(${sel}[5m])`], ['In the last hour', `sum(increase(${sel}[1h]))`]]
      : [['Each', sel], ['Average, least and greatest', `avg(${sel}) or label_replace(max(${sel}), "of", "max", "", "") or label_replace(min(${sel}), "of", "min", "", "")`], ['The ten largest', `topk(10, ${sel})`]];
  return <div class="page">
    <p class="crumbs"><a href="explore">All metrics</a></p>
    <div class="metric-head"><h1>{name}</h1><p class="soft">{[type.slice(0, 200), meta?.unit.slice(0, 200), total ? count(total, 'series', 'series') + ' now' : total === 0 ? 'no series now' : '', last !== null ? `last seen ${stamp(Math.round(last), inZone).slice(0, 16)}` : ''].filter(Boolean).join(' · ')}</p>{meta?.help && <p>{meta.help.slice(0, 3000)}</p>}</div>
    <QuickGraph key={expr + last} expr={expr} more={last !== null ? { end: Math.round(last + 60) } : {}} />
    <div class="halves" style={{ marginTop: '16px' }}>
      <section class="card block"><h2>By label</h2>
        {labels === null ? <p class="soft">Looking…</p> : !labels.length ? <p class="soft">Its series have no labels.</p> : <table><thead><tr><th>Label</th><th class="v">Values</th><th class="v">Graph</th></tr></thead><tbody>{labels.map(l => <tr key={l.label}>
          <td class="mono">{l.label}</td><td class="v">{grouped(l.values)}{l.more ? ' and more' : ''}</td>
          <td class="v"><button type="button" class="small" aria-pressed={by === l.label} onClick={() => { setBy(by === l.label ? '' : l.label, true); scrollTo({ top: 0 }); }}>{by === l.label ? 'Together again' : 'Split by it'}</button></td></tr>)}</tbody></table>}
        {by && <Values sel={sel} label={by} />}
      </section>
      <section class="card block"><h2>Questions to begin with</h2><ul class="why">{ideas.map(([title, q]) => <li key={q}><p>{title}<br /><a class="mono cut" href={queryLink(q, /heat|spread/.test(title) ? { mode: 'heatmap' } : {})}>{q}</a></p></li>)}</ul></section>
      <Related name={name} />
    </div>
  </div>;
}

function Values({ sel, label }: { sel: string; label: string }) {
  const found = useAsk<QueryData>('query', { query: `topk(15, count by (${label}) (${sel}))` });
  return <Got asked={found}>{data => {
    const rows = data.resultType === 'vector' ? data.result.map(s => [s.metric[label] ?? '', toNumber(s.value?.[1] ?? '0')] as const).sort((a, b) => b[1] - a[1]) : [];
    const top = rows[0]?.[1] ?? 1;
    return <><h3>Most series</h3><table><tbody>{rows.map(([v, n]) => <tr key={v}><td><Meter share={n / top}><a class="mono" href={queryLink(`${sel.startsWith('{') ? sel.slice(0, -1) + ', ' : sel + '{'}${label}=${JSON.stringify(v)}}`)}>{v || '(none)'}</a></Meter></td><td class="v">{grouped(n)}</td></tr>)}</tbody></table></>;
  }}</Got>;
}

function Related({ name }: { name: string }) {
  const [near, setNear] = useState<string[]>([]);
  useEffect(() => {
    let on = true;
    void cached<string[]>('label/__name__/values', { limit: MOST_NAMES }).then(all => {
      const words = name.split('_');
      const scored = (all ?? []).filter(n => n !== name).map(n => { const theirs = n.split('_'); let same = 0; while (same < words.length && theirs[same] === words[same]) same++; return [same, n] as const; }).filter(([s]) => s >= Math.min(2, words.length - 1) && s > 0);
      scored.sort((a, b) => b[0] - a[0] || (a[1] < b[1] ? -1 : 1));
      if (on) setNear(scored.slice(0, 16).map(s => s[1]));
    });
    return () => { on = false; };
  }, [name]);
  if (!near.length) return null;
  return <section class="card block"><h2>Related</h2><ul class="why">{near.map(n => <li key={n}><a class="mono cut" href={'explore?metric=' + encodeURIComponent(n)}>{n}</a></li>)}</ul></section>;
}
