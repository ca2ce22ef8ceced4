//! XML: what S3's requests and answers are written in.
//!
//! Documents of clients are read whole, as a tree: they are small (`parse` is given no more than [`super::MOST_XML_BYTES`]).
//! Only what S3 needs is accepted: no document type, so no entities of its own, and no deep nesting.

use std::fmt::Display;

use quick_xml::Reader;
use quick_xml::escape::{escape, resolve_predefined_entity};
use quick_xml::events::Event;

const DECLARATION: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";

/// S3's elements are in this namespace.
const NAMESPACE: &str = "http://s3.amazonaws.com/doc/2006-03-01/";

/// No document of S3's has more levels than four.
const MOST_LEVELS: usize = 8;

/// The most elements of a document: 10,000 parts with five each.
const MOST_ELEMENTS: usize = 60_000;

/// A document that is being written.
pub(super) struct Document(String);

impl Document {
    /// With a root element in S3's namespace.
    pub(super) fn of(root: &str, fill: impl FnOnce(&mut Self)) -> String {
        let mut document = Self(format!("{DECLARATION}<{root} xmlns=\"{NAMESPACE}\">"));
        fill(&mut document);
        document.0.push_str(&format!("</{root}>\n"));
        document.0
    }

    /// Of an error. It is in no namespace, and boto3 does not find the code otherwise.
    pub(super) fn error(fill: impl FnOnce(&mut Self)) -> String {
        let mut document = Self(DECLARATION.to_owned());
        document.element("Error", fill);
        document.0.push('\n');
        document.0
    }

    /// An element with others in it.
    pub(super) fn element(&mut self, name: &str, fill: impl FnOnce(&mut Self)) {
        self.0.push_str(&format!("<{name}>"));
        fill(self);
        self.0.push_str(&format!("</{name}>"));
    }

    /// An element that says which kind of its name it is.
    pub(super) fn typed(&mut self, name: &str, kind: &str, fill: impl FnOnce(&mut Self)) {
        self.0
            .push_str(&format!(r#"<{name} xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="{kind}">"#));
        fill(self);
        self.0.push_str(&format!("</{name}>"));
    }

    /// An element with text.
    pub(super) fn text(&mut self, name: &str, text: impl Display) {
        let text = text.to_string();
        self.element(name, |document| {
            // A reader takes a carriage return for a line feed, unless it is escaped.
            document.0.push_str(&escape(&text).replace('\r', "&#13;"));
        });
    }

    /// An element with text, if there is one.
    pub(super) fn optional(&mut self, name: &str, text: Option<impl Display>) {
        if let Some(text) = text {
            self.text(name, text);
        }
    }
}

/// An element of a document that was read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Element {
    /// Without its namespace.
    pub(super) name: String,
    /// All its text, with entities resolved and blanks kept.
    pub(super) text: String,
    pub(super) children: Vec<Element>,
}

impl Element {
    /// The root of a document; `None` if it is not well formed, or has what S3's documents do not have.
    pub(super) fn parse(document: &[u8]) -> Option<Self> {
        let mut reader = Reader::from_str(std::str::from_utf8(document).ok()?);
        // The first one is the document itself.
        let mut open = vec![Self::default()];
        let mut elements = 0;
        loop {
            let event = reader.read_event().ok()?;
            elements += usize::from(matches!(event, Event::Start(_) | Event::Empty(_)));
            if elements > MOST_ELEMENTS || open.len() > MOST_LEVELS {
                return None;
            }
            match event {
                Event::Start(start) => {
                    let name = start.local_name().into_inner().to_owned();
                    open.push(Self { name, ..Self::default() });
                }
                Event::Empty(start) => {
                    let name = start.local_name().into_inner().to_owned();
                    open.last_mut()?.children.push(Self { name, ..Self::default() });
                }
                Event::End(_) => {
                    let element = open.pop()?;
                    open.last_mut()?.children.push(element);
                }
                Event::Text(text) => open.last_mut()?.text.push_str(&text),
                Event::CData(text) => open.last_mut()?.text.push_str(&text),
                Event::GeneralRef(entity) => match entity.resolve_char_ref().ok()? {
                    Some(letter) => open.last_mut()?.text.push(letter),
                    None => open.last_mut()?.text.push_str(resolve_predefined_entity(&entity)?),
                },
                Event::DocType(_) => return None,
                Event::Decl(_) | Event::Comment(_) | Event::PI(_) => {}
                Event::Eof => break,
            }
        }
        let [document] = &mut open[..] else { return None };
        let [_root] = &document.children[..] else { return None };
        document.children.pop()
    }

    /// The text of a child.
    pub(super) fn child(&self, name: &str) -> Option<&str> {
        self.children.iter().find(|child| child.name == name).map(|child| child.text.as_str())
    }

    /// The children of this name.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &Self> {
        self.children.iter().filter(move |child| child.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let awkward = " <a>&amp;\"'\r\n\t日本 ]]> ";
        let document = Document::of("Root", |root| {
            root.text("Key", awkward);
            root.element("Object", |object| object.text("Size", 5));
            root.optional("None", None::<&str>);
        });
        let root = Element::parse(document.as_bytes()).unwrap();
        assert_eq!(root.name, "Root");
        assert_eq!(root.child("Key"), Some(awkward));
        assert_eq!(root.all("Object").next().and_then(|object| object.child("Size")), Some("5"));
        assert_eq!(root.child("None"), None);
    }

    #[test]
    fn namespaces_prefixes_and_empty_elements_are_understood() {
        let root = Element::parse(
            b"<?xml version='1.0'?><s:D xmlns:s='x'><s:Quiet/><s:K><![CDATA[<k>]]>&#65;&lt;</s:K></s:D>",
        );
        let root = root.unwrap();
        assert_eq!((root.name.as_str(), root.child("Quiet"), root.child("K")), ("D", Some(""), Some("<k>A<")));
    }

    #[test]
    fn what_is_no_document_of_s3_is_refused() {
        let wide = format!("<a>{}</a>", "<b/>".repeat(MOST_ELEMENTS));
        let deep = format!("{}{}", "<a>".repeat(100), "</a>".repeat(100));
        for document in [
            "",
            "text",
            "<a>",
            "</a>",
            "<a></b>",
            "<a/><b/>",
            "<a>&unknown;</a>",
            "<!DOCTYPE a [<!ENTITY e \"x\">]><a>&e;</a>",
            "<!DOCTYPE a SYSTEM \"http://localhost/\"><a/>",
            "<a>\u{0}</a",
            &deep,
            &wide,
        ] {
            assert_eq!(Element::parse(document.as_bytes()), None, "{:.100}", document);
        }
        assert_eq!(Element::parse(b"<a>\xff</a>"), None);
    }
}
