// Opens pages of a Hearth in Chromium and holds each to what all are held to: no error in the console, no report of the
// content security policy, nothing over its right edge, no finding of axe-core, in light and in dark. `SLOW=10` gives its
// script a tenth of the machine's speed.
import { strict as assert } from 'node:assert';
import { readFileSync } from 'node:fs';
import { chromium } from 'playwright-core';

export const base = process.argv[2], end = Number(process.argv[3]);
const axe = readFileSync(new URL('../node_modules/axe-core/axe.min.js', import.meta.url), 'utf8');
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run', '--disable-background-networking'],
});
const PATIENCE = 60_000;
const at = new Date(end * 1000).toISOString().slice(0, 19).replace('T', '+');
export const panel = (expr, more = {}, n = 0) => Object.entries({ expr, range_input: '15m', ...(more.tab === 'table' ? { moment_input: at } : { end_input: at }), ...more }).map(([k, v]) => `g${n}.${k}=${k.endsWith('_input') ? v : encodeURIComponent(v)}`).join('&');

/** Opens a page, does something with it, and holds it to what every page is held to. `expected` are errors that the server was asked for,
 *  `credentials` what the browser answers when it is asked for a password. */
export async function visit(name, path, { width = 1440, height = 900, before, act, expected = [], look = true, credentials } = {}) {
  if (process.env.ONLY && !name.includes(process.env.ONLY)) return;
  const context = await browser.newContext({ viewport: { width, height }, hasTouch: width < 500, acceptDownloads: true, httpCredentials: credentials });
  const page = await context.newPage(), complaints = [];
  page.setDefaultTimeout(PATIENCE);
  if (process.env.SLOW) await (await context.newCDPSession(page)).send('Emulation.setCPUThrottlingRate', { rate: Number(process.env.SLOW) });
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
      const culprits = wide <= 0 ? '' : await page.evaluate(() => [...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth && !e.closest('.scroll, .finder, svg')).map(e => `${e.tagName} ${e.className} ${e.getBoundingClientRect().right}`).slice(0, 8).join('; '));
      assert.ok(wide <= 0, `${colorScheme}: runs ${wide} pixels over its right edge: ${culprits}`);
      await page.evaluate(axe + ';0');
      const found = await page.evaluate(() => axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice'] }));
      assert.deepEqual(found.violations.map(v => `${v.id}: ${v.nodes.map(n => n.target.join(' ') + ' ' + n.failureSummary).slice(0, 3).join('; ')}`), [], colorScheme);
    }
    assert.deepEqual(await page.evaluate(() => window.reports), [], 'reports of the content security policy');
    assert.deepEqual(complaints, [], 'errors in the console');
    console.log(`ok ${name}`);
  } catch (e) {
    console.error(`not ok ${name} (${base}${path})\n${e.stack ?? e}\nconsole: ${complaints.join('\n')}\n${(await page.evaluate(() => document.body.innerText).catch(() => '')).slice(0, 1500)}\neditor: ${await editorSays(page)}`);
    await browser.close();
    process.exit(1);
  }
  await context.close();
}
/** What stands in the first query box and its lists, which lie in a shadow root, and where the keys go. */
const editorSays = page => page.evaluate(() => JSON.stringify({
  text: document.querySelector('.editor')?.shadowRoot?.querySelector('.cm-content')?.innerText,
  lists: [...document.querySelector('.editor')?.shadowRoot?.querySelectorAll('.cm-tooltip') ?? []].map(e => e.innerText.slice(0, 300)),
  focus: [document.hasFocus(), document.activeElement?.className],
})).catch(e => String(e));
export const shows = (page, text) => page.waitForFunction(t => document.body.innerText.includes(t), text);
export const idle = page => page.waitForFunction(() => document.querySelector('.out') && !document.querySelector('.out[aria-busy=true]'));
export const typed = async (page, text) => {
  const box = page.locator('.editor').first();
  await box.click();
  await page.keyboard.press('Control+A');
  await page.keyboard.type(text);
};
/** Ends the run, all of which went well. */
export async function done() {
  await browser.close();
  console.log('all pages are as they should be');
}
