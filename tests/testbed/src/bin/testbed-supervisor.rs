//! Keeps the testbed's processes, and ends them when the program that started it ends.

fn main() -> anyhow::Result<()> {
    testbed::supervisor::service::run()
}
