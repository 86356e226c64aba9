/** Limits: what holds for every tenant, and for which tenants something else does. */
import { useInAddress } from '../address';
import { plain } from '../api';
import { useLoaded } from '../ask';
import { bytes, grouped } from '../format';
import { Got, Page } from '../Shell';

/** Limits by name; a rule about queries is more than a line, and kept as it stands. */
type Limits = [name: string, value: string][];
interface Shown { defaults: Limits; tenants: { name: string; own: Limits }[] }

/** Lines of `name: value` at one depth, with what is indented further behind them. */
export function limitsOf(lines: string[], depth: number): Limits {
  const out: Limits = [];
  for (const line of lines) {
    const m = new RegExp(`^ {${depth}}([\\w.]+):\\s*(.*)$`).exec(line);
    if (m) out.push([m[1], m[2]]);
    else if (out.length && line.trim()) { const last = out[out.length - 1]; last[1] += (last[1] ? '\n' : '') + line.slice(depth + 2); }
  }
  return out;
}

/** The tenants of `overrides:`, as the server writes them. */
export function tenantsOf(text: string): Shown['tenants'] {
  const out: { name: string; lines: string[] }[] = [];
  for (const line of text.split('\n')) {
    const m = /^ {2}("(?:[^"\\]|\\.)*"|[^\s"][^:]*):/.exec(line);
    if (m) out.push({ name: m[1].startsWith('"') ? JSON.parse(m[1]) as string : m[1], lines: [] });
    else if (line.startsWith('    ')) out[out.length - 1]?.lines.push(line);
  }
  return out.map(t => ({ name: t.name, own: limitsOf(t.lines, 4) }));
}

async function limits(signal: AbortSignal): Promise<Shown> {
  const [all, own] = await Promise.all(['defaults', 'diff'].map(mode => plain('runtime_config?mode=' + mode, signal)));
  return { defaults: limitsOf(all.split('\n'), 0), tenants: tenantsOf(own) };
}

export default function Tenants() {
  const asked = useLoaded('limits', limits), [filter, setFilter] = useInAddress('filter');
  return <Page title="Tenants"><Got asked={asked}>{({ defaults, tenants }) => {
    const shown = tenants.filter(t => t.name.toLowerCase().includes(filter.toLowerCase()));
    return <>
      <section class="card block"><h2>With limits of their own</h2>
        {!tenants.length ? <p class="soft">None: all tenants have the limits below. A file that <code>limits.file</code> names can give some others, and is read again every ten seconds.</p> : <>
          {tenants.length > 10 && <div class="filters"><input type="search" class="small" placeholder="Filter" aria-label="Filter tenants" value={filter} onInput={e => setFilter(e.currentTarget.value)} /><span class="soft">{grouped(shown.length)} of {grouped(tenants.length)}</span></div>}
          <div class="scroll" tabIndex={0} role="region" aria-label="Tenants with limits of their own"><table class="roomy"><thead><tr><th>Tenant</th><th>Differs in</th></tr></thead><tbody>{shown.slice(0, 500).map(t => <tr key={t.name}><td class="mono">{t.name.slice(0, 200)}</td><td><List all={t.own} /></td></tr>)}</tbody></table></div></>}
      </section>
      <section class="card block" style={{ marginTop: '16px' }}><h2>{tenants.length ? 'For everybody else' : 'For everybody'}</h2><List all={defaults} /></section>
    </>;
  }}</Got></Page>;
}

function List({ all }: { all: Limits }) {
  if (!all.length) return <span class="soft">nothing</span>;
  return <dl class="kv">{all.map(([name, value]) => <><dt class="mono">{name}</dt><dd>{value.includes('\n') ? <pre class="yaml" tabIndex={0}>{value.slice(0, 5000)}</pre> : value === '0' ? <span class="soft">no limit</span> : <>{value.slice(0, 500)}{/_(bytes|memory)/.test(name) && Number(value) >= 1024 && <span class="soft"> ({bytes(Number(value))})</span>}</>}</dd></>)}</dl>;
}
