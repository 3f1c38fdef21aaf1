//! The stored form of a body: compact JSON without what the row already says, compressed with a shipped dictionary.
//!
//! `id` (where it is ours), `meta.versionId` and `meta.lastUpdated` are put back by splicing when the body is read.
//! The order is fixed so that splicing needs no parse: `resourceType`, a client's `id`, `meta`, the rest.

use medtech_kernel::{Error, Result, clock};
use serde::{
    Serialize, Serializer,
    de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor},
};
use serde_json::{Map, Value};
use std::{cell::RefCell, fmt::Write, sync::OnceLock};
use zstd::{bulk, dict};

/// Dictionaries by number, and never one less: a body whose dictionary is lost is lost.
const DICTIONARIES: &[&[u8]] = &[include_bytes!("dictionary/1.zdict")];
/// What new bodies are written with.
pub(crate) const CURRENT: i64 = 1;
const LEVEL: i32 = 1;
/// Largest body taken back out of the store, in bytes.
const LARGEST: usize = 64 << 20;

fn decoders() -> &'static Vec<dict::DecoderDictionary<'static>> {
    static ALL: OnceLock<Vec<dict::DecoderDictionary<'static>>> = OnceLock::new();
    ALL.get_or_init(|| DICTIONARIES.iter().map(|d| dict::DecoderDictionary::copy(d)).collect())
}

fn encoder() -> &'static dict::EncoderDictionary<'static> {
    static CURRENT_ONE: OnceLock<dict::EncoderDictionary<'static>> = OnceLock::new();
    CURRENT_ONE.get_or_init(|| {
        let number = usize::try_from(CURRENT - 1).unwrap_or(0);
        dict::EncoderDictionary::copy(DICTIONARIES.get(number).copied().unwrap_or(&[]), LEVEL)
    })
}

thread_local! {
    static COMPRESSOR: RefCell<Option<bulk::Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSORS: RefCell<Vec<(i64, bulk::Decompressor<'static>)>> = const { RefCell::new(Vec::new()) };
}

/// Compresses a stored body with the current dictionary.
pub(crate) fn compress(body: &str) -> Result<Vec<u8>> {
    let fail = |e: std::io::Error| Error::internal("fhir.compress", e);
    COMPRESSOR.with_borrow_mut(|slot| {
        let compressor = match slot {
            Some(c) => c,
            None => slot.insert(bulk::Compressor::with_prepared_dictionary(encoder()).map_err(fail)?),
        };
        compressor.compress(body.as_bytes()).map_err(fail)
    })
}

/// The stored body again.
pub(crate) fn decompress(dictionary: i64, bytes: &[u8]) -> Result<String> {
    let fail = |e: std::io::Error| Error::internal("fhir.decompress", e);
    let size = bulk::Decompressor::upper_bound(bytes).unwrap_or(LARGEST).min(LARGEST);
    let out = DECOMPRESSORS.with_borrow_mut(|all| {
        if !all.iter().any(|(n, _)| *n == dictionary) {
            let found = usize::try_from(dictionary - 1).ok().and_then(|n| decoders().get(n));
            let found =
                found.ok_or_else(|| Error::internal("fhir.dictionary_unknown", format!("dictionary {dictionary}")))?;
            all.push((
                dictionary,
                bulk::Decompressor::with_prepared_dictionary(found).map_err(fail)?,
            ));
        }
        let (_, d) = all
            .iter_mut()
            .find(|(n, _)| *n == dictionary)
            .ok_or_else(|| Error::internal("fhir.dictionary_unknown", format!("dictionary {dictionary}")))?;
        d.decompress(bytes, size).map_err(fail)
    })?;
    String::from_utf8(out).map_err(|e| Error::internal("fhir.body_not_utf8", e))
}

/// The stored form. `client_id` is given where the client chose the id.
pub(crate) fn stored(ty: &str, resource: &Value, client_id: Option<&str>) -> String {
    let mut out = Vec::with_capacity(512);
    out.push(b'{');
    member(&mut out, "resourceType", ty);
    if let Some(id) = client_id {
        member(&mut out, "id", id);
    }
    let none = Map::new();
    let map = resource.as_object().unwrap_or(&none);
    if let Some(Value::Object(meta)) = map.get("meta") {
        let ours = |(k, _): &(&String, &Value)| matches!(k.as_str(), "versionId" | "lastUpdated");
        let meta: BorrowedMap<'_> = BorrowedMap(meta.iter().filter(|m| !ours(m)).collect());
        if !meta.0.is_empty() {
            member(&mut out, "meta", &meta);
        }
    }
    for (k, v) in map {
        if !matches!(k.as_str(), "resourceType" | "id" | "meta") {
            member(&mut out, k, v);
        }
    }
    out.push(b'}');
    // What the serializer writes is UTF-8.
    String::from_utf8(out).unwrap_or_default()
}

/// `"name":value`, after a comma unless it is the first.
fn member(out: &mut Vec<u8>, name: &str, value: &(impl Serialize + ?Sized)) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    // Writing to memory cannot fail, and every value here has a form in JSON.
    let _ = serde_json::to_writer(&mut *out, name);
    out.push(b':');
    let _ = serde_json::to_writer(&mut *out, value);
}

/// Some members of an object, in their order.
struct BorrowedMap<'a>(Vec<(&'a String, &'a Value)>);

impl Serialize for BorrowedMap<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.collect_map(self.0.iter().copied())
    }
}

/// Those top-level members of a stored body that are wanted; what stands in the others is passed over unread.
pub(crate) fn part(stored: &str, wanted: impl Fn(&str) -> bool) -> Option<Value> {
    struct Members<F>(F);
    impl<'de, F: Fn(&str) -> bool> Visitor<'de> for Members<F> {
        type Value = Map<String, Value>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
            let mut found = Map::new();
            while let Some(key) = map.next_key_seed(Name(&self.0))? {
                match key {
                    Some(key) => {
                        found.insert(key, map.next_value()?);
                    }
                    None => {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
            }
            Ok(found)
        }
    }
    /// A member's name, where it is wanted.
    struct Name<'a, F>(&'a F);
    impl<'de, F: Fn(&str) -> bool> DeserializeSeed<'de> for Name<'_, F> {
        type Value = Option<String>;

        fn deserialize<D: Deserializer<'de>>(self, json: D) -> std::result::Result<Self::Value, D::Error> {
            json.deserialize_str(self)
        }
    }
    impl<F: Fn(&str) -> bool> Visitor<'_> for Name<'_, F> {
        type Value = Option<String>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a name")
        }

        fn visit_str<E>(self, name: &str) -> std::result::Result<Self::Value, E> {
            Ok((self.0)(name).then(|| name.to_owned()))
        }
    }
    let mut json = serde_json::Deserializer::from_str(stored);
    json.deserialize_map(Members(wanted)).ok().map(Value::Object)
}

/// The id a stored body carries, if a client chose it.
pub(crate) fn client_id<'a>(ty: &str, stored: &'a str) -> Option<&'a str> {
    let rest = stored.get(head(ty)..)?.strip_prefix(r#","id":""#)?;
    rest.split_once('"').map(|(id, _)| id)
}

/// `{"resourceType":"X"`
fn head(ty: &str) -> usize {
    r#"{"resourceType":"""#.len() + ty.len()
}

/// The resource as it is served.
pub(crate) fn served(ty: &str, id: &str, version: i64, updated: i64, stored: &str) -> String {
    let mut rest = stored.get(head(ty)..).unwrap_or("}");
    if let Some(own) = rest.strip_prefix(r#","id":""#) {
        rest = own.split_once('"').map_or("}", |(_, rest)| rest);
    }
    let mut out = String::with_capacity(stored.len() + 120);
    let at = clock::rfc3339(updated);
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        r#"{{"resourceType":"{ty}","id":"{id}","meta":{{"versionId":"{version}","lastUpdated":"{at}""#
    );
    match rest.strip_prefix(r#","meta":{"#) {
        Some(meta) => {
            out.push(',');
            out.push_str(meta);
        }
        None => {
            out.push('}');
            out.push_str(rest);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_body_comes_back_as_it_went_in_with_its_digits() {
        let text = r#"{"resourceType":"Observation","meta":{"profile":["p"],"versionId":"9"},"id":"x","valueQuantity":{"value":1.500},"note":[{"text":"é\"}"}]}"#;
        let value: Value = serde_json::from_str(text).expect("json");
        for client in [None, Some("mine")] {
            let kept = stored("Observation", &value, client);
            assert_eq!(client_id("Observation", &kept), client);
            let packed = compress(&kept).expect("compress");
            let back = decompress(CURRENT, &packed).expect("decompress");
            let out = served("Observation", client.unwrap_or("abc"), 2, 0, &back);
            let parsed: Value = serde_json::from_str(&out).expect("served json");
            assert_eq!(
                parsed.get("meta"),
                Some(&json!({"versionId": "2", "lastUpdated": "1970-01-01T00:00:00.000Z", "profile": ["p"]}))
            );
            assert_eq!(parsed.get("id"), Some(&json!(client.unwrap_or("abc"))));
            assert!(out.contains("1.500") && out.matches("\"id\"").count() == 1, "{out}");
        }
        let bare = stored("Patient", &json!({"resourceType": "Patient"}), None);
        assert_eq!(
            served("Patient", "a", 1, 0, &bare),
            r#"{"resourceType":"Patient","id":"a","meta":{"versionId":"1","lastUpdated":"1970-01-01T00:00:00.000Z"}}"#
        );
        assert!(decompress(99, b"x").is_err() && decompress(CURRENT, b"garbage").is_err());
    }
}
