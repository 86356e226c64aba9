/** Data for a page: loading, there, or failed, and asked again when told to. */
import { useEffect, useState } from 'preact/hooks';
import { api, Failure, type Form } from './api';

export interface Asked<T> { data: T | null; failure: Failure | null; loading: boolean; again(): void }
/** `every` in ms repeats it while the page is in sight; what is shown stays meanwhile. `path` null asks nothing. */
export function useAsk<T>(path: string | null, form: Form = {}, every = 0): Asked<T> {
  const [data, setData] = useState<T | null>(null), [failure, setFailure] = useState<Failure | null>(null), [loading, setLoading] = useState(path !== null), [n, setN] = useState(0);
  const key = JSON.stringify([path, form]);
  useEffect(() => { setData(null); setFailure(null); }, [key]);
  useEffect(() => {
    if (path === null) return;
    const mine = new AbortController();
    setLoading(true);
    api<T>(path, form, { signal: mine.signal }).then(a => { setData(a.data); setFailure(null); setLoading(false); }, e => {
      if ((e as Error).name === 'AbortError') return;
      setFailure(e instanceof Failure ? e : new Failure('page', String(e))); setLoading(false);
    });
    return () => mine.abort();
  }, [key, n]);
  useEffect(() => {
    if (!every || path === null) return;
    const t = setInterval(() => { if (!document.hidden) setN(n => n + 1); }, every);
    return () => clearInterval(t);
  }, [every, key]);
  return { data, failure, loading, again: () => setN(n => n + 1) };
}
