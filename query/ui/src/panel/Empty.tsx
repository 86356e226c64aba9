/** Why a result is empty: an unknown name, a label that nothing has, no samples in this range but in another, or the query itself. */
import { useEffect, useState } from 'preact/hooks';
import { cached, serves, soft, type Labels } from '../api';
import { parseDuration, spoken, stamp } from '../time';
import { useCell, zone } from '../store';
import type { Panel } from '../url';
import type { Outcome, PlanNode, Explained } from './run';
import { nearest } from './nearest';

interface Found { selector: string; title: string; detail?: string; replace?: { from: string; names: string[] }; jump?: number; values?: { label: string; written: string; values: string[] } }

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

/** The latest moment before `end` at which series match, or the first after, to a minute or a thousandth of the distance. */
async function whenNear(match: string, start: number, end: number): Promise<number | null> {
  const now = Date.now() / 1000;
  let width = Math.max(end - start, 3600), near = start, far = start;
  for (let i = 0; i < 24 && start - far < 20 * 366 * 86_400; i++) {
    far = start - width;
    if (await has(match, far, near)) {
      // There is some in [far, near]: close in from both sides.
      let low = far, high = near;
      while (high - low > Math.max(60, (start - high) / 1000)) { const mid = (low + high) / 2; if (await has(match, mid, high)) low = mid; else high = mid; }
      return high;
    }
    near = far; width *= 2;
  }
  if (end < now - 60 && await has(match, end, now + 3600)) {
    let low = end, high = now + 3600;
    while (high - low > 60 + (high - end) / 1000) { const mid = (low + high) / 2; if (await has(match, low, mid)) high = mid; else low = mid; }
    return high;
  }
  return null;
}

async function whyOne(n: PlanNode): Promise<Found | null> {
  const matchers = n.selector!.matchers, text = selector(matchers), reads = n.selector!.reads, name = nameOf(matchers);
  if (reads && await has(text, reads.start, reads.end)) return null;
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

/** What retention says of a range that lies before everything that is kept. */
async function hiddenByRetention(end: number): Promise<string> {
  if (!serves('storage')) return '';
  const all = (await soft<{ retention: Record<string, string> }>('storage'))?.retention ?? {};
  const kept = Object.entries(all).filter(([name]) => !name.startsWith('some')).map(([, t]) => parseDuration(t) ?? Infinity), most = Math.max(...kept);
  return kept.length && Number.isFinite(most) && end < Date.now() / 1000 - most ? `This range is older than what is kept: ${spoken(most)}.` : '';
}

export function Empty({ o, update }: { o: Outcome; update(patch: Partial<Panel>, push?: boolean): void }) {
  const [why, setWhy] = useState<Found[] | 'looking' | 'query'>('looking'), [hidden, setHidden] = useState(''), inZone = useCell(zone);
  useEffect(() => {
    let on = true;
    void hiddenByRetention(o.end).then(h => { if (on) setHidden(h); });
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
    {hidden && <p>{hidden}</p>}
    {why === 'looking' && <p class="soft" role="status">Looking for the reason…</p>}
    {why === 'query' && <p>What it selects is there, but nothing passes through the query: a comparison that filters all, or two sides whose labels do not match. <button type="button" class="small" onClick={() => update({ tab: 'explain' }, true)}>Explain shows where it stops</button></p>}
    {Array.isArray(why) && <ul class="why">{why.map((f, i) => <li key={i}>
      <p><code class="cut">{f.selector.length > 300 ? f.selector.slice(0, 300) + '…' : f.selector}</code> {f.title}.{f.detail ? ' ' + f.detail : ''}</p>
      {f.jump !== undefined && <p><button type="button" onClick={() => update({ end: Math.round(f.jump! + Math.min(60, (o.end - o.start) / 20)) }, true)}>Go to {stamp(Math.round(f.jump), inZone).slice(0, 16)}, where it has some</button></p>}
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
