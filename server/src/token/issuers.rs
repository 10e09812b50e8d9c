//! Issuers of Entra's tokens (`iss`), by cloud and token version.

use mcp_entra_policy::{EntraConfiguration, TokenVersion};

/// The names of China's authority. Microsoft's documents disagree, so both are accepted.
const CHINA: [&str; 2] = ["https://login.partner.microsoftonline.cn", "https://login.chinacloudapi.cn"];

/// The issuers of one tenant's tokens.
pub(super) struct Issuers {
    version_1: String,
    version_2: String,
}

/// Returns the tenant's version 2 issuer, which is also its name as an authorization server.
pub fn issuer(entra: &EntraConfiguration) -> String {
    version_2(&entra.authority, &entra.tenant_id)
}

fn version_2(authority: &str, tenant_id: &str) -> String {
    format!("{authority}/{tenant_id}/v2.0")
}

impl Issuers {
    /// Returns the issuers of a tenant at this authority. An unknown authority counts as the public cloud.
    pub(super) fn new(authority: &str, tenant_id: &str) -> Self {
        let version_1_host = match CHINA.contains(&authority) {
            true => "sts.chinacloudapi.cn",
            false => "sts.windows.net",
        };
        Self { version_1: format!("https://{version_1_host}/{tenant_id}/"), version_2: version_2(authority, tenant_id) }
    }

    /// Returns the issuer of the tenant's tokens of this version.
    pub(super) fn of(&self, version: TokenVersion) -> &str {
        match version {
            TokenVersion::V1 => &self.version_1,
            TokenVersion::V2 => &self.version_2,
        }
    }

    /// True if the issuer is one of the tenant's two.
    pub(super) fn contain(&self, issuer: &str) -> bool {
        issuer == self.version_1 || issuer == self.version_2
    }
}

#[cfg(test)]
mod tests {
    use mcp_entra_policy::Cloud;

    use super::*;

    #[test]
    fn each_cloud_has_issuers_of_its_own_for_both_versions() {
        let table = [
            (Cloud::Public, "https://login.microsoftonline.com/t/v2.0", "https://sts.windows.net/t/"),
            (Cloud::USGov, "https://login.microsoftonline.us/t/v2.0", "https://sts.windows.net/t/"),
            (Cloud::USGovDoD, "https://login.microsoftonline.us/t/v2.0", "https://sts.windows.net/t/"),
            (Cloud::China, "https://login.partner.microsoftonline.cn/t/v2.0", "https://sts.chinacloudapi.cn/t/"),
        ];
        for (cloud, version_2, version_1) in table {
            let issuers = Issuers::new(cloud.authority(), "t");
            assert_eq!(issuers.of(TokenVersion::V2), version_2, "{cloud:?}");
            assert_eq!(issuers.of(TokenVersion::V1), version_1, "{cloud:?}");
            assert!(issuers.contain(version_1) && issuers.contain(version_2), "{cloud:?}");
        }
        for (cloud, ..) in table.iter().filter(|(cloud, ..)| *cloud != Cloud::China) {
            let issuers = Issuers::new(cloud.authority(), "t");
            assert!(!issuers.contain("https://sts.chinacloudapi.cn/t/"), "{cloud:?}");
        }
        let by_its_older_name = Issuers::new("https://login.chinacloudapi.cn", "t");
        assert_eq!(by_its_older_name.of(TokenVersion::V1), "https://sts.chinacloudapi.cn/t/");
    }
}
