//! `query`, `query_range` and `query_exemplars`: parameters, answers and their remarks.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;
use model::labels::Labels;
use model::source::memory::MemorySource;
use model::source::{LabelQuery, Selection, SeriesCursor, Source, SourceError};
use query::engine::EngineOptions;
use serde_json::json;

use super::frame::{api, api_of, sample_data};

#[tokio::test]
async fn bad_parameters_are_named_in_upstreams_words() {
    let api = api();
    let not_a_time = |name: &str, value: &str| {
        format!(
            "invalid parameter \"{name}\": invalid time value for '{name}': cannot parse \"{value}\" to a valid timestamp"
        )
    };
    for (endpoint, form, text) in [
        ("query", "query=up&time=x", not_a_time("time", "x")),
        ("query", "query=up&timeout=x", "invalid parameter \"timeout\": cannot parse \"x\" to a valid duration".into()),
        ("query", "query=up&limit=-1", "invalid parameter \"limit\": limit must be non-negative".into()),
        ("query", "query=up&limit=x", "invalid parameter \"limit\": strconv.Atoi: parsing \"x\": invalid syntax".into()),
        ("query", "query=up&lookback_delta=x", "error parsing lookback delta duration: cannot parse \"x\" to a valid duration".into()),
        ("query", "query=", "invalid parameter \"query\": unknown position: parse error: no expression found in input".into()),
        ("query", "query=invalid][query", "invalid parameter \"query\": 1:8: parse error: unexpected right bracket ']'".into()),
        ("query_range", "query=up", "invalid parameter \"start\": cannot parse \"\" to a valid timestamp".into()),
        ("query_range", "query=up&start=1", "invalid parameter \"end\": cannot parse \"\" to a valid timestamp".into()),
        ("query_range", "query=up&start=2&end=1&step=1", "invalid parameter \"end\": end timestamp must not be before start time".into()),
        ("query_range", "query=up&start=1&end=2", "invalid parameter \"step\": cannot parse \"\" to a valid duration".into()),
        ("query_range", "query=up&start=1&end=2&step=0", "invalid parameter \"step\": zero or negative query resolution step widths are not accepted. Try a positive integer".into()),
        ("query_range", "query=up&start=1&end=2&step=-1s", "invalid parameter \"step\": cannot parse \"-1s\" to a valid duration".into()),
        ("query_range", "query=up&start=1&end=2&step=0.0001", "invalid parameter \"step\": steps below one millisecond are not supported".into()),
        ("query_range", "query=up&start=0&end=11001&step=1", "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)".into()),
        ("query_range", "query=up&start=0&end=1&step=1&timeout=abc", "invalid parameter \"timeout\": cannot parse \"abc\" to a valid duration".into()),
        ("series", "", "no match[] parameter provided".into()),
        ("series", "match[]=up&x=%zz", "error parsing form values: invalid URL escape \"%zz\"".into()),
        ("series", "match[]=up&start=x", not_a_time("start", "x")),
        ("series", "match[]={a=\"\"}", "invalid parameter \"match[]\": match[] must contain at least one non-empty matcher".into()),
        ("series", "match[]=up&limit=-5", "invalid parameter \"limit\": limit must be non-negative".into()),
        ("labels", "end=x", not_a_time("end", "x")),
        ("labels", "match[]={}", "match[] must contain at least one non-empty matcher".into()),
        ("query_exemplars", "query=up&start=2&end=1", "end timestamp must not be before start timestamp".into()),
        ("query_exemplars", "query=up&start=x", not_a_time("start", "x")),
    ] {
        assert_eq!(api.error(endpoint, form).await, (400, "bad_data".into(), text), "{endpoint}?{form}");
    }
    for (uri, text) in [
        ("metadata?limit=x", "limit must be a number"),
        ("metadata?limit_per_metric=x", "limit_per_metric must be a number"),
        ("status/tsdb?limit=0", "limit must be a positive number"),
        ("status/tsdb?limit=x", "limit must be a positive number"),
        ("status/tsdb?limit=10001", "limit must not exceed 10000"),
        ("rules?type=x", "invalid parameter \"type\": not supported value \"x\""),
        ("label/job/values?start=x", &not_a_time("start", "x")),
        ("label/job/values?match[]={", "1:2: parse error: unexpected end of input inside braces"),
    ] {
        let answer = api.get(uri).await;
        assert_eq!(answer.status, 400, "{uri}");
        assert_eq!(
            answer.json(),
            json!({"status": "error", "errorType": "bad_data", "error": text}),
            "{uri}"
        );
    }
}

#[tokio::test]
async fn instant_queries_of_each_type() {
    let api = api();
    let answer = api.both("query", "query=1%2B1&time=1.5").await;
    assert_eq!(answer.text, r#"{"status":"success","data":{"resultType":"scalar","result":[1.5,"2"]}}"#);
    let answer = api.both("query", "query=%22a%3Cb%22&time=0").await;
    assert_eq!(answer.text, r#"{"status":"success","data":{"resultType":"string","result":[0,"a\u003cb"]}}"#);
    // Without a time it is now, which the clock says is 600 s.
    let answer = api.both("query", "query=sum(up)").await;
    assert_eq!(
        answer.text,
        r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[600,"2"]}]}}"#
    );
    let answer =
        api.both("query", "query=up%7Binstance%3D%22a%3A9100%22%7D%5B30s%5D&time=1970-01-01T00:01:00Z").await;
    assert_eq!(
        answer.text,
        r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"__name__":"up","instance":"a:9100","job":"node"},"values":[[45,"1"],[60,"1"]]}]}}"#
    );
    let answer = api.both("query", "query=nothing").await;
    assert_eq!(answer.text, r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#);
}

#[tokio::test]
async fn range_queries_limits_statistics_and_warnings() {
    let api = api();
    let answer = api.both("query_range", "query=sum by (instance)(up)&start=0&end=30&step=15").await;
    assert_eq!(
        answer.text,
        r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"instance":"a:9100"},"values":[[0,"1"],[15,"1"],[30,"1"]]},{"metric":{"instance":"b:9100"},"values":[[0,"1"],[15,"1"],[30,"1"]]}]}}"#
    );
    // 11,000 steps and one more point are still fine.
    let data = api.data("query_range", "query=vector(1)&start=0&end=11000&step=1").await;
    assert_eq!(data["result"][0]["values"].as_array().unwrap().len(), 11_001);

    let cut = api.both("query", "query=http_requests_total&limit=2").await.json();
    assert_eq!(cut["data"]["result"].as_array().unwrap().len(), 2);
    assert_eq!(cut["warnings"], json!(["results truncated due to limit"]));
    let cut = api.both("query_range", "query=up&limit=1&start=0&end=15&step=15").await.json();
    assert_eq!(cut["data"]["result"].as_array().unwrap().len(), 1);
    assert_eq!(cut["warnings"], json!(["results truncated due to limit"]));
    assert_eq!(api.data("query", "query=up&limit=2").await["result"].as_array().unwrap().len(), 2);
    assert_eq!(api.data("query", "query=up&limit=0").await["result"].as_array().unwrap().len(), 2);

    let stats = api.get("query?query=up&stats=all").await.json()["data"]["stats"].clone();
    assert!(stats["timings"]["execTotalTime"].as_f64().unwrap() > 0.0, "{stats}");
    assert_eq!(stats["timings"].as_object().unwrap().len(), 6);
    assert!(stats["samples"]["samplesRead"].as_u64().unwrap() >= 2, "{stats}");
    let odd = api.get("query?query=up&stats=yes").await.json();
    assert!(odd["data"]["stats"].is_object());
    assert_eq!(
        odd["warnings"],
        json!([
            "value \"yes\" for parameter \"stats\" is deprecated and will be rejected in the next major release, use \"true\" or \"all\""
        ])
    );
    assert!(api.data("query", "query=up").await.get("stats").is_none());

    let per_step =
        api.get("query_range?query=rate(up[30s])&start=30&end=45.5&step=15&stats=all").await.json();
    let samples = &per_step["data"]["stats"]["samples"];
    assert_eq!(samples["totalQueryableSamplesPerStep"], json!([[30, 4], [45, 4]]));
    assert_eq!(samples["samplesReadPerStep"], json!([[30, 4], [45, 2]]));
    assert_eq!((&samples["totalQueryableSamples"], &samples["samplesRead"]), (&json!(8), &json!(6)));
    let totals =
        api.get("query_range?query=rate(up[30s])&start=30.5&end=45.5&step=15&stats=true").await.json();
    let samples = totals["data"]["stats"]["samples"].as_object().unwrap();
    assert_eq!(samples.keys().collect::<Vec<_>>(), ["peakSamples", "samplesRead", "totalQueryableSamples"]);

    // The last samples stand at 990 s: seen with a long lookback only.
    assert_eq!(api.data("query", "query=up&time=2000").await["result"], json!([]));
    assert_eq!(
        api.data("query", "query=up&time=2000&lookback_delta=20m").await["result"].as_array().unwrap().len(),
        2
    );

    let noted = api.get("query?query=rate(up[1m])&time=600").await.json();
    assert_eq!(
        noted["infos"],
        json!([
            "PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: \"up\" (1:6)"
        ])
    );
}

#[tokio::test]
async fn form_in_the_body_comes_before_the_url() {
    let api = api();
    let answer = api.post("query?query=2&time=5", "query=1").await;
    assert_eq!(answer.text, r#"{"status":"success","data":{"resultType":"scalar","result":[5,"1"]}}"#);
    // Without the content type of a form the body says nothing.
    let request = Request::post("/api/v1/query?query=2&time=5").body(Body::from("query=1")).unwrap();
    assert_eq!(api.send(request).await.json()["data"]["result"], json!([5, "2"]));
    let many = api.post("series?match[]=up", "match[]=http_requests_total{code=\"200\"}").await.json();
    assert_eq!(many["data"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn exemplars_are_an_empty_list_or_nothing() {
    let api = api();
    // Grafana asks with milliseconds where seconds are meant.
    let asked = api.both("query_exemplars", "query=test&start=1700000000000&end=1700003600000").await;
    assert_eq!((asked.status.as_u16(), asked.text.as_str()), (200, r#"{"status":"success","data":[]}"#));
    let nothing = api.both("query_exemplars", "query=1%2B1").await;
    assert_eq!((nothing.status.as_u16(), nothing.text.as_str()), (204, ""));
}

#[tokio::test]
async fn engine_options_reach_the_engine() {
    let api = api_of(Arc::new(sample_data()), |c| {
        c.engine = EngineOptions { max_samples: 3, ..EngineOptions::default() };
    });
    let (status, kind, text) = api.error("query", "query=http_requests_total[10m]").await;
    assert_eq!((status, kind.as_str()), (422, "execution"));
    assert!(text.starts_with("query processing would load too many samples into memory"), "{text}");
}

/// Says that windows of an hour answered until 300 s, of five minutes until 600 s and samples from there on.
struct Told(MemorySource);

impl Source for Told {
    fn select(&self, selection: &Selection) -> Result<Box<dyn SeriesCursor + '_>, SourceError> {
        let windows = &selection.hints.rollups;
        for (min_t_ms, max_t_ms, resolution_ms) in
            [(1, 300_000, 3_600_000), (300_001, 600_000, 300_000), (600_001, 900_000, 0)]
        {
            let coarse = resolution_ms > windows.max_resolution_ms;
            let approximate = false;
            let part =
                model::source::ResolutionPart { min_t_ms, max_t_ms, resolution_ms, coarse, approximate };
            windows.report.as_ref().expect("every selection of a query can tell").note(part);
        }
        self.0.select(selection)
    }

    fn series(&self, query: &LabelQuery) -> Result<Vec<Labels>, SourceError> {
        self.0.series(query)
    }
}

#[tokio::test]
async fn answer_says_which_resolution_it_came_from() {
    let api = api_of(Arc::new(Told(sample_data())), |_| {});
    // More evaluations than are told apart one by one, each at a multiple of five minutes.
    let range = "start=0&end=6000&step=300&query=sum(up)";
    let answer = api.get(&format!("query_range?{range}&stats=true")).await;
    assert_eq!(
        answer.headers["x-hearth-resolution"],
        "~1h=1970-01-01T00:00:00.001Z/1970-01-01T00:05:00Z;5m=1970-01-01T00:05:00.001Z/1970-01-01T00:10:00Z;\
         raw=1970-01-01T00:10:00.001Z/1970-01-01T00:15:00Z"
    );
    let json = answer.json();
    let parts = json["data"]["stats"]["resolutions"].as_array().unwrap();
    assert_eq!(parts.len(), 3);
    assert_eq!(
        parts[1],
        json!({"resolution": "5m", "start": "1970-01-01T00:05:00.001Z", "end": "1970-01-01T00:10:00Z", "exact": true})
    );
    let warning = json["warnings"][0].as_str().unwrap();
    assert!(warning.contains("downsampled to 1h") && warning.contains("nothing finer is kept"), "{warning}");
    // What is asked for is not remarked on as missing; with `raw` nothing coarser is exact.
    let allowed = api.get(&format!("query_range?{range}&max_source_resolution=1h")).await;
    assert!(allowed.json()["warnings"][0].as_str().unwrap().contains("as max_source_resolution allows"));
    for (value, approximate) in
        [("auto", 1), ("5m", 1), ("0s", 2), ("0", 2), ("raw", 2), ("300", 1), ("1h0m", 1)]
    {
        let answer = api.get(&format!("query_range?{range}&max_source_resolution={value}")).await;
        let told = answer.headers["x-hearth-resolution"].to_str().unwrap();
        assert_eq!(told.matches('~').count(), approximate, "{value}: {told}");
    }
    for bad in ["coarse", "-5m", "-1"] {
        let (status, kind, text) = api.error("query", &format!("query=up&max_source_resolution={bad}")).await;
        assert_eq!((status, kind.as_str()), (400, "bad_data"), "{text}");
        assert!(text.contains("max_source_resolution"), "{text}");
    }
    // Nothing was read; samples alone.
    assert!(!api.get("query?query=1%2B1").await.headers.contains_key("x-hearth-resolution"));
    let plain = self::api().get("query?query=up&time=600").await;
    assert_eq!(plain.headers["x-hearth-resolution"], "raw=1970-01-01T00:05:00.001Z/1970-01-01T00:10:00Z");
}
