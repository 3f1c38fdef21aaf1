//! placeholder
use crate::app::Clinic; use medtech_kernel::{Result,Tenant};
pub(crate) const SLUG: &str = "demo";
pub(crate) async fn ensure(_c: &Clinic) -> Result<()> { Ok(()) }
pub(crate) async fn patient_page(_c: &Clinic, _t: &Tenant) -> Result<Option<String>> { Ok(None) }
