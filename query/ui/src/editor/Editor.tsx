/** The query box as the page uses it: a plain one at once, the real one as soon as it has arrived. */
import { useEffect, useRef, useState } from 'preact/hooks';
import type { Editor as Real } from './codemirror';
import type { Checked } from './source';

export interface Props {
  value: string;
  onChange(text: string): void;
  onRun(): void;
  onCancel(): void;
  onPick(): void;
  check(text: string, signal: AbortSignal): Promise<Checked>;
  span(): { start: number; end: number };
  handle(editor: Real | null): void;
  autofocus: boolean;
}
const HINT = 'Ask in PromQL, for example  rate(http_requests_total[5m])';

export function Editor(p: Props) {
  const host = useRef<HTMLDivElement>(null), plain = useRef<HTMLTextAreaElement>(null);
  const [real, setReal] = useState<Real | null>(null);
  const now = useRef(p);
  now.current = p;
  useEffect(() => {
    let gone = false, made: Real | null = null;
    void import('./codemirror').then(({ create }) => {
      if (gone || !host.current) return;
      const root = host.current.shadowRoot ?? host.current.attachShadow({ mode: 'open' });
      root.replaceChildren(document.createElement('div'));
      const focused = document.activeElement === plain.current;
      made = create({
        root, value: now.current.value, placeholder: HINT,
        changed: t => now.current.onChange(t), run: () => now.current.onRun(), cancel: () => now.current.onCancel(), pick: () => now.current.onPick(),
        check: (t, s) => now.current.check(t, s), span: () => now.current.span(),
      });
      setReal(made);
      now.current.handle(made);
      if (focused || now.current.autofocus && !matchMedia('(pointer: coarse)').matches && document.activeElement === document.body) made.focus();
    }).catch(() => { /* the plain box stays and works */ });
    return () => { gone = true; made?.destroy(); now.current.handle(null); };
  }, []);
  // What is typed stays the box's own: a value handed back late would undo the letters since. `handle` sets another text.
  return <div class="box" onClick={e => { if (e.target === host.current) real?.focus(); }}>
    <div ref={host} class="editor" hidden={!real} />
    {!real && <textarea ref={plain} rows={Math.max(1, p.value.split('\n').length)} spellcheck={false} aria-label="PromQL query" placeholder={HINT} value={p.value}
      onInput={e => p.onChange(e.currentTarget.value)} onKeyDown={e => { if (e.key === 'Enter' && !e.shiftKey) { e.preventDefault(); p.onRun(); } }} />}
  </div>;
}
