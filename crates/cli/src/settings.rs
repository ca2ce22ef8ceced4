//! What the command line does not say of a server: a configuration file or the environment may. (depot 10)
//!
//! Both are turned into words of the command line, which are read like all others. So a file knows each option by its name, and
//! refuses what the option refuses.
//!
//! ```toml
//! [dstore]                        # for each Dstore that is started with this file
//! cluster = "/etc/stevedore/cluster.toml"
//! listen = "10.0.0.1"
//!
//! [dstore.four]                   # for: stevedore dstore --config FILE --name four
//! data = ["/disk1", "/disk2"]
//! port = 7104
//! ```
//!
//! The command line comes first, then a process's own table, then the table of its kind, then the environment.

use std::fs;

use stevedore::program::Failure;
use toml::{Table, Value};

/// Commands that start a server, and which of their options the environment may give, as `STEVEDORE_LISTEN`. They are those that
/// an image says once for all of its containers.
const SERVERS: &[(&str, &[&str])] = &[
    ("serve", &["listen", "advertise", "admin"]),
    ("controller", &["listen", "advertise", "admin"]),
    ("dstore", &["listen", "advertise", "admin"]),
    ("gateway", &["listen", "admin"]),
];

/// The option that names a file, and the one that names a process in it.
const CONFIG: &str = "config";
const NAME: &str = "name";
/// What stands in a file for words without an option: the folders of `serve` and `dstore`.
const FOLDERS: &str = "folders";
/// It is said before the command.
const CLUSTER: &str = "cluster";

/// Adds to the words of a server what they do not say. They are as [`prepare`](crate::words::prepare) leaves them. Those of other
/// commands stay as they are.
pub fn complete(mut words: Vec<String>, environment: impl Fn(&str) -> Option<String>) -> Result<Vec<String>, Failure> {
    let has_cluster = words.first().is_some_and(|word| word == "--cluster");
    let at = if has_cluster { 2 } else { 0 };
    let command = words.get(at).cloned().unwrap_or_default();
    let Some((_, from_environment)) = SERVERS.iter().find(|(server, _)| *server == command) else { return Ok(words) };
    let mut said = Vec::new();
    if let Some(path) = take(&mut words, CONFIG)? {
        let name = take(&mut words, NAME)?;
        let text = fs::read_to_string(&path).map_err(|error| Failure::new(format!("cannot read {path}: {error}")))?;
        said = read(&text, &command, name.as_deref()).map_err(|why| Failure::usage(format!("{path}: {why}")))?;
    }
    for option in *from_environment {
        let value = environment(&format!("STEVEDORE_{}", option.to_uppercase())).filter(|value| !value.is_empty());
        if let Some(value) = value.filter(|_| !said.iter().any(|(key, _)| key == option)) {
            said.push(((*option).to_owned(), Value::String(value)));
        }
    }
    let mut added = Vec::new();
    let mut cluster = Vec::new();
    for (key, value) in said {
        let is_folders = key == FOLDERS;
        let option = format!("--{key}");
        if words.iter().take_while(|word| *word != "--").any(|word| *word == option) {
            continue;
        }
        let into = if key == CLUSTER { &mut cluster } else { &mut added };
        for value in words_of(&key, value)? {
            into.extend((!is_folders).then(|| option.clone()));
            into.extend(value);
        }
    }
    words.splice(at + 1..at + 1, added);
    words.splice(..0, cluster);
    Ok(words)
}

/// The value of an option, which is taken out of the words.
fn take(words: &mut Vec<String>, option: &str) -> Result<Option<String>, Failure> {
    let option = format!("--{option}");
    let end = words.iter().position(|word| word == "--").unwrap_or(words.len());
    let Some(at) = words[..end].iter().position(|word| *word == option) else { return Ok(None) };
    words.remove(at);
    match at < words.len() {
        true => Ok(Some(words.remove(at))),
        false => Err(Failure::usage(format!("{option} needs a value"))),
    }
}

/// What a file says of a process: its own table first, then what is said of all of its kind.
fn read(text: &str, command: &str, name: Option<&str>) -> Result<Vec<(String, Value)>, String> {
    let mut file: Table = toml::from_str(text).map_err(|error| error.to_string())?;
    for key in file.keys() {
        if !SERVERS.iter().any(|(server, _)| server == key) {
            let known = SERVERS.iter().map(|(server, _)| *server).collect::<Vec<_>>().join(", ");
            return Err(format!("[{key}] is no kind of server; there are {known}"));
        }
    }
    let none = || format!("there is no [{command}]");
    let Some(Value::Table(kind)) = file.remove(command) else { return Err(none()) };
    let (processes, common): (Table, Table) = kind.into_iter().partition(|(_, value)| value.is_table());
    let own = match name {
        None => Table::new(),
        Some(name) => match processes.get(name) {
            Some(Value::Table(own)) => own.clone(),
            _ => {
                let known = processes.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                return Err(format!("there is no [{command}.{name}]; there are: {known}"));
            }
        },
    };
    let common = common.into_iter().filter(|(key, _)| !own.contains_key(key)).collect::<Vec<_>>();
    Ok(own.into_iter().chain(common).collect())
}

/// An option's values: none for a switch, one for each item of an array. Empty if the option is not to be given.
fn words_of(key: &str, value: Value) -> Result<Vec<Option<String>>, Failure> {
    Ok(match value {
        Value::Boolean(is_on) => is_on.then_some(None).into_iter().collect(),
        Value::String(text) => vec![Some(text)],
        Value::Integer(number) => vec![Some(number.to_string())],
        Value::Array(items) => {
            items.into_iter().map(|item| words_of(key, item)).collect::<Result<Vec<_>, _>>()?.concat()
        }
        other => return Err(Failure::usage(format!("{key}: {} says nothing here", other.type_str()))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use kit::TempFolder;

    const FILE: &str = r#"
        [dstore]
        cluster = "/etc/cluster.toml"
        listen = "10.0.0.1"
        [dstore.four]
        data = ["/disk1", "/disk 2"]
        port = 7104
        listen = "10.0.0.4"
        [dstore.five]
        folders = ["/disk5"]
        [gateway]
        open = true
        no-s3 = false
    "#;

    fn completed(line: &str, variables: &[(&str, &str)]) -> Result<String, String> {
        let folder = TempFolder::new();
        let file = folder.path().join("servers.toml");
        fs::write(&file, FILE).unwrap();
        let name = |word: &str| if word == "FILE" { file.display().to_string() } else { word.to_owned() };
        let get = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let words = complete(line.split(' ').map(name).collect(), get).map_err(|failure| failure.message)?;
        Ok(words.join(" "))
    }

    #[test]
    fn a_file_says_what_options_say() {
        let table = [
            (
                "dstore --config FILE --name four",
                "--cluster /etc/cluster.toml dstore --data /disk1 --data /disk 2 --listen 10.0.0.4 --port 7104",
            ),
            ("dstore --config FILE --name five", "--cluster /etc/cluster.toml dstore /disk5 --listen 10.0.0.1"),
            ("dstore --config FILE", "--cluster /etc/cluster.toml dstore --listen 10.0.0.1"),
            ("--cluster x dstore --config FILE", "--cluster x dstore --listen 10.0.0.1"),
            ("gateway --config FILE", "gateway --open"),
        ];
        for (line, expected) in table {
            assert_eq!(completed(line, &[]).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn the_command_line_comes_first_and_the_environment_last() {
        let variables = [("STEVEDORE_LISTEN", "::"), ("STEVEDORE_ADMIN", "7900"), ("STEVEDORE_ADVERTISE", "")];
        let of = |line| completed(line, &variables).unwrap();
        assert_eq!(of("dstore --data x"), "dstore --listen :: --admin 7900 --data x");
        assert_eq!(of("dstore --listen 1.2.3.4 --admin 1"), "dstore --listen 1.2.3.4 --admin 1");
        assert_eq!(of("dstore -- --listen"), "dstore --listen :: --admin 7900 -- --listen");
        let file = of("dstore --port 1 --config FILE --name four");
        assert!(file.contains("--listen 10.0.0.4") && !file.contains("::"), "{file}");
        assert!(file.contains("--port 1") && !file.contains("7104"), "{file}");
        assert_eq!(of("ls --config FILE").split(' ').count(), 3, "others are left alone");
    }

    #[test]
    fn a_file_that_makes_no_sense_is_refused_with_the_reason() {
        for (line, reason) in [
            ("dstore --config FILE --name six", "there are: five, four"),
            ("controller --config FILE", "no [controller]"),
            ("dstore --config /nowhere.toml", "cannot read /nowhere.toml"),
            ("dstore --config", "needs a value"),
        ] {
            let refused = completed(line, &[]).unwrap_err();
            assert!(refused.contains(reason), "{refused}");
        }
        assert!(read("[dstor]", "dstore", None).unwrap_err().contains("[dstor] is no kind"));
        assert!(words_of("port", Value::Float(1.5)).unwrap_err().message.contains("port: float"));
    }
}
