/** The graph of a range: lines, stack or heat map, with its legend. */
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import type { Series } from '../api';
import { count, short, toNumber, unitOf, unitOfBounds, type Unit } from '../format';
import { DASHES, hashText, namesOf, palette, shortName, slots } from '../labels';
import { dark, useCell, zone } from '../store';
import { formatDuration, spoken } from '../time';
import { metadataOf } from '../editor/source';
import type { Panel } from '../url';
import type { Outcome } from './run';
import type { Line, Plot } from './plot';
import type { Heat } from './heat';
import { Legend } from './Legend';

/** So many lines a graph has at first: beyond it is a carpet that nobody reads. */
const MOST_LINES = 500;

/** The unit of an expression, by what is known of its metrics at once, and again with their metadata. */
export function useUnit(expr: string, chosen: Unit | 'auto', bounds = false): Unit {
  const [told, setTold] = useState<Record<string, string>>({});
  useEffect(() => {
    let on = true;
    const names = [...new Set(expr.replace(/"[^"]*"/g, '').match(/[a-zA-Z_:][\w:]*_[\w:]*/g) ?? [])].slice(0, 4);
    void Promise.all(names.map(async n => [n, (await metadataOf(n))?.unit ?? ''] as const)).then(all => { if (on) setTold(Object.fromEntries(all)); });
    return () => { on = false; };
  }, [expr]);
  return chosen !== 'auto' ? chosen : (bounds ? unitOfBounds : unitOf)(expr, n => told[n] ?? '');
}

function valuesOf(s: Series, start: number, step: number, steps: number, shift: number): (number | null)[] {
  const out: (number | null)[] = new Array(steps).fill(null);
  for (const [t, v] of s.values ?? []) {
    const i = Math.round((t + shift - start) / step);
    if (i >= 0 && i < steps) { const n = toNumber(v); out[i] = Number.isNaN(n) ? null : n; }
  }
  return out;
}
const highest = (ys: (number | null)[]) => { let m = -Infinity; for (const y of ys) if (y !== null && y > m) m = y; return m; };

export interface Drawn { xs: number[]; lines: Line[]; shared: Record<string, string>; differing: string[]; left: number; native: number }
export function lines(o: Outcome, most: number, isDark: boolean): Drawn {
  const steps = Math.round((o.end - o.start) / o.step) + 1, xs = Array.from({ length: steps }, (_, i) => o.start + i * o.step);
  const all = (o.data?.resultType === 'matrix' ? o.data.result : []).filter(s => s.values?.length);
  const { shared, differing } = namesOf(all.map(s => s.metric)), colors = palette(isDark);
  let made = all.map(s => ({ s, ys: valuesOf(s, o.start, o.step, steps, 0) }));
  const left = Math.max(0, made.length - most);
  if (left) made = made.map(m => ({ ...m, top: highest(m.ys) })).sort((a, b) => b.top - a.top).slice(0, most);
  const slot = slots(made.map(m => m.s.metric));
  const out: Line[] = made.map(({ s, ys }, i) => ({
    metric: s.metric, name: shortName(s.metric, differing), hash: hashText(s.metric), color: colors[slot[i] % 8], dash: DASHES[Math.floor(slot[i] / 8) % 3], ys,
  }));
  if (o.past) {
    const byHash = new Map(out.map(l => [l.hash, l]));
    for (const s of o.past.slice(0, most)) {
      const now = byHash.get(hashText(s.metric));
      out.push({ metric: s.metric, name: `${shortName(s.metric, differing)} (${formatDuration(o.pastBy)} before)`, hash: hashText(s.metric) + '-', color: now?.color ?? '#888888', ys: valuesOf(s, o.start, o.step, steps, o.pastBy), past: true });
    }
  }
  const native = o.data?.resultType === 'matrix' ? o.data.result.filter(s => s.histograms?.length).length : 0;
  return { xs, lines: out, shared, differing, left, native };
}

export function Graph({ o, p, update, heat }: { o: Outcome; p: Panel; update(patch: Partial<Panel>, push?: boolean): void; heat: 'native' | 'classic' | null }) {
  const isDark = useCell(dark), inZone = useCell(zone);
  const most = p.all ? Infinity : MOST_LINES, [near, setNear] = useState<string | null>(null), [ready, setReady] = useState(0);
  const [broken, setBroken] = useState(false), [tones, setTones] = useState<{ colors: string[]; most: number } | null>(null);
  const root = useRef<HTMLDivElement>(null), chart = useRef<Plot | Heat | null>(null);
  const asHeat = heat === 'native' || heat === 'classic' && p.mode === 'heatmap';
  const unit = useUnit(o.expr, p.unit, asHeat);
  const drawn = useMemo(() => lines(o, most, isDark), [o, most, isDark]);
  const hidden = useMemo(() => new Set(p.hidden), [p.hidden.join()]);
  const zoom = useRef({ update, p, o });
  zoom.current = { update, p, o };
  const mixed = heat === 'native' && drawn.lines.length > 0;

  useEffect(() => {
    let gone = false;
    const told = {
      zoom(from: number, to: number) { const unit = to - from > 60 ? 1 : 0.1; zoom.current.update({ range: Math.max(unit, Math.round((to - from) / unit) * unit), end: Math.round(to / unit) * unit }, true); },
      zoomOut() { const { p, o } = zoom.current, end = (o.start + o.end) / 2 + p.range; zoom.current.update({ range: p.range * 2, end: end >= Date.now() / 1000 ? null : Math.round(end) }, true); },
      near: (hash: string | null) => setNear(hash),
    };
    void (asHeat ? import('./heat').then(m => new m.Heat(root.current!, told)) : import('./plot').then(m => new m.Plot(root.current!, told))).then(made => {
      if (gone) { made.destroy(); return; }
      chart.current = made;
      (root.current as HTMLDivElement & { chart?: unknown }).chart = made;
      setReady(n => n + 1);
    }).catch(() => { if (!gone) setBroken(true); });
    return () => { gone = true; chart.current?.destroy(); chart.current = null; };
  }, [asHeat]);

  useEffect(() => {
    if (!chart.current) return;
    const look = { stacked: p.mode === 'stacked', log: p.log, yMin: p.yMin, yMax: p.yMax, unit, zone: inZone, step: o.step, parts: o.parts, exemplars: o.exemplars, hidden: o.hidden, title: drawn.differing.length === 1 && drawn.differing[0] !== '__name__' ? drawn.differing[0] : '' };
    if ('lift' in chart.current) chart.current.set(drawn.xs, drawn.lines, hidden, look);
    else { const c = chart.current; void import('./heat').then(m => { if (chart.current === c && o.data?.resultType === 'matrix') { (c as Heat).set(drawn.xs, m.cells(o.data.result, o.start, o.step), look, isDark); setTones((c as Heat).scaleOf()); } }); }
  }, [ready, drawn, hidden, p.mode, p.log, p.yMin, p.yMax, unit, inZone, isDark]);

  const groups = asHeat && o.data?.resultType === 'matrix' ? heat === 'native' ? drawn.native : new Set(o.data.result.map(s => { const { le, ...rest } = s.metric; void le; return JSON.stringify(rest); })).size : 0;
  const raw = asHeat && !/\b(i?rate|increase|i?delta|histogram_\w+)\s*\(/.test(o.expr);
  return <>
    {drawn.left > 0 && <p class="note info" role="status">
      <span>{count(drawn.lines.length - (o.past?.length ?? 0), 'line')} of {(drawn.lines.length + drawn.left).toLocaleString('en')} are drawn, those that reach highest.</span>{' '}
      <button type="button" class="small" onClick={() => update({ all: true }, true)}>Draw all</button>{' '}
      <button type="button" class="small mono" onClick={() => update({ expr: `topk(20, ${o.expr.trim()})` }, true)}>topk(20, …)</button>
    </p>}
    {asHeat && (groups > 1 || raw || mixed) && <p class="note info" role="status">
      {groups > 1 && <span>The histograms of {count(groups, 'series', 'series')} are added up. </span>}
      {raw && <span>These count since their process began. To see what came when: <button type="button" class="small mono" onClick={() => update({ expr: `rate(${o.expr.trim()}[5m])` }, true)}>rate(…[5m])</button> </span>}
      {mixed && <span>{count(drawn.lines.length, 'series', 'series')} without histograms {drawn.lines.length === 1 ? 'is' : 'are'} left out.</span>}
    </p>}
    {broken && <p class="note bad">The part of the page that draws did not arrive. Reload the page.</p>}
    <div class="plot" ref={root} style={{ minHeight: '290px' }} />
    {asHeat && tones && tones.most > 0 && <p class="key tones"><span>in a cell: 0</span><svg viewBox="0 0 48 1" preserveAspectRatio="none" aria-hidden="true">{tones.colors.map((c, i) => <rect key={i} x={i} y="0" width="1.1" height="1" fill={c} />)}</svg><span>{short(tones.most)}</span></p>}
    {!asHeat && <Legend lines={drawn.lines} shared={drawn.shared} differing={drawn.differing} unit={unit} hidden={hidden} near={near} sort={p.legendSort} filter={p.filter}
      onHidden={h => update({ hidden: h })} onSort={s => update({ legendSort: s })} onFilter={filter => update({ filter })} onLift={h => { if (chart.current && 'lift' in chart.current) chart.current.lift(h); }} />}
    <p class="foot soft">Drag to zoom, double-click to zoom out, Back undoes it. One point every {spoken(o.step)}.</p>
  </>;
}
