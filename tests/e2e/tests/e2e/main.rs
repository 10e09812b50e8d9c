//! Tests of the whole product with real parts. All tests of this binary share one control plane; each has its own
//! namespace and tenant. A test that disturbs the operator starts its own stack.

mod demo;
mod imports;
mod pods;
mod story;

use std::sync::Arc;

use e2e::story::World;
use testbed::shared::Shared;
use testbed::stack::Stack;

/// World beside the others, on the stack that all tests share.
async fn world(name: &str) -> anyhow::Result<World> {
    static STACK: Shared<Arc<Stack>> = Shared::new();
    // The first test starts it, and the others wait, which must not block their runtimes.
    let stack = tokio::task::spawn_blocking(|| {
        STACK.get_or_start(|| async {
            let stack = Stack::start(&|_| {}).await?;
            stack.install().await?;
            Ok(Arc::new(stack))
        })
    });
    World::beside_others(stack.await??.clone(), name)
}
