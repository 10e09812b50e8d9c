//! Retries: the pauses between attempts, and their limits.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use http::{HeaderMap, header};
use jiff::Timestamp;
use tokio::time::{Instant, timeout};

/// Limits of the retries of one question.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Number of retries.
    pub(crate) repetitions: usize,
    /// First pause if the other side requests none. Each further pause is twice as long; all are jittered.
    pub(crate) first_pause: Duration,
    /// Longest time from the first attempt to the last answer. A pause that would exceed it is not started.
    pub(crate) total: Duration,
}

/// Usefulness of another attempt after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// The answer would be the same.
    Never,
    /// The answer may differ, after this pause if the other side requests one.
    After(Option<Duration>),
}

impl Patience {
    /// Repeats attempts until one succeeds, fails permanently, or would have to wait too long; returns its result.
    /// Returns `None` if the time ended during an attempt.
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

    /// Same as [`Self::attempt`]; also reports each pause that the other side requests to `waits`.
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

/// Parses `Retry-After` in each of its forms: seconds (also with decimals) or a date. Returns none if it is absent or
/// malformed.
pub(crate) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    match value.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => {
            let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(value).ok()?;
            // A date in the past means now; clocks may differ.
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
    async fn a_temporary_error_is_tried_four_times_and_a_permanent_one_once() {
        assert_eq!(attempts(PATIENCE, Again::After(None)).await, (4, Some(Err(()))));
        assert_eq!(attempts(PATIENCE, Again::After(Some(Duration::ZERO))).await, (4, Some(Err(()))));
        assert_eq!(attempts(PATIENCE, Again::Never).await, (1, Some(Err(()))));
    }

    #[tokio::test]
    async fn only_requested_pauses_are_reported() {
        for (asked, told) in [(Some(Duration::ZERO), vec![Duration::ZERO; 3]), (None, vec![])] {
            let waits = std::cell::RefCell::new(vec![]);
            let attempt = || async { Err::<(), ()>(()) };
            let tell = |pause| waits.borrow_mut().push(pause);
            PATIENCE.attempt_telling(attempt, |()| Again::After(asked), tell).await;
            assert_eq!(waits.into_inner(), told, "{asked:?}");
        }
    }

    #[tokio::test]
    async fn a_pause_beyond_the_total_time_ends_the_attempts() {
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
