// The page: state in the address, queries by the same API everybody uses, results as graph or table.
'use strict';

const $ = id => document.getElementById(id);
/** `el('div.note', {hidden: true}, 'text', child)` */
function el(kind, props = {}, ...children) {
  const [tag, ...classes] = kind.split('.');
  const e = Object.assign(document.createElement(tag), props);
  if (classes.length) e.className = classes.join(' ');
  e.append(...children);
  return e;
}
const count = (n, one, many = one + 's') => n.toLocaleString('en') + ' ' + (n === 1 ? one : many);
const number = s => s === '+Inf' ? Infinity : s === '-Inf' ? -Infinity : Number(s);
const store = { get: k => { try { return localStorage.getItem('hearth.' + k); } catch { return null; } }, set: (k, v) => { try { localStorage.setItem('hearth.' + k, v); } catch { /* private window */ } } };

/** The API under this page, wherever a proxy has put it. */
async function api(path, form, { post = false, signal } = {}) {
  const body = new URLSearchParams(form || {});
  const url = new URL('api/v1/' + path, document.baseURI);
  if (!post) url.search = body;
  const answer = await fetch(url, post ? { method: 'POST', body, signal } : { signal });
  const text = await answer.text();
  let json = null;
  try { json = JSON.parse(text); } catch { /* not the API speaking */ }
  if (!json || json.status !== 'success') throw Object.assign(new Error(json ? json.error : text.slice(0, 300) || answer.statusText), { kind: json ? json.errorType : 'HTTP ' + answer.status });
  return json;
}

// ---- State, as the address says it ----
const RANGES = [['5m', 300], ['15m', 900], ['1h', 3600], ['6h', 21600], ['1d', 86400], ['7d', 604800], ['30d', 2592000]];
const asked = new URLSearchParams(location.search);
const state = { query: asked.get('q') || '', tab: ['table', 'explain'].includes(asked.get('tab')) ? asked.get('tab') : 'graph', range: Number(asked.get('range')) || 3600, end: Number(asked.get('end')) || null };
const zooms = [];
function remember() {
  const p = new URLSearchParams();
  if (state.query) p.set('q', state.query);
  if (state.tab !== 'graph') p.set('tab', state.tab);
  if (state.range !== 3600) p.set('range', state.range);
  if (state.end) p.set('end', state.end);
  history.replaceState(null, '', p.size ? '?' + p : location.pathname);
}

// ---- Theme ----
const system = matchMedia('(prefers-color-scheme: dark)');
function theme(next) {
  if (next) store.set('theme', next);
  const chosen = store.get('theme') || 'system';
  document.documentElement.dataset.theme = chosen === 'system' ? (system.matches ? 'dark' : 'light') : chosen;
  $('theme').textContent = { system: '◐', light: '☀', dark: '☾' }[chosen];
  $('theme').title = 'Theme: ' + chosen;
  if (last) show(last);
}
$('theme').onclick = () => theme({ system: 'light', light: 'dark', dark: 'system' }[store.get('theme') || 'system']);
system.addEventListener('change', () => theme());

// ---- The language: enough of it to colour and to complete ----
const KEYWORDS = ['by', 'without', 'on', 'ignoring', 'group_left', 'group_right', 'offset', 'bool', 'and', 'or', 'unless', 'atan2', 'start', 'end', 'fill', 'fill_left', 'fill_right', 'anchored', 'smoothed'];
const FUNCTIONS = {
  sum: 'of all', avg: 'of all', min: 'of all', max: 'of all', count: 'how many series', count_values: 'how many series per value', group: '1 per group', stddev: 'of all', stdvar: 'of all', topk: 'the k largest', bottomk: 'the k smallest', quantile: 'of all', limitk: 'any k', limit_ratio: 'any share',
  rate: 'per second over a range', irate: 'per second, last two samples', increase: 'over a range', delta: 'of a gauge over a range', idelta: 'last two samples', deriv: 'per second, by regression', predict_linear: 'by regression', resets: 'of a counter', changes: 'of value',
  avg_over_time: 'per series', min_over_time: 'per series', max_over_time: 'per series', sum_over_time: 'per series', count_over_time: 'per series', quantile_over_time: 'per series', stddev_over_time: 'per series', stdvar_over_time: 'per series', last_over_time: 'per series', first_over_time: 'per series', present_over_time: '1 where there was any', absent_over_time: '1 where there was none', mad_over_time: 'median absolute deviation', ts_of_min_over_time: 'when it was least', ts_of_max_over_time: 'when it was most', ts_of_first_over_time: 'per series', ts_of_last_over_time: 'per series',
  histogram_quantile: 'from buckets', histogram_avg: 'native', histogram_count: 'native', histogram_sum: 'native', histogram_fraction: 'between two bounds', histogram_stddev: 'native', histogram_stdvar: 'native', histogram_quantiles: 'several, from buckets', label_replace: 'by regular expression', label_join: 'labels into one', absent: '1 where there is none', abs: '', ceil: '', floor: '', round: 'to the nearest', clamp: 'between two', clamp_min: '', clamp_max: '', exp: '', ln: '', log2: '', log10: '', sqrt: '', sgn: 'sign', sort: 'ascending', sort_desc: 'descending', sort_by_label: '', sort_by_label_desc: '', time: 'now, in seconds', timestamp: 'of the sample', vector: 'of a scalar', scalar: 'of a vector', day_of_month: '', day_of_week: '', day_of_year: '', days_in_month: '', hour: '', minute: '', month: '', year: '', info: 'labels from info metrics', double_exponential_smoothing: '', start_timestamp: 'of the counter', step: 'of the query', range: 'of the query', max_of: 'two scalars', min_of: 'two scalars', pi: '', deg: 'from radians', rad: 'from degrees', sin: '', cos: '', tan: '', asin: '', acos: '', atan: '', sinh: '', cosh: '', tanh: '', asinh: '', acosh: '', atanh: '',
};
const TOKEN = /(#[^\n]*)|("(?:[^"\\]|\\.)*"?|'(?:[^'\\]|\\.)*'?|`[^`]*`?)|((?:\d+(?:ms|[smhdwy]))+|0x[\da-f]+|\d+\.?\d*(?:e[+-]?\d+)?)|([a-zA-Z_:][\w:.]*)|([\s\S])/gi;
function paint() {
  const text = $('query').value, out = [];
  let braces = 0, lists = false;
  for (const m of text.matchAll(TOKEN)) {
    const [all, comment, string, digits, word, other] = m, rest = text.slice(m.index + all.length);
    let kind = '';
    if (comment) kind = 'com'; else if (string) kind = 'str'; else if (digits) kind = 'num';
    else if (word) {
      if (braces || lists) kind = 'lab';
      else if (/^\s*\(/.test(rest) && !KEYWORDS.includes(word.toLowerCase()) || FUNCTIONS[word] !== undefined && /^\s*(by|without)\b/i.test(rest)) kind = 'fn';
      else if (KEYWORDS.includes(word.toLowerCase())) kind = 'kw';
      else if (/^(inf|nan)$/i.test(word)) kind = 'num';
    } else {
      if (other === '{') braces++;
      if (other === '}') braces = Math.max(0, braces - 1);
      if (other === '(' && /\b(by|without|on|ignoring|group_left|group_right)\s*$/i.test(text.slice(0, m.index))) lists = true;
      if (other === ')') lists = false;
    }
    const faulty = fault !== null && m.index <= fault && fault < m.index + all.length;
    out.push(kind || faulty ? el('span', { className: [kind, faulty ? 'wrong' : ''].join(' ').trim() }, all) : all);
  }
  $('paint').replaceChildren(...out, '\n');
  $('query').style.height = 'auto';
  $('query').style.height = $('query').scrollHeight + 'px';
}
let fault = null;

// ---- Completion ----
let names = [], help = {}, choices = [], chosen = 0;
const cache = new Map();
function cached(path, form) {
  const key = path + '?' + new URLSearchParams(form);
  if (!cache.has(key)) {
    cache.set(key, api(path, form).then(a => a.data).catch(() => []));
    setTimeout(() => cache.delete(key), 30000);
  }
  return cache.get(key);
}
async function complete() {
  const box = $('query'), at = box.selectionStart, head = box.value.slice(0, at);
  const close = () => { choices = []; $('complete').hidden = true; box.setAttribute('aria-expanded', 'false'); };
  // Where the caret stands: in a matcher's value, among labels, or in the open.
  let brace = -1, quote = -1;
  for (const m of head.matchAll(TOKEN)) {
    if (m[5] === '{') brace = m.index;
    if (m[5] === '}') brace = -1;
    quote = m[2] && m.index + m[0].length === at && (m[0].length === 1 || !m[0].endsWith(m[0][0]) || m[0].endsWith('\\' + m[0][0])) ? m.index : -1;
  }
  const metric = brace < 0 ? '' : (head.slice(0, brace).match(/[a-zA-Z_:][\w:]*$/) || [''])[0];
  const form = metric ? { 'match[]': metric } : {};
  let all = [], from = at, word = '';
  const grouping = head.match(/\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^()]*$/i);
  if (brace >= 0 && quote > brace) {
    const label = head.slice(brace + 1, quote).match(/([a-zA-Z_]\w*)\s*(?:=~|!~|!=|=)\s*$/);
    if (!label) return close();
    from = quote + 1;
    all = (await cached('label/' + label[1] + '/values', { ...form, limit: 2000 })).map(v => ({ text: v, put: v.replace(/[\\"]/g, '\\$&') + (box.value[at] === head[quote] ? '' : head[quote]) }));
  } else if (quote >= 0) {
    return close();
  } else {
    word = (head.match(/[a-zA-Z_:][\w:.]*$/) || [''])[0];
    from = at - word.length;
    if (brace >= 0) all = (await cached('labels', { ...form, limit: 2000 })).filter(n => n !== '__name__').map(n => ({ text: n, put: n + (/^\s*[=!]/.test(box.value.slice(at)) ? '' : '="') , more: true }));
    else if (grouping) all = (await cached('labels', { limit: 2000 })).filter(n => n !== '__name__').map(n => ({ text: n, put: n }));
    else if (word.length > 0) all = [
      ...names.map(n => ({ text: n, put: n, note: help[n] })),
      ...Object.entries(FUNCTIONS).map(([n, note]) => ({ text: n, put: n + (box.value[at] === '(' ? '' : '('), note: note || 'function' })),
    ];
  }
  if (box.selectionStart !== at) return;
  const wanted = box.value.slice(from, at).toLowerCase();
  const rank = t => { const i = t.toLowerCase().indexOf(wanted); return i < 0 ? 9 : i === 0 ? 0 : '_:'.includes(t[i - 1]) ? 1 : 2; };
  choices = all.map(c => ({ ...c, rank: rank(c.text), from, at })).filter(c => c.rank < 9).sort((a, b) => a.rank - b.rank).slice(0, 60);
  if (choices.length === 1 && choices[0].text === wanted) return close();
  chosen = 0;
  if (!choices.length) return close();
  $('complete').replaceChildren(...choices.map((c, i) => {
    const p = c.text.toLowerCase().indexOf(wanted), name = el('span.mono');
    name.append(c.text.slice(0, p), el('b', {}, c.text.slice(p, p + wanted.length)), c.text.slice(p + wanted.length));
    const li = el('li', { role: 'option', id: 'choice' + i, onmousedown: e => { e.preventDefault(); take(i); } }, name);
    if (c.note) li.append(el('small', {}, c.note));
    return li;
  }));
  $('complete').hidden = false;
  box.setAttribute('aria-expanded', 'true');
  mark(0);
}
function mark(i) {
  const all = $('complete').children;
  chosen = (i + all.length) % all.length;
  [...all].forEach((li, n) => li.classList.toggle('on', n === chosen));
  all[chosen].scrollIntoView({ block: 'nearest' });
  $('query').setAttribute('aria-activedescendant', 'choice' + chosen);
}
function take(i) {
  const c = choices[i], box = $('query');
  box.setRangeText(c.put, c.from, c.at, 'end');
  choices = [];
  $('complete').hidden = true;
  fault = null;
  paint();
  if (c.more) complete();
}
$('query').addEventListener('input', () => { fault = null; paint(); complete(); });
$('query').addEventListener('blur', () => { $('complete').hidden = true; choices = []; });
$('query').addEventListener('keydown', e => {
  const open = !$('complete').hidden && choices.length;
  if (open && (e.key === 'ArrowDown' || e.key === 'ArrowUp')) { e.preventDefault(); mark(chosen + (e.key === 'ArrowDown' ? 1 : -1)); }
  else if (open && (e.key === 'Tab' || e.key === 'Enter' && !e.shiftKey && choices[chosen].text.length > choices[chosen].at - choices[chosen].from)) { e.preventDefault(); take(chosen); }
  else if (e.key === 'Escape') { $('complete').hidden = true; choices = []; }
  else if (e.key === 'Enter' && !e.shiftKey) { e.preventDefault(); ask(); }
  else if (e.key === ' ' && e.ctrlKey) { e.preventDefault(); complete(); }
});
document.addEventListener('keydown', e => { if (e.key === '/' && !/INPUT|TEXTAREA/.test(document.activeElement.tagName)) { e.preventDefault(); $('query').focus(); } });

// ---- Asking ----
let running = null, last = null;
const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400];
async function ask() {
  state.query = $('query').value.trim();
  remember();
  controls();
  if (!state.query) return show(null);
  if (running) running.abort();
  const mine = running = new AbortController();
  $('complete').hidden = true;
  $('out').classList.add('busy');
  const begun = performance.now();
  const end = state.end || Date.now() / 1000;
  const step = STEPS.find(s => state.range / s <= Math.max(120, $('out').clientWidth / 3)) || 86400;
  const to = state.end ? end : Math.floor(end / step) * step, span = { start: to - Math.floor(state.range / step) * step, end: to, step };
  const [path, form] = {
    graph: ['query_range', { query: state.query, ...span, stats: 'true' }],
    table: ['query', { query: state.query, time: end, stats: 'true' }],
    explain: ['explain', { query: state.query, ...span, analyze: 'true' }],
  }[state.tab];
  try {
    const answer = await api(path, form, { post: true, signal: mine.signal });
    if (mine !== running) return;
    fault = null;
    last = { answer, span, tab: state.tab, took: performance.now() - begun };
    past(state.query);
    show(last);
  } catch (e) {
    if (e.name === 'AbortError' || mine !== running) return;
    last = null;
    failed(e);
  } finally {
    if (mine === running) { running = null; $('out').classList.remove('busy'); paint(); }
  }
}
function failed(e) {
  const note = el('div.note.bad', {}, el('b', {}, { bad_data: 'The query is not right', execution: 'The query could not be carried out', timeout: 'The query took too long', unavailable: 'Not available', internal: 'The server could not answer' }[e.kind] || 'No answer'));
  const place = e.message.match(/(\d+):(\d+): parse error: ([\s\S]*)/);
  if (place) {
    const lines = state.query.split('\n'), line = lines[place[1] - 1] || '', column = Math.max(1, Number(place[2]));
    fault = lines.slice(0, place[1] - 1).reduce((n, l) => n + l.length + 1, 0) + Math.min(column, line.length) - 1;
    note.append(place[3], el('pre', {}, line.slice(0, 400) + '\n' + ' '.repeat(Math.min(column, 400) - 1) + '^'));
  } else note.append(e.message);
  $('notes').replaceChildren(note);
  $('figures').textContent = '';
  $('out').replaceChildren(blank('Nothing to show', 'The query above did not give a result.'));
}
const blank = (title, text) => el('div.empty', {}, el('strong', {}, title), text);

// ---- Showing ----
function show(result) {
  const out = $('out');
  if (!result) { $('notes').replaceChildren(); $('figures').textContent = ''; out.replaceChildren(blank('Ask something', 'Type a metric name; completion knows what is there.')); return; }
  const { answer, tab } = result, { resultType, result: data, stats } = answer.data;
  $('notes').replaceChildren(
    ...(answer.warnings || []).map(w => el('div.note.warn', {}, w)),
    ...(answer.infos || []).map(i => el('div.note.info', {}, i.replace(/^PromQL info: /, ''))));
  if (tab === 'explain') return plan(answer.data);
  const points = resultType === 'matrix' ? data.reduce((n, s) => n + (s.values || []).length + (s.histograms || []).length, 0) : 0;
  $('figures').textContent = [
    resultType === 'scalar' || resultType === 'string' ? resultType : count(data.length, 'series', 'series'), points ? count(points, 'point') : '',
    stats ? count(stats.samples.samplesRead, 'sample') + ' read' : '', result.took < 1000 ? Math.max(1, Math.round(result.took)) + ' ms' : (result.took / 1000).toFixed(2) + ' s',
  ].filter(Boolean).join(' · ');
  if (resultType === 'scalar' || resultType === 'string') out.replaceChildren(el('div.big', {}, resultType === 'scalar' ? data[1] : JSON.stringify(data[1]), el('small', {}, resultType)));
  else if (!data.length) out.replaceChildren(blank('No data', tab === 'graph' ? 'Nothing matched in this range.' : 'Nothing matched at this moment.'));
  else if (tab === 'graph') graph(result, data);
  else table(resultType, data);
}
const series_name = m => (m.__name__ || '') + (Object.keys(m).length > (m.__name__ ? 1 : 0) || !m.__name__ ? '{' + Object.entries(m).filter(([n]) => n !== '__name__').map(([n, v]) => n + '=' + JSON.stringify(v)).join(', ') + '}' : '');
function pretty_name(m) {
  const rest = Object.entries(m).filter(([n]) => n !== '__name__'), out = el('span.mono');
  if (m.__name__) out.append(el('span.name', {}, m.__name__));
  if (rest.length || !m.__name__) {
    out.append(el('span.pun', {}, '{'));
    rest.forEach(([n, v], i) => out.append(i ? el('span.pun', {}, ', ') : '', el('span.ln', {}, n), el('span.pun', {}, '='), el('span.lv', {}, JSON.stringify(v))));
    out.append(el('span.pun', {}, '}'));
  }
  return out;
}

let chart = null;
function graph(result, data) {
  const colors = COLORS[document.documentElement.dataset.theme] || COLORS.light, most = 500;
  const off = result.off = result.off || new Set();
  const all = data.filter(s => s.values).slice(0, most).map((s, i) => ({ name: series_name(s.metric), metric: s.metric, color: colors[i % colors.length], hidden: off.has(i), points: s.values.map(([t, v]) => [t, number(v)]) }));
  const plot = el('div.plot'), legend = el('div.legend');
  $('out').replaceChildren(plot);
  if (!all.length) return $('out').replaceChildren(blank('Histograms only', 'Draw them through histogram_quantile(0.99, …), histogram_avg(…) or rate, or look at the table.'));
  chart = new Chart(plot, (from, to) => {
    if (from === null) { const z = zooms.pop(); if (!z) return; Object.assign(state, z); }
    else { zooms.push({ range: state.range, end: state.end }); Object.assign(state, { range: Math.max(10, Math.round(to - from)), end: Math.round(to) }); }
    ask();
  });
  chart.set({ series: all, ...result.span });
  all.slice(0, 200).forEach((s, i) => {
    const finite = s.points.filter(p => !Number.isNaN(p[1])), now = finite.length ? short(finite[finite.length - 1][1], 6) : '';
    const dot = el('i.dot');
    dot.style.background = s.color;
    const row = el('button', { type: 'button', title: 'Click: only this one. Ctrl or Shift: on or off.' }, dot, pretty_name(s.metric), el('em', {}, now));
    row.classList.toggle('off', s.hidden);
    row.onclick = e => {
      const alone = all.every((o, n) => off.has(n) === (n !== i));
      if (e.ctrlKey || e.metaKey || e.shiftKey) off.has(i) ? off.delete(i) : off.add(i);
      else { off.clear(); if (!alone && all.length > 1) all.forEach((_, n) => n !== i && off.add(n)); }
      all.forEach((o, n) => { o.hidden = off.has(n); if (legend.children[n]) legend.children[n].classList.toggle('off', o.hidden); });
      chart.draw();
    };
    legend.append(row);
  });
  $('out').append(legend);
  const hidden = [];
  if (data.length > most) hidden.push('Only the first ' + most + ' of ' + count(data.length, 'series', 'series') + ' are drawn.');
  else if (all.length > 200) hidden.push('The legend names the first 200 of ' + count(all.length, 'series', 'series') + '.');
  const native = data.filter(s => s.histograms).length;
  if (native) hidden.push(count(native, 'series', 'series') + ' with native histograms: see the table, or draw a histogram_quantile.');
  if (hidden.length) $('out').append(el('div.more', {}, hidden.join(' ')));
}

function histogram(h) {
  const buckets = h.buckets || [], top = Math.max(...buckets.map(b => number(b[3])), 0);
  const out = el('span', {}, 'count ' + h.count + ' · sum ' + h.sum);
  if (!top) return out;
  const NS = 'http://www.w3.org/2000/svg', svg = document.createElementNS(NS, 'svg'), w = Math.min(9, 320 / buckets.length);
  svg.setAttribute('width', w * buckets.length);
  svg.setAttribute('height', 44);
  buckets.forEach((b, i) => {
    const r = document.createElementNS(NS, 'rect'), height = Math.max(1, number(b[3]) / top * 44), title = document.createElementNS(NS, 'title');
    for (const [k, v] of Object.entries({ x: i * w, y: 44 - height, width: Math.max(1, w - 1), height })) r.setAttribute(k, v);
    title.textContent = ['(', '[', '(', '['][b[0]] + short(number(b[1])) + ', ' + short(number(b[2])) + [']', ')', ')', ']'][b[0]] + ' → ' + b[3];
    r.append(title);
    svg.append(r);
  });
  out.append(el('div.hist', {}, svg));
  return out;
}
function table(type, data, most = 1000) {
  const rows = data.slice(0, most).map(s => {
    let value;
    if (type === 'vector') value = s.histogram ? histogram(s.histogram[1]) : s.value[1];
    else value = el('pre', {}, [...(s.values || []).map(([t, v]) => day(t) + ' ' + clock(t, true) + '  ' + v), ...(s.histograms || []).map(([t, h]) => day(t) + ' ' + clock(t, true) + '  count ' + h.count + ' sum ' + h.sum)].slice(-500).join('\n'));
    return el('tr', {}, el('td', {}, pretty_name(s.metric)), el('td.v.mono', {}, value));
  });
  const head = el('tr', {}, el('th', {}, 'Series'), el('th.v', {}, type === 'matrix' ? 'Samples' : 'Value'));
  $('out').replaceChildren(el('div.scroll', {}, el('table', {}, el('thead', {}, head), el('tbody', {}, ...rows))));
  if (data.length > most) $('out').append(el('div.more', {}, 'The first ' + most + ' of ' + count(data.length, 'series', 'series') + '. ', el('button', { onclick: () => table(type, data, Infinity) }, 'Show all')));
}

const size = n => n < 1024 ? n + ' B' : n < 1048576 ? (n / 1024).toFixed(1) + ' KiB' : (n / 1048576).toFixed(1) + ' MiB';
const spent = s => s < 1e-3 ? Math.round(s * 1e6) + ' µs' : s < 1 ? (s * 1e3).toFixed(1) + ' ms' : s.toFixed(2) + ' s';
/** What the selector of a node reads, in words. */
function reads(n) {
  const words = [];
  if (n.window && n.window.step) words.push('every ' + n.window.step + ' s over ' + n.window.range + ' s');
  if (n.selector && n.selector.reads) words.push('reads ' + day(n.selector.reads.start) + ' ' + clock(n.selector.reads.start, true) + ' to ' + day(n.selector.reads.end) + ' ' + clock(n.selector.reads.end, true));
  if (n.selector && n.selector.shared) words.push(n.analysis.reused ? 'already read by another' : 'read once for several');
  if (n.stepInvariant && n.kind !== 'numberLiteral' && n.kind !== 'stringLiteral') words.push('once for all steps');
  return words.join(' · ');
}
function plan(data) {
  const rows = [], todo = [[data.plan, 0]], whole = data.plan.analysis.totalTime || 1;
  // In a loop: a chain of operators is as deep as it is long.
  while (todo.length && rows.length < 2000) {
    const [n, depth] = todo.pop(), a = n.analysis, what = el('td', {}, el('span.mono', {}, n.text), el('small', {}, [n.kind, reads(n)].filter(Boolean).join(' · ')));
    what.style.paddingLeft = 18 + 22 * Math.min(depth, 20) + 'px';
    const share = el('td.v', {}, spent(a.selfTime), el('small', {}, Math.round(100 * a.selfTime / whole) + ' %'));
    rows.push(el('tr', {}, what, el('td.v', {}, a.series.toLocaleString('en')), el('td.v', {}, a.samplesRead.toLocaleString('en')), el('td.v', {}, size(a.bytes), el('small', {}, 'peak ' + size(a.peakBytes))), share, el('td.v', {}, spent(a.totalTime))));
    todo.push(...n.children.map(c => [c, depth + 1]).reverse());
  }
  const head = el('tr', {}, el('th', {}, 'Part'), ...['Series', 'Samples read', 'Bytes', 'Self', 'Total'].map(t => el('th.v', {}, t)));
  $('figures').textContent = [count(data.plan.steps, 'step'), count(data.plan.analysis.totalSamplesRead, 'sample') + ' read', spent(data.stats.timings.execTotalTime)].join(' · ');
  $('out').replaceChildren(el('div.scroll', {}, el('table.plan', {}, el('thead', {}, head), el('tbody', {}, ...rows))));
}

// ---- Controls ----
const local = t => { const d = new Date(t * 1000); return day(t) + 'T' + two(d.getHours()) + ':' + two(d.getMinutes()) + ':' + two(d.getSeconds()); };
function controls() {
  for (const b of document.querySelectorAll('[data-tab]')) { b.classList.toggle('on', b.dataset.tab === state.tab); b.setAttribute('aria-selected', b.dataset.tab === state.tab); }
  for (const b of $('ranges').children) b.classList.toggle('on', Number(b.dataset.range) === state.range);
  $('ranges').hidden = state.tab === 'table';
  $('when').value = state.end ? local(state.end) : '';
  $('when').classList.toggle('set', !!state.end);
  $('when').hidden = !state.end;
  $('now').textContent = state.end ? 'now' : 'until now';
  $('now').title = state.end ? 'Back to now' : 'Choose another end';
}
for (const [name, range] of RANGES) $('ranges').append(el('button', { type: 'button', textContent: name, onclick: () => { state.range = range; zooms.length = 0; ask(); } }));
[...$('ranges').children].forEach((b, i) => { b.dataset.range = RANGES[i][1]; });
for (const b of document.querySelectorAll('[data-tab]')) b.onclick = () => { state.tab = b.dataset.tab; ask(); };
const shift = by => { state.end = Math.round((state.end || Date.now() / 1000) + by * (state.tab === 'table' ? 60 : state.range / 2)); if (state.end > Date.now() / 1000) state.end = null; ask(); };
$('back').onclick = () => shift(-1);
$('forth').onclick = () => shift(1);
$('now').onclick = () => { state.end = state.end ? null : Math.round(Date.now() / 1000); ask(); };
$('when').onchange = () => { const t = new Date($('when').value).getTime() / 1000; state.end = Number.isFinite(t) ? Math.round(t) : null; ask(); };
addEventListener('resize', paint);
$('form').onsubmit = e => { e.preventDefault(); ask(); };
setInterval(() => { if ($('live').checked && !state.end && !running && !document.hidden) ask(); }, 5000);

// ---- What is there, and how to bring more ----
function past(query) {
  const all = [query, ...JSON.parse(store.get('past') || '[]').filter(q => q !== query)].slice(0, 12);
  store.set('past', JSON.stringify(all));
}
function starters() {
  const has = n => names.includes(n);
  const ideas = [
    has('node_cpu_seconds_total') && 'sum by (mode) (rate(node_cpu_seconds_total[5m]))',
    has('prometheus_tsdb_head_samples_appended_total') && 'rate(prometheus_tsdb_head_samples_appended_total[1m])',
    names.some(n => /^hearth_tsdb_head_.*_bytes$/.test(n)) && '{__name__=~"hearth_tsdb_head_.*_bytes"}',
    has('hearth_tsdb_log_written_bytes_total') && 'rate(hearth_tsdb_log_written_bytes_total[1m])',
    has('hearth_http_request_duration_seconds_bucket') && 'histogram_quantile(0.99, sum by (le) (rate(hearth_http_request_duration_seconds_bucket[1m])))',
    has('process_resident_memory_bytes') && 'process_resident_memory_bytes',
    has('up') && 'up',
    names.length && 'topk(10, count by (__name__) ({__name__!=""}))',
  ].filter(Boolean);
  const known = JSON.parse(store.get('past') || '[]');
  const all = [...new Set([...known.slice(0, 4), ...ideas])].slice(0, 7);
  $('starters').replaceChildren(...all.map(q => el('button', { type: 'button', title: q, onclick: () => { $('query').value = q; fault = null; if (q.startsWith('topk(10, count by')) state.tab = 'table'; paint(); ask(); } }, q)));
  return ideas[0];
}
function snippet(step, title, text) {
  const button = el('button', { type: 'button', onclick: async () => {
    try { await navigator.clipboard.writeText(text); button.textContent = 'copied'; } catch { getSelection().selectAllChildren(pre); button.textContent = 'selected'; }
    setTimeout(() => { button.textContent = 'copy'; }, 1500);
  } }, 'copy'), pre = el('pre', {}, text);
  return el('div.snip', {}, el('h3', {}, el('i', {}, step), title, button), pre);
}
function connect(lonely) {
  const base = new URL('.', document.baseURI).href.replace(/[?#].*$/, '').replace(/\/$/, '');
  $('connect').replaceChildren(
    el('h2', {}, lonely ? 'Hearth is up. Bring it some metrics.' : 'Connect'),
    el('p', {}, lonely ? 'So far it holds only what it tells about itself, which is what you see below.' : 'Everything that speaks Prometheus speaks Hearth.'),
    el('div.cols', {},
      snippet('1', 'Prometheus sends', '# prometheus.yml\nremote_write:\n  - url: ' + base + '/api/v1/write'),
      snippet('2', 'Grafana shows', '# a data source of type Prometheus\nurl: ' + base),
      snippet('3', 'Anything asks', "curl '" + base + "/api/v1/query' \\\n  --data-urlencode 'query=up'")));
}
function toggle(open) { $('connect').hidden = !open; $('connect-toggle').setAttribute('aria-expanded', open); }
$('connect-toggle').onclick = () => toggle($('connect').hidden);

async function begin() {
  theme();
  $('query').value = state.query;
  paint();
  controls();
  connect(false);
  if (state.query) ask(); else show(null);
  const soft = p => p.then(a => a.data).catch(() => null);
  const [all, others, head, build, meta] = await Promise.all([
    soft(api('label/__name__/values', { limit: 40000 })), soft(api('series', { 'match[]': '{__name__!="",job!="hearth"}', limit: 1 })),
    soft(api('status/tsdb', { limit: 1 })), soft(api('status/buildinfo')), soft(api('metadata', { limit: 40000, limit_per_metric: 1 })),
  ]);
  names = all || [];
  for (const [name, [m]] of Object.entries(meta || {})) if (m) help[name] = m.type + (m.help ? ' · ' + m.help : '');
  const version = build && /hearth-(\S+)/.exec(build.revision);
  $('vitals').replaceChildren(...(version ? [version[1]] : []), ...(head ? [' · ', el('b', {}, head.headStats.numSeries.toLocaleString('en')), ' active series'] : []), ...(names.length ? [' · ', el('b', {}, names.length.toLocaleString('en')), ' metrics'] : []));
  const idea = starters();
  if (others && !others.length) { connect(true); toggle(true); }
  // A store that is minutes old fills a range of minutes.
  const young = head && head.headStats.numSeries > 0 && Date.now() - head.headStats.minTime < 900e3;
  if (young && !asked.has('range') && !state.query) { state.range = 300; $('live').checked = true; }
  if (!state.query && idea && document.activeElement !== $('query')) { $('query').value = idea; paint(); ask(); }
  if (!matchMedia('(pointer: coarse)').matches) $('query').focus();
}
begin();
