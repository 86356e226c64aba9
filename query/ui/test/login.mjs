// The page of a Hearth that has passwords: nothing without one, everything with one, and when it changes under an open page, nothing of what
// was typed is lost. `WEB_CONFIG` names the server's file of passwords.
import { strict as assert } from 'node:assert';
import { readFileSync, writeFileSync } from 'node:fs';
import { base, done, idle, panel, shows, typed, visit } from './visit.mjs';

const PASSWORD = 'open sesame', file = process.env.WEB_CONFIG;
const status = async user => (await fetch(base, { headers: user ? { authorization: 'Basic ' + btoa(`${user}:${PASSWORD}`) } : {} })).status;
assert.deepEqual([await status(''), await status('eve'), await status('ann')], [401, 401, 200]);

for (const [name, path] of Object.entries({ query: 'query?' + panel('pages_total'), explore: 'explore', rules: 'rules', status: 'status' }))
  await visit(`with a password, ${name}`, path, { credentials: { username: 'ann', password: PASSWORD } });

await visit('a password that changes under an open page', 'query?' + panel('pages_total', { tab: 'table' }), { look: false, credentials: { username: 'ann', password: PASSWORD }, expected: ['401'], act: async page => {
  await shows(page, '240');
  await typed(page, 'pages_total * 2');
  writeFileSync(file, readFileSync(file, 'utf8').replace('ann:', 'bob:'));
  while (await status('ann') !== 401) await page.waitForTimeout(100);
  const text = () => page.locator('.editor >> .cm-content').innerText();
  await page.keyboard.press('Escape');
  await page.keyboard.press('Control+Enter');
  await shows(page, 'wants to know who asks');
  assert.equal(await text(), 'pages_total * 2');
  await page.context().setHTTPCredentials({ username: 'bob', password: PASSWORD });
  await page.getByRole('button', { name: 'Ask again' }).click();
  await shows(page, '480');
  await idle(page);
  assert.equal(await text(), 'pages_total * 2', 'what was typed is still there');
} });

await done();
