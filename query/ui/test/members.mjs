// The page of a querier, whose members are real: `STATE=there` while all are, `STATE=away` once one of them was killed with samples that it had
// not stored.
import { strict as assert } from 'node:assert';
import { base, done, idle, panel, shows, visit } from './visit.mjs';

const { data } = await (await fetch(base + 'api/v1/status/members')).json();
const named = role => data.members.filter(m => m.role === role).map(m => m.name);
const away = process.env.STATE === 'away', lost = data.members.filter(m => m.late && m.owesSamples).map(m => m.name);
assert.equal(named('ingest').length, 2);
assert.equal(lost.length, away ? 1 : 0);

for (const width of [1440, 390]) await visit(`members ${width}`, 'members', { width, height: width === 390 ? 844 : 900, act: async page => {
  for (const name of [...named('ingest'), ...named('query')]) await shows(page, name);
  await shows(page, away ? `hearth bucket forget ${lost[0]}` : 'holds samples');
} });
await visit('what this process does not do hides itself', 'tenants', { look: false });
if (away) await visit('an answer that lacks a member says whom', 'query?' + panel('pages_total'), { expected: ['500'], act: page => shows(page, lost[0]) });
else await visit('the answer of all members', 'query?' + panel('pages_total'), { act: async page => {
  await idle(page);
  await shows(page, '2 series');
} });

await done();
