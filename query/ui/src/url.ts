/** The panels of the Query page as the address says them: in Prometheus' words where it has any, so that its links work here and ours there. */
import { parseDuration, formatDuration, parseStamp, stamp } from './time';
import type { Unit } from './format';

export type Tab = 'graph' | 'table' | 'explain';
export type Mode = 'lines' | 'stacked' | 'heatmap';
export interface Panel {
  expr: string;
  tab: Tab;
  /** Seconds. */
  range: number;
  /** Unix seconds; `null` is now. */
  end: number | null;
  /** Seconds; `null` leaves it to the width of the graph. */
  step: number | null;
  density: 'low' | 'medium' | 'high';
  mode: Mode;
  exemplars: boolean;
  yMin: number | null;
  yMax: number | null;
  log: boolean;
  unit: Unit | 'auto';
  /** A duration such as `1w`, or nothing. */
  compare: string;
  /** Hashes of the labels of series that are switched off. */
  hidden: string[];
  legendSort: string;
  /** Of the legend, and of the table's rows. */
  filter: string;
  /** All series are drawn, however many. */
  all: boolean;
  /** The table writes values with their unit instead of whole. */
  units: boolean;
  /** Column of the table, with `-` before it for descending. */
  sort: string;
  /** Columns of the table that are left out. */
  without: string[];
}

export const emptyPanel = (): Panel => ({
  expr: '', tab: 'graph', range: 3600, end: null, step: null, density: 'medium', mode: 'lines', exemplars: false, yMin: null, yMax: null,
  log: false, unit: 'auto', compare: '', hidden: [], legendSort: '', filter: '', all: false, units: false, sort: '', without: [],
});

const tabOf = (t: string | null): Tab => t === '1' || t === 'table' ? 'table' : t === 'explain' ? 'explain' : 'graph';
const numberOf = (t: string | null) => t === null || t === '' || !Number.isFinite(Number(t)) ? null : Number(t);
const listOf = (t: string | null) => t ? t.split(',').filter(Boolean) : [];

function one(get: (name: string) => string | null): Panel {
  const p = emptyPanel();
  p.expr = get('expr') ?? '';
  p.tab = tabOf(get('tab'));
  p.range = parseDuration(get('range_input') ?? '') ?? p.range;
  const end = (p.tab === 'table' ? get('moment_input') ?? get('end_input') : get('end_input') ?? get('moment_input')) ?? '';
  p.end = parseStamp(end, 'utc');
  const kind = get('res_type');
  const step = get('res_step') ?? get('step_input');
  p.step = step && kind !== 'auto' ? parseDuration(step) : null;
  const density = get('res_density');
  if (density === 'low' || density === 'high') p.density = density;
  const mode = get('display_mode');
  p.mode = mode === 'stacked' || mode === 'heatmap' ? mode : get('stacked') === '1' ? 'stacked' : 'lines';
  p.exemplars = get('show_exemplars') === '1';
  p.yMin = get('y_axis_min') === 'zero' ? 0 : numberOf(get('y_min'));
  p.yMax = numberOf(get('y_max'));
  p.log = get('log') === '1';
  p.unit = (get('unit') as Unit) || 'auto';
  p.compare = parseDuration(get('compare') ?? '') ? get('compare')! : '';
  p.hidden = listOf(get('hide'));
  p.legendSort = get('legend') ?? '';
  p.filter = get('filter') ?? '';
  p.all = get('all') === '1';
  p.units = get('units') === '1';
  p.sort = get('sort') ?? '';
  p.without = listOf(get('without'));
  return p;
}

/** At most 20 panels; those of an address that has none are one empty one. */
export function readPanels(search: string): Panel[] {
  const asked = new URLSearchParams(search), numbers = new Set<number>();
  for (const name of asked.keys()) { const m = /^g(\d{1,3})\./.exec(name); if (m) numbers.add(Number(m[1])); }
  if (numbers.size) return [...numbers].sort((a, b) => a - b).slice(0, 20).map(n => one(name => asked.get(`g${n}.${name}`)));
  // The page's own first addresses: q, tab, range, end in plain seconds.
  const p = emptyPanel();
  p.expr = asked.get('q') ?? asked.get('query') ?? asked.get('expr') ?? '';
  p.tab = tabOf(asked.get('tab'));
  p.range = parseDuration(asked.get('range') ?? '') ?? p.range;
  p.end = parseStamp(asked.get('end') ?? '', 'utc');
  return [p];
}

export function writePanels(panels: Panel[]): string {
  const out = new URLSearchParams(), plain = emptyPanel();
  panels.forEach((p, i) => {
    const put = (name: string, value: string, when = true) => { if (when) out.set(`g${i}.${name}`, value); };
    put('expr', p.expr);
    put('tab', p.tab, p.tab !== 'graph' || true);
    put('range_input', formatDuration(p.range), p.range !== plain.range);
    if (p.end !== null) put(p.tab === 'table' ? 'moment_input' : 'end_input', stamp(p.end, 'utc'));
    if (p.step !== null) { put('res_type', 'custom'); put('res_step', formatDuration(p.step)); } else if (p.density !== 'medium') { put('res_type', 'auto'); put('res_density', p.density); }
    put('display_mode', p.mode, p.mode !== 'lines');
    put('show_exemplars', '1', p.exemplars);
    put('y_axis_min', 'zero', p.yMin === 0);
    put('y_min', String(p.yMin), p.yMin !== null && p.yMin !== 0);
    put('y_max', String(p.yMax), p.yMax !== null);
    put('log', '1', p.log);
    put('unit', p.unit, p.unit !== 'auto');
    put('compare', p.compare, p.compare !== '');
    put('hide', p.hidden.join(','), p.hidden.length > 0 && p.hidden.length <= 200);
    put('legend', p.legendSort, p.legendSort !== '');
    put('filter', p.filter, p.filter !== '');
    put('all', '1', p.all);
    put('units', '1', p.units);
    put('sort', p.sort, p.sort !== '');
    put('without', p.without.join(','), p.without.length > 0);
  });
  return panels.length === 1 && !panels[0].expr ? '' : '?' + out.toString().replace(/%3A/g, ':').replace(/%2C/g, ',');
}

/** A link to the Query page with this expression. */
export const queryLink = (expr: string, more: Partial<Panel> = {}) => 'query' + writePanels([{ ...emptyPanel(), expr, ...more }]);
