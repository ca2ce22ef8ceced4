//! Users and their keys, for admins: what `stevedore user` does. (docs/gateway.md)

use std::io;

use depot::client::Error;
use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Console;
use super::api::{body, path};
use crate::access::{ANONYMOUS, ChangeError, Right, User, Users, random_password};
use crate::http::{Exchange, Problem};

/// What is to be changed.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", tag = "do", deny_unknown_fields)]
enum Change {
    Add {
        name: String,
    },
    Remove {
        name: String,
    },
    /// Draws another password.
    Password {
        name: String,
    },
    /// Without a right, the one that there was at this path goes.
    Grant {
        name: String,
        path: String,
        right: Option<String>,
    },
    AddKey {
        name: String,
    },
    RemoveKey {
        name: String,
        key: String,
    },
}

impl Console {
    /// All users; secrets are not told.
    pub(super) fn users(&self) -> Result<Value, Problem> {
        let users = Users::of(&*self.store).list().map_err(|error| Problem::of("the users", &error))?;
        Ok(json!({ "users": users.iter().map(user_json).collect::<Vec<_>>() }))
    }

    /// Does a change that an admin asks for. What is drawn for it is told this once.
    pub(super) fn change_users(&self, exchange: &mut Exchange) -> Result<Value, Problem> {
        let users = Users::of(&*self.store);
        match body(exchange)? {
            Change::Add { name } => {
                let mut user = User::new(&name).map_err(invalid)?;
                let password = if name == ANONYMOUS { None } else { Some(drawn(&mut user)?) };
                users.insert(&user).map_err(about(&name))?;
                Ok(json!({ "password": password }))
            }
            Change::Remove { name } => users.remove(&name).map(|()| json!({})).map_err(about(&name)),
            Change::Password { name } | Change::AddKey { name } if name == ANONYMOUS => {
                Err(invalid(format!("{ANONYMOUS} stands for all who name no user: it has neither password nor keys")))
            }
            Change::Password { name } => {
                let mut with_password = User::new(&name).map_err(invalid)?;
                let password = drawn(&mut with_password)?;
                let change = |user: &mut User| user.password.clone_from(&with_password.password);
                users.change(&name, change).map_err(about(&name))?;
                Ok(json!({ "password": password }))
            }
            Change::Grant { name, path: at, right } => {
                let at = path(&at)?;
                let right: Option<Right> = right.map(|word| word.parse()).transpose().map_err(invalid)?;
                let change = |user: &mut User| {
                    match right {
                        Some(right) => user.rights.insert(at.clone(), right),
                        None => user.rights.remove(&at),
                    };
                };
                users.change(&name, change).map(|_| json!({})).map_err(about(&name))
            }
            Change::AddKey { name } => {
                let mut added = Err(io::Error::other("not tried"));
                users.change(&name, |user| added = user.add_key()).map_err(about(&name))?;
                let (key, secret) = added.map_err(no_random_bytes)?;
                Ok(json!({ "key": key, "secret": secret.as_str() }))
            }
            Change::RemoveKey { name, key } => {
                let mut removed = None;
                users.change(&name, |user| removed = user.keys.remove(&key)).map_err(about(&name))?;
                let missing = || Problem::new(StatusCode::NOT_FOUND, "no-such-key", format!("{name} has no key {key}"));
                removed.map(|_| json!({})).ok_or_else(missing)
            }
        }
    }
}

/// Gives a user a password that is drawn.
fn drawn(user: &mut User) -> Result<String, Problem> {
    let password = random_password().map_err(no_random_bytes)?;
    user.set_password(&password).map_err(no_random_bytes)?;
    Ok(password)
}

fn user_json(user: &User) -> Value {
    let rights = user.rights.iter().map(|(path, right)| json!({ "path": path.as_str(), "right": right.to_string() }));
    json!({
        "name": user.name,
        "has_password": user.password.is_some(),
        "rights": rights.collect::<Vec<_>>(),
        "keys": user.keys.keys().collect::<Vec<_>>(),
    })
}

fn invalid(why: impl std::fmt::Display) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "invalid-call", why.to_string())
}

fn no_random_bytes(error: io::Error) -> Problem {
    Problem::of("random bytes", &Error::Source(error))
}

fn about(name: &str) -> impl Fn(ChangeError) -> Problem {
    move |error| {
        let (status, code) = match &error {
            ChangeError::NoSuchUser => (StatusCode::NOT_FOUND, "no-such-user"),
            ChangeError::AlreadyExists => (StatusCode::CONFLICT, "already-exists"),
            ChangeError::Busy => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            ChangeError::Store(error) => return Problem::of(&format!("user {name}"), error),
        };
        Problem::new(status, code, format!("user {name}: {error}"))
    }
}
