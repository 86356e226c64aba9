// The page over what a real Prometheus sent (or what was made up in its place): `node recording.mjs http://127.0.0.1:9494/ 1764500000`, the second
// being the time of its last sample.
import { strict as assert } from 'node:assert';
import { done, idle, panel, shows, visit } from './visit.mjs';

const COUNTERS = 'sum by (instance) (rate({__name__=~"node_cpu_seconds_total|requests_total",cluster="lab"}[1m]))', ALL = 'topk(10, count by (__name__) ({cluster="lab"}))';
const graph = async page => { await idle(page); await page.waitForSelector('.plot canvas'); await shows(page, 'instance='); };
for (const width of [1440, 390]) {
  const at = (name, path, act) => visit(`${name} ${width}`, path, { width, height: width === 390 ? 844 : 900, act });
  await at('counters', 'query?' + panel(COUNTERS, { range_input: '30m' }), graph);
  await at('counters stacked', 'query?' + panel(COUNTERS, { range_input: '30m', display_mode: 'stacked' }), graph);
  await at('every series', 'query?' + panel('{cluster="lab"}', { range_input: '15m' }), async page => { await idle(page); await page.waitForSelector('.plot canvas'); await page.waitForSelector('button >> text=Draw all'); });
  await at('the largest metrics', 'query?' + panel(ALL, { tab: 'table' }), async page => { await idle(page); assert.ok(await page.locator('table.result tbody tr').count() >= 4); });
  await at('a plan', 'query?' + panel(COUNTERS, { range_input: '30m', tab: 'explain' }), page => shows(page, 'samples read'));
  await at('cardinality', 'cardinality', page => shows(page, 'instance'));
  await at('storage', 'storage', page => shows(page, 'series in the head'));
}
await done();
