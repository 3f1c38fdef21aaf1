//! Who is connected: for taking over, cutting off and sending commands.

use bytes::Bytes;
use medtech_kernel::TenantId;
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

/// Connections one device may have, told apart by their client ids.
const PER_DEVICE: usize = 8;
/// Commands that wait for a slow connection; more are not taken and [`Registry::command`] says so.
const COMMANDS: usize = 64;

/// Why the server ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The same client id connected again.
    TakenOver,
    /// The credential was withdrawn.
    Revoked,
}

struct Entry {
    client: String,
    session: Uuid,
    serial: u64,
    end: watch::Sender<Option<End>>,
    commands: mpsc::Sender<Bytes>,
    listens: bool,
}

#[derive(Default)]
struct Table {
    next: u64,
    devices: HashMap<(TenantId, String), Vec<Entry>>,
}

#[derive(Default)]
pub(crate) struct Registry(Mutex<Table>);

/// A connection's side of its entry.
pub(crate) struct Seat {
    pub serial: u64,
    pub end: watch::Receiver<Option<End>>,
    pub commands: mpsc::Receiver<Bytes>,
}

impl Registry {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a connection; an older one of the same client id is told to go. `None`: the device has too many.
    pub(crate) fn enter(&self, tenant: TenantId, device: &str, client: &str, session: Uuid) -> Option<Seat> {
        let mut table = self.table();
        table.next += 1;
        let serial = table.next;
        let entries = table.devices.entry((tenant, device.to_owned())).or_default();
        entries.retain(|e| {
            let same = e.client == client;
            if same {
                e.end.send_replace(Some(End::TakenOver));
            }
            !same
        });
        if entries.len() >= PER_DEVICE {
            return None;
        }
        let (end, ended) = watch::channel(None);
        let (commands, inbox) = mpsc::channel(COMMANDS);
        entries.push(Entry {
            client: client.to_owned(),
            session,
            serial,
            end,
            commands,
            listens: false,
        });
        Some(Seat {
            serial,
            end: ended,
            commands: inbox,
        })
    }

    pub(crate) fn leave(&self, tenant: TenantId, device: &str, serial: u64) {
        let mut table = self.table();
        let key = (tenant, device.to_owned());
        if let Some(entries) = table.devices.get_mut(&key) {
            entries.retain(|e| e.serial != serial);
            if entries.is_empty() {
                table.devices.remove(&key);
            }
        }
    }

    /// Whether the connection subscribed to its commands.
    pub(crate) fn listen(&self, tenant: TenantId, device: &str, serial: u64, listens: bool) {
        let mut table = self.table();
        let entries = table.devices.get_mut(&(tenant, device.to_owned()));
        if let Some(entry) = entries.and_then(|e| e.iter_mut().find(|e| e.serial == serial)) {
            entry.listens = listens;
        }
    }

    pub(crate) fn command(&self, tenant: TenantId, device: &str, payload: &Bytes) -> usize {
        let table = self.table();
        let entries = table.devices.get(&(tenant, device.to_owned()));
        let listening = entries.into_iter().flatten().filter(|e| e.listens);
        listening
            .filter(|e| e.commands.try_send(payload.clone()).is_ok())
            .count()
    }

    /// Ends the device's connections: those of one session, or all.
    pub(crate) fn end(&self, tenant: TenantId, device: &str, session: Option<Uuid>, why: End) {
        let table = self.table();
        for entry in table.devices.get(&(tenant, device.to_owned())).into_iter().flatten() {
            if session.is_none_or(|s| s == entry.session) {
                entry.end.send_replace(Some(why));
            }
        }
    }
}
