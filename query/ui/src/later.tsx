/** Parts of the page that come when they are first needed. */
import type { ComponentType } from 'preact';
import { useEffect, useState } from 'preact/hooks';

/** A component that is fetched when it is first shown; until then, and where it does not arrive, its place says so. */
export function later<P extends object>(load: () => Promise<ComponentType<P>>): ComponentType<P> {
  let found: ComponentType<P> | null = null;
  return function Later(props: P) {
    const [state, setState] = useState<'here' | 'coming' | 'lost'>(found ? 'here' : 'coming');
    useEffect(() => { if (state === 'coming') load().then(c => { found = c; setState('here'); }, () => setState('lost')); }, [state]);
    const Found = found;
    if (Found) return <Found {...props} />;
    return <div class="empty" role="status"><span class="soft">{state === 'lost' ? <>This part of the page did not arrive. <button type="button" class="small" onClick={() => setState('coming')}>Try again</button></> : '…'}</span></div>;
  };
}
