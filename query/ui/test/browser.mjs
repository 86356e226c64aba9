// The page in a real Chromium against a real Hearth: `node browser.mjs http://127.0.0.1:9494/ 1764500000`, the second being the time of the last
// sample that the test wrote. Ends with a failure at the first page that logs an error, breaks the content security policy, runs over its
// edge or has a finding of axe-core, and at the first thing that is not as a person would need it. `ONLY=zoom` runs what has that in its name.
import { strict as assert } from 'node:assert';
import { readFileSync } from 'node:fs';
import { chromium } from 'playwright-core';

const [base, end] = [process.argv[2], Number(process.argv[3])];
const axe = readFileSync(new URL('../node_modules/axe-core/axe.min.js', import.meta.url), 'utf8');
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run', '--disable-background-networking'],
});
const PATIENCE = 60_000;
const at = new Date(end * 1000).toISOString().slice(0, 19).replace('T', '+');
const panel = (expr, more = {}, n = 0) => Object.entries({ expr, range_input: '15m', ...(more.tab === 'table' ? { moment_input: at } : { end_input: at }), ...more }).map(([k, v]) => `g${n}.${k}=${k.endsWith('_input') ? v : encodeURIComponent(v)}`).join('&');

/** Opens a page, does something with it, and holds it to what every page is held to. `expected` are errors that the server was asked for. */
async function visit(name, path, { width = 1440, height = 900, before, act, expected = [], look = true } = {}) {
  if (process.env.ONLY && !name.includes(process.env.ONLY)) return;
  const context = await browser.newContext({ viewport: { width, height }, hasTouch: width < 500, acceptDownloads: true });
  const page = await context.newPage(), complaints = [];
  page.setDefaultTimeout(PATIENCE);
  page.on('console', m => { if (['error', 'warning'].includes(m.type()) && !expected.some(e => m.text().includes(e))) complaints.push(m.text()); });
  page.on('pageerror', e => complaints.push(String(e.stack ?? e)));
  await page.addInitScript(() => { window.reports = []; document.addEventListener('securitypolicyviolation', e => window.reports.push(e.violatedDirective + ' ' + e.blockedURI + ' ' + e.sourceFile)); });
  try {
    if (before) await before(page);
    await page.goto(base + path);
    await page.waitForSelector('main h1, main .empty', { state: 'attached' });
    if (act) await act(page); else await page.waitForFunction(() => !document.querySelector('main [aria-busy=true]') && !/Loading…|Asking…|Looking…/.test(document.body.innerText));
    // The other colours by the same page: they change while it is open.
    for (const colorScheme of look ? ['light', 'dark'] : []) {
      await page.emulateMedia({ colorScheme });
      await page.waitForFunction(c => document.documentElement.dataset.theme === c || !document.getElementById('root'), colorScheme);
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(wide <= 0, `${colorScheme}: runs ${wide} pixels over its right edge`);
      await page.evaluate(axe + ';0');
      const found = await page.evaluate(() => axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice'] }));
      assert.deepEqual(found.violations.map(v => `${v.id}: ${v.nodes.map(n => n.target.join(' ') + ' ' + n.failureSummary).slice(0, 3).join('; ')}`), [], colorScheme);
    }
    assert.deepEqual(await page.evaluate(() => window.reports), [], 'reports of the content security policy');
    assert.deepEqual(complaints, [], 'errors in the console');
    console.log(`ok ${name}`);
  } catch (e) {
    console.error(`not ok ${name} (${base}${path})\n${e.stack ?? e}\nconsole: ${complaints.join('\n')}\n${(await page.evaluate(() => document.body.innerText).catch(() => '')).slice(0, 1500)}`);
    await browser.close();
    process.exit(1);
  }
  await context.close();
}
const shows = (page, text) => page.waitForFunction(t => document.body.innerText.includes(t), text);
const idle = page => page.waitForFunction(() => document.querySelector('.out') && !document.querySelector('.out[aria-busy=true]'));
const typed = async (page, text) => {
  const box = page.locator('.editor').first();
  await box.click();
  await page.keyboard.press('Control+A');
  await page.keyboard.type(text);
};

const RATE = 'rate(pages_total[5m])';
const drawn = async page => { await idle(page); await page.waitForSelector('.plot canvas'); await shows(page, '3 series'); };

// Every page, for every eye and hand.
const pages = {
  graph: ['query?' + panel(RATE), drawn], stack: ['query?' + panel(RATE, { display_mode: 'stacked' }), drawn], table: ['query?' + panel('pages_total', { tab: 'table' }), idle],
  explain: ['query?' + panel(`sum(${RATE})`, { tab: 'explain' }), page => shows(page, 'samples read')], heat: ['query?' + panel('rate(waits_seconds_bucket[5m])', { display_mode: 'heatmap' }), page => page.waitForSelector('.plot canvas')],
  nothing: ['query?' + panel('page_total'), page => shows(page, 'pages_total')], explore: ['explore', page => shows(page, 'pages_total')], metric: ['explore?metric=pages_total', page => shows(page, 'Split by it')],
  cardinality: ['cardinality', page => shows(page, 'Label pairs')], alerts: ['alerts'], rules: ['rules'], status: ['status', page => shows(page, 'Configuration in effect')], connect: ['connect'],
  ...Object.fromEntries((process.env.SERVES ?? 'queries storage').split(' ').filter(Boolean).map(name => [name, [name]])),
};
for (const [name, [path, act]] of Object.entries(pages))
  for (const width of [1440, 390]) await visit(`${name} ${width}`, path, { width, height: width === 390 ? 844 : 900, act });
await visit('unknown page', 'no-such-page', { act: page => shows(page, 'There is no page here'), expected: ['404'] });
await visit('unknown page deep down', 'no/such/page', { act: page => page.click('text=Metrics').then(() => shows(page, 'pages_total')), expected: ['404'] });

await visit('old addresses', `?q=${encodeURIComponent(RATE)}&tab=graph&range=900&end=${end}`, { act: drawn, look: false });
await visit('graph leads to query', 'graph?' + panel('pages_total', { tab: 1 }), { look: false, act: async page => {
  await shows(page, '240');
  assert.equal(new URL(page.url()).pathname.split('/').pop(), 'query');
} });

await visit('a query is typed, completed and run', 'query?' + panel(RATE), { look: false, act: async page => {
  await idle(page);
  await typed(page, 'pages_t');
  await page.waitForSelector('.editor >> .cm-tooltip-autocomplete >> text=pages_total');
  await page.keyboard.press('Enter');
  await page.keyboard.type('{n="');
  await page.waitForSelector('.editor >> .cm-tooltip-autocomplete >> text=b');
  await page.keyboard.press('Escape');
  await page.keyboard.type('b');
  await page.keyboard.press('Control+Enter');
  await page.waitForFunction(() => new URLSearchParams(location.search).get('g0.expr') === 'pages_total{n="b"}');
  await shows(page, '1 series');
  await page.goBack();
  await page.waitForFunction(() => new URLSearchParams(location.search).get('g0.expr') === 'rate(pages_total[5m])');
} });
await visit('what is wrong is said while typing and after', 'query?' + panel('up'), { look: false, expected: ['400'], act: async page => {
  await typed(page, 'sum(pages_total');
  await page.keyboard.press('Control+Delete');
  await shows(page, 'unclosed left parenthesis');
  await page.keyboard.press('Control+Enter');
  await shows(page, 'The query is not right');
} });
await visit('a zoom is undone by Back', 'query?' + panel(RATE), { look: false, act: async page => {
  await drawn(page);
  const box = await page.locator('.over').boundingBox();
  await page.mouse.move(box.x + box.width / 2, box.y + 60);
  await page.waitForSelector('.tip:not([hidden])');
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.75, box.y + 80, { steps: 4 });
  await page.mouse.up();
  await page.waitForFunction(() => /g0\.range_input=3m/.test(location.search));
  await page.goBack();
  await page.waitForFunction(() => /g0\.range_input=15m/.test(location.search));
  await drawn(page);
} });
await visit('a series is switched off and the address says so', 'query?' + panel(RATE), { look: false, act: async page => {
  await drawn(page);
  await page.locator('.legend .series').first().click();
  await page.waitForFunction(() => /g0\.hide=\w+,\w+/.test(location.search));
  await page.reload();
  await drawn(page);
  assert.equal(await page.locator('.legend tr.off').count(), 2);
} });
await visit('buckets are in the order of numbers, rows go away as CSV', 'query?' + panel('waits_seconds_bucket', { tab: 'table' }), { look: false, act: async page => {
  await shows(page, '+Inf');
  const column = await page.locator('table.result tbody tr td:first-child').allInnerTexts();
  assert.deepEqual(column.slice(0, 4), ['0.5', '2', '10', '+Inf']);
  const [file] = await Promise.all([page.waitForEvent('download'), page.click('text=CSV')]);
  const text = readFileSync(await file.path(), 'utf8');
  assert.match(text, /^__name__,le,time,value\r\nwaits_seconds_bucket,0\.5,/);
} });
await visit('two panels, one doubled and removed', 'query?' + panel(RATE) + '&' + panel('waits_seconds_bucket', {}, 1), { look: false, act: async page => {
  await page.waitForFunction(() => document.querySelectorAll('.panel').length === 2);
  await page.locator('.panel').nth(1).getByRole('button', { name: 'More' }).click();
  await page.getByRole('button', { name: 'Duplicate' }).click();
  await page.waitForFunction(() => document.querySelectorAll('.panel').length === 3 && location.search.includes('g2.expr'));
  await page.locator('.panel').nth(0).getByRole('button', { name: 'More' }).click();
  await page.getByRole('button', { name: 'Remove' }).click();
  await page.waitForFunction(() => document.querySelectorAll('.panel').length === 2 && !location.search.includes('g2.expr'));
} });
await visit('a part of the plan is shown in the text', 'query?' + panel(`sum(${RATE})`, { tab: 'explain' }), { look: false, act: async page => {
  await page.locator('.jump').nth(1).click();
  await page.waitForSelector('.editor >> .cm-pointed');
  assert.equal((await page.locator('.editor >> .cm-pointed').allInnerTexts()).join(''), RATE);
} });
await visit('empty results lead on', 'query?' + panel('pages_total{n="d"}'), { look: false, act: async page => { await page.click('text=n="b"'); await shows(page, '1 series'); } });
await visit('samples at another time are one click away', 'query?' + panel('pages_total', { end_input: new Date((end - 86_400) * 1000).toISOString().slice(0, 19).replace('T', '+') }), { look: false, act: async page => { await page.click('text=where it has some'); await drawn(page); } });
await visit('keys', 'query?' + panel(RATE), { look: false, act: async page => {
  await drawn(page);
  await page.locator('#g0-graph').focus();
  await page.keyboard.press('ArrowRight');
  await page.waitForFunction(() => document.activeElement.id === 'g0-table' && /g0\.tab=table/.test(location.search));
  await page.locator('.brand').focus();
  await page.keyboard.press('?');
  await shows(page, 'between tabs');
  await page.keyboard.press('Escape');
  await page.waitForSelector('.editor >> .cm-content');
  await page.keyboard.press('/');
  await page.waitForFunction(() => document.activeElement.classList.contains('editor'));
} });

// Bad input is shown as text and cut sensibly.
const NASTY = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>';
await visit('markup in labels is text', 'query?' + panel('nasty', { tab: 'table' }), { act: async page => { await shows(page, '<img src=x'); assert.equal(await page.evaluate(() => window.hacked), undefined); }, width: 390, height: 844 });
await visit('markup in addresses is text', 'explore?metric=' + encodeURIComponent(NASTY), { act: async page => { await shows(page, '<img src=x'); assert.equal(await page.evaluate(() => window.hacked), undefined); } });
const large = 'x'.repeat(10_000);
await visit('long texts stay in their place', 'query?' + panel(RATE), { width: 390, height: 844, before: page => page.route('**/api/v1/query_range', r => r.fulfill({ json: { status: 'success', warnings: [large, NASTY], data: { resultType: 'matrix', result: ['a', 'b', 'c'].map(n => ({ metric: { __name__: large, n: n + large, [large]: NASTY }, values: [[end - 60, '1'], [end, 'NaN']] })) } } })), act: drawn });

// A server that is slow, gone, or answers something else.
const answer = (status, body, headers = {}) => page => page.route('**/api/v1/query_range', r => r.fulfill({ status, body, headers }));
await visit('401', 'query?' + panel(RATE), { before: answer(401, 'who are you?'), act: page => shows(page, 'wants to know who asks'), expected: ['401'] });
await visit('500', 'query?' + panel(RATE), { before: answer(500, '<h1>proxy</h1>' + large), act: page => shows(page, 'could not answer'), expected: ['500'] });
await visit('half an answer', 'query?' + panel(RATE), { before: answer(200, '{"status":"success","data":{"resultType":"mat'), act: page => shows(page, 'Half an answer') });
let refused = 0;
await visit('429 passes by itself', 'query?' + panel(RATE), { expected: ['429'], before: page => page.route('**/api/v1/query_range', r => refused++ ? r.continue() : r.fulfill({ status: 429, body: '{"status":"error","errorType":"too_many_requests","error":"slow down"}', headers: { 'retry-after': '1' } })), act: drawn });
let away = true;
await visit('a server that comes back', 'query?' + panel(RATE), { expected: ['ERR_FAILED'], before: page => page.route('**/api/v1/**', r => away ? r.abort() : r.continue()), act: async page => {
  await shows(page, 'out of reach');
  away = false;
  await drawn(page);
  await page.waitForFunction(() => !document.querySelector('.banner'));
} });
await visit('a slow query is cancelled and the old result stays', 'query?' + panel(RATE), { look: false, expected: ['ERR_ABORTED'], act: async page => {
  await drawn(page);
  await page.route('**/api/v1/query_range', () => { /* never answered */ });
  await page.locator('.ask-buttons .primary').click();
  await shows(page, 'running');
  await page.locator('.working >> text=Cancel').click();
  await page.waitForFunction(() => !document.querySelector('.working'));
  assert.ok(await page.locator('.plot canvas').count());
} });

await browser.close();
console.log('all pages are as they should be');
