//! Parameters of Thanos' query API: what would make an answer wrong is refused or obeyed.

use std::sync::Arc;

use serde_json::json;

use super::frame::{api, api_of, sample_data};

#[tokio::test]
async fn thanos_shards_are_refused_everywhere() {
    let api = api();
    let shard = "shard_info=%7B%22shard_index%22%3A0%2C%22total_shards%22%3A2%7D";
    for (endpoint, form) in [
        ("query", "query=sum(up)"),
        ("query_range", "query=sum(up)&start=0&end=60&step=15"),
        ("series", "match[]=up"),
        ("labels", ""),
        ("explain", "query=sum(up)"),
        ("estimate", "query=sum(up)"),
    ] {
        let (status, kind, text) = api.error(endpoint, &format!("{form}&{shard}")).await;
        assert_eq!((status, kind.as_str()), (400, "bad_data"), "{endpoint}");
        assert!(text.starts_with("invalid parameter \"shard_info\": "), "{text}");
    }
    assert_eq!(api.get(&format!("label/job/values?{shard}")).await.status, 400);
    assert_eq!(api.data("query", "query=1&shard_info=").await["resultType"], "scalar");
}

#[tokio::test]
async fn thanos_store_match_of_another_store_is_an_empty_answer_with_a_warning() {
    let api = api_of(Arc::new(sample_data()), |c| c.addresses = vec!["hearth:9494".into()]);
    let other = "storeMatch[]={__address__=\"other:10901\"}";
    let own = "storeMatch[]={__address__=~\"hearth:.*\"}";
    for (endpoint, empty) in [
        ("query?query=up", json!({"resultType": "vector", "result": []})),
        ("query_range?query=up&start=0&end=60&step=15", json!({"resultType": "matrix", "result": []})),
        ("series?match[]=up", json!([])),
        ("labels?", json!([])),
        ("label/job/values?", json!([])),
    ] {
        let answer = api.get(&format!("{endpoint}&{other}")).await.json();
        assert_eq!(answer["data"], empty, "{endpoint}");
        assert_eq!(answer["warnings"], json!(["No StoreAPIs matched for this query"]), "{endpoint}");
        let all = api.get(endpoint).await.json();
        assert_ne!(all["data"], empty, "{endpoint}");
        assert_eq!(api.get(&format!("{endpoint}&{own}")).await.json(), all, "{endpoint}");
        // One of several is enough.
        assert_eq!(api.get(&format!("{endpoint}&{other}&{own}")).await.json(), all, "{endpoint}");
    }
    let (status, _, text) = api.error("query", "query=1&storeMatch[]=%7B").await;
    assert_eq!(status, 400, "{text}");
    let (status, _, text) = api.error("query", "query=1&engine=vm").await;
    assert_eq!(
        (status, text.as_str()),
        (400, "invalid parameter \"engine\": \"vm\" is neither prometheus nor thanos")
    );
    let (status, _, text) = api.error("query", "query=1&partial_response=x").await;
    assert!(status == 400 && text.contains("partial_response"), "{text}");
}
