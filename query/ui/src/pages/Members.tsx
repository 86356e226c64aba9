/** Processes that share this store: who they are, whether they are there, and who still owes samples that it does not have. */
import { useAsk } from '../ask';
import { count } from '../format';
import { Got, Page } from '../Shell';
import { ago } from '../time';

/** Times in seconds since 1970. */
interface Member { name: string; role: string; address: string; zone?: string; replicaGroup?: string; owesSamples: boolean; late: boolean; started: number; lastBeat: number; version?: string }
export default function Members() {
  const asked = useAsk<{ members: Member[]; error?: string | null }>('status/members', {}, 10_000);
  return <Page title="Members"><Got asked={asked}>{({ members, error }) => {
    const owing = members.filter(m => m.late && m.owesSamples), places = members.some(m => m.zone || m.replicaGroup);
    return <>
      {error && <p class="note bad" role="alert">The list may be old: {error.slice(0, 2000)}</p>}
      {owing.length > 0 && <p class="note warn" role="alert"><b>{count(owing.length, 'member')} went away with samples that are not in the store.</b> Answers that need them say so. They are back once it runs again; where it never will, <code>hearth bucket forget {owing[0].name.slice(0, 100)}</code> ends the wait.</p>}
      {!members.length ? <div class="card empty"><strong>Nobody else</strong><p class="soft">No process has written its name into the store yet.</p></div>
        : <section class="card block"><div class="scroll" tabIndex={0} role="region" aria-label="Members"><table class="roomy"><thead><tr><th>Member</th><th>Role</th><th class="wide">Address</th>{places && <th class="wide">Place</th>}<th>State</th><th class="v">Seen</th><th class="v wide">Started</th></tr></thead><tbody>
          {[...members].sort((a, b) => a.role.localeCompare(b.role) || a.name.localeCompare(b.name)).map(m => <tr key={m.name}>
            <td class="mono" title={m.version && 'Hearth ' + m.version.slice(0, 100)}>{m.name.slice(0, 200)}</td><td>{m.role.slice(0, 50)}</td><td class="mono wide">{(m.address ?? '').slice(0, 300)}</td>
            {places && <td class="wide">{[m.zone, m.replicaGroup].filter(Boolean).join(' · ').slice(0, 200)}</td>}
            <td><span class={'badge ' + (m.late ? m.owesSamples ? 'bad' : 'warn' : 'good')}>{m.late ? 'away' : 'there'}</span>{m.owesSamples && <> <span class="badge" title="It holds samples that are not in the store yet">holds samples</span></>}</td>
            <td class="v">{ago(m.lastBeat * 1000)}</td><td class="v wide">{ago(m.started * 1000)}</td></tr>)}
        </tbody></table></div></section>}
    </>;
  }}</Got></Page>;
}
