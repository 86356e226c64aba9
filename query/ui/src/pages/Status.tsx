/** What this server is, how it was told to behave, and where each setting comes from. */
import { useState } from 'preact/hooks';
import { useInAddress } from '../address';
import { useAsk } from '../ask';
import { bytes, grouped } from '../format';
import { Got, Page, QuickGraph } from '../Shell';
import { useCell, zone } from '../store';
import { ago, stamp } from '../time';

type Flat = Record<string, string | number | boolean>;
interface Head { headStats: { numSeries: number; chunkCount: number; minTime: number; maxTime: number }; headMemoryInBytes?: Record<string, number> }

export default function Status() {
  const inZone = useCell(zone);
  const run = useAsk<Flat>('status/runtimeinfo', {}, 15_000), build = useAsk<Flat>('status/buildinfo'), head = useAsk<Head>('status/tsdb', { limit: 1 }, 15_000);
  const flags = useAsk<Record<string, string>>('status/flags'), config = useAsk<{ yaml: string }>('status/config');
  const [filter, setFilter] = useInAddress('filter');
  const when = (t: unknown) => { const ms = Date.parse(String(t)); return Number.isNaN(ms) ? String(t) : `${stamp(Math.round(ms / 1000), inZone)} (${ago(ms)})`; };
  return <Page title="Status">
    <div class="halves">
      <section class="card block"><h2>Process</h2><Got asked={run}>{r => <dl class="kv">
        <dt>Started</dt><dd>{when(r.startTime)}</dd><dt>Server's time</dt><dd>{stamp(Math.round(Date.parse(String(r.serverTime)) / 1000), inZone)}<ClockSkew at={String(r.serverTime)} /></dd>
        <dt>Host</dt><dd>{r.hostname}</dd><dt>Folder</dt><dd class="mono">{r.CWD}</dd><dt>Cores</dt><dd>{r.GOMAXPROCS}</dd><dt>Retention</dt><dd>{r.storageRetention}</dd>
        <dt>Settings read</dt><dd>{when(r.lastConfigTime)} {r.reloadConfigSuccess === false ? <span class="badge bad">failed since</span> : null}</dd></dl>}</Got></section>
      <section class="card block"><h2>Build</h2><Got asked={build}>{b => <dl class="kv"><dt>Hearth</dt><dd>{String(b.revision).replace(/^hearth-/, '')}</dd><dt>Speaks as</dt><dd>Prometheus {b.version}</dd>{Object.entries(b).filter(([k, v]) => !['version', 'revision', 'branch', 'features', 'goVersion'].includes(k) && v !== '' && typeof v !== 'object').map(([k, v]) => <><dt>{k}</dt><dd>{String(v)}</dd></>)}</dl>}</Got></section>
      <section class="card block"><h2>Head</h2><Got asked={head}>{h => <dl class="kv">
        <dt>Active series</dt><dd>{grouped(h.headStats.numSeries)}</dd><dt>Chunks</dt><dd>{grouped(h.headStats.chunkCount)}</dd>
        {h.headStats.numSeries > 0 && h.headStats.minTime > 0 && <><dt>Samples from</dt><dd>{stamp(h.headStats.minTime / 1000, inZone).slice(0, 19)}</dd><dt>to</dt><dd>{stamp(h.headStats.maxTime / 1000, inZone).slice(0, 19)}</dd></>}
        {h.headMemoryInBytes && <><dt>Memory</dt><dd>{bytes(Object.values(h.headMemoryInBytes).reduce((a, b) => a + b, 0))}</dd></>}</dl>}</Got></section>
    </div>
    <section class="block card" id="flags" style={{ marginTop: '16px' }}><h2>Settings</h2>
      <div class="filters"><input type="search" class="small" placeholder="Filter" aria-label="Filter settings" value={filter} onInput={e => setFilter(e.currentTarget.value)} /></div>
      <Got asked={flags}>{all => { const rows = Object.entries(all).filter(([k, v]) => (k + ' ' + v).toLowerCase().includes(filter.toLowerCase())); return <div class="scroll" tabIndex={0} role="region" aria-label="Settings"><table><thead><tr><th>Setting</th><th>Value</th></tr></thead><tbody>{rows.map(([k, v]) => <tr key={k}><td class="mono">{k}</td><td class="mono">{v === '' ? <span class="soft">not set</span> : v}</td></tr>)}</tbody></table>{!rows.length && <p class="soft pad">No setting like that.</p>}</div>; }}</Got></section>
    <section class="block card"><h2>Configuration in effect, and where each line comes from</h2><Got asked={config}>{c => <pre class="yaml" tabIndex={0}>{c.yaml}</pre>}</Got></section>
    <h2>Work of the last hour</h2>
    <QuickGraph expr="sum by (handler) (rate(hearth_http_requests_total[5m]))" />
  </Page>;
}

/** A browser's clock that is off makes "now" wrong on every graph: better said. */
function ClockSkew({ at }: { at: string }) {
  const [off] = useState(() => (Date.parse(at) - Date.now()) / 1000);
  return Math.abs(off) > 10 && Number.isFinite(off) ? <> <span class="badge warn">this browser's clock is {Math.round(Math.abs(off))} s {off > 0 ? 'behind' : 'ahead'}</span></> : null;
}
