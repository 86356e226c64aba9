/** Pieces that pages share: their frame, bars in cells, a graph of a query. */
import type { ComponentChildren } from 'preact';
import { useRef, useState } from 'preact/hooks';
import type { Asked } from './ask';
import { later } from './later';
import { Failed } from './panel/Panel';
import { Graph } from './panel/Graph';
import { isHistogram } from './panel/histogram';
import { useRun } from './panel/run';
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

/** A graph of an expression that stands by itself, with the way to the Query page. */
export function QuickGraph({ expr, range = 3600, more = {} }: { expr: string; range?: number; more?: Partial<Panel> }) {
  const [own, setOwn] = useState<Partial<Panel>>({}), [again, setAgain] = useState(0), root = useRef<HTMLDivElement>(null);
  const p: Panel = { ...emptyPanel(), expr, range, ...more, ...own, tab: 'graph' };
  const { outcome, failure, progress } = useRun(p, () => root.current?.clientWidth ?? 900, again);
  const list = outcome?.data?.resultType === 'matrix' ? outcome.data.result : [];
  const update = (patch: Partial<Panel>) => { if (patch.expr) location.assign(queryLink(patch.expr)); else setOwn({ ...own, ...patch }); };
  return <div class={'card out' + (progress && outcome ? ' stale' : '')} ref={root}>
    <div class="table-top"><code class="cut">{expr}</code><span class="grow" /><a class="button small" href={queryLink(expr, { range: p.range, end: p.end })}>Open in Query</a></div>
    {failure && <Failed failure={failure} expr={expr} retry={() => setAgain(n => n + 1)} />}
    {outcome && (list.length ? <Graph o={outcome} p={p} update={update} heat={isHistogram(list)} /> : <Empty o={outcome} update={update} />)}
    {!outcome && !failure && <div class="empty" role="status"><span class="soft">Asking…</span></div>}
  </div>;
}
