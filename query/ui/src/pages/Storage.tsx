/** What is stored: blocks on a time line by level and resolution, the head, what compaction does and will do, what is hidden and what is wrong. */
import { Fragment } from 'preact';
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import { useInAddress } from '../address';
import { useAsk, type Asked } from '../ask';
import { bytes, count, grouped, short } from '../format';
import type { Deletion } from '../hidden';
import { css } from '../panel/axes';
import { Got, Page } from '../Shell';
import { dark, useCell, zone } from '../store';
import { ago, date, formatDuration, spoken, stamp } from '../time';

interface Block { ulid: string; minTime: number; maxTime: number; resolutionMs: number; level: number; series: number; samples: number; bytes: number; created?: number; writer?: string }
interface Totals { blocks: number; samples: number; bytes: number; minTime: number | null; maxTime: number | null }
interface Storage {
  head: { series: number; minTime: number; maxTime: number; bytes: number } | null; blocks: Block[]; retention?: Record<string, string>;
  local?: Totals; expired?: Totals; deletions?: Deletion[]; damaged?: { ulid: string; reason: string; since: number }[]; catalog?: { read: number | null; error: string | null }; troubles?: string[]; compacts?: boolean;
}
const nameOf = (ms: number) => ms ? formatDuration(ms / 1000) : 'raw';

export default function StoragePage() {
  const asked = useAsk<Storage>('storage', {}, 30_000), compacts = asked.data?.compacts ?? false, compaction = useAsk<Compaction>(compacts ? 'status/compaction' : null, {}, 10_000), inZone = useCell(zone), [chosen, setChosen] = useInAddress('block');
  return <Page title="Storage"><Got asked={asked}>{told => {
    // A head whose samples are all in blocks has series and no time.
    const s = told.head && !(told.head.minTime > 0 && told.head.minTime <= told.head.maxTime) ? { ...told, head: { ...told.head, minTime: Infinity, maxTime: -Infinity } } : told;
    const by = [...new Set(s.blocks.map(b => b.resolutionMs))].sort((a, b) => a - b);
    const sum = (f: (b: Block) => number, all = s.blocks) => all.reduce((n, b) => n + f(b), 0);
    const raw = s.blocks.filter(b => !b.resolutionMs);
    const oldest = s.blocks.reduce((m, b) => Math.min(m, b.minTime), Math.min(s.head?.minTime ?? Infinity, s.local?.minTime ?? Infinity));
    return <>
      <Health s={s} c={compaction.data} />
      <div class="tiles">
        <div class="card tile"><b>{bytes(sum(b => b.bytes))}</b><span>in {count(s.blocks.length, 'block')}</span></div>
        <div class="card tile"><b>{short(sum(b => b.samples))}</b><span>samples in blocks</span></div>
        {raw.length > 0 && <div class="card tile"><b>{(sum(b => b.bytes, raw) / Math.max(1, sum(b => b.samples, raw))).toFixed(2)} B</b><span>a raw sample</span></div>}
        {s.head && <div class="card tile"><b>{grouped(s.head.series)}</b><span>series in the head, {bytes(s.head.bytes)}</span></div>}
        {(s.local?.blocks ?? 0) > 0 && <div class="card tile"><b>{short(s.local!.samples)}</b><span>samples on the local disk, {bytes(s.local!.bytes)}, until they are flushed</span></div>}
        {Number.isFinite(oldest) && <div class="card tile"><b>{date(oldest / 1000, inZone)}</b><span>oldest sample, {ago(oldest)}</span></div>}
      </div>
      <section class="card block"><h2>Blocks over time</h2>
        {s.blocks.length || s.head ? <TimeLine s={s} chosen={chosen} choose={setChosen} /> : null}
        {!s.blocks.length && <p class="soft">None yet: the head becomes a block every two hours.</p>}
      </section>
      <div class="halves">
        {by.length > 0 && <section class="card block"><h2>By resolution</h2><table><thead><tr><th>Resolution</th><th class="v">Blocks</th><th class="v">Samples</th><th class="v">Bytes</th><th class="v wide">Covers</th></tr></thead><tbody>{by.map(r => { const all = s.blocks.filter(b => b.resolutionMs === r), from = Math.min(...all.map(b => b.minTime)), to = Math.max(...all.map(b => b.maxTime)); return <tr key={r}><td>{nameOf(r)}</td><td class="v">{all.length}</td><td class="v">{short(sum(b => b.samples, all))}</td><td class="v">{bytes(sum(b => b.bytes, all))}</td><td class="v wide">{spoken((to - from) / 1000)}</td></tr>; })}</tbody></table></section>}
        {s.retention && <section class="card block"><h2>Retention</h2><dl class="kv">{Object.entries(s.retention).map(([k, v]) => <Fragment key={k}><dt>{k}</dt><dd>{v}</dd></Fragment>)}
          {(s.expired?.blocks ?? 0) > 0 && <><dt>expired</dt><dd>{count(s.expired!.blocks, 'block')}, {bytes(s.expired!.bytes)}: no query sees them; a longer retention would still bring them back</dd></>}</dl></section>}
        {compacts && <Compacting asked={compaction} />}
        {s.deletions && <Hiding all={s.deletions} />}
      </div>
      {s.blocks.length > 0 && <section class="card block" style={{ marginTop: '16px' }}><h2>Blocks</h2><div class="scroll" tabIndex={0} role="region" aria-label="Blocks"><table class="straight"><thead><tr><th class="wide">Block</th><th>From</th><th class="wide">Spans</th><th>Resolution</th><th class="v wide">Level</th><th class="v wide">Series</th><th class="v">Samples</th><th class="v">Bytes</th></tr></thead><tbody>{[...s.blocks].sort((a, b) => b.minTime - a.minTime || a.resolutionMs - b.resolutionMs).slice(0, 1000).map(b => <tr key={b.ulid} class={chosen === b.ulid ? 'near' : ''}><td class="mono wide" title={b.ulid}>{b.ulid.slice(0, 14)}</td><td class="num">{stamp(b.minTime / 1000, inZone).slice(0, 16)}</td><td class="num wide">{spoken((b.maxTime - b.minTime) / 1000)}</td><td>{nameOf(b.resolutionMs)}</td><td class="v wide">{b.level}</td><td class="v wide">{grouped(b.series)}</td><td class="v">{short(b.samples)}</td><td class="v">{bytes(b.bytes)}</td></tr>)}</tbody></table></div>{s.blocks.length > 1000 && <p class="foot soft">The newest 1,000 of {grouped(s.blocks.length)}.</p>}</section>}
    </>;
  }}</Got></Page>;
}

/** What is wrong, or that nothing is. */
function Health({ s, c }: { s: Storage; c: Compaction | null }) {
  const bad = s.damaged ?? [], failed = c?.lastRound?.errors ?? [], read = s.catalog?.read;
  if (!s.catalog) return null;
  const fine = !bad.length && !failed.length && !s.catalog.error && !s.troubles?.length;
  return <>
    {s.catalog.error && <div class="note bad" role="alert"><b>The object store cannot be read</b><p class="cut">{s.catalog.error.slice(0, 2000)}</p><p>Queries go on with what was known {read ? ago(read) : 'before'}; new samples stay in the log and on the local disk until it is back.</p></div>}
    {bad.length > 0 && <div class="note bad" role="alert"><b>{count(bad.length, 'block')} cannot be read</b>{bad.slice(0, 20).map(d => <p key={d.ulid} class="cut"><span class="mono">{d.ulid}</span>, found {ago(d.since)}: {d.reason.slice(0, 1000)}</p>)}<p>Queries that need them say so, and compaction leaves them alone. <code>hearth bucket verify</code> tells more; a copy from a backup, put in the same place, heals them.</p></div>}
    {(s.troubles?.length ?? 0) > 0 && <div class="note warn"><b>Since this process began</b>{s.troubles!.map(t => <p key={t}>{t}</p>)}<p>Its log has the details.</p></div>}
    {failed.length > 0 && <div class="note warn"><b>Compaction did not manage everything in its last round</b>{failed.slice(0, 10).map((t, i) => <p key={i} class="cut">{t.slice(0, 1000)}</p>)}<p>It tries again by itself.</p></div>}
    <p class="soft num" role="status">{fine && <span class="badge good">healthy</span>} {read && `catalog read ${ago(read)}`}{c?.lastRound ? `, compaction looked ${ago(c.lastRound.ended * 1000)}` : ''}</p>
  </>;
}

interface Planned { tenant: string; why: string; from: number; to: number; inputs: number; inputBytes: number; waitsUntil: number | null; since?: number }
interface Ran { tenant: string; ended: number; seconds: number; why: string; from: number; to: number; inputs: number; outputs?: number; bytesRead?: number; bytesWritten?: number; error?: string }
interface Compaction { runs: Ran[]; planned?: Planned[]; working?: Planned | null; lastRound?: { ended: number; errors: string[] } | null; levels?: number[]; grace?: number }
const DOES: Record<string, string> = { cut: 'cuts at the ends of its span', overlap: 'merges what overlaps', merge: 'merges a span that is over', downsample: 'makes rollups', rewrite: 'takes out what is hidden' };

function Compacting({ asked }: { asked: Asked<Compaction> }) {
  const inZone = useCell(zone), from = (j: { from: number }) => stamp(Math.round(j.from), inZone).slice(0, 16), span = (j: { from: number; to: number }) => `${from(j)}, ${spoken(j.to - j.from)}`;
  return <section class="card block"><h2>Compaction</h2><Got asked={asked}>{c => {
    const next = (c.levels ?? []).map(l => ({ l, at: (Math.floor(Date.now() / 1000 / l) + 1) * l + (c.grace ?? 0) })), several = new Set([...c.runs, ...c.planned ?? []].map(j => j.tenant)).size > 1;
    const job = (j: Planned) => <>{DOES[j.why] ?? j.why}: {count(j.inputs, 'block')}, {bytes(j.inputBytes)} <span class="soft num">({span(j)}{several ? ', ' + j.tenant : ''})</span></>;
    return <>
      {c.working && <p role="status"><span class="badge good">now</span> {job(c.working)}{c.working.since ? `, since ${spoken(Date.now() / 1000 - c.working.since)}` : ''}</p>}
      {(c.planned ?? []).length > 0 && <><h3>Planned</h3><ul class="why">{c.planned!.slice(0, 12).map((j, i) => <li key={i}>{job(j)}{j.waitsUntil ? <span class="badge warn">failed, again {ago(j.waitsUntil * 1000)}</span> : null}</li>)}{c.planned!.length > 12 && <li class="soft">and {grouped(c.planned!.length - 12)} more</li>}</ul></>}
      {!c.working && !c.planned?.length && <p class="soft">Nothing to do now.</p>}
      {next.length > 0 && <p class="soft num">Spans that end next: {next.map(n => `${formatDuration(n.l)} ${ago(n.at * 1000)}`).join(', ')}.</p>}
      {c.runs.length > 0 && <><h3>Latest</h3><table class="alerts"><tbody>{c.runs.slice(0, 8).map((r, i) => <tr key={i}><td>{DOES[r.why] ?? r.why}<div class="soft num">{span(r)}{several ? ', ' + r.tenant : ''}</div>{r.error && <div class="note bad">{r.error.slice(0, 600)}</div>}</td><td class="v">{r.error ? <span class="badge bad">failed</span> : `${r.inputs} → ${r.outputs}`}{r.bytesRead ? <div class="soft">{bytes(r.bytesRead)} → {bytes(r.bytesWritten ?? 0)}</div> : null}</td><td class="v">{ago(r.ended * 1000)}<div class="soft">took {spoken(r.seconds)}</div></td></tr>)}</tbody></table></>}
    </>;
  }}</Got></section>;
}

/** Deletions that blocks are still to be rewritten for. */
function Hiding({ all }: { all: Deletion[] }) {
  const inZone = useCell(zone);
  const when = (ms: number, otherwise: string) => Math.abs(ms) > 8e15 || ms < -6e13 || ms > 4e15 ? otherwise : stamp(Math.round(ms / 1000), inZone).slice(0, 16);
  return <section class="card block"><h2>Hidden by deletion</h2>
    {!all.length ? <p class="soft">Nothing waits to be taken out of the blocks.</p> : <><p class="soft">No query sees these samples; compaction takes them out of the blocks the next time it writes them.</p>
      <table><tbody>{all.slice(-100).reverse().map((d, i) => <tr key={i}><td><code class="cut">{d.selector.slice(0, 600)}</code><div class="soft num">{when(d.minTime, 'from the beginning')} to {when(d.maxTime, 'the end')}</div></td><td class="v">{ago(d.created)}</td></tr>)}</tbody></table></>}
  </section>;
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
  const from = Math.min(...s.blocks.map(b => b.minTime), s.head?.minTime ?? Infinity, s.local?.minTime ?? Infinity), to = Math.max(Date.now(), ...s.blocks.map(b => b.maxTime));
  // What is newer than the last block is in the head, or in local blocks beside its log.
  const headFrom = Math.min(s.head?.minTime ?? Infinity, s.local?.minTime ?? Infinity, s.blocks.filter(b => !b.resolutionMs).reduce((m, b) => Math.max(m, b.maxTime), -Infinity) > 0 ? s.blocks.filter(b => !b.resolutionMs).reduce((m, b) => Math.max(m, b.maxTime), 0) : Infinity);
  const left = 86, lane = 16, top = 4, gap = 6;
  const height = top + rows.reduce((h, r) => h + r.lanes.length * lane + gap, 0) + ((s.head?.maxTime ?? 0) > 0 ? lane + gap : 0) + 22;
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
    if (s.head && s.head.maxTime > 0) { c.fillStyle = css('--soft'); c.fillText('head', 0, y + lane / 2); c.fillStyle = css('--exemplar'); c.fillRect(X(headFrom), y + 2, Math.max(2, X(s.head.maxTime) - X(headFrom)), lane - 4); y += lane + gap; }
    c.fillStyle = css('--soft'); c.textBaseline = 'alphabetic';
    const ticks = Math.max(2, Math.floor((width - left) / 130));
    for (let i = 0; i <= ticks; i++) { const t = from + (to - from) * i / ticks, text = to - from > 4 * 86_400_000 ? date(t / 1000, inZone) : to - from < 3_600_000 ? stamp(Math.round(t / 1000), inZone).slice(11, 19) : stamp(Math.round(t / 1000), inZone).slice(5, 16); c.textAlign = i === 0 ? 'left' : i === ticks ? 'right' : 'center'; c.fillText(text, X(t), height - 4); }
    c.textAlign = 'left';
  }, [rows, width, isDark, inZone, chosen]);
  const at = (e: MouseEvent) => { const box = canvas.current!.getBoundingClientRect(), px = e.clientX - box.left, py = e.clientY - box.top; return boxes.find(b => px >= b.x - 1 && px <= b.x + b.w + 1 && py >= b.y && py <= b.y + lane); };
  const over = s.blocks.find(b => b.ulid === chosen);
  return <div class="timeline"><canvas ref={canvas} height={height} style={{ height: height + 'px' }} role="img" aria-label={`${s.blocks.length} blocks from ${stamp(Math.round(from / 1000), inZone)} to now; the table below lists them`} onMouseMove={e => choose(at(e)?.b.ulid ?? '')} onClick={e => choose(at(e)?.b.ulid ?? '')} />
    <p class="key" role="status">{over ? <span>{over.ulid}: {stamp(over.minTime / 1000, inZone).slice(0, 16)}, {spoken((over.maxTime - over.minTime) / 1000)}, {nameOf(over.resolutionMs)}, level {over.level}, {count(over.series, 'series', 'series')}, {short(over.samples)} samples, {bytes(over.bytes)}</span>
      : <><span><i style={{ '--c': 'var(--accent)' }} />raw</span><span><i style={{ '--c': 'var(--tier1)' }} />5m rollups</span><span><i style={{ '--c': 'var(--tier2)' }} />1h rollups</span><span><i style={{ '--c': 'var(--exemplar)' }} />head and local blocks</span></>}</p></div>;
}
