//! By TLS: devices that come to our port, and our way to a broker. The other side is Mosquitto with OpenSSL.

use super::*;
use crate::devices::relay::{Relay, Way};
use medtech_kernel::config::Config;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{CertificateError, ServerConfig, pki_types::PrivateKeyDer};
use std::path::{Path, PathBuf};
use tokio::net::UnixStream;

/// An authority in `{name}.ca`, and a certificate of it for `localhost` in `{name}.crt` and `{name}.key`.
fn authority(dir: &Path, name: &str) -> (PathBuf, ServerConfig) {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(DnType::CommonName, format!("Authority {name}"));
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
    let made = params.signed_by(&key, &issuer).expect("a certificate");
    let place = |end: &str| dir.join(format!("{name}.{end}"));
    for (end, pem) in [("ca", issuer.pem()), ("crt", made.pem()), ("key", key.serialize_pem())] {
        std::fs::write(place(end), pem).expect("written");
    }
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![made.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).expect("a key"),
        )
        .expect("a configuration");
    (place("ca"), config)
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_come_by_tls_and_nothing_else_is_spoken_there() -> Result<()> {
    let world = World::sqlite(&[]).await?;
    let (ours, tls) = authority(world.dir.path(), "ours");
    let (foreign, _) = authority(world.dir.path(), "foreign");
    let mut ctx = world.ctx.clone();
    let mut config = (*ctx.config).clone();
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    (config.mqtt.bind, config.mqtt.tls_bind) = (free, free);
    ctx.config = Arc::new(config);
    let live = ctx.bus.attach_live()?;
    let (stop, stopped) = watch::channel(false);
    let devices = Devices::start_with(ctx, |_| None, Some(Arc::new(tls)), stopped).await?;
    let address = devices.tls_addr().expect("a port with TLS");
    let d = Door {
        world: &world,
        devices,
        address,
        live,
        _stop: stop,
    };
    d.consumed();
    let w = d.wearable(&world.north, Some("patient:p1")).await?;
    let topic = format!("devices/{}/readings", w.id);
    let publish = async |roots: Option<&Path>, more: &[&str]| {
        let roots = roots.map(|r| r.to_str().expect("UTF-8").to_owned());
        let mut args = vec!["-q", "1", "-t", &topic, "-m", PACK];
        args.extend(roots.iter().flat_map(|roots| ["-h", "localhost", "--cafile", roots]));
        args.extend(more);
        d.mosquitto_pub(&w, &args).await
    };
    let (ok, said) = publish(None, &[]).await;
    assert!(!ok, "in clear: {said}");
    let (ok, said) = publish(Some(&foreign), &[]).await;
    assert!(!ok, "of an authority that does not vouch for us: {said}");
    assert!(d.recorded(&world.north).await?.is_empty());
    for version in ["tlsv1.2", "tlsv1.3"] {
        let (ok, said) = publish(Some(&ours), &["--tls-version", version]).await;
        assert!(ok, "{version}: {said}");
    }
    let rows = d.recorded(&world.north).await?;
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0]["device"], json!(w.id));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_external_broker_is_reached_by_tls_that_checks_it() -> Result<()> {
    let world = World::sqlite(&[]).await?;
    let dir = world.dir.path();
    let (ours, _) = authority(dir, "ours");
    let (foreign, _) = authority(dir, "foreign");
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|l| l.local_addr())
        .expect("a free port")
        .port();
    let conf = dir.join("mosquitto.conf");
    let text = format!(
        "listener {port} 127.0.0.1\nallow_anonymous true\ncertfile {0}/ours.crt\nkeyfile {0}/ours.key\n",
        dir.display()
    );
    std::fs::write(&conf, text).expect("conf");
    let quiet = std::process::Stdio::null();
    let broker = Command::new("mosquitto").arg("-c").arg(&conf).stderr(quiet).spawn();
    let _broker = Stopped(broker.expect("mosquitto is installed"));

    let reached_with = |roots: &Path| {
        let mut config = (*world.ctx.config).clone();
        config.data_dir = dir.to_owned();
        config.mqtt.broker_root_cert = Some(roots.to_owned());
        config
    };
    // The broker is up when it can be reached by who believes its authority.
    let way = Way::to(&reached_with(&ours), "localhost", port)?;
    let up = timeout(Duration::from_secs(30), async {
        while let Err(e) = way.connect().await {
            assert_eq!(e.kind(), std::io::ErrorKind::ConnectionRefused, "{e}");
            tokio::task::yield_now().await;
        }
    });
    up.await.expect("the broker answers");
    // Who is not reached, and why; and that nothing then comes back through the relay, which closes before or after what is
    // said to it.
    let connack = async |config: &Config, host: &str| {
        let relay = Relay::open(config, host, port)?;
        let mut stream = UnixStream::connect(relay.place()).await.expect("the relay");
        let said = stream.write_all(b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01r").await;
        let mut got = [0_u8; 4];
        let heard = said.is_ok() && stream.read_exact(&mut got).await.is_ok();
        Ok::<_, Error>(heard.then_some(got))
    };
    assert_eq!(
        connack(&reached_with(&ours), "localhost").await?,
        Some(*b"\x20\x02\0\0")
    );
    let refused = async |roots: &Path, host: &str| {
        let config = reached_with(roots);
        let why = Way::to(&config, host, port)?.connect().await.err();
        assert_eq!(connack(&config, host).await?, None, "{host}");
        Ok::<_, Error>(why.and_then(|e| e.get_ref()?.downcast_ref::<rustls::Error>().cloned()))
    };
    let unknown = refused(&foreign, "localhost").await?;
    assert!(
        matches!(
            unknown,
            Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer))
        ),
        "an authority we were not told of: {unknown:?}"
    );
    let name = refused(&ours, "127.0.0.1").await?;
    assert!(
        matches!(
            name,
            Some(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForNameContext { .. }
            ))
        ),
        "a name that the certificate has not: {name:?}"
    );
    assert!(Way::to(&reached_with(&dir.join("none.ca")), "localhost", port).is_err());

    // The whole way, from a device to the record.
    let mut ctx = world.ctx.clone();
    let mut config = (*ctx.config).clone();
    config.data_dir = dir.to_owned();
    config.mqtt.bind = SocketAddr::from(([127, 0, 0, 1], 0));
    config.mqtt.broker = Some(format!("mqtts://localhost:{port}"));
    config.mqtt.broker_root_cert = Some(ours.clone());
    ctx.config = Arc::new(config);
    let live = ctx.bus.attach_live()?;
    let (stop, stopped) = watch::channel(false);
    let devices = Devices::start(ctx, stopped).await?;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut d = Door {
        world: &world,
        devices,
        address,
        live,
        _stop: stop,
    };
    let w = d.wearable(&world.south, Some("patient:p9")).await?;
    let (topic, roots) = (
        format!("devices/{}/readings", w.id),
        ours.to_str().expect("UTF-8").to_owned(),
    );
    // The broker keeps nothing for a client it does not know yet, so publish until the first reading comes through.
    let arrived = timeout(Duration::from_secs(30), async {
        loop {
            let args = [
                "-q",
                "1",
                "-h",
                "localhost",
                "--cafile",
                &roots,
                "-t",
                &topic,
                "-m",
                PACK,
            ];
            d.mosquitto_pub(&w, &args).await;
            if let Ok(Some(event)) = timeout(Duration::from_millis(500), d.live.recv()).await {
                return event;
            }
        }
    });
    assert_eq!(arrived.await.expect("a reading came through").tenant, world.south.id);
    Ok(())
}

#[tokio::test]
async fn a_broker_on_another_machine_is_not_reached_in_clear() -> Result<()> {
    let world = World::sqlite(&[]).await?;
    let start = async |broker: &str, allow: bool| {
        let mut ctx = world.ctx.clone();
        let mut config = (*ctx.config).clone();
        config.mqtt.bind = SocketAddr::from(([127, 0, 0, 1], 0));
        (config.mqtt.broker, config.mqtt.allow_plain) = (Some(broker.to_owned()), allow);
        ctx.config = Arc::new(config);
        // Ends at once: nothing of another machine is asked.
        let (_, stopped) = watch::channel(true);
        Devices::start(ctx, stopped).await.err().map(|e| e.message.into_owned())
    };
    let refused = start("mqtt://broker.invalid", false).await.unwrap_or_default();
    assert!(refused.contains("mqtts://"), "{refused}");
    assert_eq!(start("mqtt://broker.invalid", true).await, None);
    assert_eq!(start("mqtt://127.0.0.1:1", false).await, None);
    Ok(())
}
