/** State of a page that stands in its address, so that a link, a reload and Back have it: what is as it is without a word
 *  is left out. */
import { useEffect, useRef, useState } from 'preact/hooks';
import { go, place } from './route';
import { useCell } from './store';

/** Changes some of what the address says; an empty text takes it out. */
export function alter(said: Record<string, string>, push: boolean) {
  const all = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(said)) if (value) all.set(name, value); else all.delete(name);
  go(location.pathname + (all.size ? '?' + all.toString().replace(/%3A/g, ':').replace(/%2C/g, ',') : ''), { replace: !push });
}

/** One text of it; `among` are those that mean something. What is set without a step back is written once nobody has typed
 *  for a moment. */
export function useInAddress(name: string, otherwise = '', among?: readonly string[]): [string, (value: string, push?: boolean) => void] {
  const asked = new URLSearchParams(useCell(place).search).get(name), said = asked !== null && (!among || among.includes(asked)) ? asked : otherwise;
  const [value, setValue] = useState(said), soon = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  // Back, Forward and links; not while something newer waits to be written.
  useEffect(() => { if (soon.current === undefined) setValue(said); }, [said]);
  useEffect(() => () => clearTimeout(soon.current), []);
  return [value, (v, push = false) => {
    setValue(v);
    clearTimeout(soon.current);
    const write = () => { soon.current = undefined; alter({ [name]: v === otherwise ? '' : v }, push); };
    if (push) write(); else soon.current = setTimeout(write, 200);
  }];
}
