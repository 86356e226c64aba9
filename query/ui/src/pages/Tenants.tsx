/** Tenants: what each has and may have. */
import { useAsk } from '../ask';
import { grouped } from '../format';
import { Got, Page } from '../Shell';

interface Tenant { name: string; series?: number; limits?: Record<string, string | number | null> }
export default function Tenants() {
  const asked = useAsk<{ tenants: Tenant[] }>('tenants');
  return <Page title="Tenants"><Got asked={asked}>{({ tenants }) => <section class="card block"><table><thead><tr><th>Tenant</th><th class="v">Series now</th><th>Limits</th></tr></thead><tbody>{tenants.map(t => <tr key={t.name}><td class="mono">{t.name}</td><td class="v">{t.series === undefined ? '' : grouped(t.series)}</td><td>{Object.entries(t.limits ?? {}).map(([k, v]) => <div key={k}><span class="soft">{k}</span> {String(v)}</div>)}</td></tr>)}</tbody></table></section>}</Got></Page>;
}
