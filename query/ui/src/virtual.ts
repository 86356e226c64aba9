/** The rows in sight of a list of any length, all of the same height. */
import { useEffect, useRef, useState } from 'preact/hooks';

export function useRows(total: number, height: number) {
  const root = useRef<HTMLDivElement>(null), [view, setView] = useState({ top: 0, height: 800 });
  useEffect(() => {
    const e = root.current;
    if (!e) return;
    const look = () => setView({ top: e.scrollTop, height: e.clientHeight });
    look();
    e.addEventListener('scroll', look, { passive: true });
    const sized = new ResizeObserver(look);
    sized.observe(e);
    return () => { e.removeEventListener('scroll', look); sized.disconnect(); };
  }, [root.current]);
  const from = Math.max(0, Math.floor(view.top / height) - 4), to = Math.min(total, Math.ceil((view.top + view.height) / height) + 4);
  return { root, from, to };
}
