//! Which path a request is about.

use depot::path::{InvalidPath, Path};
use hyper::{StatusCode, Uri};
use percent_encoding::percent_decode_str;

use super::problem::Problem;

/// The root's folder for uploads, users and locks, which no client reaches. (depot 3.1)
pub(crate) const RESERVED: &str = ".stevedore";

/// Whether a path is the store's own.
pub(crate) fn is_reserved(path: &Path) -> bool {
    path.components().next() == Some(RESERVED)
}

/// What a request is about.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// In the store.
    pub(crate) path: Path,
    /// It was written with a `/` at its end, or is the root.
    pub(super) is_folder: bool,
    /// The words behind `?`, in order, with an empty value where none is given.
    query: Vec<(String, String)>,
}

impl Target {
    pub(crate) fn of(uri: &Uri) -> Result<Self, Problem> {
        let bad = |why: &str| Problem::new(StatusCode::BAD_REQUEST, "invalid-path", format!("{}: {why}", uri.path()));
        let text = uri.path().strip_prefix('/').ok_or_else(|| bad("a path begins with /"))?;
        let mut components: Vec<&str> = text.split('/').collect();
        let is_folder = components.last() == Some(&"");
        if is_folder {
            components.pop();
        }
        let mut path = Path::root();
        for component in components {
            let name = decoded(component).map_err(bad)?;
            if name.contains('/') {
                return Err(bad("a name has no / in it, so no %2F either"));
            }
            if name.is_empty() {
                return Err(bad(&InvalidPath::EmptyComponent.to_string()));
            }
            path = path.join(&name).map_err(|error| bad(&error.to_string()))?;
        }
        if is_reserved(&path) {
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                "reserved",
                format!("/{RESERVED}/ is the store's own: nothing there can be read or changed"),
            ));
        }
        let query = query(uri)?;
        Ok(Self { path, is_folder, query })
    }

    /// What the query says of this.
    pub(super) fn option(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(there, _)| there == name).map(|(_, value)| value.as_str())
    }

    /// The path as it is shown: a folder's with `/` at its end.
    pub(super) fn folder_name(&self) -> String {
        if self.path.is_root() { "/".to_owned() } else { format!("{}/", self.path) }
    }
}

/// The words behind `?`, in order, with an empty value where none is given.
pub(crate) fn query(uri: &Uri) -> Result<Vec<(String, String)>, Problem> {
    let word = |word: &str| {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        Ok((decoded(name)?, decoded(value)?))
    };
    let words = uri.query().unwrap_or_default().split('&').filter(|word| !word.is_empty());
    words
        .map(word)
        .collect::<Result<_, &str>>()
        .map_err(|why| Problem::new(StatusCode::BAD_REQUEST, "invalid-path", format!("{}: {why}", uri.path())))
}

fn decoded(text: &str) -> Result<String, &'static str> {
    let mut after_percent = text.split('%').skip(1);
    if !after_percent.all(|rest| rest.len() >= 2 && rest.bytes().take(2).all(|byte| byte.is_ascii_hexdigit())) {
        return Err("two hexadecimal digits follow each %");
    }
    percent_decode_str(text).decode_utf8().map(Into::into).map_err(|_| "a path is UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(uri: &str) -> Result<Target, Problem> {
        Target::of(&uri.parse().expect("a URI"))
    }

    #[test]
    fn a_path_is_decoded_component_by_component() {
        for (uri, path, is_folder) in [
            ("/", "/", true),
            ("/a", "/a", false),
            ("/a/b/", "/a/b", true),
            ("/a%20b/%25", "/a b/%", false),
            ("/na%C3%AFve", "/naïve", false),
            ("/a+b;c=d:e@f", "/a+b;c=d:e@f", false),
            ("/%0A", "/\n", false),
            ("/...", "/...", false),
            ("/a?b/../c", "/a", false),
            ("http://host:1/a/b", "/a/b", false),
            ("/.stevedoreX", "/.stevedoreX", false),
            ("/a/.stevedore", "/a/.stevedore", false),
        ] {
            let target = target(uri).unwrap_or_else(|problem| panic!("{uri}: {problem:?}"));
            assert_eq!((target.path.as_str(), target.is_folder), (path, is_folder), "{uri}");
        }
    }

    #[test]
    fn what_is_no_path_is_refused_with_the_reason() {
        let long = format!("/{}", "x".repeat(1025));
        for (uri, status, why) in [
            ("/a//b", 400, "no //"),
            ("//a", 400, "no //"),
            ("/a//", 400, "no //"),
            ("/../a", 400, "no . or .."),
            ("/a/%2e%2E/b", 400, "no . or .."),
            ("/a/.", 400, "no . or .."),
            ("/..%2fetc", 400, "%2F"),
            ("/a%2Fb", 400, "%2F"),
            ("/%00", 400, "NUL"),
            ("/%", 400, "hexadecimal"),
            ("/%4", 400, "hexadecimal"),
            ("/%zz", 400, "hexadecimal"),
            ("/a?x=%g0", 400, "hexadecimal"),
            ("/%ff", 400, "UTF-8"),
            ("/%C3%28", 400, "UTF-8"),
            (&long, 400, "1,024"),
            ("*", 400, "begins with /"),
            ("/.stevedore", 403, "own"),
            ("/.stevedore/users", 403, "own"),
            ("/%2Estevedore/users", 403, "own"),
            ("/.%73tevedore/", 403, "own"),
        ] {
            let problem = target(uri).expect_err(uri);
            assert_eq!(problem.status, status, "{uri}");
            assert!(problem.message.contains(why), "{uri}: {}", problem.message);
        }
    }

    #[test]
    fn the_query_says_how() {
        let target = target("/a/?after=b%26c&limit=5&parents").expect("a target");
        assert_eq!(target.option("after"), Some("b&c"));
        assert_eq!(target.option("limit"), Some("5"));
        assert_eq!(target.option("parents"), Some(""));
        assert_eq!(target.option("none"), None);
    }
}
