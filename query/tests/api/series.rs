//! `series`, `labels`, label values and `metadata`.

use serde_json::json;

use super::frame::api;

#[tokio::test]
async fn series_labels_and_values() {
    let api = api();
    let up = |instance: &str| json!({"__name__": "up", "instance": instance, "job": "node"});
    assert_eq!(api.data("series", "match[]=up").await, json!([up("a:9100"), up("b:9100")]));
    assert_eq!(
        api.data("series", "match[]=up&match[]=up{instance=\"a:9100\"}").await,
        json!([up("a:9100"), up("b:9100")])
    );
    assert_eq!(api.data("series", "match[]=nothing").await, json!([]));
    assert_eq!(api.data("series", "match[]=up&start=5000&end=6000").await, json!([]));
    let cut = api.both("series", "match[]=up&limit=1").await.json();
    assert_eq!(
        cut,
        json!({"status": "success", "data": [up("a:9100")], "warnings": ["results truncated due to limit"]})
    );

    assert_eq!(api.data("labels", "").await, json!(["__name__", "code", "http.path", "instance", "job"]));
    assert_eq!(api.data("labels", "match[]=up").await, json!(["__name__", "instance", "job"]));
    let cut = api.both("labels", "limit=1").await.json();
    assert_eq!(
        cut,
        json!({"status": "success", "data": ["__name__"], "warnings": ["results truncated due to limit"]})
    );

    for (uri, want) in [
        ("label/job/values", json!(["node"])),
        ("label/__name__/values", json!(["http_requests_total", "up"])),
        (
            "label/__name__/values?match[]={code=\"200\"}&match[]={job=\"node\",instance=\"a:9100\"}",
            json!(["http_requests_total", "up"]),
        ),
        ("label/U__http_2e_path/values", json!(["/<x>"])),
        ("label/http.path/values", json!(["/<x>"])),
        ("label/nothing/values", json!([])),
        ("label/__name__/values?match[]={__name__!=\"\"}&limit=40000", json!(["http_requests_total", "up"])),
        ("label/code/values?start=0&end=10", json!(["200", "404", "500"])),
        ("label/code/values?start=1e6", json!([])),
    ] {
        let answer = api.get(uri).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["data"]), (200, &want), "{uri}");
    }
    assert!(api.get("label/http.path/values").await.text.contains(r#"["/\u003cx\u003e"]"#));
    assert_eq!(api.post("label/job/values", "").await.status, 405);
    assert_eq!(api.get("label/U__/values").await.json()["error"], "invalid label name: \"\"");
}

/// Upstream's own first and last time, as proxies and Thanos' client send an open range.
#[tokio::test]
async fn open_range_as_numbers_is_all_of_time() {
    let api = api();
    let open = "start=-9223309901257974&end=9223309901257974";
    let up = |instance: &str| json!({"__name__": "up", "instance": instance, "job": "node"});
    assert_eq!(api.data("series", &format!("match[]=up&{open}")).await, json!([up("a:9100"), up("b:9100")]));
    let names = json!(["__name__", "code", "http.path", "instance", "job"]);
    assert_eq!(api.data("labels", open).await, names);
    let values = api.get(&format!("label/job/values?{open}")).await;
    assert_eq!((values.status.as_u16(), &values.json()["data"]), (200, &json!(["node"])));
    let exemplars = api.get(&format!("query_exemplars?query=up&{open}")).await;
    assert_eq!((exemplars.status.as_u16(), &exemplars.json()["data"]), (200, &json!([])));
    let beyond = api.get("labels?start=-9223309901257974000&end=0").await;
    assert_eq!(beyond.status, 400, "{}", beyond.text);
}

#[tokio::test]
async fn metadata_is_limited_in_two_ways() {
    let api = api();
    let all = api.get("metadata").await;
    assert_eq!(
        all.text,
        r#"{"status":"success","data":{"http_requests_total":[{"type":"counter","unit":"","help":"Requests."}],"up":[{"type":"gauge","unit":"","help":"Is it \u003cup\u003e?"},{"type":"unknown","unit":"","help":""}]}}"#
    );
    let keys = async |uri: &str| -> Vec<String> {
        api.get(uri).await.json()["data"].as_object().unwrap().keys().cloned().collect()
    };
    assert_eq!(keys("metadata?limit=1").await, ["http_requests_total"]);
    assert_eq!(keys("metadata?limit=0").await, [""; 0]);
    assert_eq!(keys("metadata?limit=40000").await.len(), 2);
    assert_eq!(keys("metadata?metric=up").await, ["up"]);
    assert_eq!(
        api.get("metadata?limit_per_metric=1").await.json()["data"]["up"].as_array().unwrap().len(),
        1
    );
}
