//! The tables of conversations, members and messages: every statement, and nothing else.

use crate::model::{Body, Cursors, Member, Message, Mode, Party, erased};
use medtech_kernel::{
    Db, Error, Result, Row, TenantId, Tx, policy,
    vault::{Cell, Class, Field, Scope, Sheet, Texts},
};
use uuid::Uuid;

/// What names a person, a matter or a file.
pub const SHEETS: &[Sheet] = &[
    Sheet {
        table: "conversation",
        key: &["id"],
        cells: &[Cell::Sealed(TITLE)],
    },
    Sheet {
        table: "conversation_member",
        key: &["conversation", "subject"],
        cells: &[Cell::Sealed(MEMBER)],
    },
    Sheet {
        table: "message",
        key: &["conversation", "seq"],
        cells: &[Cell::Sealed(SENDER)],
    },
    crate::files::store::SHEET,
];
pub(crate) const TITLE: Field = Field::new("conversation", "title");
/// By conversation and subject.
pub(crate) const MEMBER: Field = Field::new("conversation_member", "name");
/// By conversation and number.
pub(crate) const SENDER: Field = Field::new("message", "sender_name");

const CREATE: &str = "INSERT INTO conversation (tenant, id, topic, title, mode, last_seq, created_at)
    VALUES ($1, $2, $3, $4, $5, 0, $6)";
const ADD_MEMBER: &str = "INSERT INTO conversation_member
    (tenant, conversation, subject, name, joined_at, delivered_upto, read_upto) VALUES ($1, $2, $3, $4, $5, 0, 0)
    ON CONFLICT (tenant, conversation, subject) DO UPDATE SET name = excluded.name";
const REMOVE_MEMBER: &str = "DELETE FROM conversation_member WHERE tenant = $1 AND conversation = $2 AND subject = $3";
const CONVERSATION: &str = "SELECT title, mode, last_seq FROM conversation WHERE tenant = $1 AND id = $2";
const MEMBERS: &str = "SELECT subject, name, delivered_upto, read_upto FROM conversation_member
    WHERE tenant = $1 AND conversation = $2 ORDER BY joined_at, subject";
const MEMBER_NAME: &str =
    "SELECT name FROM conversation_member WHERE tenant = $1 AND conversation = $2 AND subject = $3";
const TAKE_SEQ: &str = "UPDATE conversation SET last_seq = last_seq + 1 WHERE tenant = $1 AND id = $2
    RETURNING last_seq, mode, topic";
const RETURN_SEQ: &str = "UPDATE conversation SET last_seq = last_seq - 1 WHERE tenant = $1 AND id = $2";
const ADD_MESSAGE: &str = "INSERT INTO message
    (tenant, conversation, seq, id, client_id, sender, sender_name, at, body, digest, file)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (tenant, sender, client_id) DO NOTHING";
const BY_CLIENT_ID: &str = "SELECT conversation, seq, id, client_id, sender, sender_name, at, body, digest FROM message
    WHERE tenant = $1 AND sender = $2 AND client_id = $3";
const PAGE: &str = "SELECT conversation, seq, id, client_id, sender, sender_name, at, body FROM message
    WHERE tenant = $1 AND conversation = $2 AND seq > $3 ORDER BY seq LIMIT $4";
/// Messages that are looked at with one question, beside the writers.
const RANGE: usize = 1000;
const LOOK: &str = "SELECT conversation, seq, body NOT LIKE 'sealed1:%' FROM message
    WHERE tenant = $1 AND (conversation, seq) > ($2, $3) ORDER BY conversation, seq LIMIT $4";
const CLEAR: &str = "SELECT id, body FROM message
    WHERE tenant = $1 AND conversation = $2 AND seq = $3 AND body NOT LIKE 'sealed1:%'";
const SEAL: &str = "UPDATE message SET body = $4 WHERE tenant = $1 AND conversation = $2 AND seq = $3";
const TOPIC: &str = "SELECT topic FROM conversation WHERE tenant = $1 AND id = $2";
/// Taking the row is an update, so that on both engines whoever erases the conversation waits, and is waited for.
const HOLD: &str = "UPDATE conversation SET mode = mode WHERE tenant = $1 AND id = $2 RETURNING mode";
const LAST_SEQ: &str = "SELECT last_seq FROM conversation WHERE tenant = $1 AND id = $2";
const CURSORS: &str = "SELECT delivered_upto, read_upto FROM conversation_member
    WHERE tenant = $1 AND conversation = $2 AND subject = $3";
// The comparison makes the cursors monotonic even where two receipts of one member overlap.
const MOVE_CURSORS: &str = "UPDATE conversation_member SET
    delivered_upto = CASE WHEN delivered_upto < $4 THEN $4 ELSE delivered_upto END,
    read_upto = CASE WHEN read_upto < $5 THEN $5 ELSE read_upto END
    WHERE tenant = $1 AND conversation = $2 AND subject = $3 AND (delivered_upto < $4 OR read_upto < $5)
    RETURNING delivered_upto, read_upto";

/// The present state of a conversation, locked until the transaction ends.
pub(crate) struct Taken {
    pub(crate) seq: i64,
    pub(crate) mode: Mode,
    pub(crate) topic: String,
}

pub(crate) async fn create(tx: &mut Tx, id: Uuid, topic: &str, title: &str, mode: Mode) -> Result<()> {
    let now = tx.now();
    tx.exec(
        CREATE,
        &[
            id.into(),
            topic.into(),
            TITLE.seal(id, title),
            mode.as_str().into(),
            now.into(),
        ],
    )
    .await
    .map(drop)
}

pub(crate) async fn add_member(tx: &mut Tx, conversation: Uuid, subject: &str, name: &str) -> Result<()> {
    let now = tx.now();
    tx.exec(
        ADD_MEMBER,
        &[
            conversation.into(),
            subject.into(),
            MEMBER.seal(format!("{conversation}/{subject}"), name),
            now.into(),
        ],
    )
    .await
    .map(drop)
}

pub(crate) async fn remove_member(tx: &mut Tx, conversation: Uuid, subject: &str) -> Result<()> {
    tx.exec(REMOVE_MEMBER, &[conversation.into(), subject.into()])
        .await
        .map(drop)
}

/// The patient whose visit a conversation belongs to: for the trail.
pub(crate) async fn patient_of(tx: &mut Tx, conversation: Uuid) -> Result<Option<String>> {
    match tx.query_opt(TOPIC, &[conversation.into()]).await? {
        Some(row) => policy::patient_of(tx, row.text(0)?).await,
        None => Ok(None),
    }
}

/// (title, mode, last number).
pub(crate) async fn conversation(db: &Db, tenant: TenantId, id: Uuid) -> Result<Option<(String, Mode, i64)>> {
    let Some(row) = db.query_opt(tenant, CONVERSATION, &[id.into()]).await? else {
        return Ok(None);
    };
    Ok(Some((
        TITLE.open(&row, 0, id)?,
        Mode::parse(row.text(1)?)?,
        row.i64(2)?,
    )))
}

pub(crate) async fn exists(tx: &mut Tx, id: Uuid) -> Result<bool> {
    Ok(tx.query_opt(LAST_SEQ, &[id.into()]).await?.is_some())
}

/// Holds a conversation until the transaction ends. 410 when it was erased.
pub(crate) async fn hold(tx: &mut Tx, id: Uuid) -> Result<()> {
    match tx.query_opt(HOLD, &[id.into()]).await? {
        Some(row) if Mode::parse(row.text(0)?)? == Mode::Erased => Err(erased()),
        _ => Ok(()),
    }
}

pub(crate) async fn members(db: &Db, tenant: TenantId, conversation: Uuid) -> Result<Vec<Member>> {
    let rows = db.query(tenant, MEMBERS, &[conversation.into()]).await?;
    rows.iter()
        .map(|r| {
            Ok(Member {
                subject: r.string(0)?,
                name: MEMBER.open(r, 1, format_args!("{conversation}/{}", r.text(0)?))?,
                delivered_upto: r.i64(2)?,
                read_upto: r.i64(3)?,
            })
        })
        .collect()
}

pub(crate) async fn member_name(tx: &mut Tx, conversation: Uuid, subject: &str) -> Result<Option<String>> {
    let row = tx
        .query_opt(MEMBER_NAME, &[conversation.into(), subject.into()])
        .await?;
    row.map(|r| MEMBER.open(&r, 0, format_args!("{conversation}/{subject}")))
        .transpose()
}

/// Takes the next number. The row stays locked, so numbers are handed out in the order of commits and none is lost.
pub(crate) async fn take_seq(tx: &mut Tx, conversation: Uuid) -> Result<Option<Taken>> {
    let Some(row) = tx.query_opt(TAKE_SEQ, &[conversation.into()]).await? else {
        return Ok(None);
    };
    Ok(Some(Taken {
        seq: row.i64(0)?,
        mode: Mode::parse(row.text(1)?)?,
        topic: row.string(2)?,
    }))
}

/// Gives a number back that [`take_seq`] took in this same transaction.
pub(crate) async fn return_seq(tx: &mut Tx, conversation: Uuid) -> Result<()> {
    tx.exec(RETURN_SEQ, &[conversation.into()]).await.map(drop)
}

/// `false` when the sender used this client id before.
pub(crate) async fn add_message(tx: &mut Tx, m: &Message, digest: [u8; 32]) -> Result<bool> {
    let body = serde_json::to_string(&m.body).map_err(|e| Error::internal("message.body_json", e))?;
    let conversation = m.conversation_id.to_string();
    let scope = Scope {
        class: Class::Conversation,
        subject: &conversation,
    };
    let body = tx.seal_json(scope, &place(m.conversation_id, m.id), &body).await?;
    let args = [
        m.conversation_id.into(),
        m.seq.into(),
        m.id.into(),
        m.client_id.into(),
        (&m.sender.subject).into(),
        SENDER.seal(format_args!("{}/{}", m.conversation_id, m.seq), &m.sender.name),
        m.at.into(),
        body.into(),
        digest.into(),
        m.body.file.as_ref().map(|f| f.id).into(),
    ];
    Ok(tx.exec(ADD_MESSAGE, &args).await? == 1)
}

/// The message a sender sent under a client id, with its digest.
pub(crate) async fn by_client_id(tx: &mut Tx, sender: &str, client_id: Uuid) -> Result<Option<(Message, Vec<u8>)>> {
    let rows = tx.query(BY_CLIENT_ID, &[sender.into(), client_id.into()]).await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let texts = Texts::of_tx(tx, &rows, 7).await?;
    Ok(Some((message(row, &texts)?, row.blob(8)?.to_vec())))
}

pub(crate) async fn page(
    db: &Db,
    tenant: TenantId,
    conversation: Uuid,
    after: i64,
    limit: i64,
) -> Result<Vec<Message>> {
    let rows = db
        .query(tenant, PAGE, &[conversation.into(), after.into(), limit.into()])
        .await?;
    let texts = Texts::of(db, tenant, &rows, 7).await?;
    rows.iter().map(|row| message(row, &texts)).collect()
}

/// The last number of a conversation and a member's cursors; `None` where either is absent.
pub(crate) async fn cursors(tx: &mut Tx, conversation: Uuid, subject: &str) -> Result<Option<(i64, Cursors)>> {
    let Some(last) = tx.query_opt(LAST_SEQ, &[conversation.into()]).await? else {
        return Ok(None);
    };
    let Some(row) = tx.query_opt(CURSORS, &[conversation.into(), subject.into()]).await? else {
        return Ok(None);
    };
    Ok(Some((
        last.i64(0)?,
        Cursors {
            delivered_upto: row.i64(0)?,
            read_upto: row.i64(1)?,
        },
    )))
}

/// Moves cursors forward; `None` when they stood there already.
pub(crate) async fn move_cursors(
    tx: &mut Tx,
    conversation: Uuid,
    subject: &str,
    to: Cursors,
) -> Result<Option<Cursors>> {
    let args = [
        conversation.into(),
        subject.into(),
        to.delivered_upto.into(),
        to.read_upto.into(),
    ];
    let row = tx.query_opt(MOVE_CURSORS, &args).await?;
    row.map(|r| {
        Ok(Cursors {
            delivered_upto: r.i64(0)?,
            read_upto: r.i64(1)?,
        })
    })
    .transpose()
}

/// A message by its conversation and its number there.
pub(crate) type Place = (Uuid, i64);

/// Of the next messages after a place, those whose text is not sealed; and the last one, unless that was all.
pub(crate) async fn open_texts(db: &Db, tenant: TenantId, after: Place) -> Result<(Vec<Place>, Option<Place>)> {
    let limit = i64::try_from(RANGE).unwrap_or(i64::MAX);
    let rows = db
        .query(tenant, LOOK, &[after.0.into(), after.1.into(), limit.into()])
        .await?;
    let place = |row: &Row| Ok::<_, Error>((row.uuid(0)?, row.i64(1)?));
    let mut open = Vec::new();
    for row in &rows {
        if row.bool(2)? {
            open.push(place(row)?);
        }
    }
    let last = rows.last().filter(|_| rows.len() == RANGE);
    Ok((open, last.map(place).transpose()?))
}

/// Seals those of these messages that are still in clear; answers how many were.
pub(crate) async fn seal_some(tx: &mut Tx, places: &[Place]) -> Result<u64> {
    let mut sealed = 0;
    for (conversation, seq) in places.iter().copied() {
        let Some(row) = tx.query_opt(CLEAR, &[conversation.into(), seq.into()]).await? else {
            continue;
        };
        let subject = conversation.to_string();
        let scope = Scope {
            class: Class::Conversation,
            subject: &subject,
        };
        let body = match tx
            .seal_json(scope, &place(conversation, row.uuid(0)?), row.text(1)?)
            .await
        {
            // The conversation was erased: nothing is sealed in its name again.
            Err(e) if e.code == "vault.erased" => continue,
            other => other?,
        };
        tx.exec(SEAL, &[conversation.into(), seq.into(), body.into()]).await?;
        sealed += 1;
    }
    Ok(sealed)
}

/// Where a message's body is sealed to.
pub(crate) fn place(conversation: Uuid, id: Uuid) -> String {
    format!("message/{conversation}/{id}")
}

fn message(row: &Row, texts: &Texts) -> Result<Message> {
    let body = texts.open(&place(row.uuid(0)?, row.uuid(2)?), row.text(7)?)?;
    let said: Body = serde_json::from_str(&body).map_err(|e| Error::internal("message.stored_body", e))?;
    // A message says something, until it is erased.
    if said.text.is_none() && said.file.is_none() {
        return Err(erased());
    }
    Ok(Message {
        conversation_id: row.uuid(0)?,
        seq: row.i64(1)?,
        id: row.uuid(2)?,
        client_id: row.uuid(3)?,
        sender: Party {
            subject: row.string(4)?,
            name: SENDER.open(row, 5, format_args!("{}/{}", row.uuid(0)?, row.i64(1)?))?,
        },
        at: row.i64(6)?,
        body: said,
    })
}
