//! Conversations and files from outside: one binary, which is linked once.

mod common;
mod conversations;
mod quotas;
mod scan;
mod tus;
mod tus_client;
mod whole;
