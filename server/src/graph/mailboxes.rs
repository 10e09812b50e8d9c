//! How many questions about one mailbox are in flight: Outlook answers four of one application at a time, and refuses
//! the rest.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Outlook's limit for one application and one mailbox.
const AT_ONCE: usize = 4;
/// From this many on, the mailboxes that nobody asks about are forgotten before another is added.
const SWEPT_FROM: usize = 256;

/// The mailboxes that are asked about at the moment, by user. One that nobody asks about takes no room for long.
#[derive(Default)]
pub(super) struct Mailboxes(Mutex<HashMap<String, Weak<Semaphore>>>);

impl Mailboxes {
    /// Waits for a turn at this user's mailbox, which ends when the result is dropped.
    pub(super) async fn turn(&self, user: &str) -> Option<OwnedSemaphorePermit> {
        self.turns(user).acquire_owned().await.ok()
    }

    fn turns(&self, user: &str) -> Arc<Semaphore> {
        let mut mailboxes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turns) = mailboxes.get(user).and_then(Weak::upgrade) {
            return turns;
        }
        if mailboxes.len() >= SWEPT_FROM {
            mailboxes.retain(|_, turns| turns.strong_count() > 0);
        }
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        mailboxes.insert(user.to_owned(), Arc::downgrade(&turns));
        turns
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn four_have_their_turn_at_one_mailbox_and_the_fifth_when_one_of_them_ends() {
        let mailboxes = Mailboxes::default();
        let mut turns = Vec::new();
        for _ in 0..AT_ONCE {
            turns.push(mailboxes.turn("alice").now_or_never().expect("a turn").unwrap());
        }
        assert!(mailboxes.turn("alice").now_or_never().is_none());
        assert!(mailboxes.turn("bob").now_or_never().is_some(), "another mailbox has turns of its own");
        turns.pop();
        assert!(mailboxes.turn("alice").now_or_never().is_some());
    }

    #[tokio::test]
    async fn mailboxes_that_nobody_asks_about_are_forgotten() {
        let mailboxes = Mailboxes::default();
        let kept = mailboxes.turn("alice").await;
        for user in 0..10 * SWEPT_FROM {
            mailboxes.turn(&user.to_string()).await;
        }
        let known = mailboxes.0.lock().unwrap();
        assert!(known.len() <= SWEPT_FROM && known.contains_key("alice"), "{}", known.len());
        drop(kept);
    }
}
