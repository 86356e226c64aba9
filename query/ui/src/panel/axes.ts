/** Axes of time and value on a canvas, and a pointer that moves, zooms and is reached by keys and fingers. What is drawn between them is
 *  the business of those who extend it. Two canvases: the lower is drawn when the data change, the upper when the pointer moves. */
import type { Part } from '../api';
import { digits, withUnit, type Unit } from '../format';
import { clock, date, parts, type Zone } from '../time';
import type { Hidden } from '../hidden';
import type { Exemplar } from './exemplars';

export interface Look {
  stacked: boolean;
  log: boolean;
  yMin: number | null;
  yMax: number | null;
  unit: Unit;
  zone: Zone;
  step: number;
  parts: Part[];
  exemplars: Exemplar[];
  hidden: Hidden[];
  /** Says what a value is of, above the tooltip's rows. */
  title: string;
}
export interface Told {
  zoom(from: number, to: number): void;
  zoomOut(): void;
  /** The line under the pointer. */
  near(hash: string | null): void;
}

export const css = (name: string) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
export function el(tag: string, className = '', text = ''): HTMLElement {
  const e = document.createElement(tag);
  if (className) e.className = className;
  if (text) e.textContent = text;
  return e;
}

const SECONDS = [0.001, 0.01, 0.1, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800, 1_209_600];
/** Round times between two, at most about `most` of them, with their texts: the date where a day begins. */
export function timeTicks(from: number, to: number, most: number, zone: Zone): { at: number; text: string; day: string }[] {
  const increment = SECONDS.find(s => (to - from) / s <= most), out: { at: number; text: string; day: string }[] = [];
  const utcOf = (y: number, mo: number, d = 1) => zone === 'utc' ? Date.UTC(y, mo, d) / 1e3 : new Date(y, mo, d).getTime() / 1e3;
  const p = parts(from, zone);
  if (increment === undefined) {
    // Months, by twos, threes, sixes and years.
    const months = [1, 2, 3, 6, 12, 24, 60, 120].find(m => (to - from) / 2_629_800 / m <= most) ?? 240;
    for (let m = Math.ceil((p.y * 12 + p.mo - 1) / months) * months; out.length < 100; m += months) { const at = utcOf(Math.floor(m / 12), m % 12); if (at > to) break; if (at >= from) out.push({ at, text: date(at, zone).slice(0, 7), day: '' }); }
    return out;
  }
  if (increment >= 86_400) {
    const days = increment / 86_400, first = Math.ceil((Date.UTC(p.y, p.mo - 1, p.d) / 86_400_000) / days) * days;
    for (let n = first; out.length < 100; n += days) { const d = new Date(n * 86_400_000), at = utcOf(d.getUTCFullYear(), d.getUTCMonth(), d.getUTCDate()); if (at > to) break; if (at >= from) out.push({ at, text: date(at, zone).slice(5), day: out.length === 0 ? date(at, zone).slice(0, 4) : '' }); }
    return out;
  }
  const offset = zone === 'utc' ? 0 : -new Date(from * 1e3).getTimezoneOffset() * 60;
  let day = '';
  for (let at = Math.ceil((from + offset) / increment) * increment - offset; at <= to && out.length < 200; at += increment) {
    const today = date(at, zone), time = clock(at, zone), ms = parts(at, zone).ms;
    out.push({ at, text: increment < 1 ? time.slice(6) + '.' + String(ms).padStart(3, '0') : increment < 60 ? time : time.slice(0, 5), day: today === day ? '' : day ? today.slice(5) : today });
    day = today;
  }
  return out;
}

/** Round values between two. Bytes are round in powers of two. */
export function valueTicks(low: number, high: number, most: number, binary: boolean): number[] {
  const raw = (high - low) / Math.max(1, most);
  let increment: number;
  if (binary) increment = 2 ** Math.ceil(Math.log2(raw));
  else { const power = 10 ** Math.floor(Math.log10(raw)), m = raw / power; increment = power * (m <= 1 ? 1 : m <= 2 ? 2 : m <= 2.5 ? 2.5 : m <= 5 ? 5 : 10); }
  const out: number[] = [];
  if (!(increment > 0) || !Number.isFinite(increment)) return [low];
  for (let i = Math.ceil(low / increment - 1e-9); i * increment <= high + increment * 1e-9 && out.length < 60; i++) out.push(Number((i * increment).toPrecision(12)));
  return out;
}
function logTicks(low: number, high: number, most: number): number[] {
  const a = Math.floor(Math.log10(low)), b = Math.ceil(Math.log10(high)), every = Math.max(1, Math.ceil((b - a) / most)), out: number[] = [];
  for (let e = a; e <= b; e += every) for (const m of b - a <= 2 ? [1, 2, 5] : [1]) { const v = m * 10 ** e; if (v >= low * 0.999 && v <= high * 1.001) out.push(v); }
  return out;
}
/** The range of an axis around values: zero is kept in sight where it is near. */
export function valueRange(low: number, high: number): [number, number] {
  if (!Number.isFinite(low) || !Number.isFinite(high)) return [0, 1];
  if (low === high) { const pad = Math.abs(low) * 0.2 || 1; return low >= 0 && low - pad < 0 ? [0, high + pad] : [low - pad, high + pad]; }
  const span = high - low, pad = span * 0.07;
  const a = low >= 0 && low < span * 1.2 ? 0 : low - pad, b = high <= 0 && -high < span * 1.2 ? 0 : high + pad;
  return [a, b];
}

export type Scale = 'linear' | 'log' | 'asinh';
const FONT = '12px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif';
const TIERS: Record<string, string> = { '5m': '--tier1', '1h': '--tier2' };

export abstract class Axes {
  protected readonly tip = el('div', 'tip');
  protected readonly over = el('div', 'over');
  private readonly lower = document.createElement('canvas');
  private readonly upper = document.createElement('canvas');
  private readonly ended = new AbortController();
  private readonly sized: ResizeObserver;
  protected width = 0;
  protected height = 0;
  /** The plot within the canvas, in CSS pixels. */
  protected box = { left: 50, top: 10, right: 0, bottom: 0 };
  protected xs: number[] = [];
  protected from = 0;
  protected to = 1;
  protected low = 0;
  protected high = 1;
  protected scale: Scale = 'linear';
  /** Where an asinh scale turns from linear to logarithmic. */
  protected knee = 1;
  protected look!: Look;
  protected cursor: { x: number; y: number; idx: number } | null = null;
  protected pinned = false;
  private drag: number | null = null;
  private frame = 0;
  /** Milliseconds of script that moves of the pointer took, the last hundred: read by the tests. */
  readonly moves: number[] = [];

  constructor(protected readonly root: HTMLElement, protected readonly told: Told) {
    this.tip.hidden = true;
    this.over.append(this.tip);
    this.over.tabIndex = 0;
    this.over.setAttribute('role', 'application');
    root.append(this.lower, this.upper, this.over);
    this.sized = new ResizeObserver(() => { if (this.look && root.clientWidth && root.clientWidth !== this.width) this.redraw(); });
    this.sized.observe(root);
    this.listen();
  }

  destroy() {
    this.sized.disconnect(); this.ended.abort(); cancelAnimationFrame(this.frame);
    this.root.replaceChildren();
  }

  /** What the values range over: sets `low`, `high` and `scale`. */
  protected abstract measure(): void;
  protected abstract paint(c: CanvasRenderingContext2D): void;
  /** What follows the pointer, drawn above; `null` where it is elsewhere. */
  protected abstract follow(c: CanvasRenderingContext2D): void;
  /** The pointer has moved to `cursor`. */
  protected abstract moved(): void;
  protected left() { this.tip.hidden = true; }
  protected clicked() { /* nothing */ }

  X = (t: number) => this.box.left + (this.to === this.from ? 0.5 : (t - this.from) / (this.to - this.from)) * (this.box.right - this.box.left);
  timeAt = (x: number) => this.from + (x - this.box.left) / (this.box.right - this.box.left) * (this.to - this.from);
  private warp(v: number) { return this.scale === 'log' ? Math.log10(Math.max(v, Number.MIN_VALUE)) : this.scale === 'asinh' ? Math.asinh(v / this.knee) : v; }
  private warped: [number, number] = [0, 1];
  Y = (v: number) => this.box.bottom - (this.warp(v) - this.warped[0]) / (this.warped[1] - this.warped[0]) * (this.box.bottom - this.box.top);
  valueAt = (y: number) => {
    const w = this.warped[0] + (this.box.bottom - y) / (this.box.bottom - this.box.top) * (this.warped[1] - this.warped[0]);
    return this.scale === 'log' ? 10 ** w : this.scale === 'asinh' ? Math.sinh(w) * this.knee : w;
  };

  private context(canvas: HTMLCanvasElement): CanvasRenderingContext2D | null {
    const dpr = devicePixelRatio || 1, w = Math.round(this.width * dpr), h = Math.round(this.height * dpr);
    if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; canvas.style.width = this.width + 'px'; canvas.style.height = this.height + 'px'; }
    const c = canvas.getContext('2d');
    c?.setTransform(dpr, 0, 0, dpr, 0, 0);
    c?.clearRect(0, 0, this.width, this.height);
    return c;
  }

  protected redraw() {
    this.width = Math.max(160, this.root.clientWidth);
    this.height = innerWidth < 700 ? 290 : Math.max(300, Math.min(600, Math.round(innerHeight * 0.46)));
    this.root.style.height = this.height + 'px';
    const c = this.context(this.lower);
    if (!c) return;
    this.measure();
    this.warped = [this.warp(this.low), this.warp(this.high)];
    if (this.warped[0] === this.warped[1]) this.warped[1] += 1;
    c.font = FONT;
    const { look } = this, rows = Math.max(2, Math.floor((this.height - 50) / 46));
    const ys = this.scale === 'linear' ? valueTicks(this.low, this.high, rows, look.unit === 'bytes' || look.unit === 'bytes/s') : this.scale === 'log' ? logTicks(this.low, this.high, rows) : [0, ...logTicks(this.knee, Math.max(this.high, this.knee * 10), rows / 2).filter(v => v <= this.high), ...logTicks(this.knee, Math.max(-this.low, this.knee * 10), rows / 2).map(v => -v).filter(v => v >= this.low)];
    let texts = ys.map(v => withUnit(v, look.unit));
    if (new Set(texts).size < texts.length) texts = ys.map(v => digits(v, 8));
    const wide = Math.max(...texts.map(t => c.measureText(t).width), 20);
    this.box = { left: Math.ceil(wide) + 14, top: 10, right: this.width - 12, bottom: this.height - 36 };
    c.textBaseline = 'middle'; c.lineWidth = 1; c.strokeStyle = css('--grid'); c.fillStyle = css('--soft'); c.textAlign = 'right';
    let last = Infinity;
    ys.slice().sort((a, b) => a - b).forEach(v => {
      const y = Math.round(this.Y(v)) + 0.5;
      if (y < this.box.top - 2 || y > this.box.bottom + 2) return;
      c.beginPath(); c.moveTo(this.box.left, y); c.lineTo(this.box.right, y); c.stroke();
      if (last - y >= 14) { c.fillText(texts[ys.indexOf(v)], this.box.left - 7, y); last = y; }
    });
    c.textAlign = 'center'; c.textBaseline = 'top';
    const span = this.box.right - this.box.left;
    for (const t of timeTicks(this.from, this.to, Math.max(2, Math.floor(span / 78)), look.zone)) {
      const x = Math.round(this.X(t.at)) + 0.5;
      c.beginPath(); c.moveTo(x, this.box.top); c.lineTo(x, this.box.bottom); c.stroke();
      const half = c.measureText(t.text).width / 2, at = Math.min(this.width - half - 1, Math.max(half + 1, x));
      c.fillText(t.text, at, this.box.bottom + 7);
      if (t.day) { const h = c.measureText(t.day).width / 2; c.fillText(t.day, Math.min(this.width - h - 1, Math.max(h + 1, x)), this.box.bottom + 21); }
    }
    c.save();
    c.beginPath(); c.rect(this.box.left, this.box.top - 4, span, this.box.bottom - this.box.top + 8); c.clip();
    this.paint(c);
    c.restore();
    this.tiers(c);
    Object.assign(this.over.style, { left: this.box.left + 'px', top: this.box.top + 'px', width: span + 'px', height: this.box.bottom - this.box.top + 'px' });
    this.overlay();
  }

  /** Where on the time axis which resolution answered: raw samples are plain. */
  private tiers(c: CanvasRenderingContext2D) {
    const { box } = this;
    c.font = '11px system-ui, sans-serif'; c.textAlign = 'left'; c.textBaseline = 'bottom';
    let last = { text: '', right: -Infinity };
    for (const p of this.look.parts) {
      if (p.resolution === 'raw') continue;
      const x = Math.max(box.left, this.X(Date.parse(p.start) / 1e3)), w = Math.min(box.right, this.X(Date.parse(p.end) / 1e3)) - x;
      if (w <= 0) continue;
      c.fillStyle = css(TIERS[p.resolution] ?? '--tier2');
      c.fillRect(x, box.bottom, w, 4);
      // Said once where the same goes on.
      const text = (p.exact ? '' : '~') + p.resolution, goesOn = text === last.text && x - last.right < 3;
      if (!goesOn && w > c.measureText(text).width + 8) c.fillText(text, x + 3, box.bottom - 2);
      last = { text, right: x + w };
    }
    // What was deleted or is kept no longer lies above, as hatching.
    c.textBaseline = 'top'; c.lineWidth = 1;
    for (const h of this.look.hidden) {
      const x = Math.max(box.left, this.X(h.from)), w = Math.max(2, Math.min(box.right, this.X(h.to)) - x);
      c.save();
      c.beginPath(); c.rect(x, box.top, w, 6); c.clip();
      c.strokeStyle = css('--warn');
      c.beginPath();
      for (let at = x - 6; at < x + w; at += 5) { c.moveTo(at, box.top + 6); c.lineTo(at + 6, box.top); }
      c.stroke();
      c.restore();
      c.fillStyle = css('--warn');
      if (w > c.measureText(h.what).width + 8) c.fillText(h.what, x + 3, box.top + 8);
    }
  }

  /** What hides samples at a time. */
  protected hiddenAt(t: number): Hidden | undefined { return this.look.hidden.find(h => t >= h.from && t <= h.to); }

  protected tierAt(t: number): Part | undefined {
    return this.look.parts.find(p => p.resolution !== 'raw' && t * 1e3 >= Date.parse(p.start) && t * 1e3 <= Date.parse(p.end));
  }

  protected overlay() {
    const c = this.context(this.upper);
    if (!c) return;
    c.save();
    c.beginPath(); c.rect(this.box.left - 5, this.box.top - 5, this.box.right - this.box.left + 10, this.box.bottom - this.box.top + 10); c.clip();
    this.follow(c);
    c.restore();
    if (this.cursor) {
      const x = Math.round(this.X(this.xs[this.cursor.idx])) + 0.5;
      c.strokeStyle = css('--soft'); c.lineWidth = 1; c.setLineDash([3, 3]);
      c.beginPath(); c.moveTo(x, this.box.top); c.lineTo(x, this.box.bottom); c.stroke(); c.setLineDash([]);
      if (this.drag !== null && Math.abs(this.cursor.x - this.drag) > 3) { c.fillStyle = css('--accent'); c.globalAlpha = 0.16; c.fillRect(Math.min(this.drag, this.cursor.x), this.box.top, Math.abs(this.cursor.x - this.drag), this.box.bottom - this.box.top); c.globalAlpha = 1; }
    }
  }

  /** Index of the step nearest to a time. */
  private nearestStep(t: number): number {
    return Math.max(0, Math.min(this.xs.length - 1, Math.round((t - this.xs[0]) / (this.look.step || 1))));
  }

  private moveTo(x: number, y: number) {
    this.cursor = { x, y, idx: this.nearestStep(this.timeAt(x)) };
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => {
      if (!this.cursor) return;
      const begun = performance.now();
      if (!this.pinned) this.moved();
      this.overlay();
      this.moves.push(performance.now() - begun);
      if (this.moves.length > 100) this.moves.shift();
    });
  }

  private away() {
    if (this.pinned) return;
    cancelAnimationFrame(this.frame);
    this.cursor = null; this.drag = null;
    this.left();
    this.overlay();
  }
  protected unpin() { this.pinned = false; this.tip.classList.remove('pinned'); }

  private listen() {
    const o = this.over, signal = this.ended.signal;
    const at = (e: MouseEvent | Touch) => { const b = this.root.getBoundingClientRect(); return [e.clientX - b.left, e.clientY - b.top] as const; };
    const inside = (x: number) => Math.max(this.box.left, Math.min(this.box.right, x));
    o.addEventListener('pointermove', e => { if (e.pointerType === 'touch') return; const [x, y] = at(e); this.moveTo(this.drag === null ? x : inside(x), y); }, { signal });
    o.addEventListener('pointerdown', e => {
      if (e.pointerType === 'touch' || e.button) return;
      if (this.pinned && this.tip.contains(e.target as Node)) return;
      this.drag = at(e)[0];
      o.setPointerCapture(e.pointerId);
    }, { signal });
    o.addEventListener('pointerup', e => {
      if (this.drag === null) return;
      const from = this.drag, to = inside(at(e)[0]);
      this.drag = null;
      if (Math.abs(to - from) > 6) { this.unpin(); this.told.zoom(this.timeAt(Math.min(from, to)), this.timeAt(Math.max(from, to))); return; }
      if (this.pinned) { this.unpin(); this.moveTo(...at(e)); } else this.clicked();
      this.overlay();
    }, { signal });
    o.addEventListener('pointercancel', () => { this.drag = null; }, { signal });
    o.addEventListener('pointerleave', () => { if (this.drag === null) this.away(); }, { signal });
    o.addEventListener('dblclick', () => { this.unpin(); this.told.zoomOut(); }, { signal });
    const touch = (e: TouchEvent) => { const t = e.touches[0]; if (t) { const [x, y] = at(t); this.moveTo(inside(x), y); } };
    o.addEventListener('touchstart', touch, { passive: true, signal });
    o.addEventListener('touchmove', touch, { passive: true, signal });
    o.addEventListener('blur', () => { this.unpin(); this.away(); }, { signal });
    o.addEventListener('keydown', e => {
      if (e.key === 'Escape') { this.unpin(); this.away(); return; }
      if (e.key === 'Enter' && this.cursor) { this.clicked(); return; }
      const by = { ArrowLeft: -1, ArrowRight: 1, Home: -1e9, End: 1e9, PageUp: -10, PageDown: 10 }[e.key], lift = { ArrowUp: -12, ArrowDown: 12 }[e.key];
      if ((by === undefined && lift === undefined) || !this.xs.length) return;
      e.preventDefault();
      const last = this.xs.length - 1, idx = this.cursor ? Math.min(last, Math.max(0, this.cursor.idx + (by ?? 0))) : last;
      this.moveTo(this.X(this.xs[idx]), Math.max(this.box.top, Math.min(this.box.bottom, (this.cursor?.y ?? (this.box.top + this.box.bottom) / 2) + (lift ?? 0))));
    }, { signal });
  }

  /** Keeps the tooltip beside the pointer and inside of the plot. */
  protected beside(x: number) {
    const w = this.box.right - this.box.left, left = x - this.box.left, right = left > w / 2, { style } = this.tip;
    style.left = right ? 'auto' : Math.max(0, left + 16) + 'px';
    style.right = right ? Math.max(0, w - left + 16) + 'px' : 'auto';
    style.maxWidth = Math.max(170, (right ? left : w - left) - 20) + 'px';
  }
}
