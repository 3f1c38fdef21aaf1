//! What can be done with conversations: send, list, acknowledge, type; and, for other parts of the hub, create and join.
//! REST and the live channels' `rpc` both end here.

use crate::{
    Messaging,
    files::{FileRow, Files, hex},
    model::{
        Body, Conversation, Cursors, DEFAULT_PAGE, Draft, FileRef, MAX_PAGE, MAX_TITLE, Message, Mode, Party, Receipt,
    },
    store,
};
use medtech_kernel::{
    Ctx, Error, Result, Tx, audit,
    auth::Principal,
    bus::Event,
    id,
    policy::{self, Action, Resource},
    tenant,
};
use serde::Serialize;
use uuid::Uuid;

/// The answer to a message sent.
#[derive(Clone, Debug, Serialize)]
pub struct Sent {
    pub message: Message,
    /// The message was sent before under this client id; this is that one.
    pub duplicate: bool,
}

/// Body of the durable event `message.created`.
#[derive(Serialize)]
struct Created<'a> {
    conversation_id: Uuid,
    topic: &'a str,
    message: &'a Message,
}

/// Body of the live event `receipt.updated`.
#[derive(Serialize)]
struct ReceiptUpdated<'a> {
    conversation_id: Uuid,
    subject: &'a str,
    delivered_upto: i64,
    read_upto: i64,
}

/// The policy's name of a conversation.
fn object(conversation: Uuid) -> String {
    format!("conversation:{conversation}")
}

fn not_a_member() -> Error {
    Error::forbidden("policy.denied", "You do not have access to this.")
}

impl Messaging {
    /// Stores a message and gives it the next number of its conversation; answers after the commit. Repeating it under
    /// the same client id answers with the first one; the same client id with another content is refused (409).
    pub async fn send(&self, who: &Principal, conversation: Uuid, draft: Draft) -> Result<Sent> {
        self.require(who, Action::Write, conversation).await?;
        draft.check()?;
        let (ctx, who) = (self.ctx.clone(), who.clone());
        let scans = self.files.scans();
        self.ctx
            .db
            .write(who.tenant, move |tx| {
                Box::pin(async move {
                    let mut sent = send_in(&ctx, tx, &who, conversation, &draft, scans).await?;
                    with_state(tx, &mut sent.message, scans).await?;
                    Ok(sent)
                })
            })
            .await
    }

    /// Messages after a number, in order. At most [`MAX_PAGE`].
    pub async fn list(
        &self,
        who: &Principal,
        conversation: Uuid,
        after: i64,
        limit: Option<i64>,
    ) -> Result<Vec<Message>> {
        self.require(who, Action::Read, conversation).await?;
        let limit = limit.unwrap_or(DEFAULT_PAGE);
        if after < 0 || limit < 1 {
            return Err(Error::bad("message.page", "after is 0 or more, limit is 1 or more."));
        }
        let mut page = store::page(&self.ctx.db, who.tenant, conversation, after, limit.min(MAX_PAGE)).await?;
        self.files.with_states(who.tenant, &mut page).await?;
        if !page.is_empty() {
            self.noted_read(who, conversation, object(conversation), "messages")
                .await?;
        }
        Ok(page)
    }

    /// The conversation with its members and their cursors.
    pub async fn conversation(&self, who: &Principal, conversation: Uuid) -> Result<Conversation> {
        self.require(who, Action::Read, conversation).await?;
        let Some((title, mode, last_seq)) = store::conversation(&self.ctx.db, who.tenant, conversation).await? else {
            return Err(not_a_member());
        };
        let members = store::members(&self.ctx.db, who.tenant, conversation).await?;
        Ok(Conversation {
            id: conversation,
            title,
            mode: mode.as_str(),
            members,
            last_seq,
        })
    }

    /// Moves the caller's cursors forward and tells the others, if anything moved.
    pub async fn receipt(&self, who: &Principal, conversation: Uuid, receipt: Receipt) -> Result<Cursors> {
        self.require(who, Action::Read, conversation).await?;
        let (ctx, who) = (self.ctx.clone(), who.clone());
        self.ctx
            .db
            .write(who.tenant, move |tx| {
                Box::pin(async move {
                    let Some((last, now)) = store::cursors(tx, conversation, &who.subject).await? else {
                        return Err(not_a_member());
                    };
                    let next = now.advance(receipt, last)?;
                    let Some(moved) = store::move_cursors(tx, conversation, &who.subject, next).await? else {
                        return Ok(now);
                    };
                    let body = ReceiptUpdated {
                        conversation_id: conversation,
                        subject: &who.subject,
                        delivered_upto: moved.delivered_upto,
                        read_upto: moved.read_upto,
                    };
                    let channel = object(conversation);
                    let event = Event::of(tx, "receipt.updated", channel.clone(), &body)?
                        .on(channel)
                        .by(&who.subject);
                    ctx.bus.publish_after(tx, event);
                    Ok(moved)
                })
            })
            .await
    }

    /// Tells the others, live only, that the caller is writing. Never stored.
    pub async fn typing(&self, who: &Principal, conversation: Uuid) -> Result<()> {
        self.require(who, Action::Write, conversation).await?;
        let channel = object(conversation);
        let body = serde_json::json!({ "conversation_id": conversation, "subject": who.subject, "name": who.name });
        let event = Event::new(&self.ctx.clock, who.tenant, "typing", channel.clone(), &body)?;
        self.ctx.bus.publish(event.on(channel).by(&who.subject));
        Ok(())
    }

    /// A managed conversation with its first members (subject, name), inside the caller's transaction.
    pub async fn create_conversation_in(
        &self,
        tx: &mut Tx,
        topic: &str,
        title: &str,
        members: &[(String, String)],
    ) -> Result<Uuid> {
        self.create_in(tx, topic, title, Mode::Managed, members).await
    }

    /// The same with a mode. Modes that this server cannot keep are refused.
    pub async fn create_in(
        &self,
        tx: &mut Tx,
        topic: &str,
        title: &str,
        mode: Mode,
        members: &[(String, String)],
    ) -> Result<Uuid> {
        mode.require_supported()?;
        if title.chars().count() > MAX_TITLE || title.contains('\0') {
            return Err(Error::bad(
                "conversation.title",
                "The title is longer than 200 characters or holds a NUL.",
            ));
        }
        let conversation = id::uuid_v7(tx.now());
        store::create(tx, conversation, topic, title, mode).await?;
        for (subject, name) in members {
            self.join(tx, conversation, subject, name).await?;
        }
        Ok(conversation)
    }

    /// Adds a member, or renames one who is there.
    pub async fn add_member_in(&self, tx: &mut Tx, conversation: Uuid, subject: &str, name: &str) -> Result<()> {
        if !store::exists(tx, conversation).await? {
            return Err(Error::not_found(
                "conversation.unknown",
                "There is no such conversation.",
            ));
        }
        self.join(tx, conversation, subject, name).await
    }

    /// Takes a member's rights away. What was said stays.
    pub async fn remove_member_in(&self, tx: &mut Tx, conversation: Uuid, subject: &str) -> Result<()> {
        store::remove_member(tx, conversation, subject).await?;
        policy::unrelate(tx, subject, "member", &object(conversation)).await
    }

    async fn join(&self, tx: &mut Tx, conversation: Uuid, subject: &str, name: &str) -> Result<()> {
        store::add_member(tx, conversation, subject, name).await?;
        policy::relate(tx, subject, "member", &object(conversation), None).await
    }

    /// Somebody was shown something of a conversation: it stands in the trail, by the patient whose visit it belongs to.
    pub(crate) async fn noted_read(
        &self,
        who: &Principal,
        conversation: Uuid,
        target: String,
        detail: &'static str,
    ) -> Result<()> {
        let actor = who.subject.clone();
        self.ctx
            .db
            .write(who.tenant, move |tx| {
                Box::pin(async move {
                    let patient = store::patient_of(tx, conversation).await?;
                    let entry = audit::Entry {
                        actor: &actor,
                        action: "read",
                        target: &target,
                        outcome: "success",
                        detail,
                    };
                    audit::write_all(tx, &[(entry, patient.as_deref())]).await
                })
            })
            .await
    }

    pub(crate) async fn require(&self, who: &Principal, action: Action, conversation: Uuid) -> Result<()> {
        self.ctx
            .policy
            .require(who, action, &Resource::new("conversation", conversation.to_string()))
            .await
    }
}

/// Says of the message's file what is known of it, which is of this moment and not stored.
async fn with_state(tx: &mut Tx, message: &mut Message, scans: bool) -> Result<()> {
    if let Some(file) = &mut message.body.file {
        file.state = Files::verdict_in(scans, tx, file.id).await?;
    }
    Ok(())
}

async fn send_in(
    ctx: &Ctx,
    tx: &mut Tx,
    who: &Principal,
    conversation: Uuid,
    draft: &Draft,
    scans: bool,
) -> Result<Sent> {
    // A plain hash would let whoever reads the table try short texts against it.
    let digest = hex(&draft.digest(conversation));
    let digest = tx.vault()?.blind(tx.tenant(), "message.digest", &digest)?;
    if let Some(sent) = repeated(tx, who, draft, conversation, digest).await? {
        return Ok(sent);
    }
    // The policy was asked before the transaction began; a member removed in between is still refused.
    let name = store::member_name(tx, conversation, &who.subject)
        .await?
        .ok_or_else(not_a_member)?;
    let file = match &draft.body.file {
        Some(f) => Some(completed_file(tx, conversation, f.id).await?),
        None => None,
    };
    if let Some(clinic) = ctx.tenants.by_id(who.tenant) {
        tenant::spend(tx, &clinic, "messages", clinic.quotas.messages_per_day).await?;
    }
    let taken = store::take_seq(tx, conversation).await?.ok_or_else(not_a_member)?;
    taken.mode.require_supported()?;
    let mut message = Message {
        seq: taken.seq,
        id: id::uuid_v7(tx.now()),
        client_id: draft.client_id,
        conversation_id: conversation,
        sender: Party {
            subject: who.subject.clone(),
            name,
        },
        at: tx.now(),
        body: Body {
            text: draft.body.text.clone(),
            file,
        },
    };
    if !store::add_message(tx, &message, digest).await? {
        // A parallel request with this client id was first: its number stands, ours goes back.
        store::return_seq(tx, conversation).await?;
        let first = repeated(tx, who, draft, conversation, digest).await?;
        return first.ok_or_else(|| Error::unavailable("message.retry", "Please send that again."));
    }
    let channel = object(conversation);
    let target = format!("Message/{}", message.id);
    let entry = audit::Entry {
        actor: &who.subject,
        action: "create",
        target: &target,
        outcome: "success",
        detail: &channel,
    };
    let patient = policy::patient_of(tx, &taken.topic).await?;
    let told = audit::Record::new(entry).about(patient.as_deref()).wrote(&digest);
    audit::record(tx, vec![told]).await?;
    let body = Created {
        conversation_id: conversation,
        topic: &taken.topic,
        message: &message,
    };
    ctx.bus
        .record(
            tx,
            Event::of(tx, "message.created", channel.clone(), &body)?.by(&who.subject),
        )
        .await?;
    with_state(tx, &mut message, scans).await?;
    let live = Event::of(
        tx,
        "message.created",
        channel.clone(),
        &serde_json::json!({ "message": &message }),
    )?;
    ctx.bus.publish_after(tx, live.on(channel).by(&who.subject));
    Ok(Sent {
        message,
        duplicate: false,
    })
}

/// The message sent before under this client id.
async fn repeated(
    tx: &mut Tx,
    who: &Principal,
    draft: &Draft,
    conversation: Uuid,
    digest: [u8; 32],
) -> Result<Option<Sent>> {
    match store::by_client_id(tx, &who.subject, draft.client_id).await? {
        None => Ok(None),
        // The plain one is of an older release.
        Some((message, known)) if known == digest || known == draft.digest(conversation) => Ok(Some(Sent {
            message,
            duplicate: true,
        })),
        Some(_) => Err(Error::conflict(
            "message.client_id_reused",
            "This client id was used for another message.",
        )),
    }
}

async fn completed_file(tx: &mut Tx, conversation: Uuid, file: Uuid) -> Result<FileRef> {
    match FileRow::find_in(tx, file)
        .await?
        .and_then(|f| (f.conversation == conversation).then(|| f.reference()))
    {
        Some(Some(reference)) => Ok(reference),
        Some(None) => Err(Error::unprocessable(
            "message.file_incomplete",
            "The file is not uploaded completely yet.",
        )),
        None => Err(Error::unprocessable(
            "message.file_unknown",
            "There is no such file in this conversation.",
        )),
    }
}
