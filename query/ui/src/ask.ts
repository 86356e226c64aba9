/** Data for a page: loading, there, or failed, and asked again when told to. */
import { useEffect, useState } from 'preact/hooks';
import { api, Failure, type Form } from './api';

export interface Asked<T> { data: T | null; failure: Failure | null; loading: boolean; again(): void }
/** What `load` gives, anew for each `key`; a `key` of null asks nothing. `every` in ms repeats it while the page is in
 *  sight; what is shown stays meanwhile. */
export function useLoaded<T>(key: string | null, load: (signal: AbortSignal) => Promise<T>, every = 0): Asked<T> {
  const [data, setData] = useState<T | null>(null), [failure, setFailure] = useState<Failure | null>(null), [loading, setLoading] = useState(key !== null), [n, setN] = useState(0);
  useEffect(() => { setData(null); setFailure(null); }, [key]);
  useEffect(() => {
    if (key === null) return;
    const mine = new AbortController();
    setLoading(true);
    load(mine.signal).then(a => { setData(a); setFailure(null); setLoading(false); }, e => {
      if ((e as Error).name === 'AbortError') return;
      setFailure(e instanceof Failure ? e : new Failure('page', String(e))); setLoading(false);
    });
    return () => mine.abort();
  }, [key, n]);
  useEffect(() => {
    if (!every || key === null) return;
    const t = setInterval(() => { if (!document.hidden) setN(n => n + 1); }, every);
    return () => clearInterval(t);
  }, [every, key]);
  return { data, failure, loading, again: () => setN(n => n + 1) };
}

/** The same of the API. `path` null asks nothing. */
export const useAsk = <T>(path: string | null, form: Form = {}, every = 0): Asked<T> =>
  useLoaded(path === null ? null : JSON.stringify([path, form]), async signal => (await api<T>(path!, form, { signal })).data, every);
