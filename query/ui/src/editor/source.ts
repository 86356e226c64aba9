/** What completion asks the server for: always with a limit, narrowed by all matchers that stand in the selector. */
import { api, cached, Failure, serves, soft, type Form, type Metadata } from '../api';

/** From how many names on the server looks for those that fit, instead of the browser. */
export const MANY_NAMES = 10_000;

export class Source {
  /** Selectors around the cursor, less what is being typed. */
  around: string[] = [];
  /** Whether the last list of names was cut to those that fit the word. */
  narrowed = false;
  /** Called when a label was chosen whose value comes next. */
  chosen: () => void = () => {};

  constructor(private readonly span: () => { start: number; end: number }) {}

  private when() {
    // Rounded, so that what was asked a moment ago is still known.
    const { start, end } = this.span(), round = 600;
    return { start: Math.floor(start / round) * round, end: Math.ceil(end / round) * round };
  }

  /** A list from the server. One lost answer would leave nothing to choose from until the next key, so it is asked for once more. */
  private async list(path: string, form: Form): Promise<string[] | null> {
    const first = await cached<string[]>(path, form);
    if (first) return first;
    await new Promise(f => setTimeout(f, 400));
    return cached<string[]>(path, form);
  }

  async labelNames(): Promise<string[]> {
    const all = await this.list('labels', { 'match[]': this.around, limit: 1000, ...this.when() });
    return (all ?? []).filter(n => n !== '__name__');
  }

  async labelValues(label: string): Promise<string[]> {
    return await this.list(`label/${encodeURIComponent(label)}/values`, { 'match[]': this.around, limit: 1000, ...this.when() }) ?? [];
  }

  async metricNames(word: string): Promise<string[]> {
    const when = this.when();
    const all = await this.list('label/__name__/values', { limit: MANY_NAMES + 1, ...when }) ?? [];
    this.narrowed = all.length > MANY_NAMES;
    if (!this.narrowed) return all;
    const plain = word.replace(/[^\w:]/g, '');
    if (!plain) return all.slice(0, 500);
    return await this.list('label/__name__/values', { 'match[]': `{__name__=~"(?i).*${plain}.*"}`, limit: 500, ...when }) ?? [];
  }

  async metricMetadata(): Promise<Record<string, Metadata[]>> {
    return await cached<Record<string, Metadata[]>>('metadata', { limit: MANY_NAMES, limit_per_metric: 1 }) ?? {};
  }
}

/** Metadata of one metric; that of a histogram's or a counter's parts where they have none of their own. */
export async function metadataOf(name: string): Promise<(Metadata & { of: string }) | null> {
  for (const n of [name, name.replace(/_(bucket|count|sum|total|created|info)$/, '')]) {
    const found = await cached<Record<string, Metadata[]>>('metadata', { metric: n, limit_per_metric: 1 });
    const m = found?.[n]?.[0];
    if (m) return { ...m, of: n };
  }
  return null;
}

/** A parse error and where it is, in characters; `null` where the query is right or the server does not say. */
export interface Wrong { from: number; to: number; text: string }
/** What a query would read, from `GET|POST /api/v1/estimate`. */
export interface Cost { error?: string; series: number; samples: number; bytes: number; atLeast: boolean; blocks: number; head: boolean; limits: { maxSamples: number } }
/** What is known of a text before it is run. */
export interface Checked { text: string; wrong: Wrong | null; cost: Cost | null }
/** Asks the parser that will run it, and what it would cost. `when` is the query's time as the API takes it. */
export async function check(text: string, when: Form, signal: AbortSignal): Promise<Checked> {
  if (!text.trim()) return { text, wrong: null, cost: null };
  if (serves('estimate')) {
    const { data } = await api<Cost>('estimate', { query: text, ...when }, { method: 'POST', signal });
    return data.error === undefined ? { text, wrong: null, cost: data } : { text, wrong: wrongOf(text, data.error), cost: null };
  }
  try {
    await api('parse_query', { query: text }, { method: 'POST', signal });
    return { text, wrong: null, cost: null };
  } catch (e) {
    if (e instanceof Failure && e.kind === 'bad_data') return { text, wrong: wrongOf(text, e.message), cost: null };
    throw e;
  }
}

/** `1:5: parse error: …` as a place in the text. Columns count bytes. */
export function wrongOf(expr: string, message: string): Wrong | null {
  const m = /(\d+):(\d+): parse error: ([\s\S]*)/.exec(message);
  if (!m) return null;
  const lines = expr.split('\n'), line = lines[Number(m[1]) - 1] ?? '';
  const before = lines.slice(0, Number(m[1]) - 1).reduce((n, l) => n + l.length + 1, 0);
  const column = Math.min(charOf(line, Number(m[2]) - 1), line.length);
  const rest = line.slice(column), word = /^([\w:.]+|"[^"]*"?|.)/u.exec(rest)?.[0] ?? '';
  const from = before + (word ? column : Math.max(0, column - 1));
  return { from, to: Math.max(from + 1, before + column + word.length), text: m[3] };
}

/** The character at which the byte of this number lies. */
export function charOf(text: string, byte: number): number {
  let bytes = 0, at = 0;
  for (const c of text) {
    if (bytes >= byte) break;
    const code = c.codePointAt(0)!;
    bytes += code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    at += c.length;
  }
  return at;
}

export const format = (expr: string) => soft<string>('format_query', { query: expr }, { method: 'POST' });
