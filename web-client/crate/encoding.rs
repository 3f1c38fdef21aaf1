//! Which stored encodings a client takes (RFC 9110, 12.5.3).

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Brotli,
    Gzip,
    Plain,
}

impl Coding {
    pub(crate) fn name(self) -> Option<&'static str> {
        match self {
            Self::Brotli => Some("br"),
            Self::Gzip => Some("gzip"),
            Self::Plain => None,
        }
    }

    pub(crate) fn extension(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Gzip => "gz",
            Self::Plain => "",
        }
    }
}

/// True where the header names the coding (or `*`) and does not refuse it with a weight of zero.
pub(crate) fn accepts(header: &str, coding: Coding) -> bool {
    let Some(name) = coding.name() else { return true };
    let mut any = false;
    for part in header.split(',') {
        let mut fields = part.split(';').map(str::trim);
        let token = fields.next().unwrap_or_default();
        let refused = fields
            .filter_map(|field| field.strip_prefix("q="))
            .any(|weight| weight.parse::<f32>().is_ok_and(|w| w == 0.0));
        if token.eq_ignore_ascii_case(name) {
            return !refused;
        }
        if token == "*" {
            any = !refused;
        }
    }
    any
}
