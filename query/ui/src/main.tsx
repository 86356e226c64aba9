/** The shell: where one is, where one can go, and whether the server is there. */
import './style.css';
import { Component, render, type ComponentChildren, type ComponentType } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import { base, cached, onContact, replay, serves, soft, waitsFor } from './api';
import { grouped } from './format';
import { Menu } from './Menu';
import Query from './pages/Query';
import { place } from './route';
import { back, Cell, theme, useCell, zone, type Theme } from './store';
import { spoken } from './time';

interface Page { title: string; load?: () => Promise<{ default: ComponentType }>; nav?: boolean; needs?: string; group?: string }
const PAGES: Record<string, Page> = {
  query: { title: 'Query', nav: true },
  explore: { title: 'Metrics', nav: true, load: () => import('./pages/Explore') },
  cardinality: { title: 'Cardinality', nav: true, load: () => import('./pages/Cardinality') },
  queries: { title: 'Queries', nav: true, needs: 'queries', load: () => import('./pages/Queries') },
  storage: { title: 'Storage', nav: true, needs: 'storage', load: () => import('./pages/Storage') },
  alerts: { title: 'Alerts', nav: true, load: () => import('./pages/Alerts') },
  rules: { title: 'Rules', nav: true, load: () => import('./pages/Rules') },
  targets: { title: 'Targets', nav: true, needs: 'targets', load: () => import('./pages/Targets') },
  tenants: { title: 'Tenants', nav: true, needs: 'tenants', load: () => import('./pages/Tenants') },
  members: { title: 'Members', nav: true, needs: 'members', load: () => import('./pages/Members') },
  status: { title: 'Status', nav: true, load: () => import('./pages/Status') },
  connect: { title: 'Connect', nav: true, load: () => import('./pages/Connect') },
};
/** Prometheus' names of pages that lie elsewhere here. */
const ALIASES: Record<string, string> = { '': 'query', graph: 'query', 'tsdb-status': 'cardinality', config: 'status', flags: 'status', 'service-discovery': 'targets', 'alertmanager-discovery': 'alerts' };

/** What this server serves of what not every one does: it says so in the page's head. */
const served = new Cell(new Set(['queries', 'storage', 'tenants', 'members'].filter(serves)));
async function probe() {
  const pools = await soft<{ scrapePools: string[] }>('scrape_pools');
  if (pools?.scrapePools.length) served.set(new Set([...served.value, 'targets']));
}

class Fence extends Component<{ children: ComponentChildren; page: string }, { broken: Error | null; page: string }> {
  state = { broken: null as Error | null, page: this.props.page };
  static getDerivedStateFromProps(p: { page: string }, s: { page: string }) { return p.page === s.page ? null : { broken: null, page: p.page }; }
  componentDidCatch(broken: Error) { this.setState({ broken }); }
  render() {
    if (!this.state.broken) return this.props.children;
    return <div class="note bad" role="alert"><h1 class="unseen">This view stumbled</h1><b>This view stumbled</b><p>{String(this.state.broken.message)}</p><p><button type="button" class="small" onClick={() => this.setState({ broken: null })}>Try again</button></p></div>;
  }
}

const loaded = new Map<string, ComponentType>();
function Lazy({ name }: { name: string }) {
  const [, again] = useState(0), [failed, setFailed] = useState(false), it = loaded.get(name);
  useEffect(() => {
    if (it) return;
    setFailed(false);
    PAGES[name].load!().then(m => { loaded.set(name, m.default); again(n => n + 1); }, () => setFailed(true));
  }, [name]);
  if (failed) return <div class="note bad" role="alert"><b>This part of the page did not arrive</b><p>The server may have been restarted with another version. <button type="button" class="small" onClick={() => location.reload()}>Reload</button></p></div>;
  const Shown = it;
  return Shown ? <Shown /> : <div class="empty" role="status"><span class="soft">…</span></div>;
}

type Contact = { kind: string; since: number } | null;
const WORDS: Record<string, string> = { unreachable: 'The server is out of reach', starting: 'The server is starting', stopping: 'The server is stopping' };
function Banner() {
  const [contact, setContact] = useState<Contact>(null), [log, setLog] = useState<{ done: number; of: number } | null>(null), [reason, setReason] = useState(''), [, tick] = useState(0);
  useEffect(() => {
    onContact(s => setContact(old => {
      if (s === 'there') { if (old) back.set(back.value + 1); return null; }
      if (!(s.kind in WORDS)) return old;
      return old?.kind === s.kind ? old : { kind: s.kind, since: Date.now() };
    }));
  }, []);
  const away = contact !== null, starting = contact?.kind === 'starting';
  useEffect(() => {
    if (!away) return;
    const progress = () => { if (starting) { void replay().then(setLog); void waitsFor().then(setReason); } };
    progress();
    const t = setInterval(() => { tick(n => n + 1); void soft('status/buildinfo'); progress(); }, 2500);
    return () => { clearInterval(t); setLog(null); setReason(''); };
  }, [away, starting]);
  if (!contact) return null;
  const words = reason || WORDS[contact.kind];
  return <div class="banner" role="status">{words}, since {spoken(Math.max(1, Math.round((Date.now() - contact.since) / 1000)))}. {starting ? 'What you type stays, and is asked as soon as it is ready.' : 'Trying again.'}
    {log && <span class="replay"><progress max={log.of} value={log.done} aria-label="Log read again" /> {log.done} of {log.of} segments of its log read again</span>}</div>;
}

interface Head { headStats: { numSeries: number; minTime: number; maxTime: number } }
function Vitals() {
  const [text, setText] = useState('');
  useEffect(() => {
    const look = async () => {
      const [build, head] = await Promise.all([cached<{ revision: string }>('status/buildinfo'), soft<Head>('status/tsdb', { limit: 1 })]);
      const version = /hearth-(\S+)/.exec(build?.revision ?? '')?.[1];
      setText([version, head ? grouped(head.headStats.numSeries) + ' active series' : ''].filter(Boolean).join(' · '));
    };
    void look();
    const t = setInterval(() => { if (!document.hidden) void look(); }, 30_000);
    return () => clearInterval(t);
  }, []);
  return <span class="vitals num">{text}</span>;
}

const NEXT: Record<Theme, Theme> = { system: 'light', light: 'dark', dark: 'system' };
function Header({ page }: { page: string }) {
  const is = useCell(theme), inZone = useCell(zone), there = useCell(served);
  const links = Object.entries(PAGES).filter(([, p]) => p.nav && (!p.needs || there.has(p.needs)));
  const anchors = (close?: () => void) => links.map(([path, p]) => <a key={path} href={path} aria-current={page === path ? 'page' : undefined} onClick={close}>{p.title}</a>);
  return <header>
    <a class="brand" href="query"><svg viewBox="0 0 32 32" aria-hidden="true"><defs><linearGradient id="flame" x1="0" y1="0" x2="0" y2="1"><stop offset="0" stop-color="#ffb347" /><stop offset="1" stop-color="#e8590c" /></linearGradient></defs><path fill="url(#flame)" d="M16.6 2c1 4.600-1.200 6.900-3.600 9.500C10.600 14.100 8 16.800 8 21.100 8 26 11.700 30 16 30s8-4 8-8.900c0-3.300-1.500-5.700-2.900-7.800-.4 1.700-1.200 2.900-2.400 3.600C19.600 11.500 20.300 6.200 16.600 2z" /><path class="core" d="M16.200 17.500c.3 2-.7 2.900-1.700 4-.8.9-1.600 1.900-1.600 3.400 0 2 1.400 3.500 3.100 3.500s3.100-1.500 3.100-3.500c0-2.900-2.200-4.100-2.900-7.400z" /></svg>Hearth</a>
    <nav class="wide-nav" aria-label="Pages">{anchors()}</nav>
    <span class="grow" />
    <Vitals />
    <button type="button" class="quiet small" title="Time zone of everything shown" onClick={() => zone.set(inZone === 'utc' ? 'local' : 'utc')}>{inZone === 'utc' ? 'UTC' : 'local time'}</button>
    <button type="button" class="quiet icon" title={'Theme: ' + is} aria-label={'Theme: ' + is} onClick={() => theme.set(NEXT[is])}>{{ system: '◐', light: '☀', dark: '☾' }[is]}</button>
    <span class="narrow-nav"><Menu label="Pages" icon="☰" title="Pages">{close => <nav class="menu-list" aria-label="Pages">{anchors(close)}</nav>}</Menu></span>
  </header>;
}

const KEYS: [string, string][] = [['/', 'to the query'], ['Enter', 'run'], ['Shift Enter', 'next line'], ['Ctrl Space', 'what can stand here'], ['Esc', 'cancel'], ['m', 'a metric from the list; Alt M while typing'], ['- +', 'shorter or longer range'], [', .', 'earlier or later, by half of it'], ['← →', 'between tabs, or through time on a graph'], ['?', 'this list']];
function Keys() {
  const [open, setOpen] = useState(false);
  useEffect(() => {
    const key = (e: KeyboardEvent) => {
      const at = e.composedPath()[0] as HTMLElement;
      if (e.ctrlKey || e.metaKey || e.altKey || /INPUT|TEXTAREA|SELECT/.test(at.tagName) || at.isContentEditable) return;
      if (e.key === '?') setOpen(o => !o);
      if (e.key === 'Escape') setOpen(false);
      // What a button says of itself works from everywhere: in the panel that has the focus, else in the first.
      const button = e.key.length === 1 ? (at.closest?.('.panel') ?? document).querySelector<HTMLButtonElement>(`[aria-keyshortcuts~="${CSS.escape(e.key)}"]`) : null;
      if (button && !document.querySelector('dialog[open]')) { e.preventDefault(); button.click(); }
      if (e.key === '/') {
        const box = document.querySelector('.editor')?.shadowRoot?.querySelector<HTMLElement>('.cm-content') ?? document.querySelector<HTMLElement>('main input[type=search]');
        if (box) { e.preventDefault(); box.focus(); }
      }
    };
    document.addEventListener('keydown', key);
    return () => document.removeEventListener('keydown', key);
  }, []);
  if (!open) return null;
  return <div class="keys card" role="dialog" aria-label="Keys"><h2>Keys</h2><dl>{KEYS.map(([k, t]) => <div key={k}><dt>{k.split(' ').map(x => <kbd key={x}>{x}</kbd>)}</dt><dd>{t}</dd></div>)}</dl><button type="button" onClick={() => setOpen(false)}>Close</button></div>;
}

/** A view of what this process does not do. */
function Unserved({ title }: { title: string }) {
  return <div class="empty"><h1>{title}</h1><p class="soft">This server has none to show: it does not serve that view. A Hearth of another version, or with another role, may.</p><p class="chips"><a class="button" href="status">What this server is</a></p></div>;
}

function Missing({ name }: { name: string }) {
  return <div class="empty"><h1>There is no page here</h1><p class="soft cut">{name.length > 200 ? name.slice(0, 200) + '…' : name}</p><p>The address leads nowhere on this server. From here on:</p><p class="chips">{Object.entries(PAGES).slice(0, 6).map(([path, p]) => <a key={path} class="button" href={path}>{p.title}</a>)}</p></div>;
}

function App() {
  const at = useCell(place), there = useCell(served), name = Object.hasOwn(ALIASES, at.page) ? ALIASES[at.page] : at.page, page = Object.hasOwn(PAGES, name) ? PAGES[name] : null;
  // Who scrapes nothing says so on the page itself.
  const unserved = page?.needs && page.needs !== 'targets' && !there.has(page.needs);
  useEffect(() => { document.title = (page ? page.title : 'No such page') + ' · Hearth'; }, [name]);
  useEffect(() => { void probe(); }, []);
  return <>
    <a class="skip" href="#main">To the content</a>
    <Header page={name} />
    <Banner />
    <main id="main" tabIndex={-1}>
      <Fence page={name}>{!page ? <Missing name={at.page} /> : unserved ? <Unserved title={page.title} /> : name === 'query' ? <Query /> : <Lazy key={name} name={name} />}</Fence>
    </main>
    <footer><span class="soft">Press <kbd>?</kbd> for keys · <a href="ui/licences.txt" target="_blank">Licences</a> · <a href={new URL('metrics', base).pathname} target="_blank">Own metrics</a></span></footer>
    <Keys />
  </>;
}
render(<App />, document.getElementById('root')!);
