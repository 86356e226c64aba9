//! Authorities and certificates, made with openssl.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// Runs a program, which must succeed; what it printed.
pub fn run(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// A folder with authorities, certificates and the files of Hearth.
pub struct Folder(pub tempfile::TempDir);

impl Folder {
    pub fn new() -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        for authority in ["ca", "other-ca"] {
            folder.authority(authority);
        }
        folder.certificate("server", "ca", "DNS:localhost,IP:127.0.0.1", "serverAuth");
        folder.certificate("client", "ca", "URI:spiffe://cluster/prometheus", "clientAuth");
        folder.certificate("stranger", "ca", "DNS:stranger.example", "clientAuth");
        folder.certificate("forged", "other-ca", "URI:spiffe://cluster/prometheus", "clientAuth");
        folder
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn shown(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// An authority's certificate and key.
    pub fn authority(&self, name: &str) {
        let (key, pem) = (self.shown(&format!("{name}.key")), self.shown(&format!("{name}.pem")));
        let subject = format!("/CN={name}");
        run(
            "openssl",
            &[
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-days",
                "2",
                "-subj",
                &subject,
                "-keyout",
                &key,
                "-out",
                &pem,
            ],
        );
    }

    /// Written beside and then renamed, as whoever rotates does it.
    pub fn certificate(&self, name: &str, authority: &str, names: &str, usage: &str) {
        let file = |end: &str| self.shown(&format!("{name}.{end}"));
        let (request, key, extensions) = (file("csr"), file("key.new"), file("ext"));
        let subject = format!("/CN={name}");
        run(
            "openssl",
            &[
                "req",
                "-new",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-subj",
                &subject,
                "-keyout",
                &key,
                "-out",
                &request,
            ],
        );
        fs::write(&extensions, format!("subjectAltName={names}\nextendedKeyUsage={usage}\n")).unwrap();
        let (ca, ca_key) = (self.shown(&format!("{authority}.pem")), self.shown(&format!("{authority}.key")));
        run(
            "openssl",
            &[
                "x509",
                "-req",
                "-in",
                &request,
                "-CA",
                &ca,
                "-CAkey",
                &ca_key,
                "-CAcreateserial",
                "-days",
                "2",
                "-extfile",
                &extensions,
                "-out",
                &file("pem.new"),
            ],
        );
        fs::rename(&key, file("key")).unwrap();
        fs::rename(file("pem.new"), file("pem")).unwrap();
    }

    /// Replaces a file at once.
    pub fn write(&self, name: &str, text: &str) {
        let new = self.path(&format!("{name}.new"));
        fs::write(&new, text).unwrap();
        fs::rename(new, self.path(name)).unwrap();
    }
}
