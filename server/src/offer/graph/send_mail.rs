//! `send_mail`: a mail from the signed-in user (`POST /me/sendMail`), or from the user that an application names.

use mcp_entra_policy::{BuiltInTool, SEND_MAIL};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::arguments::Text;
use super::recipients::Addresses;
use super::tool::{Tool, ToolError};
use crate::graph::Graph;

/// The tool.
pub(super) struct SendMail;

/// The arguments.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Mail {
    /// Mail addresses of the recipients, 1 to 20, each as `alice@contoso.com` without a name.
    to: Addresses<1, 20>,
    /// Mail addresses of those who get a copy, at most 20.
    #[serde(default)]
    cc: Addresses<0, 20>,
    /// Subject, at most 255 characters.
    subject: Text<255>,
    /// Body as plain text, at most 100,000 characters. HTML is shown as plain text.
    body: Text<100_000>,
    /// True to keep the mail in the mailbox's Sent Items. Otherwise nobody can look up there whether it was sent.
    #[serde(default = "yes")]
    save_to_sent_items: bool,
}

fn yes() -> bool {
    true
}

/// The mail that Microsoft Graph accepted for delivery.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sent {
    /// True: Microsoft Graph accepted the mail for delivery. A failed delivery is reported to the mailbox.
    sent: bool,
    /// Recipients.
    to: Vec<String>,
    /// Those who get a copy.
    cc: Vec<String>,
    /// True if the mail is kept in Sent Items.
    saved_to_sent_items: bool,
}

impl Tool for SendMail {
    const BUILT_IN: &'static BuiltInTool = &SEND_MAIL;
    const TITLE: &'static str = "Send a mail";
    const DESCRIPTION: &'static str = "\
Sends a mail from the signed-in user's mailbox, at once: it cannot be recalled. Show the user the recipients, the subject
and the body, and ask for their consent first. The body is plain text; HTML is not supported.";
    const USER: &'static str = "Whose mailbox sends the mail, by object id or user principal name. Only an application \
                                that calls by itself names somebody.";
    type Arguments = Mail;
    type Output = Sent;

    async fn ask(graph: &Graph, mail: Mail) -> Result<Sent, ToolError> {
        let Mail { to, cc, subject: Text(subject), body: Text(body), save_to_sent_items } = mail;
        let message = json!({
            "subject": subject,
            "body": { "contentType": "text", "content": body },
            "toRecipients": to.recipients(),
            "ccRecipients": cc.recipients(),
        });
        graph.post_once("/sendMail", json!({ "message": message, "saveToSentItems": save_to_sent_items })).await?;
        let (to, cc) = (to.into_texts(), cc.into_texts());
        Ok(Sent { sent: true, to, cc, saved_to_sent_items: save_to_sent_items })
    }
}
