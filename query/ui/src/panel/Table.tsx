/** The table of a moment: a column for each label, sorted by numbers where they are numbers, to be filtered and taken away. */
import { useEffect, useMemo, useState } from 'preact/hooks';
import type { Labels, NativeHistogram, Series } from '../api';
import { count, digits, short, toNumber, withUnit, type Unit } from '../format';
import { compareValues, namesOf, seriesText } from '../labels';
import { stamp } from '../time';
import { useCell, zone } from '../store';
import type { Panel } from '../url';
import type { Outcome } from './run';
import { Name, SharedLabels } from './Legend';
import { useUnit } from './Graph';

function sharedOrAll(all: Series[], without: string[]): { shared: Labels; columns: string[] } {
  const { shared, differing } = namesOf(all.map(s => s.metric));
  return { shared, columns: differing.filter(c => !without.includes(c)) };
}
const csvCell = (s: string) => {
  // A spreadsheet takes what begins like a formula for one.
  const safe = /^[=+\-@\t\r]/.test(s) && Number.isNaN(toNumber(s)) ? "'" + s : s;
  return /[",\n\r]/.test(safe) ? '"' + safe.replace(/"/g, '""') + '"' : safe;
};
export function csv(all: Series[]): string {
  const names = [...new Set(all.flatMap(s => Object.keys(s.metric)))].sort();
  const rows = all.flatMap(s => {
    const labels = names.map(n => s.metric[n] ?? '');
    const points = s.value ? [s.value] : s.values ?? [];
    const histograms = s.histogram ? [s.histogram] : s.histograms ?? [];
    return [...points.map(([t, v]) => [...labels, new Date(t * 1e3).toISOString(), v]), ...histograms.map(([t, h]) => [...labels, new Date(t * 1e3).toISOString(), `count=${h.count} sum=${h.sum}`])];
  });
  return [[...names, 'time', 'value'], ...rows].map(r => r.map(csvCell).join(',')).join('\r\n') + '\r\n';
}
export function save(name: string, kind: string, text: string) {
  const url = URL.createObjectURL(new Blob([text], { type: kind }));
  const a = document.createElement('a');
  a.href = url; a.download = name; a.target = '_self';
  a.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

export function HistogramBars({ h, unit }: { h: NativeHistogram; unit: Unit }) {
  const buckets = h.buckets ?? [], top = Math.max(...buckets.map(b => toNumber(b[3])), 0), width = Math.min(10, 260 / Math.max(1, buckets.length));
  return <div class="hist"><span class="soft">count <b>{short(toNumber(h.count))}</b> · sum <b>{withUnit(toNumber(h.sum), unit)}</b>{toNumber(h.count) > 0 ? <> · mean <b>{withUnit(toNumber(h.sum) / toNumber(h.count), unit)}</b></> : null}</span>
    {top > 0 && <svg width={width * buckets.length} height={40} role="img" aria-label={`${buckets.length} buckets`}>{buckets.map((b, i) => {
      const height = Math.max(1, toNumber(b[3]) / top * 40);
      return <rect key={i} x={i * width} y={40 - height} width={Math.max(1, width - 1)} height={height}><title>{`${'([(['[b[0]]}${digits(toNumber(b[1]))}, ${digits(toNumber(b[2]))}${'])])'[b[0]]}: ${b[3]}`}</title></rect>;
    })}</svg>}
  </div>;
}

const small = matchMedia('(max-width: 720px)');
function useNarrow(): boolean {
  const [is, setIs] = useState(small.matches);
  useEffect(() => { const look = () => setIs(small.matches); small.addEventListener('change', look); return () => small.removeEventListener('change', look); }, []);
  return is;
}

export function Table({ o, p, update }: { o: Outcome; p: Panel; update(patch: Partial<Panel>, push?: boolean): void }) {
  const [most, setMost] = useState(200), inZone = useCell(zone), unit = useUnit(o.expr, p.unit);
  const exact = !p.units, narrow = useNarrow();
  const data = o.data!;
  const all = data.resultType === 'vector' || data.resultType === 'matrix' ? data.result : [];
  const { shared, columns } = useMemo(() => sharedOrAll(all, p.without), [all, p.without.join()]);
  const column = p.sort.replace(/^-/, ''), down = p.sort.startsWith('-');
  const rows = useMemo(() => {
    const wanted = p.filter.trim().toLowerCase().split(/\s+/).filter(Boolean);
    const out = wanted.length ? all.filter(s => { const text = seriesText(s.metric).toLowerCase(); return wanted.every(w => text.includes(w)); }) : [...all];
    const value = (s: Series) => s.value ? toNumber(s.value[1]) : s.histogram ? toNumber(s.histogram[1].count) : (s.values?.length ?? 0);
    // Buckets and quantiles come in the order of texts: that of numbers is meant. Other orders are the query's own.
    if (!p.sort && columns.some(c => c === 'le' || c === 'quantile') && !/^\s*(sort|topk|bottomk)/.test(o.expr))
      out.sort((a, b) => { for (const c of columns) { const d = compareValues(a.metric[c], b.metric[c]); if (d) return d; } return 0; });
    if (p.sort) out.sort((a, b) => {
      if (column === 'value') { const x = value(a), y = value(b); return Number.isNaN(x) ? 1 : Number.isNaN(y) ? -1 : down ? y - x : x - y; }
      return (down ? -1 : 1) * compareValues(a.metric[column], b.metric[column]);
    });
    return out;
  }, [all, p.filter, p.sort, columns]);
  if (data.resultType === 'scalar' || data.resultType === 'string') return <div class="big"><span>{data.resultType === 'scalar' ? (unit === 'none' ? data.result[1] : withUnit(toNumber(data.result[1]), unit)) : JSON.stringify(data.result[1])}</span><small>{data.resultType} at {stamp(data.result[0], inZone)}</small></div>;
  const alone = all.length === 1 && all[0].value && !Object.keys(all[0].metric).length;
  if (alone) return <div class="big"><span title={all[0].value![1]}>{withUnit(toNumber(all[0].value![1]), unit)}</span><small class="num">{all[0].value![1]} at {stamp(all[0].value![0], inZone)}</small></div>;
  // On a phone a row's labels lie below each other, so that its value is in sight.
  const folded = narrow && columns.length > 1;
  const sortBy = (c: string) => update({ sort: column !== c ? (c === 'value' ? '-value' : c) : down === (c === 'value') ? (c === 'value' ? 'value' : '-' + c) : '' });
  const head = (c: string, text: string, cls = '') => <th class={cls} aria-sort={column === c ? (down ? 'descending' : 'ascending') : undefined}>
    <button type="button" onClick={() => sortBy(c)}>{text}{column === c ? (down ? ' ↓' : ' ↑') : ''}</button>
    {c !== 'value' && <button type="button" class="hide" aria-label={'Leave out the column ' + text} title="Leave out this column" onClick={() => update({ without: [...p.without, c] })}>×</button>}</th>;
  const name = (o.expr.match(/[a-zA-Z_:][\w:]*/)?.[0] ?? 'result').slice(0, 60);
  return <>
    <div class="table-top">
      <SharedLabels shared={shared} />
      <input type="search" class="small" placeholder={`Filter ${count(all.length, 'series', 'series')}`} aria-label="Filter the table" value={p.filter} onInput={e => update({ filter: e.currentTarget.value })} />
      {p.without.length > 0 && <button type="button" class="small" onClick={() => update({ without: [] })}>Show {count(p.without.length, 'column')} again</button>}
      <span class="grow" />
      {unit !== 'none' && <label class="check"><input type="checkbox" checked={exact} onChange={e => update({ units: !e.currentTarget.checked })} />exact values</label>}
      <button type="button" class="small" onClick={() => save(name + '.csv', 'text/csv', csv(rows))}>CSV</button>
      <button type="button" class="small" onClick={() => save(name + '.json', 'application/json', JSON.stringify(rows, null, 1))}>JSON</button>
    </div>
    <div class="scroll" tabIndex={0} role="region" aria-label="Result">
      <table class="result">
        <thead><tr>{folded ? <th>series</th> : columns.map(c => head(c, c === '__name__' ? 'metric' : c))}{!columns.length && <th>series</th>}{head('value', data.resultType === 'matrix' ? 'samples' : 'value', 'v')}</tr></thead>
        <tbody>{rows.slice(0, most).map((s, i) => <tr key={i}>
          {folded ? <td><Name metric={s.metric} differing={columns} /></td> : columns.map(c => <td key={c} class={c === 'le' || c === 'quantile' ? 'num' : c === '__name__' ? 'mono name' : 'mono'}><span class="cell" title={(s.metric[c] ?? '').length > 60 ? s.metric[c].slice(0, 2000) : undefined}>{s.metric[c] ?? ''}</span></td>)}
          {!columns.length && <td class="mono"><span class="cell">{seriesText(s.metric)}</span></td>}
          <td class="v num">{s.histogram ? <HistogramBars h={s.histogram[1]} unit={unit} /> : s.value ? <span title={exact ? withUnit(toNumber(s.value[1]), unit) : s.value[1]}>{exact ? s.value[1] : withUnit(toNumber(s.value[1]), unit)}</span>
            : <pre>{[...(s.values ?? []).map(([t, v]) => stamp(t, inZone) + '  ' + v), ...(s.histograms ?? []).map(([t, h]) => `${stamp(t, inZone)}  count ${h.count} sum ${h.sum}`)].slice(-300).join('\n')}</pre>}</td>
        </tr>)}</tbody>
      </table>
    </div>
    {rows.length > most && <p class="foot soft">{count(most, 'row')} of {rows.length.toLocaleString('en')}. <button type="button" class="small" onClick={() => setMost(most + 1000)}>Show 1,000 more</button></p>}
    {!rows.length && <p class="foot soft">No series with that in its labels.</p>}
  </>;
}
