/** The plan of a query as a tree, each part with what it cost, and the way from a part to its place in the text. */
import { useMemo, useState } from 'preact/hooks';
import { bytes, count, grouped } from '../format';
import { formatDuration, spoken, stamp } from '../time';
import { useCell, zone } from '../store';
import { charOf } from '../editor/source';
import type { Outcome, PlanNode } from './run';

interface Row { node: PlanNode; depth: number; path: string; rails: boolean[]; last: boolean }
const KINDS: Record<string, string> = {
  vectorSelector: 'selector', matrixSelector: 'range selector', call: 'function', aggregation: 'aggregation', binaryExpr: 'operator', numberLiteral: 'number', stringLiteral: 'text',
  parenExpr: 'brackets', unaryExpr: 'sign', subquery: 'subquery',
};

export function Explain({ o, onPoint }: { o: Outcome; onPoint(from: number, to: number): void }) {
  const [closed, setClosed] = useState<Set<string>>(new Set()), [chosen, setChosen] = useState(''), inZone = useCell(zone);
  const { plan, stats } = o.explained!;
  const whole = plan.analysis?.totalTime || 1e-9;
  const rows = useMemo(() => {
    const out: Row[] = [], todo: Row[] = [{ node: plan, depth: 0, path: '0', rails: [], last: true }];
    // In a loop: a chain of operators is as deep as it is long.
    while (todo.length && out.length < 2000) {
      const row = todo.pop()!;
      out.push(row);
      if (closed.has(row.path)) continue;
      const kids = row.node.children.map((node, i, all) => ({ node, depth: row.depth + 1, path: row.path + '.' + i, rails: [...row.rails.slice(-40), !row.last], last: i === all.length - 1 }));
      todo.push(...kids.reverse());
    }
    return out;
  }, [plan, closed]);
  const hottest = useMemo(() => rows.reduce((m, r) => Math.max(m, r.node.analysis?.selfTime ?? 0), 0), [rows]);
  const jump = (r: Row) => { setChosen(r.path); onPoint(charOf(o.expr, r.node.span[0]), charOf(o.expr, r.node.span[1])); };
  return <>
    <p class="figures explained">
      <span>{count(plan.steps, 'step')}</span><span><b>{grouped(plan.analysis?.totalSamplesRead ?? 0)}</b> samples read</span>
      {stats && <span><b>{spoken(stats.timings.execTotalTime)}</b> of work</span>}<span>looks back {formatDuration(o.explained!.lookback)}</span>
    </p>
    <div class="scroll" tabIndex={0} role="region" aria-label="Plan of the query">
      <table class="plan" role="treegrid" aria-label="Plan of the query">
        <thead><tr><th>Part</th><th class="v">Own time</th><th class="v wide">With parts</th><th class="v">Series</th><th class="v">Samples</th><th class="v wide">Memory</th></tr></thead>
        <tbody>{rows.map(r => {
          const a = r.node.analysis, share = a ? a.selfTime / whole : 0;
          return <tr key={r.path} class={chosen === r.path ? 'near' : ''} aria-level={r.depth + 1} aria-expanded={r.node.children.length ? !closed.has(r.path) : undefined} role="row" style={{ '--depth': Math.min(r.depth, 14) }}>
            <td class="part" role="gridcell">
              <div class="node">{r.node.children.length > 0 ? <button type="button" class="twist" aria-label={closed.has(r.path) ? 'Open' : 'Close'} onClick={() => { const next = new Set(closed); if (!next.delete(r.path)) next.add(r.path); setClosed(next); }}>{closed.has(r.path) ? '▸' : '▾'}</button> : <span class="twist" />}
              <button type="button" class="jump" onClick={() => jump(r)} title="Show where this stands in the query">
                <code>{r.node.text.length > 400 ? r.node.text.slice(0, 400) + '…' : r.node.text}</code>
                <small>{[KINDS[r.node.kind] ?? r.node.kind, ...words(r.node, t => stamp(t, inZone))].join(' · ')}</small>
              </button></div>
            </td>
            <td class="v num" role="gridcell">{a && <><span class={a.selfTime === hottest && share > 0.2 ? 'hot' : ''}>{spoken(a.selfTime)}</span><div class="share"><i style={{ width: Math.min(100, 100 * share) + '%' }} /></div></>}</td>
            <td class="v num wide" role="gridcell">{a && spoken(a.totalTime)}</td>
            <td class="v num" role="gridcell">{a && grouped(a.series)}</td>
            <td class="v num" role="gridcell">{a && (a.samplesRead ? grouped(a.samplesRead) : a.totalSamplesRead ? <span class="soft">({grouped(a.totalSamplesRead)})</span> : '0')}</td>
            <td class="v num wide" role="gridcell">{a && (a.peakBytes || a.bytes ? bytes(Math.max(a.peakBytes, a.bytes)) : '')}</td>
          </tr>;
        })}</tbody>
      </table>
    </div>
    <p class="foot soft">Measured while it ran just now. In brackets: read by its parts. Click a part to see where it stands in the query.</p>
  </>;
}

function words(n: PlanNode, at: (t: number) => string): string[] {
  const out: string[] = [];
  if (n.window) out.push(n.window.step ? `every ${formatDuration(n.window.step)} over ${formatDuration(n.window.range)}` : `over ${formatDuration(n.window.range)}`);
  if (n.selector?.offset) out.push('offset ' + formatDuration(Math.abs(n.selector.offset)));
  if (n.selector?.reads) out.push(`reads ${at(n.selector.reads.start)} to ${at(n.selector.reads.end)}`);
  if (n.selector?.shared) out.push(n.analysis?.reused ? 'already read by another part' : 'read once for several parts');
  if (n.analysis?.maxResolution) out.push('from rollups of ' + formatDuration(n.analysis.maxResolution));
  if (n.stepInvariant && !/Literal/.test(n.kind)) out.push('once for all steps');
  return out;
}
