//! Query strings: decoding, encoding, splitting with FHIR's escapes.

/// Pairs of a query string, in order. What is not UTF-8 after decoding is replaced.
pub(crate) fn pairs(query: &str) -> Vec<(String, String)> {
    query
        .split('&')
        .filter(|p| !p.is_empty())
        .map(|p| p.split_once('=').unwrap_or((p, "")))
        .map(|(k, v)| (decode(k), decode(v)))
        .collect()
}

pub(crate) fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while let Some(b) = bytes.get(i) {
        let escaped = (*b == b'%')
            .then(|| text.get(i + 1..i + 3))
            .flatten()
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (b, escaped) {
            (_, Some(byte)) => {
                out.push(byte);
                i += 2;
            }
            (b'+', None) => out.push(b' '),
            (b, None) => out.push(*b),
        }
        i += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

pub(crate) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b':' | b'/' | b',') {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

/// Splits at an unescaped separator; escapes stay for [`unescape`].
pub(crate) fn split(text: &str, separator: char) -> Vec<String> {
    let mut out = vec![String::new()];
    let mut escaped = false;
    for c in text.chars() {
        if c == separator && !escaped {
            out.push(String::new());
        } else if let Some(last) = out.last_mut() {
            last.push(c);
        }
        escaped = c == '\\' && !escaped;
    }
    out
}

/// `\,` `\|` `\$` `\\` mean the character itself.
pub(crate) fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.extend(chars.next()),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_and_escaped_text_is_read_as_meant() {
        assert_eq!(
            pairs("a=b%2Cc&d&=x&e=%zz+%F0"),
            [("a", "b,c"), ("d", ""), ("", "x"), ("e", "%zz \u{fffd}")].map(|(k, v)| (k.to_owned(), v.to_owned()))
        );
        assert_eq!(decode("%é%4"), "%é%4");
        assert_eq!(
            split(r"a\,b,c", ',').iter().map(|s| unescape(s)).collect::<Vec<_>>(),
            ["a,b", "c"]
        );
        assert_eq!(decode(&encode("a b|ü&=")), "a b|ü&=");
    }
}
