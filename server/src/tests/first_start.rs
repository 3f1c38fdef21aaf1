//! What a first start makes, and what it does not.

use crate::app;
use medtech_kernel::{Result, TenantId, config::Config};
use tokio::sync::watch;

/// No account waits with a password that everybody knows: without the demo clinic nobody can sign in but whom the operator
/// lets in.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_demo_clinic_a_first_start_makes_no_user() -> Result<()> {
    let _ = crate::install_crypto();
    let dir = tempfile::tempdir().expect("a directory");
    let mut config = Config {
        data_dir: dir.path().to_owned(),
        ..Config::default()
    };
    assert!(!config.demo, "the demo clinic is asked for by name");
    config.mqtt.bind = ([127, 0, 0, 1], 0).into();
    config.media.udp_port = 0;
    config.media.threads = 1;
    config.media.advertise = vec![[127, 0, 0, 1].into()];
    let ctx = app::open(config).await?;
    let clinic = app::clinic(ctx.clone());
    clinic.identity.calibrate().await?;
    let (stop, stopped) = watch::channel(false);
    let running = app::start(&clinic, None, stopped).await?;
    let mut users = clinic.identity.count(TenantId::SYSTEM).await?;
    for tenant in ctx.tenants.all() {
        users += clinic.identity.count(tenant.id).await?;
    }
    assert_eq!(users, 0);
    // And the demo clinic's people have no password: they come by the addresses that the start prints.
    crate::demo::ensure(&clinic).await?;
    let mut seen = 0;
    for tenant in ctx.tenants.all() {
        let sql = "SELECT COUNT(*), COUNT(password) FROM identity_user WHERE tenant = $1";
        let row = ctx.db.query_one(tenant.id, sql, &[]).await?;
        seen += row.i64(0)?;
        assert_eq!(row.i64(1)?, 0);
    }
    assert!(seen > 0);
    let _ = stop.send(true);
    running.stop().await;
    Ok(())
}
