/** The HTTP API that this page stands on, and what can go wrong with it, told apart. */

export type Labels = Record<string, string>;
export type Point = [number, string];
/** `[boundary rule, lower, upper, count]` */
export type Bucket = [number, string, string, string];
export interface NativeHistogram { count: string; sum: string; buckets?: Bucket[] }
export interface Series {
  metric: Labels;
  value?: Point;
  values?: Point[];
  histogram?: [number, NativeHistogram];
  histograms?: [number, NativeHistogram][];
}
/** A stretch of time and the resolution that answered it. */
export interface Part { resolution: string; start: string; end: string; exact: boolean }
export interface QueryStats {
  timings: { execTotalTime: number; execQueueTime?: number };
  samples: { samplesRead?: number; totalQueryableSamples: number; peakSamples: number };
  resolutions?: Part[];
  /** How much of a range query's result the server had kept from before. */
  cache?: { cachedSteps: number; computedSteps: number; shared: boolean };
}
export type QueryData =
  | { resultType: 'vector' | 'matrix'; result: Series[]; stats?: QueryStats }
  | { resultType: 'scalar' | 'string'; result: Point; stats?: QueryStats };
/** `age` in seconds: what a cache in between held it for, 0 where it came from the server itself. */
export interface Answer<T> { data: T; warnings: string[]; infos: string[]; age: number }
export interface Metadata { type: string; help: string; unit: string }

/** Why there is no answer. `kind` is the API's `errorType`, or one of the page's own: `unreachable`, `starting`, `stopping`, `unauthorized`,
 *  `too_many`, `broken`, `missing` (this server does not serve that). */
export class Failure extends Error {
  constructor(readonly kind: string, text: string, readonly status = 0, readonly retryAfterSeconds = 0) {
    super(text);
  }
}

/** APIs beyond Prometheus' that this server has, as the page's head says: asking for what is not there would fill the console with errors. */
const served = new Set((document.querySelector<HTMLMetaElement>('meta[name=serves]')?.content ?? '').split(' '));
export const serves = (name: string) => served.has(name);

/** The folder that the page lies in: a proxy may have put it below a prefix. Every page is one segment below it; where an address leads nowhere
 *  and may be deeper, the document says. */
export const base = new URL('.', document.baseURI.replace(/[?#].*$/, ''));

export type Form = Record<string, string | number | boolean | string[] | undefined>;
function encode(form: Form): URLSearchParams {
  const out = new URLSearchParams();
  for (const [name, value] of Object.entries(form)) {
    if (Array.isArray(value)) value.forEach(v => out.append(name, v));
    else if (value !== undefined && value !== '') out.append(name, String(value));
  }
  return out;
}

export interface Options { method?: 'GET' | 'POST' | 'DELETE'; signal?: AbortSignal; id?: string }

/** Told of every answer and failure, so that the shell can say that the server is gone or back. */
let listener: (state: 'there' | Failure) => void = () => {};
export function onContact(f: typeof listener) { listener = f; }

async function heard<T>(asking: Promise<T>): Promise<T> {
  try {
    const answer = await asking;
    listener('there');
    return answer;
  } catch (e) {
    if (e instanceof Failure) listener(e);
    throw e;
  }
}

export function api<T>(path: string, form: Form = {}, { method = 'GET', signal, id }: Options = {}): Promise<Answer<T>> {
  const url = new URL('api/v1/' + path, base);
  const body = encode(form);
  const post = method === 'POST';
  if (!post) url.search = body.toString();
  const headers: Record<string, string> = id ? { 'X-Request-Id': id } : {};
  return heard(reach(url, { method, headers, body: post ? body : undefined, signal }).then(answer => read<T>(answer, path)));
}

/** What the server says in plain lines, each with its end. */
export function plain(path: string, signal?: AbortSignal): Promise<string> {
  return heard(reach(new URL(path, base), { signal }).then(async answer => {
    const text = await textOf(answer);
    // A proxy's page is of another kind, and half of the lines end in the middle of one.
    if (answer.ok && answer.headers.get('content-type')?.startsWith('text/plain') && text.endsWith('\n')) return text;
    throw refusal(answer, text, path);
  }));
}

async function reach(url: URL, init: RequestInit): Promise<Response> {
  try {
    return await fetch(url, init);
  } catch (e) {
    if ((e as Error).name === 'AbortError') throw e;
    throw new Failure('unreachable', 'No answer from ' + url.host + '. It may be down, restarting, or the network in between may be.');
  }
}

async function textOf(answer: Response): Promise<string> {
  try {
    return await answer.text();
  } catch (e) {
    if ((e as Error).name === 'AbortError') throw e;
    throw new Failure('broken', 'The answer broke off before its end.', answer.status);
  }
}

interface Said<T> { status?: string; data?: T; error?: string; errorType?: string; warnings?: string[]; infos?: string[] }
/** `null` where it is not the API speaking, or half of it. */
function parsed<T>(text: string): Said<T> | null {
  try { return JSON.parse(text); } catch { return null; }
}

async function read<T>(answer: Response, path: string): Promise<Answer<T>> {
  const text = await textOf(answer), json = parsed<T>(text);
  if (json && json.status === 'success') return { data: json.data as T, warnings: json.warnings ?? [], infos: json.infos ?? [], age: Number(answer.headers.get('age')) || 0 };
  throw refusal(answer, text, path);
}

/** Why this is not what was asked for. */
function refusal(answer: Response, text: string, path: string): Failure {
  const json = parsed(text), wait = Number(answer.headers.get('retry-after')) || 0;
  const said = (json?.error ?? text).slice(0, 20_000);
  switch (answer.status) {
    case 401: case 403: return new Failure('unauthorized', said || 'The server wants to know who asks.', answer.status);
    case 404: if (json?.errorType !== 'not_found' || /there is no/.test(said)) return new Failure('missing', `This server has no ${path}.`, 404); break;
    case 429: return new Failure('too_many', said || 'Too many requests.', 429, wait);
    case 503:
      if (answer.headers.get('x-prometheus-stopping') === 'true' || /stopping/i.test(said)) return new Failure('stopping', 'The server is stopping.', 503, wait);
      if (!json) return new Failure('starting', 'The server is starting.', 503, wait);
  }
  if (json?.error !== undefined) return new Failure(json.errorType || 'internal', said, answer.status, wait);
  if (answer.ok) return new Failure('broken', 'The answer is not whole, or not from Hearth: ' + text.slice(0, 200), answer.status);
  return new Failure('internal', `HTTP ${answer.status}: ${text.slice(0, 300) || answer.statusText}`, answer.status, wait);
}

/** How far a server that starts has read its log, in segments; `null` where it does not say. It is no sign that the server is there. */
export async function replay(): Promise<{ done: number; of: number } | null> {
  try {
    const answer = await fetch(new URL('api/v1/status/walreplay', base)), { data } = await answer.json() as { data: { min: number; max: number; current: number } };
    const of = data.max - data.min + 1;
    return answer.ok && data.max > 0 && of > 0 ? { done: Math.max(0, Math.min(of, data.current - data.min)), of } : null;
  } catch { return null; }
}

/** What a server that starts waits for, in its own words; empty where it does not say. */
export async function waitsFor(): Promise<string> {
  try {
    const answer = await fetch(new URL('-/ready', base)), text = await answer.text();
    return answer.status === 503 ? text.trim().replace(/[.:]? ?(try again in a moment)?\.?$/, '').slice(0, 300) : '';
  } catch { return ''; }
}

/** The data, or `null` for whatever went wrong: for what decorates and is not asked for. */
export async function soft<T>(path: string, form?: Form, options?: Options): Promise<T | null> {
  try { return (await api<T>(path, form, options)).data; } catch { return null; }
}

const known = new Map<string, { until: number; data: Promise<unknown> }>();
/** As [`soft`], kept for half a minute. */
export function cached<T>(path: string, form: Form = {}): Promise<T | null> {
  const key = path + '?' + encode(form), now = Date.now();
  for (const [k, v] of known) if (v.until < now) known.delete(k);
  const hit = known.get(key);
  if (hit) return hit.data as Promise<T | null>;
  const data = soft<T>(path, form);
  known.set(key, { until: now + 30_000, data });
  void data.then(d => { if (d === null) known.delete(key); });
  return data;
}
