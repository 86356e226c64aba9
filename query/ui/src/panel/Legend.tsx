/** The names below a graph: what all share once above, only what differs in the rows, with figures that sort. */
import { useMemo, useState } from 'preact/hooks';
import type { Labels } from '../api';
import { count, withUnit, type Unit } from '../format';
import { compareValues, seriesText } from '../labels';
import type { Line } from './plot';

interface Figures { min: number; median: number; max: number; last: number }
function figures(ys: (number | null)[]): Figures {
  const all = ys.filter((y): y is number => y !== null && !Number.isNaN(y));
  if (!all.length) return { min: NaN, median: NaN, max: NaN, last: NaN };
  const last = all[all.length - 1], sorted = Float64Array.from(all).sort(), half = sorted.length >> 1;
  return { min: sorted[0], max: sorted[sorted.length - 1], last, median: sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2 };
}

export function SharedLabels({ shared, onPick }: { shared: Labels; onPick?: (name: string, value: string) => void }) {
  const all = Object.entries(shared);
  if (!all.length) return null;
  return <p class="shared"><span class="soft">All: </span>{all.map(([n, v]) => n === '__name__' ? <b key={n} class="mono cut">{v}</b>
    : <span key={n} class="pair mono cut" title={`${n}="${v}"`} onClick={() => onPick?.(n, v)}><span class="ln">{n}</span>=<span class="lv">{v}</span></span>)}</p>;
}

export function Name({ metric, differing }: { metric: Labels; differing: string[] }) {
  const names = differing.filter(n => n in metric);
  if (!names.length) return <span class="mono">{metric.__name__ ?? (Object.keys(metric).length ? '' : <span class="soft">no labels</span>)}</span>;
  return <span class="mono">{names.map(n => n === '__name__' ? <b key={n} class="name">{metric[n]} </b>
    : <span key={n} class="pair"><span class="ln">{n}</span>=<span class="lv">{metric[n] || '""'}</span> </span>)}</span>;
}

const COLUMNS = ['min', 'median', 'max', 'last'] as const;
export function Legend(p: {
  lines: Line[]; shared: Labels; differing: string[]; unit: Unit; hidden: Set<string>; near: string | null; sort: string; filter: string;
  onHidden(hidden: string[]): void; onSort(sort: string): void; onFilter(filter: string): void; onLift(hash: string | null): void;
}) {
  const { filter } = p, [all, setAll] = useState(false);
  const rows = useMemo(() => p.lines.map(l => ({ line: l, f: figures(l.ys), text: seriesText(l.metric).toLowerCase() })), [p.lines]);
  const column = p.sort.replace(/^-/, ''), down = p.sort.startsWith('-');
  const sorted = useMemo(() => {
    const wanted = filter.trim().toLowerCase().split(/\s+/).filter(Boolean);
    const out = rows.filter(r => wanted.every(w => r.text.includes(w)));
    if (column) out.sort((a, b) => {
      const d = column === 'name' ? compareValues(a.line.name, b.line.name) : (a.f[column as 'min'] ?? 0) - (b.f[column as 'min'] ?? 0) || 0;
      return down ? -d : d;
    });
    return out;
  }, [rows, filter, p.sort]);
  const shown = all ? sorted : sorted.slice(0, 50);
  const toggle = (hash: string, several: boolean) => {
    const every = p.lines.map(l => l.hash);
    if (several) { const next = new Set(p.hidden); if (!next.delete(hash)) next.add(hash); p.onHidden([...next]); return; }
    const alone = !p.hidden.has(hash) && every.every(h => h === hash || p.hidden.has(h));
    p.onHidden(alone ? [] : every.filter(h => h !== hash));
  };
  const sortBy = (c: string) => p.onSort(column !== c ? (c === 'name' ? c : '-' + c) : down ? (c === 'name' ? '' : c) : c === 'name' ? '-name' : '');
  const head = (c: string, text: string, cls: string) => <th class={cls} aria-sort={column === c ? (down ? 'descending' : 'ascending') : undefined}>
    <button type="button" onClick={() => sortBy(c)}>{text}{column === c ? (down ? ' ↓' : ' ↑') : ''}</button></th>;
  return <div class="legend">
    <div class="legend-top">
      <SharedLabels shared={p.shared} />
      {(p.lines.length > 10 || filter) && <input type="search" class="small" placeholder={`Filter ${count(p.lines.length, 'series', 'series')}`} aria-label="Filter the legend" value={filter} onInput={e => p.onFilter(e.currentTarget.value)} />}
      {p.hidden.size > 0 && <button type="button" class="small" onClick={() => p.onHidden([])}>Show all {p.lines.length}</button>}
    </div>
    <div class="legend-rows" tabIndex={0} role="region" aria-label="Legend" onMouseLeave={() => p.onLift(null)}>
      <table>
        <thead><tr>{head('name', 'Series', '')}{COLUMNS.map(c => head(c, c, 'v' + (c === 'min' || c === 'median' ? ' wide' : '')))}</tr></thead>
        <tbody>{shown.map(({ line: l, f }) => <tr key={l.hash + (l.past ? 'p' : '')} class={(p.hidden.has(l.hash) ? 'off ' : '') + (p.near === l.hash ? 'near' : '')} onMouseEnter={() => p.onLift(p.hidden.has(l.hash) ? null : l.hash)}>
          <td><button type="button" class="series" aria-pressed={!p.hidden.has(l.hash)} title="Click: only this one. Ctrl, Shift or a click on its colour: on or off."
            onClick={e => toggle(l.hash, e.ctrlKey || e.metaKey || e.shiftKey || (e.target as HTMLElement).classList.contains('dot'))}>
            <i class={'dot' + (l.dash ? ' dash' : '') + (l.past ? ' earlier' : '')} style={{ '--c': l.color }} /><span><Name metric={l.metric} differing={p.differing} />{l.past && <span class="soft"> {l.name.slice(l.name.lastIndexOf('(')) }</span>}</span></button></td>
          {COLUMNS.map(c => <td key={c} class={'v num' + (c === 'min' || c === 'median' ? ' wide' : '')}>{Number.isNaN(f[c]) ? '' : withUnit(f[c], p.unit)}</td>)}
        </tr>)}</tbody>
      </table>
      {sorted.length > shown.length && <button type="button" class="small more" onClick={() => setAll(true)}>Name all {sorted.length.toLocaleString('en')}</button>}
      {!sorted.length && <p class="soft pad">No series with that in its name.</p>}
    </div>
  </div>;
}
