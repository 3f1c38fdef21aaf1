//! The authorization server from outside.
