/** Alerts by state: what fires, what may soon, and what is watched. */
import { useInAddress } from '../address';
import { useAsk } from '../ask';
import { digits, toNumber } from '../format';
import { STATES, type Rule, type Rules } from '../rules';
import { Got, Page } from '../Shell';
import { ago, formatDuration } from '../time';
import { queryLink } from '../url';
import { LabelList } from './Rules';

interface Managers { activeAlertmanagers: { url: string }[]; droppedAlertmanagers: { url: string }[] }
const hostOf = (url: string) => { try { return new URL(url).host.slice(0, 200); } catch { return url.slice(0, 200); } };

export default function Alerts() {
  const [search, setSearch] = useInAddress('search'), [without, setWithout] = useInAddress('without'), off = without.split(',');
  const asked = useAsk<Rules>('rules', { type: 'alert' }, 10_000), managers = useAsk<Managers>('alertmanagers');
  return <Page title="Alerts"><Got asked={asked}>{({ groups }) => {
    const all = groups.flatMap(g => g.rules.filter(r => r.type === 'alerting').map(r => ({ r, g }))), stateOf = (r: Rule) => r.state === 'firing' || r.state === 'pending' ? r.state : 'inactive';
    if (!all.length) return <div class="card empty"><strong>No alerts are watched</strong><p class="soft">Alerting rules are read from rule files that the server's configuration names.</p></div>;
    const by = (s: string) => all.filter(({ r }) => stateOf(r) === s);
    const shown = STATES.filter(s => !off.includes(s)).flatMap(by).filter(({ r }) => (r.name + ' ' + r.query + ' ' + JSON.stringify(r.labels ?? {}) + JSON.stringify((r.alerts ?? []).map(a => a.labels))).toLowerCase().includes(search.toLowerCase()));
    return <>
      <div class="filters"><input type="search" placeholder="Filter by name, query or label" aria-label="Filter alerts" value={search} onInput={e => setSearch(e.currentTarget.value)} />
        {STATES.map(s => <label key={s} class="check"><input type="checkbox" checked={!off.includes(s)} onChange={() => setWithout(STATES.filter(x => off.includes(x) !== (x === s)).join())} /><span class={'badge ' + (s === 'inactive' ? 'good' : s)}>{s} {by(s).length}</span></label>)}
        {managers.data && <span class="soft cut">{managers.data.activeAlertmanagers.length ? `sent to ${managers.data.activeAlertmanagers.map(m => hostOf(m.url)).slice(0, 3).join(', ')}` : 'sent to nobody: no Alertmanager is configured'}</span>}</div>
      {shown.map(({ r, g }) => <details key={g.file + g.name + r.name + r.query} class="card group" open={stateOf(r) !== 'inactive'}>
        <summary><span class={'badge ' + (stateOf(r) === 'inactive' ? 'good' : stateOf(r))}>{stateOf(r)}</span><b>{r.name}</b>{(r.alerts?.length ?? 0) > 0 && <span class="soft">{r.alerts!.length}</span>}<LabelList all={r.labels} /><span class="grow" /><span class="soft cut">{g.name}</span>{r.health === 'err' && <span class="badge bad">failed</span>}</summary>
        <div class="rule"><p><a class="mono cut" href={queryLink(r.query)}>{r.query.slice(0, 2000)}</a></p>{r.duration ? <p class="soft">for {formatDuration(r.duration)}</p> : null}{r.lastError && <p class="note bad">{r.lastError.slice(0, 2000)}</p>}
          {Object.entries(r.annotations ?? {}).map(([n, v]) => <p key={n} class="cut"><span class="soft">{n}: </span>{v.slice(0, 2000)}</p>)}</div>
        {(r.alerts?.length ?? 0) > 0 && <div class="scroll" tabIndex={0} role="region" aria-label={'Alerts of ' + r.name}><table class="alerts"><thead><tr><th>Labels</th><th>State</th><th>Since</th><th class="v">Value</th></tr></thead><tbody>{r.alerts!.slice(0, 500).map((a, i) => <tr key={i}>
          <td><LabelList all={a.labels} without={['alertname']} />{Object.entries(a.annotations).slice(0, 6).map(([n, v]) => <div key={n} class="soft cut">{n}: {v.slice(0, 1000)}</div>)}</td><td><span class={'badge ' + a.state}>{a.state}</span>{a.keepFiringSince ? <div class="soft">kept</div> : null}</td><td class="num">{a.activeAt ? ago(Date.parse(a.activeAt)) : ''}</td><td class="v">{digits(toNumber(a.value), 6)}</td></tr>)}</tbody></table></div>}
      </details>)}
      {!shown.length && <p class="soft">No alert like that.</p>}
    </>;
  }}</Got></Page>;
}
