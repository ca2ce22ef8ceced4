//! XML, as far as WebDAV needs it: bodies of requests as a tree, and parts of such a tree as text again.
//!
//! What a client sends may be hostile. It has at most [`MOST_BYTES`], elements lie within each other at most [`MOST_LEVELS`]
//! deep, and a document type is refused, so there are no entities but the five that XML itself has. A namespace and a language
//! hold for all that is inside, which each element here says for itself: so their length is limited, and so are the elements.

use std::io::Read;

use quick_xml::NsReader;
use quick_xml::XmlVersion;
use quick_xml::escape::{escape, resolve_predefined_entity, unescape};
use quick_xml::events::{BytesStart, Event};
use quick_xml::name::{NamespaceResolver, ResolveResult};

use crate::http::Problem;
use crate::server::Body;
use depot::client::Error;
use hyper::StatusCode;

/// The namespace of all that WebDAV itself names.
pub(super) const DAV: &str = "DAV:";

/// The namespace of `xml:lang`.
const XML: &str = "http://www.w3.org/XML/1998/namespace";

/// The largest body that is read as XML.
const MOST_BYTES: u64 = 64 << 10;

/// So many elements lie within each other at most.
const MOST_LEVELS: usize = 32;

/// So many elements there are at most.
const MOST_ELEMENTS: usize = 1_000;

/// The longest name of a namespace, and of a language, in bytes.
const LONGEST_NAMESPACE: usize = 512;
const LONGEST_LANG: usize = 64;

/// What an element or an attribute is called: a namespace, which may be empty, and a name in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub(super) namespace: String,
    pub(super) local: String,
}

impl Name {
    pub(super) fn dav(local: &str) -> Self {
        Self { namespace: DAV.to_owned(), local: local.to_owned() }
    }

    /// Its local name, if it is WebDAV's own.
    pub(super) fn as_dav(&self) -> Option<&str> {
        (self.namespace == DAV).then_some(&self.local)
    }

    /// An element of this name around `inner`, which is XML.
    pub(super) fn around(&self, inner: &str) -> String {
        let (start, end) = match &*self.namespace {
            DAV => (format!("D:{}", self.local), format!("D:{}", self.local)),
            namespace => (format!("{} xmlns=\"{}\"", self.local, escape(namespace)), self.local.clone()),
        };
        if inner.is_empty() { format!("<{start}/>") } else { format!("<{start}>{inner}</{end}>") }
    }
}

/// An element with all that is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Element {
    pub(super) name: Name,
    /// Of `xml:lang`, here or further out.
    pub(super) lang: Option<String>,
    attributes: Vec<(Name, String)>,
    nodes: Vec<Node>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Element(Element),
    Text(String),
}

impl Element {
    /// The elements in it.
    pub(super) fn children(&self) -> impl Iterator<Item = &Self> {
        self.nodes.iter().filter_map(|node| match node {
            Node::Element(element) => Some(element),
            Node::Text(_) => None,
        })
    }

    /// The first element in it that has this name of WebDAV's own.
    pub(super) fn child(&self, local: &str) -> Option<&Self> {
        self.children().find(|child| child.name.as_dav() == Some(local))
    }

    /// As text that stands for itself: it names the namespaces and the language of all that is in it.
    pub(super) fn to_xml(&self) -> String {
        let mut xml = String::new();
        self.write(&mut xml, "", None);
        xml
    }

    /// Writes it where `namespace` is the usual one, and the language `lang`.
    fn write(&self, xml: &mut String, namespace: &str, lang: Option<&str>) {
        xml.push('<');
        xml.push_str(&self.name.local);
        if self.name.namespace != namespace {
            xml.push_str(&format!(" xmlns=\"{}\"", escape(&*self.name.namespace)));
        }
        if let Some(own) = self.lang.as_deref().filter(|own| lang != Some(own)) {
            xml.push_str(&format!(" xml:lang=\"{}\"", escape(own)));
        }
        for (number, (Name { namespace, local }, value)) in self.attributes.iter().enumerate() {
            let value = escape(&**value);
            if namespace.is_empty() {
                xml.push_str(&format!(" {local}=\"{value}\""));
            } else {
                xml.push_str(&format!(" xmlns:n{number}=\"{}\" n{number}:{local}=\"{value}\"", escape(&**namespace)));
            }
        }
        if self.nodes.is_empty() {
            return xml.push_str("/>");
        }
        xml.push('>');
        for node in &self.nodes {
            match node {
                Node::Text(text) => xml.push_str(&escape(&**text)),
                Node::Element(element) => element.write(xml, &self.name.namespace, self.lang.as_deref()),
            }
        }
        xml.push_str(&format!("</{}>", self.name.local));
    }
}

/// The body of a request as XML; `None` if it is empty.
pub(super) fn read(body: &mut Body) -> Result<Option<Element>, Problem> {
    let mut bytes = Vec::new();
    let read = body.take(MOST_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|error| Problem::of("the body", &Error::Source(error)))?;
    if bytes.len() as u64 > MOST_BYTES {
        let message = format!("XML in a body has at most {MOST_BYTES} bytes");
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", message));
    }
    if bytes.is_empty() {
        return Ok(None);
    }
    let bad = |why: String| Problem::new(StatusCode::BAD_REQUEST, "invalid-xml", format!("the body: {why}"));
    let text = String::from_utf8(bytes).map_err(|_| bad("XML is expected in UTF-8".to_owned()))?;
    parse(text.trim_start_matches('\u{feff}')).map(Some).map_err(bad)
}

/// The one element of a document, or why it is none.
fn parse(text: &str) -> Result<Element, String> {
    let mut reader = NsReader::from_str(text);
    reader.config_mut().expand_empty_elements = true;
    let mut open: Vec<Element> = Vec::new();
    let (mut root, mut elements) = (None, 0);
    loop {
        let event = reader.read_event().map_err(|error| error.to_string())?;
        match event {
            Event::Start(start) => {
                if open.len() == MOST_LEVELS {
                    return Err(format!("more than {MOST_LEVELS} elements within each other"));
                }
                if root.is_some() {
                    return Err("a second element behind the first".to_owned());
                }
                elements += 1;
                if elements > MOST_ELEMENTS {
                    return Err(format!("more than {MOST_ELEMENTS} elements"));
                }
                let lang = open.last().and_then(|outer| outer.lang.clone());
                open.push(element(reader.resolver(), &start, lang)?);
            }
            Event::End(_) => {
                let element = open.pop().ok_or("an end without its start")?;
                match open.last_mut() {
                    Some(outer) => outer.nodes.push(Node::Element(element)),
                    None => root = Some(element),
                }
            }
            Event::Text(text) => add_text(&mut open, &text.xml10_content())?,
            Event::CData(text) => add_text(&mut open, &text.xml10_content())?,
            Event::GeneralRef(reference) => {
                let character = reference.resolve_char_ref().map_err(|error| error.to_string())?;
                match character {
                    Some(character) => add_text(&mut open, character.encode_utf8(&mut [0; 4]))?,
                    None => {
                        let text = resolve_predefined_entity(&reference);
                        add_text(&mut open, text.ok_or_else(|| format!("&{};: no such entity", &*reference))?)?;
                    }
                }
            }
            Event::DocType(_) => return Err("a document type: that is not read".to_owned()),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::Empty(_) => {}
            Event::Eof if open.is_empty() => return root.ok_or_else(|| "no element".to_owned()),
            Event::Eof => return Err("it ends within an element".to_owned()),
        }
    }
}

fn element(resolver: &NamespaceResolver, start: &BytesStart<'_>, mut lang: Option<String>) -> Result<Element, String> {
    let name = |(resolved, local): (ResolveResult<'_>, quick_xml::name::LocalName<'_>)| {
        let namespace = match resolved {
            ResolveResult::Bound(namespace) => {
                let namespace = unescape(namespace.0).map_err(|error| error.to_string())?;
                check_characters(&namespace)?;
                if namespace.len() > LONGEST_NAMESPACE {
                    return Err(format!("a namespace has at most {LONGEST_NAMESPACE} bytes"));
                }
                namespace.into_owned()
            }
            ResolveResult::Unbound => String::new(),
            ResolveResult::Unknown(prefix) => {
                return Err(format!("{prefix}: is said nowhere to stand for a namespace"));
            }
        };
        let local = local.into_inner();
        if !is_name(local) {
            return Err(format!("{local:?} is no name"));
        }
        Ok(Name { namespace, local: local.to_owned() })
    };
    let mut attributes = Vec::new();
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|error| error.to_string())?;
        let value = attribute.normalized_value(XmlVersion::Implicit1_0).map_err(|error| error.to_string())?;
        check_characters(&value)?;
        if attribute.key.as_namespace_binding().is_some() {
            if value.is_empty() && attribute.key.prefix().is_some() {
                return Err("a prefix that stands for no namespace".to_owned());
            }
            continue;
        }
        let name = name(resolver.resolve_attribute(attribute.key))?;
        if name.namespace == XML && name.local == "lang" {
            if value.len() > LONGEST_LANG {
                return Err(format!("a language has at most {LONGEST_LANG} bytes"));
            }
            lang = Some(value.into_owned());
        } else {
            attributes.push((name, value.into_owned()));
        }
    }
    Ok(Element { name: name(resolver.resolve_element(start.name()))?, lang, attributes, nodes: Vec::new() })
}

fn add_text(open: &mut [Element], text: &str) -> Result<(), String> {
    check_characters(text)?;
    match open.last_mut() {
        Some(element) => match element.nodes.last_mut() {
            Some(Node::Text(before)) => before.push_str(text),
            _ => element.nodes.push(Node::Text(text.to_owned())),
        },
        None if text.trim().is_empty() => {}
        None => return Err("text outside of the element".to_owned()),
    }
    Ok(())
}

/// Whether it can be written as a name again. XML allows a few characters more.
fn is_name(text: &str) -> bool {
    let begins_well = text.starts_with(|character: char| character.is_alphabetic() || character == '_');
    begins_well && text.chars().all(|character| character.is_alphanumeric() || "-._\u{b7}".contains(character))
}

fn check_characters(text: &str) -> Result<(), String> {
    let forbidden = |character: &char| !is_allowed(*character);
    text.chars().find(forbidden).map_or(Ok(()), |character| Err(format!("{character:?} is no character of XML")))
}

/// Whether XML has this character.
fn is_allowed(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\r' | '\u{20}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

/// Text in XML. What XML has no way to say is shown as a replacement character.
pub(super) fn text(text: &str) -> String {
    let text: String =
        text.chars().map(|character| if is_allowed(character) { character } else { '\u{fffd}' }).collect();
    escape(text).into_owned()
}

/// What went wrong, by the name of the precondition that does not hold; with a sentence for people beside it.
pub(crate) fn error(precondition: &str, urls: &[String], message: &str) -> String {
    let urls: String = urls.iter().map(|url| format!("<D:href>{url}</D:href>")).collect();
    let why = Name::dav(precondition).around(&urls);
    let message = format!("<message xmlns=\"urn:stevedore\">{}</message>", text(message));
    format!("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<D:error xmlns:D=\"DAV:\">{why}{message}</D:error>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_comes_back_with_its_namespaces_and_language() {
        for (document, again) in [
            ("<a/>", "<a/>"),
            ("<?xml version='1.0'?>\n<!-- x --><a>t</a>\n", "<a>t</a>"),
            ("<D:a xmlns:D='DAV:'><D:b/></D:a>", "<a xmlns=\"DAV:\"><b/></a>"),
            ("<a xmlns='x'><b xmlns=''/></a>", "<a xmlns=\"x\"><b xmlns=\"\"/></a>"),
            ("<a b='1 &amp; 2' c=\"'\"/>", "<a b=\"1 &amp; 2\" c=\"&apos;\"/>"),
            ("<a xmlns:p='u&amp;v' p:b='1'/>", "<a xmlns:n0=\"u&amp;v\" n0:b=\"1\"/>"),
            ("<a xml:lang='en'><b/><c xml:lang='de'/></a>", "<a xml:lang=\"en\"><b/><c xml:lang=\"de\"/></a>"),
            ("<a>&lt;&#x41;&#66;<![CDATA[<&>]]></a>", "<a>&lt;AB&lt;&amp;&gt;</a>"),
            ("<a> <b> x </b> </a>", "<a> <b> x </b> </a>"),
            ("<a>\u{1f600}ü</a>", "<a>\u{1f600}ü</a>"),
        ] {
            let tree = parse(document).unwrap_or_else(|why| panic!("{document}: {why}"));
            assert_eq!(tree.to_xml(), again, "{document}");
            assert_eq!(parse(again).unwrap().to_xml(), again);
        }
    }

    #[test]
    fn what_is_taken_out_of_a_tree_keeps_what_it_had() {
        let tree = parse("<a xmlns='x' xmlns:p='y' xml:lang='en'><p:b><c/></p:b></a>").unwrap();
        assert_eq!(tree.children().next().unwrap().to_xml(), "<b xmlns=\"y\" xml:lang=\"en\"><c xmlns=\"x\"/></b>");
    }

    #[test]
    fn what_each_element_repeats_is_limited() {
        let namespace = |length| format!("<p:a xmlns:p='{}'><p:b/></p:a>", "x".repeat(length));
        assert!(parse(&namespace(LONGEST_NAMESPACE)).is_ok());
        assert!(parse(&namespace(LONGEST_NAMESPACE + 1)).is_err());
        let lang = |length| format!("<a xml:lang='{}'><b/></a>", "x".repeat(length));
        assert!(parse(&lang(LONGEST_LANG)).is_ok() && parse(&lang(LONGEST_LANG + 1)).is_err());
        let elements = |number| format!("<a>{}</a>", "<b/>".repeat(number - 1));
        assert!(parse(&elements(MOST_ELEMENTS)).is_ok() && parse(&elements(MOST_ELEMENTS + 1)).is_err());
    }

    #[test]
    fn what_is_not_well_made_or_hostile_is_refused() {
        let deep = "<a>".repeat(40);
        for (document, why) in [
            ("", "no element"),
            ("x", "outside"),
            ("<a>", "ends within"),
            ("<a></b>", "b"),
            ("</a>", "a"),
            ("<a/><b/>", "second"),
            ("<a/>x", "outside"),
            ("<p:a/>", "namespace"),
            ("<a p:b=''/>", "namespace"),
            ("<a xmlns:p=''/>", "no namespace"),
            ("<a b='1' b='2'/>", "b"),
            ("<a b=1/>", ""),
            ("<a>&x;</a>", "no such entity"),
            ("<a b='&x;'/>", "x"),
            ("<a>&#0;</a>", ""),
            ("<a>&#1;</a>", "no character"),
            ("<a>\u{1}</a>", "no character"),
            ("<a b='&#8;'/>", "no character"),
            ("<1/>", "no name"),
            ("<a xmlns='&x;'/>", "x"),
            ("<a xmlns='&#1;'/>", "no character"),
            ("<a&b/>", "no name"),
            ("<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>", "document type"),
            ("<!DOCTYPE a SYSTEM 'file:///etc/passwd'><a/>", "document type"),
            (&*deep, "within each other"),
        ] {
            let refused = parse(document).expect_err(document);
            assert!(refused.contains(why), "{document}: {refused}");
        }
    }

    #[test]
    fn text_of_any_kind_can_be_said() {
        assert_eq!(text("a<b>&\"'\u{1}\u{fffe}ü"), "a&lt;b&gt;&amp;&quot;&apos;\u{fffd}\u{fffd}ü");
    }
}
