// The page over what a real node exporter said for a while, and over a year of blocks that were downsampled: `node real.mjs http://127.0.0.1:9494/ 1764500000`,
// the second being the time of the year's last sample.
import { strict as assert } from 'node:assert';
import { done, end, idle, panel, shows, visit } from './visit.mjs';

const now = { end_input: '', moment_input: '' };
const sizes = [1440, 390];
const graph = async page => { await idle(page); await page.waitForSelector('.plot canvas'); };
for (const width of sizes) {
  const at = (name, path, act) => visit(`${name} ${width}`, path, { width, height: width === 390 ? 844 : 900, act });
  await at('processors', 'query?' + panel('rate(node_cpu_seconds_total[20s])', { ...now, range_input: '5m' }), async page => { await graph(page); await shows(page, 'mode='); });
  await at('processors stacked', 'query?' + panel('sum by (mode) (rate(node_cpu_seconds_total[20s]))', { ...now, range_input: '5m', display_mode: 'stacked' }), graph);
  await at('file systems', 'query?' + panel('node_filesystem_avail_bytes', { ...now, tab: 'table' }), async page => { await idle(page); await shows(page, 'exact values'); });
  await at('a heat map', 'query?' + panel('sum by (le) (rate(prometheus_http_request_duration_seconds_bucket[20s]))', { ...now, range_input: '5m', display_mode: 'heatmap' }), async page => { await graph(page); await shows(page, 'in a cell: 0'); });
  await at('a plan', 'query?' + panel('sum by (mode) (rate(node_cpu_seconds_total[20s]))', { ...now, range_input: '5m', tab: 'explain' }), page => shows(page, 'samples read'));
  await at('all metrics', 'explore?search=cpu+seconds', page => shows(page, 'node_cpu_seconds_total'));
  await at('a metric', 'explore?metric=node_cpu_seconds_total', async page => { await shows(page, 'Seconds the CPUs spent in each mode.'); await shows(page, 'Split by it'); });
  await at('cardinality', 'cardinality', page => shows(page, 'Label pairs'));
  await at('a year of rollups', 'query?' + panel('max_over_time(year_celsius[1d])', { range_input: '1y' }), async page => { await graph(page); await page.waitForSelector('.badge.tier'); });
  await at('a metric of the past', 'explore?metric=old_celsius', page => shows(page, 'last seen'));
  await at('storage', 'storage', async page => {
    await shows(page, 'raw sample');
    const rows = await page.locator('.timeline canvas').getAttribute('aria-label');
    assert.match(rows, /^\d\d+ blocks from/);
    await shows(page, '1h');
  });
  await at('all of history', 'cardinality?of=history', async page => { await shows(page, 'Raw bytes a day'); await page.waitForSelector('main >> text=year_celsius'); });
}
await visit('a look back finds where samples are', 'query?' + panel('old_celsius', { range_input: '1h' }), { look: false, act: async page => { await page.click('text=where it has some'); await graph(page); } });
assert.ok(end > 0);
await done();
