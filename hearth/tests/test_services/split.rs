//! Processes of roles, on one bucket.

use std::path::Path;

use super::Start;
use super::ceph::Ceph;

/// What members show one another.
pub const TOKEN: &str = "a-secret-of-the-members";

/// The bucket.
pub const BUCKET: &str = "s3://split/prod";

/// A process of a role. `more` is added to its settings of members.
pub fn start(folder: &Path, name: &str, role: &str, ceph: &Ceph, more: &str) -> Start {
    start_with(folder, name, role, ceph, more, "")
}

/// The same with further settings.
pub fn start_with(folder: &Path, name: &str, role: &str, ceph: &Ceph, more: &str, further: &str) -> Start {
    let folder = folder.join(name);
    std::fs::create_dir_all(&folder).expect("a folder for a Hearth");
    std::fs::write(folder.join("token"), TOKEN).expect("a token can be written");
    let mut start = Start::at(&folder).config(&format!(
        "role: {role}\nmembers: {{token_file: token, interval: 2s{more}}}\ncompactor: {{interval: 2s, late_wait: 0s}}\nself_metrics_interval: 0\n{further}"
    ));
    start.objstore = Some(BUCKET.to_owned());
    start.env = ceph.environment();
    start
}
