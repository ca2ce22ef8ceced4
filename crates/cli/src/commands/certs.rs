//! `certs`: a certificate authority for tests and small clusters, and what it certifies.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use argh::FromArgs;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use stevedore::program::Failure;
use stevedore::program::output::say;
use time::{Duration, OffsetDateTime};

use crate::cluster::replace;

/// The authority. Its key alone makes it: the rest of its certificate is always the same.
const AUTHORITY: [&str; 2] = ["ca.pem", "ca-key.pem"];

/// What a server shows, and proves it with.
const SERVER: [&str; 2] = ["server.pem", "server-key.pem"];

/// Clients take certificates of servers for no longer.
const SERVER_LIFE: Duration = Duration::days(397);

const AUTHORITY_LIFE: Duration = Duration::days(3_650);

/// Clocks differ.
const EARLIER: Duration = Duration::days(1);

/// Make certificates for gateways that speak HTTPS, for tests and small clusters.
#[derive(FromArgs)]
#[argh(
    subcommand,
    help_triggers("-h", "--help"),
    name = "certs",
    note = "The first call makes a certificate authority in the folder, and each call certifies a server that is reached by these\nnames and addresses, for 397 days. Copy ca.pem to the clients: curl --cacert ca.pem, or add it to what the system\ntrusts. The holder of ca-key.pem can pretend to be any server that these clients ask for: keep it.",
    example = "stevedore certs ~/certs files.example 10.0.0.1\nstevedore gateway --listen 10.0.0.1 --tls-cert ~/certs/server.pem --tls-key ~/certs/server-key.pem\ncurl --cacert ~/certs/ca.pem https://10.0.0.1:8080/"
)]
pub struct Certs {
    /// where they are kept
    #[argh(positional, arg_name = "DIR")]
    pub folder: PathBuf,
    /// names and addresses of the server (default: localhost, 127.0.0.1 and ::1)
    #[argh(positional, arg_name = "HOST")]
    pub hosts: Vec<String>,
}

impl Certs {
    /// Makes them.
    pub fn run(&self) -> Result<(), Failure> {
        let hosts = match self.hosts.is_empty() {
            true => ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec(),
            false => self.hosts.clone(),
        };
        if let Some(wrong) =
            hosts.iter().find(|host| host.contains(['/', ':']) && host.parse::<std::net::IpAddr>().is_err())
        {
            return Err(Failure::usage(format!(
                "{wrong:?} is no name and no address: no port or URL, as in files.example"
            )));
        }
        let now = OffsetDateTime::now_utc();
        fs::create_dir_all(&self.folder).map_err(|error| failed(&self.folder, error))?;
        let authority = self.authority(now)?;
        let certificate = server(&hosts, now)?;
        let key = KeyPair::generate().map_err(Failure::new)?;
        let signed = certificate.signed_by(&key, &authority).map_err(Failure::new)?;
        let [path, key_path] = SERVER.map(|name| self.folder.join(name));
        // The key first: a server that is started meanwhile is to find both old, or to fail.
        replace(&key_path, &key.serialize_pem(), 0o600)?;
        replace(&path, &signed.pem(), 0o644)?;
        say(format_args!("{}  for {}, until {}", path.display(), hosts.join(", "), (now + SERVER_LIFE).date()))?;
        say(format_args!("Next:"))?;
        say(format_args!("  stevedore gateway --tls-cert {} --tls-key {}", path.display(), key_path.display()))?;
        say(format_args!("  curl --cacert {} https://{}:8080/", self.folder.join(AUTHORITY[0]).display(), hosts[0]))
    }

    /// The authority of the folder, which is made if there is none.
    fn authority(&self, now: OffsetDateTime) -> Result<Issuer<'static, KeyPair>, Failure> {
        let [path, key_path] = AUTHORITY.map(|name| self.folder.join(name));
        let key = match fs::read_to_string(&key_path) {
            Ok(pem) => KeyPair::from_pem(&pem).map_err(|error| failed(&key_path, error))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.exists() => {
                let message = format!(
                    "{} is there, but {} is not: bring the key back, or name another folder for a new authority",
                    path.display(),
                    key_path.display()
                );
                return Err(Failure::new(message));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = KeyPair::generate().map_err(Failure::new)?;
                replace(&key_path, &key.serialize_pem(), 0o600)?;
                key
            }
            Err(error) => return Err(failed(&key_path, error)),
        };
        let certificate = authority(now)?;
        if !path.exists() {
            replace(&path, &certificate.self_signed(&key).map_err(Failure::new)?.pem(), 0o644)?;
            say(format_args!("{}  a new authority, until {}", path.display(), (now + AUTHORITY_LIFE).date()))?;
        }
        Ok(Issuer::new(certificate, key))
    }
}

fn authority(now: OffsetDateTime) -> Result<CertificateParams, Failure> {
    let mut certificate = CertificateParams::new(Vec::new()).map_err(Failure::new)?;
    certificate.distinguished_name.push(DnType::CommonName, "Stevedore test authority");
    certificate.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    certificate.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    certificate.not_before = now - EARLIER;
    certificate.not_after = now + AUTHORITY_LIFE;
    Ok(certificate)
}

fn server(hosts: &[String], now: OffsetDateTime) -> Result<CertificateParams, Failure> {
    let mut certificate =
        CertificateParams::new(hosts).map_err(|error| Failure::usage(format!("{hosts:?}: {error}")))?;
    certificate.distinguished_name.push(DnType::CommonName, hosts[0].as_str());
    certificate.use_authority_key_identifier_extension = true;
    certificate.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    certificate.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    certificate.not_before = now - EARLIER;
    certificate.not_after = now + SERVER_LIFE;
    Ok(certificate)
}

fn failed(path: &Path, error: impl std::fmt::Display) -> Failure {
    Failure::new(format!("{}: {error}", path.display()))
}
