//! The whole product on real parts. One control plane serves all tests of this binary; each has a namespace and a
//! tenant of its own. A test that disturbs the operator starts a stack of its own.

mod demo;
mod imports;
mod pods;
mod story;

use std::sync::Arc;

use e2e::story::World;
use testbed::shared::Shared;
use testbed::stack::Stack;

/// A world beside the others, on the stack that all tests share.
async fn world(name: &str) -> anyhow::Result<World> {
    static STACK: Shared<Arc<Stack>> = Shared::new();
    // The first test to come starts it, and the others wait; that must not block their runtimes.
    let stack = tokio::task::spawn_blocking(|| {
        STACK.get_or_start(|| async {
            let stack = Stack::start(&|_| {}).await?;
            stack.install().await?;
            Ok(Arc::new(stack))
        })
    });
    World::beside_others(stack.await??.clone(), name)
}
