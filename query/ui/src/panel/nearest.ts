/** Names that a person may have meant. */

/** Edits between two texts, neighbours swapped counting as one; `most + 1` for everything beyond. */
export function distance(a: string, b: string, most: number): number {
  if (Math.abs(a.length - b.length) > most) return most + 1;
  let before: number[] = [], row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    let least = i;
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1];
      next[j] = Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + (same ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) next[j] = Math.min(next[j], before[j - 2] + 1);
      least = Math.min(least, next[j]);
    }
    if (least > most) return most + 1;
    before = row; row = next;
  }
  return row[b.length];
}

/** The closest five: by edits, then by shared words. */
export function nearest(wanted: string, all: string[]): string[] {
  const w = wanted.toLowerCase(), most = Math.max(2, Math.floor(w.length / 3)), words = new Set(w.split(/[_:]+/).filter(x => x.length > 1));
  const scored: [number, string][] = [];
  for (const name of all) {
    const n = name.toLowerCase();
    if (n === w) { scored.push([-1, name]); continue; }
    const d = distance(w, n, most);
    let score = d <= most ? d : Infinity;
    if (n.includes(w) || w.includes(n) && n.length > 4) score = Math.min(score, 1.5 + Math.abs(n.length - w.length) / 20);
    if (words.size > 1) { let hits = 0; const theirs = n.split(/[_:]+/); for (const x of theirs) if (words.has(x)) hits++; const share = hits / Math.max(words.size, theirs.length); if (share >= 0.5) score = Math.min(score, 6 - 4 * share); }
    if (score < Infinity) scored.push([score, name]);
  }
  return scored.sort((a, b) => a[0] - b[0] || a[1].length - b[1].length).slice(0, 5).map(s => s[1]);
}
