/** What stands above a result: which view, which time, and how it is drawn. */
import { useEffect, useRef, useState } from 'preact/hooks';
import { UNITS, type Unit } from '../format';
import { useCell, zone } from '../store';
import { formatDuration, parseDuration, parseStamp, stamp } from '../time';
import type { Mode, Panel, Tab } from '../url';

type Update = (patch: Partial<Panel>, push?: boolean) => void;
/** Ranges that one click makes shorter or longer to. */
const STEPS = [60, 300, 900, 1800, 3600, 7200, 21_600, 43_200, 86_400, 172_800, 604_800, 1_209_600, 2_592_000, 7_776_000, 15_552_000, 31_536_000, 94_608_000, 315_360_000];
const RANGES = [300, 900, 3600, 21_600, 86_400, 604_800, 2_592_000];

/** A text that becomes a value when it is left or entered, and turns red while it is none. */
export function Field<T>({ label, value, show, parse, set, placeholder, width, hint }: { label: string; value: T; show(v: T): string; parse(t: string): T | undefined; set(v: T): void; placeholder?: string; width: number; hint?: string }) {
  const [text, setText] = useState(show(value)), [bad, setBad] = useState(false), touched = useRef(false);
  useEffect(() => { setText(show(value)); setBad(false); touched.current = false; }, [show(value)]);
  const take = () => {
    if (!touched.current) return;
    const v = parse(text);
    if (v === undefined) { setBad(true); return; }
    touched.current = false;
    setBad(false); set(v);
    setText(show(v));
  };
  return <input type="text" aria-label={label} title={hint ?? label} aria-invalid={bad} class="field" style={{ width: width + 'ch' }} placeholder={placeholder} value={text} spellcheck={false} autocomplete="off"
    onInput={e => { touched.current = true; setText(e.currentTarget.value); setBad(false); }} onBlur={take} onKeyDown={e => { if (e.key === 'Enter') { touched.current = true; take(); } if (e.key === 'Escape') { setText(show(value)); setBad(false); touched.current = false; } }} />;
}
const number = (t: string) => t.trim() === '' ? null : Number.isFinite(Number(t)) ? Number(t) : undefined;

export function Tabs({ tab, id, set }: { tab: Tab; id: string; set(tab: Tab): void }) {
  const all: [Tab, string, string][] = [['graph', 'Graph', 'Over the range'], ['table', 'Table', 'At the end of the range'], ['explain', 'Explain', 'What each part of the query reads and costs']];
  const move = (e: KeyboardEvent) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[e.key];
    if (!by) return;
    e.preventDefault();
    const next = all[(all.findIndex(t => t[0] === tab) + by + all.length) % all.length][0];
    set(next);
    document.getElementById(`${id}-${next}`)?.focus();
  };
  return <div class="tabs" role="tablist" aria-label="View" onKeyDown={move}>{all.map(([t, name, title]) =>
    <button key={t} type="button" role="tab" id={`${id}-${t}`} aria-selected={tab === t} aria-controls={id + '-out'} tabIndex={tab === t ? 0 : -1} title={title} class={tab === t ? 'on' : ''} onClick={() => set(t)}>{name}</button>)}</div>;
}

export function Time({ p, update }: { p: Panel; update: Update }) {
  const inZone = useCell(zone), table = p.tab === 'table';
  const by = table ? Math.max(60, p.range / 2) : p.range / 2;
  const shift = (d: number) => {
    const end = Math.round((p.end ?? Date.now() / 1000) + d * by);
    update({ end: end >= Date.now() / 1000 ? null : end }, true);
  };
  const all = RANGES.includes(p.range) ? RANGES : [...RANGES, p.range].sort((a, b) => a - b);
  const shorter = STEPS.filter(r => r < p.range).pop(), longer = STEPS.find(r => r > p.range);
  const step = (name: string, sign: string, keys: string, to: number | undefined) => <button type="button" class="quiet icon" aria-label={name + ' range'} aria-keyshortcuts={keys} title={`${name} range${to ? ': ' + formatDuration(to) : ''} (${keys[0]})`} disabled={!to} onClick={() => update({ range: to! }, true)}>{sign}</button>;
  return <div class="times">
    {!table && <span class="moment">{step('Shorter', '−', '-', shorter)}
    <div class="ranges" role="group" aria-label="Range">
      {RANGES.map(r => <button key={r} type="button" class={p.range === r ? 'on' : ''} aria-pressed={p.range === r} onClick={() => update({ range: r }, true)}>{formatDuration(r)}</button>)}
      <Field label="Range" hint="Any range, such as 90m or 2d12h" width={6} value={p.range} show={r => RANGES.includes(r) ? '' : formatDuration(r)} placeholder="other" parse={t => t.trim() === '' ? p.range : parseDuration(t) ?? undefined} set={r => update({ range: r }, true)} />
    </div>
    <select class="ranges-short" aria-label="Range" value={String(p.range)} onChange={e => update({ range: Number(e.currentTarget.value) }, true)}>{all.map(r => <option key={r} value={String(r)}>{formatDuration(r)}</option>)}</select>
    {step('Longer', '+', '+ =', longer)}</span>}
    <div class="moment">
      <button type="button" class="quiet icon" aria-label="Earlier" aria-keyshortcuts="," title={`Earlier by ${formatDuration(by)} (,)`} onClick={() => shift(-1)}>‹</button>
      <Field label={table ? 'Moment' : 'End of the range'} hint="YYYY-MM-DD HH:MM:SS; empty is now" width={p.end === null ? 9 : 20} value={p.end} placeholder={table ? 'now' : 'until now'} show={e => e === null ? '' : stamp(e, inZone)} parse={t => t.trim() === '' || t.trim() === 'now' ? null : parseStamp(t, inZone) ?? undefined} set={end => update({ end }, true)} />
      <button type="button" class="quiet icon" aria-label="Later" aria-keyshortcuts="." title={`Later by ${formatDuration(by)} (.)`} disabled={p.end === null} onClick={() => shift(1)}>›</button>
      {p.end !== null && <button type="button" class="quiet small" onClick={() => update({ end: null }, true)}>now</button>}
    </div>
  </div>;
}

export function Drawing({ p, update, autoStep, classic, native }: { p: Panel; update: Update; autoStep: number; classic: boolean; native: boolean }) {
  const modes: [Mode, string][] = [['lines', 'Lines'], ['stacked', 'Stack'], ...(classic || p.mode === 'heatmap' ? [['heatmap', 'Heat map'] as [Mode, string]] : [])];
  return <details class="drawing" open={innerWidth >= 900}>
    <summary>How it is drawn</summary>
    <div class="options">
      {!native && <div class="tabs small" role="group" aria-label="How it is drawn">{modes.map(([m, name]) => <button key={m} type="button" class={p.mode === m ? 'on' : ''} aria-pressed={p.mode === m} onClick={() => update({ mode: m }, true)}>{name}</button>)}</div>}
      {!native && p.mode !== 'heatmap' && <><label class="check"><input type="checkbox" checked={p.log} onChange={e => update({ log: e.currentTarget.checked })} />log</label>
        <label class="check"><input type="checkbox" checked={p.yMin === 0} onChange={e => update({ yMin: e.currentTarget.checked ? 0 : null })} />from 0</label>
        <span class="pairfield">y <Field label="Least y" width={6} placeholder="min" value={p.yMin} show={v => v === null ? '' : String(v)} parse={number} set={v => update({ yMin: v })} />–<Field label="Greatest y" width={6} placeholder="max" value={p.yMax} show={v => v === null ? '' : String(v)} parse={number} set={v => update({ yMax: v })} /></span></>}
      <label class="check">unit <select class="small" value={p.unit} onChange={e => update({ unit: e.currentTarget.value as Unit | 'auto' })}><option value="auto">by name</option>{UNITS.map(([u, name]) => <option key={u} value={u}>{name}</option>)}</select></label>
      <span class="pairfield">step <Field label="Step" hint="Time between points; empty fits the width" width={7} placeholder={formatDuration(autoStep)} value={p.step} show={v => v === null ? '' : formatDuration(v)} parse={t => t.trim() === '' ? null : parseDuration(t) ?? undefined} set={v => update({ step: v }, true)} /></span>
      {!native && p.mode !== 'heatmap' && <label class="check">beside <select class="small" value={p.compare} onChange={e => update({ compare: e.currentTarget.value }, true)}><option value="">nothing</option>{[...new Set(['1h', '1d', '1w', '4w', p.compare])].filter(Boolean).map(d => <option key={d} value={d}>{d} before</option>)}</select></label>}
      {!native && p.mode !== 'heatmap' && <label class="check"><input type="checkbox" checked={p.exemplars} onChange={e => update({ exemplars: e.currentTarget.checked }, true)} />exemplars</label>}
    </div>
  </details>;
}
