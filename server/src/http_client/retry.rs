//! The time to ask again: the wait that the other side asks for, and the limit of one question with all its
//! repetitions.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use http::{HeaderMap, header};
use jiff::Timestamp;
use tokio::time::{Instant, timeout};

/// The number of repetitions of a question, and their time limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// The number of times that it is asked again.
    pub(crate) repetitions: usize,
    /// The first pause, where the other side names none; each further one is twice as long, and all are jittered.
    pub(crate) first_pause: Duration,
    /// From the first attempt to the last answer. Nobody waits for a moment that lies beyond.
    pub(crate) total: Duration,
}

/// Says if a failed attempt is worth another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// The answer would be the same.
    Never,
    /// The answer may be another, once this time has passed if the other side named one.
    After(Option<Duration>),
}

impl Patience {
    /// Attempts until one succeeds, fails for good, or would have to wait too long: that result. `None`: the time was
    /// over in the midst of an attempt.
    pub(crate) async fn attempt<T, E, F>(
        self,
        attempt: impl FnMut() -> F,
        again: impl Fn(&E) -> Again,
    ) -> Option<Result<T, E>>
    where
        F: Future<Output = Result<T, E>>,
    {
        self.attempt_telling(attempt, again, |_| {}).await
    }

    /// The same, and tells `waits` of each pause that the other side asks for.
    pub(crate) async fn attempt_telling<T, E, F>(
        self,
        attempt: impl FnMut() -> F,
        again: impl Fn(&E) -> Again,
        waits: impl Fn(Duration),
    ) -> Option<Result<T, E>>
    where
        F: Future<Output = Result<T, E>>,
    {
        let pauses = ExponentialBuilder::new()
            .with_min_delay(self.first_pause)
            .with_max_delay(self.total)
            .with_max_times(self.repetitions)
            .with_jitter();
        let deadline = Instant::now() + self.total;
        let attempts = attempt
            .retry(pauses)
            .sleep(tokio::time::sleep)
            .when(|error| again(error) != Again::Never)
            .notify(|error, pause| {
                if matches!(again(error), Again::After(Some(_))) {
                    waits(pause);
                }
            })
            .adjust(|error, pause| match (pause, again(error)) {
                (Some(pause), Again::After(asked)) => Some(asked.unwrap_or(pause))
                    .filter(|pause| Instant::now().checked_add(*pause).is_some_and(|at| at < deadline)),
                (None, _) | (_, Again::Never) => None,
            });
        timeout(self.total, attempts).await.ok()
    }
}

/// `Retry-After` in each of its forms: seconds, decimals included, or a date. Absent or of another form: nothing is
/// known.
pub(crate) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    match value.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => {
            let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(value).ok()?;
            // A date that has passed, perhaps by a clock that is ahead of ours, means now.
            Some(Duration::try_from(date.duration_since(now)).unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const PATIENCE: Patience =
        Patience { repetitions: 3, first_pause: Duration::from_millis(1), total: Duration::from_secs(30) };

    async fn attempts(patience: Patience, again: Again) -> (usize, Option<Result<(), ()>>) {
        let count = Cell::new(0);
        let result = patience
            .attempt(
                || {
                    count.set(count.get() + 1);
                    async { Err::<(), ()>(()) }
                },
                |()| again,
            )
            .await;
        (count.get(), result)
    }

    #[tokio::test]
    async fn what_may_pass_is_tried_four_times_and_what_will_not_once() {
        assert_eq!(attempts(PATIENCE, Again::After(None)).await, (4, Some(Err(()))));
        assert_eq!(attempts(PATIENCE, Again::After(Some(Duration::ZERO))).await, (4, Some(Err(()))));
        assert_eq!(attempts(PATIENCE, Again::Never).await, (1, Some(Err(()))));
    }

    #[tokio::test]
    async fn each_pause_that_the_other_side_asks_for_is_told_and_no_other() {
        for (asked, told) in [(Some(Duration::ZERO), vec![Duration::ZERO; 3]), (None, vec![])] {
            let waits = std::cell::RefCell::new(vec![]);
            let attempt = || async { Err::<(), ()>(()) };
            let tell = |pause| waits.borrow_mut().push(pause);
            PATIENCE.attempt_telling(attempt, |()| Again::After(asked), tell).await;
            assert_eq!(waits.into_inner(), told, "{asked:?}");
        }
    }

    #[tokio::test]
    async fn nobody_waits_for_a_moment_beyond_the_total() {
        for asked in [Duration::from_secs(30), Duration::from_secs(3600), Duration::MAX / 4] {
            assert_eq!(attempts(PATIENCE, Again::After(Some(asked))).await, (1, Some(Err(()))), "{asked:?}");
        }
    }

    #[tokio::test]
    async fn an_attempt_without_end_ends_with_the_total() {
        let patience = Patience { total: Duration::from_millis(20), ..PATIENCE };
        let never = || std::future::pending::<Result<(), ()>>();
        assert_eq!(patience.attempt(never, |()| Again::Never).await, None);
    }

    #[test]
    fn each_form_of_retry_after_is_understood() {
        let now: Timestamp = "2026-11-24T08:00:00Z".parse().unwrap();
        let read = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, value.parse().unwrap());
            retry_after(&headers, now)
        };
        let seconds = |seconds| Some(Duration::from_secs_f64(seconds));
        for (value, expected) in [
            ("10", seconds(10.0)),
            ("2.128", seconds(2.128)),
            (" 0 ", seconds(0.0)),
            ("Tue, 24 Nov 2026 08:00:30 GMT", seconds(30.0)),
            ("Tue, 24 Nov 2026 07:59:00 GMT", seconds(0.0)),
            ("-1", None),
            ("inf", None),
            ("NaN", None),
            ("1e300", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(read(value), expected, "{value}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
