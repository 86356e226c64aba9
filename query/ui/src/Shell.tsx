/** Pieces that pages share: their frame, bars in cells, a graph of a query. */
import type { ComponentChildren } from 'preact';
import { useRef, useState } from 'preact/hooks';
import { alter } from './address';
import type { Asked } from './ask';
import { later } from './later';
import { Failed } from './panel/Failed';
import { Graph } from './panel/Graph';
import { isHistogram } from './panel/histogram';
import { useRun } from './panel/run';
import { go, place } from './route';
import { useCell } from './store';
import { formatDuration, parseDuration, parseStamp, stamp } from './time';
import { emptyPanel, queryLink, type Panel } from './url';

const Empty = later(() => import('./panel/Empty').then(m => m.Empty));

export function Page({ title, children }: { title: string; children: ComponentChildren }) {
  return <div class="page"><h1>{title}</h1>{children}</div>;
}

/** What came, or why it did not. */
export function Got<T>({ asked, children }: { asked: Asked<T>; children(data: T): ComponentChildren }) {
  if (asked.data !== null) return <>{asked.failure && <Failed failure={asked.failure} retry={asked.again} />}{children(asked.data)}</>;
  if (asked.failure) return <Failed failure={asked.failure} retry={asked.again} />;
  return <div class="empty" role="status"><span class="soft">Loading…</span></div>;
}

/** A cell whose ground shows its share of the largest. */
export function Meter({ share, children }: { share: number; children: ComponentChildren }) {
  return <div class="meter"><i style={{ width: Math.max(0, Math.min(100, share * 100)) + '%' }} />{children}</div>;
}

/** A name that, where it has to, breaks between its words. */
export function Words({ t }: { t: string }) {
  const words = t.split(/(?<=[_:./=])(?=[^_:./=])/), most = words.slice(0, 300).concat(words.slice(300).join('') || []);
  return <>{most.map((word, i) => <>{i > 0 && <wbr />}{word}</>)}</>;
}

/** A graph of an expression that stands by itself, with the way to the Query page. A page has one: what of it is shown
 *  stands in the address. */
export function QuickGraph({ expr, range = 3600, more = {} }: { expr: string; range?: number; more?: Partial<Panel> }) {
  const at = new URLSearchParams(useCell(place).search), [again, setAgain] = useState(0), root = useRef<HTMLDivElement>(null);
  const p: Panel = { ...emptyPanel(), expr, range, ...more, tab: 'graph', hidden: (at.get('hide') ?? '').split(',').filter(Boolean), legendSort: at.get('legend') ?? '', filter: at.get('filter') ?? '', all: at.get('all') === '1' };
  p.range = parseDuration(at.get('range') ?? '') ?? p.range;
  p.end = parseStamp(at.get('end') ?? '', 'utc') ?? p.end;
  const { outcome, failure, progress } = useRun(p, () => root.current?.clientWidth ?? 900, again);
  const list = outcome?.data?.resultType === 'matrix' ? outcome.data.result : [];
  const update = (patch: Partial<Panel>, push = false) => {
    if (patch.expr) { go(queryLink(patch.expr, { range: p.range, end: p.end })); return; }
    const said: Record<string, string> = {};
    if (patch.range) said.range = formatDuration(patch.range);
    if (patch.end !== undefined) said.end = patch.end === null ? '' : stamp(patch.end, 'utc');
    if (patch.hidden) said.hide = patch.hidden.slice(0, 200).join();
    if (patch.filter !== undefined) said.filter = patch.filter;
    if (patch.all) said.all = '1';
    if (patch.legendSort !== undefined) said.legend = patch.legendSort;
    alter(said, push);
  };
  return <div class={'card out' + (progress && outcome ? ' stale' : '')} ref={root}>
    <div class="table-top"><code class="cut">{expr}</code><span class="grow" /><a class="button small" href={queryLink(expr, { range: p.range, end: p.end })}>Open in Query</a></div>
    {failure && <Failed failure={failure} expr={expr} retry={() => setAgain(n => n + 1)} />}
    {outcome && (list.length ? <Graph o={outcome} p={p} update={update} heat={isHistogram(list)} /> : <Empty o={outcome} update={update} />)}
    {!outcome && !failure && <div class="empty" role="status"><span class="soft">Asking…</span></div>}
  </div>;
}
