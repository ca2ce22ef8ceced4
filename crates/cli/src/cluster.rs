//! `cluster.toml` and `client.toml`: what servers and users of a store know of it. (depot 10)
//!
//! The first start of a store writes both, readable by their owner only. The holder of `cluster.toml` can speak as a server of
//! the store; the holder of `client.toml` can only use it.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use depot::client::{Cluster, ClusterOptions, SEARCH};
use depot::disk::random;
use depot::identity::ClusterId;
use depot::wire::{Address, ClientId, ClientKey, Secret};
use serde::{Deserialize, Serialize};
use stevedore::program::Failure;

use crate::discover;

/// The name of a server's file.
pub const CLUSTER_FILE: &str = "cluster.toml";
/// The name of a user's file.
pub const CLIENT_FILE: &str = "client.toml";
/// Where a user's file is, or its folder, unless the command line says it.
pub const VARIABLE: &str = "STEVEDORE_CLUSTER";
/// The format of both files.
const FORMAT: u32 = 1;

/// What a server knows of its store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterFile {
    /// The store's identity.
    pub cluster: ClusterId,
    /// What people call it.
    pub name: String,
    /// Where its Controllers listen.
    pub controllers: Vec<Address>,
    /// What all its servers know.
    pub secret: Secret,
}

/// What a user knows of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientFile {
    /// The store's identity.
    pub cluster: ClusterId,
    /// What people call it.
    pub name: String,
    /// Where its Controllers listen.
    pub controllers: Vec<Address>,
    /// Which client this is.
    pub client: ClientId,
    /// Its key.
    pub key: ClientKey,
}

/// As it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    format: u32,
    name: String,
    cluster: String,
    controllers: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

impl ClusterFile {
    /// A new store, whose Controllers are still to be named.
    pub fn draw(name: &str) -> io::Result<Self> {
        let cluster = ClusterId(u128::from_le_bytes(random()?).max(1));
        Ok(Self { cluster, name: name.to_owned(), controllers: Vec::new(), secret: Secret::draw()? })
    }

    /// Reads the file, or the one in this folder; `None` if there is none.
    pub fn read(path: &Path) -> Result<Option<Self>, Failure> {
        let path = in_folder(path, CLUSTER_FILE);
        let Some(text) = read(&path)? else { return Ok(None) };
        let read = || {
            let secret =
                text.secret.as_deref().ok_or("it has no secret; a server needs cluster.toml, not client.toml")?;
            Ok(Self {
                cluster: ClusterId(hexadecimal("cluster", &text.cluster)?),
                name: text.name.clone(),
                controllers: addresses(&text.controllers)?,
                secret: parsed("secret", secret)?,
            })
        };
        read().map(Some).map_err(|reason: String| malformed(&path, &reason))
    }

    /// Writes the file, in place of any that is there.
    pub fn write(&self, path: &Path) -> Result<(), Failure> {
        let text = Text {
            format: FORMAT,
            name: self.name.clone(),
            cluster: self.cluster.to_string(),
            controllers: self.controllers.iter().map(Address::to_string).collect(),
            secret: Some(self.secret.reveal()),
            client: None,
            key: None,
        };
        write(path, "For the servers of this store. Keep it secret: its holder can speak as a server.", &text)
    }

    /// A new user of this store.
    pub fn new_client(&self) -> io::Result<ClientFile> {
        let client = ClientId(u64::from_le_bytes(random()?));
        Ok(self.client(client))
    }

    fn client(&self, client: ClientId) -> ClientFile {
        let key = self.secret.client_key(client);
        ClientFile {
            cluster: self.cluster,
            name: self.name.clone(),
            controllers: self.controllers.clone(),
            client,
            key,
        }
    }

    /// Writes the user's file into a folder: the client that it was for, if there is one already, with the addresses of now.
    pub fn write_client(&self, folder: &Path) -> Result<PathBuf, Failure> {
        let path = folder.join(CLIENT_FILE);
        let client = match ClientFile::read(&path)?.filter(|there| there.cluster == self.cluster) {
            Some(there) => self.client(there.client),
            None => self.new_client().map_err(|error| Failure::new(format!("cannot draw a key: {error}")))?,
        };
        client.write(&path)?;
        Ok(path)
    }
}

impl ClientFile {
    /// Reads the file, or the one in this folder; `None` if there is none.
    pub fn read(path: &Path) -> Result<Option<Self>, Failure> {
        let path = in_folder(path, CLIENT_FILE);
        let Some(text) = read(&path)? else { return Ok(None) };
        let read = || {
            let missing = "it has no client and key; a user needs client.toml, which lies beside cluster.toml";
            let (Some(client), Some(key)) = (&text.client, &text.key) else { return Err(missing.to_owned()) };
            Ok(Self {
                cluster: ClusterId(hexadecimal("cluster", &text.cluster)?),
                name: text.name.clone(),
                controllers: addresses(&text.controllers)?,
                client: ClientId(
                    u64::try_from(hexadecimal("client", client)?)
                        .map_err(|_| format!("client: {client:?} is too large"))?,
                ),
                key: parsed("key", key)?,
            })
        };
        read().map(Some).map_err(|reason: String| malformed(&path, &reason))
    }

    /// Writes the file, in place of any that is there.
    pub fn write(&self, path: &Path) -> Result<(), Failure> {
        let text = Text {
            format: FORMAT,
            name: self.name.clone(),
            cluster: self.cluster.to_string(),
            controllers: self.controllers.iter().map(Address::to_string).collect(),
            secret: None,
            client: Some(self.client.to_string()),
            key: Some(self.key.reveal()),
        };
        write(path, "For users of this store: stevedore --cluster FILE, or STEVEDORE_CLUSTER=FILE.", &text)
    }

    /// The file that the command line names, or else the environment.
    pub fn find(named: Option<&Path>) -> Result<Self, Failure> {
        let from_environment = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
        let path = named.map(Path::to_owned).or(from_environment).ok_or_else(|| {
            Failure::usage(format!(
                "which store? --cluster PATH names its {CLIENT_FILE}, or export {VARIABLE}=PATH; stevedore serve DIR starts a \
                 store and says where it is"
            ))
        })?;
        let file = Self::read(&path)?.ok_or_else(|| {
            Failure::new(format!("{}: there is no {CLIENT_FILE}; the store's first start writes it", path.display()))
        })?;
        discover::for_client(file)
    }

    /// The store, as this client sees it. Connects when there is something to ask.
    pub fn connect(self) -> Cluster {
        self.connect_for(SEARCH)
    }

    /// The same, but a Controller that can be reached is looked for so long.
    pub fn connect_for(self, search: Duration) -> Cluster {
        let Self { cluster, controllers, client, key, .. } = self;
        Cluster::new(ClusterOptions { controllers, cluster, client, key, search })
    }
}

/// The store that the command line names, or else the environment. Connects when there is something to ask.
pub fn connect(named: Option<&Path>) -> Result<Cluster, Failure> {
    Ok(ClientFile::find(named)?.connect())
}

/// A folder stands for the file in it.
fn in_folder(path: &Path, name: &str) -> PathBuf {
    if path.is_dir() { path.join(name) } else { path.to_owned() }
}

fn read(path: &Path) -> Result<Option<Text>, Failure> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::new(format!("cannot read {}: {error}", path.display()))),
    };
    let text: Text = toml::from_str(&text).map_err(|error| malformed(path, error.message()))?;
    if text.format != FORMAT {
        return Err(malformed(path, &format!("it is of format {}, and this release reads {FORMAT}", text.format)));
    }
    Ok(Some(text))
}

fn malformed(path: &Path, reason: &str) -> Failure {
    Failure::new(format!("{}: {reason}", path.display()))
}

fn parsed<T: FromStr<Err: fmt::Display>>(field: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|error| format!("{field}: {error}"))
}

fn hexadecimal(field: &str, text: &str) -> Result<u128, String> {
    u128::from_str_radix(text, 16).map_err(|error| format!("{field}: {error}"))
}

fn addresses(texts: &[String]) -> Result<Vec<Address>, String> {
    texts.iter().map(|text| parsed("controllers", text)).collect()
}

/// Writes a file that only its owner may read.
fn write(path: &Path, comment: &str, text: &Text) -> Result<(), Failure> {
    let toml = toml::to_string(text).map_err(|error| malformed(path, &error.to_string()))?;
    replace(path, &format!("# {comment}\n\n{toml}"), 0o600)
}

/// Has a file with this text and mode at a path: after a crash it is whole, or what was there before.
pub fn replace(path: &Path, text: &str, mode: u32) -> Result<(), Failure> {
    let temporary = path.with_extension("new");
    let written = (|| {
        let mut options = OpenOptions::new();
        // Removed, not truncated: one that others may read would stay readable.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = options.write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")))?.sync_all()
    })();
    written.map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn drawn() -> ClusterFile {
        let mut file = ClusterFile::draw("my \"store\"\n").unwrap();
        file.controllers = vec!["127.0.0.1:7000".parse().unwrap(), "[::1]:7001".parse().unwrap()];
        file
    }

    #[test]
    fn both_files_come_back_and_only_their_owner_may_read_them() {
        let folder = kit::TempFolder::new();
        let file = drawn();
        let path = folder.path().join(CLUSTER_FILE);
        fs::write(path.with_extension("new"), "left by a crash").unwrap();
        file.write(&path).unwrap();
        assert_eq!(ClusterFile::read(folder.path()).unwrap(), Some(file.clone()));
        let client = file.write_client(folder.path()).unwrap();
        let read = ClientFile::read(folder.path()).unwrap().unwrap();
        assert_eq!(read.key, file.secret.client_key(read.client));
        assert_eq!((read.cluster, &read.name, &read.controllers), (file.cluster, &file.name, &file.controllers));
        for path in [path, client] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(folder.names(), [CLIENT_FILE, CLUSTER_FILE]);
    }

    #[test]
    fn a_new_address_leaves_the_client_what_it_is() {
        let folder = kit::TempFolder::new();
        let mut file = drawn();
        file.write_client(folder.path()).unwrap();
        let first = ClientFile::read(folder.path()).unwrap().unwrap();
        file.controllers.truncate(1);
        file.write_client(folder.path()).unwrap();
        let second = ClientFile::read(folder.path()).unwrap().unwrap();
        assert_eq!((first.client, first.key), (second.client, second.key));
        assert_eq!(second.controllers.len(), 1);
    }

    #[test]
    fn a_file_of_the_wrong_kind_is_refused_with_the_reason() {
        let folder = kit::TempFolder::new();
        let file = drawn();
        let path = folder.path().join(CLUSTER_FILE);
        file.write(&path).unwrap();
        assert!(ClientFile::read(&path).unwrap_err().message.contains("client.toml"));
        let client = file.write_client(folder.path()).unwrap();
        assert!(ClusterFile::read(&client).unwrap_err().message.contains("cluster.toml"));
        let text = fs::read_to_string(&path).unwrap();
        for (from, to, reason) in [
            ("format = 1", "format = 2", "format 2"),
            ("7000", "0", "host:port"),
            ("secret = \"", "secret = \"x", "64 hexadecimal"),
            ("name", "nime", "nime"),
        ] {
            fs::write(&path, text.replacen(from, to, 1)).unwrap();
            let message = ClusterFile::read(&path).unwrap_err().message;
            assert!(message.contains(reason) && message.contains(CLUSTER_FILE), "{message}");
        }
    }
}
