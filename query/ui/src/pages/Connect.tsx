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
      <Snippet step="2" title="OpenTelemetry sends" text={`# collector\nexporters:\n  otlphttp:\n    endpoint: ${at}/api/v1/otlp`} />
      <Snippet step="3" title="Grafana shows" text={`# a data source of type Prometheus\nurl: ${at}`} />
      <Snippet step="4" title="Anything asks" text={`curl '${at}/api/v1/query' \\\n  --data-urlencode 'query=up'`} />
      <Snippet step="5" title="What was before moves in" text={`hearth import prometheus /var/lib/prometheus`} />
      <Snippet step="6" title="A table out" text={`curl '${at}/api/v1/query_range' \\\n  --data-urlencode 'query=rate(node_cpu_seconds_total[5m])' \\\n  -d start=$(date -d '-1 hour' +%s) -d end=$(date +%s) -d step=60`} />
    </div></Page>;
}
