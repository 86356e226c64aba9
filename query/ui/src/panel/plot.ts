/** Lines over time: drawn once, and what follows the pointer above them, so that a move costs little with three series or three thousand. */
import { withUnit } from '../format';
import type { Labels } from '../api';
import { stamp } from '../time';
import { Axes, css, el, valueRange, type Look } from './axes';
import type { Exemplar } from './exemplars';

export interface Line {
  metric: Labels;
  /** What tells it from the others. */
  name: string;
  hash: string;
  color: string;
  dash?: number[];
  ys: (number | null)[];
  /** Of an earlier time, moved here. */
  past?: boolean;
}

export class Plot extends Axes {
  private lines: Line[] = [];
  private shown: Line[] = [];
  /** What is drawn of `shown`: the sums of a stack, and no value that the scale has no place for. */
  private drawn: (number | null)[][] = [];
  private nearest = -1;

  set(xs: number[], lines: Line[], hidden: Set<string>, look: Look) {
    this.xs = xs; this.lines = lines; this.look = look;
    this.from = xs[0]; this.to = xs[xs.length - 1];
    if (this.from === this.to) { this.from -= look.step || 1; this.to += look.step || 1; }
    this.shown = lines.filter(l => !hidden.has(l.hash));
    this.nearest = -1;
    this.cursor = null;
    this.unpin();
    this.tip.hidden = true;
    const usable = (y: number | null) => y !== null && Number.isFinite(y) && (!look.log || y > 0) ? y : null;
    if (look.stacked) {
      const sum = new Float64Array(xs.length);
      this.drawn = this.shown.map(l => l.past ? l.ys.map(usable) : l.ys.map((y, i) => { const v = usable(y); return v === null ? null : (sum[i] += v); }));
    } else this.drawn = this.shown.map(l => l.ys.map(usable));
    this.over.setAttribute('aria-label', `Graph of ${this.lines.length} series, ${stamp(xs[0], look.zone)} to ${stamp(xs[xs.length - 1], look.zone)}. Arrow keys move through time; the legend below has the figures.`);
    this.redraw();
  }

  /** Lifts one line out, as the pointer does: for the legend. */
  lift(hash: string | null) {
    this.nearest = hash === null ? -1 : this.shown.findIndex(l => l.hash === hash);
    this.overlay();
  }

  protected measure() {
    let low = Infinity, high = -Infinity;
    for (const ys of this.drawn) for (const y of ys) if (y !== null) { if (y < low) low = y; if (y > high) high = y; }
    const { log, yMin, yMax, stacked } = this.look;
    this.scale = log ? 'log' : 'linear';
    if (log) {
      if (!Number.isFinite(low)) { low = 1; high = 10; }
      this.low = yMin && yMin > 0 ? yMin : low;
      this.high = yMax && yMax > this.low ? yMax : Math.max(high, this.low * 2);
      if (!(yMin && yMin > 0)) this.low /= 1.15;
      if (!(yMax && yMax > this.low)) this.high *= 1.15;
      return;
    }
    const [a, b] = valueRange(stacked ? Math.min(0, low) : low, high);
    this.low = yMin ?? a; this.high = yMax ?? b;
    if (this.low >= this.high) { this.low = a; this.high = b; }
  }

  private trace(c: CanvasRenderingContext2D, ys: (number | null)[]) {
    let down = false;
    c.beginPath();
    for (let i = 0; i < ys.length; i++) {
      const y = ys[i];
      if (y === null) { down = false; continue; }
      const px = this.X(this.xs[i]), py = this.Y(y);
      if (down) c.lineTo(px, py); else c.moveTo(px, py);
      down = true;
    }
  }

  protected paint(c: CanvasRenderingContext2D) {
    const { shown, drawn, look, box } = this, many = shown.length > 80;
    c.lineJoin = 'round';
    if (look.stacked) {
      // The highest sum first, each covered by those below it.
      for (let i = shown.length - 1; i >= 0; i--) if (!shown[i].past) this.area(c, drawn[i], shown[i].color, many ? 1 : 0.85);
    } else if (shown.filter(l => !l.past).length === 1 && !look.log) {
      const i = shown.findIndex(l => !l.past), fade = c.createLinearGradient(0, box.top, 0, box.bottom);
      fade.addColorStop(0, shown[i].color + '40'); fade.addColorStop(1, shown[i].color + '00');
      this.area(c, drawn[i], fade, 1);
    }
    for (let i = shown.length - 1; i >= 0; i--) {
      const l = shown[i], ys = drawn[i];
      c.strokeStyle = l.color; c.lineWidth = many ? 1 : 1.7;
      c.globalAlpha = l.past ? 0.6 : 1;
      c.setLineDash(l.past ? [2, 4] : look.stacked ? [] : l.dash ?? []);
      this.trace(c, ys);
      c.stroke();
      c.setLineDash([]);
      c.fillStyle = l.color;
      // A sample without a neighbour is no line: a dot.
      for (let k = 0; k < ys.length; k++) if (ys[k] !== null && (k === 0 || ys[k - 1] === null) && (k === ys.length - 1 || ys[k + 1] === null)) { c.beginPath(); c.arc(this.X(this.xs[k]), this.Y(ys[k]!), 2.6, 0, 7); c.fill(); }
    }
    c.globalAlpha = 1;
    for (const e of look.exemplars) {
      const x = this.X(e.at), y = this.Y(e.value), r = 4.5;
      c.beginPath(); c.moveTo(x, y - r); c.lineTo(x + r, y); c.lineTo(x, y + r); c.lineTo(x - r, y); c.closePath();
      c.fillStyle = css('--exemplar'); c.strokeStyle = css('--card'); c.lineWidth = 1; c.fill(); c.stroke();
    }
  }

  private area(c: CanvasRenderingContext2D, ys: (number | null)[], fill: string | CanvasGradient, alpha: number) {
    const ground = this.Y(this.scale === 'log' ? this.low : Math.max(this.low, Math.min(this.high, 0)));
    c.fillStyle = fill; c.globalAlpha = alpha;
    let run: number[] = [];
    const close = () => {
      if (run.length > 1) {
        c.beginPath(); c.moveTo(this.X(this.xs[run[0]]), ground);
        for (const i of run) c.lineTo(this.X(this.xs[i]), this.Y(ys[i]!));
        c.lineTo(this.X(this.xs[run[run.length - 1]]), ground); c.fill();
      }
      run = [];
    };
    for (let i = 0; i < ys.length; i++) if (ys[i] === null) close(); else run.push(i);
    close();
    c.globalAlpha = 1;
  }

  protected follow(c: CanvasRenderingContext2D) {
    const l = this.shown[this.nearest];
    if (!l) return;
    const ys = this.drawn[this.nearest];
    if (this.shown.length > 1) { c.fillStyle = css('--card'); c.globalAlpha = 0.5; c.fillRect(this.box.left, this.box.top, this.box.right - this.box.left, this.box.bottom - this.box.top); c.globalAlpha = 1; }
    c.strokeStyle = l.color; c.lineWidth = 2.6; c.lineJoin = 'round'; c.setLineDash(l.past ? [2, 4] : l.dash ?? []);
    this.trace(c, ys);
    c.stroke();
    c.setLineDash([]);
    const y = this.cursor ? ys[this.cursor.idx] : null;
    if (this.cursor && y !== null) { c.beginPath(); c.arc(this.X(this.xs[this.cursor.idx]), this.Y(y), 4.2, 0, 7); c.fillStyle = l.color; c.fill(); c.strokeStyle = css('--card'); c.lineWidth = 1.5; c.stroke(); }
  }

  protected moved() {
    const { x, y, idx } = this.cursor!, ranked: [number, number][] = [];
    let best = -1, least = Infinity;
    for (let i = 0; i < this.drawn.length; i++) {
      const v = this.drawn[i][idx];
      if (v === null || v === undefined) continue;
      const d = Math.abs(this.Y(v) - y);
      ranked.push([i, d]);
      if (d < least) { least = d; best = i; }
    }
    const before = this.nearest;
    this.nearest = best;
    this.say(idx, x, ranked, this.look.exemplars.find(e => Math.abs(this.X(e.at) - x) < 7 && Math.abs(this.Y(e.value) - y) < 7));
    if (before !== best) this.told.near(best < 0 ? null : this.shown[best].hash);
  }

  private say(idx: number, x: number, ranked: [number, number][], exemplar: Exemplar | undefined) {
    const { look } = this, t = this.xs[idx], most = innerWidth < 700 ? 4 : 9, out: Node[] = [el('time', '', stamp(t, look.zone))];
    if (exemplar) {
      const box = el('div', 'exemplar');
      box.append(el('b', '', 'Exemplar ' + withUnit(exemplar.value, look.unit)), el('div', 'of', stamp(exemplar.at, look.zone)));
      for (const [n, v] of Object.entries(exemplar.labels).slice(0, 8)) box.append(el('div', '', `${n} = ${v.slice(0, 300)}`));
      out.push(box);
    }
    if (look.title) out.push(el('div', 'of', look.title));
    const near = ranked.length > most ? [...ranked].sort((a, b) => a[1] - b[1]).slice(0, most) : ranked;
    near.sort((a, b) => (this.shown[b[0]].ys[idx] ?? 0) - (this.shown[a[0]].ys[idx] ?? 0));
    for (const [i] of near) {
      const l = this.shown[i], row = el('div', i === this.nearest ? 'row near' : 'row'), dot = el('i', 'dot');
      dot.style.background = l.color;
      row.append(dot, el('span', 'n', l.name.slice(0, 300)), el('b', '', withUnit(l.ys[idx] ?? NaN, look.unit)));
      out.push(row);
    }
    if (!ranked.length) out.push(el('div', 'of', 'no sample here'));
    if (ranked.length > near.length) out.push(el('div', 'of', `… ${(ranked.length - near.length).toLocaleString('en')} more here`));
    const tier = this.tierAt(t);
    if (tier) out.push(el('div', 'of', `from rollups of ${tier.resolution}${tier.exact ? '' : ', approximate'}`));
    const gone = this.hiddenAt(t);
    if (gone) out.push(el('div', 'of', gone.what === 'deleted' ? `deleted here: ${gone.selector!.slice(0, 200)}` : 'older than what is kept'));
    this.tip.replaceChildren(...out);
    this.tip.hidden = false;
    this.beside(x);
  }

  protected left() {
    super.left();
    if (this.nearest >= 0) { this.nearest = -1; this.told.near(null); }
  }

  protected clicked() {
    if (this.tip.hidden || this.nearest < 0) return;
    this.pinned = !this.pinned;
    this.tip.classList.toggle('pinned', this.pinned);
  }
}
