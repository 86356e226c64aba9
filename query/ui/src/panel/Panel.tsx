/** A query, its controls and its result. */
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import { base } from '../api';
import { count, grouped } from '../format';
import { favourites, remember, toggleFavourite, useCell, zone, past } from '../store';
import { spoken, stamp } from '../time';
import { writePanels, type Panel as State } from '../url';
import { Editor } from '../editor/Editor';
import type { Editor as Real } from '../editor/codemirror';
import { check, format, wrongOf, type Checked } from '../editor/source';
import { later } from '../later';
import { Menu } from '../Menu';
import { selectorOf } from '../selector';
import { Drawing, Tabs, Time } from './Controls';
import { Failed } from './Failed';
import { Graph } from './Graph';
import { isHistogram } from './histogram';
import { Table } from './Table';
import { spanOf, useRun, type Outcome, type Progress } from './run';
import { Estimate } from './Estimate';

const Empty = later(() => import('./Empty').then(m => m.Empty));
const Picker = later(() => import('./Picker').then(m => m.Picker));
const Explain = later(() => import('./Explain').then(m => m.Explain));

export interface PanelProps {
  p: State;
  index: number;
  total: number;
  nonce: number;
  live: boolean;
  update(patch: Partial<State>, push?: boolean): void;
  draft(expr: string): void;
  remove(): void;
  duplicate(): void;
  everywhere(): void;
}

export function Panel({ p, index, total, nonce, live, update, draft, remove, duplicate, everywhere }: PanelProps) {
  const [text, setText] = useState(p.expr), [again, setAgain] = useState(0), [checked, setChecked] = useState<Checked | null>(null), [picking, setPicking] = useState(false);
  const out = useRef<HTMLElement>(null), editor = useRef<Real | null>(null), typing = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  const id = 'g' + index;
  useEffect(() => { setText(p.expr); editor.current?.set(p.expr); }, [p.expr]);
  const width = () => out.current?.clientWidth ?? 900;
  const { outcome: o, failure, progress, cancel } = useRun(p, width, nonce + again);
  useEffect(() => { if (o && !failure) remember(o.expr); }, [o]);
  useEffect(() => { if (failure) editor.current?.mark(wrongOf(p.expr, failure.message)); }, [failure]);
  useEffect(() => {
    if (!live || p.end !== null) return;
    const t = setInterval(() => { if (!document.hidden && !progress) setAgain(n => n + 1); }, 5000);
    return () => clearInterval(t);
  }, [live, p.end, !!progress]);
  const run = (expr = text) => {
    clearTimeout(typing.current);
    if (expr !== p.expr) update({ expr, hidden: [], sort: '', filter: '', all: false, without: [], legendSort: p.legendSort }, true);
    else setAgain(n => n + 1);
  };
  const pick = (name: string) => {
    const chosen = selectorOf(name);
    setPicking(false);
    // An empty box asks at once; into what stands there already it goes at the cursor.
    if (!text.trim()) { setText(chosen); editor.current?.set(chosen); run(chosen); } else if (editor.current) editor.current.insert(chosen); else type(text + chosen);
    setTimeout(() => editor.current?.focus());
  };
  const type = (t: string) => { setText(t); clearTimeout(typing.current); typing.current = setTimeout(() => draft(t), 500); };
  const heat = useMemo(() => o?.data?.resultType === 'matrix' ? isHistogram(o.data.result) : null, [o]);
  const span = spanOf(p, width());
  const look = async (t: string, signal: AbortSignal) => {
    const found = await check(t, p.tab === 'table' ? { time: span.end } : { start: span.start, end: span.end, step: span.step }, signal);
    setChecked(found);
    return found;
  };
  const stale = !!progress || !!failure;
  return <section class="panel" aria-label={`Query ${index + 1}`}>
    <div class="ask">
      <Editor value={text} onChange={type} onRun={() => run()} onCancel={() => progress && cancel()} onPick={() => setPicking(true)} check={look} span={() => ({ start: span.end - Math.max(p.range, 86_400), end: span.end })} handle={e => { editor.current = e; }} autofocus={index === 0} />
      <div class="ask-buttons">
        {progress && performance.now() - progress.since > 300 ? <CancelButton onClick={cancel} /> : <button type="button" class="primary" title="Enter" onClick={() => run()}>Run</button>}
        <button type="button" class="quiet icon" aria-label="Metrics" aria-haspopup="dialog" aria-keyshortcuts="m Alt+m" title="Choose a metric (m, Alt M)" onClick={() => setPicking(true)}><svg viewBox="0 0 16 16" aria-hidden="true"><path d="M1 3.500h14M1 8h5M1 12.500h5M13.300 12.300 15 14" /><circle cx="11" cy="10" r="3" /></svg></button>
        <Tools text={text} p={p} setText={t => { setText(t); editor.current?.set(t); }} run={run} total={total} remove={remove} duplicate={duplicate} everywhere={everywhere} />
      </div>
    </div>
    {picking && <Picker choose={pick} close={() => setPicking(false)} />}
    {checked?.text === text && (o?.expr !== text || failure) && <Estimate checked={checked} />}
    <div class="bar">
      <Tabs tab={p.tab} id={id} set={tab => update({ tab }, true)} />
      <Time p={p} update={update} />
      <span class="grow" />
      {o && !progress && !failure && <FiguresOf o={o} />}
    </div>
    {p.tab === 'graph' && <Drawing p={p} update={update} autoStep={spanOf({ ...p, step: null }, width()).step} classic={heat === 'classic'} native={heat === 'native'} />}
    {failure && <Failed failure={failure} expr={p.expr} retry={() => setAgain(n => n + 1)} />}
    {!failure && o && <Remarks o={o} />}
    <section class={'card out' + (stale && o ? ' stale' : '')} hidden={!!failure && !o && !progress} ref={out} id={id + '-out'} role="tabpanel" aria-labelledby={`${id}-${p.tab}`} aria-busy={!!progress}>
      {progress && <Working progress={progress} cancel={cancel} />}
      {o && o.tab === p.tab ? <Shown o={o} p={p} update={update} heat={heat} point={(a, b) => { if (editor.current) { if (text === o.expr) editor.current.point(a, b); } }} />
        : !progress && !failure && <div class="empty"><strong>Ask something</strong><p class="soft">Type the name of a metric: completion knows what is there. Or look through <a href="explore">all metrics</a>.</p></div>}
      {!o && progress && <div class="empty" />}
    </section>
  </section>;
}

function CancelButton({ onClick }: { onClick(): void }) { return <button type="button" class="primary cancel" title="Escape" onClick={onClick}>Cancel</button>; }

function Shown({ o, p, update, heat, point }: { o: Outcome; p: State; update(patch: Partial<State>, push?: boolean): void; heat: 'native' | 'classic' | null; point(a: number, b: number): void }) {
  if (o.tab === 'explain') return o.explained ? <Explain o={o} onPoint={point} /> : null;
  const data = o.data;
  if (!data) return null;
  if ((data.resultType === 'matrix' || data.resultType === 'vector') && !data.result.length) return <Empty o={o} update={update} />;
  if (o.tab === 'table') return <Table o={o} p={p} update={update} />;
  return <Graph o={o} p={p} update={update} heat={heat} />;
}

function Working({ progress, cancel }: { progress: Progress; cancel(): void }) {
  const [now, setNow] = useState(performance.now());
  useEffect(() => { const t = setInterval(() => setNow(performance.now()), 100); return () => clearInterval(t); }, []);
  const elapsed = (now - progress.since) / 1000;
  // What is quick needs no bar.
  if (elapsed < 0.2) return null;
  return <div class="working" role="status"><i class="bar-moving" />
    {elapsed > 0.6 && <span>{progress.queued ? 'waiting for its turn' : 'running'} · <b class="num">{elapsed.toFixed(1)} s</b>{progress.samples !== null && !progress.queued ? <> · <b class="num">{grouped(progress.samples)}</b> samples so far</> : null} <button type="button" class="small" onClick={cancel}>Cancel</button></span>}
  </div>;
}

function FiguresOf({ o }: { o: Outcome }) {
  const stats = o.data?.stats, list = o.data && (o.data.resultType === 'matrix' || o.data.resultType === 'vector') ? o.data.result : null;
  const points = o.data?.resultType === 'matrix' ? o.data.result.reduce((n, s) => n + (s.values?.length ?? 0) + (s.histograms?.length ?? 0), 0) : 0;
  return <span class="figures">
    {list && <span>{count(list.length, 'series', 'series')}</span>}
    {points > 0 && <span class="wide">{count(points, 'point')}</span>}
    {stats?.samples.samplesRead !== undefined && <span>{count(stats.samples.samplesRead, 'sample')} read</span>}
    <span>{spoken(Math.max(0.001, o.tookMs / 1000))}</span>
    <Answered o={o} />
  </span>;
}

/** Which resolutions answered. */
function Answered({ o }: { o: Outcome }) {
  const inZone = useCell(zone), by = new Map<string, { exact: boolean; spans: string[] }>();
  for (const part of o.parts) {
    const b = by.get(part.resolution) ?? { exact: true, spans: [] };
    b.exact &&= part.exact;
    b.spans.push(`${stamp(Date.parse(part.start) / 1e3, inZone).slice(0, 16)} to ${stamp(Date.parse(part.end) / 1e3, inZone).slice(0, 16)}`);
    by.set(part.resolution, b);
  }
  return <>{[...by].map(([r, b]) => <span key={r} class={'badge ' + (r === 'raw' ? '' : 'tier')} title={`${r === 'raw' ? 'Raw samples' : `Rollups of ${r}`}, ${b.exact ? 'exact' : 'approximate'}: ${b.spans.slice(0, 4).join('; ')}`}>{b.exact ? '' : '~'}{r}</span>)}
    <Kept o={o} />
    {o.age > 0 && <span class="badge" title={`A cache between here and the server has held this answer for ${spoken(o.age)}. Run asks again.`}>cached</span>}
    {o.hidden.map((h, i) => <span key={i} class="badge warn" title={`${stamp(Math.round(h.from), inZone)} to ${stamp(Math.round(h.to), inZone)}: ${h.what === 'deleted' ? `samples of ${h.selector!.slice(0, 500)} were deleted` : `older than what is kept, ${spoken(h.kept!)}`}`}>{h.what}</span>).slice(0, 3)}
    {o.warnings.some(w => /partial|unreachable|missing|could not be asked|not all/i.test(w)) && <span class="badge warn">partial</span>}</>;
}

/** What of a range the server did not have to compute. */
function Kept({ o }: { o: Outcome }) {
  const c = o.data?.stats?.cache;
  if (!c || !c.cachedSteps && !c.shared) return null;
  const all = c.cachedSteps + c.computedSteps;
  const title = c.cachedSteps ? `${grouped(c.cachedSteps)} of ${count(all, 'step')} were kept by the server from an earlier question${c.computedSteps ? ', the others were computed now' : ''}. What is kept goes as soon as what it was computed from changes.` : 'The same question was being answered for somebody else, and this is that answer.';
  return <span class="badge" title={title}>{c.cachedSteps && c.computedSteps ? `${Math.max(1, Math.min(99, Math.round(100 * c.cachedSteps / all)))} % cached` : c.cachedSteps ? 'cached' : 'shared'}</span>;
}

function Remarks({ o }: { o: Outcome }) {
  const all = [...new Set(o.warnings)].map(w => ['warn', w]).concat([...new Set(o.infos)].map(i => ['info', i.replace(/^PromQL info: /, '')]));
  if (!all.length) return null;
  return <div role="status">{all.slice(0, 5).map(([kind, t], i) => <p key={i} class={'note ' + kind}>{t.length > 2000 ? t.slice(0, 2000) + '…' : t}</p>)}{all.length > 5 && <details class="note info"><summary>{all.length - 5} more</summary>{all.slice(5).map(([, t], i) => <p key={i}>{t.slice(0, 2000)}</p>)}</details>}</div>;
}

function Tools({ text, p, setText, run, total, remove, duplicate, everywhere }: { text: string; p: State; setText(t: string): void; run(t: string): void; total: number; remove(): void; duplicate(): void; everywhere(): void }) {
  const stars = useCell(favourites), before = useCell(past), starred = stars.includes(text);
  const [said, setSaid] = useState('');
  const copy = async (what: string, t: string) => { try { await navigator.clipboard.writeText(t); setSaid(what + ' copied'); } catch { setSaid('The browser did not allow it'); } setTimeout(() => setSaid(''), 1800); };
  const link = () => new URL('query' + writePanels([p]), base).href;
  return <div class="tools">
    <button type="button" class="quiet icon" aria-pressed={starred} aria-label="Favourite" title={starred ? 'Remove from favourites' : 'Keep as a favourite'} disabled={!text.trim()} onClick={() => toggleFavourite(text)}>{starred ? '★' : '☆'}</button>
    <Menu label="History" icon="↺" title="History and favourites">{close => <Past stars={stars} before={before.map(b => b.expr)} take={t => { setText(t); run(t); close(); }} />}</Menu>
    <Menu label="More" icon="⋯" title="More">{close => <div class="menu-list">
      <button type="button" onClick={async () => { const f = await format(text); if (f) setText(f); close(); }}>Format</button>
      <button type="button" onClick={() => { duplicate(); close(); }}>Duplicate</button>
      <button type="button" onClick={() => { void copy('Link', link()); close(); }}>Copy link</button>
      <button type="button" onClick={() => { void copy('Command', `curl ${quoteShell(new URL('api/v1/query', base).href)} --data-urlencode ${quoteShell('query=' + text)}`); close(); }}>Copy as curl</button>
      {total > 1 && <button type="button" onClick={() => { everywhere(); close(); }}>Use this time in all panels</button>}
      {total > 1 && <button type="button" onClick={() => { remove(); close(); }}>Remove</button>}
    </div>}</Menu>
    {said && <span class="said" role="status">{said}</span>}
  </div>;
}
const quoteShell = (s: string) => "'" + s.replace(/'/g, "'\\''") + "'";

function Past({ stars, before, take }: { stars: string[]; before: string[]; take(t: string): void }) {
  const [filter, setFilter] = useState(''), wanted = filter.toLowerCase();
  const row = (t: string) => <button type="button" key={t} class="mono" title={t.slice(0, 2000)} onClick={() => take(t)}>{t.slice(0, 300)}</button>;
  const a = stars.filter(t => t.toLowerCase().includes(wanted)), b = before.filter(t => !stars.includes(t) && t.toLowerCase().includes(wanted)).slice(0, 60);
  return <div class="menu-list past">
    <input type="search" class="small" placeholder="Filter" aria-label="Filter the history" value={filter} onInput={e => setFilter(e.currentTarget.value)} />
    {a.length > 0 && <><h3>Favourites</h3>{a.map(row)}</>}
    {b.length > 0 && <><h3>Before</h3>{b.map(row)}</>}
    {!a.length && !b.length && <p class="soft pad">Nothing yet: queries that ran are kept in this browser.</p>}
    {before.length > 0 && <button type="button" class="quiet" onClick={() => past.set([])}>Forget the history</button>}
  </div>;
}

