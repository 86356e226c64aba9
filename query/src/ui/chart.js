// A line chart on a canvas: linear time, linear values, gaps where there is no sample, a crosshair, and zoom by dragging.
'use strict';

const COLORS = {
  light: ['#d9480f', '#1971c2', '#2f9e44', '#9c36b5', '#e09f00', '#0c8599', '#e03131', '#5f3dc4', '#66a80f', '#c2255c', '#495057', '#a0642c'],
  dark: ['#ff8038', '#5aabff', '#63d07d', '#d783ef', '#ffcf4a', '#3fcfe0', '#ff7b7b', '#a48bff', '#a9e34b', '#ff7eb6', '#b8bfc6', '#d9a06c'],
};

/** 1234567 → 1.23M, with as many digits as the eye needs. */
function short(v, digits = 4) {
  if (!Number.isFinite(v)) return Number.isNaN(v) ? 'NaN' : v > 0 ? '+Inf' : '-Inf';
  const a = Math.abs(v);
  if (a === 0) return '0';
  if (a >= 1e15 || a < 1e-4) return v.toExponential(2).replace(/\.?0+e/, 'e');
  const [unit, name] = a >= 1e12 ? [1e12, 'T'] : a >= 1e9 ? [1e9, 'G'] : a >= 1e6 ? [1e6, 'M'] : a >= 1e4 ? [1e3, 'k'] : [1, ''];
  return String(Number((v / unit).toPrecision(digits))) + name;
}

const two = n => String(n).padStart(2, '0');
const clock = (t, seconds) => { const d = new Date(t * 1000); return two(d.getHours()) + ':' + two(d.getMinutes()) + (seconds ? ':' + two(d.getSeconds()) : ''); };
const day = t => { const d = new Date(t * 1000); return d.getFullYear() + '-' + two(d.getMonth() + 1) + '-' + two(d.getDate()); };

/** Steps of 1, 2 or 5 times a power of ten. */
function valueTicks(lo, hi, most) {
  const raw = (hi - lo) / most, power = 10 ** Math.floor(Math.log10(raw));
  const step = power * ([1, 2, 5, 10].find(m => m * power >= raw) || 10);
  const ticks = [];
  for (let i = Math.ceil(lo / step - 1e-9); i * step <= hi + step * 1e-9 && ticks.length < 50; i++) ticks.push(i * step);
  return ticks;
}

/** Whole seconds, minutes, hours or days of local time. */
function timeTicks(start, end, most) {
  const steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800, 2592000, 7776000, 31536000];
  const step = steps.find(s => (end - start) / s <= most) || steps[steps.length - 1];
  const zone = new Date(start * 1000).getTimezoneOffset() * 60;
  const ticks = [];
  for (let t = Math.ceil((start - zone) / step) * step + zone; t <= end; t += step) ticks.push(t);
  return { ticks, step };
}

class Chart {
  /** `place` takes the canvas and the tip; `zoom(start, end)` is called with seconds, `zoom(null)` on a double click. */
  constructor(place, zoom) {
    this.canvas = place.appendChild(document.createElement('canvas'));
    this.tip = place.appendChild(document.createElement('div'));
    this.tip.className = 'tip';
    this.tip.hidden = true;
    this.zoom = zoom;
    this.series = [];
    this.hover = null;
    this.drag = null;
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    const at = e => e.clientX - this.canvas.getBoundingClientRect().left;
    this.canvas.addEventListener('pointermove', e => { this.hover = { x: at(e), y: e.clientY - this.canvas.getBoundingClientRect().top }; this.draw(); });
    this.canvas.addEventListener('pointerleave', () => { this.hover = null; this.draw(); });
    this.canvas.addEventListener('pointerdown', e => { if (e.button === 0) { this.drag = at(e); this.canvas.setPointerCapture(e.pointerId); } });
    this.canvas.addEventListener('pointerup', e => {
      const from = this.drag, to = at(e);
      this.drag = null;
      if (from !== null && Math.abs(to - from) > 8) this.zoom(this.time(Math.min(from, to)), this.time(Math.max(from, to)));
      this.draw();
    });
    this.canvas.addEventListener('dblclick', () => this.zoom(null));
  }

  /** `series`: `{name, color, hidden, points: [[seconds, value], …]}`, points ascending. */
  set({ series, start, end, step }) {
    Object.assign(this, { series, start, end: Math.max(end, start + 1), step });
    this.draw();
  }

  time(x) {
    const t = this.start + (x - this.left) / this.width * (this.end - this.start);
    return Math.min(this.end, Math.max(this.start, t));
  }

  draw() {
    const { canvas } = this, w = canvas.clientWidth, h = canvas.clientHeight, ratio = window.devicePixelRatio || 1;
    if (!w || !h) return;
    canvas.width = w * ratio;
    canvas.height = h * ratio;
    const c = canvas.getContext('2d'), css = getComputedStyle(document.documentElement), ink = name => css.getPropertyValue(name).trim();
    c.scale(ratio, ratio);
    c.font = '12px system-ui, sans-serif';
    const shown = this.series.filter(s => !s.hidden);
    let lo = Infinity, hi = -Infinity;
    for (const s of shown) for (const [, v] of s.points) if (Number.isFinite(v)) { if (v < lo) lo = v; if (v > hi) hi = v; }
    if (lo > hi) { lo = 0; hi = 1; }
    if (lo === hi) { const d = Math.abs(lo) / 2 || 1; lo -= lo === 0 ? 0 : d; hi += d; }
    // Zero belongs into the picture unless that would flatten it.
    if (lo > 0 && lo < hi * 0.6) lo = 0;
    if (hi < 0 && hi > lo * 0.6) hi = 0;
    const air = (hi - lo) * 0.06;
    if (lo !== 0) lo -= air;
    if (hi !== 0) hi += air;
    const ticks = valueTicks(lo, hi, Math.max(2, h / 60));
    const labels = ticks.map(v => short(v, 6));
    this.left = Math.max(34, ...labels.map(l => c.measureText(l).width)) + 14;
    this.width = w - this.left - 10;
    const bottom = h - 26, top = 8;
    const X = t => this.left + (t - this.start) / (this.end - this.start) * this.width;
    const Y = v => bottom - (v - lo) / (hi - lo) * (bottom - top);

    c.lineWidth = 1;
    c.textBaseline = 'middle';
    c.textAlign = 'right';
    ticks.forEach((v, i) => {
      const y = Math.round(Y(v)) + 0.5;
      c.strokeStyle = v === 0 ? ink('--line') : ink('--grid');
      c.beginPath(); c.moveTo(this.left, y); c.lineTo(w - 10, y); c.stroke();
      c.fillStyle = ink('--soft');
      c.fillText(labels[i], this.left - 8, y);
    });
    c.textAlign = 'center';
    const along = timeTicks(this.start, this.end, Math.max(2, this.width / 105));
    for (const t of along.ticks) {
      const x = Math.round(X(t)) + 0.5, midnight = clock(t) === '00:00';
      c.strokeStyle = ink('--grid');
      c.beginPath(); c.moveTo(x, top); c.lineTo(x, bottom); c.stroke();
      c.fillStyle = midnight ? ink('--ink') : ink('--soft');
      if (x > this.left + 16 && x < w - 26) c.fillText(midnight || along.step >= 86400 ? day(t).slice(5) : clock(t, along.step < 60), x, bottom + 15);
    }

    c.save();
    c.beginPath(); c.rect(this.left, 0, this.width, h); c.clip();
    c.lineJoin = 'round';
    const near = this.nearest(shown, X, Y);
    for (const s of shown) {
      const strong = near && near.series === s;
      c.strokeStyle = c.fillStyle = s.color;
      c.lineWidth = strong ? 2.6 : shown.length > 40 ? 1.1 : 1.7;
      c.globalAlpha = near && !strong && shown.length > 1 ? 0.55 : 1;
      c.beginPath();
      let last = null, run = 0, alone = [];
      for (const [t, v] of s.points) {
        if (!Number.isFinite(v)) { if (run === 1) alone.push(last); last = null; run = 0; continue; }
        if (last && t - last[0] <= this.step * 1.5) { c.lineTo(X(t), Y(v)); run++; }
        else { if (run === 1) alone.push(last); c.moveTo(X(t), Y(v)); run = 1; }
        last = [t, v];
      }
      if (run === 1) alone.push(last);
      c.stroke();
      for (const [t, v] of alone) { c.beginPath(); c.arc(X(t), Y(v), 2, 0, 7); c.fill(); }
      if (shown.length === 1 && s.points.length > 1 && lo >= 0) this.wash(c, s, X, Y, bottom);
    }
    c.globalAlpha = 1;
    if (this.hover && this.drag !== null) {
      c.fillStyle = ink('--accent'); c.globalAlpha = 0.14;
      c.fillRect(this.drag, top, this.hover.x - this.drag, bottom - top);
      c.globalAlpha = 1;
    }
    if (near) {
      const x = Math.round(X(near.t)) + 0.5;
      c.strokeStyle = ink('--faint'); c.lineWidth = 1; c.setLineDash([3, 3]);
      c.beginPath(); c.moveTo(x, top); c.lineTo(x, bottom); c.stroke(); c.setLineDash([]);
      for (const r of near.rows) { c.fillStyle = r.series.color; c.beginPath(); c.arc(X(near.t), Y(r.v), r.series === near.series ? 4 : 2.5, 0, 7); c.fill(); }
    }
    c.restore();
    this.say(near, X);
  }

  /** A fading area under a line that is alone. */
  wash(c, s, X, Y, bottom) {
    const fade = c.createLinearGradient(0, 0, 0, bottom);
    fade.addColorStop(0, s.color); fade.addColorStop(1, 'transparent');
    c.fillStyle = fade; c.globalAlpha = 0.22;
    let run = [];
    const close = () => {
      if (run.length > 1) {
        c.beginPath(); c.moveTo(X(run[0][0]), bottom);
        for (const [t, v] of run) c.lineTo(X(t), Y(v));
        c.lineTo(X(run[run.length - 1][0]), bottom); c.fill();
      }
      run = [];
    };
    for (const p of s.points) {
      if (!Number.isFinite(p[1]) || run.length && p[0] - run[run.length - 1][0] > this.step * 1.5) close();
      if (Number.isFinite(p[1])) run.push(p);
    }
    close();
  }

  /** The sample time under the pointer, the values there, and the series closest to it. */
  nearest(shown, X, Y) {
    if (!this.hover || this.drag !== null && Math.abs(this.hover.x - this.drag) > 8) return null;
    const wanted = this.time(this.hover.x);
    let t = null;
    const rows = [];
    for (const s of shown) {
      let a = 0, b = s.points.length - 1;
      if (b < 0) continue;
      while (b - a > 1) { const m = (a + b) >> 1; if (s.points[m][0] < wanted) a = m; else b = m; }
      const p = Math.abs(s.points[a][0] - wanted) <= Math.abs(s.points[b][0] - wanted) ? s.points[a] : s.points[b];
      if (t === null || Math.abs(p[0] - wanted) < Math.abs(t - wanted)) t = p[0];
      rows.push({ series: s, t: p[0], v: p[1] });
    }
    if (t === null || Math.abs(X(t) - this.hover.x) > Math.max(30, this.width / 20)) return null;
    const here = rows.filter(r => r.t === t && Number.isFinite(r.v));
    let series = null, best = Infinity;
    for (const r of here) { const d = Math.abs(Y(r.v) - this.hover.y); if (d < best) { best = d; series = r.series; } }
    return { t, rows: here, series };
  }

  say(near, X) {
    this.tip.hidden = !near || !near.rows.length;
    if (this.tip.hidden) return;
    const rows = near.rows.sort((a, b) => b.v - a.v), at = rows.findIndex(r => r.series === near.series);
    const from = Math.max(0, Math.min(at - 5, rows.length - 11)), part = rows.slice(from, from + 11);
    const time = document.createElement('time');
    time.textContent = day(near.t) + ' ' + clock(near.t, true);
    this.tip.replaceChildren(time, ...part.map(r => {
      const row = document.createElement('div'), dot = document.createElement('i'), name = document.createElement('span'), v = document.createElement('em');
      dot.className = 'dot'; dot.style.background = r.series.color;
      name.textContent = r.series.name; v.textContent = short(r.v, 6);
      if (r.series === near.series) row.className = 'near';
      row.append(dot, name, v);
      return row;
    }));
    if (rows.length > part.length) this.tip.append(Object.assign(document.createElement('time'), { textContent: '… ' + (rows.length - part.length) + ' more' }));
    const x = X(near.t), right = x < this.canvas.clientWidth / 2;
    this.tip.style.left = right ? x + 30 + 'px' : 'auto';
    this.tip.style.right = right ? 'auto' : this.canvas.clientWidth - x + 30 + 'px';
    this.tip.style.top = '22px';
  }
}
