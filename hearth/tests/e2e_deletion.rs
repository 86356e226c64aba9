//! Deletion through the binary: at once, after a restart, and not what was written later.

mod test_services;

use std::path::Path;

use serde_json::Value;
use test_services::Running;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// The value of an instant query with one result; `None` for none.
fn value(running: &Running, query: &str) -> Option<String> {
    let (status, body) = running.get(&format!("/api/v1/query?query={query}"));
    assert_eq!(status, 200, "{body}");
    json(&body)["data"]["result"][0]["value"][1].as_str().map(str::to_string)
}

/// The newest snapshot of the catalog, as text.
fn stored(data: &Path) -> String {
    let folder = data.join("blocks/tenants/default/catalog");
    let files = std::fs::read_dir(&folder).expect("there is a catalog").map(|f| f.expect("a file").path());
    let newest = files.filter(|f| f.extension().is_some_and(|e| e == "json")).max().expect("a snapshot");
    std::fs::read_to_string(newest).expect("text")
}

const FORM: &str = "application/x-www-form-urlencoded";

#[test]
fn deleted_series_are_gone_at_once_and_stay_gone_after_a_kill() {
    let running = Running::start(&["--admin-api", "--self-metrics-interval", "1h"]);
    let count = "count(hearth_build_info)";
    assert_eq!(value(&running, count).as_deref(), Some("1"));
    let all = value(&running, "count(%7Bjob%3D%22hearth%22%7D)").expect("own metrics");
    let (status, body) =
        running.post("/api/v1/admin/tsdb/delete_series", FORM, b"match[]=hearth_build_info&match[]=up");
    assert_eq!((status, body.as_str()), (204, ""));
    assert_eq!(value(&running, count), None);
    let left: u32 =
        value(&running, "count(%7Bjob%3D%22hearth%22%7D)").expect("others").parse().expect("a number");
    assert_eq!(left + 2, all.parse::<u32>().expect("a number"));
    let names = |r: &Running| json(&r.get("/api/v1/label/__name__/values").1)["data"].to_string();
    assert!(!names(&running).contains("hearth_build_info"), "its name is gone too");
    // Carried out in the store too: no block holds it any more, and the catalog has forgotten that there was
    // a deletion.
    assert!(stored(&running.data_dir()).contains("tombstones"));
    let (status, body) = running.post("/api/v1/admin/tsdb/clean_tombstones", FORM, b"");
    assert_eq!((status, body.as_str()), (204, ""));
    assert!(!stored(&running.data_dir()).contains("tombstones"));
    let after = value(&running, "count(%7Bjob%3D%22hearth%22%7D)").expect("others");
    assert_eq!(after, left.to_string());
    // The next start writes its own metrics anew: they are younger than the deletion.
    let again = running.again();
    assert_eq!(value(&again, count).as_deref(), Some("1"));
    let times = json(&again.get("/api/v1/query?query=count_over_time(hearth_build_info%5B1h%5D)").1);
    assert_eq!(times["data"]["result"][0]["value"][1], "1", "what was deleted came back: {times}");
    let (status, body) = again.post("/api/v1/admin/tsdb/delete_series", FORM, b"match[]=up");
    assert_eq!(status, 500, "not allowed this time: {body}");
    assert!(body.contains("admin APIs disabled"), "{body}");
}
