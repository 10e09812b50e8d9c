//! Turns: limits of concurrent questions, shared fairly among callers.
//!
//! Outlook answers four concurrent questions of one application about one mailbox and refuses the rest. All callers
//! share these four turns. The next turn goes to the waiting caller with the fewest turns; on a tie, to the one whose
//! last turn is oldest. So a flood of one caller delays another by at most one turn.
//!
//! A caller is a user or an application together with its client. In the queue of memberships, the client does not
//! count.
//!
//! Each waiting question belongs to a request, and the listener limits those. An unused queue is removed.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// Most waiting questions of one caller in one queue.
const MOST_WAITING: usize = 64;

/// Queues by name, each with the same number of concurrent turns.
#[derive(Clone)]
pub(super) struct Turns {
    at_once: usize,
    queues: Arc<Mutex<HashMap<String, Queue>>>,
}

/// A turn, or a waiting place, until it is dropped.
pub(super) struct Turn {
    turns: Turns,
    queue: String,
    question: Question,
}

/// A question. It is notified when its turn comes.
type Question = Arc<Notify>;

#[derive(Default)]
struct Queue {
    /// Questions with a turn, by caller.
    held: Vec<(String, Question)>,
    /// Waiting questions by caller. The caller whose last turn is oldest comes first.
    waiting: VecDeque<(String, VecDeque<Question>)>,
}

impl Turns {
    /// Returns queues with this number of concurrent turns.
    pub(super) fn new(at_once: usize) -> Self {
        Self { at_once, queues: Arc::default() }
    }

    /// Waits for the caller's turn in that queue. Returns none if too many of its questions already wait there.
    pub(super) async fn turn(&self, queue: &str, caller: &str) -> Option<Turn> {
        let turn = self.place(queue, caller)?;
        turn.question.notified().await;
        Some(turn)
    }

    fn place(&self, queue: &str, caller: &str) -> Option<Turn> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let places = queues.entry(queue.to_owned()).or_default();
        let question = Question::default();
        match places.waiting.iter_mut().find(|(waiting, _)| waiting == caller) {
            Some((_, questions)) if questions.len() >= MOST_WAITING => return None,
            Some((_, questions)) => questions.push_back(Arc::clone(&question)),
            None => places.waiting.push_back((caller.to_owned(), [Arc::clone(&question)].into())),
        }
        places.advance(self.at_once);
        Some(Turn { turns: self.clone(), queue: queue.to_owned(), question })
    }
}

impl Queue {
    fn advance(&mut self, at_once: usize) {
        while self.held.len() < at_once {
            let held = |caller: &str| self.held.iter().filter(|(holder, _)| holder == caller).count();
            let callers = self.waiting.iter().enumerate();
            let next = callers.min_by_key(|(_, (caller, _))| held(caller)).map(|(place, _)| place);
            let Some((caller, mut questions)) = next.and_then(|place| self.waiting.remove(place)) else { return };
            if let Some(question) = questions.pop_front() {
                question.notify_one();
                self.held.push((caller.clone(), question));
            }
            if !questions.is_empty() {
                self.waiting.push_back((caller, questions));
            }
        }
    }

    fn leave(&mut self, left: &Question) {
        self.held.retain(|(_, question)| !Arc::ptr_eq(question, left));
        for (_, questions) in &mut self.waiting {
            questions.retain(|question| !Arc::ptr_eq(question, left));
        }
        self.waiting.retain(|(_, questions)| !questions.is_empty());
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut queues = self.turns.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(queue) = queues.get_mut(&self.queue) else { return };
        queue.leave(&self.question);
        queue.advance(self.turns.at_once);
        if queue.held.is_empty() {
            queues.remove(&self.queue);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use futures::FutureExt;

    use super::*;

    const AT_ONCE: usize = 4;
    const ALICE: &str = "alice's mailbox";

    type Waiting = Pin<Box<dyn Future<Output = Option<Turn>>>>;

    /// Callers that wait in this order for a turn at alice's mailbox.
    struct Line {
        turns: Turns,
        waiting: Vec<(String, Waiting)>,
        held: Vec<(String, Turn)>,
    }

    impl Line {
        fn new() -> Self {
            Self { turns: Turns::new(AT_ONCE), waiting: vec![], held: vec![] }
        }

        fn join(&mut self, caller: &str, times: usize) {
            for _ in 0..times {
                let (turns, of) = (self.turns.clone(), caller.to_owned());
                let waiting: Waiting = Box::pin(async move { turns.turn(ALICE, &of).await });
                self.waiting.push((caller.to_owned(), waiting));
            }
            self.poll();
        }

        /// Gives out the free turns and returns their callers.
        fn poll(&mut self) -> Vec<String> {
            let mut served = vec![];
            for (caller, mut waiting) in std::mem::take(&mut self.waiting) {
                match waiting.as_mut().now_or_never() {
                    Some(turn) => {
                        served.push(caller.clone());
                        self.held.push((caller, turn.unwrap()));
                    }
                    None => self.waiting.push((caller, waiting)),
                }
            }
            served
        }

        /// Ends the oldest turn and returns the next callers.
        fn end_one(&mut self) -> Vec<String> {
            self.held.remove(0);
            self.poll()
        }
    }

    #[tokio::test]
    async fn four_calls_of_a_queue_run_at_once_and_the_fifth_waits() {
        let turns = Turns::new(AT_ONCE);
        let mut held = Vec::new();
        for _ in 0..AT_ONCE {
            held.push(turns.turn(ALICE, "a").now_or_never().expect("a turn").unwrap());
        }
        assert!(turns.turn(ALICE, "a").now_or_never().is_none());
        assert!(turns.turn("bob's mailbox", "a").now_or_never().is_some(), "another queue has turns of its own");
        held.pop();
        assert!(turns.turn(ALICE, "a").now_or_never().is_some());
    }

    #[test]
    fn a_caller_that_floods_a_mailbox_costs_every_other_no_more_than_one_turn() {
        let mut line = Line::new();
        line.join("flood", 50);
        let others = ["b", "c", "d", "e", "f"];
        others.iter().for_each(|other| line.join(other, 1));
        let served: Vec<String> = others.iter().flat_map(|_| line.end_one()).collect();
        // After its fourth turn ends, the flood holds none, so it comes before the last callers.
        assert_eq!(served, ["b", "c", "d", "flood", "e"]);
        assert_eq!(line.end_one(), ["f"]);
    }

    #[test]
    fn two_callers_that_flood_a_mailbox_share_it_equally() {
        let mut line = Line::new();
        line.join("first", 40);
        line.join("second", 40);
        let served: Vec<String> = (0..20).flat_map(|_| line.end_one()).collect();
        assert_eq!(served.iter().filter(|caller| *caller == "first").count(), 10, "{served:?}");
    }

    #[test]
    fn more_flooding_callers_than_turns_are_served_in_rounds() {
        let mut line = Line::new();
        let callers = ["a", "b", "c", "d", "e", "f", "g"];
        callers.iter().for_each(|caller| line.join(caller, 20));
        for _ in 0..30 {
            line.end_one();
        }
        let round: Vec<String> = callers.iter().flat_map(|_| line.end_one()).collect();
        for caller in callers {
            assert_eq!(round.iter().filter(|served| *served == caller).count(), 1, "{caller}: {round:?}");
        }
    }

    #[test]
    fn a_cancelled_wait_takes_no_turn_and_keeps_no_place() {
        let mut line = Line::new();
        line.join("a", AT_ONCE);
        line.join("b", 1);
        line.join("c", 1);
        line.waiting.retain(|(caller, _)| caller != "b");
        assert_eq!(line.end_one(), ["c"]);
        line.held.clear();
        assert!(line.turns.queues.lock().unwrap().is_empty());
    }

    #[test]
    fn a_wait_that_is_cancelled_at_its_turn_passes_it_to_the_next() {
        let mut line = Line::new();
        line.join("a", AT_ONCE);
        line.join("b", 1);
        line.join("c", 1);
        line.held.remove(0);
        line.waiting.retain(|(caller, _)| caller != "b");
        assert_eq!(line.poll(), ["c"]);
    }

    #[test]
    fn a_caller_above_the_limit_is_refused_and_others_are_not() {
        let mut line = Line::new();
        line.join("flood", AT_ONCE + MOST_WAITING);
        assert!(line.turns.turn(ALICE, "flood").now_or_never().expect("no wait").is_none());
        line.join("other", 1);
        assert_eq!(line.end_one(), ["other"]);
        assert!(line.turns.turn(ALICE, "flood").now_or_never().expect("no wait").is_none());
        line.end_one();
        assert!(line.turns.turn(ALICE, "flood").now_or_never().is_none(), "there is room again");
    }

    #[tokio::test]
    async fn empty_queues_are_removed() {
        let turns = Turns::new(AT_ONCE);
        let kept = turns.turn(ALICE, "a").await;
        for mailbox in 0..1000 {
            turns.turn(&mailbox.to_string(), "a").await;
        }
        assert_eq!(Vec::from_iter(turns.queues.lock().unwrap().keys()), [ALICE]);
        drop(kept);
        assert!(turns.queues.lock().unwrap().is_empty());
    }
}
