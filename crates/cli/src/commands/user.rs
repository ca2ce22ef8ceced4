//! `user add|password|remove|list|grant|key`: who may do what through gateways. (docs/gateway.md)

use std::io;

use argh::FromArgs;
use gateway::access::{ANONYMOUS, ChangeError, Right, User, Users, random_password};
use serde_json::json;
use stevedore::program::output::say;
use stevedore::program::{Failure, exit_code};

use crate::failure::of_store;
use crate::session::Session;
use crate::show::say_json;

/// Show the users of the store's gateways, add or remove one, or say what one may.
#[derive(FromArgs)]
#[argh(
    subcommand,
    help_triggers("-h", "--help"),
    name = "user",
    note = "Users are for gateways. A person who has the store's client.toml needs none, and may do everything.",
    example = "stevedore user add alice\nstevedore user grant alice write /home/alice\nstevedore user grant alice read /\nstevedore user list"
)]
pub struct UserCommand {
    /// what to do
    #[argh(subcommand)]
    pub action: Action,
}

/// What can be done with users.
#[derive(FromArgs)]
#[argh(subcommand)]
#[expect(missing_docs, reason = "each says what it does")]
pub enum Action {
    Add(Add),
    Password(Password),
    Remove(Remove),
    List(List),
    Grant(Grant),
    Key(KeyCommand),
}

/// Add a user. It may do nothing until it is granted something.
#[derive(FromArgs)]
#[argh(
    subcommand,
    help_triggers("-h", "--help"),
    name = "add",
    note = "Its password is drawn and printed, unless it is given on stdin. The name anonymous is special: it has no password,\nand what it is granted may be done by all who name no user.",
    example = "stevedore user add alice\nstevedore user add --password-stdin bob < password"
)]
pub struct Add {
    /// take the password from the first line of stdin
    #[argh(switch)]
    pub password_stdin: bool,
    /// what it is called
    #[argh(positional, arg_name = "NAME")]
    pub name: String,
}

/// Give a user another password.
#[derive(FromArgs)]
#[argh(subcommand, help_triggers("-h", "--help"), name = "password", example = "stevedore user password alice")]
pub struct Password {
    /// take it from the first line of stdin; otherwise one is drawn and printed
    #[argh(switch)]
    pub password_stdin: bool,
    /// whose
    #[argh(positional, arg_name = "NAME")]
    pub name: String,
}

/// Remove a user. What it has put stays.
#[derive(FromArgs)]
#[argh(subcommand, help_triggers("-h", "--help"), name = "remove", example = "stevedore user remove alice")]
pub struct Remove {
    /// which one
    #[argh(positional, arg_name = "NAME")]
    pub name: String,
}

/// Show the users, and what each may.
#[derive(FromArgs)]
#[argh(subcommand, help_triggers("-h", "--help"), name = "list")]
pub struct List {
    /// print them as JSON
    #[argh(switch)]
    pub json: bool,
}

/// Say what a user may at a path and below it.
#[derive(FromArgs)]
#[argh(
    subcommand,
    help_triggers("-h", "--help"),
    name = "grant",
    note = "The greatest right at a path or above it counts. none takes back what was granted at this very path. A gateway goes by\nit a second later. On a gateway that only its own machine reaches, anonymous may write until this says otherwise.",
    example = "stevedore user grant alice write /home/alice\nstevedore user grant alice none /home/alice\nstevedore user grant anonymous read /public\nstevedore user grant anonymous none /"
)]
pub struct Grant {
    /// who; anonymous stands for all who name no user
    #[argh(positional, arg_name = "NAME")]
    pub name: String,
    /// read, write (and read), admin (both, and to change users), or none
    #[argh(positional, arg_name = "RIGHT", from_str_fn(right))]
    pub right: Granted,
    /// where
    #[argh(positional, arg_name = "PATH")]
    pub path: String,
}

/// Give a user access keys for S3, or take one away.
#[derive(FromArgs)]
#[argh(
    subcommand,
    help_triggers("-h", "--help"),
    name = "key",
    note = "Programs that speak S3 sign what they ask for with a key's secret. A key may do what its user was granted.",
    example = "stevedore user key add alice\nstevedore user key list\nstevedore user key remove alice SV7QKDM4XW2ANP9RTC3E"
)]
pub struct KeyCommand {
    /// what to do
    #[argh(subcommand)]
    pub action: KeyAction,
}

/// What can be done with access keys.
#[derive(FromArgs)]
#[argh(subcommand)]
#[expect(missing_docs, reason = "each says what it does")]
pub enum KeyAction {
    Add(AddKey),
    Remove(RemoveKey),
    List(ListKeys),
}

/// Draw a key and its secret, and print both. The secret is not shown again.
#[derive(FromArgs)]
#[argh(
    subcommand,
    help_triggers("-h", "--help"),
    name = "add",
    note = "The secret is kept in the store as it is, because signatures cannot be checked with a hash of it. A person who has the\nstore's client.toml can read it.",
    example = "stevedore user key add alice"
)]
pub struct AddKey {
    /// print it as JSON
    #[argh(switch)]
    pub json: bool,
    /// whose it is to be
    #[argh(positional, arg_name = "NAME")]
    pub name: String,
}

/// Take a key away from a user. It is of no use a second later.
#[derive(FromArgs)]
#[argh(subcommand, help_triggers("-h", "--help"), name = "remove")]
pub struct RemoveKey {
    /// whose it is
    #[argh(positional, arg_name = "NAME")]
    pub name: String,
    /// which one
    #[argh(positional, arg_name = "KEY")]
    pub key: String,
}

/// Show the keys of a user, or of all. Secrets are not shown.
#[derive(FromArgs)]
#[argh(subcommand, help_triggers("-h", "--help"), name = "list")]
pub struct ListKeys {
    /// print them as JSON
    #[argh(switch)]
    pub json: bool,
    /// whose (default: those of all users)
    #[argh(positional, arg_name = "NAME")]
    pub name: Option<String>,
}

/// A right, or none.
pub type Granted = Option<Right>;

/// For argh.
fn right(word: &str) -> Result<Granted, String> {
    match word {
        "none" => Ok(None),
        word => word.parse().map(Some).map_err(|_| "expected read, write, admin or none".into()),
    }
}

impl UserCommand {
    /// Does it.
    pub fn run(&self, session: &Session<'_>) -> Result<(), Failure> {
        let users = Users::of(session.store);
        match &self.action {
            Action::Add(Add { name, password_stdin }) => {
                let mut user = User::new(name).map_err(Failure::usage)?;
                let drawn = if name == ANONYMOUS { None } else { set_password(&mut user, *password_stdin)? };
                users.insert(&user).map_err(about(name))?;
                drawn.map_or(Ok(()), |password| say(format_args!("{password}")))
            }
            Action::Password(Password { name, .. }) if name == ANONYMOUS => {
                Err(Failure::usage(format!("{ANONYMOUS} has no password")))
            }
            Action::Password(Password { name, password_stdin }) => {
                let mut with_password = User::new(name).map_err(Failure::usage)?;
                let drawn = set_password(&mut with_password, *password_stdin)?;
                let change = |user: &mut User| user.password.clone_from(&with_password.password);
                users.change(name, change).map_err(about(name))?;
                drawn.map_or(Ok(()), |password| say(format_args!("{password}")))
            }
            Action::Remove(Remove { name }) => users.remove(name).map_err(about(name)),
            Action::List(List { json }) => {
                for user in users.list().map_err(of_store)? {
                    let User { name, password, keys, rights } = &user;
                    if *json {
                        let rights: Vec<_> = rights
                            .iter()
                            .map(|(path, right)| json!({ "path": path.as_str(), "right": right.to_string() }))
                            .collect();
                        say_json(
                            &json!({ "name": name, "has_password": password.is_some(), "keys": keys.len(), "rights": rights }),
                        )?;
                        continue;
                    }
                    say(format_args!("{name}"))?;
                    rights.iter().try_for_each(|(path, right)| say(format_args!("  {right:<5}  {path}")))?;
                }
                Ok(())
            }
            Action::Grant(Grant { name, right, path }) => {
                let path = session.path(path)?;
                let change = |user: &mut User| {
                    match right {
                        Some(right) => user.rights.insert(path.clone(), *right),
                        None => user.rights.remove(&path),
                    };
                };
                // All are anonymous, so it need not be added first.
                if name == ANONYMOUS {
                    match users.insert(&User::new(name).map_err(Failure::usage)?) {
                        Ok(()) | Err(ChangeError::AlreadyExists) => {}
                        Err(error) => return Err(about(name)(error)),
                    }
                }
                users.change(name, change).map(drop).map_err(about(name))
            }
            Action::Key(KeyCommand { action }) => action.run(users),
        }
    }
}

impl KeyAction {
    fn run(&self, users: Users<'_>) -> Result<(), Failure> {
        match self {
            Self::Add(AddKey { name, .. }) if name == ANONYMOUS => {
                Err(Failure::usage(format!("{ANONYMOUS} has no keys: a signed request is not anonymous")))
            }
            Self::Add(AddKey { name, json }) => {
                let mut added = Err(io::Error::other("not tried"));
                users.change(name, |user| added = user.add_key()).map_err(about(name))?;
                let (key, secret) = added.map_err(|error| Failure::new(format!("user {name}: {error}")))?;
                if *json {
                    return say_json(&json!({ "access_key": key, "secret": secret.as_str() }));
                }
                say(format_args!("access key  {key}"))?;
                say(format_args!("secret      {}", secret.as_str()))
            }
            Self::Remove(RemoveKey { name, key }) => {
                let mut removed = None;
                users.change(name, |user| removed = user.keys.remove(key)).map_err(about(name))?;
                match removed {
                    Some(_) => Ok(()),
                    None => {
                        let message = format!("user {name}: there is no key {key}");
                        Err(Failure { message, code: exit_code::DOES_NOT_EXIST })
                    }
                }
            }
            Self::List(ListKeys { name, json }) => {
                let list = match name {
                    Some(name) => {
                        vec![users.find(name).map_err(of_store)?.ok_or_else(|| about(name)(ChangeError::NoSuchUser))?]
                    }
                    None => users.list().map_err(of_store)?,
                };
                for user in list {
                    for key in user.keys.keys() {
                        match json {
                            true => say_json(&json!({ "name": user.name, "access_key": key }))?,
                            false => say(format_args!("{key}  {}", user.name))?,
                        }
                    }
                }
                Ok(())
            }
        }
    }
}

/// Gives a user a password: from stdin, or one that is drawn and given back.
fn set_password(user: &mut User, is_on_stdin: bool) -> Result<Option<String>, Failure> {
    let cannot = |error: io::Error| Failure::new(error.to_string());
    let drawn = if is_on_stdin { None } else { Some(random_password().map_err(cannot)?) };
    let password = match &drawn {
        Some(password) => password.clone(),
        None => {
            let mut line = String::new();
            io::stdin().read_line(&mut line).map_err(cannot)?;
            line.trim_end_matches(['\r', '\n']).to_owned()
        }
    };
    user.set_password(&password).map_err(cannot)?;
    Ok(drawn)
}

/// Makes a failure of an error about a user.
fn about(name: &str) -> impl Fn(ChangeError) -> Failure {
    move |error| {
        let code = match &error {
            ChangeError::NoSuchUser => exit_code::DOES_NOT_EXIST,
            ChangeError::AlreadyExists => exit_code::ALREADY_EXISTS,
            ChangeError::Busy | ChangeError::Store(_) => exit_code::FAILED,
        };
        Failure { message: format!("user {name}: {error}"), code }
    }
}
