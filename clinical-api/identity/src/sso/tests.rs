//! Sign-in through a provider.
