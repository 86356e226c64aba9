/** What the browser remembers: theme, time zone, history and favourites. A private window remembers nothing and works the same. */
import { useEffect, useState } from 'preact/hooks';
import type { Zone } from './time';

function get<T>(key: string, otherwise: T): T {
  try {
    const text = localStorage.getItem('hearth.' + key);
    return text === null ? otherwise : JSON.parse(text);
  } catch { return otherwise; }
}
function put(key: string, value: unknown) {
  try { localStorage.setItem('hearth.' + key, JSON.stringify(value)); } catch { /* private window, or full */ }
}

/** A value that components can watch. */
export class Cell<T> {
  private watchers = new Set<() => void>();
  constructor(private current: T, private readonly key?: string) { if (key) this.current = get(key, current); }
  get value() { return this.current; }
  set(value: T) {
    if (value === this.current) return;
    this.current = value;
    if (this.key) put(this.key, value);
    this.watchers.forEach(w => w());
  }
  watch(f: () => void) { this.watchers.add(f); return () => { this.watchers.delete(f); }; }
}
export function useCell<T>(cell: Cell<T>): T {
  const [, again] = useState(0);
  useEffect(() => cell.watch(() => again(n => n + 1)), [cell]);
  return cell.value;
}

export type Theme = 'system' | 'light' | 'dark';
export const theme = new Cell<Theme>('system', 'theme');
export const zone = new Cell<Zone>('local', 'zone');
const system = matchMedia('(prefers-color-scheme: dark)');
export const dark = new Cell(false);
function paint() {
  const is = theme.value === 'system' ? system.matches : theme.value === 'dark';
  document.documentElement.dataset.theme = is ? 'dark' : 'light';
  dark.set(is);
}
theme.watch(paint);
system.addEventListener('change', paint);
paint();

/** How often the server came back after it was away: who asked meanwhile asks again. */
export const back = new Cell(0);

export interface Past { expr: string; at: number }
export const past = new Cell<Past[]>([], 'history');
export const favourites = new Cell<string[]>([], 'favourites');
export function remember(expr: string) {
  const rest = past.value.filter(p => p.expr !== expr);
  past.set([{ expr, at: Date.now() }, ...rest].slice(0, 100));
}
export function toggleFavourite(expr: string) {
  const all = favourites.value;
  favourites.set(all.includes(expr) ? all.filter(e => e !== expr) : [expr, ...all].slice(0, 200));
}
