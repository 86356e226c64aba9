/** A button that opens something below it; Escape, a click elsewhere and leaving it with Tab close it. */
import type { ComponentChildren } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';

export function Menu({ label, icon, title, children, text }: { label: string; icon: string; title: string; text?: boolean; children(close: () => void): ComponentChildren }) {
  const [open, setOpen] = useState(false), root = useRef<HTMLDivElement>(null), button = useRef<HTMLButtonElement>(null);
  const close = () => { setOpen(false); button.current?.focus(); };
  useEffect(() => {
    if (!open) return;
    const click = (e: Event) => { if (!root.current?.contains(e.target as Node)) setOpen(false); };
    document.addEventListener('pointerdown', click);
    root.current?.querySelector<HTMLElement>('.menu input, .menu button')?.focus();
    return () => document.removeEventListener('pointerdown', click);
  }, [open]);
  const key = (e: KeyboardEvent) => {
    if (e.key === 'Escape' && open) { e.stopPropagation(); close(); return; }
    const by = { ArrowDown: 1, ArrowUp: -1 }[e.key];
    if (!by || !open) return;
    e.preventDefault();
    const all = [...root.current!.querySelectorAll<HTMLElement>('.menu input, .menu button, .menu a')], at = all.indexOf(document.activeElement as HTMLElement);
    all[(at + by + all.length) % all.length]?.focus();
  };
  return <div class="menu-root" ref={root} onKeyDown={key} onFocusOut={e => { if (open && e.relatedTarget && !root.current?.contains(e.relatedTarget as Node)) setOpen(false); }}>
    <button type="button" ref={button} class={'quiet' + (text ? '' : ' icon')} aria-label={text ? undefined : label} title={title} aria-haspopup="true" aria-expanded={open} onClick={() => setOpen(!open)}>{icon}</button>
    {open && <div class="menu">{children(close)}</div>}
  </div>;
}
