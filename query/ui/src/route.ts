/** Which page is shown. Each lies one segment below the base, so that relative addresses hold below any prefix. */
import { base } from './api';
import { Cell } from './store';

export interface Place { page: string; search: string }
const decoded = (path: string) => { try { return decodeURIComponent(path); } catch { return path; } };
const here = (): Place => ({ page: decoded(location.pathname.slice(base.pathname.length)) || 'query', search: location.search });
export const place = new Cell<Place>(here());
addEventListener('popstate', () => place.set(here()));

export function go(to: string, { replace = false } = {}) {
  const url = new URL(to, base);
  if (url.href === location.href) replace = true;
  history[replace ? 'replaceState' : 'pushState'](null, '', url);
  place.set(here());
}

/** Changes the address of this page without telling the page, which knows. */
export function note(search: string, { push }: { push: boolean }) {
  const url = new URL(location.pathname + search, location.origin);
  if (url.href === location.href) return;
  history[push ? 'pushState' : 'replaceState'](null, '', url);
}

/** Links within are followed without loading the page anew. */
document.addEventListener('click', e => {
  if (e.defaultPrevented || e.button || e.metaKey || e.ctrlKey || e.shiftKey || e.altKey) return;
  const a = (e.composedPath().find(n => n instanceof HTMLAnchorElement) ?? null) as HTMLAnchorElement | null;
  if (!a || a.target || a.hasAttribute('download') || a.origin !== location.origin) return;
  const path = a.pathname.slice(base.pathname.length);
  if (!a.pathname.startsWith(base.pathname) || path.includes('/') || path === 'metrics') return;
  e.preventDefault();
  // By its text: on a page that lies deeper than the base the whole address is another.
  const to = a.getAttribute('href') ?? '';
  if (to.startsWith('#')) { document.getElementById(to.slice(1))?.focus(); return; }
  go(a.href);
  scrollTo(0, 0);
});
