/** Why a result is empty: an unknown name, a label that nothing has, no samples in this range but in another, or the query itself. */
import { useEffect, useState } from 'preact/hooks';
import { cached, soft, type Labels, type QueryData } from '../api';
import { formatDuration, spoken, stamp } from '../time';
import { useCell, zone } from '../store';
import type { Panel } from '../url';
import type { Outcome, PlanNode, Explained } from './run';
import { nearest } from './nearest';

interface Found { selector: string; title: string; detail?: string; replace?: { from: string; names: string[] }; jump?: number; values?: { label: string; written: string; values: string[] }; window?: { from: string; to: string } }

const has = async (match: string, start?: number, end?: number) => {
  const all = await soft<Labels[]>('series', { 'match[]': match, limit: 1, start, end });
  return all === null ? null : all.length > 0;
};
function selectorsOf(root: PlanNode): PlanNode[] {
  const out: PlanNode[] = [], todo = [root];
  while (todo.length && out.length < 6) { const n = todo.shift()!; if (n.selector) out.push(n); todo.push(...n.children); }
  return out;
}
const selector = (matchers: string[]) => `{${matchers.join(',')}}`;
const nameOf = (matchers: string[]) => { const m = matchers.find(m => m.startsWith('__name__=') && m[9] === '"'); return m ? JSON.parse(m.slice(9)) as string : null; };

/** The same by samples and not by blocks, which may be as long as two weeks; `null` where that is too much to ask. */
const present = async (match: string, from: number, to: number) => {
  const found = await soft<QueryData>('query', { query: `count(present_over_time(${match}[${Math.max(1, Math.ceil(to - from))}s]))`, time: to });
  return found?.resultType === 'vector' ? found.result.length > 0 : null;
};

/** The latest moment before `end` at which series match, or the first after, to a minute or a thousandth of the distance. */
export async function whenNear(match: string, start: number, end: number): Promise<number | null> {
  const now = Date.now() / 1000;
  let width = Math.max(end - start, 3600), near = start, far = start;
  for (let i = 0; i < 24 && start - far < 20 * 366 * 86_400; i++) {
    far = start - width;
    // Where nothing can be said by samples, blocks say it about.
    if (await has(match, far, near) && await present(match, far, near) !== false) {
      let low = far, high = near;
      while (high - low > Math.max(60, (start - high) / 1000)) { const mid = (low + high) / 2; if (await present(match, mid, high) ?? await has(match, mid, high)) low = mid; else high = mid; }
      return high;
    }
    near = far; width *= 2;
  }
  if (end < now - 60 && await has(match, end, now + 3600)) {
    let low = end, high = now + 3600;
    while (high - low > 60 + (high - end) / 1000) { const mid = (low + high) / 2; if (await present(match, low, mid) ?? await has(match, low, mid)) high = mid; else low = mid; }
    return high;
  }
  return null;
}

/** Whether a window is shorter than the time between two samples: then `rate` and its like have nothing to say. */
async function sparse(n: PlanNode, text: string, end: number): Promise<Found | null> {
  const range = n.window?.range, written = /\[([^\]:]+)\]/.exec(n.text)?.[1];
  if (n.kind !== 'matrixSelector' || !range || !written) return null;
  const most = async (over: number) => { const d = await soft<QueryData>('query', { query: `max(count_over_time(${text}[${Math.ceil(over)}s]))`, time: end }); return d?.resultType === 'vector' && d.result[0]?.value ? Number(d.result[0].value[1]) : 0; };
  if (await most(range) > 1) return null;
  // How far apart they are is seen in a window that is long enough.
  for (let over = range * 12; over <= Math.max(range * 200, 864_000); over *= 12) {
    const found = await most(over);
    if (found > 2) { const to = formatDuration(Math.ceil(4 * over / found / 60) * 60); return { selector: n.text, title: `has at most one sample in each ${written}`, detail: `They are about ${spoken(over / found)} apart, and what looks at a range needs two.`, window: { from: `[${written}]`, to: `[${to}]` } }; }
  }
  return { selector: n.text, title: `has at most one sample in each ${written}`, detail: 'What looks at a range needs two.' };
}

async function whyOne(n: PlanNode): Promise<Found | null> {
  const matchers = n.selector!.matchers, text = selector(matchers), reads = n.selector!.reads, name = nameOf(matchers);
  if (reads && await has(text, reads.start, reads.end)) return await sparse(n, text, reads.end);
  const shown = n.text;
  if (await has(text)) {
    const at = reads ? await whenNear(text, reads.start, reads.end) : null;
    return { selector: shown, title: 'has no samples in this range', detail: at ? undefined : 'It has some at another time.', jump: at ?? undefined };
  }
  if (name !== null && matchers.length >= 1 && !await has(selector([`__name__=${JSON.stringify(name)}`]))) {
    const names = await cached<string[]>('label/__name__/values', { limit: 40_000 }) ?? [];
    const close = nearest(name, names);
    return { selector: name, title: 'is not a metric that this server has', detail: close.length ? undefined : 'Nothing has a name like it.', replace: close.length ? { from: name, names: close } : undefined };
  }
  for (const m of matchers.filter(m => !m.startsWith('__name__='))) {
    const rest = matchers.filter(x => x !== m);
    if (rest.length && await has(selector(rest))) {
      const label = /^("?)([\w:.]+)\1/.exec(m)?.[2] ?? '';
      const values = label ? await soft<string[]>(`label/${encodeURIComponent(label)}/values`, { 'match[]': selector(rest), limit: 12 }) : null;
      return { selector: shown, title: `has nothing with ${m}`, detail: values?.length === 0 ? `Its series have no label ${label}.` : undefined, values: values?.length ? { label, written: m, values } : undefined };
    }
  }
  return { selector: shown, title: 'matches nothing, in this range or any other' };
}

export function Empty({ o, update }: { o: Outcome; update(patch: Partial<Panel>, push?: boolean): void }) {
  const [why, setWhy] = useState<Found[] | 'looking' | 'query'>('looking'), inZone = useCell(zone);
  useEffect(() => {
    let on = true;
    void (async () => {
      const form = o.step ? { start: o.start, end: o.end, step: o.step } : { time: o.end };
      const plan = await soft<Explained>('explain', { query: o.expr, ...form }, { method: 'POST' });
      if (!plan) { if (on) setWhy('query'); return; }
      const found: Found[] = [];
      for (const n of selectorsOf(plan.plan)) { const f = await whyOne(n); if (!on) return; if (f && !found.some(x => x.selector === f.selector && x.title === f.title)) found.push(f); }
      if (on) setWhy(found.length ? found : 'query');
    })();
    return () => { on = false; };
  }, [o]);
  const swap = (from: string, to: string) => update({ expr: o.expr.replace(new RegExp(`(?<![\\w:])${from.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')}(?![\\w:])`, 'g'), to) }, true);
  return <div class="empty">
    <strong>{o.step ? 'Nothing in this range' : 'Nothing at this moment'}</strong>
    {o.hidden.slice(0, 4).map((h, i) => <p key={i}>{h.what === 'not kept' ? `This range is older than what is kept: ${spoken(h.kept!)}.` : <>Samples of <code class="cut">{h.selector!.slice(0, 300)}</code> from {stamp(Math.round(h.from), inZone)} to {stamp(Math.round(h.to), inZone)} were deleted.</>}</p>)}
    {why === 'looking' && <p class="soft" role="status">Looking for the reason…</p>}
    {why === 'query' && <p>What it selects is there, but nothing passes through the query: a comparison that filters all, or two sides whose labels do not match. <button type="button" class="small" onClick={() => update({ tab: 'explain' }, true)}>Explain shows where it stops</button></p>}
    {Array.isArray(why) && <ul class="why">{why.map((f, i) => <li key={i}>
      <p><code class="cut">{f.selector.length > 300 ? f.selector.slice(0, 300) + '…' : f.selector}</code> {f.title}.{f.detail ? ' ' + f.detail : ''}</p>
      {f.jump !== undefined && <p><button type="button" onClick={() => update({ end: Math.round(f.jump! + Math.min(60, (o.end - o.start) / 20)) }, true)}>Go to {stamp(Math.round(f.jump), inZone).slice(0, 16)}, where it has some</button></p>}
      {f.window && <p><button type="button" onClick={() => update({ expr: o.expr.replaceAll(f.window!.from, f.window!.to) }, true)}>Look at <span class="mono">{f.window.to}</span> instead</button></p>}
      {f.replace && <p class="chips">Did you mean {f.replace.names.map(n => <button type="button" key={n} class="small mono" onClick={() => swap(f.replace!.from, n)}>{n}</button>)}</p>}
      {f.values && <p class="chips">There {f.values.values.length === 1 ? 'is' : 'are'} {f.values.values.map(v => <button type="button" key={v} class="small mono cut" onClick={() => update({ expr: replaceMatcher(o.expr, f.values!.label, f.values!.written, v) }, true)}>{f.values!.label}="{v}"</button>)}</p>}
    </li>)}</ul>}
  </div>;
}

/** The matcher as the person wrote it, by its label and value, with another value. */
function replaceMatcher(expr: string, label: string, written: string, value: string): string {
  const m = /(=~|!~|!=|=)("(?:[^"\\]|\\.)*")$/.exec(written);
  if (!m) return expr;
  const old = JSON.parse(m[2]) as string, esc = (s: string) => s.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
  return expr.replace(new RegExp(`${esc(label)}\\s*${esc(m[1])}\\s*(?:"${esc(old)}"|'${esc(old)}'|\`${esc(old)}\`)`), `${label}=${JSON.stringify(value)}`);
}
