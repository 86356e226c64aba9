/** What the server works on now, and what lately took longest. */
import { useState } from 'preact/hooks';
import { useInAddress } from '../address';
import { useAsk } from '../ask';
import { api } from '../api';
import { bytes, grouped } from '../format';
import { Got, Page } from '../Shell';
import { ago, spoken } from '../time';
import { queryLink } from '../url';

interface Query { id: string; query: string; endpoint: string; tenant: string; started: string; seconds: number; samplesRead: number; bytes: number; state: 'queued' | 'running' | 'done' | 'failed' | 'cancelled'; error?: string; start?: number; end?: number; step?: number }
interface Queries { running: Query[]; recent: Query[]; limit?: number }
const ORDERS = ['seconds', 'samplesRead', 'bytes', 'started'];
export default function QueriesPage() {
  const asked = useAsk<Queries>('queries', {}, 2000), [order, setOrder] = useInAddress('order', 'seconds', ORDERS), [said, setSaid] = useState(''), [by, setBy] = useInAddress('tenant');
  const cancel = async (q: Query) => { try { await api(`queries/${encodeURIComponent(q.id)}`, {}, { method: 'DELETE' }); setSaid('Cancelled.'); } catch (e) { setSaid((e as Error).message); } asked.again(); setTimeout(() => setSaid(''), 4000); };
  const link = (q: Query) => queryLink(q.query, q.step && q.start !== undefined && q.end !== undefined ? { range: q.end - q.start, end: q.end } : { tab: 'table' });
  return <Page title="Queries"><Got asked={asked}>{d => {
    const tenants = [...new Set([...d.running, ...d.recent].map(q => q.tenant))].filter(Boolean).sort();
    const fits = (q: Query) => !by || q.tenant === by;
    const recent = d.recent.filter(fits).sort((a, b) => order === 'started' ? Date.parse(b.started) - Date.parse(a.started) : b[order as 'seconds'] - a[order as 'seconds']).slice(0, 100);
    return <>
      {tenants.length > 1 && <div class="filters"><label class="check">tenant <select class="small" value={by} onChange={e => setBy(e.currentTarget.value)}><option value="">all</option>{tenants.map(t => <option key={t}>{t}</option>)}</select></label></div>}
      <section class="card block"><h2>Running</h2>{said && <p role="status" class="soft">{said}</p>}
        {!d.running.filter(fits).length ? <p class="soft">None at this moment.</p> : <div class="scroll" tabIndex={0} role="region" aria-label="Running queries"><table class="roomy"><thead><tr><th>Query</th><th class="v">For</th><th class="v">Samples</th><th class="v wide">Memory</th><th class="v">Stop</th></tr></thead><tbody>{d.running.filter(fits).map(q => <tr key={q.id}><td><a class="mono cut" href={link(q)}>{q.query.slice(0, 1000)}</a><div class="soft">{[q.endpoint, tenants.length > 1 ? q.tenant : '', q.state === 'queued' ? 'waits for its turn' : ''].filter(Boolean).join(' · ')}</div></td><td class="v">{spoken(q.seconds)}</td><td class="v">{grouped(q.samplesRead)}</td><td class="v wide">{bytes(q.bytes)}</td><td class="v"><button type="button" class="small" onClick={() => cancel(q)}>Cancel</button></td></tr>)}</tbody></table></div>}</section>
      <section class="card block"><h2>Lately</h2><div class="filters"><label class="check">by <select class="small" value={order} onChange={e => setOrder(e.currentTarget.value)}><option value="seconds">time</option><option value="samplesRead">samples read</option><option value="bytes">memory</option><option value="started">when</option></select></label><span class="soft">of the last {grouped(d.recent.length)} that ended</span></div>
        <div class="scroll" tabIndex={0} role="region" aria-label="Queries that ended"><table class="roomy"><thead><tr><th>Query</th><th class="v">Took</th><th class="v">Samples</th><th class="v wide">Memory</th><th class="v wide">When</th></tr></thead><tbody>{recent.map((q, i) => <tr key={i}><td><a class="mono cut" href={link(q)}>{q.query.slice(0, 1000)}</a><div class="soft">{[q.endpoint, tenants.length > 1 ? q.tenant : ''].filter(Boolean).join(' · ')} {q.state !== 'done' && <span class={'badge ' + (q.state === 'failed' ? 'bad' : 'warn')}>{q.state}</span>}{q.error ? ' ' + q.error.slice(0, 300) : ''}</div></td><td class="v">{spoken(q.seconds)}</td><td class="v">{grouped(q.samplesRead)}</td><td class="v wide">{bytes(q.bytes)}</td><td class="v wide">{ago(Date.parse(q.started))}</td></tr>)}</tbody></table></div></section>
    </>;
  }}</Got></Page>;
}
