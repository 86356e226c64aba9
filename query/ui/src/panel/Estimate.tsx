/** What a query will cost, said before it runs, on every edit; or what is wrong with it. */
import type { Checked } from '../editor/source';
import { bytes, count, short } from '../format';

export function Estimate({ checked: { wrong, cost } }: { checked: Checked }) {
  if (wrong) return <p class="estimate wrong" role="status">{wrong.text.slice(0, 300)}</p>;
  if (!cost) return null;
  const about = cost.atLeast ? 'at least ' : 'about ', over = cost.samples > cost.limits.maxSamples;
  const from = [cost.head ? 'the head' : '', cost.blocks ? count(cost.blocks, 'block') : ''].filter(Boolean).join(' and ');
  if (!cost.series && !cost.atLeast) return <p class="estimate" role="status">Would find no series.</p>;
  return <p class={'estimate' + (over ? ' wrong' : '')} role="status">Would read {about}{count(cost.series, 'series', 'series')}, {short(Math.round(cost.samples), 3)} samples, {bytes(cost.bytes)}{from && ' from ' + from}.
    {over && ` More than ${short(cost.limits.maxSamples)} samples at once end a query: a longer step or fewer series cost less.`}</p>;
}
