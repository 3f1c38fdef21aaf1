//! What tests and benches share: servers as processes, clients that are not built on our own stacks, measurements.

pub mod http;
pub mod load;
pub mod measure;
pub mod process;
pub mod report;
pub mod servers;

/// Anything that does not work; the text is for the person who reads the bench's output.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
pub type Result<T> = std::result::Result<T, Failure>;

/// What was being done when it failed.
pub trait Context<T> {
    fn context(self, what: impl std::fmt::Display) -> Result<T>;
}

impl<T, E: Into<Failure>> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl std::fmt::Display) -> Result<T> {
        self.map_err(|e| format!("{what}: {}", e.into()).into())
    }
}

impl<T> Context<T> for Option<T> {
    fn context(self, what: impl std::fmt::Display) -> Result<T> {
        self.ok_or_else(|| what.to_string().into())
    }
}
