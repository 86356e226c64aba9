// Runs the published code of Grafana's Prometheus data source (@grafana/prometheus) against a server, and prints what
// it makes of the answers as JSON. Usage: node datasource.cjs URL, with NODE_PATH at where the packages are.
//
// Imitated is what surrounds that code: Grafana's own backend, which hands resource requests on to the server as they
// are, and turns queries into data frames (here as far as variables need it), and the components of the editor, which
// are not used.
'use strict';

const Module = require('module');
const path = require('path');
const server = process.argv[2];
const packages = process.env.NODE_PATH;

const requests = [];

async function resource(method, place, params, options = {}) {
  const form = new URLSearchParams();
  for (const [key, value] of Object.entries(params ?? {})) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== undefined) form.append(key, one);
    }
  }
  const get = method === 'GET';
  const query = get && [...form].length > 0 ? `?${form}` : '';
  const answer = await fetch(`${server}/${place.replace(/^\/+/, '')}${query}`, {
    method,
    headers: get ? {} : { 'Content-Type': 'application/x-www-form-urlencoded', ...options.headers },
    body: get ? undefined : form.toString(),
  });
  requests.push(`${method} /${place.replace(/^\/+/, '')} ${answer.status}`);
  const text = await answer.text();
  if (!answer.ok) {
    throw Object.assign(new Error(text), { status: answer.status, data: JSON.parse(text) });
  }
  return JSON.parse(text);
}

class DataSourceWithBackend {
  constructor(settings) {
    Object.assign(this, { id: settings.id, uid: settings.uid, name: settings.name, type: settings.type });
    this.meta = {};
  }
  getRef() {
    return { type: this.type, uid: this.uid };
  }
  getResource(place, params, options) {
    return resource('GET', place, params, options);
  }
  postResource(place, params, options) {
    return resource('POST', place, params, options);
  }
  // What Grafana's backend does for an instant or range query, one frame for each series.
  query(request) {
    const { from } = require('rxjs');
    const run = async (target) => {
      const [start, end] = [request.range.from.valueOf() / 1000, request.range.to.valueOf() / 1000];
      const answer = target.instant
        ? await resource('POST', 'api/v1/query', { query: target.expr, time: end })
        : await resource('POST', 'api/v1/query_range', { query: target.expr, start, end, step: 15 });
      const { resultType, result } = answer.data;
      const rows = resultType === 'scalar' ? [{ metric: {}, value: result }] : result;
      return rows.map((row) => {
        const points = row.values ?? [row.value];
        return {
          refId: target.refId,
          meta: { type: target.instant ? 'numeric-multi' : 'timeseries-multi', custom: { resultType } },
          fields: [
            { name: 'Time', type: 'time', config: {}, values: points.map((p) => p[0] * 1000) },
            { name: 'Value', type: 'number', config: {}, labels: row.metric, values: points.map((p) => Number(p[1])) },
          ],
          length: points.length,
        };
      });
    };
    return from(Promise.all(request.targets.map(run)).then((frames) => ({ data: frames.flat(), state: 'Done' })));
  }
}

function chunked(request) {
  const { Observable } = require('rxjs');
  return new Observable((to) => {
    const stop = new AbortController();
    const run = async () => {
      const place = request.url.replace(/^.*\/resources\//, '');
      const answer = await fetch(`${server}/${place}?${new URLSearchParams(request.params)}`, { signal: stop.signal });
      requests.push(`GET /${place} ${answer.status}`);
      const head = { status: answer.status, statusText: answer.statusText, ok: answer.ok, headers: answer.headers };
      for await (const data of answer.body) to.next({ ...head, data });
      to.next({ ...head, data: undefined });
      to.complete();
    };
    run().catch((e) => to.error(e));
    return () => stop.abort();
  });
}

const templates = { replace: (text) => text, getVariables: () => [], containsTemplate: () => false };
const runtime = {
  DataSourceWithBackend,
  // What the search API's client streams from; the rest goes through getResource.
  getBackendSrv: () => ({ chunked }),
  getTemplateSrv: () => templates,
  getDataSourceSrv: () => ({}),
  config: { featureToggles: {}, publicDashboardAccessToken: '' },
  reportInteraction: () => {},
  isFetchError: (e) => e.status !== undefined,
};
const anything = new Proxy(function () {}, {
  get: (_, key) => (key === Symbol.toPrimitive ? () => '' : key === '__esModule' ? false : anything),
  apply: () => anything,
  construct: () => ({}),
});
const load = Module._load;
Module._load = function (name, ...rest) {
  if (name === '@grafana/runtime') return runtime;
  if (/^(@grafana\/(ui|assistant|plugin-ui|e2e-selectors)|monaco-|react-highlight|@hello-pangea|@emotion|@floating)/.test(name)) {
    return anything;
  }
  return load.call(this, name, ...rest);
};

async function main() {
  const dist = path.join(packages, '@grafana/prometheus/dist/cjs');
  const { PrometheusDatasource } = require(path.join(dist, 'datasource.cjs'));
  const { dateTime } = require('@grafana/data');
  const make = (jsonData) =>
    new PrometheusDatasource({ id: 1, uid: 'u', name: 'Hearth', type: 'prometheus', access: 'proxy', url: '/u', jsonData });
  const to = dateTime();
  const from = dateTime(to.valueOf() - 15 * 60_000);
  const range = { from, to, raw: { from: 'now-15m', to: 'now' } };
  const out = {};
  const source = make({ httpMethod: 'POST' });
  await source.init();
  await source.loadRules();
  out.exemplarsAvailable = source.exemplarsAvailable;
  out.ruleMappings = source.ruleMappings;
  out.started = (await source.languageProvider.start(range)).length > 0;
  out.metrics = source.languageProvider.retrieveMetrics().filter((name) => name.startsWith('http_'));
  out.metadata = source.languageProvider.retrieveMetricsMetadata().http_requests_total;
  out.histograms = source.languageProvider.retrieveHistogramMetrics();
  out.keys = await source.languageProvider.queryLabelKeys(range, '{__name__="http_requests_total"}');
  out.values = await source.languageProvider.queryLabelValues(range, 'instance', '{job="web"}');
  const texts = async (query, of = source) => (await of.metricFindQuery(query, { range })).map((found) => found.text);
  out.variables = {};
  for (const query of [
    'label_names()',
    'label_names(http_requests_total)',
    'label_values(job)',
    'label_values(http_requests_total, instance)',
    'label_values({job=~"w.*", instance!="a:1"}, instance)',
    'metrics(http_.*total)',
    'query_result(count by (job) (http_requests_total))',
    'http_requests_total{instance="a:1"}',
  ]) {
    out.variables[query] = await texts(query);
  }
  out.byGet = await texts('label_values(http_requests_total, instance)', make({ httpMethod: 'GET' }));
  out.bySeries = await texts('label_values(http_requests_total, instance)', make({ seriesEndpoint: true }));
  out.adHocKeys = (await source.getTagKeys({ filters: [], timeRange: range, queries: [] })).map((key) => key.text);
  out.adHocValues = (await source.getTagValues({ key: 'job', filters: [], timeRange: range, queries: [] })).map((v) => v.text);
  // Where the server has it: names while they are typed, in a stream of lines.
  const search = make({ enableSearchApi: true });
  await search.languageProvider.start(range);
  out.searchedValues = await search.languageProvider.queryLabelValues(range, 'job', '{__name__="http_requests_total"}');
  const { lastValueFrom } = require('rxjs');
  const target = { refId: 'A', expr: 'sum by (instance) (rate(http_requests_total[1m]))', range: true, legendFormat: '{{instance}}' };
  const panel = await lastValueFrom(
    source.query({ targets: [target], range, rangeRaw: range.raw, intervalMs: 15_000, interval: '15s', panelId: 1, timezone: 'utc', scopedVars: {} })
  );
  out.panel = panel.data.map((frame) => ({ labels: frame.fields[1].labels, points: frame.length }));
  out.requests = [...new Set(requests)].sort();
  process.stdout.write(JSON.stringify(out));
}

console.log = console.error;
main().catch((e) => {
  console.error(e);
  process.exit(1);
});
