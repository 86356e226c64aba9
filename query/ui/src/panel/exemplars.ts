/** Exemplars as the API gives them, and as points of a graph. */
import { api, type Labels } from '../api';
import { toNumber } from '../format';

export interface Exemplar { at: number; value: number; labels: Labels; series: Labels }
interface Raw { seriesLabels: Labels; exemplars: { labels: Labels; value: string; timestamp: number }[] }

/** At most `most`, spread over the range: the largest of each stretch of time. */
export async function exemplars(query: string, start: number, end: number, signal: AbortSignal, most = 200): Promise<Exemplar[]> {
  const { data } = await api<Raw[]>('query_exemplars', { query, start, end }, { method: 'POST', signal });
  const all = data.flatMap(s => s.exemplars.map(e => ({ at: e.timestamp, value: toNumber(e.value), labels: e.labels, series: s.seriesLabels })));
  if (all.length <= most) return all;
  const width = (end - start) / most, best = new Map<number, Exemplar>();
  for (const e of all) {
    const slot = Math.floor((e.at - start) / width), held = best.get(slot);
    if (!held || held.value < e.value) best.set(slot, e);
  }
  return [...best.values()];
}
