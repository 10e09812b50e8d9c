//! Resources of Microsoft, which must not be an audience of a server. A token for one of them was not issued for this
//! server, and every application of the tenant can get one.
//!
//! The API server (in a schema rule) and the server (at its start) use the same regular expression.

use std::sync::LazyLock;

use regex::Regex;

/// Application ids of Microsoft's resources that are not in [`MICROSOFT_APPLICATION_FAMILIES`].
pub const MICROSOFT_APPLICATIONS: &[&str] = &[
    "022907d3-0f1b-48f7-badc-1ba6abab6d66", // Azure SQL Database
    "123cd850-d9df-40bd-94d5-c9f07b7fa203", // Azure databases for MySQL and PostgreSQL
    "18a66f5f-dbdf-4c17-9dd7-1634712a9cbe", // Azure Machine Learning
    "1ac05c7e-12d2-4605-bf9d-549d7041c6b3", // Azure Synapse
    "2746ea77-4702-4b45-80ca-3c97e680e8b7", // Azure Data Explorer
    "2d4d3d8e-2be3-4bef-9f87-7875a61c29de", // OneNote
    "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d", // Azure Databricks
    "499b84ac-1321-427f-aa17-267ca6975798", // Azure DevOps
    "4ac7d521-0382-477b-b0f8-7e1d95f85ca2", // Azure Analysis Services
    "589d5083-6f11-4d30-a62a-a4b316a14abf", // Azure Key Vault Managed HSM
    "6dae42f8-4368-4678-94ff-3960e28e3630", // Azure Kubernetes Service
    "797f4846-ba00-4fd7-ba43-dac1f8f63013", // Azure Resource Manager
    "7d312290-28c8-473c-a0ed-8e53749b6d6d", // Cognitive Services
    "80369ed6-5f11-4dd9-bef3-692475845e77", // Event Hubs
    "80a10ef9-8168-493d-abf9-3297c4ef6e3c", // Service Bus
    "a232010e-820c-4083-83bb-3ace5fc29d0b", // Cosmos DB
    "c5393580-f805-4401-95e8-94b7a6ef2fc2", // Office 365 Management
    "ca7f3f0b-7d91-482c-8e09-c5d840d0eac5", // Log Analytics
    "cc15fd57-2c6c-4117-a88c-83b1d56b4bbe", // Teams
    "cfa8b339-82a2-471a-a3c9-0fc0be7a4093", // Key Vault
    "ddbf3205-c6bd-46ae-8127-60eb93363864", // Azure Batch
    "e406a681-f3d4-42a8-90b6-c2b029497af1", // Azure Storage
    "e9f49c6b-5ce5-44c8-925d-015017e9f7ad", // Azure Data Lake
    "f5c26e74-f226-4ae8-85f0-b4af0080ac9e", // Application Insights
    "fc780465-2017-40d4-a0c5-307022471b92", // Defender for Endpoint
];

/// Suffixes of application ids that only Microsoft assigns, after four zeros and four digits. They include Exchange,
/// SharePoint and other parts of Office 365, Microsoft Graph, Azure AD Graph, Dynamics, Power BI and Intune.
pub const MICROSOFT_APPLICATION_FAMILIES: &[&str] = &["-0000-0ff1-ce00-000000000000", "-0000-0000-c000-000000000000"];

/// Domains of Microsoft. No customer has an App ID URI in them or in their subdomains.
///
/// `azure.com`, `usgovcloudapi.net` and `chinacloudapi.cn` are missing, since customers have hosts below their
/// `cloudapp` domains. `onmicrosoft.com` is missing, since it contains the initial domain of every tenant.
pub const MICROSOFT_DOMAINS: &[&str] = &[
    "microsoft.com",
    "microsoft.us",
    "microsoftonline.com",
    "microsoftonline.us",
    "microsoftonline.cn",
    "windows.net",
    "azure.net",
    "azure.us",
    "azure.cn",
    "management.azure.com",
    "storage.azure.com",
    "documents.azure.com",
    "cosmos.azure.com",
    "cognitiveservices.azure.com",
    "openai.azure.com",
    "ai.azure.com",
    "ml.azure.com",
    "batch.azure.com",
    "monitor.azure.com",
    "dev.azure.com",
    "portal.azure.com",
    "search.azure.com",
    "redis.azure.com",
    "signalr.azure.com",
    "webpubsub.azure.com",
    "communication.azure.com",
    "confidential-ledger.azure.com",
    "quantum.azure.com",
    "grafana.azure.com",
    "devcenter.azure.com",
    "loadtesting.azure.com",
    "mixedreality.azure.com",
    "timeseries.azure.com",
    "management.usgovcloudapi.net",
    "core.usgovcloudapi.net",
    "database.usgovcloudapi.net",
    "servicebus.usgovcloudapi.net",
    "vault.usgovcloudapi.net",
    "management.chinacloudapi.cn",
    "microsoftgraph.chinacloudapi.cn",
    "graph.chinacloudapi.cn",
    "login.chinacloudapi.cn",
    "core.chinacloudapi.cn",
    "database.chinacloudapi.cn",
    "servicebus.chinacloudapi.cn",
    "office.com",
    "office365.com",
    "office365.us",
    "office.de",
    "partner.outlook.cn",
    "sharepoint.com",
    "sharepoint.us",
    "sharepoint-mil.us",
    "sharepoint.cn",
    "skype.com",
    "skypeforbusiness.com",
    "yammer.com",
    "onenote.com",
    "dynamics.com",
    "powerapps.com",
    "powerbi.com",
    "loganalytics.io",
    "loganalytics.us",
    "applicationinsights.io",
    "azuresynapse.net",
    "visualstudio.com",
    "azureml.ms",
    "azconfig.io",
    "azuredatabricks.net",
    "azurehdinsight.net",
    "azurehealthcareapis.com",
    "botframework.com",
    "powerplatform.com",
    "windows.com",
];

/// Names of the token exchange audiences of federated credentials, without `api://`.
pub const MICROSOFT_NAMES: &[&str] =
    &["azureadtokenexchange", "azureadtokenexchangeusgov", "azureadtokenexchangechina"];

/// Returns a regular expression that matches Microsoft's resources in every spelling: any case, with and without a
/// scheme, user, port, path and trailing slashes. Both RE2 and Rust's `regex` accept it. It contains no quote and no
/// backslash.
pub fn microsofts_own_pattern() -> String {
    let escaped = |names: &[&str]| names.join("|").replace('.', "[.]");
    let applications = escaped(MICROSOFT_APPLICATIONS);
    let families = escaped(MICROSOFT_APPLICATION_FAMILIES);
    let domains = escaped(MICROSOFT_DOMAINS);
    let names = escaped(MICROSOFT_NAMES);
    format!(
        "(?is)^[[:space:]]*(?:[a-z][a-z0-9+.-]*:(?://)?)?(?:[^/?#@]*@)?\
         (?:{applications}|0000[0-9a-f]{{4}}(?:{families})|(?:[^/?#@:]*[.])?(?:{domains})[.]?|{names})\
         (?:[/?#:[:space:]].*)?$"
    )
}

/// Returns whether an audience is a resource of Microsoft.
pub fn is_microsofts_own(audience: &str) -> bool {
    static PATTERN: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(&microsofts_own_pattern()).ok());
    PATTERN.as_ref().is_none_or(|pattern| pattern.is_match(audience))
}
