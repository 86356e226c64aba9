//! The parser and the plan on offer: `format_query`, `parse_query`, `explain`.

use serde_json::{Value, json};

use super::frame::api;

#[tokio::test]
async fn parse_query_and_format_query_offer_the_parser() {
    let api = api();
    assert_eq!(api.data("format_query", "query=foo/bar").await, json!("foo / bar"));
    assert_eq!(
        api.error("format_query", "query=invalid_expression/").await,
        (
            400,
            "bad_data".into(),
            "invalid parameter \"query\": 1:20: parse error: unexpected end of input".into()
        )
    );
    let tree = api.data("parse_query", "query=sum by (job)(rate(foo{a!=\"b\"}[5m] offset 1m @ 3)) %2B on(x) group_left(y) (-bar) > bool 2").await;
    assert_eq!(tree["type"], "binaryExpr");
    assert_eq!((&tree["op"], &tree["bool"]), (&json!(">"), &json!(true)));
    assert_eq!(tree["rhs"], json!({"type": "numberLiteral", "val": "2"}));
    assert_eq!(tree["matching"], Value::Null);
    let plus = &tree["lhs"];
    assert_eq!(
        plus["matching"],
        json!({"card": "many-to-one", "labels": ["x"], "on": true, "include": ["y"], "fillValues": {"lhs": null, "rhs": null}})
    );
    assert_eq!(plus["rhs"]["type"], "parenExpr");
    assert_eq!(
        (&plus["rhs"]["expr"]["type"], &plus["rhs"]["expr"]["op"]),
        (&json!("unaryExpr"), &json!("-"))
    );
    let sum = &plus["lhs"];
    assert_eq!(
        (&sum["type"], &sum["op"], &sum["grouping"]),
        (&json!("aggregation"), &json!("sum"), &json!(["job"]))
    );
    assert_eq!((&sum["param"], &sum["without"]), (&Value::Null, &json!(false)));
    let rate = &sum["expr"];
    assert_eq!(
        rate["func"],
        json!({"name": "rate", "argTypes": ["matrix"], "variadic": 0, "returnType": "vector"})
    );
    assert_eq!(
        rate["args"][0],
        json!({
            "type": "matrixSelector", "name": "foo", "range": 300_000, "rangeExpr": null, "offset": 60_000,
            "offsetExpr": null, "timestamp": 3000, "startOrEnd": null, "anchored": false, "smoothed": false,
            "matchers": [{"name": "a", "type": "!=", "value": "b"}, {"name": "__name__", "type": "=", "value": "foo"}],
        })
    );
    let tree = api.data("parse_query", "query=max_over_time(foo[1h:5m] @ end())").await;
    assert_eq!(tree["args"][0]["type"], "subquery");
    assert_eq!((&tree["args"][0]["step"], &tree["args"][0]["startOrEnd"]), (&json!(300_000), &json!("end")));
    // A long chain is walked without depth of its own.
    let chain = vec!["1"; 1500].join("%2B");
    let tree = api.both("parse_query", &format!("query={chain}")).await;
    assert_eq!(tree.status, 200);
    assert_eq!(tree.text.matches("binaryExpr").count(), 1499);
}

#[tokio::test]
async fn explain_shows_the_plan_and_what_it_did() {
    let api = api();
    let plan = api.data("explain", "query=sum(rate(up[1m]))&start=60&end=120&step=30").await;
    assert_eq!(plan["lookback"], 300);
    assert!(plan.get("stats").is_none());
    let sum = &plan["plan"];
    assert_eq!((&sum["kind"], &sum["name"]), (&json!("aggregation"), &json!("sum")));
    assert_eq!(
        (&sum["text"], &sum["span"], &sum["steps"]),
        (&json!("sum(rate(up[1m]))"), &json!([0, 17]), &json!(3))
    );
    assert!(sum.get("analysis").is_none());
    let up = &sum["children"][0]["children"][0];
    assert_eq!(up["kind"], "matrixSelector");
    assert_eq!(
        up["selector"],
        json!({
            "matchers": ["__name__=\"up\""], "offset": 0, "at": null, "reads": {"start": 0.001, "end": 120},
            "selection": 0, "shared": false, "hints": {"step": 30, "range": 60, "func": "rate"}
        })
    );
    assert_eq!(up["window"], json!({"range": 60, "offset": 0, "at": null}));

    let answer = api.get("explain?query=sum(up)&time=60&analyze=true").await.json();
    let (plan, stats) = (&answer["data"]["plan"], &answer["data"]["stats"]);
    assert_eq!(plan["analysis"]["series"], 1);
    assert_eq!(plan["children"][0]["analysis"]["series"], 2);
    assert_eq!(plan["children"][0]["analysis"]["samplesRead"], plan["analysis"]["totalSamplesRead"]);
    assert_eq!(stats["samples"]["samplesRead"], 2);
    assert!(plan["analysis"]["totalTime"].as_f64() <= stats["timings"]["execTotalTime"].as_f64());
    assert_eq!(
        api.get("explain?query=rate(up[1m])&analyze=1").await.json()["infos"].as_array().unwrap().len(),
        1
    );

    let bad = |text: &str| (400, "bad_data".to_string(), text.to_string());
    for (form, error) in [
        ("query=up&analyze=x", "invalid parameter \"analyze\": \"x\" is neither true nor false"),
        ("query=up&start=1", "invalid parameter \"end\": cannot parse \"\" to a valid timestamp"),
        (
            "query=up[1m]&start=1&end=2&step=1",
            "invalid parameter \"query\": invalid expression type \"range vector\" for range query, must be Scalar or instant Vector",
        ),
        (
            "query=",
            "invalid parameter \"query\": unknown position: parse error: no expression found in input",
        ),
    ] {
        assert_eq!(api.error("explain", form).await, bad(error), "{form}");
    }
    // A chain is as deep in JSON as it is long; what reads it has to be ready for that, what writes it is.
    let chain = format!("query=up{}&analyze=true", "%2B1".repeat(1_500));
    let answer = api.post("explain", &chain).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.text.matches("\"kind\":\"binaryExpr\"").count(), 1_500);
}
