/** The query box: CodeMirror with Prometheus' own grammar, in a shadow root so that its styles need no leave from the content security policy. */
import { acceptCompletion, autocompletion, closeBrackets, closeBracketsKeymap, closeCompletion, completionKeymap, completionStatus, startCompletion } from '@codemirror/autocomplete';
import { history, historyKeymap } from '@codemirror/commands';
import { bracketMatching, HighlightStyle, LRLanguage, syntaxHighlighting, syntaxTree } from '@codemirror/language';
import { EditorSelection, EditorState, Prec, StateEffect, StateField } from '@codemirror/state';
import { Decoration, EditorView, drawSelection, hoverTooltip, keymap, placeholder, type DecorationSet } from '@codemirror/view';
import { tags } from '@lezer/highlight';
import { parser } from '@prometheus-io/lezer-promql';
import { completion } from './complete';
import { TERM } from './functions';
import { metadataOf, Source, type Checked, type Wrong } from './source';

export interface EditorOptions {
  root: ShadowRoot;
  value: string;
  placeholder: string;
  changed(text: string): void;
  run(): void;
  cancel(): void;
  /** Asks for a list of metrics to choose from. */
  pick(): void;
  /** Looks a text over; the result also goes to whoever gave this. */
  check(text: string, signal: AbortSignal): Promise<Checked>;
  span(): { start: number; end: number };
}
export interface Editor {
  set(text: string): void;
  focus(): void;
  mark(wrong: Wrong | null): void;
  /** Shows a stretch of the text. */
  point(from: number, to: number): void;
  insert(text: string): void;
  destroy(): void;
}

const v = (name: string) => `var(--${name})`;
const style = HighlightStyle.define([
  { tag: tags.comment, color: v('soft'), fontStyle: 'italic' },
  { tag: [tags.string], color: v('t-str') },
  { tag: [tags.number, tags.bool], color: v('t-num') },
  { tag: [tags.function(tags.variableName)], color: v('t-fn') },
  { tag: [tags.keyword, tags.operatorKeyword, tags.modifier, tags.controlKeyword], color: v('t-kw') },
  { tag: [tags.variableName, tags.name], color: v('ink'), fontWeight: '600' },
  { tag: tags.labelName, color: v('t-label'), fontWeight: '400' },
  { tag: [tags.operator, tags.arithmeticOperator, tags.compareOperator], color: v('soft') },
  { tag: tags.invalid, color: v('bad') },
]);
const MONO = 'ui-monospace, "SF Mono", "JetBrains Mono", "Cascadia Code", Menlo, Consolas, "DejaVu Sans Mono", monospace';
const look = EditorView.theme({
  '&': { color: v('ink'), fontSize: '15px', backgroundColor: 'transparent' },
  '&.cm-focused': { outline: 'none' },
  '.cm-scroller': { fontFamily: MONO, lineHeight: '22px', maxHeight: '40vh' },
  '.cm-content': { padding: '11px 0', caretColor: v('ink') },
  '.cm-line': { padding: '0 14px' },
  '.cm-placeholder': { color: v('soft') },
  '.cm-cursor': { borderLeftColor: v('ink') },
  '&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground, .cm-selectionBackground': { backgroundColor: v('select') },
  '&.cm-focused .cm-matchingBracket': { backgroundColor: v('select'), outline: 'none' },
  '.cm-pointed': { backgroundColor: v('select'), borderRadius: '3px' },
  '.cm-wrong': { textDecoration: 'underline wavy ' + v('bad'), textUnderlineOffset: '3px' },
  '.cm-tooltip': { backgroundColor: v('card'), color: v('ink'), border: '1px solid ' + v('line'), borderRadius: '10px', boxShadow: '0 12px 40px rgba(0,0,0,.18)', overflow: 'hidden' },
  '.cm-tooltip.cm-tooltip-autocomplete > ul': { fontFamily: MONO, fontSize: '13.5px', maxHeight: '320px', minWidth: 'min(340px, 80vw)', maxWidth: 'min(640px, 90vw)', padding: '4px' },
  '.cm-tooltip.cm-tooltip-autocomplete > ul > li': { padding: '3px 10px', borderRadius: '6px', lineHeight: '22px', overflow: 'hidden', textOverflow: 'ellipsis' },
  '.cm-tooltip-autocomplete ul li[aria-selected]': { backgroundColor: v('accent-wash'), color: v('ink') },
  '.cm-completionMatchedText': { textDecoration: 'none', color: v('accent-text'), fontWeight: '650' },
  '.cm-completionDetail': { fontStyle: 'normal', fontSize: '12px', color: v('soft'), marginLeft: '12px', fontFamily: 'system-ui, sans-serif' },
  '.cm-completionIcon': { display: 'none' },
  '.cm-tooltip.cm-completionInfo': { padding: '8px 12px', maxWidth: '380px', fontSize: '13px', lineHeight: '1.45', fontFamily: 'system-ui, sans-serif', overflowWrap: 'anywhere', maxHeight: '320px', overflow: 'auto' },
  '.hover': { padding: '8px 12px', maxWidth: '460px', fontSize: '13px', lineHeight: '1.45', fontFamily: 'system-ui, sans-serif', overflowWrap: 'anywhere', maxHeight: '280px', overflow: 'auto' },
  '.hover b': { fontFamily: MONO, fontWeight: '650' },
  '.hover i': { fontStyle: 'normal', color: v('soft'), marginLeft: '8px' },
  '.hover p': { margin: '4px 0 0' },
  '@media (prefers-reduced-motion: no-preference)': {},
});

const point = StateEffect.define<{ from: number; to: number } | null>();
const pointed = StateField.define<DecorationSet>({
  create: () => Decoration.none,
  update(held, tr) {
    if (tr.docChanged) held = Decoration.none;
    for (const e of tr.effects) if (e.is(point)) held = e.value ? Decoration.set([Decoration.mark({ class: 'cm-pointed' }).range(e.value.from, e.value.to)]) : Decoration.none;
    return held;
  },
  provide: f => EditorView.decorations.from(f),
});

/** What the server's parser does not like, under a wave; it stays until the text has changed and was looked over again. */
const wrong = StateEffect.define<Wrong | null>();
const underlined = StateField.define<DecorationSet>({
  create: () => Decoration.none,
  update(held, tr) {
    held = held.map(tr.changes);
    for (const e of tr.effects) if (e.is(wrong)) {
      const end = tr.newDoc.length, w = e.value;
      held = w && end ? Decoration.set([Decoration.mark({ class: 'cm-wrong', attributes: { title: w.text.slice(0, 1000) } }).range(Math.min(w.from, end - 1), Math.max(Math.min(w.to, end), Math.min(w.from, end - 1) + 1))]) : Decoration.none;
    }
    return held;
  },
  provide: f => EditorView.decorations.from(f),
});

const help = hoverTooltip(async (view, pos, side) => {
  const node = syntaxTree(view.state).resolveInner(pos, side), text = view.state.sliceDoc(node.from, node.to);
  if (!text || text.length > 300 || !/^[\w:.]+$/.test(text)) return null;
  const term = TERM.get(text), metric = node.name === 'Identifier' ? await metadataOf(text) : null;
  if (!term && !metric) return null;
  return {
    pos: node.from, end: node.to, above: false,
    create() {
      const dom = document.createElement('div'), title = document.createElement('b'), kind = document.createElement('i'), body = document.createElement('p');
      dom.className = 'hover';
      title.textContent = term && !metric ? term.call : text;
      kind.textContent = metric ? metric.type + (metric.unit ? ', ' + metric.unit : '') : term!.aggregation ? 'aggregation' : 'function';
      body.textContent = metric ? metric.help || 'No help text came with it.' : term!.help;
      dom.append(title, kind, body);
      return { dom };
    },
  };
}, { hoverTime: 350 });

/** Letters go into the text before the browser touches the document: where styled text was selected or has just been removed, Chromium would wrap
 *  them in elements with inline styles, each a report of the content security policy. Compositions stay the browser's. */
const typing = EditorView.domEventHandlers({
  beforeinput(e, view) {
    if (e.inputType !== 'insertText' || !e.data || view.composing || e.isComposing) return false;
    const { from, to } = view.state.selection.main, text = e.data;
    const insert = () => view.state.update({ changes: { from, to, insert: text }, selection: { anchor: from + text.length }, userEvent: 'input.type', scrollIntoView: true });
    e.preventDefault();
    if (!view.state.facet(EditorView.inputHandler).some(handle => handle(view, from, to, text, insert))) view.dispatch(insert());
    return true;
  },
});

export function create(o: EditorOptions): Editor {
  const source = new Source(o.span);
  // A label that was chosen opens its quotes, and with them the list of its values.
  source.chosen = () => setTimeout(() => startCompletion(view), 30);
  const language = LRLanguage.define({ parser });
  // Not as the language's own data, which is asked of the syntax tree: what is offered depends on the text alone.
  const data = [{ closeBrackets: { brackets: ['(', '[', '{', '"', "'", '`'] }, commentTokens: { line: '#' }, autocomplete: completion(source) }];
  let asked: AbortController | null = null, soon: ReturnType<typeof setTimeout> | undefined;
  const lookOver = () => {
    clearTimeout(soon);
    soon = setTimeout(async () => {
      asked?.abort();
      asked = new AbortController();
      const text = view.state.doc.toString();
      const found = await o.check(text, asked.signal).catch(() => null);
      if (found && view.state.doc.toString() === text) view.dispatch({ effects: wrong.of(found.wrong) });
    }, 300);
  };
  const view = new EditorView({
    root: o.root,
    parent: o.root.querySelector('div')!,
    state: EditorState.create({
      doc: o.value,
      extensions: [
        Prec.highest(keymap.of([
          { key: 'Enter', run: v => completionStatus(v.state) === 'active' ? acceptCompletion(v) : (o.run(), true), shift: v => (v.dispatch(v.state.replaceSelection('\n'), { scrollIntoView: true }), true) },
          { key: 'Tab', run: v => completionStatus(v.state) === 'active' && acceptCompletion(v) },
          { key: 'Mod-Enter', run: () => (o.run(), true) },
          { key: 'Alt-m', run: () => (o.pick(), true), preventDefault: true },
          { key: 'Escape', run: v => closeCompletion(v) || (o.cancel(), false) },
        ])),
        language, EditorState.languageData.of(() => data), history(), drawSelection(), bracketMatching(), closeBrackets(), pointed, underlined, help, look,
        syntaxHighlighting(style),
        autocompletion({ icons: false, maxRenderedOptions: 80, activateOnTypingDelay: 80, defaultKeymap: true, interactionDelay: 20 }),
        keymap.of([...closeBracketsKeymap, ...completionKeymap, ...historyKeymap]),
        EditorView.lineWrapping, placeholder(o.placeholder),
        EditorView.contentAttributes.of({ tabindex: '0', 'aria-label': 'PromQL query', spellcheck: 'false', autocapitalize: 'off', autocorrect: 'off', enterkeyhint: 'go' }),
        typing,
        EditorView.updateListener.of(u => { if (u.docChanged) { o.changed(u.state.doc.toString()); lookOver(); } }),
      ],
    }),
  });
  // A list that scrolls can be reached and scrolled with keys: its options are walked with the arrows, the rest of it is not. Every list that comes
  // is a new element.
  const lists = new MutationObserver(() => o.root.querySelectorAll('.cm-tooltip-autocomplete > ul:not([tabindex])').forEach(list => list.setAttribute('tabindex', '0')));
  lists.observe(o.root, { childList: true, subtree: true });
  return {
    set(text) {
      if (text !== view.state.doc.toString()) view.dispatch({ changes: { from: 0, to: view.state.doc.length, insert: text }, selection: EditorSelection.cursor(text.length) });
    },
    focus: () => view.focus(),
    mark(at) { view.dispatch({ effects: wrong.of(at) }); },
    point(from, to) {
      const end = view.state.doc.length;
      view.dispatch({ effects: [point.of({ from: Math.min(from, end), to: Math.min(to, end) }), EditorView.scrollIntoView(Math.min(from, end), { y: 'center' })] });
    },
    insert(text) { view.dispatch(view.state.replaceSelection(text)); view.focus(); },
    destroy() { clearTimeout(soon); asked?.abort(); lists.disconnect(); view.destroy(); },
  };
}
