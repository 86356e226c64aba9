// The page in a real Chromium against a real Hearth: `node browser.mjs http://127.0.0.1:9494/ 1764500000`, the second being the time of the last
// sample that the test wrote. Ends with a failure at the first thing that is not as a person would need it. `ONLY=zoom` runs what has that in its name.
import { strict as assert } from 'node:assert';
import { readFileSync } from 'node:fs';
import { base, done, end, idle, panel, shows, typed, visit } from './visit.mjs';

const RATE = 'rate(pages_total[5m])';
const drawn = async page => { await idle(page); await page.waitForSelector('.plot canvas'); await shows(page, '3 series'); };

/** Draws the mouse over a quarter of the graph. */
const zoomed = async page => {
  const box = await page.locator('.over').boundingBox();
  await page.mouse.move(box.x + box.width / 2, box.y + 60);
  await page.waitForSelector('.tip:not([hidden])');
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.75, box.y + 80, { steps: 4 });
  await page.mouse.up();
};

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
for (const width of [1440, 390]) await visit(`unknown page ${width}`, 'no-such-page', { width, act: page => shows(page, 'There is no page here'), expected: ['404'] });
await visit('unknown page deep down', 'no/such/%3Cb%3Epage%ff', { expected: ['404'], act: async page => {
  await shows(page, 'There is no page here');
  // The whole shell is there, in the person's own colours, with addresses that lead back to the top.
  assert.ok(await page.locator('header .brand').count());
  await page.keyboard.press('Tab');
  await page.keyboard.press('Enter');
  assert.match(new URL(page.url()).pathname, /no\/such/, 'the skip link stays here');
  await page.locator('main').getByRole('link', { name: 'Metrics' }).click();
  await shows(page, 'pages_total');
  assert.equal(page.url(), base + 'explore');
} });
// Views of what only some processes serve: the document says so in its head.
const served = (name, answers) => async page => {
  await page.route('**/' + name, async r => { const a = await r.fetch(); await r.fulfill({ response: a, body: (await a.text()).replace('name="serves" content="', `$&${name} `) }); });
  for (const [to, body] of Object.entries(answers)) await page.route('**/' + to, r => r.fulfill(typeof body === 'string' ? { body, contentType: 'text/plain' } : { json: { status: 'success', data: body } }));
};
const member = (name, more = {}) => ({ name, role: 'ingest', address: 'http://10.0.0.7:9494', zone: 'a', replicaGroup: '', owesSamples: true, late: false, started: end - 86_400, lastBeat: end - 4, version: '0.1.0', ...more });
const LIMITS = { 'runtime_config?mode=defaults': 'ingestion_rate: 0\nmax_series: 1500000\nmax_query_length: 0\n', 'runtime_config?mode=diff': 'overrides:\n  "team-a":\n    ingestion_rate: 50000\n    blocked_queries:\n      - pattern: ".*"\n        regex: true\n  "b: \\"c\\"": {}\n' };
for (const width of [1440, 390]) {
  await visit(`members ${width}`, 'members', { width, before: served('members', { 'api/v1/status/members': { members: [member('ingest-0'), member('query-0', { role: 'query', owesSamples: false }), member('ingest-1', { late: true, lastBeat: end - 900 })], error: null } }), act: async page => {
    await shows(page, 'went away with samples that are not in the store');
    await shows(page, 'hearth bucket forget ingest-1');
  } });
  await visit(`tenants ${width}`, 'tenants', { width, before: served('tenants', LIMITS), act: async page => { await shows(page, 'b: "c"'); await shows(page, '50000'); await shows(page, 'pattern: ".*"'); await shows(page, 'max_query_length'); } });
}
await visit('nobody has limits of its own', 'tenants', { before: served('tenants', { ...LIMITS, 'runtime_config?mode=diff': 'overrides: {}\n' }), look: false, act: page => shows(page, 'all tenants have the limits below') });
await visit('limits are refused', 'tenants', { expected: ['401'], look: false, before: async page => { await served('tenants', {})(page); await page.route('**/runtime_config**', r => r.fulfill({ status: 401, body: 'who are you?' })); }, act: page => shows(page, 'wants to know who asks') });
await visit('limits of this server', 'tenants', { act: async page => {
  await shows(page, 'max_label_names_per_series');
  await page.getByRole('link', { name: /tenants/i }).first().waitFor();
} });
const unserved = name => async page => {
  await page.route('**/' + name, async r => { const a = await r.fetch(); await r.fulfill({ response: a, body: (await a.text()).replace(new RegExp(`(name="serves" content="[^"]*)\\b${name}\\b`), '$1') }); });
};
for (const name of ['tenants', 'members']) await visit(`${name} where nobody serves them`, name, { width: 390, before: unserved(name), act: async page => {
  await shows(page, 'does not serve that view');
  assert.equal(await page.getByRole('link', { name: new RegExp(name, 'i') }).count(), 0, 'nothing leads there');
} });
await visit('the open list of completion', 'query', { act: async page => {
  await page.waitForSelector('.editor >> .cm-content');
  await typed(page, 'sum(');
  await page.keyboard.type('a');
  await page.waitForSelector('.editor >> .cm-tooltip-autocomplete >> li');
  await page.waitForFunction(() => document.querySelector('.editor').shadowRoot.querySelector('.cm-tooltip-autocomplete > ul').tabIndex === 0);
} });

await visit('old addresses', `?q=${encodeURIComponent(RATE)}&tab=graph&range=900&end=${end}`, { act: drawn, look: false });
await visit('graph leads to query', 'graph?' + panel('pages_total', { tab: 1 }), { look: false, act: async page => {
  await shows(page, '240');
  assert.equal(new URL(page.url()).pathname.split('/').pop(), 'query');
} });

await visit('a query is typed, completed and run', 'query?' + panel(RATE), { look: false, act: async page => {
  await idle(page);
  await typed(page, 'pages_t');
  await page.waitForSelector('.editor >> .cm-tooltip-autocomplete >> text=pages_total');
  // For 75 ms after it opened, the list takes no key, so that nobody chooses what was not there a moment ago.
  await page.waitForTimeout(300);
  await page.keyboard.press('Enter');
  await page.waitForSelector('.editor >> .cm-content >> text=pages_total');
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
let lost = 0;
await visit('a list whose first answer is lost opens all the same', 'query?' + panel(RATE), { look: false, expected: ['ERR_FAILED'], act: async page => {
  await idle(page);
  await page.route('**/api/v1/label/n/values**', r => lost++ ? r.continue() : r.abort());
  await typed(page, 'pages_total{n="');
  await page.waitForSelector('.editor >> .cm-tooltip-autocomplete >> text=b');
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
  await zoomed(page);
  await page.waitForFunction(() => /g0\.range_input=3m/.test(location.search));
  await page.goBack();
  await page.waitForFunction(() => /g0\.range_input=15m/.test(location.search));
  await drawn(page);
} });
await visit('what a page shows stands in its address', 'explore?metric=pages_total', { look: false, act: async page => {
  const has = (name, value) => page.waitForFunction(([n, v]) => new URLSearchParams(location.search).get(n) === v, [name, value]);
  await page.waitForSelector('.plot canvas');
  await page.locator('tr', { has: page.getByText('n', { exact: true }) }).getByRole('button', { name: 'Split by it' }).click();
  await has('by', 'n');
  await shows(page, 'sum by (n)');
  await page.waitForSelector('.plot canvas');
  await zoomed(page);
  await page.waitForFunction(() => /range=\d+m/.test(location.search) && /end=/.test(location.search));
  await page.goBack();
  await has('range', null);
  await has('by', 'n');
  await page.goBack();
  await has('by', null);
  await shows(page, 'sum(rate(pages_total[5m]))');
  await page.goto(base + 'status');
  await page.getByLabel('Filter settings').pressSequentially('listen', { delay: 60 });
  await has('filter', 'listen');
  await page.reload();
  await page.waitForFunction(() => document.querySelector('#flags tbody tr'));
  assert.equal(await page.getByLabel('Filter settings').inputValue(), 'listen');
  for (const row of await page.locator('#flags tbody tr').allInnerTexts()) assert.match(row, /listen/i);
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
await visit('filter, units and live stand in the address', 'query?' + panel('rate(waits_seconds_bucket[5m]) * 1024', { tab: 'table', unit: 'bytes' }), { look: false, act: async page => {
  const has = (name, value) => page.waitForFunction(([n, v]) => new URLSearchParams(location.search).get(n) === v, [name, value]);
  await idle(page);
  await page.getByLabel('exact values').uncheck();
  await has('g0.units', '1');
  await page.getByLabel('Filter the table').pressSequentially('Inf', { delay: 60 });
  await has('g0.filter', 'Inf');
  await page.getByLabel(/^live/).check();
  await has('live', '1');
  await page.reload();
  await idle(page);
  await page.waitForFunction(() => document.querySelectorAll('table.result tbody tr').length === 1);
  assert.ok(await page.getByLabel(/^live/).isChecked());
  assert.match(await page.locator('table.result tbody').innerText(), /B/);
  await page.locator('#g0-graph').click();
  await page.getByLabel('Filter the legend').fill('');
  await has('g0.filter', null);
  await page.getByLabel(/^live/).uncheck();
  await has('live', null);
} });
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

await visit('time is changed by keys', 'query?' + panel(RATE), { look: false, act: async page => {
  await drawn(page);
  const end = () => new URL(page.url()).searchParams.get('g0.end_input');
  const becomes = (name, value) => page.waitForFunction(([n, v]) => new URLSearchParams(location.search).get(n) === v, [name, value]);
  await page.locator('.brand').focus();
  await page.keyboard.press('+');
  await becomes('g0.range_input', '30m');
  await page.keyboard.press('-');
  await becomes('g0.range_input', '15m');
  await page.keyboard.press('-');
  await becomes('g0.range_input', '5m');
  const at = end(), before = Date.parse(at.replace(' ', 'T') + 'Z');
  await page.keyboard.press(',');
  await page.waitForFunction(e => new URLSearchParams(location.search).get('g0.end_input') !== e, at);
  assert.equal(Date.parse(end().replace(' ', 'T') + 'Z'), before - 150_000, 'half of five minutes earlier');
  await page.goBack();
  await page.waitForFunction(e => Date.parse(new URLSearchParams(location.search).get('g0.end_input').replace(' ', 'T') + 'Z') === e, before);
  // By the mouse the same; and what is typed into the query stays text.
  await page.getByRole('button', { name: 'Longer range' }).click();
  await becomes('g0.range_input', '15m');
  await page.waitForSelector('.editor >> .cm-content');
  await typed(page, 'pages_total - 1');
  assert.equal(await page.locator('.editor >> .cm-content').innerText(), 'pages_total - 1');
  assert.equal(new URL(page.url()).searchParams.get('g0.range_input'), '15m');
} });
for (const width of [1440, 390]) await visit(`a metric is chosen from the list ${width}`, 'query?' + panel('sum()'), { width, height: width === 390 ? 844 : 900, expected: ['400'], act: async page => {
  await page.waitForSelector('.editor >> .cm-content');
  await page.locator('.editor').click();
  await page.keyboard.press('End');
  await page.keyboard.press('ArrowLeft');
  await page.keyboard.press('Alt+m');
  const list = page.locator('dialog.picker');
  await list.locator('[role=option]', { hasText: 'waits_seconds_bucket' }).waitFor();
  await page.keyboard.type('_');
  await list.locator('[role=status]', { hasText: / of / }).waitFor();
  const first = await list.locator('[aria-selected=true] .mono').innerText();
  await page.keyboard.press('ArrowDown');
  assert.notEqual(await list.locator('[aria-selected=true] .mono').innerText(), first);
  await page.keyboard.press('ArrowUp');
  await page.keyboard.press('Enter');
  await list.waitFor({ state: 'detached' });
  assert.equal(await page.locator('.editor >> .cm-content').innerText(), `sum(${first})`, 'it went to where the cursor was');
  await page.keyboard.press('Enter');
  await page.waitForFunction(f => new URLSearchParams(location.search).get('g0.expr') === `sum(${f})`, first);
  // Escape chooses nothing and leads back; the list is held to what pages are held to while it is open.
  await page.getByRole('button', { name: 'Metrics', exact: true }).click();
  await list.locator('[role=option]').first().waitFor();
  await page.keyboard.press('Escape');
  await list.waitFor({ state: 'detached' });
  await page.locator('.brand').focus();
  await page.keyboard.press('m');
  await list.locator('[role=option]').first().waitFor();
} });
await visit('an empty query asks for what is chosen', 'query?g0.expr=', { look: false, act: async page => {
  await page.waitForSelector('.editor >> .cm-content');
  await typed(page, ' ');
  await page.keyboard.press('Backspace');
  await page.getByRole('button', { name: 'Metrics', exact: true }).click();
  await page.locator('dialog.picker input').fill('pages');
  await page.locator('dialog.picker [role=option]', { hasText: 'pages_total' }).click();
  await page.waitForFunction(() => new URLSearchParams(location.search).get('g0.expr') === 'pages_total');
} });
await visit('a list of metrics that does not come', 'query?' + panel(RATE), { expected: ['500'], act: async page => {
  await drawn(page);
  await page.route('**/api/v1/label/__name__/values**', r => r.fulfill({ status: 500, body: 'no' }));
  await page.locator('.brand').focus();
  await page.keyboard.press('m');
  await page.locator('dialog.picker [role=alert]', { hasText: 'could not answer' }).waitFor();
} });

// What is stored, what it costs, what is hidden.
await visit('storage tells what compaction and deletion do', 'storage', { act: async page => {
  await shows(page, 'healthy');
  await shows(page, 'Spans that end next');
  await shows(page, 'gone_total');
} });
for (const width of [1440, 390]) await visit(`cardinality over all of history ${width}`, 'cardinality?of=history', { width, act: async page => {
  await shows(page, 'series that ever were');
  await page.waitForSelector('main >> text=gone_total');
} });
await visit('a graph says what was deleted', 'query?' + panel('gone_total or pages_total'), { look: false, act: async page => { await idle(page); await shows(page, 'deleted'); } });
await visit('an empty result says that it was deleted', 'query?' + panel('gone_total'), { act: page => shows(page, 'were deleted') });
await visit('a window shorter than the time between samples', 'query?' + panel('rate(pages_total[10s])'), { look: false, act: async page => {
  await page.click('text=instead');
  await page.waitForFunction(() => document.querySelector('.plot canvas'));
} });
await visit('cached answers say so', 'query?' + panel(RATE), { look: false, before: page => page.route('**/api/v1/query_range', async r => { const a = await r.fetch(); await r.fulfill({ response: a, headers: { ...a.headers(), age: '12' } }); }), act: async page => { await drawn(page); await shows(page, 'cached'); } });
const keeps = (cachedSteps, computedSteps, shared) => page => page.route('**/api/v1/query_range', async r => { const a = await r.fetch(), json = await a.json(); json.data.stats.cache = { cachedSteps, computedSteps, shared }; await r.fulfill({ response: a, json }); });
for (const [steps, text] of [[[60, 0, false], 'cached'], [[45, 15, false], '75 % cached'], [[0, 60, true], 'shared']]) await visit(`what the server had kept is said: ${text}`, 'query?' + panel(RATE), { before: keeps(...steps), act: async page => {
  await drawn(page);
  await page.locator('.figures .badge', { hasText: new RegExp(`^${text}$`) }).waitFor();
} });
await visit('a question that is asked twice is answered from what is kept', 'query?' + panel(RATE, { end_input: new Date((end - 600) * 1000).toISOString().slice(0, 19).replace('T', '+') }), { look: false, act: async page => {
  await drawn(page);
  const kept = page.locator('.figures .badge', { hasText: /^(\d+ % )?cached$/ });
  for (let i = 0; i < 20 && !await kept.count(); i++) {
    await page.locator('.ask-buttons .primary').click();
    await drawn(page);
  }
  await kept.waitFor();
} });
await visit('a hundred thousand names', 'explore', { before: async page => {
  const names = Array.from({ length: 100_000 }, (_, i) => `svc${i % 100}_requests_${i}_total`);
  await page.route('**/api/v1/label/__name__/values**', r => r.fulfill({ json: { status: 'success', data: /start=/.test(r.request().url()) ? names.slice(0, 50_000) : names } }));
}, act: async page => {
  await shows(page, '100,000 metrics');
  await page.fill('input[type=search]', 'requests_77777 svc77');
  await shows(page, '1 of 100,000 metrics');
  await shows(page, 'svc77_requests_77777_total');
  // Whoever scrolls as soon as the list is there again is not taken back to its top.
  await page.locator('.finder').evaluate(async e => {
    const box = document.querySelector('input[type=search]');
    box.value = '';
    box.dispatchEvent(new InputEvent('input', { bubbles: true }));
    while (e.scrollHeight < 100_000) await Promise.resolve();
    e.scrollTop = e.scrollHeight;
  });
  await shows(page, 'svc99_requests_99999_total');
  await shows(page, 'longer ago');
  assert.ok(await page.locator('.metric-row').count() < 60, 'only the rows in sight are there');
} });

// Bad input is shown as text and cut sensibly.
const NASTY = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>', large = 'x'.repeat(10_000), BAD = NASTY + large;
const unhurt = async page => assert.equal(await page.evaluate(() => window.hacked), undefined, 'markup stayed text');
await visit('markup in labels is text', 'query?' + panel('nasty', { tab: 'table' }), { act: async page => { await shows(page, '<img src=x'); await unhurt(page); }, width: 390, height: 844 });
await visit('markup in addresses is text', 'explore?metric=' + encodeURIComponent(NASTY), { act: async page => { await shows(page, '<img src=x'); await unhurt(page); } });
await visit('a query of 10 kB', 'query?g0.expr=' + encodeURIComponent(`{a="${NASTY.replace(/"/g, '\\"')}${large}"}`), { width: 390, height: 844, act: async page => { await shows(page, 'matches nothing'); await unhurt(page); } });
await visit('nonsense in the address', 'query?g0.expr=up&g0.tab=%00&g0.range_input=-1&g0.end_input=%3Cb%3E&g0.step_input=1e999&g0.unit=__proto__&g0.display_mode=x&g0.compare=%27&g999.expr=' + encodeURIComponent(BAD), { width: 390, height: 844, expected: ['400'], act: page => page.waitForFunction(() => document.querySelectorAll('.panel').length === 2 && !document.querySelector('.out[aria-busy=true]')) });
const bad = body => page => page.route('**/api/v1/query_range', r => r.fulfill({ json: { status: 'success', ...body } }));
await visit('long texts stay in their place', 'query?' + panel(RATE), { width: 390, height: 844, before: bad({ warnings: [large, NASTY], infos: [BAD], data: { resultType: 'matrix', result: ['a', 'b', 'c'].map(n => ({ metric: { __name__: large, n: n + large, [large]: NASTY }, values: [[end - 60, '1'], [end, 'NaN']] })) } }), act: drawn });
await visit('numbers of twenty digits leave room for names', 'query?' + panel(RATE), { width: 390, height: 844, before: bad({ data: { resultType: 'matrix', result: ['a', 'b'].map(n => ({ metric: { __name__: 'process_virtual_memory_max', instance: n }, values: [[end - 60, '18446744073709552000'], [end, '-9.3e19']] })) } }), act: async page => {
  await idle(page);
  await shows(page, '1.845e19');
  assert.doesNotMatch(await page.locator('.legend').innerText(), /\d{8}/);
  const name = await page.locator('.legend .series').first().boundingBox();
  assert.ok(name.width > 100 && name.height < 60, `a name has ${name.width} by ${name.height} pixels`);
} });
await visit('markup and 10 kB among members', 'members', { width: 390, height: 844, before: served('members', { 'api/v1/status/members': { members: [member(BAD, { late: true, role: BAD, zone: BAD, address: 'javascript:' + BAD, version: BAD })], error: BAD } }), act: async page => { await shows(page, '<img src=x'); await unhurt(page); } });
await visit('markup and 10 kB among limits', 'tenants', { width: 390, height: 844, before: served('tenants', { 'runtime_config?mode=defaults': `a: ${BAD}\n`, 'runtime_config?mode=diff': `overrides:\n  ${JSON.stringify(BAD)}:\n    a: ${BAD}\n    b:\n      - ${BAD}\n` }), act: async page => { await shows(page, '<img src=x'); await unhurt(page); } });
/** Answers of other endpoints, full of markup and long, by the page that shows them. */
const hostile = {
  explore: { 'label/__name__/values**': [NASTY, large, BAD], 'metadata**': { [NASTY]: [{ type: NASTY, help: BAD, unit: NASTY }] }, 'status/tsdb**': { headStats: { numSeries: 3, minTime: 0, maxTime: 1 }, seriesCountByMetricName: [{ name: BAD, value: 3 }] } },
  [`explore?metric=${encodeURIComponent(NASTY)}`]: { 'metadata**': { [NASTY]: [{ type: BAD, help: BAD, unit: BAD }] }, 'labels**': ['__name__', NASTY, large], 'label/**': [BAD, large] },
  cardinality: { 'status/tsdb**': { headStats: { numSeries: 3, numLabelPairs: 2, chunkCount: 1, minTime: 0, maxTime: 1 }, ...Object.fromEntries(['seriesCountByMetricName', 'labelValueCountByLabelName', 'memoryInBytesByLabelName', 'seriesCountByLabelValuePair'].map(k => [k, [{ name: BAD, value: 1 }, { name: NASTY + '=' + large, value: 2 }]])) } },
  'cardinality?of=history': { 'storage/cardinality**': { counting: { blocks: 1, ofBlocks: 2 }, error: BAD, counted: { at: 1, blocks: 1, ofBlocks: 2, series: 1, samples: 1, bytes: 1, metrics: [{ name: BAD, series: 1, samples: 1, bytes: 1 }], labels: [{ name: BAD, values: 1, series: 1, bytes: 1 }] } } },
  queries: { 'queries**': { running: [{ id: BAD, query: BAD, endpoint: NASTY, tenant: BAD, started: NASTY, seconds: 1, samplesRead: 1, bytes: 1, state: 'running' }], recent: [{ id: 'a', query: BAD, endpoint: BAD, tenant: 'x', started: '2026-01-01T00:00:00Z', seconds: 1, samplesRead: 1, bytes: 1, state: 'failed', error: BAD }] } },
  storage: {
    'storage**': { head: null, blocks: [{ ulid: BAD, minTime: 0, maxTime: 1, resolutionMs: 0, level: 0, series: 1, samples: 1, bytes: 1 }], retention: { [NASTY]: BAD }, local: { blocks: 0, samples: 0, bytes: 0 }, expired: { blocks: 1, samples: 1, bytes: 1 }, deletions: [{ selector: BAD, minTime: -9e15, maxTime: 9e15, created: 1 }], damaged: [{ ulid: BAD, reason: BAD, since: 1 }], catalog: { read: 1, error: BAD }, troubles: [BAD], compacts: true },
    'status/compaction**': { runs: [{ tenant: BAD, ended: 1, seconds: 1, why: NASTY, from: 1, to: 2, inputs: 1, error: BAD }], planned: [{ tenant: NASTY, why: BAD, from: 1, to: 2, inputs: 1, inputBytes: 1, waitsUntil: 9e9 }], working: null, lastRound: { ended: 1, errors: [BAD] }, levels: [43_200], grace: 3600 },
  },
  rules: { 'rules**': { groups: [{ name: BAD, file: BAD, interval: 1, evaluationTime: 2, lastEvaluation: NASTY, lag: -1e300, samplesRead: 1e300, seriesWritten: 0.5, slotsMissed: 2, slotsFilled: 1, rules: [{ type: 'recording', name: BAD, query: BAD, labels: { [NASTY]: BAD }, health: 'err', lastError: BAD, evaluationTime: 1, lastEvaluation: '0001-01-01T00:00:00Z' }] }] } },
  alerts: { 'rules**': { groups: [{ name: BAD, file: BAD, interval: 1, evaluationTime: 2, lastEvaluation: NASTY, rules: [{ type: 'alerting', name: BAD, query: BAD, state: 'firing', labels: { [NASTY]: BAD }, annotations: { [NASTY]: BAD }, health: 'err', lastError: BAD, evaluationTime: 1, lastEvaluation: NASTY, alerts: [{ labels: { a: BAD }, annotations: { b: BAD }, state: 'firing', activeAt: NASTY, value: BAD }] }] }] }, 'alertmanagers**': { activeAlertmanagers: [{ url: NASTY }, { url: 'http://' + large }], droppedAlertmanagers: [] } },
  targets: { 'targets**': { activeTargets: [{ discoveredLabels: {}, labels: { a: BAD }, scrapePool: BAD, scrapeUrl: 'javascript:' + BAD, globalUrl: '', lastError: BAD, lastScrape: NASTY, lastScrapeDuration: 1, health: 'down', scrapeInterval: '', scrapeTimeout: '' }], droppedTargets: [{ discoveredLabels: { [NASTY]: BAD } }] } },
  status: { 'status/flags': { [NASTY]: BAD }, 'status/config': { yaml: BAD }, 'status/runtimeinfo': { startTime: BAD, serverTime: NASTY, hostname: BAD, CWD: BAD, GOMAXPROCS: 1, storageRetention: BAD, lastConfigTime: NASTY }, 'status/buildinfo': { version: BAD, revision: BAD, [NASTY]: BAD } },
};
for (const [path, answers] of Object.entries(hostile)) await visit(`markup and 10 kB everywhere, ${path.slice(0, 30)}`, path, { width: 390, height: 844, expected: ['400'], before: async page => {
  for (const [to, data] of Object.entries(answers)) await page.route('**/api/v1/' + to, r => r.fulfill({ json: { status: 'success', data } }));
}, act: async page => {
  await page.waitForFunction(() => !/Loading…|Asking…|Looking…/.test(document.body.innerText) && !document.querySelector('[aria-busy=true]'));
  await unhurt(page);
  assert.doesNotMatch(await page.locator('main').innerText(), /This view stumbled/);
} });

await visit('markup and 10 kB in the list of metrics', 'query?' + panel(RATE), { width: 390, height: 844, before: async page => {
  await page.route('**/api/v1/label/__name__/values**', r => r.fulfill({ json: { status: 'success', data: [NASTY, large, BAD] } }));
  await page.route('**/api/v1/metadata**', r => r.fulfill({ json: { status: 'success', data: { [NASTY]: [{ type: BAD, help: BAD, unit: BAD }] } } }));
}, act: async page => {
  await drawn(page);
  await page.getByRole('button', { name: 'Metrics', exact: true }).click();
  await page.locator('dialog.picker [role=option] small', { hasText: '<img src=x' }).waitFor();
  await unhurt(page);
} });

// A server that is slow, gone, or answers something else: a state of its own on every page, and nothing that was typed is lost.
const states = {
  401: [{ status: 401, body: 'who are you? ' + BAD }, 'wants to know who asks'],
  429: [{ status: 429, body: '{"status":"error","errorType":"too_many_requests","error":"slow down"}', headers: { 'retry-after': '600' } }, 'Too much at once'],
  500: [{ status: 500, body: '<h1>proxy</h1>' + BAD }, 'could not answer'],
  502: [{ status: 502, contentType: 'text/html', body: '<html><h1>502 Bad Gateway</h1></html>' }, 'could not answer'],
  503: [{ status: 503, headers: { 'x-prometheus-stopping': 'true' }, body: 'Hearth is stopping.' }, 'The server is stopping'],
  'half an answer': [{ status: 200, contentType: 'application/json', body: '{"status":"success","data":{"resultType":"mat' }, 'Half an answer'],
  'a page instead of an answer': [{ status: 200, contentType: 'text/html', body: '<!doctype html><title>Log in</title>' + NASTY }, 'Half an answer'],
};
const everywhere = { query: 'query?' + panel(RATE), table: 'query?' + panel(RATE, { tab: 'table' }), explain: 'query?' + panel(RATE, { tab: 'explain' }), explore: 'explore', cardinality: 'cardinality', history: 'cardinality?of=history', queries: 'queries', storage: 'storage', alerts: 'alerts', rules: 'rules', targets: 'targets', status: 'status', tenants: 'tenants', members: 'members' };
// Whether or not this process has members, the page of them is there, and its server is well once it is back.
const withMembers = served('members', { 'api/v1/status/members': { members: [member('ingest-0')], error: null } });
/** What every view asks the server for. */
const ASKED = /\/(api\/v1|runtime_config)\b/;
for (const [name, [answer, text]] of Object.entries(states)) for (const [where, path] of Object.entries(everywhere))
  await visit(`${name}, ${where}`, path, { width: where.length % 2 ? 390 : 1440, expected: ['401', '429', '50', 'ERR_ABORTED'], before: async page => { if (where === 'members') await withMembers(page); await page.route(ASKED, r => r.fulfill(answer)); }, look: name === '500' || where === 'query', act: async page => { await shows(page, text); await unhurt(page); } });
for (const [where, path] of Object.entries(everywhere)) {
  let away = true;
  await visit(`gone and back, ${where}`, path, { expected: ['ERR_FAILED', 'ERR_CONNECTION_REFUSED'], look: false, before: async page => { if (where === 'members') await withMembers(page); await page.route(ASKED, r => away ? r.abort() : r.fallback()); }, act: async page => {
    await shows(page, 'out of reach');
    away = false;
    await page.waitForFunction(() => !document.querySelector('.banner') && !document.querySelector('main [role=alert]'));
  } });
}
let refused = 0;
await visit('429 passes by itself', 'query?' + panel(RATE), { expected: ['429'], before: page => page.route('**/api/v1/query_range', r => refused++ ? r.continue() : r.fulfill({ status: 429, body: '{"status":"error","errorType":"too_many_requests","error":"slow down"}', headers: { 'retry-after': '1' } })), act: drawn });
let starting = true;
await visit('a server that starts tells how far it is', 'query?' + panel(RATE), { width: 390, height: 844, expected: ['503'], before: async page => {
  await page.route('**/api/v1/**', r => starting ? r.fulfill({ status: 503, headers: { 'retry-after': '1' }, body: 'Service Unavailable' }) : r.continue());
  await page.route('**/-/ready', r => r.fulfill({ status: 503, body: 'Hearth cannot open its store yet and tries again: the bucket is away\n' }));
  await page.route('**/api/v1/status/walreplay', r => r.fulfill({ json: { status: 'success', data: { min: 3, max: 12, current: 7, state: 'in progress' } } }));
}, act: async page => {
  await shows(page, '4 of 10 segments of its log read again');
  await shows(page, 'tries again: the bucket is away');
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), 'its progress is in sight on a phone');
  await page.waitForSelector('.editor >> .cm-content');
  await typed(page, RATE + ' * 2');
  starting = false;
  await page.waitForFunction(() => !document.querySelector('.banner'));
  await drawn(page);
  assert.equal(await page.locator('.editor >> .cm-content').innerText(), RATE + ' * 2', 'what was typed is still there');
} });
for (const name of ['401', '429', '500', '502', '503', 'half an answer', 'a page instead of an answer']) await visit(`what was typed stays, ${name}`, 'query?' + panel(RATE), { look: false, expected: ['401', '429', '50'], act: async page => {
  let well = false;
  const [answer, text] = states[name];
  await drawn(page);
  await page.route('**/api/v1/**', r => well ? r.continue() : r.fulfill(answer));
  await typed(page, 'pages_total > 7');
  await page.keyboard.press('Escape');
  await page.keyboard.press('Control+Enter');
  await shows(page, text);
  assert.equal(await page.locator('.editor >> .cm-content').innerText(), 'pages_total > 7');
  assert.equal(new URL(page.url()).searchParams.get('g0.expr'), 'pages_total > 7', 'the address has it as well');
  assert.ok(await page.locator('.plot canvas').count(), 'the result before is still there');
  well = true;
  await page.locator('.ask-buttons .primary').click();
  await page.waitForFunction(() => !document.querySelector('main [role=alert]'));
  await drawn(page);
} });
for (const where of ['rules', 'tenants']) await visit(`a slow page says that it waits, ${where}`, where, { look: false, before: page => page.route(/\/(api\/v1\/rules|runtime_config)\b/, () => { /* never answered */ }), act: page => shows(page, 'Loading…') });
await visit('half of the limits', 'tenants', { look: false, before: served('tenants', { ...LIMITS, 'runtime_config?mode=diff': 'overrides:\n  "team-a":\n    ingestion_ra' }), act: page => shows(page, 'Half an answer') });
await visit('a slow query is cancelled and the old result stays', 'query?' + panel(RATE), { look: false, expected: ['ERR_ABORTED'], act: async page => {
  await drawn(page);
  await page.route('**/api/v1/query_range', () => { /* never answered */ });
  await page.locator('.ask-buttons .primary').click();
  await shows(page, 'running');
  await page.locator('.working >> text=Cancel').click();
  await page.waitForFunction(() => !document.querySelector('.working'));
  assert.ok(await page.locator('.plot canvas').count());
} });

await done();
