/** Durations as PromQL writes them, and points in time in the person's or in universal time. Seconds everywhere. */

const UNITS: [string, number][] = [['y', 31_536_000], ['w', 604_800], ['d', 86_400], ['h', 3600], ['m', 60], ['s', 1], ['ms', 0.001]];

/** `1h30m` in seconds; plain numbers are seconds; `null` for what is no duration. */
export function parseDuration(text: string): number | null {
  const t = text.trim();
  if (/^\d+(\.\d+)?$/.test(t)) return Number(t) || null;
  if (!/^(\d+(\.\d+)?(ms|[ywdhms]))+$/.test(t)) return null;
  let sum = 0;
  for (const [, n, unit] of t.matchAll(/(\d+(?:\.\d+)?)(ms|[ywdhms])/g)) sum += Number(n) * UNITS.find(u => u[0] === unit)![1];
  return sum || null;
}

export function formatDuration(seconds: number): string {
  let rest = Math.round(seconds * 1000), out = '';
  for (const [unit, size] of UNITS) {
    const ms = size * 1000;
    // Weeks and years only where they say all: 10d is clearer than 1w3d.
    if ((unit === 'w' || unit === 'y') && rest % ms) continue;
    const n = Math.floor(rest / ms);
    if (n) { out += n + unit; rest -= n * ms; }
  }
  return out || '0s';
}

/** For people: `3.2 s`, `14 min`, `2.1 days`. */
export function spoken(seconds: number): string {
  const s = Math.abs(seconds);
  if (s < 1e-6) return Math.round(s * 1e9) + ' ns';
  if (s < 1e-3) return Math.round(s * 1e6) + ' µs';
  if (s < 1) return trim(s * 1e3) + ' ms';
  if (s < 90) return trim(s) + ' s';
  if (s < 5400) return trim(s / 60) + ' min';
  if (s < 129_600) return trim(s / 3600) + ' h';
  if (s < 86_400 * 400) return trim(s / 86_400) + ' days';
  return trim(s / 31_536_000) + ' years';
}
const trim = (n: number) => String(n >= 100 ? Math.round(n) : n >= 10 ? Number(n.toFixed(1)) : Number(n.toFixed(2)));

export const ago = (ms: number) => {
  const s = (Date.now() - ms) / 1000;
  return s < 0 ? 'in ' + spoken(s) : s < 1 ? 'now' : spoken(s) + ' ago';
};

export type Zone = 'local' | 'utc';
const two = (n: number) => String(n).padStart(2, '0');
interface Parts { y: number; mo: number; d: number; h: number; mi: number; s: number; ms: number }
export function parts(seconds: number, zone: Zone): Parts {
  const t = new Date(seconds * 1000);
  return zone === 'utc'
    ? { y: t.getUTCFullYear(), mo: t.getUTCMonth() + 1, d: t.getUTCDate(), h: t.getUTCHours(), mi: t.getUTCMinutes(), s: t.getUTCSeconds(), ms: t.getUTCMilliseconds() }
    : { y: t.getFullYear(), mo: t.getMonth() + 1, d: t.getDate(), h: t.getHours(), mi: t.getMinutes(), s: t.getSeconds(), ms: t.getMilliseconds() };
}
export const date = (t: number, zone: Zone) => { const p = parts(t, zone); return `${p.y}-${two(p.mo)}-${two(p.d)}`; };
export const clock = (t: number, zone: Zone) => { const p = parts(t, zone); return `${two(p.h)}:${two(p.mi)}:${two(p.s)}`; };
/** `2026-11-30 15:04:05`, and milliseconds where there are any. */
export const stamp = (t: number, zone: Zone) => {
  const ms = parts(t, zone).ms;
  return date(t, zone) + ' ' + clock(t, zone) + (ms ? '.' + String(ms).padStart(3, '0') : '');
};

/** Seconds of `2026-11-30 15:04:05`, shorter forms, ISO 8601 with its own zone, or Unix seconds; `null` for anything else. */
export function parseStamp(text: string, zone: Zone): number | null {
  const t = text.trim();
  if (/^\d{9,11}(\.\d+)?$/.test(t)) return Number(t);
  if (/T.*(Z|[+-]\d\d:?\d\d)$/.test(t)) { const n = Date.parse(t); return Number.isNaN(n) ? null : n / 1000; }
  const m = /^(\d{4})-(\d\d?)-(\d\d?)(?:[ T](\d\d?):(\d\d)(?::(\d\d)(?:\.(\d{1,3}))?)?)?$/.exec(t);
  if (!m) return null;
  const [y, mo, d, h, mi, s] = m.slice(1, 7).map(x => Number(x ?? 0));
  const ms = Number((m[7] ?? '').padEnd(3, '0')) || 0;
  const n = zone === 'utc' ? Date.UTC(y, mo - 1, d, h, mi, s, ms) : new Date(y, mo - 1, d, h, mi, s, ms).getTime();
  return Number.isNaN(n) ? null : n / 1000;
}

const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 43_200, 86_400, 172_800, 604_800];
/** A round step that gives at most about `points` points. */
export const autoStep = (range: number, points: number) => STEPS.find(s => range / s <= points) ?? Math.ceil(range / points / 604_800) * 604_800;
