//! Annotations of an McpServer that end sessions or report compromised keys. Pure.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::ObjectMeta, jiff::Timestamp};

use crate::objects::{
    names::{COMPROMISED_KEYS, REVOKE_SESSIONS_BEFORE},
    untrusted_text::bounded,
};

/// The maximum length of a request, in characters. The rest is ignored.
const LONGEST_REQUEST: usize = 128;

/// The annotation is not a valid time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoTime;

/// Returns the value of an annotation. Each new value is a new request.
pub(crate) fn request(server: &ObjectMeta, annotation: &str) -> Option<String> {
    Some(bounded(server.annotations.as_ref()?.get(annotation)?, LONGEST_REQUEST))
}

/// Returns the last reported compromise of the server's keys.
pub(crate) fn compromised_keys(server: &ObjectMeta) -> Option<String> {
    request(server, COMPROMISED_KEYS)
}

/// Returns the annotated time in seconds since 1970, rounded up.
pub(crate) fn revoke_sessions_before(server: &ObjectMeta) -> Result<Option<i64>, NoTime> {
    let Some(value) = server.annotations.as_ref().and_then(|annotations| annotations.get(REVOKE_SESSIONS_BEFORE))
    else {
        return Ok(None);
    };
    let time: Timestamp = value.trim().parse().map_err(|_| NoTime)?;
    Ok(Some(time.as_second() + i64::from(time.subsec_nanosecond() > 0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Result<Option<i64>, NoTime> {
        let annotations = Some([(REVOKE_SESSIONS_BEFORE.to_owned(), value.to_owned())].into());
        revoke_sessions_before(&ObjectMeta { annotations, ..ObjectMeta::default() })
    }

    #[test]
    fn a_time_is_read_in_any_zone_and_any_other_text_is_an_error() {
        assert_eq!(read("1970-01-02T00:00:00Z"), Ok(Some(86_400)));
        assert_eq!(read(" 1970-01-02T01:00:00.5+01:00"), Ok(Some(86_401)));
        assert_eq!(revoke_sessions_before(&ObjectMeta::default()), Ok(None));
        for none in ["", "now", "86400", "1970-01-02", "1970-01-02T00:00:00"] {
            assert_eq!(read(none), Err(NoTime), "{none:?}");
        }
    }
}
