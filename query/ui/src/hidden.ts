/** What a result cannot show because it was deleted or is kept no longer. */
import { cached, serves } from './api';
import { parseDuration } from './time';

export interface Deletion { selector: string; minTime: number; maxTime: number; created: number }
interface Kept { retention: Record<string, string>; deletions?: Deletion[] }
/** A stretch of time, in seconds, and why there is nothing of it. `kept` is what goes before everything that is kept, in seconds. */
export interface Hidden { from: number; to: number; what: 'deleted' | 'not kept'; selector?: string; kept?: number }

/** The name that a selector asks for, or nothing where it asks for several. */
export function nameIn(selector: string): string {
  const m = /(?:^|[{,])__name__="((?:[^"\\]|\\.)*)"/.exec(selector);
  if (m) { try { return JSON.parse(`"${m[1]}"`); } catch { return m[1]; } }
  return '';
}

/** Names of metrics in a query, as far as its text shows them. */
const namesOf = (expr: string) => new Set([...expr.replace(/"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|`[^`]*`/g, m => (/^["'`][a-zA-Z_:][\w:.]*["'`]$/.test(m) ? ` ${m.slice(1, -1)} ` : ' ')).matchAll(/[a-zA-Z_:][\w:.]*/g)].map(m => m[0]));

/** Parts of a range that deletion or retention hide from a query. Deletions of other metrics are none of its business. */
export function hiddenOf(kept: Kept, expr: string, start: number, end: number, now = Date.now() / 1000): Hidden[] {
  const out: Hidden[] = [], names = namesOf(expr);
  for (const d of kept.deletions ?? []) {
    const from = Math.max(start, d.minTime / 1000), to = Math.min(end, d.maxTime / 1000), name = nameIn(d.selector);
    if (from <= to && (!name || names.has(name))) out.push({ from, to, what: 'deleted', selector: d.selector });
  }
  const spans = Object.entries(kept.retention).filter(([name]) => !name.startsWith('some')).map(([, text]) => parseDuration(text) ?? Infinity), most = Math.max(...spans);
  if (spans.length && Number.isFinite(most) && start < now - most) out.push({ from: start, to: Math.min(end, now - most), what: 'not kept', kept: most });
  return out;
}

export async function hidden(expr: string, start: number, end: number): Promise<Hidden[]> {
  if (!serves('storage')) return [];
  const kept = await cached<Kept>('storage', { blocks: false });
  return kept ? hiddenOf(kept, expr, start, end) : [];
}
