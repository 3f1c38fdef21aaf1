//! Failures as FHIR tells them: OperationOutcome with issues.

use medtech_kernel::error::{Error, Kind};
use serde_json::{Value, json};
use std::fmt;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// From the value set issue-type.
    pub code: &'static str,
    pub diagnostics: String,
    /// FHIRPath of the element, empty when the whole request is meant.
    pub expression: String,
}

impl Issue {
    pub(crate) fn new(code: &'static str, expression: impl Into<String>, diagnostics: impl Into<String>) -> Self {
        Self {
            code,
            diagnostics: diagnostics.into(),
            expression: expression.into(),
        }
    }
}

/// What the engine answers instead of a result.
#[derive(Debug)]
pub enum Failure {
    /// Issues with the content or the request; the status says how bad.
    Issues(Kind, Vec<Issue>),
    /// From the kernel: storage, policy, and everything with a stable code.
    Kernel(Error),
    /// The version there is not the version named (or changed between reading and writing).
    Stale { named: bool },
}

/// A failure that went through the kernel (out of a transaction) comes out as it was.
impl From<Error> for Failure {
    fn from(mut e: Error) -> Self {
        match e.source.take().map(|s| s.downcast::<Self>()) {
            Some(Ok(failure)) => *failure,
            Some(Err(source)) => Self::Kernel(Error {
                source: Some(source),
                ..e
            }),
            None => Self::Kernel(e),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for issue in self.issues() {
            write!(f, "{} {}: {}; ", issue.code, issue.expression, issue.diagnostics)?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

impl Failure {
    pub(crate) fn one(kind: Kind, code: &'static str, diagnostics: impl Into<String>) -> Self {
        Self::Issues(kind, vec![Issue::new(code, "", diagnostics)])
    }

    pub(crate) fn not_found(ty: &str, id: &str) -> Self {
        Self::one(Kind::NotFound, "not-found", format!("{ty}/{id} is not known"))
    }

    pub(crate) fn gone(ty: &str, id: &str) -> Self {
        Self::one(Kind::Gone, "deleted", format!("{ty}/{id} was deleted"))
    }

    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Issues(kind, _) => *kind,
            Self::Kernel(e) => e.kind,
            Self::Stale { named: true } => Kind::PreconditionFailed,
            Self::Stale { named: false } => Kind::Conflict,
        }
    }

    #[must_use]
    pub fn status(&self) -> u16 {
        Error::status(&Error {
            kind: self.kind(),
            code: "",
            message: "".into(),
            source: None,
        })
        .as_u16()
    }

    fn issues(&self) -> Vec<Issue> {
        match self {
            Self::Issues(_, issues) => issues.clone(),
            Self::Stale { .. } => vec![Issue::new("conflict", "", "the resource has changed in the meantime")],
            Self::Kernel(e) => {
                let code = match e.kind {
                    Kind::Unavailable if e.code == "db.query_too_long" => "timeout",
                    Kind::Unauthorized => "login",
                    Kind::Forbidden => "forbidden",
                    Kind::NotFound => "not-found",
                    Kind::Gone => "deleted",
                    Kind::Conflict | Kind::PreconditionFailed => "conflict",
                    Kind::TooLarge => "too-long",
                    Kind::TooMany => "throttled",
                    Kind::Unavailable => "transient",
                    Kind::Internal => "exception",
                    Kind::BadRequest | Kind::Unprocessable => "invalid",
                };
                vec![Issue::new(code, "", e.message.to_string())]
            }
        }
    }

    #[must_use]
    pub fn outcome(&self) -> Value {
        outcome("error", &self.issues())
    }
}

/// For callers inside the product, which speak the kernel's error.
impl From<Failure> for Error {
    fn from(f: Failure) -> Self {
        let kind = f.kind();
        match f {
            Failure::Kernel(e) => e,
            other => {
                let text: Vec<String> = other
                    .issues()
                    .into_iter()
                    .map(|i| {
                        if i.expression.is_empty() {
                            i.diagnostics
                        } else {
                            format!("{}: {}", i.expression, i.diagnostics)
                        }
                    })
                    .collect();
                Self {
                    kind,
                    code: "fhir.refused",
                    message: text.join("; ").into(),
                    source: Some(Box::new(other)),
                }
            }
        }
    }
}

pub(crate) fn outcome(severity: &str, issues: &[Issue]) -> Value {
    let issue: Vec<Value> = issues
        .iter()
        .map(|i| {
            let mut one = json!({"severity": severity, "code": i.code, "diagnostics": i.diagnostics});
            if let (false, Some(map)) = (i.expression.is_empty(), one.as_object_mut()) {
                map.insert("expression".to_owned(), json!([i.expression]));
            }
            one
        })
        .collect();
    json!({"resourceType": "OperationOutcome", "issue": issue})
}
