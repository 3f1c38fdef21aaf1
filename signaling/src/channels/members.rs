//! The subscribers of a channel: dense for the fan-out, indexed for leaving.

use super::shard::Info;
use crate::websocket::Socket;
use std::{collections::HashMap, sync::Arc};

/// A subscriber.
pub(super) struct Member {
    pub(super) conn: u64,
    pub(super) socket: Arc<Socket>,
    pub(super) info: Arc<Info>,
}

/// Up to here a scan is cheaper than a map, and most channels have one or two members.
const SCAN: usize = 16;

#[derive(Default)]
pub(super) struct Members {
    dense: Vec<Member>,
    index: Option<HashMap<u64, usize>>,
}

impl Members {
    pub(super) fn all(&self) -> &[Member] {
        &self.dense
    }

    pub(super) fn is_empty(&self) -> bool {
        self.dense.is_empty()
    }

    pub(super) fn contains(&self, conn: u64) -> bool {
        self.position(conn).is_some()
    }

    /// The caller has checked that it is not there yet.
    pub(super) fn insert(&mut self, member: Member) {
        if let Some(index) = &mut self.index {
            index.insert(member.conn, self.dense.len());
        }
        self.dense.push(member);
        if self.index.is_none() && self.dense.len() > SCAN {
            self.index = Some(self.dense.iter().enumerate().map(|(i, m)| (m.conn, i)).collect());
        }
    }

    pub(super) fn remove(&mut self, conn: u64) -> Option<Member> {
        let at = self.position(conn)?;
        let removed = self.dense.swap_remove(at);
        if let Some(index) = &mut self.index {
            index.remove(&conn);
            if let Some(moved) = self.dense.get(at) {
                index.insert(moved.conn, at);
            }
            if self.dense.len() <= SCAN / 2 {
                self.index = None;
                self.dense.shrink_to_fit();
            }
        }
        Some(removed)
    }

    pub(super) fn take_all(&mut self) -> Vec<Member> {
        self.index = None;
        std::mem::take(&mut self.dense)
    }

    fn position(&self, conn: u64) -> Option<usize> {
        match &self.index {
            Some(index) => index.get(&conn).copied(),
            None => self.dense.iter().position(|m| m.conn == conn),
        }
    }
}
