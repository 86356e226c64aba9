/** One panel's question on its way: what is asked, how far it is, what came back. The old answer stays until the new one is there. */
import { useEffect, useRef, useState } from 'preact/hooks';
import { api, Failure, serves, type Part, type QueryData, type QueryStats, type Series } from '../api';
import { parseDuration, autoStep } from '../time';
import type { Panel, Tab } from '../url';
import { hidden, type Hidden } from '../hidden';
import { exemplars, type Exemplar } from './exemplars';

/** A node of the plan, as `explain` gives it. */
export interface PlanNode {
  kind: string; name?: string; text: string; span: [number, number]; type: string; stepInvariant: boolean; steps: number;
  window?: { range: number; step?: number; offset: number; at: number | null };
  selector?: { matchers: string[]; offset: number; at: number | null; reads: { start: number; end: number } | null; selection: number; shared: boolean };
  analysis?: { runs: number; series: number; samplesRead: number; totalSamplesRead: number; bytes: number; peakBytes: number; reused: boolean; maxResolution?: number; selfTime: number; totalTime: number };
  children: PlanNode[];
}
export interface Explained { lookback: number; plan: PlanNode; stats?: QueryStats }

export interface Outcome {
  expr: string;
  tab: Tab;
  start: number;
  end: number;
  /** 0 for one moment. */
  step: number;
  data: QueryData | null;
  explained: Explained | null;
  warnings: string[];
  infos: string[];
  tookMs: number;
  past: Series[] | null;
  pastBy: number;
  exemplars: Exemplar[];
  parts: Part[];
  hidden: Hidden[];
  /** Seconds that a cache in between held the answer for. */
  age: number;
}
export interface Progress { since: number; samples: number | null; queued: boolean }

/** Steps of a panel of this width. Without an end of its own a range ends at the last whole step, so that asking again finds what is cached. */
export function spanOf(p: Panel, width: number): { start: number; end: number; step: number } {
  const points = p.density === 'low' ? 100 : p.density === 'high' ? Math.min(1000, Math.max(400, width)) : Math.min(400, Math.max(150, width / 3));
  const step = Math.max(p.step ?? autoStep(p.range, points), p.range / 10_900, 0.001);
  const now = Date.now() / 1000, end = p.end ?? Math.floor(now / step) * step;
  return { start: end - Math.floor(p.range / step + 1e-9) * step, end, step };
}

const id = () => 'page-' + Array.from(crypto.getRandomValues(new Uint8Array(9)), b => b.toString(36).padStart(2, '0')).join('');

async function ask(p: Panel, width: number, signal: AbortSignal, name: string): Promise<Outcome> {
  const begun = performance.now(), span = spanOf(p, width), by = parseDuration(p.compare) ?? 0;
  const out: Outcome = { expr: p.expr, tab: p.tab, ...span, data: null, explained: null, warnings: [], infos: [], tookMs: 0, past: null, pastBy: by, exemplars: [], parts: [], hidden: [], age: 0 };
  const options = { method: 'POST' as const, signal, id: name }, time = p.end ?? Date.now() / 1000;
  // Beside the query: nobody waits for it.
  const gone = p.tab === 'table' ? hidden(p.expr, time, time) : hidden(p.expr, span.start, span.end);
  if (p.tab === 'table') {
    Object.assign(out, { start: time, end: time, step: 0 });
    const a = await api<QueryData>('query', { query: p.expr, time, stats: 'true' }, options);
    Object.assign(out, { data: a.data, warnings: a.warnings, infos: a.infos, age: a.age });
  } else if (p.tab === 'explain') {
    const a = await api<Explained>('explain', { query: p.expr, ...span, analyze: true }, options);
    Object.assign(out, { explained: a.data, warnings: a.warnings, infos: a.infos });
  } else {
    const [now, past, found] = await Promise.all([
      api<QueryData>('query_range', { query: p.expr, ...span, stats: 'true' }, options),
      by ? api<QueryData>('query_range', { query: p.expr, start: span.start - by, end: span.end - by, step: span.step }, { method: 'POST', signal }) : null,
      p.exemplars ? exemplars(p.expr, span.start, span.end, signal).catch(() => []) : [],
    ]);
    Object.assign(out, { data: now.data, warnings: [...now.warnings, ...(past?.warnings ?? [])], infos: now.infos, exemplars: found, age: now.age });
    if (past?.data.resultType === 'matrix') out.past = past.data.result;
  }
  out.parts = (out.data?.stats ?? out.explained?.stats)?.resolutions ?? [];
  out.tookMs = performance.now() - begun;
  out.hidden = await gone;
  return out;
}

interface Running { running: { requestId: string; samplesRead: number; state: string }[] }

export function useRun(p: Panel, width: () => number, nonce: number) {
  const [outcome, setOutcome] = useState<Outcome | null>(null);
  const [failure, setFailure] = useState<Failure | null>(null);
  const [progress, setProgress] = useState<Progress | null>(null);
  const running = useRef<AbortController | null>(null);
  const key = JSON.stringify([p.expr, p.tab, p.range, p.end, p.step, p.density, p.compare, p.exemplars, nonce]);
  useEffect(() => {
    running.current?.abort();
    if (!p.expr.trim()) { setOutcome(null); setFailure(null); setProgress(null); return; }
    const mine = running.current = new AbortController(), name = id(), since = performance.now();
    setProgress({ since, samples: null, queued: false });
    const watch = setInterval(async () => {
      if (!serves('queries') || document.hidden) return;
      try {
        const { data } = await api<Running>('queries', {}, { signal: mine.signal });
        const it = data.running.find(r => r.requestId === name);
        if (it && running.current === mine) setProgress({ since, samples: it.samplesRead, queued: it.state === 'queued' });
      } catch { /* the query itself will say what is wrong */ }
    }, 700);
    ask(p, width(), mine.signal, name).then(o => {
      if (running.current !== mine) return;
      setOutcome(o); setFailure(null);
    }, e => {
      if (running.current !== mine || (e as Error).name === 'AbortError') return;
      setFailure(e instanceof Failure ? e : new Failure('page', String((e as Error).message ?? e)));
    }).finally(() => {
      clearInterval(watch);
      if (running.current === mine) { running.current = null; setProgress(null); }
    });
    return () => clearInterval(watch);
  }, [key]);
  useEffect(() => () => running.current?.abort(), []);
  const cancel = () => { running.current?.abort(); running.current = null; setProgress(null); };
  return { outcome, failure, progress, cancel };
}
