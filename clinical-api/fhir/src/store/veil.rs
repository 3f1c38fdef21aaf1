//! What stands in the index on PostgreSQL, where rows lie in clear: identifiers, contact points and texts (names,
//! addresses) go in blinded, each beginning of a text as a row of its own, so that a search by the beginning still finds it.
//! What is lost is a search for the middle (`:contains`). On SQLite the pages of the file are sealed, and nothing is blinded.

use crate::{
    definitions::ResourceDef,
    extract::{Extracted, SEPARATOR},
};
use medtech_kernel::{Result, TenantId, vault::Vault};

/// Characters of a text by whose beginning it is found; a longer question finds only the text that is exactly it.
const BEGINNING: usize = 24;

/// Types that say how the standard is used, and name nobody: their texts stay legible.
const PLAIN: [&str; 17] = [
    "CapabilityStatement",
    "CodeSystem",
    "CompartmentDefinition",
    "ConceptMap",
    "ExampleScenario",
    "GraphDefinition",
    "ImplementationGuide",
    "MessageDefinition",
    "NamingSystem",
    "OperationDefinition",
    "SearchParameter",
    "StructureDefinition",
    "StructureMap",
    "TerminologyCapabilities",
    "TestReport",
    "TestScript",
    "ValueSet",
];

/// Which index rows of a resource were blinded when it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cover {
    /// Identifiers, contact points, and the texts of patients' records.
    pub(crate) records: bool,
    /// The texts of other types, too.
    pub(crate) others: bool,
}

impl Cover {
    pub(crate) const NONE: Self = Self {
        records: false,
        others: false,
    };
    /// As we write them.
    pub(crate) const ALL: Self = Self {
        records: true,
        others: true,
    };
}

/// Blinds for one tenant.
pub(crate) struct Veil {
    vault: Vault,
    tenant: TenantId,
}

impl Veil {
    pub(crate) fn new(vault: Vault, tenant: TenantId) -> Self {
        Self { vault, tenant }
    }

    /// Are the texts of this type blinded?
    pub(crate) fn covers(def: &ResourceDef) -> bool {
        !PLAIN.contains(&def.name)
    }

    /// For the number that stands for an identifier or a contact point: negative, as it was.
    pub(crate) fn number(&self, hash: i64) -> Result<i64> {
        let blind = self.vault.blind(self.tenant, "fhir.token", &hash.to_string())?;
        let head = blind.first_chunk::<8>().copied().unwrap_or_default();
        Ok(i64::from_be_bytes(head) | i64::MIN)
    }

    fn text(&self, k: i64, kind: &str, text: &str) -> Result<String> {
        let blind = self.vault.blind(self.tenant, &format!("fhir.text.{kind}.{k}"), text)?;
        let head: String = blind.iter().take(16).map(|b| format!("{b:02x}")).collect();
        Ok(format!("{kind}{head}"))
    }

    /// The row of texts that begin so, or are so.
    pub(crate) fn beginning(&self, k: i64, folded: &str) -> Result<String> {
        match folded.chars().count() > BEGINNING {
            true => self.text(k, "w", folded),
            false => self.text(k, "b", folded),
        }
    }

    /// The row of a text as it was written.
    pub(crate) fn exact(&self, k: i64, row: &str) -> Result<String> {
        self.text(k, "x", row)
    }

    /// What goes into the index instead.
    pub(crate) fn over(&self, cover: Cover, def: &ResourceDef, found: &mut Extracted) -> Result<()> {
        if !cover.records {
            return Ok(());
        }
        for (_, hash) in &mut found.hashes {
            *hash = self.number(*hash)?;
        }
        let of_a_record = def.name == "Patient" || !def.compartment.is_empty();
        if !(of_a_record || cover.others && Self::covers(def)) {
            return Ok(());
        }
        let mut rows = Vec::new();
        for (k, row) in std::mem::take(&mut found.strings) {
            let folded = row.split(SEPARATOR).next().unwrap_or_default();
            for (end, c) in folded.char_indices().take(BEGINNING) {
                let beginning = folded.get(..end + c.len_utf8()).unwrap_or_default();
                rows.push((k, self.text(k, "b", beginning)?));
            }
            rows.push((k, self.text(k, "w", folded)?));
            rows.push((k, self.text(k, "x", &row)?));
        }
        found.strings = rows;
        Ok(())
    }
}
