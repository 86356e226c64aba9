//! Where settings come from: flag over environment over file over default, with every complaint naming its
//! place.

pub mod file;
pub mod limits;
pub mod retention;
pub mod table;
pub mod value;

use std::fmt;
use std::path::{Path, PathBuf};

use clap::ArgMatches;
use clap::parser::ValueSource;

use crate::secrets::{names_secret, redacted};
pub use table::{OptionSpec, Settings, TABLE};

/// The file that is read when none is named, if it is there.
pub const DEFAULT_FILE: &str = "hearth.yaml";

/// Where a value was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Default,
    File { path: PathBuf, line: u64, column: u64 },
    Env,
    Flag,
}

/// Settings with the place each came from, in the order of [`TABLE`].
#[derive(Clone, Debug)]
pub struct Loaded {
    pub settings: Settings,
    pub origins: Vec<Origin>,
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// What looks like a mistake and stops nothing.
    pub warnings: Vec<String>,
}

/// Everything that is wrong with the configuration, one complaint a line.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigError(pub Vec<String>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

/// Merges what the command line, the environment and the file say. `env_names` are the names of all variables
/// there are.
pub fn load(matches: &ArgMatches, env_names: impl Iterator<Item = String>) -> Result<Loaded, ConfigError> {
    let mut loaded = Loaded {
        settings: Settings::default(),
        origins: vec![Origin::Default; TABLE.len()],
        file: None,
        warnings: Vec::new(),
    };
    let mut wrong = Vec::new();
    let named = matches.get_one::<PathBuf>("config");
    let path = named.cloned().unwrap_or_else(|| DEFAULT_FILE.into());
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            apply_file(&path, &text, &mut loaded, &mut wrong);
            loaded.file = Some(path);
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && named.is_none() => {}
        Err(e) => wrong.push(format!("{}: cannot be read: {e}", path.display())),
    }
    for (at, option) in TABLE.iter().enumerate() {
        let (origin, place) = match matches.value_source(option.key) {
            Some(ValueSource::CommandLine) => (Origin::Flag, format!("--{}", option.flag())),
            Some(ValueSource::EnvVariable) => (Origin::Env, format!("environment: {}", option.env())),
            _ => continue,
        };
        let given: Vec<&str> =
            matches.get_many::<String>(option.key).into_iter().flatten().map(String::as_str).collect();
        let text = given.join(",");
        match (option.set)(&mut loaded.settings, &text) {
            Ok(()) => loaded.origins[at] = origin,
            Err(why) => wrong.push(format!("{place}: {:?} {}", redacted(&text), redacted(&why))),
        }
    }
    loaded.warnings = strangers(env_names);
    if wrong.is_empty() { Ok(loaded) } else { Err(ConfigError(wrong)) }
}

fn apply_file(path: &Path, text: &str, loaded: &mut Loaded, wrong: &mut Vec<String>) {
    let shown = path.display();
    let entries = match file::read(text) {
        Ok(entries) => entries,
        Err(file::Malformed { line: Some(line), column: Some(column), what }) => {
            return wrong.push(format!("{shown}:{line}:{column}: {what}"));
        }
        Err(e) => return wrong.push(format!("{shown}: {}", e.what)),
    };
    for file::Entry { key, value, line, column } in entries {
        let Some(at) = TABLE.iter().position(|o| o.key == key) else {
            let names = TABLE.iter().map(|o| o.key);
            let section = TABLE.iter().any(|o| o.key.starts_with(&format!("{key}.")));
            let hint = match table::closest(&key, names) {
                _ if section => format!(
                    "it is a section: put its keys below it, indented{}",
                    if value.is_empty() { "" } else { ", instead of a value" }
                ),
                Some(close) => format!("did you mean {close}?"),
                None => "`hearth --help` lists all keys".to_owned(),
            };
            // A section has places for secrets.
            let value = match (names_secret(&key), section) {
                (true, _) => "secret".to_owned(),
                (_, true) => "not shown".to_owned(),
                _ => format!("{:?}", redacted(&value)),
            };
            wrong
                .push(format!("{shown}:{line}:{column}: unknown key {key:?} (its value is {value}): {hint}"));
            continue;
        };
        match (TABLE[at].set)(&mut loaded.settings, &value) {
            Ok(()) => loaded.origins[at] = Origin::File { path: path.to_owned(), line, column },
            Err(why) => wrong.push(format!(
                "{shown}:{line}:{column}: {key}: {:?} {}",
                redacted(&value),
                redacted(&why)
            )),
        }
    }
}

/// Variables that begin as ours do and mean nothing. They only warn: Kubernetes sets `HEARTH_SERVICE_HOST`,
/// `HEARTH_PORT` and more of the kind in every pod beside a Service of that name.
fn strangers(env_names: impl Iterator<Item = String>) -> Vec<String> {
    let known: Vec<String> = TABLE.iter().map(OptionSpec::env).chain(["HEARTH_CONFIG".into()]).collect();
    let mut out: Vec<String> = env_names
        .filter(|n| n.starts_with("HEARTH_") && !known.contains(n))
        .filter(|n| !n.starts_with("HEARTH_SERVICE_") && n != "HEARTH_PORT" && !n.starts_with("HEARTH_PORT_"))
        .map(|n| match table::closest(&n, known.iter().map(String::as_str)) {
            Some(close) => format!("environment: {n} means nothing here: did you mean {close}?"),
            None => format!("environment: {n} means nothing here"),
        })
        .collect();
    out.sort();
    out
}

/// The settings in force as a file that says the same, each line with its origin.
pub fn print(loaded: &Loaded) -> String {
    let mut out = String::new();
    let mut section = "";
    // Keys without a section first: after one, they would be read as its part.
    let mut order: Vec<usize> = (0..TABLE.len()).collect();
    order.sort_by_key(|at| TABLE[*at].key.split_once('.').map_or("", |(s, _)| s));
    for at in order {
        let option = &TABLE[at];
        let name = match option.key.split_once('.') {
            Some((s, name)) => {
                if s != section {
                    out += &format!("{s}:\n");
                    section = s;
                }
                format!("  {name}")
            }
            None => option.key.to_owned(),
        };
        let origin = match &loaded.origins[at] {
            Origin::Default => "default".to_owned(),
            Origin::File { path, line, .. } => format!("{}:{line}", path.display()),
            Origin::Env => option.env(),
            Origin::Flag => format!("--{}", option.flag()),
        };
        out += &format!("{name}: {}  # {origin}\n", scalar(&(option.show)(&loaded.settings)));
    }
    out
}

/// A text as YAML reads it back: plain where that is safe, else in double quotes as JSON has them.
fn scalar(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '.' || c == '/')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b));
    if plain { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_name_key_value_and_line() {
        let text =
            "listen: nowhere\nquery:\n  tiemout: 2m\n  lookback: soon\nobjstore:\n  url: x\nwal: always\n";
        let mut loaded = Loaded {
            settings: Settings::default(),
            origins: vec![Origin::Default; TABLE.len()],
            file: None,
            warnings: vec![],
        };
        let mut wrong = Vec::new();
        apply_file(Path::new("h.yaml"), text, &mut loaded, &mut wrong);
        let starts = [
            "h.yaml:1:1: listen: \"nowhere\" is not HOST:PORT",
            "h.yaml:3:3: unknown key \"query.tiemout\" (its value is \"2m\"): did you mean query.timeout?",
            "h.yaml:4:3: query.lookback: \"soon\" is not a duration",
            "h.yaml:6:3: unknown key \"objstore.url\" (its value is \"x\"): did you mean objstore?",
            "h.yaml:7:1: unknown key \"wal\" (its value is not shown): it is a section",
        ];
        assert_eq!(wrong.len(), starts.len(), "{wrong:#?}");
        for (line, start) in wrong.iter().zip(starts) {
            assert!(line.starts_with(start), "{line}\nshould start with\n{start}");
        }
    }

    #[test]
    fn printed_settings_read_back_the_same() {
        let mut settings = Settings::default();
        for (key, value) in [
            ("listen", ":1"),
            ("objstore", "s3://b/p"),
            ("enable_feature", "promql-duration-expr"),
            ("wal.sync", "100ms"),
        ] {
            (table::find(key).unwrap().set)(&mut settings, value).unwrap();
        }
        let loaded =
            Loaded { settings, origins: vec![Origin::Default; TABLE.len()], file: None, warnings: vec![] };
        let mut again = Loaded { settings: Settings::default(), ..loaded.clone() };
        let mut wrong = Vec::new();
        apply_file(Path::new("again.yaml"), &print(&loaded), &mut again, &mut wrong);
        assert_eq!(wrong, Vec::<String>::new());
        for option in TABLE {
            assert_eq!((option.show)(&again.settings), (option.show)(&loaded.settings), "{}", option.key);
        }
    }

    #[test]
    fn variables_that_kubernetes_sets_are_no_mistake() {
        let names = [
            "HEARTH_SERVICE_HOST",
            "HEARTH_PORT",
            "HEARTH_PORT_9494_TCP",
            "HEARTH_LISTEN",
            "PATH",
            "HEARTH_LISTN",
        ];
        let warned = strangers(names.into_iter().map(str::to_owned));
        assert_eq!(warned, ["environment: HEARTH_LISTN means nothing here: did you mean HEARTH_LISTEN?"]);
    }
}
