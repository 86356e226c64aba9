/** The names of all metrics with what is told of them, and those that somebody looks for. */
import { useEffect, useMemo, useState } from 'preact/hooks';
import { cached, type Metadata } from './api';
import { useAsk, type Asked } from './ask';

export interface Row { name: string; type: string; help: string; lower: string; lowerHelp: string }
export const guess = (name: string) => /_bucket$/.test(name) ? 'histogram' : /_(total|count|sum)$/.test(name) ? 'counter' : /_info$/.test(name) ? 'info' : '';
/** So many names a list has at most. */
export const MOST_NAMES = 200_000;

function rowsOf(names: string[], meta: Record<string, Metadata[]>): Row[] {
  return names.map(name => {
    const m = meta[name]?.[0] ?? meta[name.replace(/_(bucket|count|sum|total|created)$/, '')]?.[0], help = m?.help ?? '';
    return { name, type: m?.type && m.type !== 'unknown' ? m.type : guess(name), help, lower: name.toLowerCase(), lowerHelp: help.toLowerCase() };
  });
}

/** All of them. What is told of them comes when it comes. */
export function useMetrics(): { names: Asked<string[]>; rows: Row[] } {
  const names = useAsk<string[]>('label/__name__/values', { limit: MOST_NAMES }), [meta, setMeta] = useState<Record<string, Metadata[]>>({});
  useEffect(() => { void cached<Record<string, Metadata[]>>('metadata', { limit: MOST_NAMES, limit_per_metric: 1 }).then(m => m && setMeta(m)); }, []);
  return { names, rows: useMemo(() => rowsOf(names.data ?? [], meta), [names.data, meta]) };
}

export const wordsOf = (search: string) => search.toLowerCase().split(/\s+/).filter(Boolean);
/** Rows that have all words: first those whose names begin with the first, then those with all of them in their names,
 *  then the others. */
export function matching(rows: Row[], words: string[], type = '', inHelp = true): Row[] {
  const begin: Row[] = [], named: Row[] = [], told: Row[] = [];
  for (const r of rows) {
    if (type && r.type !== type) continue;
    if (words.every(w => r.lower.includes(w))) (!words.length || r.lower.startsWith(words[0]) ? begin : named).push(r);
    else if (inHelp && words.every(w => r.lower.includes(w) || r.lowerHelp.includes(w))) (r.lower.startsWith(words[0]) ? begin : told).push(r);
  }
  return begin.concat(named, told);
}

export function Marked({ text, words }: { text: string; words: string[] }) {
  const lower = text.toLowerCase(), hits: [number, number][] = [];
  for (const w of words) { const i = lower.indexOf(w); if (i >= 0) hits.push([i, i + w.length]); }
  hits.sort((a, b) => a[0] - b[0]);
  const out = []; let at = 0;
  for (const [a, b] of hits) { if (a < at) continue; out.push(text.slice(at, a), <mark key={a}>{text.slice(a, b)}</mark>); at = b; }
  return <>{out}{text.slice(at)}</>;
}
