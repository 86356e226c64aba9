//! The three kinds of buckets, each as its service wants it: addresses, credentials, time limits.

use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredential, Checksum};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{ClientConfigKey, ObjectStore, RetryConfig, StaticCredentialProvider};
use reqwest::Url;

use super::credentials::Watched;
use crate::config::Settings;
use crate::config::value::{Addressing, Path, S3Checksum};
use crate::live_client::LiveConnector;
use crate::secrets::{redacted, without_user};

/// Requests that fail are made again with pauses that grow and are jittered, for as long as the setting says.
fn retries(settings: &Settings) -> RetryConfig {
    // The time decides, not the number: a port that refuses uses up ten attempts within seconds.
    RetryConfig {
        retry_timeout: settings.objstore_retry.0,
        max_retries: usize::MAX,
        ..RetryConfig::default()
    }
}

/// The time limit of a request as the client library reads it.
fn timeout(settings: &Settings) -> String {
    format!("{}ms", settings.objstore_timeout.0.as_millis())
}

/// Checks an address; whether it needs plain HTTP to be allowed.
fn endpoint(option: &str, text: &str, http_allowed: bool) -> Result<bool, String> {
    let shown = redacted(text);
    let url = Url::parse(text).map_err(|e| format!("{option}.endpoint: {shown:?} is not a URL: {e}"))?;
    if url.cannot_be_a_base() {
        // What stands before a colon may be a user, and what follows a password.
        return Err(format!("{option}.endpoint: it is no URL of a server: write https://HOST"));
    }
    match url.scheme() {
        "https" => Ok(false),
        "http" if http_allowed => Ok(true),
        "http" => Err(format!(
            "{option}.endpoint: {shown:?} has no TLS: use https, or allow it with {option}.allow_http: true"
        )),
        other => Err(format!("{option}.endpoint: {shown:?} begins with {other}, and should with https")),
    }
}

fn given(path: &Path) -> bool {
    !path.0.as_os_str().is_empty()
}

/// Anything that speaks S3.
pub fn s3(bucket: &str, settings: &Settings) -> Result<Arc<dyn ObjectStore>, String> {
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_http_connector(LiveConnector)
        .with_retry(retries(settings))
        .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), timeout(settings))
        .with_virtual_hosted_style_request(settings.s3_addressing == Addressing::VirtualHost);
    if !settings.s3_region.is_empty() {
        builder = builder.with_region(&settings.s3_region);
    }
    if !settings.s3_endpoint.is_empty() {
        builder = builder.with_endpoint(settings.s3_endpoint.with_secrets());
    }
    match settings.s3_checksum {
        S3Checksum::None => {}
        S3Checksum::Sha256 => builder = builder.with_checksum_algorithm(Checksum::SHA256),
        S3Checksum::Crc64nvme => builder = builder.with_checksum_algorithm(Checksum::CRC64NVME),
    }
    if let Some(address) = builder.get_config_value(&AmazonS3ConfigKey::Endpoint) {
        // Requests are signed with keys, so a user in the URL is of no use, and would stand in every error.
        let address = without_user(&address);
        builder = builder.with_endpoint(&address);
        let http = AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp);
        let allowed = settings.s3_allow_http || builder.get_config_value(&http).is_some_and(|v| v == "true");
        if endpoint("s3", &address, allowed)? {
            builder = builder.with_allow_http(true);
        }
    }
    let (key, secret) = (&settings.s3_access_key_file, &settings.s3_secret_key_file);
    match (given(key), given(secret)) {
        (false, false) => {}
        (true, true) => {
            let mut files =
                vec![("s3.access_key_file", key.0.clone()), ("s3.secret_key_file", secret.0.clone())];
            if given(&settings.s3_session_token_file) {
                files.push(("s3.session_token_file", settings.s3_session_token_file.0.clone()));
            }
            let watched = Watched::new(files, |texts| {
                Ok(AwsCredential {
                    key_id: texts[0].clone(),
                    secret_key: texts[1].clone(),
                    token: texts.get(2).cloned(),
                })
            })?;
            builder = builder.with_credentials(Arc::new(watched));
        }
        (false, true) => {
            return Err("s3.secret_key_file is given without s3.access_key_file: give both or none".into());
        }
        (true, false) => {
            return Err("s3.access_key_file is given without s3.secret_key_file: give both or none".into());
        }
    }
    builder.build().map(|s| Arc::new(s) as _).map_err(|e| e.to_string())
}

/// Google Cloud Storage.
pub fn gcs(bucket: &str, settings: &Settings) -> Result<Arc<dyn ObjectStore>, String> {
    let mut builder = GoogleCloudStorageBuilder::from_env()
        .with_bucket_name(bucket)
        .with_http_connector(LiveConnector)
        .with_retry(retries(settings))
        .with_config(GoogleConfigKey::Client(ClientConfigKey::Timeout), timeout(settings));
    let address = without_user(settings.gcs_endpoint.with_secrets());
    let address = address.trim_end_matches('/');
    if !address.is_empty() {
        if endpoint("gcs", address, settings.gcs_allow_http)? {
            builder = builder.with_config(GoogleConfigKey::Client(ClientConfigKey::AllowHttp), "true");
        }
        builder = builder.with_base_url(address);
    }
    if settings.gcs_anonymous {
        // Without the second, some requests would still ask the machine for a token.
        let nobody = StaticCredentialProvider::new(GcpCredential { bearer: String::new() });
        builder = builder.with_skip_signature(true).with_credentials(Arc::new(nobody));
    } else if given(&settings.gcs_credentials_file) {
        let files = vec![("gcs.credentials_file", settings.gcs_credentials_file.0.clone())];
        let template = builder.clone();
        let watched = Watched::new(files, move |texts| {
            let made = template.clone().with_service_account_key(&texts[0]).build();
            made.map(|s| s.credentials().clone()).map_err(|e| format!("gcs.credentials_file: {e}"))
        })?;
        builder = builder.with_credentials(Arc::new(watched));
    }
    builder.build().map(|s| Arc::new(s) as _).map_err(|e| e.to_string())
}

/// Azure Blob Storage.
pub fn azure(container: &str, settings: &Settings) -> Result<Arc<dyn ObjectStore>, String> {
    let mut builder = MicrosoftAzureBuilder::from_env()
        .with_container_name(container)
        .with_http_connector(LiveConnector)
        .with_retry(retries(settings))
        .with_config(AzureConfigKey::Client(ClientConfigKey::Timeout), timeout(settings));
    if !settings.azure_account.is_empty() {
        builder = builder.with_account(&settings.azure_account);
    }
    if builder.get_config_value(&AzureConfigKey::AccountName).is_none() {
        return Err(
            "the storage account is not known: set azure.account (or AZURE_STORAGE_ACCOUNT_NAME)".into()
        );
    }
    let address = without_user(settings.azure_endpoint.with_secrets());
    let address = address.trim_end_matches('/');
    if !address.is_empty() {
        if endpoint("azure", address, settings.azure_allow_http)? {
            builder = builder.with_allow_http(true);
        }
        builder = builder.with_endpoint(address.to_owned());
    }
    let (key, sas) = (&settings.azure_account_key_file, &settings.azure_sas_token_file);
    let (files, sort) = match (given(key), given(sas)) {
        (false, false) => (vec![], AzureConfigKey::AccessKey),
        (true, false) => (vec![("azure.account_key_file", key.0.clone())], AzureConfigKey::AccessKey),
        (false, true) => (vec![("azure.sas_token_file", sas.0.clone())], AzureConfigKey::SasKey),
        (true, true) => {
            return Err("azure.account_key_file and azure.sas_token_file are given: give one".into());
        }
    };
    if !files.is_empty() {
        let option = files[0].0;
        let template = builder.clone();
        let watched = Watched::new(files, move |texts| {
            let made = template.clone().with_config(sort, &texts[0]).build();
            made.map(|s| s.credentials().clone()).map_err(|e| format!("{option}: {e}"))
        })?;
        builder = builder.with_credentials(Arc::new(watched));
    }
    builder.build().map(|s| Arc::new(s) as _).map_err(|e| e.to_string())
}
