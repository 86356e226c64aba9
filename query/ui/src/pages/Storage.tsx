/** What is stored: blocks on a time line by level and resolution, the head, retention. */
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import { useAsk } from '../ask';
import { bytes, count, grouped, short } from '../format';
import { css } from '../panel/axes';
import { Got, Page } from '../Shell';
import { dark, useCell, zone } from '../store';
import { ago, date, formatDuration, spoken, stamp } from '../time';

interface Block { ulid: string; minTime: number; maxTime: number; resolutionMs: number; level: number; series: number; samples: number; bytes: number; created?: number; writer?: string }
interface Storage { head: { series: number; minTime: number; maxTime: number; bytes: number } | null; blocks: Block[]; retention?: Record<string, string>; snapshot?: number }
const nameOf = (ms: number) => ms ? formatDuration(ms / 1000) : 'raw';

export default function StoragePage() {
  const asked = useAsk<Storage>('storage', {}, 30_000), inZone = useCell(zone), [chosen, setChosen] = useState('');
  return <Page title="Storage"><Got asked={asked}>{s => {
    const by = [...new Set(s.blocks.map(b => b.resolutionMs))].sort((a, b) => a - b);
    const sum = (f: (b: Block) => number, all = s.blocks) => all.reduce((n, b) => n + f(b), 0);
    const raw = s.blocks.filter(b => !b.resolutionMs);
    const oldest = s.blocks.reduce((m, b) => Math.min(m, b.minTime), s.head?.minTime ?? Infinity);
    return <>
      <div class="tiles">
        <div class="card tile"><b>{bytes(sum(b => b.bytes))}</b><span>in {count(s.blocks.length, 'block')}</span></div>
        <div class="card tile"><b>{short(sum(b => b.samples))}</b><span>samples in blocks</span></div>
        {raw.length > 0 && <div class="card tile"><b>{(sum(b => b.bytes, raw) / Math.max(1, sum(b => b.samples, raw))).toFixed(2)} B</b><span>a raw sample</span></div>}
        {s.head && <div class="card tile"><b>{grouped(s.head.series)}</b><span>series in the head, {bytes(s.head.bytes)}</span></div>}
        {Number.isFinite(oldest) && <div class="card tile"><b>{date(oldest / 1000, inZone)}</b><span>oldest sample, {ago(oldest)}</span></div>}
      </div>
      <section class="card block"><h2>Blocks over time</h2>
        {s.blocks.length || s.head ? <TimeLine s={s} chosen={chosen} choose={setChosen} /> : null}
        {!s.blocks.length && <p class="soft">None yet: the head becomes a block every two hours.</p>}
      </section>
      <div class="halves">
        <section class="card block"><h2>By resolution</h2><table><thead><tr><th>Resolution</th><th class="v">Blocks</th><th class="v">Samples</th><th class="v">Bytes</th><th class="v wide">Covers</th></tr></thead><tbody>{by.map(r => { const all = s.blocks.filter(b => b.resolutionMs === r), from = Math.min(...all.map(b => b.minTime)), to = Math.max(...all.map(b => b.maxTime)); return <tr key={r}><td>{nameOf(r)}</td><td class="v">{all.length}</td><td class="v">{short(sum(b => b.samples, all))}</td><td class="v">{bytes(sum(b => b.bytes, all))}</td><td class="v wide">{spoken((to - from) / 1000)}</td></tr>; })}</tbody></table></section>
        {s.retention && <section class="card block"><h2>Retention</h2><dl class="kv">{Object.entries(s.retention).map(([k, v]) => <><dt>{k}</dt><dd>{v}</dd></>)}</dl></section>}
      </div>
      <section class="card block" style={{ marginTop: '16px' }}><h2>Blocks</h2><div class="scroll" tabIndex={0} role="region" aria-label="Blocks"><table><thead><tr><th>Block</th><th>From</th><th class="wide">Spans</th><th>Resolution</th><th class="v wide">Level</th><th class="v">Series</th><th class="v">Samples</th><th class="v">Bytes</th></tr></thead><tbody>{[...s.blocks].sort((a, b) => b.minTime - a.minTime || a.resolutionMs - b.resolutionMs).slice(0, 1000).map(b => <tr key={b.ulid} class={chosen === b.ulid ? 'near' : ''}><td class="mono" title={b.ulid}>{b.ulid.slice(0, 14)}</td><td class="num">{stamp(b.minTime / 1000, inZone).slice(0, 16)}</td><td class="num wide">{spoken((b.maxTime - b.minTime) / 1000)}</td><td>{nameOf(b.resolutionMs)}</td><td class="v wide">{b.level}</td><td class="v">{grouped(b.series)}</td><td class="v">{short(b.samples)}</td><td class="v">{bytes(b.bytes)}</td></tr>)}</tbody></table></div></section>
    </>;
  }}</Got></Page>;
}

function TimeLine({ s, chosen, choose }: { s: Storage; chosen: string; choose(id: string): void }) {
  const canvas = useRef<HTMLCanvasElement>(null), isDark = useCell(dark), inZone = useCell(zone), [width, setWidth] = useState(800);
  const rows = useMemo(() => {
    const keys = [...new Set(s.blocks.map(b => `${b.resolutionMs} ${b.level}`))].map(k => k.split(' ').map(Number)).sort((a, b) => a[0] - b[0] || a[1] - b[1]);
    // Blocks of one level that overlap lie below each other.
    return keys.map(([resolution, level]) => {
      const lanes: Block[][] = [];
      for (const b of s.blocks.filter(b => b.resolutionMs === resolution && b.level === level).sort((a, b) => a.minTime - b.minTime)) {
        const lane = lanes.find(l => l[l.length - 1].maxTime <= b.minTime + 1) ?? (lanes.length < 6 ? (lanes.push([]), lanes[lanes.length - 1]) : lanes[5]);
        lane.push(b);
      }
      return { resolution, level, lanes };
    });
  }, [s]);
  const from = Math.min(...s.blocks.map(b => b.minTime), s.head?.minTime ?? Infinity), to = Math.max(Date.now(), ...s.blocks.map(b => b.maxTime));
  // What is newer than the last block is in the head, or in local blocks beside its log.
  const headFrom = Math.min(s.head?.minTime ?? Infinity, s.blocks.filter(b => !b.resolutionMs).reduce((m, b) => Math.max(m, b.maxTime), -Infinity) > 0 ? s.blocks.filter(b => !b.resolutionMs).reduce((m, b) => Math.max(m, b.maxTime), 0) : Infinity);
  const left = 86, lane = 16, top = 4, gap = 6;
  const height = top + rows.reduce((h, r) => h + r.lanes.length * lane + gap, 0) + (s.head ? lane + gap : 0) + 22;
  const X = (t: number) => left + (t - from) / Math.max(1, to - from) * (width - left - 6);
  useEffect(() => {
    const e = canvas.current?.parentElement;
    if (!e) return;
    const sized = new ResizeObserver(() => setWidth(e.clientWidth));
    sized.observe(e); setWidth(e.clientWidth);
    return () => sized.disconnect();
  }, []);
  const boxes: { x: number; y: number; w: number; b: Block }[] = [];
  let y = top;
  for (const r of rows) { for (const l of r.lanes) { for (const b of l) boxes.push({ x: X(b.minTime), y, w: Math.max(2, X(b.maxTime) - X(b.minTime) - 1), b }); y += lane; } y += gap; }
  useEffect(() => {
    const c = canvas.current?.getContext('2d');
    if (!c) return;
    const dpr = devicePixelRatio;
    c.canvas.width = width * dpr; c.canvas.height = height * dpr; c.scale(dpr, dpr);
    c.font = '12px system-ui, sans-serif'; c.textBaseline = 'middle';
    let y = top;
    for (const r of rows) { c.fillStyle = css('--soft'); c.fillText(`${nameOf(r.resolution)}, level ${r.level}`, 0, y + lane / 2); y += r.lanes.length * lane + gap; }
    for (const { x, y, w, b } of boxes) { c.fillStyle = b.ulid === chosen ? css('--ink') : b.resolutionMs === 0 ? css('--accent') : b.resolutionMs < 3_600_000 ? css('--tier1') : css('--tier2'); c.globalAlpha = b.ulid === chosen ? 1 : 0.78; c.fillRect(x, y + 2, w, lane - 4); c.globalAlpha = 1; }
    if (s.head && s.head.series) { c.fillStyle = css('--soft'); c.fillText('head', 0, y + lane / 2); c.fillStyle = css('--exemplar'); c.fillRect(X(headFrom), y + 2, Math.max(2, X(s.head.maxTime) - X(headFrom)), lane - 4); y += lane + gap; }
    c.fillStyle = css('--soft'); c.textBaseline = 'alphabetic';
    const ticks = Math.max(2, Math.floor((width - left) / 130));
    for (let i = 0; i <= ticks; i++) { const t = from + (to - from) * i / ticks, text = to - from > 4 * 86_400_000 ? date(t / 1000, inZone) : stamp(Math.round(t / 1000), inZone).slice(5, 16); c.textAlign = i === 0 ? 'left' : i === ticks ? 'right' : 'center'; c.fillText(text, X(t), height - 4); }
    c.textAlign = 'left';
  }, [rows, width, isDark, inZone, chosen]);
  const at = (e: MouseEvent) => { const box = canvas.current!.getBoundingClientRect(), px = e.clientX - box.left, py = e.clientY - box.top; return boxes.find(b => px >= b.x - 1 && px <= b.x + b.w + 1 && py >= b.y && py <= b.y + lane); };
  const over = s.blocks.find(b => b.ulid === chosen);
  return <div class="timeline"><canvas ref={canvas} height={height} style={{ height: height + 'px' }} role="img" aria-label={`${s.blocks.length} blocks from ${stamp(Math.round(from / 1000), inZone)} to now; the table below lists them`} onMouseMove={e => choose(at(e)?.b.ulid ?? '')} onClick={e => choose(at(e)?.b.ulid ?? '')} />
    <p class="key" role="status">{over ? <span>{over.ulid}: {stamp(over.minTime / 1000, inZone).slice(0, 16)}, {spoken((over.maxTime - over.minTime) / 1000)}, {nameOf(over.resolutionMs)}, level {over.level}, {count(over.series, 'series', 'series')}, {short(over.samples)} samples, {bytes(over.bytes)}</span>
      : <><span><i style={{ '--c': 'var(--accent)' }} />raw</span><span><i style={{ '--c': 'var(--tier1)' }} />5m windows</span><span><i style={{ '--c': 'var(--tier2)' }} />1h windows</span><span><i style={{ '--c': 'var(--exemplar)' }} />head and local blocks</span></>}</p></div>;
}
