//! `create_event`: a new event in the calendar of the signed-in user (`POST /me/events`), or of the user that an
//! application names.

use std::borrow::Cow;

use jiff::civil::DateTime;
use mcp_entra_policy::{BuiltInTool, CREATE_EVENT};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::arguments::{InvalidArgument, Text};
use super::recipients::Addresses;
use super::tool::{Tool, ToolError};
use crate::graph::Graph;

/// The tool.
pub(super) struct CreateEvent;

/// The arguments.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewEvent {
    /// Subject, at most 255 characters.
    subject: Text<255>,
    /// Start in the time zone `time_zone`, without an offset, as `2026-12-01T09:00:00`.
    start: LocalTime,
    /// End in the same form. It is after the start.
    end: LocalTime,
    /// Time zone of start and end, by its IANA or Windows name, as `Europe/Berlin`.
    #[serde(default)]
    time_zone: TimeZoneName,
    /// Place, in words, at most 255 characters.
    #[serde(default)]
    location: Option<Text<255>>,
    /// Description as plain text, at most 100,000 characters.
    #[serde(default)]
    body: Option<Text<100_000>>,
    /// Mail addresses of those who are invited, at most 20, each as `alice@contoso.com` without a name.
    #[serde(default)]
    attendees: Addresses<0, 20>,
}

/// Local date and time, with seconds.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
struct LocalTime(DateTime);

impl LocalTime {
    const FORM: &'static str = "%Y-%m-%dT%H:%M:%S";
    const LENGTH: usize = "2026-12-01T09:00:00".len();

    fn parse(text: &str) -> Option<Self> {
        let time = Self(DateTime::strptime(Self::FORM, text).ok()?);
        (time.text() == text).then_some(time)
    }

    fn text(self) -> String {
        self.0.strftime(Self::FORM).to_string()
    }

    /// Returns the time in the form that Graph expects.
    fn in_zone(self, TimeZoneName(zone): &TimeZoneName) -> Value {
        json!({ "dateTime": self.text(), "timeZone": zone })
    }
}

impl<'de> Deserialize<'de> for LocalTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let time = Self::parse(&String::deserialize(deserializer)?);
        time.ok_or_else(|| {
            D::Error::custom("expected a local date and time without an offset, such as 2026-12-01T09:00:00")
        })
    }
}

impl JsonSchema for LocalTime {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "LocalTime".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": Self::LENGTH, "maxLength": Self::LENGTH })
    }
}

/// Name of a time zone. Graph checks whether it exists.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct TimeZoneName(String);

impl TimeZoneName {
    const LONGEST: usize = 64;

    fn parse(text: String) -> Option<Self> {
        let is_of_a_name = |byte: u8| byte.is_ascii_alphanumeric() || b" /_+-.()".contains(&byte);
        let is_name = !text.trim().is_empty() && text.len() <= Self::LONGEST && text.bytes().all(is_of_a_name);
        is_name.then_some(Self(text))
    }
}

impl Default for TimeZoneName {
    fn default() -> Self {
        Self("UTC".to_owned())
    }
}

impl<'de> Deserialize<'de> for TimeZoneName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = Self::parse(String::deserialize(deserializer)?);
        name.ok_or_else(|| {
            D::Error::custom("expected the name of a time zone, such as Europe/Berlin or Pacific Standard Time")
        })
    }
}

impl JsonSchema for TimeZoneName {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "TimeZoneName".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 1, "maxLength": Self::LONGEST })
    }
}

/// The event as Microsoft Graph created it. What Graph does not say is null.
#[derive(Debug, Default, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Created {
    /// Id in Microsoft Graph.
    id: Option<String>,
    /// Subject.
    subject: Option<String>,
    /// Start. Microsoft Graph may say it in another time zone.
    start: Option<Moment>,
    /// End. Microsoft Graph may say it in another time zone.
    end: Option<Moment>,
    /// Address of the event in Outlook on the web.
    web_link: Option<String>,
}

/// A date and time in a time zone.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
struct Moment {
    /// Local date and time.
    date_time: Option<String>,
    /// Time zone of it.
    time_zone: Option<String>,
}

impl Tool for CreateEvent {
    const BUILT_IN: &'static BuiltInTool = &CREATE_EVENT;
    const TITLE: &'static str = "Create an event";
    const DESCRIPTION: &'static str = "\
Creates an event in the signed-in user's calendar. Attendees get their invitation by mail at once, and it cannot be
recalled. Show the user the time with its zone and the attendees, and ask for their consent first.";
    const USER: &'static str = "In whose calendar, by object id or user principal name. Only an application that calls \
                                by itself names somebody.";
    type Arguments = NewEvent;
    type Output = Created;

    async fn ask(graph: &Graph, event: NewEvent) -> Result<Created, ToolError> {
        if event.end <= event.start {
            return Err(InvalidArgument::new("The argument end: expected a time after start.").into());
        }
        Ok(created(&graph.post_once("/events", event.into_body()).await?))
    }
}

impl NewEvent {
    fn into_body(self) -> Value {
        let members = [
            ("subject", Some(json!(self.subject.0))),
            ("start", Some(self.start.in_zone(&self.time_zone))),
            ("end", Some(self.end.in_zone(&self.time_zone))),
            ("location", self.location.map(|Text(place)| json!({ "displayName": place }))),
            ("body", self.body.map(|Text(text)| json!({ "contentType": "text", "content": text }))),
            ("attendees", Some(json!(self.attendees.recipients()))),
            // Graph drops a second event with the same id.
            ("transactionId", Some(json!(Uuid::new_v4()))),
        ];
        members.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

/// Returns the created event. The request has succeeded, whatever members the answer has.
fn created(event: &Value) -> Created {
    let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    let moment = |name: &str| {
        let moment = event.get(name)?;
        Some(Moment { date_time: text(moment, "dateTime"), time_zone: text(moment, "timeZone") })
    };
    Created {
        id: text(event, "id"),
        subject: text(event, "subject"),
        start: moment("start"),
        end: moment("end"),
        web_link: text(event, "webLink"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_local_to_the_second_and_has_no_offset() {
        for good in ["2026-12-01T09:00:00", "2028-02-29T23:59:59"] {
            let zone = TimeZoneName("Europe/Berlin".to_owned());
            let time = LocalTime::parse(good).unwrap();
            assert_eq!(time.in_zone(&zone), json!({ "dateTime": good, "timeZone": "Europe/Berlin" }));
        }
        for bad in [
            "",
            "2026-12-01",
            "2026-12-01T09:00",
            "2026-12-01 09:00:00",
            "2026-12-01T09:00:00Z",
            "2026-12-01T09:00:00+01:00",
            "2026-12-01T09:00:00.000",
            "2026-02-29T09:00:00",
            "2026-12-01T24:00:00",
            "+026-12-01T09:00:00",
            " 2026-12-1T09:00:00",
            "tomorrow at nine...",
        ] {
            assert_eq!(LocalTime::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_time_zone_is_a_name_of_either_kind() {
        for good in ["UTC", "Europe/Berlin", "Etc/GMT+12", "W. Europe Standard Time", "Central Standard Time (Mexico)"]
        {
            assert!(TimeZoneName::parse(good.to_owned()).is_some(), "{good}");
        }
        for bad in ["", " ", "Europe/Berlin\n", "\"UTC\"", "Zürich", "{}", &"a".repeat(65)] {
            assert_eq!(TimeZoneName::parse(bad.to_owned()), None, "{bad:?}");
        }
    }

    #[test]
    fn members_that_graph_omits_are_null() {
        let moment = json!({ "dateTime": "2026-12-01T09:00:00.0000000", "timeZone": "UTC" });
        let full = json!({ "id": "1", "subject": "S", "start": moment, "end": moment, "webLink": "https://x" });
        assert_eq!(serde_json::to_value(created(&full)).unwrap(), full);
        let empty = serde_json::to_value(Created::default()).unwrap();
        for nothing in [Value::Null, json!({}), json!([]), json!({ "id": 1, "other": true })] {
            assert_eq!(serde_json::to_value(created(&nothing)).unwrap(), empty, "{nothing}");
        }
    }
}
