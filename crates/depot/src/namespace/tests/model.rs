//! A second namespace, as naive as can be: a map of full paths. What it costs does not matter; that it is obviously right does.

use std::collections::{BTreeMap, HashMap};

use crate::checksum::Checksum;
use crate::identity::{SessionId, Version};
use crate::namespace::Object;
use crate::namespace::change::{Change, Command, Condition, Details, Outcome, Refusal, RemovalExtent};
use crate::path::Path;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    File(Vec<Object>),
    Directory { is_explicit: bool },
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) content: Content,
    pub(super) version: u64,
    pub(super) changed: u64,
    pub(super) modified_ms: u64,
    pub(super) details: Details,
}

impl Node {
    fn is_directory(&self) -> bool {
        matches!(self.content, Content::Directory { .. })
    }
}

/// Paths as texts; the root is the empty one.
pub(super) struct Model {
    pub(super) nodes: BTreeMap<String, Node>,
    outcomes: HashMap<(SessionId, u64), Outcome>,
    versions: HashMap<u64, Version>,
}

fn text(path: &Path) -> String {
    path.as_str().trim_end_matches('/').to_owned()
}

fn parent(path: &str) -> &str {
    &path[..path.rfind('/').expect("not the root")]
}

fn is_below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
}

impl Model {
    pub(super) fn new() -> Self {
        let root = Node {
            content: Content::Directory { is_explicit: true },
            version: 0,
            changed: 0,
            modified_ms: 0,
            details: Details::default(),
        };
        Self { nodes: BTreeMap::from([(String::new(), root)]), outcomes: HashMap::new(), versions: HashMap::new() }
    }

    /// The same as [`Namespace::apply`](crate::namespace::Namespace::apply); `version` is what the change would make.
    pub(super) fn apply(&mut self, sequence: u64, version: Version, change: &Change) -> Outcome {
        self.versions.insert(sequence, version);
        let id = change.stamp.map(|stamp| (stamp.session, stamp.number));
        if let Some(outcome) = id.and_then(|id| self.outcomes.get(&id)) {
            return *outcome;
        }
        let outcome = self.execute(sequence, change.now_ms, &change.command).map(|()| sequence);
        id.map(|id| self.outcomes.insert(id, outcome));
        outcome
    }

    pub(super) fn children(&self, directory: &str) -> impl Iterator<Item = &String> {
        self.nodes.keys().filter(move |path| is_below(path, directory) && parent(path) == directory)
    }

    /// Whether the way to a path is there, may be made, or leads through a file.
    fn check_way(&self, path: &str, parents: bool) -> Result<(), Refusal> {
        let mut ancestors: Vec<&str> = path.match_indices('/').skip(1).map(|(at, _)| &path[..at]).collect();
        ancestors.retain(|ancestor| !ancestor.is_empty());
        for ancestor in ancestors {
            match self.nodes.get(ancestor) {
                Some(node) if node.is_directory() => {}
                Some(_) => return Err(Refusal::NotADirectory),
                None => return if parents { Ok(()) } else { Err(Refusal::NotFound) },
            }
        }
        Ok(())
    }

    fn existing(&self, path: &str) -> Result<&Node, Refusal> {
        if path.is_empty() {
            return Err(Refusal::InvalidPath);
        }
        self.check_way(path, true)?;
        self.nodes.get(path).ok_or(Refusal::NotFound)
    }

    fn check(&self, condition: Condition, path: &str) -> Result<(), Refusal> {
        let node = self.nodes.get(path);
        let version = |sequence: u64| self.versions.get(&sequence).copied().unwrap_or_default();
        match condition {
            Condition::Any => Ok(()),
            Condition::Absent if node.is_some() => Err(Refusal::AlreadyExists),
            Condition::Absent => Ok(()),
            Condition::Version { version: wanted } if node.is_some_and(|node| version(node.version) == wanted) => {
                Ok(())
            }
            Condition::Changed { version: wanted } if node.is_some_and(|node| version(node.changed) == wanted) => {
                Ok(())
            }
            _ => Err(Refusal::ConditionFailed),
        }
    }

    fn target(&self, to: &str, condition: Condition, replace: bool, parents: bool) -> Result<(), Refusal> {
        if to.is_empty() {
            return Err(Refusal::InvalidPath);
        }
        self.check_way(to, parents)?;
        self.check(condition, to)?;
        if self.nodes.contains_key(to) && !replace { Err(Refusal::AlreadyExists) } else { Ok(()) }
    }

    fn remove_tree(&mut self, path: &str) {
        self.nodes.retain(|other, _| other != path && !is_below(other, path));
    }

    /// Adds what is new at a path, in place of what is there, and the directories on the way.
    fn add(&mut self, path: &str, node: Node, sequence: u64, now_ms: u64) {
        let replaces_file = self.nodes.get(path).is_some_and(|old| !old.is_directory()) && !node.is_directory();
        self.remove_tree(path);
        let mut made = Vec::new();
        let mut directory = parent(path);
        while !self.nodes.contains_key(directory) {
            made.push(directory.to_owned());
            directory = parent(directory);
        }
        for directory in made {
            let content = Content::Directory { is_explicit: false };
            let node = Node {
                content,
                version: sequence,
                changed: sequence,
                modified_ms: now_ms,
                details: Details::default(),
            };
            self.nodes.insert(directory, node);
        }
        if !replaces_file {
            self.touch(parent(path), sequence, now_ms);
        }
        self.nodes.insert(path.to_owned(), node);
    }

    fn touch(&mut self, directory: &str, sequence: u64, now_ms: u64) {
        let node = self.nodes.get_mut(directory).expect("the directory is there");
        (node.changed, node.modified_ms) = (sequence, now_ms);
    }

    /// Implicit directories without an entry go, from this one upwards.
    fn tidy(&mut self, directory: &str, sequence: u64, now_ms: u64) {
        let mut directory = directory.to_owned();
        while self.children(&directory).next().is_none()
            && self.nodes[&directory].content == (Content::Directory { is_explicit: false })
        {
            self.nodes.remove(&directory);
            directory = parent(&directory).to_owned();
        }
        self.touch(&directory, sequence, now_ms);
    }

    fn execute(&mut self, sequence: u64, now_ms: u64, command: &Command) -> Result<(), Refusal> {
        match command {
            Command::Put { path, condition, parents, objects, checksum, modified_ms, details } => {
                let path = text(path);
                self.file_target(&path, *condition, *parents)?;
                assert!(
                    objects.objects.len() != 1 || objects.objects[0].checksum == *checksum,
                    "the test puts what is right"
                );
                let objects = objects.objects.iter().map(|object| Object {
                    key: objects.key(object),
                    length: object.length,
                    checksum: object.checksum,
                });
                let content = Content::File(objects.collect());
                self.add_file(&path, content, *modified_ms, details, sequence, now_ms);
            }
            Command::Compose { path, condition, parents, sources, remove_sources, modified_ms, details } => {
                let path = text(path);
                self.file_target(&path, *condition, *parents)?;
                let mut all = Vec::new();
                for (source, version) in sources {
                    let source = text(source);
                    match &self.existing(&source)?.content {
                        Content::File(objects) => all.extend_from_slice(objects),
                        Content::Directory { .. } => return Err(Refusal::IsADirectory),
                    }
                    self.check(Condition::Version { version: *version }, &source)?;
                }
                self.add_file(&path, Content::File(all), *modified_ms, details, sequence, now_ms);
                if *remove_sources {
                    for (source, _) in sources {
                        let source = text(source);
                        if source != path && self.nodes.remove(&source).is_some() {
                            self.tidy(parent(&source), sequence, now_ms);
                        }
                    }
                }
            }
            Command::Move { from, from_condition, to, to_condition, replace, parents } => {
                let (from, to) = (text(from), text(to));
                let node = self.existing(&from)?.clone();
                self.check(*from_condition, &from)?;
                self.target(&to, *to_condition, *replace, *parents)?;
                if from == to {
                    return Ok(());
                }
                if is_below(&to, &from) && node.is_directory() || is_below(&from, &to) {
                    return Err(Refusal::InvalidPath);
                }
                let tree: Vec<_> = self
                    .nodes
                    .iter()
                    .filter(|(path, _)| is_below(path, &from))
                    .map(|(path, node)| (path.clone(), node.clone()))
                    .collect();
                self.remove_tree(&from);
                self.add(&to, Node { changed: sequence, ..node }, sequence, now_ms);
                for (path, node) in tree {
                    self.nodes.insert(format!("{to}{}", &path[from.len()..]), node);
                }
                self.tidy(parent(&from), sequence, now_ms);
            }
            Command::Copy { from, from_condition, to, to_condition, replace, parents, details } => {
                let (from, to) = (text(from), text(to));
                let node = self.existing(&from)?.clone();
                self.check(*from_condition, &from)?;
                self.target(&to, *to_condition, *replace, *parents)?;
                if node.is_directory() && (is_below(&to, &from) || from == to || details.is_some())
                    || is_below(&from, &to)
                {
                    return Err(Refusal::InvalidPath);
                }
                let tree: Vec<_> = self
                    .nodes
                    .iter()
                    .filter(|(path, _)| is_below(path, &from))
                    .map(|(path, node)| (path.clone(), node.clone()))
                    .collect();
                let fresh = |node: Node| Node { version: sequence, changed: sequence, modified_ms: now_ms, ..node };
                let mut top = fresh(node);
                if let Some(details) = details {
                    top.details = details.clone();
                }
                self.add(&to, top, sequence, now_ms);
                for (path, node) in tree {
                    self.nodes.insert(format!("{to}{}", &path[from.len()..]), fresh(node));
                }
            }
            Command::Remove { path, condition } => {
                let path = text(path);
                let is_directory = self.existing(&path)?.is_directory();
                self.check(*condition, &path)?;
                if is_directory {
                    return Err(Refusal::IsADirectory);
                }
                self.nodes.remove(&path);
                self.tidy(parent(&path), sequence, now_ms);
            }
            Command::MakeDirectory { path, parents, details, modified_ms } => {
                let path = text(path);
                if path.is_empty() {
                    return Err(Refusal::InvalidPath);
                }
                self.check_way(&path, *parents)?;
                let made = Node {
                    content: Content::Directory { is_explicit: true },
                    version: sequence,
                    changed: sequence,
                    modified_ms: modified_ms.unwrap_or(now_ms),
                    details: details.clone(),
                };
                match self.nodes.get_mut(&path) {
                    Some(node) if node.content == (Content::Directory { is_explicit: false }) => *node = made,
                    Some(_) => return Err(Refusal::AlreadyExists),
                    None => self.add(&path, made, sequence, now_ms),
                }
            }
            Command::RemoveDirectory { path, condition, extent } => {
                let path = text(path);
                let is_directory = self.existing(&path)?.is_directory();
                self.check(*condition, &path)?;
                if !is_directory {
                    return Err(Refusal::NotADirectory);
                }
                let is_empty = self.children(&path).next().is_none();
                match extent {
                    RemovalExtent::Empty if !is_empty => return Err(Refusal::NotEmpty),
                    RemovalExtent::Mark if !is_empty => {
                        let node = self.nodes.get_mut(&path).expect("it exists");
                        node.content = Content::Directory { is_explicit: false };
                        node.changed = sequence;
                        node.details = Details::default();
                    }
                    _ => {
                        self.remove_tree(&path);
                        self.tidy(parent(&path), sequence, now_ms);
                    }
                }
            }
            Command::SetAttributes { path, condition, attributes, content_type, owner, modified_ms } => {
                let path = text(path);
                if !path.is_empty() {
                    self.existing(&path)?;
                }
                self.check(*condition, &path)?;
                let node = self.nodes.get_mut(&path).expect("it exists");
                for (name, value) in attributes {
                    node.details.attributes.remove(name);
                    if let Some(value) = value {
                        node.details.attributes.insert(name.clone(), value.clone());
                    }
                }
                content_type.iter().for_each(|content_type| node.details.content_type.clone_from(content_type));
                owner.iter().for_each(|owner| node.details.owner.clone_from(owner));
                node.modified_ms = modified_ms.unwrap_or(node.modified_ms);
                node.changed = sequence;
                if node.is_directory() {
                    node.content = Content::Directory { is_explicit: true };
                    node.version = sequence;
                }
            }
            Command::Format { .. } => {
                let root = &self.nodes[""];
                let content = root.content.clone();
                let root = Node {
                    content,
                    version: sequence,
                    changed: sequence,
                    modified_ms: now_ms,
                    details: Details::default(),
                };
                self.nodes = BTreeMap::from([(String::new(), root)]);
            }
            Command::Create { .. }
            | Command::Lead { .. }
            | Command::Set { .. }
            | Command::Dstore { .. }
            | Command::EnterController { .. }
            | Command::LeaveController { .. }
            | Command::Reap => {}
        }
        Ok(())
    }

    fn file_target(&self, path: &str, condition: Condition, parents: bool) -> Result<(), Refusal> {
        if path.is_empty() {
            return Err(Refusal::InvalidPath);
        }
        self.check_way(path, parents)?;
        self.check(condition, path)?;
        if self.nodes.get(path).is_some_and(Node::is_directory) { Err(Refusal::IsADirectory) } else { Ok(()) }
    }

    fn add_file(
        &mut self,
        path: &str,
        content: Content,
        modified_ms: Option<u64>,
        details: &Details,
        sequence: u64,
        now_ms: u64,
    ) {
        let modified_ms = modified_ms.unwrap_or(now_ms);
        let node = Node { content, version: sequence, changed: sequence, modified_ms, details: details.clone() };
        self.add(path, node, sequence, now_ms);
    }

    /// What a file's checksum must be.
    pub(super) fn checksum(objects: &[Object]) -> Checksum {
        objects.iter().fold(Checksum::EMPTY, |sum, object| sum.followed_by(object.checksum, object.length))
    }
}
