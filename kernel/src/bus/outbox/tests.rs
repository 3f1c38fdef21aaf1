//! One row that cannot be read is one row's failure.

use super::*;
use crate::{
    testkit::{World, on_both_engines},
    vault::{Class, Scope},
};

const BREAK: &str = "UPDATE outbox SET body = $3 WHERE tenant = $1 AND ekey = $2";

async fn record(w: &World, key: &'static str, n: i64) -> Result<()> {
    let bus = w.ctx.bus.clone();
    let work = move |tx: &mut Tx| {
        let event = Event::of(tx, "thing.made", key, &n);
        (bus, event)
    };
    w.ctx
        .db
        .write(w.north.id, move |tx| {
            Box::pin(async move {
                let (bus, event) = work(tx);
                bus.record(tx, event?).await
            })
        })
        .await
}

#[tokio::test]
async fn a_row_that_does_not_open_holds_its_key_alone_and_becomes_a_dead_letter() {
    on_both_engines(&[], |w| {
        Box::pin(async move {
            w.ctx.bus.register("probe", &["thing.made"]);
            for (n, key) in ["bad", "worse", "worst", "good", "bad"].into_iter().enumerate() {
                record(w, key, n as i64).await?;
            }
            // Sealed under a key that is not there (any more), no sealed text at all, and no JSON.
            let sealed = w.ctx.db.write(w.north.id, |tx| {
                Box::pin(async move {
                    let scope = Scope {
                        class: Class::File,
                        subject: "f",
                    };
                    tx.seal_json(scope, "elsewhere", "1").await
                })
            });
            let first =
                "UPDATE outbox SET body = $3 WHERE tenant = $1 AND ekey = $2 AND seq = (SELECT MIN(seq) FROM outbox
                WHERE tenant = $1 AND ekey = $2)";
            w.forge(w.north.id, first, vec!["bad".into(), sealed.await?.into()])
                .await?;
            w.forge(w.north.id, BREAK, vec!["worse".into(), "sealed1:*".into()])
                .await?;
            w.forge(w.north.id, BREAK, vec!["worst".into(), "{".into()]).await?;
            let (seen, mut got) = tokio::sync::mpsc::unbounded_channel();
            let handler = move |event: Event| {
                let seen = seen.clone();
                async move {
                    let _ = seen.send(event.key.clone());
                    Ok(())
                }
            };
            for round in 0..ATTEMPTS {
                drain(&w.ctx.bus, "probe", w.north.id, &handler).await?;
                if round == 0 {
                    assert_eq!(got.try_recv().ok().as_deref(), Some("good"));
                }
                assert_eq!(got.try_recv().ok(), None, "the later row of a held key waits");
                w.ctx.clock.advance(250 << ATTEMPTS);
            }
            drain(&w.ctx.bus, "probe", w.north.id, &handler).await?;
            assert_eq!(got.try_recv().ok().as_deref(), Some("bad"));
            let mut parked: Vec<String> = dead_letters(&w.ctx.db, w.north.id)
                .await?
                .into_iter()
                .map(|d| d.key)
                .collect();
            parked.sort();
            assert_eq!(parked, ["bad", "worse", "worst"]);
            assert!(backlog(&w.ctx.db, w.north.id).await?.is_empty());
            Ok(())
        })
    })
    .await;
}
