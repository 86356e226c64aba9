/** Processes that share this store. */
import { useAsk } from '../ask';
import { Got, Page } from '../Shell';
import { ago } from '../time';

interface Member { name: string; role?: string; roles?: string[]; address?: string; seen?: string; state?: string }
export default function Members() {
  const asked = useAsk<{ members: Member[] }>('members', {}, 10_000);
  return <Page title="Members"><Got asked={asked}>{({ members }) => <section class="card block"><table><thead><tr><th>Member</th><th>Roles</th><th>Address</th><th>State</th><th class="v">Seen</th></tr></thead><tbody>{members.map(m => <tr key={m.name}><td class="mono">{m.name}</td><td>{(m.roles ?? [m.role ?? '']).join(', ')}</td><td class="mono">{m.address ?? ''}</td><td>{m.state && <span class="badge">{m.state}</span>}</td><td class="v">{m.seen ? ago(Date.parse(m.seen)) : ''}</td></tr>)}</tbody></table></section>}</Got></Page>;
}
