/** The page of questions: panels, all of whose state is in the address. */
import { useEffect, useRef, useState } from 'preact/hooks';
import { cached, soft, type Labels } from '../api';
import { note, place } from '../route';
import { back, Cell, past, useCell } from '../store';
import { emptyPanel, readPanels, writePanels, type Panel as State } from '../url';
import { Panel } from '../panel/Panel';

const isLiveIn = (search: string) => new URLSearchParams(search).get('live') === '1';
/** The address of these panels, asked again by themselves or not. */
const written = (panels: State[], live: boolean) => { const said = writePanels(panels); return live ? `${said || '?'}${said && '&'}live=1` : said; };

interface Keyed { key: number; state: State }
let nextKey = 0;
const keyed = (all: State[], old: Keyed[] = []): Keyed[] => all.map((state, i) => ({ key: old[i]?.key ?? ++nextKey, state }));

export default function Query() {
  const [live] = useState(() => new Cell(isLiveIn(location.search))), at = useCell(place), isLive = useCell(live), returned = useCell(back);
  const [panels, setPanels] = useState(() => keyed(readPanels(location.search)));
  const [nonce, setNonce] = useState(0), [ideas, setIdeas] = useState<string[]>([]), [lonely, setLonely] = useState(false);
  const typed = useRef(false), now = useRef(panels);
  now.current = panels;
  // Back and Forward, and links within.
  const first = useRef(true);
  useEffect(() => {
    if (first.current) { first.current = false; return; }
    typed.current = false;
    live.set(isLiveIn(at.search));
    setPanels(old => keyed(readPanels(at.search), old));
  }, [at]);
  const commit = (next: Keyed[], push: boolean) => {
    setPanels(next);
    now.current = next;
    note(written(next.map(p => p.state), live.value), { push: push && !typed.current });
    typed.current = false;
  };
  const update = (key: number, patch: Partial<State>, push = false) => commit(now.current.map(p => p.key === key ? { key, state: { ...p.state, ...patch } } : p), push);
  // While typing the address follows; the first letter makes a new entry, so that Back leads to what ran before.
  const draft = (key: number, expr: string) => {
    const all = now.current.map(p => p.key === key ? { ...p.state, expr } : p.state);
    if (now.current.find(p => p.key === key)?.state.expr === expr) return;
    note(written(all, live.value), { push: !typed.current });
    typed.current = true;
  };

  useEffect(() => {
    void (async () => {
      const [names, head, others] = await Promise.all([
        cached<string[]>('label/__name__/values', { limit: 10_001 }), cached<{ headStats: { numSeries: number; minTime: number } }>('status/tsdb', { limit: 1 }),
        soft<Labels[]>('series', { 'match[]': '{__name__!="",job!="hearth"}', limit: 1 }),
      ]);
      const found = starters(new Set(names ?? []));
      setIdeas(found);
      setLonely(!!others && !others.length);
      const only = now.current[0];
      if (now.current.length === 1 && !only.state.expr && !typed.current && !location.search && found[0]) {
        // A store that is minutes old fills a range of minutes.
        const young = head && head.headStats.numSeries > 0 && Date.now() - head.headStats.minTime < 900e3;
        if (young) live.set(true);
        commit([{ key: only.key, state: { ...only.state, expr: found[0], range: young ? 300 : 3600 } }], false);
      }
    })();
  }, [returned]);
  const only = panels.length === 1 ? panels[0] : null;
  return <>
    <h1 class="unseen">Query</h1>
    {lonely && <div class="card hello"><strong>Hearth is up. Bring it some metrics.</strong> <span class="soft">So far it holds only what it tells about itself, which is what you see below.</span> <a class="button" href="connect">Connect</a></div>}
    {panels.map((p, i) => <Panel key={p.key} p={p.state} index={i} total={panels.length} nonce={nonce} live={isLive}
      update={(patch, push) => update(p.key, patch, push)} draft={expr => draft(p.key, expr)}
      remove={() => commit(panels.filter(x => x.key !== p.key), true)}
      duplicate={() => commit([...panels.slice(0, i + 1), { key: ++nextKey, state: { ...p.state } }, ...panels.slice(i + 1)], true)}
      everywhere={() => commit(panels.map(x => ({ key: x.key, state: { ...x.state, range: p.state.range, end: p.state.end } })), true)} />)}
    {only && ideas.length > 0 && (!only.state.expr || ideas.includes(only.state.expr)) && <div class="starters" role="group" aria-label="Queries to begin with">{ideas.map(q =>
      <button key={q} type="button" class="mono" title={q} onClick={() => update(only.key, { expr: q, tab: q.startsWith('topk(10, count by') ? 'table' : only.state.tab, sort: '' }, true)}>{q}</button>)}</div>}
    <div class="page-bar">
      <button type="button" onClick={() => commit([...panels, { key: ++nextKey, state: { ...emptyPanel(), range: panels[panels.length - 1]?.state.range ?? 3600, end: panels[panels.length - 1]?.state.end ?? null } }], true)}>+ Add a query</button>
      {panels.length > 1 && <button type="button" onClick={() => setNonce(n => n + 1)}>Run all</button>}
      <label class="check"><input type="checkbox" checked={isLive} onChange={e => { live.set(e.currentTarget.checked); commit(panels, false); }} />live: again every 5 s</label>
    </div>
  </>;
}

function starters(names: Set<string>): string[] {
  const has = (n: string) => names.has(n);
  const ideas = [
    has('node_cpu_seconds_total') && 'sum by (mode) (rate(node_cpu_seconds_total[5m]))',
    has('node_memory_MemAvailable_bytes') && 'node_memory_MemAvailable_bytes',
    has('prometheus_tsdb_head_samples_appended_total') && 'rate(prometheus_tsdb_head_samples_appended_total[1m])',
    has('hearth_tsdb_log_written_bytes_total') && 'rate(hearth_tsdb_log_written_bytes_total[1m])',
    has('hearth_http_request_duration_seconds_bucket') && 'histogram_quantile(0.99, sum by (le) (rate(hearth_http_request_duration_seconds_bucket[1m])))',
    has('process_resident_memory_bytes') && 'process_resident_memory_bytes',
    has('up') && 'up',
    names.size > 0 && 'topk(10, count by (__name__) ({__name__!=""}))',
  ].filter((x): x is string => !!x);
  return [...new Set([...past.value.slice(0, 3).map(p => p.expr).filter(e => e.length < 200 && e !== readPanels(location.search)[0]?.expr), ...ideas])].slice(0, 7);
}
