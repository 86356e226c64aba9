/** How to bring metrics in and how to ask for them, with this server's own address. */
import { useRef, useState } from 'preact/hooks';
import { base } from '../api';
import { Page } from '../Shell';

function Snippet({ step, title, text }: { step: string; title: string; text: string }) {
  const pre = useRef<HTMLPreElement>(null), [said, setSaid] = useState('copy');
  const copy = async () => {
    try { await navigator.clipboard.writeText(text); setSaid('copied'); } catch { if (pre.current) getSelection()?.selectAllChildren(pre.current); setSaid('selected'); }
    setTimeout(() => setSaid('copy'), 1500);
  };
  return <section class="card block snip"><h2><i>{step}</i>{title}<button type="button" class="small" aria-label={`Copy: ${title}`} onClick={copy}>{said}</button></h2><pre ref={pre} tabIndex={0}>{text}</pre></section>;
}
export default function Connect() {
  const at = base.href.replace(/\/$/, '');
  return <Page title="Connect"><p class="soft">Everything that speaks Prometheus speaks Hearth. Where tenants are told apart, each of these needs the tenant's header as well.</p>
    <div class="halves">
      <Snippet step="1" title="Prometheus or an agent sends" text={`# prometheus.yml\nremote_write:\n  - url: ${at}/api/v1/write\n    send_exemplars: true\n    send_native_histograms: true`} />
      <Snippet step="2" title="Grafana shows" text={`# a data source of type Prometheus\nurl: ${at}`} />
      <Snippet step="3" title="Anything asks" text={`curl '${at}/api/v1/query' \\\n  --data-urlencode 'query=up'`} />
      <Snippet step="4" title="Bring what you have" text={`# beside the server, straight into its object store\nhearth import prometheus /var/lib/prometheus/data\nhearth import thanos s3://thanos-bucket --drop-label replica`} />
      <Snippet step="5" title="Take a range away as rows" text={`hearth export parquet --out rows --match up --start 30d \\\n  --flush-url ${at}`} />
      <Snippet step="6" title="Alert" text={`# hearth.yaml\nrules:\n  files: [/etc/prometheus/rules/*.yml]\n  alertmanagers: ['http://alertmanager:9093']`} />
    </div></Page>;
}
