//! The door, the trail, the policy and the sessions from outside: one binary, which is linked once.

mod audit;
mod columns;
mod db;
mod freshness;
mod pages;
mod policy;
mod refusals;
mod sessions;
mod trail;
