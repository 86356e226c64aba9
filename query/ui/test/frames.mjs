// How long a move of the mouse keeps the page's script busy, over graphs of many series: `node test/frames.mjs http://127.0.0.1:9494/`. Prints
// milliseconds, asserts nothing: what a frame costs depends on the machine. The server gives the page, the samples are made here.
import { once } from 'node:events';
import { createServer, request } from 'node:http';
import { chromium } from 'playwright-core';

const STEPS = 1000, STEP = 15, end = Math.floor(Date.now() / 1000 / STEP) * STEP, start = end - STEPS * STEP;
function samples(series) {
  const rows = [];
  for (let s = 0; s < series; s++) {
    const values = [];
    for (let i = 0; i <= STEPS; i++) values.push(`[${start + i * STEP},"${(s + 50 * Math.sin(i / 40 + s)).toFixed(1)}"]`);
    rows.push(`{"metric":{"__name__":"load","instance":"host-${s}"},"values":[${values.join()}]}`);
  }
  return `{"status":"success","data":{"resultType":"matrix","result":[${rows.join()}]}}`;
}
let answer = '';
const target = new URL(process.argv[2]);
const between = createServer((q, r) => {
  if (q.url.includes('/query_range')) { q.resume(); r.writeHead(200, { 'content-type': 'application/json' }); r.end(answer); return; }
  q.pipe(request({ host: target.hostname, port: target.port, path: q.url, method: q.method, headers: { ...q.headers, host: target.host } }, a => { r.writeHead(a.statusCode, a.headers); a.pipe(r); }).on('error', () => r.destroy()));
}).listen(0, '127.0.0.1');
await once(between, 'listening');
const base = `http://127.0.0.1:${between.address().port}/`;
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run', '--disable-background-networking'],
});
const when = new Date(end * 1e3).toISOString().slice(0, 19).replace('T', '+');
for (const [series, mode] of [[1000, 'lines'], [2500, 'lines'], [1000, 'stacked']]) {
  answer = samples(series);
  const page = await browser.newPage({ viewport: { width: 1440, height: 900 } });
  page.setDefaultTimeout(240_000);
  const begun = performance.now();
  await page.goto(`${base}query?g0.expr=load&g0.range_input=${STEPS * STEP}s&g0.res_type=custom&g0.res_step=${STEP}s&g0.end_input=${when}&g0.display_mode=${mode}`);
  await page.getByRole('button', { name: 'Draw all' }).click();
  await page.waitForSelector(`.legend input[placeholder*="${series.toLocaleString('en')}"]`);
  const shown = performance.now() - begun, cdp = await page.context().newCDPSession(page);
  await cdp.send('Performance.enable');
  const busy = async () => Object.fromEntries((await cdp.send('Performance.getMetrics')).metrics.map(m => [m.name, m.value]));
  await page.waitForTimeout(2000);
  const box = await page.locator('.over').boundingBox(), before = await busy(), MOVES = 100;
  for (let i = 0; i < MOVES; i++) { await page.mouse.move(box.x + 20 + i * (box.width - 40) / MOVES, box.y + 40 + i % 60 * 3); await page.waitForTimeout(40); }
  const after = await busy(), each = name => (1000 * (after[name] - before[name]) / MOVES).toFixed(1);
  const moves = (await page.evaluate(() => document.querySelector('.plot').chart.moves)).sort((a, b) => a - b);
  console.log(`${series} series x ${STEPS} points, ${mode}: ${each('ScriptDuration')} ms of script a move, ${each('LayoutDuration')} of layout, ${each('RecalcStyleDuration')} of style; drawing: median ${moves[moves.length >> 1].toFixed(1)}, most ${moves[moves.length - 1].toFixed(1)} ms; all shown after ${(shown / 1000).toFixed(1)} s`);
  await page.close();
}
await browser.close();
between.close();
