// Puts what was built where the server takes it from, compressed, with a table for Rust and the licences of what is inside. With `--check`
// it compares instead, contents with contents: two versions of zlib may compress the same text differently.
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { gunzipSync, gzipSync } from 'node:zlib';

const here = new URL('.', import.meta.url);
const built = new URL('build/', here), dist = new URL('../src/ui/dist/', here), table = new URL('../src/ui/assets.rs', here);
/** KiB after gzip: what is needed before anything is seen, and everything. */
const MOST = { shell: 40, all: 200 };

function licences() {
  const lock = JSON.parse(readFileSync(new URL('package-lock.json', here), 'utf8')), out = [];
  for (const [path, it] of Object.entries(lock.packages).sort()) {
    if (!path || it.dev || it.optional) continue;
    const folder = new URL(path + '/', here), file = readdirSync(folder).find(f => /^licen[cs]e/i.test(f));
    if (!file) throw new Error(`${path} comes without its licence`);
    out.push(`${path.replace(/^.*node_modules\//, '')} ${it.version}\n${it.license ?? ''}\n\n${readFileSync(new URL(file, folder), 'utf8').trim()}\n`);
  }
  return 'What this page is made of, beside its own code, and on what terms.\n\n' + out.join('\n' + '-'.repeat(80) + '\n\n');
}

const files = new Map(readdirSync(new URL('ui/', built)).sort().map(name => [name, readFileSync(new URL('ui/' + name, built))]));
files.set('licences.txt', Buffer.from(licences()));
const index = readFileSync(new URL('index.html', built));

const gz = data => gzipSync(data, { level: 9 });
const named = name => index.includes(`ui/${name}`);
const sizes = [...files].filter(([n]) => n !== 'licences.txt').map(([name, data]) => [name, gz(data).length]);
const kib = list => list.reduce((n, [, size]) => n + size, gz(index).length) / 1024;
const shell = kib(sizes.filter(([name]) => named(name))), all = kib(sizes);
console.log(`shell ${shell.toFixed(1)} of ${MOST.shell} KiB, all ${all.toFixed(1)} of ${MOST.all} KiB, compressed`);
if (shell > MOST.shell || all > MOST.all) { console.error('the page has grown too large'); process.exit(1); }

const KINDS = { js: 'text/javascript; charset=utf-8', css: 'text/css; charset=utf-8', svg: 'image/svg+xml', txt: 'text/plain; charset=utf-8' };
function rust() {
  const rows = [...files.keys()].map(name => `    Asset { name: "${name}", kind: "${KINDS[name.split('.').pop()]}", gzip: include_bytes!("dist/${name}.gz") },\n`);
  return `//! The files of the built page, written by \`npm run build\` in \`query/ui\`: names carry a hash of the contents,
//! contents are compressed.

/// A file under \`ui/\`.
pub struct Asset {
    pub name: &'static str,
    /// Its media type.
    pub kind: &'static str,
    pub gzip: &'static [u8],
}

#[rustfmt::skip]
pub const ASSETS: [Asset; ${rows.length}] = [
${rows.join('')}];
`;
}

if (process.argv.includes('--check')) {
  const wrong = [];
  const same = (file, data, unzip) => existsSync(file) && (unzip ? gunzipSync(readFileSync(file)) : readFileSync(file)).equals(data);
  for (const [name, data] of files) if (!same(new URL(name + '.gz', dist), data, true)) wrong.push(name);
  if (!same(new URL('index.html', dist), index)) wrong.push('index.html');
  if (!same(table, Buffer.from(rust()))) wrong.push('assets.rs');
  for (const name of existsSync(dist) ? readdirSync(dist) : []) if (name !== 'index.html' && !files.has(name.replace(/\.gz$/, ''))) wrong.push(name + ' (no longer built)');
  if (wrong.length) { console.error(`not what the sources build to: ${wrong.join(', ')}\nrun \`npm run build\` in query/ui and commit what it writes`); process.exit(1); }
  console.log(`${files.size + 1} committed files are what the sources build to`);
} else {
  rmSync(dist, { recursive: true, force: true });
  mkdirSync(dist, { recursive: true });
  for (const [name, data] of files) writeFileSync(new URL(name + '.gz', dist), gz(data));
  writeFileSync(new URL('index.html', dist), index);
  writeFileSync(table, rust());
}
