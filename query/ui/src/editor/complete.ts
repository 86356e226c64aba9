/** Completion: where the cursor stands, what can stand there, narrowed by all that is written around it. */
import type { Completion, CompletionContext, CompletionResult } from '@codemirror/autocomplete';
import { syntaxTree } from '@codemirror/language';
import type { EditorState } from '@codemirror/state';
import type { SyntaxNode } from '@lezer/common';
import type { Metadata } from '../api';
import { selectorOf } from '../selector';
import { KEYWORDS, TERMS } from './functions';
import { Source } from './source';

const whole = /^\s*(?:[\w:.]+|"(?:[^"\\]|\\.)*")\s*(?:=~|!~|!=|=)\s*(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|`[^`]*`)\s*$|^\s*"(?:[^"\\]|\\.)*"\s*$/;
function selectorText(state: EditorState, node: SyntaxNode, pos: number): string {
  const name = node.getChild('Identifier'), list = node.getChild('LabelMatchers'), inside: string[] = [];
  for (let m = list?.firstChild ?? null; m; m = m.nextSibling) {
    const text = state.sliceDoc(m.from, m.to);
    // What is being typed does not narrow itself.
    if (!(m.from < pos && pos <= m.to) && whole.test(text)) inside.push(text);
  }
  const prefix = name && !(name.from < pos && pos <= name.to) ? state.sliceDoc(name.from, name.to) : '';
  return prefix || inside.length ? prefix + (inside.length ? `{${inside.join(',')}}` : '') : '';
}
function up(node: SyntaxNode | null, ...names: string[]): SyntaxNode | null {
  for (let n = node; n; n = n.parent) if (names.includes(n.name)) return n;
  return null;
}
/** Selectors that say what can stand at a place: the one it is in, or those under the aggregation or the operator. */
export function selectorsAround(state: EditorState, pos: number): string[] {
  const at = syntaxTree(state).resolveInner(pos, -1);
  const own = up(at, 'VectorSelector');
  if (own) return [selectorText(state, own, pos)].filter(Boolean);
  const around = up(at, 'AggregateExpr') ?? up(at, 'BinaryExpr'), out: string[] = [];
  around?.cursor().iterate(n => { if (n.name === 'VectorSelector') { const text = selectorText(state, n.node, -1); if (text) out.push(text); } });
  return [...new Set(out)].slice(0, 8);
}

export type Where =
  | { kind: 'value'; label: string; quote: string; from: number }
  | { kind: 'label'; from: number; inBraces: boolean }
  | { kind: 'duration'; from: number; typed: string }
  | { kind: 'at'; from: number }
  | { kind: 'open'; from: number; word: string }
  | null;

/** The text before the cursor decides: it is read once from its beginning, strings and comments skipped. */
export function where(head: string): Where {
  const open: { c: string; at: number }[] = [];
  for (let i = 0; i < head.length; i++) {
    const c = head[i];
    if (c === '#') { const end = head.indexOf('\n', i); if (end < 0) return null; i = end; continue; }
    if (c === '"' || c === "'" || c === '`') {
      let j = i + 1;
      while (j < head.length && head[j] !== c) j += head[j] === '\\' && c !== '`' ? 2 : 1;
      if (j >= head.length) {
        const m = /(?:"((?:[^"\\]|\\.)*)"|([\w:.]+))\s*(=~|!~|!=|=)\s*$/.exec(head.slice(0, i));
        return open.length && open[open.length - 1].c === '{' && m ? { kind: 'value', label: m[1] ?? m[2], quote: c, from: i + 1 } : null;
      }
      i = j;
      continue;
    }
    if (c === '(' || c === '[' || c === '{') open.push({ c, at: i });
    else if (c === ')' || c === ']' || c === '}') open.pop();
  }
  const word = /[a-zA-Z_:][\w:.]*$/.exec(head)?.[0] ?? '', from = head.length - word.length, last = open[open.length - 1];
  if (last?.c === '{') return /(=~|!~|!=|=)\s*$/.test(head) ? null : { kind: 'label', from, inBraces: true };
  if (last?.c === '[' || /\boffset\s+-?[\d\w]*$/.test(head)) { const typed = /[\d.]*[a-z\d]*$/.exec(head)![0]; return { kind: 'duration', from: head.length - typed.length, typed }; }
  if (/@\s*[a-z]*$/.test(head)) return { kind: 'at', from };
  if (last?.c === '(' && /\b(by|without|on|ignoring|group_left|group_right)\s*$/i.test(head.slice(0, last.at))) return { kind: 'label', from, inBraces: false };
  if (/\d[\w.]*$/.test(head) && !word) return null;
  return { kind: 'open', from, word };
}

const PARTS = /_(bucket|count|sum|total|created|info)$/;
export function completion(source: Source) {
  return async (context: CompletionContext): Promise<CompletionResult | null> => {
    const { state, pos } = context, at = where(state.sliceDoc(0, pos)), after = state.sliceDoc(pos, pos + 40);
    if (!at) return null;
    source.around = selectorsAround(state, pos);
    switch (at.kind) {
      case 'value': {
        const all = await source.labelValues(at.label), escape = (v: string) => at.quote === '`' ? v : v.replace(/[\\\n]|["']/g, c => c === '\n' ? '\\n' : c === '\\' || c === at.quote ? '\\' + c : c);
        // Nothing between the quotes may be left behind the cursor.
        const rest = /^[^"'`\n]*/.exec(state.sliceDoc(pos))![0], to = state.sliceDoc(pos + rest.length, pos + rest.length + 1) === at.quote ? pos + rest.length : pos;
        return { from: at.from, to, options: all.map(v => ({ label: v.slice(0, 400), apply: escape(v), type: 'text' })), validFor: /^[^"'`]*$/ };
      }
      case 'label': {
        const all = await source.labelNames(), put = at.inBraces && !/^\s*[=!]/.test(after);
        return { from: at.from, validFor: /^[\w:.]*$/, options: all.map(n => {
          const name = /^[a-zA-Z_][\w]*$/.test(n) ? n : JSON.stringify(n);
          return { label: n, type: 'property', apply: put ? (view, _c, from, to) => { view.dispatch({ changes: { from, to, insert: name + '=""' }, selection: { anchor: from + name.length + 2 }, userEvent: 'input.complete' }); source.chosen(); } : name } satisfies Completion;
        }) };
      }
      case 'duration': {
        const digits = /^[\d.]+/.exec(at.typed)?.[0];
        const all = digits ? ['s', 'm', 'h', 'd', 'w', 'y', 'ms'].map(u => digits + u) : context.explicit || /\[$/.test(state.sliceDoc(0, pos)) ? ['5m', '1m', '15m', '30m', '1h', '6h', '1d', '1w'] : [];
        return all.length ? { from: at.from, options: all.map((label, i) => ({ label, boost: -i })), filter: !!digits } : null;
      }
      case 'at': return { from: at.from, options: [{ label: 'start()', detail: 'start of the query' }, { label: 'end()', detail: 'end of the query' }] };
      case 'open': return await open(context, source, at.from, at.word, after);
    }
  };
}

async function open(context: CompletionContext, source: Source, from: number, word: string, after: string): Promise<CompletionResult | null> {
  if (!word && !context.explicit) return null;
  source.around = [];
  const [names, meta] = await Promise.all([source.metricNames(word), source.metricMetadata()]);
  const of = (n: string): Metadata | undefined => meta[n]?.[0] ?? meta[n.replace(PARTS, '')]?.[0];
  const metrics = names.map((n): Completion => {
    const m = of(n);
    return { label: n, type: 'constant', apply: selectorOf(n), detail: m ? m.type : undefined, info: m?.help ? m.help.slice(0, 2000) : undefined };
  });
  const terms = TERMS.map((t): Completion => ({
    label: t.name, type: 'function', detail: t.aggregation ? 'aggregation' : 'function', info: `${t.call}\n${t.help}`, boost: t.name.startsWith(word) ? 3 : -2,
    apply: (view, _c, a, b) => { const put = after.startsWith('('); view.dispatch({ changes: { from: a, to: b, insert: t.name + (put ? '' : '()') }, selection: { anchor: a + t.name.length + 1 }, userEvent: 'input.complete' }); },
  }));
  const before = context.state.sliceDoc(0, from).trimEnd(), between = /[)\]}\w"]$/.test(before) && !/\b(and|or|unless|bool|atan2)$/i.test(before);
  const words = KEYWORDS.map(([label, info]): Completion => ({ label, info, type: 'keyword', detail: 'keyword', boost: between ? 20 : -10 }));
  const options = between ? [...words] : [...terms, ...metrics, ...words];
  // A list cut to what fits the word has to be asked for again with every letter.
  return { from, options, validFor: source.narrowed ? undefined : /^[\w:.]*$/ };
}
