//! Scopes that a query narrows: given only when the clinic's search can do what the query asks, else refused by the name of
//! what it cannot, since a query that nothing holds would promise what is not kept.

use super::{OAuth, issuer::Site, refusal::Refusal};
use medtech_fhir::Fhir;
use medtech_kernel::{Error, TenantId, error::Kind, scope::Scopes};

impl OAuth {
    /// With the records that scopes are about.
    pub(crate) fn knows(&self, records: Fhir) {
        // Named once, where the parts are joined.
        let _ = self.records.set(records);
    }

    /// What in these scopes cannot be kept, in words; `None`: nothing.
    pub(crate) async fn unkept(&self, tenant: TenantId, scopes: &str) -> Result<Option<String>, Error> {
        for scope in Scopes::parse(scopes).clinical {
            let Some(query) = &scope.query else { continue };
            let why = match (&scope.kind, self.records.get()) {
                (None, _) => "a query needs a type that it is about".to_owned(),
                (Some(_), None) => "there is no record here".to_owned(),
                (Some(kind), Some(records)) => match records.narrows(tenant, kind, query).await {
                    Ok(()) => continue,
                    Err(failure) => match failure.kind() {
                        Kind::Internal | Kind::Unavailable => {
                            return Err(Error::unavailable(
                                "oauth.records",
                                "The records cannot be asked at the moment.",
                            ));
                        }
                        _ => failure.to_string().trim_end_matches("; ").to_owned(),
                    },
                },
            };
            return Ok(Some(format!("{scope}: {why}")));
        }
        Ok(None)
    }

    pub(crate) async fn keepable(&self, site: &Site, scopes: &str) -> Result<(), Refusal> {
        match self.unkept(site.id(), scopes).await? {
            Some(why) => Err(Refusal::new("invalid_scope", plain(&why))),
            None => Ok(()),
        }
    }
}

/// The characters that an error description may have (RFC 6749, 5.2).
fn plain(text: &str) -> String {
    let fine = |c: &char| matches!(c, ' '..='~') && !matches!(c, '"' | '\\');
    text.chars().filter(fine).take(300).collect()
}
