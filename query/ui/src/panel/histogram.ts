/** Which results are histograms, known before the part of the page that draws has arrived. */
import type { Series } from '../api';

/** Native histograms, or series that differ by `le`. */
export function isHistogram(all: Series[]): 'native' | 'classic' | null {
  if (all.some(s => s.histograms?.length || s.histogram)) return 'native';
  return all.length > 1 && all.every(s => 'le' in s.metric) ? 'classic' : null;
}
