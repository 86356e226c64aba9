/** All metrics to choose one from, for a query: found by words of name and help text, walked with the arrows. */
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks';
import { count, grouped } from '../format';
import { Marked, matching, useMetrics, wordsOf } from '../metrics';
import { useRows } from '../virtual';
import { Failed } from './Failed';

const ROW = 44;
export function Picker({ choose, close }: { choose(name: string): void; close(): void }) {
  const dialog = useRef<HTMLDialogElement>(null), { names, rows } = useMetrics();
  const [search, setSearch] = useState(''), [at, setAt] = useState(0);
  useEffect(() => { dialog.current?.showModal(); }, []);
  const words = useMemo(() => wordsOf(search), [search]);
  const found = useMemo(() => matching(rows, words), [rows, words]);
  const { root, element, from, to } = useRows(found.length, ROW, search);
  useLayoutEffect(() => {
    if (!element) return;
    const top = at * ROW, low = top + ROW - element.clientHeight;
    if (element.scrollTop > top) element.scrollTop = top; else if (element.scrollTop < low) element.scrollTop = low;
  }, [at, element]);
  const key = (e: KeyboardEvent) => {
    const page = Math.max(1, Math.floor((element?.clientHeight ?? ROW) / ROW) - 1), by = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page }[e.key];
    if (by && found.length) { e.preventDefault(); setAt(Math.max(0, Math.min(found.length - 1, at + by))); }
    if (e.key === 'Enter' && found[at]) { e.preventDefault(); choose(found[at].name); }
  };
  return <dialog ref={dialog} class="card picker" aria-label="Choose a metric" onClose={close} onClick={e => { if (e.target === dialog.current) close(); }} onKeyDown={key}>
    <div class="table-top"><input type="search" aria-controls="picked-from" aria-activedescendant={found[at] ? 'pick-' + at : undefined} aria-label="Search metrics" placeholder="Words of name or help" value={search} onInput={e => { setSearch(e.currentTarget.value); setAt(0); }} />
      <span class="soft num" role="status">{names.data ? found.length === rows.length ? count(rows.length, 'metric') : `${grouped(found.length)} of ${grouped(rows.length)}` : names.loading ? 'Loading…' : ''}</span>
      <button type="button" class="quiet icon" aria-label="Close" onClick={close}>×</button></div>
    {names.failure && <Failed failure={names.failure} retry={names.again} />}
    <div class="finder" id="picked-from" ref={root} role="listbox" tabIndex={0} aria-label="Metrics">
      <div class="inner" role="presentation" style={{ height: found.length * ROW + 'px' }}>{found.slice(from, to).map((r, i) =>
        <div class="metric-row" role="option" id={'pick-' + (from + i)} key={r.name} aria-selected={from + i === at} aria-posinset={from + i + 1} aria-setsize={found.length} style={{ top: (from + i) * ROW + 'px' }} onClick={() => choose(r.name)}>
          <span><span class="mono"><Marked text={r.name.slice(0, 300)} words={words} /></span>{r.help && <small><Marked text={r.help.slice(0, 300)} words={words} /></small>}</span><span class="soft cut-off">{r.type.slice(0, 40)}</span>
        </div>)}</div>
    </div>
    {names.data && !found.length && <p class="soft pad">{rows.length ? 'No metric has all of these words.' : 'This server holds none yet.'}</p>}
  </dialog>;
}
