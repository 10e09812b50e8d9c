//! What Helm renders without a cluster.

use testbed::helm::Helm;
use testbed::stack::repository;
use testbed::supervisor::Supervisor;

#[tokio::test(flavor = "multi_thread")]
async fn both_charts_pass_strict_lint() -> anyhow::Result<()> {
    let supervisor = Supervisor::start()?;
    let helm = Helm::offline(&supervisor).await?;
    helm.run(&["lint", "--strict", &repository("charts/mcp-entra-crds"), &repository("charts/mcp-entra")])
        .await
        .map(drop)
}
