//! The sovereign clouds of Microsoft Entra ID: which authority, which Graph, which federation audience.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A cloud of Microsoft Entra ID. Authority, Graph and the audience of federated credentials follow from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Cloud {
    /// The global service, GCC included.
    #[default]
    Public,
    /// US Government L4.
    USGov,
    /// US Government L5 (DoD).
    USGovDoD,
    /// China, operated by 21Vianet.
    China,
}

impl Cloud {
    /// Base address of the authority, without a trailing slash.
    pub fn authority(self) -> &'static str {
        match self {
            Self::Public => "https://login.microsoftonline.com",
            Self::USGov | Self::USGovDoD => "https://login.microsoftonline.us",
            // Microsoft's documents disagree (login.chinacloudapi.cn stands in some); this is the newer name.
            Self::China => "https://login.partner.microsoftonline.cn",
        }
    }

    /// Base address of Microsoft Graph, without a trailing slash and without a version.
    pub fn graph(self) -> &'static str {
        match self {
            Self::Public => "https://graph.microsoft.com",
            Self::USGov => "https://graph.microsoft.us",
            Self::USGovDoD => "https://dod-graph.microsoft.us",
            Self::China => "https://microsoftgraph.chinacloudapi.cn",
        }
    }

    /// The audience that a federated credential of this cloud expects in the service account token.
    pub fn federation_audience(self) -> &'static str {
        match self {
            Self::Public => "api://AzureADTokenExchange",
            Self::USGov | Self::USGovDoD => "api://AzureADTokenExchangeUSGov",
            Self::China => "api://AzureADTokenExchangeChina",
        }
    }
}
