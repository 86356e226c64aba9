/** Histograms over time as a heat map: classic buckets and native ones, each cell at its true bounds. */
import type { Series } from '../api';
import { digits, short, toNumber, withUnit } from '../format';
import { stamp } from '../time';
import { Axes, el, type Look } from './axes';
import { isHistogram } from './histogram';

export interface Cell { column: number; low: number; high: number; count: number }
/** `bounds` are those of all buckets, empty ones too. */
export interface Grid { cells: Cell[]; groups: number; bounds: number[] }

export function cells(all: Series[], start: number, step: number): Grid {
  const columnOf = (t: number) => Math.round((t - start) / step);
  return isHistogram(all) === 'native' ? native(all, columnOf) : classic(all, columnOf);
}

function classic(all: Series[], columnOf: (t: number) => number): Grid {
  const groups = new Set<string>(), bounds = new Map<number, Map<number, number>>();
  for (const s of all) {
    const { le, ...rest } = s.metric;
    groups.add(JSON.stringify(rest));
    const bound = toNumber(le);
    if (Number.isNaN(bound)) continue;
    let row = bounds.get(bound);
    if (!row) bounds.set(bound, row = new Map());
    for (const [t, v] of s.values ?? []) { const c = columnOf(t), n = toNumber(v); if (Number.isFinite(n)) row.set(c, (row.get(c) ?? 0) + n); }
  }
  const sorted = [...bounds.keys()].sort((a, b) => a - b), out: Cell[] = [];
  sorted.forEach((bound, i) => {
    const below = i ? bounds.get(sorted[i - 1])! : null;
    const low = i ? sorted[i - 1] : bound > 0 ? 0 : -Infinity;
    for (const [column, n] of bounds.get(bound)!) {
      const count = n - (below?.get(column) ?? 0);
      if (count > 0) out.push({ column, low, high: bound, count });
    }
  });
  return { cells: out, groups: groups.size, bounds: sorted };
}

function native(all: Series[], columnOf: (t: number) => number): Grid {
  const sums = new Map<string, Cell>();
  for (const s of all)
    for (const [t, h] of s.histograms ?? [])
      for (const [, low, high, n] of h.buckets ?? []) {
        const column = columnOf(t), key = `${column} ${low} ${high}`, count = toNumber(n), cell = sums.get(key);
        if (!Number.isFinite(count) || count <= 0) continue;
        if (cell) cell.count += count; else sums.set(key, { column, low: toNumber(low), high: toNumber(high), count });
      }
  return { cells: [...sums.values()], groups: all.filter(s => s.histograms?.length).length, bounds: [] };
}

/** From the card's colour through the brand's to what stands out most. */
const RAMP = { light: ['#fdf0e4', '#ffcfa5', '#ff9d5c', '#e8590c', '#a33308', '#4a1204'], dark: ['#2e251e', '#5a3310', '#94470f', '#e06a17', '#ffad5e', '#fff0d0'] };
function ramp(dark: boolean): string[] {
  const stops = RAMP[dark ? 'dark' : 'light'].map(c => [1, 3, 5].map(i => parseInt(c.slice(i, i + 2), 16)));
  return Array.from({ length: 48 }, (_, i) => {
    const at = i / 47 * (stops.length - 1), a = Math.min(stops.length - 2, Math.floor(at)), f = at - a;
    return 'rgb(' + stops[a].map((x, k) => Math.round(x + (stops[a + 1][k] - x) * f)).join(',') + ')';
  });
}

export class Heat extends Axes {
  private byColumn = new Map<number, Cell[]>();
  private most = 0;
  private least = 0.1;
  private negative = false;
  private endless = false;
  private top = 1;
  private colors: string[] = [];

  set(xs: number[], grid: Grid, look: Look, dark: boolean) {
    this.xs = xs; this.look = look; this.colors = ramp(dark);
    this.from = xs[0] - look.step / 2; this.to = xs[xs.length - 1] + look.step / 2;
    this.byColumn = new Map();
    this.most = 0; this.negative = false; this.endless = false;
    let low = Infinity, high = 0;
    for (const c of grid.cells) {
      const column = this.byColumn.get(c.column);
      if (column) column.push(c); else this.byColumn.set(c.column, [c]);
      this.most = Math.max(this.most, c.count);
      if (c.low < 0) this.negative = true;
      if (c.high === Infinity) this.endless = true;
      for (const b of [Math.abs(c.low), Math.abs(c.high)]) if (b > 0 && Number.isFinite(b)) { low = Math.min(low, b); high = Math.max(high, b); }
    }
    // Empty buckets are shown beside those with something in them: that nothing is slower is an answer too.
    for (const b of grid.bounds) if (b > 0 && Number.isFinite(b)) { low = Math.min(low, b); high = Math.max(high, b); }
    if (!Number.isFinite(low)) { low = 0.1; high = 1; }
    this.least = low; this.top = high;
    this.cursor = null; this.tip.hidden = true;
    this.over.setAttribute('aria-label', `Heat map of ${grid.groups} histograms, ${stamp(xs[0], look.zone)} to ${stamp(xs[xs.length - 1], look.zone)}. Arrow keys move through time and buckets.`);
    this.redraw();
  }

  protected measure() {
    // What begins at zero, and what has no end, get a row of their own as high as their neighbour's.
    this.scale = this.negative ? 'asinh' : 'log';
    this.knee = this.least;
    this.high = this.endless ? this.top * 2 : this.top * 1.02;
    this.low = this.negative ? -this.high : this.least / 2;
  }

  private bounds(c: Cell): [number, number] {
    return [Math.max(this.low, !this.negative && c.low <= 0 ? this.low : c.low), Math.min(this.high, !this.negative && c.high <= 0 ? this.low : c.high)];
  }

  protected paint(c: CanvasRenderingContext2D) {
    const width = this.X(this.xs[0] + this.look.step) - this.X(this.xs[0]);
    for (const [column, all] of this.byColumn) {
      const x = this.X(this.xs[0] + column * this.look.step) - width / 2;
      for (const cell of all) {
        const [low, high] = this.bounds(cell), top = this.Y(high), bottom = this.Y(low);
        c.fillStyle = this.colors[Math.min(47, Math.floor(Math.sqrt(cell.count / this.most) * 47.99))];
        c.fillRect(Math.floor(x), Math.floor(top), Math.ceil(x + width) - Math.floor(x), Math.max(1, Math.ceil(bottom) - Math.floor(top) - (bottom - top > 8 ? 1 : 0)));
      }
    }
  }

  /** What the colours mean: the canvas of a strip, from nothing to the most that one cell has. */
  scaleOf(): { colors: string[]; most: number } { return { colors: this.colors, most: this.most }; }

  protected follow() { /* the line of the cursor is enough */ }

  protected moved() {
    const { x, y, idx } = this.cursor!, t = this.xs[idx], value = this.valueAt(y), column = this.byColumn.get(idx) ?? [], { unit } = this.look;
    const total = column.reduce((n, c) => n + c.count, 0), hit = column.find(c => { const [low, high] = this.bounds(c); return value > low && value <= high; });
    const bound = (v: number) => Number.isFinite(v) ? withUnit(v, unit) : digits(v), out: Node[] = [el('time', '', stamp(t, this.look.zone))];
    if (hit) {
      const row = el('div', 'row near');
      row.append(el('span', 'n', `${bound(hit.low)} to ${bound(hit.high)}`), el('b', '', short(hit.count)));
      out.push(row, el('div', 'of', `${digits(100 * hit.count / total, 3)} % of ${short(total)}`));
    } else out.push(el('div', 'of', total ? `nothing in this bucket, ${short(total)} in all` : 'nothing here'));
    const tier = this.tierAt(t);
    if (tier) out.push(el('div', 'of', `from rollups of ${tier.resolution}`));
    this.tip.replaceChildren(...out);
    this.tip.hidden = false;
    this.beside(x);
  }
}
