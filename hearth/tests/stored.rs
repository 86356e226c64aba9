//! A data folder and a bucket that an earlier version wrote, read by this one: every sample is answered as
//! that version answered it.
//!
//! `hearth/tests/stored/README.md` says what is in them.

mod test_services;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use test_services::{Api, Start};

/// A question, and what the earlier version answered.
struct Question {
    path: String,
    parameters: Vec<(String, String)>,
    data: Value,
}

impl Question {
    fn read(line: &str) -> Question {
        let mut all: Value = serde_json::from_str(line).expect("a line of JSON");
        let text = |v: &Value| v.as_str().expect("a text").to_owned();
        let parameters = all["parameters"].as_array().expect("a list of pairs");
        let parameters = parameters.iter().map(|p| (text(&p[0]), text(&p[1]))).collect();
        Question { path: text(&all["path"]), parameters, data: in_one_order(all["data"].take()) }
    }

    fn ask(&self, api: &Api) -> Value {
        let pairs: Vec<_> = self.parameters.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        in_one_order(api.get(&self.path, &pairs).data())
    }
}

/// Series and label sets in an order of their own: that of an answer means nothing.
fn in_one_order(mut data: Value) -> Value {
    if let Some(result) = data.get_mut("result") {
        *result = in_one_order(result.take());
    } else if let Some(all) = data.as_array_mut()
        && all.iter().all(Value::is_object)
    {
        all.sort_by_key(|one| one.get("metric").or(one.get("seriesLabels")).unwrap_or(one).to_string());
    }
    data
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).unwrap_or_else(|e| panic!("{}: {e}", from.display())) {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        match path.is_dir() {
            true => copy(&path, &target),
            false => drop(std::fs::copy(&path, &target).expect("a copy")),
        }
    }
}

#[test]
fn stored_data_of_an_earlier_version_answers_the_same() {
    let stored = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stored/e6850e1");
    let folder = tempfile::tempdir().expect("a temporary folder");
    for part in ["data", "bucket"] {
        copy(&stored.join(part), &folder.path().join(part));
    }
    let answers = std::fs::read_to_string(stored.join("answers.jsonl")).expect("the answers");
    let questions: Vec<Question> = answers.lines().map(Question::read).collect();
    assert!(questions.len() > 20);
    let objstore = format!("file://{}", folder.path().join("bucket").display());
    let config = "self_metrics_interval: 0\ncompactor:\n  enabled: false\nexemplars:\n  retention: 0\n";
    let start = Start { objstore: Some(objstore.clone()), ..Start::at(folder.path()).config(config) };
    let mut hearth = start.ready();
    let check = |api: &Api, when: &str| {
        for q in &questions {
            let (path, parameters) = (&q.path, &q.parameters);
            assert_eq!(q.ask(api), q.data, "{when}: {path} {parameters:?}");
        }
    };
    check(&hearth.api, "as it was left");
    // From here on this version has written to it.
    hearth.api.flush();
    check(&hearth.api, "flushed");
    assert!(hearth.stop().success());
    let scratch: PathBuf = folder.path().join("compact");
    let compacted = Command::new(env!("CARGO_BIN_EXE_hearth"))
        .args(["compact", "--once", "--objstore", &objstore, "--data-dir"])
        .arg(scratch)
        .output()
        .expect("hearth compact runs");
    assert!(compacted.status.success(), "{}", String::from_utf8_lossy(&compacted.stderr));
    let hearth = hearth.again();
    let raw = |q: &&Question| q.path == "/api/v1/query";
    for q in questions.iter().filter(raw) {
        assert_eq!(q.ask(&hearth.api), q.data, "compacted: {:?}", q.parameters);
    }
}
