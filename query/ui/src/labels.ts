/** Names of series: what they share, what tells them apart, and a colour that stays theirs. */
import type { Labels } from './api';

export const quote = (s: string) => JSON.stringify(s);
const plain = /^[a-zA-Z_:][\w:]*$/;

/** As PromQL writes it. */
export function seriesText(m: Labels): string {
  const name = m.__name__ ?? '', rest = Object.entries(m).filter(([n]) => n !== '__name__');
  const inside = rest.map(([n, v]) => (plain.test(n) && !n.includes(':') ? n : quote(n)) + '=' + quote(v));
  if (name && !plain.test(name)) inside.unshift(quote(name));
  return (plain.test(name) ? name : '') + (inside.length || !name ? '{' + inside.join(', ') + '}' : '');
}

/** The labels that every series has with the same value, and the names of those that differ, in order. */
export function splitLabels(all: Labels[]): { shared: Labels; differing: string[] } {
  if (!all.length) return { shared: {}, differing: [] };
  const shared: Labels = { ...all[0] }, names = new Set<string>();
  for (const m of all) {
    for (const n in m) names.add(n);
    for (const n in shared) if (m[n] !== shared[n]) delete shared[n];
  }
  const differing = [...names].filter(n => !(n in shared)).sort((a, b) => a === '__name__' ? -1 : b === '__name__' ? 1 : a < b ? -1 : 1);
  return { shared, differing };
}

/** The same for a legend: one series alone has all of its labels for a name. */
export function namesOf(all: Labels[]): { shared: Labels; differing: string[] } {
  const split = splitLabels(all);
  return all.length !== 1 ? split : { shared: {}, differing: Object.keys(all[0]).sort((a, b) => a === '__name__' ? -1 : b === '__name__' ? 1 : a < b ? -1 : 1) };
}

/** Only what differs: the values alone where one label does, else `name=value`. */
export function shortName(m: Labels, differing: string[]): string {
  if (differing.length === 1) return m[differing[0]] ?? '(none)';
  const out = differing.filter(n => n in m).map(n => n === '__name__' ? m[n] : `${n}=${m[n]}`);
  return out.join(' ') || (m.__name__ ?? '{}');
}

/** FNV-1a over the sorted labels. */
export function hashLabels(m: Labels): number {
  let h = 0x811c9dc5;
  for (const n of Object.keys(m).sort()) {
    const s = n + '\xff' + m[n] + '\xff';
    for (let i = 0; i < s.length; i++) h = Math.imul(h ^ s.charCodeAt(i), 0x01000193) >>> 0;
  }
  return h >>> 0;
}
export const hashText = (m: Labels) => hashLabels(m).toString(36);

/** Found by search: every pair at least 11 (OK, × 100) apart in four kinds of sight, contrast at least 3 and 4 to 1 on the card. */
const LIGHT = ['#d9480f', '#322c9d', '#2993f7', '#3a7773', '#7a015d', '#4b3d00', '#874dbf', '#ad8aa3'];
const DARK = ['#ff8038', '#5979cb', '#cfdaff', '#3fbb91', '#f7d015', '#ca90eb', '#63fba8', '#b06574'];
export const palette = (dark: boolean) => dark ? DARK : LIGHT;

/** A slot of eight colours by three dashes for each series: by the hash of its labels, so that it survives reordering, next free one where
 *  two want the same. One series alone is in the brand's orange. */
export function slots(all: Labels[]): number[] {
  if (all.length === 1) return [0];
  const taken = new Set<number>(), total = Math.ceil(Math.max(all.length, 1) / 24) * 24;
  return all.map(m => {
    // The colour first: dashes only when all eight are taken.
    const wanted = hashLabels(m) % 8;
    for (let dash = 0; dash * 8 < total; dash++)
      for (let i = 0; i < 8; i++) {
        const slot = dash * 8 + (wanted + i) % 8;
        if (!taken.has(slot)) { taken.add(slot); return slot; }
      }
    return wanted;
  });
}
export const DASHES: (number[] | undefined)[] = [undefined, [6, 3], [2, 3]];

/** Natural order: numbers inside of texts count as numbers. */
const collator = new Intl.Collator('en', { numeric: true });
export function compareValues(a: string | undefined, b: string | undefined): number {
  const x = Number(a), y = Number(b);
  if (a !== undefined && b !== undefined && a !== '' && b !== '') {
    const nx = a === '+Inf' ? Infinity : x, ny = b === '+Inf' ? Infinity : y;
    if (!Number.isNaN(nx) && !Number.isNaN(ny)) return nx - ny || 0;
  }
  return collator.compare(a ?? '', b ?? '');
}
