//! A built-in tool, and its use by the offer.

use std::sync::Arc;

use async_trait::async_trait;
use mcp_entra_policy::BuiltInTool;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::arguments::{self, InvalidArgument};
use super::schema;
use crate::graph::{Graph, GraphError};
use crate::offer::{Failure, JsonObject, Lack, OfferedTool, Reply, tool_error};

/// A question or request to Microsoft Graph about one user. A tool that writes sends one request with
/// [`Graph::post_once`].
pub(super) trait Tool: Send + Sync {
    /// Name and permissions.
    const BUILT_IN: &'static BuiltInTool;
    /// Title, for people.
    const TITLE: &'static str;
    /// Description, for models.
    const DESCRIPTION: &'static str;
    /// Description of the argument `user`, which applications give in addition to [`Self::Arguments`].
    const USER: &'static str;
    /// Arguments. The type refuses unknown ones.
    type Arguments: DeserializeOwned + JsonSchema + Send;
    /// Structured answer, an object.
    type Output: Serialize + JsonSchema;

    /// Calls Graph for its user.
    fn ask(graph: &Graph, arguments: Self::Arguments) -> impl Future<Output = Result<Self::Output, ToolError>> + Send;
}

/// A tool without its types of arguments and answer.
#[async_trait]
pub(super) trait AnyTool: Send + Sync {
    fn built_in(&self) -> &'static BuiltInTool;

    /// Returns the tool for users, who use it for themselves.
    fn for_users(&self) -> OfferedTool;

    /// Returns the tool for applications, which name the user.
    fn for_applications(&self) -> OfferedTool;

    /// Runs the tool with these arguments, without `user`. An invalid argument takes precedence over an error of
    /// `graph`.
    async fn run(&self, graph: Result<Graph, GraphError>, arguments: JsonObject) -> Result<Value, ToolError>;
}

#[async_trait]
impl<T: Tool> AnyTool for T {
    fn built_in(&self) -> &'static BuiltInTool {
        T::BUILT_IN
    }

    fn for_users(&self) -> OfferedTool {
        OfferedTool {
            name: T::BUILT_IN.name.to_owned(),
            writes: T::BUILT_IN.writes,
            title: T::TITLE.to_owned(),
            description: T::DESCRIPTION.to_owned(),
            input_schema: Arc::new(schema::of_arguments::<T::Arguments>()),
            output_schema: Some(Arc::new(schema::of_output::<T::Output>())),
            written: None,
        }
    }

    fn for_applications(&self) -> OfferedTool {
        let mut tool = self.for_users();
        schema::add_user(Arc::make_mut(&mut tool.input_schema), T::USER);
        tool
    }

    async fn run(&self, graph: Result<Graph, GraphError>, arguments: JsonObject) -> Result<Value, ToolError> {
        let arguments = arguments::read(arguments)?;
        let output = T::ask(&graph?, arguments).await?;
        serde_json::to_value(output).map_err(ToolError::Output)
    }
}

/// The reason why a tool gives no answer, for a model or a person.
#[derive(Debug, thiserror::Error)]
pub(super) enum ToolError {
    /// An argument is not valid.
    #[error(transparent)]
    Argument(#[from] InvalidArgument),
    /// Graph, or the way to it, failed.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The answer cannot be written as JSON.
    #[error("the answer cannot be written as JSON ({0}); report it to the developers of this server")]
    Output(serde_json::Error),
}

impl ToolError {
    /// Returns the reply for a resource, which has no result that reports errors.
    pub(super) fn without_result(self) -> Reply {
        self.reply(|text| Reply::Failed(Failure::internal(text)))
    }

    /// Returns the reply. `told` makes it for errors without a remedy.
    fn reply(self, told: impl Fn(String) -> Reply) -> Reply {
        let Self::Graph(error) = self else { return told(self.to_string()) };
        match error.sign_in() {
            Some(sign_in) => Reply::SignIn(sign_in, error.told()),
            None if error.is_store_away() => Reply::Later(Lack::SessionStore, error.told()),
            None => told(error.told()),
        }
    }
}

impl From<ToolError> for Reply {
    fn from(error: ToolError) -> Self {
        error.reply(|text| Self::Complete(tool_error(&text)))
    }
}
