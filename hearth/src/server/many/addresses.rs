//! Where members are said to be: fixed addresses, and sources that are followed while the process runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use discovery::dns::{self, Kind, Names};
use discovery::{Discovery, Followed};
use futures::future::select_all;
use members::ingesters::Ingesters;
use rules::sources::Sources;

use crate::config::Settings;
use crate::config::value::{Span, Value};
use crate::live_file::{LiveFile, Read};
use crate::secrets::redacted;

/// How long a start waits until sources are read; who is not found until then is where its record says.
const FIRST_LOOK: Duration = Duration::from_secs(5);

const SETTING: &str = "members.discovery_file";

/// What settings say of where members are.
pub struct Addresses {
    /// By name.
    pub fixed: BTreeMap<String, String>,
    /// URLs of whoever answers there.
    urls: Vec<String>,
    sources: Vec<Sources>,
    file: Option<LiveFile<File>>,
}

/// What the file says.
struct File {
    /// To see whether it has changed.
    text: String,
    sources: Arc<Sources>,
}

impl Addresses {
    /// Reads `members.addresses` and `members.discovery_file`.
    pub fn of(settings: &Settings) -> Result<Addresses, String> {
        let path: PathBuf = settings.members_discovery_file.0.clone();
        let file = match path.as_os_str().is_empty() {
            true => None,
            false => Some(LiveFile::open(SETTING, move || read(&path))?),
        };
        let (fixed, urls, sources) = (BTreeMap::new(), Vec::new(), Vec::new());
        let mut all = Addresses { fixed, urls, sources, file };
        for text in settings.members_addresses.with_secrets() {
            all.add(text).map_err(|why| {
                format!(
                    "members.addresses: {:?} {why}: write NAME=URL (names as `hearth bucket members` shows them), http://HOST:PORT, dns+http://NAME:PORT or dnssrv+http://NAME",
                    redacted(text)
                )
            })?;
        }
        Ok(all)
    }

    fn add(&mut self, text: &str) -> Result<(), String> {
        let is_url = |text: &str| text.starts_with("http://") || text.starts_with("https://");
        if let Some((kind, url)) = [("dns+", Kind::Both), ("dnssrv+", Kind::Srv)]
            .into_iter()
            .find_map(|(prefix, kind)| text.strip_prefix(prefix).map(|url| (kind, url)))
        {
            self.sources.push(of_dns(kind, url)?);
            return Ok(());
        }
        if is_url(text) {
            self.urls.push(text.trim_end_matches('/').to_owned());
            return Ok(());
        }
        match text.split_once('=') {
            Some((name, url)) if !name.is_empty() && is_url(url.trim()) => {
                self.fixed.insert(name.trim().to_owned(), url.trim().to_owned());
                Ok(())
            }
            _ => Err("is no address".into()),
        }
    }

    /// Follows all sources, and asks whoever is found who it is, before this returns for the first time.
    pub async fn follow(self, ingesters: Arc<Ingesters>, every: Duration) {
        if self.urls.is_empty() && self.sources.is_empty() && self.file.is_none() {
            return;
        }
        let mut following = Following::begin(&self);
        let looked = async {
            for (_, followed) in &mut following.sources {
                followed.looked().await;
            }
        };
        if tokio::time::timeout(FIRST_LOOK, looked).await.is_err() {
            tracing::warn!("not all sources of members' addresses have answered within {FIRST_LOOK:?}");
        }
        ingesters.meet(&following.urls(&self.urls)).await;
        tokio::spawn(async move {
            loop {
                following.wait(every).await;
                following = following.renewed(&self).await;
                ingesters.meet(&following.urls(&self.urls)).await;
            }
        });
    }
}

/// Sources at work.
struct Following {
    sources: Vec<(Arc<Sources>, Followed)>,
    /// What the file said when this began.
    file: Option<Arc<File>>,
}

impl Following {
    fn begin(addresses: &Addresses) -> Following {
        let file = addresses.file.as_ref().map(LiveFile::get);
        let all = addresses.sources.iter().cloned().map(Arc::new);
        let all = all.chain(file.as_ref().map(|file| file.sources.clone()));
        let sources = all.map(|sources| {
            let followed = Followed::begin(&sources.discoveries);
            (sources, followed)
        });
        Following { sources: sources.collect(), file }
    }

    /// The same, or another where the file has changed.
    async fn renewed(self, addresses: &Addresses) -> Following {
        let Some(file) = addresses.file.clone() else { return self };
        let _ = tokio::task::spawn_blocking({
            let file = file.clone();
            move || file.refresh()
        })
        .await;
        let is_same = |before: &Arc<File>| before.text == file.get().text;
        if self.file.as_ref().is_some_and(is_same) {
            return self;
        }
        let mut new = Following::begin(addresses);
        for (_, followed) in &mut new.sources {
            let _ = tokio::time::timeout(FIRST_LOOK, followed.looked()).await;
        }
        new
    }

    /// Until something is found, or for so long.
    async fn wait(&mut self, longest: Duration) {
        let changes = self.sources.iter_mut().map(|(_, followed)| {
            Box::pin(async {
                if !followed.changed().await {
                    std::future::pending::<()>().await;
                }
            })
        });
        let changes: Vec<_> = changes.collect();
        if changes.is_empty() {
            return tokio::time::sleep(longest).await;
        }
        let _ = tokio::time::timeout(longest, select_all(changes)).await;
    }

    fn urls(&self, fixed: &[String]) -> Vec<String> {
        let found = self.sources.iter().flat_map(|(sources, followed)| sources.urls(&followed.groups()));
        fixed.iter().cloned().chain(found).collect()
    }
}

/// `http://NAME:PORT/PREFIX?server=ADDRESS:PORT&refresh=30s`, behind what says which records.
fn of_dns(kind: Kind, url: &str) -> Result<Sources, String> {
    let url = reqwest::Url::parse(url).map_err(|e| format!("is not a URL ({e})"))?;
    let name = url.host_str().filter(|_| matches!(url.scheme(), "http" | "https"));
    let name = name.ok_or("is of another scheme than http and https")?;
    let (mut server, mut refresh) = (None, dns::REFRESH);
    for (key, value) in url.query_pairs() {
        match &*key {
            "server" => {
                let address = value
                    .parse()
                    .map_err(|_| format!("names the DNS server {value:?}, which is not ADDRESS:PORT"))?;
                server = Some(address);
            }
            "refresh" => refresh = Span::parse(&value).map_err(|why| format!("has a refresh that {why}"))?.0,
            other => {
                return Err(format!("has the parameter {other:?}, only `server` and `refresh` are known"));
            }
        }
    }
    let port = match (kind, url.port()) {
        (Kind::Srv, Some(_)) => return Err("has a port, which SRV records bring themselves".into()),
        (Kind::Srv, None) => 0,
        (_, Some(port)) => port,
        (_, None) => return Err("has no port".into()),
    };
    let names = Names { names: vec![name.to_owned()], kind, port, server, refresh };
    Ok(Sources {
        scheme: url.scheme().to_owned(),
        path_prefix: url.path().trim_end_matches('/').to_owned(),
        discoveries: vec![Discovery::Dns(names)],
        ..Sources::default()
    })
}

fn read(path: &Path) -> Result<Read<File>, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let sources = Sources::parse(&text, folder).map_err(|e| format!("{}:{e}", path.display()))?;
    let value = File { text, sources: Arc::new(sources) };
    Ok(Read { value, files: vec![path.to_owned()] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::value::{Path as PathSetting, Urls};

    fn of(texts: &[&str]) -> Result<Addresses, String> {
        let members_addresses = Urls::parse(&texts.join(",")).unwrap();
        let settings = Settings { members_addresses, ..Settings::default() };
        Addresses::of(&settings)
    }

    #[test]
    fn addresses_are_names_urls_and_dns() {
        let all = of(&[
            "a=http://b:1",
            "https://c:2/x/",
            "dns+http://d:3/y?server=127.0.0.1:53&refresh=5s",
            "dnssrv+https://_h._tcp.e",
        ])
        .unwrap();
        assert_eq!(all.fixed["a"], "http://b:1");
        assert_eq!(all.urls, ["https://c:2/x"]);
        let [d, e] = &all.sources[..] else { panic!("{:?}", all.sources) };
        assert_eq!((d.scheme.as_str(), d.path_prefix.as_str()), ("http", "/y"));
        let Discovery::Dns(names) = &d.discoveries[0] else { panic!() };
        assert_eq!(
            (names.port, names.kind, names.server),
            (3, Kind::Both, Some(([127, 0, 0, 1], 53).into()))
        );
        assert_eq!(names.refresh, Duration::from_secs(5));
        let Discovery::Dns(names) = &e.discoveries[0] else { panic!() };
        assert_eq!((names.names.join(""), names.kind), ("_h._tcp.e".to_owned(), Kind::Srv));
        for (bad, says) in [
            ("a", "is no address: write NAME=URL"),
            ("a=ftp://b", "is no address"),
            ("dns+http://d", "has no port"),
            ("dns+ftp://d:1", "another scheme"),
            ("dns+http://d:1?server=x", "is not ADDRESS:PORT"),
            ("dns+http://d:1?timeout=1s", "only `server` and `refresh` are known"),
            ("dnssrv+http://d:1", "bring themselves"),
        ] {
            let why = of(&[bad]).err().unwrap();
            assert!(why.contains(says) && why.contains(bad), "{why}");
        }
    }

    #[test]
    fn discovery_file_that_is_wrong_is_refused_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("members.yml");
        std::fs::write(&path, "file_sd_configs:\n- {file: [a.json]}\n").unwrap();
        let members_discovery_file = PathSetting(path.clone());
        let settings = Settings { members_discovery_file, ..Settings::default() };
        let why = Addresses::of(&settings).err().unwrap();
        assert!(
            why.starts_with("members.discovery_file: ") && why.contains("members.yml:2:4: field file not"),
            "{why}"
        );
        std::fs::remove_file(&path).unwrap();
        assert!(Addresses::of(&settings).is_err());
    }
}
