//! Every option once: its key, its default and what it does. Flags, environment, file, `--help` and the
//! README's table come from here.

use std::path::PathBuf;

use super::retention::{RetentionSelectors, TenantRetentions};
use super::value::{
    Addressing, Bound, Count, Dedup, Features, HeaderOption, HostNames, LabelNames, LabelPairs, Listen,
    LogFormat, LogLevel, MemorySize, Origins, Path, PathPrefix, Role, S3Checksum, Size, SourceResolution,
    Span, Spans, Sync, Texts, Url, Urls, Value,
};

/// One option as the outside knows it.
pub struct OptionSpec {
    /// As the file has it: `query.timeout` is `timeout` under `query`.
    pub key: &'static str,
    pub group: &'static str,
    pub default: &'static str,
    pub help: &'static str,
    pub value_name: &'static str,
    /// The flag alone means "true".
    pub switch: bool,
    /// The flag may be given several times, and the file may have a list.
    pub list: bool,
    /// Reads a value into its place; the error says what is wrong with it.
    pub set: fn(&mut Settings, &str) -> Result<(), String>,
    /// The value as text that `set` takes.
    pub show: fn(&Settings) -> String,
}

impl OptionSpec {
    /// `query-timeout`, without the dashes in front.
    pub fn flag(&self) -> String {
        self.key.replace(['.', '_'], "-")
    }

    /// `HEARTH_QUERY_TIMEOUT`.
    pub fn env(&self) -> String {
        format!("HEARTH_{}", self.key.replace('.', "_").to_ascii_uppercase())
    }
}

macro_rules! options {
    ($( $group:literal { $( $key:literal $field:ident: $kind:ty = $default:literal, $help:literal; )+ } )+) => {
        /// All options with their values.
        #[derive(Clone, Debug)]
        pub struct Settings { $($( #[doc = $help] pub $field: $kind, )+)+ }

        impl Default for Settings {
            fn default() -> Self {
                Settings { $($( $field: <$kind>::parse($default).expect("a test reads every default"), )+)+ }
            }
        }

        pub static TABLE: &[OptionSpec] = &[ $($( OptionSpec {
            key: $key,
            group: $group,
            default: $default,
            help: $help,
            value_name: <$kind as Value>::NAME,
            switch: <$kind as Value>::SWITCH,
            list: <$kind as Value>::LIST,
            set: |settings, text| { settings.$field = <$kind>::parse(text)?; Ok(()) },
            show: |settings| settings.$field.to_string(),
        }, )+)+ ];
    };
}

options! {
    "Server" {
        "role" role: Role = "all",
            "What this process does: `all` takes samples, answers queries and compacts out of one data folder. Several processes on one bucket share the work: `ingest` takes samples, `query` answers out of the bucket and of what ingesters have not flushed, `compact` compacts, `rules` evaluates rules over the same as `query`, which it answers too, and writes to ingesters.";
        "listen" listen: Listen = "127.0.0.1:9494",
            "Where to listen for HTTP requests; `:9494` is every address of the machine.";
        "data_dir" data_dir: Path = "./hearth-data",
            "Folder of the log, of samples that are not in the object store yet, and of the blocks unless objstore says otherwise. One process at a time.";
        "http.max_connections" max_connections: Count = "16384",
            "Connections served at once. Beyond them health checks are still answered; everything else waits 2 s for room and then gets 503. Also bounded by the limit on open files.";
        "http.header_timeout" header_timeout: Span = "30s",
            "How long a connection may take to send a request's head, idle time before it included.";
        "http.write_timeout" write_timeout: Span = "30s",
            "How long a client may read nothing of its answer; then its connection is closed.";
        "http.max_connection_age" max_connection_age: Span = "5m",
            "How long a connection is kept, a tenth more or less: it ends with an answer, so that writers behind a load balancer reach new ingesters too. 0: as long as the client likes.";
        "http.max_url_bytes" max_url: Size = "1MiB",
            "Length of a URL. Longer queries are sent as a form, with POST.";
        "http.cors_origin" cors_origin: Origins = ".*",
            "Origins whose web pages may read answers, as a regular expression that matches the whole origin: Prometheus' `--web.cors.origin`.";
        "http.write_origins" write_origins: Origins = "",
            "Origins whose web pages may write, flush and delete, as a regular expression that matches the whole origin. Empty: pages of this server only.";
        "http.allowed_hosts" allowed_hosts: HostNames = "",
            "Names that are accepted in the Host header, besides addresses and names without a dot; `*` for any. Empty: any name, or none where listen is a loopback address.";
        "http.external_url" external_url: Url = "",
            "URL under which people reach Hearth: alerts link to it, and its path is the prefix of all paths unless http.route_prefix says otherwise. Empty: the address that is listened on.";
        "http.route_prefix" route_prefix: PathPrefix = "",
            "What all paths begin with, as Prometheus' `--web.route-prefix`; `/` for nothing. Empty: the path of http.external_url.";
        "http.enable_lifecycle" enable_lifecycle: bool = "false",
            "Allow POST /-/reload and /-/quit. Off, as in Prometheus.";
        "shutdown.timeout" shutdown_timeout: Span = "10s",
            "How long requests in flight may go on after SIGTERM or SIGINT. A second signal ends at once.";
        "shutdown.flush" shutdown_flush: bool = "false",
            "Turn the head into blocks when stopping. Not needed for durability: the log has everything.";
        "tenant_header" tenant_header: HeaderOption = "",
            "Header that names the tenant of a request, such as X-Scope-OrgID; requests without it are refused. Empty: one tenant, `default`.";
        "web.config_file" web_config_file: Path = "",
            "File with certificates, client certificates, passwords, headers and a rate limit: that of Prometheus' `--web.config.file`. Read again when it or a file it names changes.";
        "auth.file" auth_file: Path = "",
            "File that says who may do what for which tenants: tokens, users of web.config_file, client certificates, issuers of JWTs (docs/security.md). Read again when it changes. Empty: everybody who gets in may do everything.";
        "auth.audit_file" auth_audit_file: Path = "",
            "File that calls of the admin API are written to, a line of JSON each; they are in the log as well.";
        "auth.trust_tenant_header" auth_trust_tenant_header: bool = "false",
            "Believe tenant_header on any address without auth.file: where a proxy in front sets it and lets no client's through.";
        "admin_api" admin_api: bool = "false",
            "Allow /api/v1/admin/tsdb/ to delete series. Off, as in Prometheus: whoever reaches the address could delete everything.";
        "self_metrics_interval" self_metrics_interval: Span = "15s",
            "How often Hearth writes its own metrics into itself (tenant `default`, job `hearth`); 0 for never.";
        "memory.limit" memory_limit: MemorySize = "80%",
            "Memory that the settings in percent are shares of: itself a size, or a share of the machine's or the container's memory. A start warns where all of them together may hold more.";
        "log.level" log_level: LogLevel = "info",
            "What is logged to standard error: error, warn, info, debug, trace, or per crate as in `info,tsdb=debug`.";
        "log.format" log_format: LogFormat = "text",
            "How log lines look.";
        "traces.endpoint" traces_endpoint: Url = "",
            "OpenTelemetry collector that traces of requests go to, over HTTP with JSON: `http://collector:4318`. Empty: none is made.";
        "traces.one_of" traces_one_of: Count = "1",
            "One of so many requests is traced; what comes with a `traceparent` header as that says.";
    }
    "Storage" {
        "objstore" objstore: Url = "",
            "Where blocks are kept: `file:///path`, `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`. Empty: `blocks` in the data folder.";
        "objstore_timeout" objstore_timeout: Span = "30s",
            "How long one request to a bucket may take, its body included.";
        "objstore_retry" objstore_retry: Span = "30s",
            "For how long a request to a bucket that failed is repeated, with growing, jittered pauses.";
        "catalog.lock" catalog_lock: Url = "",
            "Coordinator that decides about commits where the store has no conditional writes: `zookeeper://host:2181,host:2181/path`, `etcd://host:2379/path` or `etcd+tls://…`. The same for every process on the bucket.";
        "catalog.lock_credentials_file" catalog_lock_credentials_file: Path = "",
            "File with `user:password` for the coordinator: a digest of ZooKeeper's, a user of etcd's.";
        "catalog.single_writer" catalog_single_writer: bool = "false",
            "This process alone writes to the bucket: lets it use a store without conditional writes and without a coordinator. Two such processes lose data.";
        "head.window" head_window: Span = "2h",
            "Data time the head gathers before it becomes a block.";
        "head.flush_sealed" head_flush_sealed: bool = "false",
            "Flush every ten minutes of data instead of keeping them on the local disk until the window ends: a lost disk costs that much. Twelve times as many small blocks until compaction merges them.";
        "head.max_memory_bytes" head_max_memory: MemorySize = "50%",
            "Memory the head may hold: a size, or a share of memory.limit. Close to it, samples are written to the local disk early; at it, writes are refused with 503, and senders try again. 0 is the default.";
        "cache_bytes" cache_bytes: MemorySize = "8% up to 256MiB",
            "Memory for what is read of blocks: indexes, small columns, pages, exemplars and metadata beside them, the decoded samples of selections that fit into a quarter of it, and which series of the head selectors pick.";
        "wal.sync" wal_sync: Sync = "always",
            "When a write is acknowledged: after fsync (`always`), or at once with an fsync every so often (`100ms`), which a power loss may cost.";
        "retention" retention: Span = "0",
            "How long raw samples are kept; older ones are refused on arrival, blocks go when all of their samples are older. 0 keeps for ever.";
        "retention_5m" retention_5m: Span = "0",
            "How long samples downsampled to 5 minutes are kept. Raw blocks wait for them to be made.";
        "retention_1h" retention_1h: Span = "0",
            "How long samples downsampled to an hour are kept.";
        "retention_rules" retention_rules: RetentionSelectors = "",
            "Different retention for some series, at every resolution: `{job=\"debug\"}=3d`, or `team-a{job=\"debug\"}=3d` for one tenant. The first that matches decides. Queries see it at once, blocks are rewritten.";
        "retention_tenants" retention_tenants: TenantRetentions = "",
            "Different retention for single tenants: `team-a=30d`, or `team-a=30d/1y/5y` for raw samples, 5 minutes and an hour.";
        "retention_delay" retention_delay: Span = "1d",
            "How long what retention took stays in the store, unseen: a longer retention or `hearth bucket restore` brings it back. 0 for not at all.";
    }
    "Many processes" {
        "members.token_file" members_token_file: Path = "",
            "File with a secret that all processes on the bucket have and show one another; read again when it changes. Needed where an ingester listens on more than a loopback address.";
        "members.advertise_address" members_advertise: Url = "",
            "URL under which other members reach this process. Empty: the address that is listened on.";
        "members.addresses" members_addresses: Urls = "",
            "Where members are, in the place of what they advertise: `NAME=http://HOST:PORT`, names as `hearth bucket members` shows them; or `http://HOST:PORT`, `dns+http://NAME:PORT` (all addresses of a name) and `dnssrv+http://NAME` (SRV records), where whoever answers says who it is. DNS is asked every 30s at the system's servers: `?refresh=5s&server=ADDRESS:PORT` says otherwise.";
        "members.discovery_file" members_discovery_file: Path = "",
            "File that says where else members are found, in Prometheus' words: `scheme`, `path_prefix`, `relabel_configs`, and `static_configs` or `dns_`, `file_`, `consul_`, `serverset_`, `nerve_` and `kubernetes_sd_configs` (the last of the role `endpointslice`). Read again when it changes.";
        "members.tls_ca_file" members_tls_ca_file: Path = "",
            "File with certificates that are trusted beside the system's where members are asked over TLS; read again when it changes.";
        "members.tls_cert_file" members_tls_cert_file: Path = "",
            "File with the certificate that this process shows the members it asks; with members.tls_key_file, both read again when they change.";
        "members.tls_key_file" members_tls_key_file: Path = "",
            "File with that certificate's key.";
        "members.zone" members_zone: String = "",
            "Where this process runs, shown to people.";
        "members.replica_group" members_replica_group: String = "",
            "Name that ingesters have in common which each take the whole stream of samples: then a query needs one of them only. Empty: nobody else has what this one has.";
        "members.hedge_delay" members_hedge_delay: Span = "3s",
            "How long a querier waits for an ingester that another of its replica group has answered for.";
        "members.interval" members_interval: Span = "10s",
            "How often a process shows in the bucket that it is there, and looks who else is. The same for all. A new ingester waits three times as long before it takes samples.";
    }
    "Compaction" {
        "compactor.enabled" compactor_enabled: bool = "true",
            "Compact in this process too. Turn it off where `hearth compact` does the work.";
        "compactor.interval" compactor_interval: Span = "1m",
            "How often compaction looks for work.";
        "compactor.levels" compactor_levels: Spans = "12h,2d,14d",
            "Lengths of time that become one block, each a multiple of the one before.";
        "compactor.grace" compactor_grace: Span = "1h",
            "How long after the end of such a span it is compacted: time for the last flush to arrive.";
        "compactor.late_wait" compactor_late_wait: Span = "30m",
            "How long a few late samples wait for more, before they are merged into what is compacted already.";
        "compactor.downsample" compactor_downsample: bool = "true",
            "Write rollups of 5 minutes and an hour in the same pass.";
        "compactor.dedup_replica_labels" compactor_dedup_replica_labels: LabelNames = "",
            "Labels that tell HA replicas apart: compaction drops them and makes the replicas one series, for good.";
        "compactor.max_memory_bytes" compactor_max_memory: MemorySize = "8% up to 512MiB",
            "Memory that compaction may hold, whatever the size of blocks.";
        "compactor.max_scratch_bytes" compactor_max_scratch: Size = "16GiB",
            "Disk that compaction may use below the data folder at a time: it writes smaller blocks rather than more.";
        "compactor.max_block_bytes" compactor_max_block: Size = "512MiB",
            "About how large a block may be: what would become larger is written as several, each with a run of the series.";
        "compactor.max_span_bytes" compactor_max_span: Size = "4GiB",
            "Blocks of adjacent spans are not merged into more than this, because late samples cause all of it to be rewritten.";
        "compactor.max_inputs" compactor_max_inputs: Count = "16",
            "Blocks that one job merges at most; those that were written as several count once.";
        "compactor.verify" compactor_verify: bool = "true",
            "Read every block back from the store and compare it with what was merged, before its inputs are replaced.";
        "compactor.delete_delay" compactor_delete_delay: Span = "30m",
            "How long replaced blocks stay in the store for queries that still read them: longer than query.timeout.";
        "compactor.orphan_grace" compactor_orphan_grace: Span = "6h",
            "How long objects must have been there before they may be deleted as garbage: longer than any upload takes.";
    }
    "Exemplars and metadata" {
        "exemplars.max_bytes" exemplars_max: MemorySize = "2% up to 64MiB",
            "Memory for exemplars that are not in the object store yet: at half of it the head is flushed; beyond it new ones are refused.";
        "exemplars.retention" exemplars_retention: Span = "30d",
            "How long exemplars are kept; 0 for ever. They point at traces, which are seldom kept longer.";
        "metadata.retention" metadata_retention: Span = "0",
            "How long the type, help and unit of a metric are kept after they were last sent; 0 for ever.";
    }
    "S3" {
        "s3.endpoint" s3_endpoint: Url = "",
            "URL of the S3 service. Empty: AWS_ENDPOINT_URL or AWS_ENDPOINT, or else Amazon's own for the region.";
        "s3.region" s3_region: String = "",
            "Region of the bucket. Empty: AWS_REGION or AWS_DEFAULT_REGION, or else us-east-1.";
        "s3.addressing" s3_addressing: Addressing = "path",
            "Where the bucket's name goes: into the path, as MinIO, Ceph and Garage like it, or into the host.";
        "s3.allow_http" s3_allow_http: bool = "false",
            "Allow an endpoint without TLS (or AWS_ALLOW_HTTP=true).";
        "s3.checksum" s3_checksum: S3Checksum = "none",
            "Checksum that the service verifies and keeps with each object. Every request is signed with a hash of its body anyway, and blocks have Hearth's own checksums.";
        "s3.access_key_file" s3_access_key_file: Path = "",
            "File with the access key. Read again when it changes. Without it: AWS_ACCESS_KEY_ID, web identity, or the instance's role.";
        "s3.secret_key_file" s3_secret_key_file: Path = "",
            "File with the secret key that goes with it. Without it: AWS_SECRET_ACCESS_KEY.";
        "s3.session_token_file" s3_session_token_file: Path = "",
            "File with the session token, where the keys are temporary ones (as Vault gives them). Without it: AWS_SESSION_TOKEN.";
    }
    "Google Cloud Storage" {
        "gcs.credentials_file" gcs_credentials_file: Path = "",
            "File with a service account's key. Read again when it changes. Without it: GOOGLE_APPLICATION_CREDENTIALS, or the machine's or pod's own account.";
        "gcs.endpoint" gcs_endpoint: Url = "",
            "URL of the service, where it is not Google's own.";
        "gcs.allow_http" gcs_allow_http: bool = "false",
            "Allow an endpoint without TLS.";
        "gcs.anonymous" gcs_anonymous: bool = "false",
            "Send no credentials, as emulators want it.";
    }
    "Azure" {
        "azure.account" azure_account: String = "",
            "Name of the storage account. Empty: AZURE_STORAGE_ACCOUNT_NAME.";
        "azure.account_key_file" azure_account_key_file: Path = "",
            "File with the account's key. Read again when it changes. Without it: AZURE_STORAGE_ACCOUNT_KEY, workload identity, a client's secret, or the machine's managed identity.";
        "azure.sas_token_file" azure_sas_token_file: Path = "",
            "File with a shared access signature instead of a key. Read again when it changes.";
        "azure.endpoint" azure_endpoint: Url = "",
            "URL of the account's blob service, where it is not Azure's own.";
        "azure.allow_http" azure_allow_http: bool = "false",
            "Allow an endpoint without TLS.";
    }
    "Queries" {
        "query.timeout" query_timeout: Span = "2m",
            "The longest a query may take.";
        "query.max_samples" query_max_samples: Count = "50000000",
            "Samples and points of results one query may hold at once, as Prometheus counts for its `--query.max-samples`.";
        "query.max_memory_bytes" query_max_memory: Size = "1GiB",
            "Memory the samples and results of one query may hold.";
        "query.max_total_memory_bytes" query_max_total_memory: MemorySize = "25% up to 4GiB",
            "Memory that all queries may hold together. For one that needs more, the heaviest that is older than 10 s is called off; where there is none, it ends with an error itself.";
        "query.results_cache_bytes" query_results_cache: MemorySize = "2% up to 64MiB",
            "Memory for results of range queries, which are kept until what they were computed from changes. 0 keeps none.";
        "query.disk_cache_bytes" query_disk_cache: Size = "0",
            "Local disk for bytes of blocks that were fetched from the object store, so that they are not fetched again, not even after a restart. Every one is checked when it is read. 0 keeps none.";
        "query.disk_cache_path" query_disk_cache_path: Path = "",
            "Folder for these bytes, of this process alone. Empty: `block-cache` in `data_dir`.";
        "query.max_points" query_max_points: Count = "11000",
            "Steps one range query may have.";
        "query.max_text_bytes" query_max_text: Size = "1MiB",
            "Length of a query's text.";
        "query.max_concurrency" query_max_concurrency: Count = "20",
            "Queries that run at once; further ones wait their turn within their timeout.";
        "query.lookback" query_lookback: Span = "5m",
            "How far back an instant selector looks for a sample.";
        "query.replica_labels" query_replica_labels: LabelNames = "",
            "Labels that only tell HA replicas of one Prometheus apart: such series are shown as one, without these labels. A request can say otherwise (`dedup`, `replicaLabels[]`).";
        "query.dedup_mode" query_dedup_mode: Dedup = "hearth",
            "How replicas become one: `hearth`, which fills gaps and does not depend on the query's range, or `thanos`, to compare answers while moving.";
        "query.max_source_resolution" query_max_source_resolution: SourceResolution = "auto",
            "Coarsest downsampled data that answers, where a query does not say so itself: `auto` takes the coarsest that is exact, `raw` none, `5m` or `1h` up to that even where it is approximate.";
        "enable_feature" enable_feature: Features = "",
            "What Prometheus keeps behind flags: promql-experimental-functions, promql-extended-range-selectors, promql-binop-fill-modifiers, promql-delayed-name-removal, use-start-timestamps, type-and-unit-labels; and search-api, for /api/v1/search/. The flag promql-duration-expr is taken and always on.";
    }
    "Rules and alerts" {
        "rules.files" rule_files: Texts = "",
            "Prometheus' rule files to evaluate, for the tenant `default`; a star may stand in the last part of a path. Read again on SIGHUP and POST /-/reload.";
        "rules.evaluation_interval" rules_interval: Span = "1m",
            "How often groups without an interval of their own are evaluated.";
        "rules.query_offset" rules_query_offset: Span = "0",
            "How far back from its slot a group without an offset of its own evaluates: for series that arrive late.";
        "rules.max_concurrency" rules_concurrency: Count = "4",
            "Groups that are evaluated at once.";
        "rules.max_concurrent_evals" rules_concurrent_evals: Count = "4",
            "Threads that evaluate rules of one group side by side, where these do not read one another's series; shared by all groups, and 1 for none. Results are those of one rule after the other.";
        "rules.backfill" rules_backfill: Span = "1h",
            "How far back recording rules are evaluated for slots that were missed, as while Hearth was not running; 0 for not at all.";
        "rules.external_labels" rules_external_labels: LabelPairs = "",
            "Labels that every alert goes out with, as `cluster=eu`; templates know them as $externalLabels.";
        "rules.alertmanagers" rules_alertmanagers: Urls = "",
            "Alertmanagers that get all alerts: `http://HOST:9093`, with a path and a login if need be, or `dns+http://NAME:9093` for all addresses of a name.";
        "rules.alerting_file" rules_alerting_file: Path = "",
            "File with an `alerting` section as in prometheus.yml, which it may be itself: relabelling, logins, and Alertmanagers, static or from DNS, files, Consul, ZooKeeper and Kubernetes. Read again with the rule files.";
        "rules.alert_for_grace_period" rules_for_grace: Span = "10m",
            "An alert whose `for` goes on after a restart waits at least this long; rules with a shorter `for` begin anew.";
        "rules.alert_for_outage_tolerance" rules_outage_tolerance: Span = "1h",
            "After a longer outage no alert takes its wait up again.";
        "rules.alert_resend_delay" rules_resend_delay: Span = "1m",
            "How long an alert that has not changed is not sent again.";
        "rules.notification_queue" rules_queue: Count = "10000",
            "Alerts that may wait for one Alertmanager; beyond it the oldest go.";
        "rules.share" rules_share: bool = "false",
            "Share the groups with the other processes on the bucket that have this on: each group is evaluated by one of them, and by another when that one is gone. All need the same rules, and all samples.";
        "rules.share_lease" rules_share_lease: Span = "30s",
            "How long a process that is gone keeps its groups, at most; at least 3s. The table in the bucket is written three times in it.";
        "rules.share_url" rules_share_url: Url = "",
            "Where the other processes reach this one, to write what their rules give. Empty: the address that is listened on.";
        "rules.share_token_file" rules_share_token_file: Path = "",
            "File with the token that this process shows the others, where their auth.file asks for one: with the right to write for all tenants. Read again when it changes.";
        "rules.write_urls" rules_write_urls: Urls = "",
            "Where a process of the role `rules` writes what rules give, without `/api/v1/write`: each of these gets all of it. Empty: every ingester that is a member. Where they ask for a token, rules.share_token_file has it.";
        "rules.config_api" rules_config_api: bool = "false",
            "Let tenants keep rules of their own in the bucket, over the API of Mimir and Cortex (mimirtool, Grafana's rule editor). Grafana then takes Hearth for a Mimir.";
    }
    "Writes" {
        "ingest.max_body_bytes" ingest_max_body: Size = "32MiB",
            "The largest body of a write, compressed.";
        "ingest.max_decoded_bytes" ingest_max_decoded: Size = "32MiB",
            "The largest body of a write, decompressed; checked before anything is allocated.";
        "ingest.max_in_flight_bytes" ingest_max_in_flight: MemorySize = "8% up to 512MiB",
            "Memory that all writes in flight may hold together; beyond it, writes are refused with 503, and senders try again. Never less than one write of the largest kind needs.";
        "ingest.max_ahead" ingest_max_ahead: Span = "10m",
            "How far ahead of the clock a sample may be.";
        "ingest.max_labels" ingest_max_labels: Count = "64",
            "Labels of one series, its name included.";
        "ingest.max_label_name_bytes" ingest_max_label_name: Size = "1KiB",
            "Length of a label's name.";
        "ingest.max_label_value_bytes" ingest_max_label_value: Size = "8KiB",
            "Length of a label's value.";
        "ingest.max_series_bytes" ingest_max_series: Size = "32KiB",
            "Length of all names and values of one series together.";
    }
    "Limits of tenants" {
        "limits.file" limits_file: Path = "",
            "File with other limits for single tenants (`overrides: {team-a: {ingestion_rate: 50000}}`), by the names of Mimir. Read again every 10 s; shown at /runtime_config.";
        "limits.ingestion_rate" limits_ingestion_rate: Bound = "0",
            "Samples that a tenant may send in a second; faster ones are put off with 503. 0 for no limit, as with all limits here.";
        "limits.ingestion_burst_size" limits_ingestion_burst_size: Bound = "0",
            "Samples that may come at once, above the rate. 0: twenty seconds of it.";
        "limits.max_global_series_per_user" limits_max_series: Bound = "0",
            "Series that a tenant may have in the head of this process; samples of further ones are left out, the others are taken.";
        "limits.max_global_series_per_metric" limits_max_series_per_metric: Bound = "0",
            "Series that one metric of a tenant may have there.";
        "limits.past_grace_period" limits_past_grace_period: Span = "0",
            "How old a sample may be when it comes. 0: as old as the retention.";
        "limits.out_of_order_time_window" limits_out_of_order_window: Span = "0",
            "How far behind the newest sample of its tenant one may be that is not the newest of its series. 0: any, as old as the retention.";
        "limits.max_fetched_series_per_query" limits_max_fetched_series: Bound = "0",
            "Series that one query may read.";
        "limits.max_fetched_chunks_per_query" limits_max_fetched_chunks: Bound = "0",
            "Chunks that one query may read, each of 120 samples, which is what Prometheus' and Mimir's chunks have.";
        "limits.max_fetched_chunk_bytes_per_query" limits_max_fetched_bytes: Size = "0",
            "Bytes that one query may fetch of blocks, from the object store or its cache on disk; what is in memory does not count.";
        "limits.max_total_query_length" limits_max_total_query_length: Span = "0",
            "The longest time from start to end of a range query.";
        "limits.max_partial_query_length" limits_max_partial_query_length: Span = "0",
            "The longest time that one selector of a query may read, its range and the query's steps together.";
        "limits.max_query_lookback" limits_max_query_lookback: Span = "0",
            "How far back from now queries see; what is older is as if it were not there.";
        "limits.max_outstanding_requests_per_tenant" limits_max_outstanding: Bound = "1000",
            "Queries of a tenant that may wait for their turn; further ones are refused with 429.";
    }
}

impl Settings {
    /// Where the blocks are when no object store is named.
    pub fn default_blocks_dir(&self) -> PathBuf {
        self.data_dir.0.join("blocks")
    }
}

/// The option of that key.
#[cfg(test)]
pub fn find(key: &str) -> Option<&'static OptionSpec> {
    TABLE.iter().find(|o| o.key == key)
}

/// The closest of `names` to what was written, if it is close enough to be a slip of the finger.
pub fn closest<'a>(written: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let written = written.replace('-', "_").to_ascii_lowercase();
    let most = (written.len() / 3).clamp(1, 4);
    names
        .map(|n| (distance(&written, &n.to_ascii_lowercase()), n))
        .filter(|(d, _)| *d <= most)
        .min_by_key(|(d, _)| *d)
        .map(|(_, n)| n)
}

/// Levenshtein's edit distance, on texts cut to 64 bytes.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let (a, b) = (&a[..a.len().min(64)], &b[..b.len().min(64)]);
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let cost = (diagonal + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], cost);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_read_and_show_as_written() {
        let settings = Settings::default();
        for option in TABLE {
            let mut again = settings.clone();
            (option.set)(&mut again, option.default).unwrap();
            assert_eq!((option.show)(&again), option.default, "{}", option.key);
        }
    }

    #[test]
    fn keys_flags_and_variables_are_unique_and_documented() {
        let mut flags: Vec<_> = TABLE.iter().map(OptionSpec::flag).collect();
        flags.sort();
        flags.dedup();
        assert_eq!(flags.len(), TABLE.len());
        for option in TABLE {
            assert!(option.help.ends_with('.'), "{}: its help is a sentence", option.key);
            let parent = option.key.split_once('.').map(|(section, _)| section);
            assert!(parent.is_none_or(|p| find(p).is_none()), "{} is under an option", option.key);
        }
    }

    #[test]
    fn slips_are_recognised_and_strangers_are_not() {
        let keys = || TABLE.iter().map(|o| o.key);
        assert_eq!(closest("query.tiemout", keys()), Some("query.timeout"));
        assert_eq!(closest("data-dir", keys()), Some("data_dir"));
        assert_eq!(closest("Listen", keys()), Some("listen"));
        assert_eq!(closest("scrape_configs", keys()), None);
    }

    #[test]
    fn readme_has_this_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
        let readme = std::fs::read_to_string(path).expect("the README is where it belongs");
        let mut table = String::from("| key in `hearth.yaml` | default | what it does |\n|---|---|---|\n");
        for option in TABLE {
            let default =
                if option.default.is_empty() { String::new() } else { format!("`{}`", option.default) };
            table += &format!("| `{}` | {default} | {} |\n", option.key, option.help);
        }
        assert!(readme.contains(&table), "README.md should hold this table:\n{table}");
    }
}
