//! The narrative of a resource (`text.div`): XHTML that other programs show, and may show with their own rights. So
//! what R4 does not allow in it is refused (narrative.html, invariants txt-1 and txt-2): scripts, handlers, forms, frames,
//! objects, styles and pictures that fetch something. Read by a strict XML parser: what it does not understand is refused.

use roxmltree::{Document, Node, NodeType, ParsingOptions};

const XHTML: &str = "http://www.w3.org/1999/xhtml";
/// Nodes of one narrative.
const MOST_NODES: u32 = 20_000;
/// Elements inside each other: more than a person can read, fewer than a parser of another program can stand.
const DEEPEST: usize = 100;

/// The elements of HTML 4.0 chapters 7-11 (without 9.4) and 15, anchors, pictures: the list of narrative.html.
const ELEMENTS: [&str; 62] = [
    "a",
    "abbr",
    "acronym",
    "address",
    "b",
    "bdo",
    "big",
    "blockquote",
    "br",
    "caption",
    "center",
    "cite",
    "code",
    "col",
    "colgroup",
    "dd",
    "del",
    "dfn",
    "dir",
    "div",
    "dl",
    "dt",
    "em",
    "font",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "hr",
    "i",
    "img",
    "ins",
    "kbd",
    "li",
    "menu",
    "ol",
    "p",
    "pre",
    "q",
    "s",
    "samp",
    "small",
    "span",
    "strike",
    "strong",
    "sub",
    "sup",
    "table",
    "tbody",
    "td",
    "tfoot",
    "th",
    "thead",
    "tr",
    "tt",
    "u",
    "ul",
    "var",
    "basefont",
    "legend",
];

/// Their attributes, none of which runs or fetches anything; `href`, `src` and `style` have rules of their own.
const ATTRIBUTES: [&str; 46] = [
    "abbr",
    "accesskey",
    "align",
    "alt",
    "axis",
    "bgcolor",
    "border",
    "cellhalign",
    "cellpadding",
    "cellspacing",
    "cellvalign",
    "char",
    "charoff",
    "charset",
    "cite",
    "class",
    "color",
    "colspan",
    "compact",
    "coords",
    "dir",
    "face",
    "frame",
    "headers",
    "height",
    "href",
    "hreflang",
    "hspace",
    "id",
    "lang",
    "longdesc",
    "name",
    "nowrap",
    "rel",
    "rev",
    "rowspan",
    "rules",
    "scope",
    "shape",
    "size",
    "span",
    "src",
    "start",
    "style",
    "summary",
    "tabindex",
];
const MORE_ATTRIBUTES: [&str; 7] = ["title", "type", "valign", "value", "vspace", "width", "clear"];

/// Properties of a style that only say how text looks. Nothing that places it elsewhere or fetches anything.
const STYLES: [&str; 27] = [
    "background-color",
    "border",
    "border-bottom",
    "border-collapse",
    "border-color",
    "border-left",
    "border-right",
    "border-spacing",
    "border-style",
    "border-top",
    "border-width",
    "color",
    "font",
    "font-family",
    "font-size",
    "font-style",
    "font-variant",
    "font-weight",
    "height",
    "line-height",
    "list-style-type",
    "text-align",
    "text-decoration",
    "text-indent",
    "vertical-align",
    "white-space",
    "width",
];
/// Families of such properties.
const STYLE_FAMILIES: [&str; 3] = ["margin", "padding", "border-"];

/// Says what is wrong with a narrative.
pub(super) fn check(text: &str) -> Result<(), String> {
    let options = ParsingOptions {
        allow_dtd: false,
        nodes_limit: MOST_NODES,
        ..ParsingOptions::default()
    };
    let document = Document::parse_with_options(text, options)
        .map_err(|_| "txt-1: the narrative is well-formed XHTML without declarations and named entities".to_owned())?;
    let root = document.root_element();
    if !root.has_tag_name((XHTML, "div")) || document.root().children().count() != 1 {
        return Err(format!("txt-1: the narrative is one div of the namespace {XHTML}"));
    }
    let mut shows = false;
    let mut depth = 0;
    let mut at = Some(root);
    // Without recursion: the order of the document, by hand.
    while let Some(node) = at {
        shows |= node_is_fine(node)?;
        at = node.first_child();
        if at.is_some() {
            depth += 1;
            if depth > DEEPEST {
                return Err(format!("txt-1: more than {DEEPEST} elements inside each other"));
            }
            continue;
        }
        let mut here = node;
        loop {
            if here == root {
                break;
            }
            if let Some(next) = here.next_sibling() {
                at = Some(next);
                break;
            }
            depth -= 1;
            let Some(parent) = here.parent() else { break };
            here = parent;
        }
    }
    match shows {
        true => Ok(()),
        false => Err("txt-2: the narrative says nothing".to_owned()),
    }
}

/// `true` where there is something to see.
fn node_is_fine(node: Node<'_, '_>) -> Result<bool, String> {
    match node.node_type() {
        NodeType::Text => Ok(node.text().is_some_and(|t| !t.trim().is_empty())),
        NodeType::Element => element(node),
        // Programs that read HTML end a comment elsewhere than XML does.
        NodeType::Comment => match node.text().is_some_and(|t| t.contains(['<', '>', '-'])) {
            true => Err("txt-1: a comment may not hold markup".to_owned()),
            false => Ok(false),
        },
        NodeType::PI | NodeType::Root => Err("txt-1: no processing instructions".to_owned()),
    }
}

fn element(node: Node<'_, '_>) -> Result<bool, String> {
    let name = node.tag_name();
    if name.namespace() != Some(XHTML) || !ELEMENTS.contains(&name.name()) {
        return Err(format!("txt-1: the element {:.40} is not allowed", name.name()));
    }
    for attribute in node.attributes() {
        let (key, value) = (attribute.name(), attribute.value());
        let fine = match attribute.namespace() {
            None => match key {
                "href" | "cite" | "longdesc" => is_link(value),
                "src" => is_picture(value),
                "style" => is_look(value),
                _ => ATTRIBUTES.contains(&key) || MORE_ATTRIBUTES.contains(&key),
            },
            // xml:lang and xml:space.
            Some(space) => space == roxmltree::NS_XML_URI && matches!(key, "lang" | "space"),
        };
        if !fine {
            return Err(format!(
                "txt-1: {:.40} of {:.40} is not allowed, or its value is not",
                key,
                name.name()
            ));
        }
    }
    Ok(name.name() == "img")
}

/// A link that a person may follow: within the narrative, to another resource, or to a page, a mail, a telephone.
fn is_link(value: &str) -> bool {
    if value.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\') {
        return false;
    }
    let Some((scheme, _)) = value.split_once(':') else {
        return !value.starts_with("//");
    };
    // A colon behind a slash, a query or a fragment begins no scheme.
    scheme.contains(['/', '?', '#']) && !value.starts_with("//")
        || ["http", "https", "mailto", "tel", "urn"]
            .iter()
            .any(|known| scheme.eq_ignore_ascii_case(known))
}

/// A picture that comes with the narrative. One from elsewhere would tell its server who reads about whom, and when.
fn is_picture(value: &str) -> bool {
    let data = ["png", "jpeg", "gif"].iter().any(|kind| {
        let bits = value.strip_prefix("data:image/").and_then(|v| v.strip_prefix(kind));
        bits.and_then(|v| v.strip_prefix(";base64,")).is_some_and(|v| {
            v.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"+/= \n\r\t".contains(&b))
        })
    });
    data || value.strip_prefix('#').is_some_and(crate::validate::is_id)
}

/// Declarations of known properties, whose values are words, numbers and colours.
fn is_look(value: &str) -> bool {
    value
        .split(';')
        .map(str::trim)
        .filter(|d| !d.is_empty())
        .all(|declaration| {
            let Some((property, value)) = declaration.split_once(':') else {
                return false;
            };
            let property = property.trim().to_ascii_lowercase();
            let known = STYLES.contains(&property.as_str()) || STYLE_FAMILIES.iter().any(|f| property.starts_with(f));
            let value = value.trim().to_ascii_lowercase();
            let plain = value
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || " .,#%-!'\"()".contains(c));
            // Of what is written with brackets only colours.
            let brackets = value.split('(').count() - 1;
            let colours = ["rgb(", "rgba(", "hsl(", "hsla("];
            let coloured: usize = colours.iter().map(|c| value.matches(c).count()).sum();
            known && plain && brackets == coloured
        })
}

#[cfg(test)]
mod tests;
