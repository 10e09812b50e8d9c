//! National clouds of Microsoft Entra ID, with their addresses and federation audiences.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Cloud of Microsoft Entra ID. It determines the authority, Microsoft Graph and the audience of federated credentials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Cloud {
    /// The global service, including GCC.
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
    /// Returns the base address of the authority, without a trailing slash.
    pub fn authority(self) -> &'static str {
        match self {
            Self::Public => "https://login.microsoftonline.com",
            Self::USGov | Self::USGovDoD => "https://login.microsoftonline.us",
            // Microsoft's documents disagree: some name login.chinacloudapi.cn. This is the newer name.
            Self::China => "https://login.partner.microsoftonline.cn",
        }
    }

    /// Returns the base address of Microsoft Graph, without a trailing slash and a version.
    pub fn graph(self) -> &'static str {
        match self {
            Self::Public => "https://graph.microsoft.com",
            Self::USGov => "https://graph.microsoft.us",
            Self::USGovDoD => "https://dod-graph.microsoft.us",
            Self::China => "https://microsoftgraph.chinacloudapi.cn",
        }
    }

    /// Returns the audience of the service account token that a federated credential of this cloud expects.
    pub fn federation_audience(self) -> &'static str {
        match self {
            Self::Public => "api://AzureADTokenExchange",
            Self::USGov | Self::USGovDoD => "api://AzureADTokenExchangeUSGov",
            Self::China => "api://AzureADTokenExchangeChina",
        }
    }
}
