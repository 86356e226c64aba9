/** Numbers for people, by their unit. */

export type Unit = 'none' | 'bytes' | 'seconds' | 'ratio' | 'bytes/s' | '/s' | 'time' | 'celsius' | 'percent';
export const UNITS: [Unit, string][] = [
  ['none', 'plain'], ['bytes', 'bytes'], ['bytes/s', 'bytes a second'], ['seconds', 'seconds'], ['ratio', 'share (0 to 1)'],
  ['percent', 'percent'], ['/s', 'per second'], ['celsius', '°C'], ['time', 'Unix time'],
];

export const toNumber = (s: string) => s === '+Inf' || s === 'Inf' ? Infinity : s === '-Inf' ? -Infinity : Number(s);
export const count = (n: number, one: string, many = one + 's') => n.toLocaleString('en') + ' ' + (n === 1 ? one : many);
export const grouped = (n: number) => n.toLocaleString('en');

/** At most `digits` significant digits, without an exponent where it can be read without. */
export function digits(n: number, most = 4): string {
  if (Number.isNaN(n)) return 'NaN';
  if (!Number.isFinite(n)) return n > 0 ? '+Inf' : '-Inf';
  if (n === 0) return '0';
  const a = Math.abs(n);
  if (a >= 1e18 || a < 1e-6) return n.toExponential(Math.max(0, most - 1)).replace(/\.?0*e\+?/, 'e');
  const s = Number(n.toPrecision(most));
  return a >= 10 ** most && Number.isInteger(n) ? String(n) : String(s);
}
const LARGE: [number, string][] = [[1e15, 'P'], [1e12, 'T'], [1e9, 'G'], [1e6, 'M'], [1e3, 'k']];
export function short(n: number, most = 4): string {
  const a = Math.abs(n);
  if (!Number.isFinite(n)) return digits(n);
  for (const [size, letter] of LARGE) if (a >= size * (size === 1e3 ? 10 : 1) && a < 1e18) return digits(n / size, most) + letter;
  return digits(n, most);
}
export function bytes(n: number): string {
  const a = Math.abs(n);
  if (!Number.isFinite(n)) return digits(n);
  for (const [i, letter] of ['E', 'P', 'T', 'G', 'M', 'K'].entries()) { const size = 1024 ** (6 - i); if (a >= size) return digits(n / size, 3) + ' ' + letter + 'iB'; }
  return digits(n, 3) + ' B';
}
function seconds(n: number): string {
  const a = Math.abs(n);
  if (!Number.isFinite(n) || a === 0) return a === 0 ? '0 s' : digits(n);
  if (a < 1e-6) return digits(n * 1e9, 3) + ' ns';
  if (a < 1e-3) return digits(n * 1e6, 3) + ' µs';
  if (a < 1) return digits(n * 1e3, 3) + ' ms';
  if (a < 120) return digits(n, 3) + ' s';
  if (a < 7200) return digits(n / 60, 3) + ' min';
  if (a < 172_800) return digits(n / 3600, 3) + ' h';
  return digits(n / 86_400, 4) + ' d';
}
export function withUnit(n: number, unit: Unit): string {
  switch (unit) {
    case 'bytes': return bytes(n);
    case 'bytes/s': return bytes(n) + '/s';
    case 'seconds': return seconds(n);
    case 'ratio': return Number.isFinite(n) ? digits(n * 100, 3) + ' %' : digits(n);
    case 'percent': return Number.isFinite(n) ? digits(n, 3) + ' %' : digits(n);
    case '/s': return short(n) + '/s';
    case 'celsius': return digits(n, 3) + ' °C';
    case 'time': return Number.isFinite(n) && Math.abs(n) < 1e11 ? new Date(n * 1000).toISOString().slice(0, 19).replace('T', ' ') : digits(n);
    default: return short(n);
  }
}

/** The unit of an expression's values by the names and functions in it, as far as it is plain. `unitOfName` may know more, from metadata. */
export function unitOf(expr: string, unitOfName: (name: string) => string = () => ''): Unit {
  const text = expr.replace(/"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|`[^`]*`/g, '""').replace(/\{[^}]*\}|\[[^\]]*\]|#.*/g, ' ');
  if (/^\s*(count|count_values|group|absent\w*|changes|resets|count_over_time|sgn|rank)\b/.test(text)) return 'none';
  // What is divided, multiplied or compared by operators has a unit of its own.
  if (/\d*\s*\*\s*100\b|\b100\s*\*/.test(text) && text.includes('/')) return 'percent';
  if (/[^\w]\/[^\w]?|\s\*\s|\^|%/.test(text)) {
    const sides = text.split('/');
    if (sides.length === 2) { const [a, b] = sides.map(s => nameUnit(s, unitOfName)); if (a && a === b) return 'ratio'; if (/_sum\b/.test(sides[0]) && /_count\b/.test(sides[1])) return a ? base(a) : 'none'; }
    return 'none';
  }
  const unit = nameUnit(text, unitOfName);
  const perSecond = /\b(rate|irate|deriv)\s*\(/.test(text);
  if (/\b(timestamp|time|ts_of_\w+)\s*\(/.test(text)) return /-/.test(text) ? 'seconds' : 'time';
  if (/\bhistogram_(quantile|avg|stddev)\b/.test(text)) return unit ? base(unit) : 'none';
  if (/_(bucket|count)\b/.test(text) || /\bhistogram_count\b/.test(text)) return perSecond ? '/s' : 'none';
  if (perSecond) return unit === 'bytes' ? 'bytes/s' : unit === 'seconds' ? 'ratio' : '/s';
  if (/_(timestamp|time)_seconds\b/.test(text) && !/-/.test(text)) return 'time';
  return unit ? base(unit) : 'none';
}
/** The unit of the bounds of buckets, whatever the query counts in them. */
export function unitOfBounds(expr: string, unitOfName: (name: string) => string = () => ''): Unit {
  const unit = nameUnit(expr.replace(/"(?:[^"\\]|\\.)*"/g, '""'), unitOfName);
  return unit ? base(unit) : 'none';
}
const base = (unit: string): Unit => unit === 'bytes' ? 'bytes' : unit === 'seconds' ? 'seconds' : unit === 'ratio' ? 'ratio' : unit === 'celsius' ? 'celsius' : unit === 'percent' ? 'percent' : 'none';
function nameUnit(text: string, known: (name: string) => string): string {
  for (const [name] of text.matchAll(/[a-zA-Z_:][\w:]*_[\w:]*/g)) {
    const told = known(name);
    if (told) return told;
    const m = /_(bytes|seconds|ratio|celsius|percent)(_total|_sum|_bucket|_count|_created)?$/.exec(name);
    if (m) return m[1];
  }
  return '';
}
