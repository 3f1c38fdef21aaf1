//! The tables of contacts, alerts, notifications and deliveries: every statement, and nothing else.

use crate::model::{Alert, Letter, Notification, Party, Severity};
use medtech_kernel::{
    Db, Error, Result, Row, TenantId, Tx,
    clock::Millis,
    id,
    vault::{Cell, Field, Sheet},
};
use uuid::Uuid;

/// What names a person or is said to one.
pub const SHEETS: &[Sheet] = &[
    Sheet {
        table: "contact",
        key: &["subject"],
        cells: &[Cell::Sealed(CONTACT_NAME), Cell::Sealed(CONTACT_EMAIL)],
    },
    Sheet {
        table: "alert",
        key: &["id"],
        cells: &[Cell::Sealed(ALERT_TITLE), Cell::Sealed(ALERT_BY)],
    },
    Sheet {
        table: "notification",
        key: &["id"],
        cells: &[Cell::Sealed(TITLE)],
    },
    Sheet {
        table: "delivery",
        key: &["id"],
        cells: &[Cell::Sealed(ADDRESS), Cell::Sealed(ADDRESSEE), Cell::Sealed(WAY)],
    },
    Sheet {
        table: "delivery_attempt",
        key: &["delivery", "number"],
        cells: &[Cell::Sealed(DETAIL)],
    },
    Sheet {
        table: "local_mail",
        key: &["id"],
        cells: &[
            Cell::Sealed(SENDER),
            Cell::Sealed(RECIPIENT),
            Cell::Sealed(SUBJECT),
            Cell::Sealed(BODY),
        ],
    },
];
const CONTACT_NAME: Field = Field::new("contact", "name");
const CONTACT_EMAIL: Field = Field::new("contact", "email");
const ALERT_TITLE: Field = Field::new("alert", "title");
const ALERT_BY: Field = Field::new("alert", "acknowledged_name");
const TITLE: Field = Field::new("notification", "title");
const ADDRESS: Field = Field::new("delivery", "address");
const ADDRESSEE: Field = Field::new("delivery", "name");
const WAY: Field = Field::new("delivery", "url");
/// What a mail server answers quotes the address.
const DETAIL: Field = Field::new("delivery_attempt", "detail");
const SENDER: Field = Field::new("local_mail", "sender");
const RECIPIENT: Field = Field::new("local_mail", "recipient");
const SUBJECT: Field = Field::new("local_mail", "subject");
const BODY: Field = Field::new("local_mail", "body");

const PUT_CONTACT: &str = "INSERT INTO contact (tenant, subject, name, email, language) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (tenant, subject) DO UPDATE SET name = excluded.name, email = excluded.email, language = excluded.language";
const CONTACT: &str = "SELECT name, email, language FROM contact WHERE tenant = $1 AND subject = $2";
const DROP_CONTACT: &str = "DELETE FROM contact WHERE tenant = $1 AND subject = $2";

const ADD_ALERT: &str = "INSERT INTO alert (tenant, id, board, severity, title, subject_ref, link, at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (tenant, id) DO NOTHING";
const ALERT: &str =
    "SELECT id, board, severity, title, subject_ref, link, at, acknowledged_by, acknowledged_name, acknowledged_at
    FROM alert WHERE tenant = $1 AND id = $2";
// Open ones first, so that no wave of finished alerts pushes one off the board.
const BOARD: &str =
    "SELECT id, board, severity, title, subject_ref, link, at, acknowledged_by, acknowledged_name, acknowledged_at
    FROM alert WHERE tenant = $1 AND board = $2
    ORDER BY CASE WHEN acknowledged_at IS NULL THEN 0 ELSE 1 END, at DESC, id DESC LIMIT 200";
const ACKNOWLEDGE: &str = "UPDATE alert SET acknowledged_by = $3, acknowledged_name = $4, acknowledged_at = $5
    WHERE tenant = $1 AND id = $2 AND acknowledged_at IS NULL";

const ADD_NOTIFICATION: &str = "INSERT INTO notification (tenant, id, subject, kind, title, link, source, at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (tenant, subject, source) DO NOTHING";
const NOTIFICATIONS: &str = "SELECT id, kind, title, link, at, read_at FROM notification
    WHERE tenant = $1 AND subject = $2 ORDER BY at DESC, id DESC LIMIT 100";
const READ: &str =
    "UPDATE notification SET read_at = $4 WHERE tenant = $1 AND subject = $2 AND id = $3 AND read_at IS NULL";
const IS_MINE: &str = "SELECT 1 FROM notification WHERE tenant = $1 AND subject = $2 AND id = $3";

const ADD_DELIVERY: &str = "INSERT INTO delivery
    (tenant, id, notification, channel, address, name, language, state, attempts, created_at, updated_at, letter, url,
     until_at)
    VALUES ($1, $2, $3, 'email', $4, $5, $6, 'pending', 0, $7, $7, $8, $9, $10)";
const DELIVERY: &str = "SELECT address, name, language, state, attempts, letter, url, until_at FROM delivery WHERE tenant = $1 AND id = $2";
const MOVE_DELIVERY: &str = "UPDATE delivery SET state = $3, attempts = $4, updated_at = $5,
    url = CASE WHEN $3 = 'pending' THEN url ELSE NULL END
    WHERE tenant = $1 AND id = $2 AND state = 'pending'";
const ADD_ATTEMPT: &str = "INSERT INTO delivery_attempt (tenant, delivery, number, at, outcome, detail)
    VALUES ($1, $2, $3, $4, $5, $6)";
const LOG: &str = "SELECT d.id, d.channel, d.state, a.number, a.at, a.outcome, a.detail FROM delivery d
    JOIN delivery_attempt a ON a.tenant = d.tenant AND a.delivery = d.id
    WHERE d.tenant = $1 ORDER BY a.at DESC, d.id DESC, a.number DESC LIMIT 200";

const KEEP_MAIL: &str = "INSERT INTO local_mail (tenant, id, at, sender, recipient, subject, body)
    VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (tenant, id) DO NOTHING";
const KEPT_MAILS: &str = "SELECT at, sender, recipient, subject, body, id FROM local_mail
    WHERE tenant = $1 ORDER BY at DESC, id DESC LIMIT 200";

/// Where a person can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Contact {
    pub(crate) name: String,
    pub(crate) email: Option<String>,
    pub(crate) language: String,
}

pub(crate) async fn put_contact(tx: &mut Tx, subject: &str, c: &Contact) -> Result<()> {
    let args = [
        subject.into(),
        CONTACT_NAME.seal(subject, &c.name),
        CONTACT_EMAIL.seal_opt(subject, c.email.as_deref()),
        (&c.language).into(),
    ];
    tx.exec(PUT_CONTACT, &args).await.map(drop)
}

pub(crate) async fn contact(tx: &mut Tx, subject: &str) -> Result<Option<Contact>> {
    let Some(row) = tx.query_opt(CONTACT, &[subject.into()]).await? else {
        return Ok(None);
    };
    Ok(Some(Contact {
        name: CONTACT_NAME.open(&row, 0, subject)?,
        email: CONTACT_EMAIL.open_opt(&row, 1, subject)?,
        language: row.string(2)?,
    }))
}

pub(crate) async fn drop_contact(tx: &mut Tx, subject: &str) -> Result<()> {
    tx.exec(DROP_CONTACT, &[subject.into()]).await.map(drop)
}

/// `false` when an alert of that id is there already.
pub(crate) async fn add_alert(tx: &mut Tx, a: &Alert) -> Result<bool> {
    let args = [
        (&a.id).into(),
        (&a.board).into(),
        a.severity.as_str().into(),
        ALERT_TITLE.seal(&a.id, &a.title),
        a.subject_ref.clone().into(),
        a.link.clone().into(),
        a.at.into(),
    ];
    Ok(tx.exec(ADD_ALERT, &args).await? == 1)
}

pub(crate) async fn alert(db: &Db, tenant: TenantId, id: &str) -> Result<Option<Alert>> {
    db.query_opt(tenant, ALERT, &[id.into()])
        .await?
        .as_ref()
        .map(read_alert)
        .transpose()
}

pub(crate) async fn alert_in(tx: &mut Tx, id: &str) -> Result<Option<Alert>> {
    tx.query_opt(ALERT, &[id.into()])
        .await?
        .as_ref()
        .map(read_alert)
        .transpose()
}

pub(crate) async fn board(db: &Db, tenant: TenantId, board: &str) -> Result<Vec<Alert>> {
    db.query(tenant, BOARD, &[board.into()])
        .await?
        .iter()
        .map(read_alert)
        .collect()
}

/// `false` when someone was first.
pub(crate) async fn acknowledge(tx: &mut Tx, id: &str, by: &Party) -> Result<bool> {
    let now = tx.now();
    Ok(tx
        .exec(
            ACKNOWLEDGE,
            &[id.into(), (&by.subject).into(), ALERT_BY.seal(id, &by.name), now.into()],
        )
        .await?
        == 1)
}

/// `false` when this person was told of the source before.
pub(crate) async fn add_notification(tx: &mut Tx, subject: &str, source: &str, n: &Notification) -> Result<bool> {
    let args = [
        n.id.into(),
        subject.into(),
        (&n.kind).into(),
        TITLE.seal(n.id, &n.title),
        n.link.clone().into(),
        source.into(),
        n.at.into(),
    ];
    Ok(tx.exec(ADD_NOTIFICATION, &args).await? == 1)
}

pub(crate) async fn notifications(db: &Db, tenant: TenantId, subject: &str) -> Result<Vec<Notification>> {
    let rows = db.query(tenant, NOTIFICATIONS, &[subject.into()]).await?;
    rows.iter()
        .map(|r| {
            Ok(Notification {
                id: r.uuid(0)?,
                kind: r.string(1)?,
                title: TITLE.open(r, 2, r.uuid(0)?)?,
                link: r.opt_text(3)?.map(str::to_owned),
                at: r.i64(4)?,
                read_at: r.opt_i64(5)?,
            })
        })
        .collect()
}

/// `false` when there is no such notification of this person.
pub(crate) async fn mark_read(tx: &mut Tx, subject: &str, notification: Uuid) -> Result<bool> {
    let now = tx.now();
    let known = tx
        .query_opt(IS_MINE, &[subject.into(), notification.into()])
        .await?
        .is_some();
    tx.exec(READ, &[subject.into(), notification.into(), now.into()])
        .await?;
    Ok(known)
}

/// A mail on its way.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) address: String,
    pub(crate) name: String,
    pub(crate) language: String,
    pub(crate) pending: bool,
    pub(crate) attempts: i64,
    pub(crate) letter: String,
    /// The way it points to; absent: the application's front door.
    pub(crate) url: Option<String>,
    pub(crate) until_at: Option<i64>,
}

/// Which letter, and the way it points to.
pub(crate) struct Way {
    pub(crate) letter: &'static str,
    pub(crate) url: Option<String>,
    pub(crate) until_at: Option<i64>,
}

impl Default for Way {
    fn default() -> Self {
        Self {
            letter: "notification",
            url: None,
            until_at: None,
        }
    }
}

/// `source` is the notification, or the event, that the mail is about.
pub(crate) async fn add_delivery(tx: &mut Tx, source: Uuid, address: &str, c: &Contact, way: Way) -> Result<Uuid> {
    let (delivery, now) = (id::uuid_v7(tx.now()), tx.now());
    let args = [
        delivery.into(),
        source.into(),
        ADDRESS.seal(delivery, address),
        ADDRESSEE.seal(delivery, &c.name),
        (&c.language).into(),
        now.into(),
        way.letter.into(),
        WAY.seal_opt(delivery, way.url.as_deref()),
        way.until_at.into(),
    ];
    tx.exec(ADD_DELIVERY, &args).await?;
    Ok(delivery)
}

pub(crate) async fn delivery(db: &Db, tenant: TenantId, id: Uuid) -> Result<Option<Delivery>> {
    let Some(r) = db.query_opt(tenant, DELIVERY, &[id.into()]).await? else {
        return Ok(None);
    };
    Ok(Some(Delivery {
        address: ADDRESS.open(&r, 0, id)?,
        name: ADDRESSEE.open(&r, 1, id)?,
        language: r.string(2)?,
        pending: r.text(3)? == "pending",
        attempts: r.i64(4)?,
        letter: r.string(5)?,
        url: WAY.open_opt(&r, 6, id)?,
        until_at: r.opt_i64(7)?,
    }))
}

/// Notes an attempt and where the delivery now stands: `pending`, `sent` or `dead`. `false` when it is settled already.
pub(crate) async fn note_attempt(
    tx: &mut Tx,
    id: Uuid,
    number: i64,
    state: &str,
    outcome: &str,
    detail: &str,
) -> Result<bool> {
    let now = tx.now();
    if tx
        .exec(MOVE_DELIVERY, &[id.into(), state.into(), number.into(), now.into()])
        .await?
        == 0
    {
        return Ok(false);
    }
    let args = [
        id.into(),
        number.into(),
        now.into(),
        outcome.into(),
        DETAIL.seal(format_args!("{id}/{number}"), detail),
    ];
    tx.exec(ADD_ATTEMPT, &args).await?;
    Ok(true)
}

/// A line of the delivery log.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Attempt {
    pub delivery: Uuid,
    pub channel: String,
    /// Of the delivery: `pending`, `sent` or `dead`.
    pub state: String,
    pub number: i64,
    #[serde(with = "medtech_kernel::clock::serde_rfc3339")]
    pub at: Millis,
    /// Of this attempt: `sent`, `refused` or `failed`.
    pub outcome: String,
    pub detail: String,
}

pub(crate) async fn log(db: &Db, tenant: TenantId) -> Result<Vec<Attempt>> {
    let rows = db.query(tenant, LOG, &[]).await?;
    rows.iter()
        .map(|r| {
            Ok(Attempt {
                delivery: r.uuid(0)?,
                channel: r.string(1)?,
                state: r.string(2)?,
                number: r.i64(3)?,
                at: r.i64(4)?,
                outcome: r.string(5)?,
                detail: DETAIL.open(r, 6, format_args!("{}/{}", r.uuid(0)?, r.i64(3)?))?,
            })
        })
        .collect()
}

pub(crate) async fn keep_mail(tx: &mut Tx, id: Uuid, from: &str, to: &str, letter: &Letter) -> Result<()> {
    let now = tx.now();
    let args = [
        id.into(),
        now.into(),
        SENDER.seal(id, from),
        RECIPIENT.seal(id, to),
        SUBJECT.seal(id, &letter.subject),
        BODY.seal(id, &letter.body),
    ];
    tx.exec(KEEP_MAIL, &args).await.map(drop)
}

/// A mail of the local outbox.
pub(crate) struct KeptMail {
    pub(crate) at: Millis,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) subject: String,
    pub(crate) body: String,
}

pub(crate) async fn kept_mails(db: &Db, tenant: TenantId) -> Result<Vec<KeptMail>> {
    let rows = db.query(tenant, KEPT_MAILS, &[]).await?;
    rows.iter()
        .map(|r| {
            let id = r.uuid(5)?;
            Ok(KeptMail {
                at: r.i64(0)?,
                from: SENDER.open(r, 1, id)?,
                to: RECIPIENT.open(r, 2, id)?,
                subject: SUBJECT.open(r, 3, id)?,
                body: BODY.open(r, 4, id)?,
            })
        })
        .collect()
}

fn read_alert(r: &Row) -> Result<Alert> {
    let id = r.string(0)?;
    let by = r.opt_text(7)?.map(|subject| -> Result<Party> {
        Ok(Party {
            subject: subject.to_owned(),
            name: ALERT_BY.open_opt(r, 8, &id)?.unwrap_or_default(),
        })
    });
    Ok(Alert {
        board: r.string(1)?,
        severity: Severity::parse(r.text(2)?)
            .ok_or_else(|| Error::internal("alert.severity", "a stored severity is none of ours"))?,
        title: ALERT_TITLE.open(r, 3, &id)?,
        id,
        subject_ref: r.opt_text(4)?.map(str::to_owned),
        link: r.opt_text(5)?.map(str::to_owned),
        at: r.i64(6)?,
        acknowledged_by: by.transpose()?,
        acknowledged_at: r.opt_i64(9)?,
    })
}
