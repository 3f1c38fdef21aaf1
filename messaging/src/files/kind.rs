//! What a file is, by its first bytes. A type that its sender claimed is kept only where the bytes and the name's ending
//! agree with it; everything else is a file of unknown bytes, which no program opens by itself. Nothing is unpacked.

/// The type of what is not what it says, and of what a browser could run.
pub(super) const UNKNOWN: &str = "application/octet-stream";
/// First bytes that are looked at.
pub(super) const HEAD: u64 = 8 * 1024;

/// Texts that are shown and never run.
const TEXTS: [&str; 6] = [
    "text/plain",
    "text/csv",
    "text/markdown",
    "text/calendar",
    "text/vcard",
    "application/json",
];

/// Names that other programs give to the types of `infer`.
const ALIASES: [(&str, &str); 16] = [
    ("audio/mp3", "audio/mpeg"),
    ("audio/wav", "audio/x-wav"),
    ("audio/wave", "audio/x-wav"),
    ("audio/flac", "audio/x-flac"),
    ("audio/mp4", "audio/m4a"),
    ("audio/x-m4a", "audio/m4a"),
    ("image/heic", "image/heif"),
    ("image/jpg", "image/jpeg"),
    ("image/pjpeg", "image/jpeg"),
    ("image/x-ms-bmp", "image/bmp"),
    ("image/x-png", "image/png"),
    ("text/rtf", "application/rtf"),
    ("video/avi", "video/x-msvideo"),
    ("application/x-gzip", "application/gzip"),
    ("application/x-pdf", "application/pdf"),
    ("application/x-zip-compressed", "application/zip"),
];

/// Containers, by their bytes, and what may be inside. Only the outside is looked at.
const CONTAINERS: [(&str, &[&str]); 5] = [
    (
        "application/zip",
        &[
            "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
            "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
            "application/vnd.openxmlformats-officedocument.presentationml.presentation",
            "application/vnd.oasis.opendocument.text",
            "application/vnd.oasis.opendocument.spreadsheet",
            "application/vnd.oasis.opendocument.presentation",
        ],
    ),
    (
        "application/x-ole-storage",
        &[
            "application/msword",
            "application/vnd.ms-excel",
            "application/vnd.ms-powerpoint",
        ],
    ),
    (
        "video/mp4",
        &["audio/mp4", "audio/m4a", "video/quicktime", "video/x-m4v"],
    ),
    ("video/webm", &["audio/webm", "video/x-matroska"]),
    ("audio/ogg", &["audio/opus", "video/ogg"]),
];

/// Endings and the types that go with them. An ending that is not here says nothing.
const ENDINGS: [(&str, &[&str]); 40] = [
    ("txt", &["text/plain"]),
    ("log", &["text/plain"]),
    ("md", &["text/markdown", "text/plain"]),
    ("csv", &["text/csv", "text/plain"]),
    ("ics", &["text/calendar"]),
    ("vcf", &["text/vcard"]),
    ("json", &["application/json"]),
    ("pdf", &["application/pdf"]),
    ("rtf", &["application/rtf"]),
    ("png", &["image/png"]),
    ("jpg", &["image/jpeg"]),
    ("jpeg", &["image/jpeg"]),
    ("gif", &["image/gif"]),
    ("webp", &["image/webp"]),
    ("bmp", &["image/bmp"]),
    ("tif", &["image/tiff"]),
    ("tiff", &["image/tiff"]),
    ("heic", &["image/heif"]),
    ("avif", &["image/avif"]),
    ("mp3", &["audio/mpeg"]),
    ("wav", &["audio/x-wav"]),
    ("flac", &["audio/x-flac"]),
    ("m4a", &["audio/m4a"]),
    ("ogg", &["audio/ogg", "audio/opus", "video/ogg"]),
    ("mp4", &["video/mp4"]),
    ("mov", &["video/quicktime"]),
    ("webm", &["video/webm", "audio/webm"]),
    ("dcm", &["application/dicom"]),
    ("zip", &["application/zip"]),
    ("gz", &["application/gzip"]),
    (
        "docx",
        &["application/vnd.openxmlformats-officedocument.wordprocessingml.document"],
    ),
    (
        "xlsx",
        &["application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"],
    ),
    (
        "pptx",
        &["application/vnd.openxmlformats-officedocument.presentationml.presentation"],
    ),
    ("odt", &["application/vnd.oasis.opendocument.text"]),
    ("doc", &["application/msword"]),
    ("xls", &["application/vnd.ms-excel"]),
    ("exe", &[]),
    ("html", &[]),
    ("svg", &[]),
    ("js", &[]),
];

/// Kinds of bytes whose type may be told to a browser: pictures, sound, film, documents, archives. The rest can run.
const QUIET: [infer::MatcherType; 6] = [
    infer::MatcherType::Image,
    infer::MatcherType::Audio,
    infer::MatcherType::Video,
    infer::MatcherType::Doc,
    infer::MatcherType::Archive,
    infer::MatcherType::Book,
];

/// The type a file is kept under: what was claimed, or [`UNKNOWN`]. `head` are its first [`HEAD`] bytes, or all of them.
pub(super) fn settled(claimed: &str, name: &str, head: &[u8]) -> String {
    let claimed = ALIASES
        .iter()
        .find(|(from, _)| *from == claimed)
        .map_or(claimed, |(_, to)| to);
    match fits(claimed, head) && agrees(name, claimed) {
        true => claimed.to_owned(),
        false => UNKNOWN.to_owned(),
    }
}

fn fits(claimed: &str, head: &[u8]) -> bool {
    let found = infer::get(head);
    if TEXTS.contains(&claimed) {
        // Bytes of another kind that call themselves text. Markup is only text here: it is never shown as a page.
        let other = found.is_some_and(|k| k.matcher_type() != infer::MatcherType::Text);
        return !other && is_text(head);
    }
    let Some(found) = found.filter(|k| QUIET.contains(&k.matcher_type())) else {
        return false;
    };
    // `infer` finds the mark of a PDF also behind something else, which is what makes a file two things at once.
    if found.mime_type() == "application/pdf" && !head.starts_with(b"%PDF-") {
        return false;
    }
    let inside = CONTAINERS.iter().find(|(outside, _)| *outside == found.mime_type());
    // A vector picture is a page that can run scripts.
    found.mime_type() == claimed && claimed != "image/svg+xml" || inside.is_some_and(|(_, all)| all.contains(&claimed))
}

/// UTF-8 without the control characters that no text has; the last character may be cut.
fn is_text(head: &[u8]) -> bool {
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(e) if e.error_len().is_none() => {
            std::str::from_utf8(head.get(..e.valid_up_to()).unwrap_or_default()).unwrap_or_default()
        }
        Err(_) => return false,
    };
    !text
        .chars()
        .any(|c| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{c}' | '\u{1b}'))
}

fn agrees(name: &str, claimed: &str) -> bool {
    let ending = name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase());
    let known = ending.and_then(|ending| ENDINGS.iter().find(|(known, _)| *known == ending));
    known.is_none_or(|(_, types)| types.contains(&claimed))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
    const JPEG: &[u8] = b"\xff\xd8\xff\xe0\0\x10JFIF\0";
    const PDF: &[u8] = b"%PDF-1.7\n1 0 obj";
    const ZIP: &[u8] = b"PK\x03\x04\x14\0\0\0\x08\0";
    const HTML: &[u8] = b"<!DOCTYPE html><html><script>alert(1)</script>";
    const SVG: &[u8] = b"<svg xmlns=\"http://www.w3.org/2000/svg\"><script>alert(1)</script></svg>";

    #[test]
    fn what_is_what_it_says_keeps_its_type() {
        let ole = [b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1".as_slice(), &[0; 600]].concat();
        let dicom = [&[0_u8; 128], b"DICM".as_slice(), &[0; 8]].concat();
        let docx = "application/vnd.openxmlformats-officedocument.wordprocessingml.document";
        for (claimed, name, head, kept) in [
            ("image/png", "x.png", PNG, "image/png"),
            ("image/jpeg", "x.JPG", JPEG, "image/jpeg"),
            ("image/jpg", "scan", JPEG, "image/jpeg"),
            ("application/pdf", "x.pdf", PDF, "application/pdf"),
            ("application/zip", "x.zip", ZIP, "application/zip"),
            (docx, "x.docx", ZIP, docx),
            ("application/msword", "x.doc", &ole, "application/msword"),
            ("application/dicom", "x.dcm", &dicom, "application/dicom"),
            ("text/plain", "x.txt", "Grüße\r\n".as_bytes(), "text/plain"),
            ("text/plain", "cut.txt", &"Grüße".as_bytes()[..3], "text/plain"),
            ("text/plain", "page.txt", HTML, "text/plain"),
            ("text/csv", "x.csv", b"a,b\n1,2", "text/csv"),
            ("application/json", "x.json", b"{}", "application/json"),
            ("text/plain", "empty.txt", b"", "text/plain"),
        ] {
            assert_eq!(settled(claimed, name, head), kept, "{claimed} {name}");
        }
    }

    #[test]
    fn lying_and_running_types_become_unknown_bytes() {
        let polyglot = [HTML, PDF].concat();
        let exe = [b"MZ\x90\0\x03\0\0\0\x04\0\0\0\xff\xff".as_slice(), &[0; 200]].concat();
        for (claimed, name, head) in [
            ("image/png", "x.png", HTML),
            ("image/jpeg", "x.jpg", SVG),
            ("image/jpeg", "x.jpg", PNG),
            ("image/svg+xml", "x.svg", SVG),
            ("text/html", "x.html", HTML),
            ("application/xhtml+xml", "x.xhtml", HTML),
            ("text/xml", "x.xml", b"<?xml version=\"1.0\"?><a/>"),
            ("text/javascript", "x.js", b"alert(1)"),
            ("text/css", "x.css", b"a{}"),
            ("application/pdf", "both.pdf", &polyglot),
            ("application/pdf", "x.pdf", &exe),
            ("application/vnd.microsoft.portable-executable", "x.exe", &exe),
            ("application/x-executable", "x", b"\x7fELF\x02\x01\x01\0"),
            ("text/plain", "x.txt", &exe),
            ("text/plain", "x.txt", PNG),
            ("text/plain", "x.txt", b"a\0b"),
            ("text/plain", "x.txt", b"\xff\xfeh\0i\0"),
            ("application/zip", "x.zip", PDF),
            ("application/pdf", "x.pdf", b""),
            ("image/png", "x.png", b""),
            // The name promises something else than the bytes.
            ("image/png", "x.pdf", PNG),
            ("image/png", "x.exe", PNG),
            ("image/png", "x.html", PNG),
            ("text/plain", "x.svg", SVG),
            ("application/x-unheard-of", "x.bin", b"anything"),
            ("application/octet-stream", "x.png", PNG),
        ] {
            assert_eq!(settled(claimed, name, head), UNKNOWN, "{claimed} {name}");
        }
    }
}
