//! Under which names this process is reached.

use std::net::SocketAddr;

use crate::config::Settings;
use crate::secrets::without_user;
use crate::web_config;

/// The URL under which people reach this process, without a slash at its end.
pub fn external_url(settings: &Settings, address: SocketAddr) -> String {
    // It is shown to everybody: a user and a password in it are left out.
    let given = without_user(settings.external_url.with_secrets());
    let given = given.trim_end_matches('/');
    if !given.is_empty() {
        return given.to_owned();
    }
    own_url(settings, address)
}

/// The address that is listened on, as another machine can write it.
pub fn own_url(settings: &Settings, address: SocketAddr) -> String {
    let prefix = settings.route_prefix.0.trim_end_matches('/');
    let scheme = scheme(settings);
    match address.ip().is_unspecified() {
        true => format!("{scheme}://{}:{}{prefix}", host_name(), address.port()),
        false => format!("{scheme}://{address}{prefix}"),
    }
}

/// What URLs of this process begin with.
pub fn scheme(settings: &Settings) -> &'static str {
    if web_config::has_tls(&settings.web_config_file.0) { "https" } else { "http" }
}

/// Hosts with ports that mean this process.
pub fn addresses(settings: &Settings, address: SocketAddr) -> Vec<String> {
    let given = settings.external_url.with_secrets();
    let authority = given.split_once("://").map_or("", |(_, rest)| rest).split('/').next().unwrap_or("");
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let mut all = vec![address.to_string(), format!("{}:{}", host_name(), address.port())];
    if !authority.is_empty() {
        all.push(authority.to_owned());
    }
    all
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "localhost".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_url(url: &str) -> Settings {
        let mut settings = Settings::default();
        let option = crate::config::TABLE.iter().find(|o| o.key == "http.external_url").unwrap();
        (option.set)(&mut settings, url).unwrap();
        settings
    }

    #[test]
    fn external_url_is_the_address_unless_it_is_set() {
        let address: SocketAddr = "10.0.0.1:9494".parse().unwrap();
        assert_eq!(external_url(&Settings::default(), address), "http://10.0.0.1:9494");
        assert_eq!(external_url(&with_url("https://h.example/p/"), address), "https://h.example/p");
        let any: SocketAddr = "0.0.0.0:9494".parse().unwrap();
        let named = external_url(&Settings::default(), any);
        assert!(named.ends_with(":9494") && !named.contains("0.0.0.0"), "{named}");
    }

    #[test]
    fn addresses_hold_the_external_host_without_a_login() {
        let address: SocketAddr = "10.0.0.1:9494".parse().unwrap();
        let all = addresses(&with_url("https://user:secret@h.example:1/p"), address);
        assert_eq!((all[0].as_str(), all[2].as_str(), all.len()), ("10.0.0.1:9494", "h.example:1", 3));
    }
}
