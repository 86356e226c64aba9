/** What is scraped, and how it answers. */
import { useInAddress } from '../address';
import { useAsk } from '../ask';
import type { Labels } from '../api';
import { Got, Page } from '../Shell';
import { ago, spoken } from '../time';
import { never } from '../rules';
import { LabelList } from './Rules';

interface Target { discoveredLabels: Labels; labels: Labels; scrapePool: string; scrapeUrl: string; globalUrl: string; lastError: string; lastScrape: string; lastScrapeDuration: number; health: 'up' | 'down' | 'unknown'; scrapeInterval: string; scrapeTimeout: string }
interface Targets { activeTargets: Target[]; droppedTargets: { discoveredLabels: Labels }[] }
export default function TargetsPage() {
  const [search, setSearch] = useInAddress('search'), [only, setOnly] = useInAddress('only'), asked = useAsk<Targets>('targets', { state: 'any' }, 10_000);
  return <Page title="Targets"><Got asked={asked}>{({ activeTargets: all, droppedTargets: dropped }) => {
    if (!all.length) return <div class="card empty"><strong>Nothing is scraped</strong><p class="soft">Samples come here by remote write: <a href="connect">how to connect</a>.</p></div>;
    const shown = all.filter(t => (!only || t.health === only) && (t.scrapeUrl + ' ' + JSON.stringify(t.labels)).toLowerCase().includes(search.toLowerCase()));
    const pools = [...new Set(shown.map(t => t.scrapePool))].sort();
    return <><div class="filters"><input type="search" placeholder="Filter by address or label" aria-label="Filter targets" value={search} onInput={e => setSearch(e.currentTarget.value)} />
      <label class="check">health <select class="small" value={only} onChange={e => setOnly(e.currentTarget.value)}><option value="">any</option><option>up</option><option>down</option><option>unknown</option></select></label></div>
      {pools.map(pool => { const mine = shown.filter(t => t.scrapePool === pool), up = mine.filter(t => t.health === 'up').length; return <details key={pool} class="card group" open={mine.length <= 50 || up < mine.length}>
        <summary><b>{pool}</b><span class={'badge ' + (up === mine.length ? 'good' : 'bad')}>{up} of {mine.length} up</span></summary>
        <div class="scroll" tabIndex={0} role="region" aria-label={'Targets of ' + pool}><table><thead><tr><th>Address</th><th>Labels</th><th>State</th><th class="v">Last</th><th class="v wide">Took</th></tr></thead><tbody>{mine.slice(0, 500).map((t, i) => <tr key={i}>
          <td class="mono">{t.scrapeUrl}{t.lastError && <p class="note bad">{t.lastError.slice(0, 1000)}</p>}</td><td><LabelList all={t.labels} /></td><td><span class={'badge ' + (t.health === 'up' ? 'good' : t.health === 'down' ? 'bad' : '')}>{t.health}</span></td><td class="v">{never(t.lastScrape) ? 'never' : ago(Date.parse(t.lastScrape))}</td><td class="v wide">{spoken(t.lastScrapeDuration)}</td></tr>)}</tbody></table></div></details>; })}
      {dropped.length > 0 && <details class="card group"><summary><b>Dropped by relabelling</b><span class="soft">{dropped.length}</span></summary>{dropped.slice(0, 200).map((d, i) => <div key={i} class="rule"><LabelList all={d.discoveredLabels} /></div>)}</details>}
    </>;
  }}</Got></Page>;
}
