//! From a channel's name to the rule that covers it and the question asked of the policy.

use medtech_kernel::{ChannelRule, policy::Resource};
use std::collections::HashMap;

/// The rule of a channel and the question to the policy.
pub(super) fn split<'c>(
    rules: &HashMap<&'static str, &'static ChannelRule>,
    channel: &'c str,
) -> Option<(&'static ChannelRule, &'c str)> {
    let (kind, id) = channel.split_once(':')?;
    // Names are for identifiers; a longer or stranger one is nobody's.
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    if id.is_empty() || channel.len() > 255 || !id.chars().all(plain) {
        return None;
    }
    rules.get(kind).map(|rule| (*rule, id))
}

/// The question asked of the policy before someone joins.
pub(super) fn resource(rule: &'static ChannelRule, id: &str) -> Resource {
    Resource::new(rule.kind, id)
}
