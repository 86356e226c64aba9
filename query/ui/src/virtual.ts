/** The rows in sight of a list of any length, all of the same height. */
import { useLayoutEffect, useState } from 'preact/hooks';

/** `of` is what the list is a list of: where that changes, it begins at its top again. */
export function useRows(total: number, height: number, of = '') {
  const [element, root] = useState<HTMLElement | null>(null), [view, setView] = useState({ top: 0, height: 800 });
  useLayoutEffect(() => {
    if (!element) return;
    const look = () => setView({ top: element.scrollTop, height: element.clientHeight });
    look();
    element.addEventListener('scroll', look, { passive: true });
    const sized = new ResizeObserver(look);
    sized.observe(element);
    return () => { element.removeEventListener('scroll', look); sized.disconnect(); };
  }, [element]);
  // Together with the rows: a moment later somebody may have scrolled them already.
  useLayoutEffect(() => { element?.scrollTo(0, 0); setView(v => v.top ? { ...v, top: 0 } : v); }, [of]);
  const top = Math.max(0, Math.min(view.top, total * height - view.height));
  const from = Math.max(0, Math.floor(top / height) - 4), to = Math.min(total, Math.ceil((top + view.height) / height) + 4);
  return { root, element, from, to };
}
